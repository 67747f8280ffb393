r"""A gate as it runs in production: JSON logs, probes, metrics of all workers, a decision log, an orderly end.

Run it:    pip install . uvicorn prometheus-client && cd examples && uvicorn --factory production_gate:create_app
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_WEBHOOK_SECRET; GATE_DATA, the folder of claims and decisions;
           PROMETHEUS_MULTIPROC_DIR, an empty folder for the counters of several workers (uvicorn --workers 2)

optimove-ce trigger http://127.0.0.1:8000/optimove --user C234638 --user C100001 -- \
    uvicorn --factory production_gate:create_app --port 8000
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, make_asgi_app
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.applications import Starlette
from starlette.routing import Mount

import optimove_conditional_execution as optimove_ce
from optimove_conditional_execution import Deadline, Decision, Outcome, WebhookNotification
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.stores import SqliteClaims, SqliteDecisionLog

OUTCOMES = Counter("gate_notifications", "Notifications by outcome", ["kind"])
SPARE = Histogram("gate_seconds_to_spare", "Left until the deadline", buckets=(0, 0.25, 0.5, 1, 2, 3, 4, 5))


class JsonLines(logging.Formatter):
    """A JSON object a line; the SDK's attributes of a record begin with `optimove_`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {"at": self.formatTime(record), "level": record.levelname, "message": record.getMessage()}
        line |= {name: value for name, value in vars(record).items() if name.startswith("optimove_")}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def measure(outcome: Outcome) -> None:
    """Count each outcome, and how much time was left."""
    OUTCOMES.labels(outcome.kind).inc()
    if outcome.seconds_to_spare is not None:
        SPARE.observe(outcome.seconds_to_spare)


async def may_receive(notification: WebhookNotification, deadline: Deadline) -> Decision | bool:
    """Replace this with your register; an error or a late answer sends nothing."""
    if notification.is_hashed or notification.user.is_visitor:
        return Decision.abstain("no id of the register's")
    return notification.user.user_id in {"C234638", "C234639"}


def create_app() -> Starlette:
    """Return the service; a setting that is missing stops it here."""
    logging.basicConfig()
    logging.getLogger().handlers[0].setFormatter(JsonLines())
    logging.getLogger("optimove_conditional_execution").setLevel(logging.INFO)  # approved and denied too
    client, secret = optimove_ce.AsyncOptimoveClient(), os.environ["OPTIMOVE_WEBHOOK_SECRET"]
    data = Path(os.environ.get("GATE_DATA", "."))
    claims, log = SqliteClaims(data / "claims.sqlite"), SqliteDecisionLog(data / "decisions.sqlite")
    receiver = optimove_ce.AsyncWebhookReceiver(
        may_receive, client=client, secrets=secret, claims=claims, decision_log=log, on_outcome=measure
    )
    health = optimove_ce.AsyncHealth(client=client, live="/healthz", ready="/readyz")
    registry: CollectorRegistry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:  # whichever worker is asked answers for all
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield
            await receiver.drain()  # what is still being answered

    routes = [Mount("/metrics", make_asgi_app(registry)), Mount("/", ASGIApp(receiver, health=health))]
    return Starlette(routes=routes, lifespan=lifespan)
