"""Your own test of a gate in Flask, without Optimove: installing the SDK gives pytest the fixture `fake_optimove`.

Run it:    pip install "optimove-conditional-execution[cli]" flask pytest

python -m pytest test_flask_gate.py
"""

from __future__ import annotations

import pytest

from flask_gate import create_app, may_receive
from optimove_conditional_execution import Outcome, WebhookReceiver
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request


def test_only_players_who_have_the_bonus_are_told_of_it(fake_optimove: FakeOptimove) -> None:
    receiver = WebhookReceiver(may_receive, client=fake_optimove.client(), secrets="fake-secret")
    for player, result in {"C234638": "approved", "C999999": "denied"}.items():
        question = fake_optimove.notify(receiver, player)
        assert fake_optimove.result(question.request_uid) == result


def test_ids_that_the_bonus_system_cannot_know_are_left_alone(fake_optimove: FakeOptimove) -> None:
    outcomes: list[Outcome] = []
    receiver = WebhookReceiver(
        may_receive, client=fake_optimove.client(), secrets="fake-secret", on_outcome=outcomes.append
    )
    visitor = {"user_id": "C234638", "is_visitor": True}
    for changes in ({"is_hashed": True}, {"user": visitor}):
        assert fake_optimove.notify(receiver, "C234638", changes=changes).answer is None
    assert [outcome.kind for outcome in outcomes] == ["abstained", "abstained"]


def test_the_route(fake_optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTIMOVE_WEBHOOK_SECRET", "fake-secret")
    payload = notification("C234638")
    question = fake_optimove.expect(payload)
    request = signed_request(payload, secret="fake-secret", path="/optimove")
    http = create_app(fake_optimove.client()).test_client()
    assert http.post(request.path, data=request.body, headers=list(request.headers)).status_code == 200
    assert fake_optimove.result(question.request_uid) == "approved"
    forged = signed_request(notification("C234638"), secret="not-the-secret", path="/optimove")
    assert http.post(forged.path, data=forged.body, headers=list(forged.headers)).status_code == 401
