"""The service, with requests as Optimove would post them."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from optimove_conditional_execution import Request
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request

import gate
from main import create_app


@pytest.fixture(autouse=True)
def everybody_is_active(monkeypatch: pytest.MonkeyPatch) -> None:
    async def player_status(user_id: str, *, timeout: float) -> str:
        return "active"

    monkeypatch.setenv("OPTIMOVE_WEBHOOK_SECRET", "fake-secret")
    monkeypatch.setattr(gate, "player_status", player_status)


async def post(fake_optimove: FakeOptimove, request: Request) -> int:
    app = create_app(fake_optimove.async_client())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://gate.example.com") as http:
        answer = await http.post(request.path, content=request.body, headers=list(request.headers))
    return answer.status_code


def test_a_notification_is_answered(fake_optimove: FakeOptimove) -> None:
    payload = notification()
    question = fake_optimove.expect(payload)
    request = signed_request(payload, secret="fake-secret", path="/optimove")
    assert asyncio.run(post(fake_optimove, request)) == 200
    assert question.approved


def test_a_forged_one_is_refused(fake_optimove: FakeOptimove) -> None:
    request = signed_request(notification(), secret="not-the-secret", path="/optimove")
    assert asyncio.run(post(fake_optimove, request)) == 401
    assert fake_optimove.calls == []
