"""Your own test of a gate in AWS Lambda, without Optimove: installing the SDK gives pytest the fixture `fake_optimove`.

Run it:    pip install "optimove-conditional-execution[cli]" pytest

python -m pytest test_lambda_gate.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from optimove_conditional_execution import Request, WebhookReceiver
from optimove_conditional_execution.adapters.aws_lambda import lambda_handler
from optimove_conditional_execution.testing import FakeOptimove, SentNotification, notification, signed_request

os.environ |= {"OPTIMOVE_API_KEY": "k", "OPTIMOVE_BASE_URL": "https://optimove.test", "OPTIMOVE_WEBHOOK_SECRET": "s"}
import lambda_gate  # it reads its settings when it is imported

Ask = Callable[..., SentNotification]


def post(request: Request, fake: FakeOptimove) -> int:
    """Return the status with which the function answers the event that AWS makes of a request."""
    receiver = WebhookReceiver(lambda_gate.may_receive, client=fake.client(), secrets="fake-secret")
    event = {
        "version": "2.0",
        "rawPath": request.path,
        "headers": dict(request.headers),
        "requestContext": {"http": {"method": request.method}},
        "body": request.body.decode(),
        "isBase64Encoded": False,
    }
    status: int = lambda_handler(receiver)(event, None)["statusCode"]
    return status


@pytest.fixture
def ask(fake_optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return what asks the gate about a player whose status is given, or raised."""
    monkeypatch.setenv("OPTIMOVE_WEBHOOK_SECRET", "fake-secret")

    def asking(status: str | Exception | None, *, secret: str = "fake-secret", **options: Any) -> SentNotification:
        def player_status(user_id: str, *, timeout: float) -> str | None:
            if isinstance(status, Exception):
                raise status
            return status

        monkeypatch.setattr(lambda_gate, "player_status", player_status)
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
