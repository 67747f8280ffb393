"""The view, with requests as Optimove would post them."""

from __future__ import annotations

import os

import django
import pytest
from django.test import Client
from optimove_conditional_execution import Request
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request

import gate
import views

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()


@pytest.fixture(autouse=True)
def everybody_is_active(fake_optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMOVE_WEBHOOK_SECRET", "fake-secret")
    monkeypatch.setattr(gate, "player_status", lambda user_id, *, timeout: "active")
    receiver = gate.create_receiver(fake_optimove.client(), around=views.database_connections)
    monkeypatch.setattr(views, "receiver", lambda: receiver)


def post(request: Request) -> int:
    http = Client(enforce_csrf_checks=True, headers=dict(request.headers))
    status: int = http.post(request.path, request.body, content_type="application/json").status_code
    return status


def test_a_notification_is_answered(fake_optimove: FakeOptimove) -> None:
    payload = notification()
    question = fake_optimove.expect(payload)
    assert post(signed_request(payload, secret="fake-secret", path="/optimove")) == 200
    assert question.approved


def test_a_forged_one_is_refused(fake_optimove: FakeOptimove) -> None:
    assert post(signed_request(notification(), secret="not-the-secret", path="/optimove")) == 401
    assert fake_optimove.calls == []
