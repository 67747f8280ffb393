"""Your own test of a gate in FastAPI, without Optimove: installing the SDK gives pytest the fixture `fake_optimove`.

Run it:    pip install "optimove-conditional-execution[cli]" fastapi pytest

python -m pytest test_fastapi_gate.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import fastapi_gate
from optimove_conditional_execution import Request
from optimove_conditional_execution.testing import FakeOptimove, SentNotification, notification, signed_request

Ask = Callable[..., SentNotification]


def post(request: Request, fake: FakeOptimove) -> int:
    """Return the status with which the service answers."""

    async def posting() -> int:
        transport = httpx.ASGITransport(fastapi_gate.create_app(fake.async_client()))
        async with httpx.AsyncClient(transport=transport, base_url="http://gate.test") as http:
            answer = await http.post(request.path, content=request.body, headers=dict(request.headers))
            return answer.status_code

    return asyncio.run(posting())


@pytest.fixture
def ask(fake_optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return what asks the gate about a player whose status is given, or raised."""
    monkeypatch.setenv("OPTIMOVE_WEBHOOK_SECRET", "fake-secret")

    def asking(status: str | Exception | None, *, secret: str = "fake-secret", **options: Any) -> SentNotification:
        async def player_status(user_id: str, *, timeout: float) -> str | None:
            if isinstance(status, Exception):
                raise status
            return status

        monkeypatch.setattr(fastapi_gate, "player_status", player_status)
        payload = notification(**options)
        question = fake_optimove.expect(payload)
        request = signed_request(payload, secret=secret, path="/optimove")
        assert post(request, fake_optimove) == (200 if secret == "fake-secret" else 401)
        return question

    return asking


def test_only_active_players_get_the_campaign(ask: Ask) -> None:
    assert ask("active").approved
    for status in ("self-excluded", None):
        denied = ask(status)
        assert denied.answer is not None
        assert not denied.approved


def test_ids_that_the_register_cannot_know_are_left_alone(ask: Ask) -> None:
    visitor = {"user_id": "C100001", "is_visitor": True}
    for changes in ({"is_hashed": True}, {"user": visitor}):
        assert ask("active", changes=changes).answer is None


def test_a_broken_register_does_not_approve(ask: Ask) -> None:
    assert ask(ConnectionError("the register is down")).answer is None


def test_a_forged_notification_is_refused(ask: Ask, fake_optimove: FakeOptimove) -> None:
    assert ask("active", secret="not-the-secret").answer is None
    assert fake_optimove.calls == []
