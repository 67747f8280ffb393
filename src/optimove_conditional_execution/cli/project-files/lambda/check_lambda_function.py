"""The function, with the events that AWS makes of Optimove's requests."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
from optimove_conditional_execution import Request
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request

import gate

Post = Callable[[Request], int]


@pytest.fixture
def post(fake_optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch) -> Post:
    """Start the function as Lambda does, by importing it, with everybody active; return what calls it."""
    monkeypatch.setenv("OPTIMOVE_WEBHOOK_SECRET", "fake-secret")
    monkeypatch.setattr(gate, "OptimoveClient", fake_optimove.client)
    monkeypatch.setattr(gate, "player_status", lambda user_id, *, timeout: "active")
    monkeypatch.delitem(sys.modules, "lambda_function", raising=False)
    function = importlib.import_module("lambda_function")

    def posting(request: Request) -> int:
        event: dict[str, Any] = {
            "version": "2.0",
            "rawPath": request.path,
            "rawQueryString": "",
            "headers": {name.lower(): value for name, value in request.headers},
            "requestContext": {"http": {"method": request.method, "path": request.path}},
            "body": request.body.decode(),
            "isBase64Encoded": False,
        }
        status: int = function.lambda_handler(event, None)["statusCode"]
        return status

    return posting


def test_a_notification_is_answered(fake_optimove: FakeOptimove, post: Post) -> None:
    payload = notification()
    question = fake_optimove.expect(payload)
    assert post(signed_request(payload, secret="fake-secret")) == 200
    assert question.approved


def test_a_forged_one_is_refused(fake_optimove: FakeOptimove, post: Post) -> None:
    assert post(signed_request(notification(), secret="not-the-secret")) == 401
    assert fake_optimove.calls == []
