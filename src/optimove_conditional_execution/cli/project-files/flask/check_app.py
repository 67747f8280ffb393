"""The service, with requests as Optimove would post them."""

from __future__ import annotations

import pytest
from optimove_conditional_execution import Request
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request

import gate
from app import create_app


@pytest.fixture(autouse=True)
def everybody_is_active(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMOVE_WEBHOOK_SECRET", "fake-secret")
    monkeypatch.setattr(gate, "player_status", lambda user_id, *, timeout: "active")


def post(fake_optimove: FakeOptimove, request: Request) -> int:
    http = create_app(fake_optimove.client()).test_client()
    return http.post(request.path, data=request.body, headers=list(request.headers)).status_code


def test_a_notification_is_answered(fake_optimove: FakeOptimove) -> None:
    payload = notification()
    question = fake_optimove.expect(payload)
    request = signed_request(payload, secret="fake-secret", path="/optimove")
    assert post(fake_optimove, request) == 200
    assert question.approved


def test_a_forged_one_is_refused(fake_optimove: FakeOptimove) -> None:
    request = signed_request(notification(), secret="not-the-secret", path="/optimove")
    assert post(fake_optimove, request) == 401
    assert fake_optimove.calls == []
