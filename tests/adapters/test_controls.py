"""Switch, shadow and observe of receivers that are served over loopback, with Optimove's stand-in on loopback too."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import httpx
import pytest

from optimove_conditional_execution import (
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    Deadline,
    OptimoveClient,
    WebhookNotification,
    WebhookReceiver,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.adapters.wsgi import WSGIApp
from optimove_conditional_execution.flows import switch as flow
from optimove_conditional_execution.shadow import Shadow
from optimove_conditional_execution.stores import SqliteDecisionLog
from optimove_conditional_execution.switch import change_switch
from optimove_conditional_execution.testing import FakeOptimove, notification
from tests.conftest import served

pytestmark = pytest.mark.usefixtures("patient_switch")

Serve = Callable[..., contextlib.AbstractContextManager[str]]


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the standard library's name
        return


class Closing:
    """An ASGI application that closes its client when the server stops."""

    def __init__(self, app: ASGIApp, client: AsyncOptimoveClient) -> None:
        self._app = app
        self._client = client

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app(scope, receive, send)
        if scope["type"] == "lifespan":
            await self._client.aclose()


def approve(notification: WebhookNotification, deadline: Deadline) -> bool:
    return True


def deny(notification: WebhookNotification, deadline: Deadline) -> bool:
    return False


@pytest.fixture(params=["sync", "async"])
def serve(request: pytest.FixtureRequest, fake_optimove: FakeOptimove, optimove_url: str) -> Serve:
    """Serve a receiver, with its clients over loopback."""
    given: dict[str, Any] = {"api_key": fake_optimove.api_key, "base_url": optimove_url}

    @contextlib.contextmanager
    def threads(**options: Any) -> Iterator[str]:
        with OptimoveClient(**given) as client:
            receiver = WebhookReceiver(approve, client=client, secrets=fake_optimove.secrets, **options)
            with make_server("127.0.0.1", 0, WSGIApp(receiver), handler_class=Quiet) as server:
                thread = threading.Thread(target=server.serve_forever, args=(0.01,))
                thread.start()
                yield f"http://127.0.0.1:{server.server_port}"
                server.shutdown()
                thread.join()

    @contextlib.contextmanager
    def tasks(**options: Any) -> Iterator[str]:
        client = AsyncOptimoveClient(**given)
        receiver = AsyncWebhookReceiver(approve, client=client, secrets=fake_optimove.secrets, **options)
        with served(Closing(ASGIApp(receiver), client)) as url:
            yield url

    return threads if request.param == "sync" else tasks


def post(url: str, fake: FakeOptimove) -> bool | None:
    """Post a notification; return what Optimove was told."""
    payload = notification()
    asked = fake.expect(payload)
    request = fake.delivery(url, payload).request
    answer = httpx.post(url, headers=dict(request.headers), content=request.body, trust_env=False)
    assert answer.status_code == 200
    return None if asked.answer is None else asked.answer.approved


def test_a_switch_that_is_thrown_while_the_service_runs(
    serve: Serve, fake_optimove: FakeOptimove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "LOOK_SECONDS", 0.0)
    path = tmp_path / "switch"
    change_switch(path, "ask")
    told: list[bool | None] = []
    with serve(switch=path) as url:
        for mode in ("ask", "deny", "abstain", "ask"):
            change_switch(path, mode)
            told.append(post(url, fake_optimove))
        path.unlink()
        told.append(post(url, fake_optimove))
    assert told == [True, False, None, True, None]


def test_a_shadow_and_a_gate_that_observes(serve: Serve, fake_optimove: FakeOptimove, tmp_path: Path) -> None:
    shadow = Shadow(deny)
    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        with serve(shadow=shadow, decision_log=log) as url:
            assert post(url, fake_optimove) is True
            assert shadow.wait(within=30)
        with serve(observe=True, decision_log=log) as url:
            assert post(url, fake_optimove) is None
        found = [each.record for each in log.decisions()]
    assert [(each.kind, each.decided, each.observed) for each in found] == [
        ("approved", None, None),
        ("shadow", "approved", "denied"),
        ("abstained", None, "approved"),
    ]
