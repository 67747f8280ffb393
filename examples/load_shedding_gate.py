r"""A gate whose register is slow at times: it abstains immediately, instead of queueing until all answers are late.

Run it:    pip install . uvicorn && cd examples && uvicorn --factory load_shedding_gate:create_app     (in a clone)
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_WEBHOOK_SECRET

optimove-ce trigger http://127.0.0.1:8000/optimove --user C234638 --user C100001 -- \
    uvicorn --factory load_shedding_gate:create_app --port 8000
"""

from __future__ import annotations

import os
import time

import optimove_conditional_execution as optimove_ce
from optimove_conditional_execution import Deadline, Decision, WebhookNotification
from optimove_conditional_execution.adapters.asgi import ASGIApp


class Guard:
    """A bulkhead and a circuit breaker before the register: few calls at once, and none for a while when it fails."""

    places, failures, pause = 20, 5, 2.0  # calls at once; failures in a row before a pause; its seconds
    busy, failed, closed_until = 0, 0, 0.0

    def refuses(self) -> bool:
        """Whether a call would have to wait, or is likely to fail."""
        return self.busy >= self.places or time.monotonic() < self.closed_until

    def __enter__(self) -> None:
        self.busy += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.busy -= 1
        self.failed = 0 if kind is None else self.failed + 1  # a call that is too slow is cancelled, which counts
        if self.failed >= self.failures:
            self.closed_until = time.monotonic() + self.pause


guard = Guard()  # each process has one: with four of them the register bears four times `places`


async def is_active(user_id: str) -> bool:
    """Replace this with your register; an error when it is down."""
    return user_id in {"C234638", "C234639"}


async def may_receive(notification: WebhookNotification, deadline: Deadline) -> Decision | bool:
    """Ask the register when it is likely to answer in time; an error or a late answer sends nothing."""
    if notification.is_hashed or notification.user.is_visitor or guard.refuses():
        return Decision.abstain("no id of the register's, or the register is busy or down")
    with guard:
        return await is_active(notification.user.user_id)


def create_app() -> ASGIApp:
    """Return the service. Beyond `max_concurrency` a notification gets a 503 immediately, without a call."""
    client, secret = optimove_ce.AsyncOptimoveClient(), os.environ["OPTIMOVE_WEBHOOK_SECRET"]
    return ASGIApp(optimove_ce.AsyncWebhookReceiver(may_receive, client=client, secrets=secret, max_concurrency=100))
