"""The service over HTTP, with requests as Optimove would post them."""

from __future__ import annotations

import threading
from http.client import HTTPConnection

import pytest
from optimove_conditional_execution import Request
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request

import gate
from serve import create_app, create_server


@pytest.fixture(autouse=True)
def everybody_is_active(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMOVE_WEBHOOK_SECRET", "fake-secret")
    monkeypatch.setattr(gate, "player_status", lambda user_id, *, timeout: "active")


def post(fake_optimove: FakeOptimove, request: Request) -> int:
    with create_server(create_app(fake_optimove.client()), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        http = HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        try:
            http.request("POST", request.path, request.body, dict(request.headers))
            return http.getresponse().status
        finally:
            http.close()
            server.shutdown()
            thread.join()


def test_a_notification_is_answered(fake_optimove: FakeOptimove) -> None:
    payload = notification()
    question = fake_optimove.expect(payload)
    assert post(fake_optimove, signed_request(payload, secret="fake-secret", path="/optimove")) == 200
    assert question.approved


def test_a_forged_one_is_refused(fake_optimove: FakeOptimove) -> None:
    request = signed_request(notification(), secret="not-the-secret", path="/optimove")
    assert post(fake_optimove, request) == 401
    assert fake_optimove.calls == []
