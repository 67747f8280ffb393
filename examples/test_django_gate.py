"""Your own test of a gate in Django, without Optimove: installing the SDK gives pytest the fixture `fake_optimove`.

Run it:    pip install "optimove-conditional-execution[cli]" django pytest

python -m pytest test_django_gate.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client

from optimove_conditional_execution import Request, WebhookReceiver
from optimove_conditional_execution.testing import FakeOptimove, SentNotification, notification, signed_request

os.environ |= {"OPTIMOVE_API_KEY": "k", "OPTIMOVE_BASE_URL": "https://optimove.test", "OPTIMOVE_WEBHOOK_SECRET": "s"}
import django_gate  # it reads its settings when it is imported

Ask = Callable[..., SentNotification]


def post(request: Request, fake: FakeOptimove) -> int:
    """Return the status with which the view answers."""
    django_gate.receiver = WebhookReceiver(
        django_gate.may_receive, client=fake.client(), secrets="fake-secret", around=django_gate.database_connections
    )
    http = Client(enforce_csrf_checks=True, headers=dict(request.headers))
    status: int = http.post(request.path, request.body, content_type="application/json").status_code
    return status


@pytest.fixture
def ask(fake_optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Return what asks the gate about a player whose status is given, or raised."""
    monkeypatch.setenv("OPTIMOVE_WEBHOOK_SECRET", "fake-secret")

    def asking(status: str | Exception | None, *, secret: str = "fake-secret", **options: Any) -> SentNotification:
        def is_active(user_id: str, *, timeout: float) -> bool:
            if isinstance(status, Exception):
                raise status
            return status == "active"

        monkeypatch.setattr(django_gate, "is_active", is_active)
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
