"""Your own test of your gate, without Optimove: installing the SDK gives pytest the fixture `fake_optimove`.

Run it:    pip install optimove-conditional-execution pytest flask
           pytest test_gate.py
"""

from __future__ import annotations

from flask_gate import may_receive
from optimove_conditional_execution import WebhookReceiver
from optimove_conditional_execution.testing import FakeOptimove


def test_only_players_who_have_the_bonus_are_told_of_it(fake_optimove: FakeOptimove) -> None:
    receiver = WebhookReceiver(may_receive, client=fake_optimove.client(), secrets="fake-secret")
    assert fake_optimove.notify(receiver, "C234638").approved
    assert not fake_optimove.notify(receiver, "C999999").approved
