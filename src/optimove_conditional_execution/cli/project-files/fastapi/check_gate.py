"""The gate by itself, against a stand-in for Optimove. Installing the SDK gives pytest the fixture `fake_optimove`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from optimove_conditional_execution.testing import FakeOptimove, SentNotification

import gate

Ask = Callable[..., SentNotification]


@pytest.fixture
def ask(fake_optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Ask the gate about a player whose status is given, or raised."""
    monkeypatch.setenv("OPTIMOVE_WEBHOOK_SECRET", "fake-secret")
    receiver = gate.create_receiver(fake_optimove.async_client())

    def asking(status: str | Exception | None, **options: Any) -> SentNotification:
        async def player_status(user_id: str, *, timeout: float) -> str | None:
            if isinstance(status, Exception):
                raise status
            return status

        monkeypatch.setattr(gate, "player_status", player_status)
        return asyncio.run(fake_optimove.anotify(receiver, **options))

    return asking


def test_an_active_player_gets_the_campaign(
    fake_optimove: FakeOptimove, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    assert fake_optimove.result(ask("active").request_uid) == "approved"
    assert caplog.messages[-1].startswith("approved")


@pytest.mark.parametrize("status", ["self-excluded", None])
def test_any_other_player_does_not(fake_optimove: FakeOptimove, ask: Ask, status: str | None) -> None:
    assert fake_optimove.result(ask(status).request_uid) == "denied"


def test_ids_that_the_register_cannot_know_are_left_alone(ask: Ask) -> None:
    visitor = {"user_id": "C100001", "is_visitor": True}
    for changes in ({"is_hashed": True}, {"user": visitor}):
        assert ask("active", changes=changes).answer is None


def test_a_broken_register_does_not_approve(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    assert ask(ConnectionError("the register is down")).answer is None
    assert "ConnectionError" in caplog.text
