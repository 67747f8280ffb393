"""The functions that rehearse at once."""

from __future__ import annotations

import socket

import pytest

from optimove_conditional_execution.rehearsal import (
    PlannedNotification,
    ScheduledRehearsal,
    TriggeredRehearsal,
    rehearse_scheduled,
    rehearse_triggered,
)


def test_a_triggered_rehearsal_in_one_call() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/webhook"
        result = rehearse_triggered(url=url, count=1, rate=100.0, start_within=0.5)
    assert not result.ok
    assert result.findings


def test_a_scheduled_rehearsal_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScheduledRehearsal, "run", lambda rehearsal: rehearsal)
    rehearsed: object = rehearse_scheduled(listener="http://127.0.0.1:1/listener", customers=2)
    assert isinstance(rehearsed, ScheduledRehearsal)
    assert rehearsed.customers == 2


def test_a_repr_shows_neither_tokens_nor_customers() -> None:
    url = "http://127.0.0.1:8000/campaigns?token=the-token"
    notifications = [PlannedNotification("customer-5", {"name": "Mary"})]
    rehearsals = (
        ScheduledRehearsal(listener=url, token="the-token", expected=["customer-5"]),
        TriggeredRehearsal(url=url, users=["customer-5"]),
        TriggeredRehearsal(url=url, notifications=notifications, secret="the-secret"),
        *notifications,
    )
    for text in map(repr, rehearsals):
        assert not [private for private in ("the-token", "the-secret", "customer-5", "Mary") if private in text]
