"""A shadow beside the handler, and `observe=True`: what they say is recorded, and never counts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import ConfigurationError, Deadline, Decision, Response, WebhookNotification
from optimove_conditional_execution.shadow import Shadow, ShadowAnswer
from optimove_conditional_execution.stores import DecisionRecord, LoggedDecision, MemoryClaims, SqliteDecisionLog
from optimove_conditional_execution.testing import notification
from tests.receivers.conftest import MakeRig, Rig

PATIENCE = 20.0

Rule = Callable[[WebhookNotification, Deadline], Any]


def saying(answer: object) -> Rule:
    def rule(notification: WebhookNotification, deadline: Deadline) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return rule


async def coroutine_function(notification: WebhookNotification, deadline: Deadline) -> bool:
    return True


def settle(made: Rig, shadow: Shadow[Any]) -> None:
    """Wait until a shadow has answered, in whichever event loop."""
    assert made.runner.run(asyncio.to_thread(shadow.wait, within=PATIENCE))


def shadows(log: SqliteDecisionLog) -> list[DecisionRecord]:
    return [each.record for each in log.decisions() if each.record.kind == "shadow"]


ANSWERS = [
    (True, "approved"),
    (False, "denied"),
    (Decision.approve({"bonus": 1}, reason="new", evidence={"version": 5}), "approved"),
    (Decision.abstain("new"), "abstained"),
    (RuntimeError("C234638"), "failed"),
    (SystemExit(3), "failed"),
    ("yes", "failed"),
    (None, "failed"),
]


@pytest.mark.parametrize("real", [True, False, RuntimeError("C234638")])
@pytest.mark.parametrize(("answer", "observed"), ANSWERS)
@pytest.mark.parametrize("colour", ["plain", "coroutine"])
def test_it_is_recorded_and_never_counts(
    rig: MakeRig, kind: str, tmp_path: Path, real: object, answer: object, observed: str, colour: str
) -> None:
    if colour == "coroutine" and kind == "sync":
        with pytest.raises(ConfigurationError, match="An async shadow needs AsyncWebhookReceiver"):
            rig(saying(real), shadow=coroutine_function)
        return

    async def coroutine(notification: WebhookNotification, deadline: Deadline) -> Any:
        await asyncio.sleep(0)
        return saying(answer)(notification, deadline)

    told: list[ShadowAnswer] = []
    rule: Any = saying(answer) if colour == "plain" else coroutine
    shadow = Shadow(rule, on_answer=told.append)
    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        made = rig(saying(real), shadow=shadow, decision_log=log)
        question = made.notify()
        settle(made, shadow)
        (record,) = shadows(log)
        assert log.verify() is None
    decided = {True: "approved", False: "denied"}.get(real, "failed") if isinstance(real, bool) else "failed"
    assert (made.outcome.kind, question.responses[0].status) == (decided, 200)
    assert [each["approved"] for each in made.approvals()] == ([real] if isinstance(real, bool) else [])
    assert (record.observed, record.decided, record.verdict) == (observed, decided, None)
    assert (record.request_uid, record.subject.customer_id) == (question.request_uid, "C234638")
    assert record.differs is (observed != decided)
    if isinstance(answer, Decision):
        assert (record.reason, record.evidence) == (answer.reason, answer.evidence)
    if observed == "failed":
        assert record.error
        assert "C234638" not in record.error
    assert told == [ShadowAnswer(decided=decided, observed=observed, campaign=made.outcome.series_id)]
    assert shadow.counts == {(decided, observed): 1}


def test_it_has_the_time_that_the_handler_had_and_a_late_one_is_recorded(rig: MakeRig, tmp_path: Path) -> None:
    given: list[float] = []

    def slow(notification: WebhookNotification, deadline: Deadline) -> bool:
        given.append(deadline.remaining())
        time.sleep(deadline.remaining() + 0.05)
        return True

    shadow = Shadow(slow)
    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        made = rig(saying(True), shadow=shadow, decision_log=log)
        made.notify(timeout_ms=1_500)
        assert made.outcome.kind == "approved"
        settle(made, shadow)
        (record,) = shadows(log)
    assert (record.observed, record.decided) == ("late", "approved")
    assert 0 < given[0] < 1.5


@pytest.mark.parametrize("colour", ["plain", "coroutine"])
def test_one_that_hangs_delays_nothing_and_what_it_has_no_room_for_is_dropped(
    rig: MakeRig, kind: str, colour: str
) -> None:
    if colour == "coroutine" and kind == "sync":
        return  # it takes none: see above
    over = threading.Event()
    asked: list[str] = []

    def hanging(notification: WebhookNotification, deadline: Deadline) -> bool:
        asked.append(notification.request_uid)
        over.wait(PATIENCE)
        return True

    async def stubborn(notification: WebhookNotification, deadline: Deadline) -> bool:
        asked.append(notification.request_uid)
        while not over.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue  # it cannot be stopped
        return True

    rule: Any = hanging if colour == "plain" else stubborn
    shadow = Shadow(rule, max_concurrency=2, timeout=0.6)
    made = rig(saying(True), shadow=shadow)
    began = time.monotonic()
    for number in range(10):
        made.notify(f"C{number}")
    assert time.monotonic() - began < PATIENCE / 2
    assert [each.kind for each in made.outcomes] == ["approved"] * 10
    assert shadow.dropped == 8
    while len(asked) < 2:  # a thread may begin late
        assert time.monotonic() - began < PATIENCE
        time.sleep(0.01)
    assert len(asked) == 2
    assert shadow.wait(within=0.0) is False
    time.sleep(0.7)
    over.set()
    settle(made, shadow)
    assert shadow.counts == {("approved", "dropped"): 8, ("approved", "late"): 2}


def test_a_coroutine_that_is_late_is_cancelled(rig: MakeRig, kind: str) -> None:
    if kind == "sync":
        return  # it takes none: see above
    ended: list[str] = []

    async def endless(notification: WebhookNotification, deadline: Deadline) -> bool:
        try:
            await asyncio.sleep(2 * PATIENCE)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return True

    shadow = Shadow(endless, timeout=0.6)
    made = rig(saying(True), shadow=shadow)
    made.notify()
    settle(made, shadow)
    assert ended == ["cancelled"]
    assert shadow.counts == {("approved", "late"): 1}


def test_a_log_that_fails_for_it_fails_nothing_else(rig: MakeRig, caplog: pytest.LogCaptureFixture) -> None:
    kept: list[str] = []

    class Log:
        def append(self, entries: Any, /) -> None:
            for each in entries:
                if isinstance(each, DecisionRecord) and each.kind == "shadow":
                    raise ConnectionError("C234638")
                kept.append(each.kind)

    shadow = Shadow(saying(False))
    made = rig(saying(True), shadow=shadow, decision_log=Log())
    made.notify()
    settle(made, shadow)
    assert (made.outcome.kind, made.outcome.error, kept) == ("approved", None, ["approved", "approved"])
    assert "a shadow's answer could not be recorded: ConnectionError" in caplog.text
    assert "C234638" not in caplog.text


def test_it_is_asked_only_about_what_the_handler_was_asked(rig: MakeRig) -> None:
    shadow = Shadow(saying(True))
    made = rig(saying(True), shadow=shadow, switch=lambda: "deny tag Other")
    payload = notification()
    made.optimove.expect(payload)
    made.optimove.answer_next(Response(400, {}, b"{}"))
    assert made.send(payload).status == 503  # undelivered, and asked about
    assert made.send(payload).status == 200  # the same answer again
    assert made.send(payload).status == 200  # a duplicate
    made.send(payload, secret="another")
    made.send(notification(timeout_ms=0))
    settle(made, shadow)
    assert [each.kind for each in made.outcomes] == ["undelivered", "approved", "duplicate", "forged", "expired"]
    assert shadow.counts == {("approved", "approved"): 1}


@pytest.mark.parametrize("shadow", [3, lambda: True, Decision.approve()])
def test_what_is_no_handler_is_refused(rig: MakeRig, shadow: Any) -> None:
    with pytest.raises(ConfigurationError, match="shadow must"):
        rig(saying(True), shadow=shadow)


@pytest.mark.parametrize("real", [answer for answer, _ in ANSWERS])
def test_beside_a_shadow_and_a_switch_that_says_ask_all_is_as_without_them(rig: MakeRig, real: object) -> None:
    found: list[Any] = []
    for options in ({}, {"shadow": saying(False)}, {"switch": lambda: "ask"}, {"observe": False}):
        made = rig(saying(real), on_failure="deny", **options)
        question = made.notify()
        made.send(notification(timeout_ms=0))
        made.send(notification(changes={"user": None}))
        told = [(each.kind, each.status, each.decision, each.error) for each in made.outcomes]
        sent = [(each["approved"], each["additional_data"]) for each in made.approvals()]
        found.append((told, sent, question.responses[0].status, question.responses[0].body))
    assert found[1:] == found[:1] * 3


# ---- observe


@pytest.mark.parametrize("on_failure", ["abstain", "deny"])
@pytest.mark.parametrize(("answer", "observed"), ANSWERS)
def test_observing_answers_nothing_and_records_what_it_would_have_said(
    rig: MakeRig, tmp_path: Path, answer: object, observed: str, on_failure: str
) -> None:
    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        made = rig(saying(answer), observe=True, decision_log=log, on_failure=on_failure)
        question = made.notify()
        (logged,) = log.decisions()
    assert (made.approvals(), question.responses[0].status) == ([], 200)
    kind = "failed" if observed == "failed" else "abstained"
    assert (made.outcome.kind, made.outcome.observed) == (kind, observed)
    assert made.outcome.decision is not None
    assert made.outcome.decision.verdict == "abstain"
    assert_observed(logged, kind, observed)
    if isinstance(answer, Decision):
        assert (logged.record.reason, logged.record.evidence) == (answer.reason, answer.evidence)
        assert logged.record.additional_data == answer.additional_data


def assert_observed(logged: LoggedDecision, kind: str, observed: str) -> None:
    record = logged.record
    assert (record.kind, record.verdict, record.observed) == (kind, "abstain", observed)
    assert record.differs is (observed not in {kind})
    assert logged.completion is not None
    assert logged.completion.told == "nothing"


def test_observing_sends_nothing_whatever_comes(rig: MakeRig) -> None:
    made = rig(saying(True), observe=True, on_failure="deny", switch=lambda: "deny")
    payload = notification()
    made.optimove.expect(payload)
    made.send(payload)
    made.send(payload)
    unreadable = notification(changes={"user": None})
    made.optimove.expect(notification())
    made.send(unreadable)
    assert [each.kind for each in made.outcomes] == ["abstained", "duplicate", "unreadable"]
    assert made.outcomes[0].observed == "denied"
    assert made.approvals() == []


def test_what_was_decided_before_it_observed_is_held_back(rig: MakeRig) -> None:
    claims = MemoryClaims()
    before = rig(saying(True), claims=claims)
    payload = notification()
    before.optimove.expect(payload)
    before.optimove.answer_next(Response(400, {}, b"{}"))
    assert before.send(payload).status == 503
    after = rig(saying(True), claims=claims, observe=True, client=None, secrets=before.optimove.secret)
    assert after.send(payload, secret=before.optimove.secret).status == 503
    assert after.outcome.kind == "undelivered"
    assert after.outcome.error == "Held back: observe=True answers nothing."
    assert after.approvals() == []


def test_observe_is_true_or_false(rig: MakeRig) -> None:
    with pytest.raises(ConfigurationError, match="observe must be True or False"):
        rig(saying(True), observe="no")
