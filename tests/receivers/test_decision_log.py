"""Receivers and the decision log: recorded before the answer leaves, completed after; no approval without it."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import (
    ConfigurationError,
    Deadline,
    Decision,
    Outcome,
    Response,
    RetryPolicy,
    WebhookNotification,
    WebhookReceiver,
)
from optimove_conditional_execution.flows.claims import Claim
from optimove_conditional_execution.stores import (
    Completion,
    DecisionRecord,
    LoggedDecision,
    MemoryClaims,
    SqliteDecisionLog,
)
from optimove_conditional_execution.testing import FakeOptimove, FaultServer, faults, notification, signed_request
from optimove_conditional_execution.testing.faults import Fault
from tests.receivers.conftest import MakeRig, Rig

EVIDENCE = {"rule": "active players only", "version": 4}
USER = "C234638"


class Keeping:
    """A log of one's own, in memory; it can be down, or slow."""

    def __init__(self) -> None:
        self.entries: list[DecisionRecord | Completion] = []
        self.sent: list[int] = []
        self.failures = 0
        self.hangs: threading.Event | None = None
        self.rig: Rig | None = None

    def append(self, entries: Sequence[DecisionRecord | Completion], /) -> None:
        if self.hangs is not None:
            self.hangs.wait(30)
        if self.failures:
            self.failures -= 1
            raise ConnectionError(f"{USER} cannot be recorded")
        if self.rig is not None:
            self.sent.append(len(self.rig.approvals()))
        self.entries += entries

    @property
    def records(self) -> list[DecisionRecord]:
        return [each for each in self.entries if isinstance(each, DecisionRecord)]

    @property
    def completions(self) -> list[Completion]:
        return [each for each in self.entries if isinstance(each, Completion)]


def deciding(decision: object) -> Any:
    def handler(notification: WebhookNotification, deadline: Deadline) -> Any:
        if isinstance(decision, Exception):
            raise decision
        return decision

    return handler


@pytest.mark.parametrize(
    ("decision", "kind", "told"),
    [
        (Decision.approve(reason="fine", evidence=EVIDENCE), "approved", "approved"),
        (Decision.deny("excluded", evidence=EVIDENCE), "denied", "denied"),
        (Decision.abstain("not ours", evidence=EVIDENCE), "abstained", "nothing"),
        (True, "approved", "approved"),
        (False, "denied", "denied"),
    ],
)
def test_recorded_before_the_answer_leaves_and_completed_after(
    rig: MakeRig, decision: object, kind: str, told: str
) -> None:
    log = Keeping()
    made = log.rig = rig(deciding(decision), decision_log=log)
    question = made.notify(USER)
    record, completion = log.entries
    assert isinstance(record, DecisionRecord)
    assert isinstance(completion, Completion)
    assert log.sent == [0, 0 if told == "nothing" else 1]
    assert (record.kind, record.flow, record.request_uid) == (kind, "triggered", question.request_uid)
    assert record.subject.customer_id == USER
    assert record.subject.campaign == made.outcome.series_id is not None
    assert record.redelivered is False
    if isinstance(decision, Decision):
        assert (record.verdict, record.reason, record.evidence) == (decision.verdict, decision.reason, EVIDENCE)
    assert (completion.completes, completion.kind, completion.told) == (record.id, kind, told)
    assert completion.taken is (None if told == "nothing" else True)
    assert {"verify", "parse", "decide", "log", "total"} <= set(completion.seconds)
    assert made.outcome.log_seconds > 0
    # Evidence goes into the log and nowhere else.
    assert "active players only" not in str(made.approvals())


def test_the_body_goes_into_a_log_that_keeps_payloads(rig: MakeRig) -> None:
    plain, keeping = Keeping(), Keeping()
    keeping.keep_payloads = True  # type: ignore[attr-defined]
    for log in (plain, keeping):
        rig(deciding(True), decision_log=log).notify(USER)
    assert plain.records[0].payload is None
    body = keeping.records[0].payload
    assert body is not None
    assert WebhookNotification.from_json(body).user.user_id == USER
    assert USER not in repr(keeping.records)


def test_in_a_file(rig: MakeRig, tmp_path: Path) -> None:
    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        made = rig(deciding(Decision.deny("excluded", {"bonus": 1}, evidence=EVIDENCE)), decision_log=log)
        made.notify(USER)
        (logged,) = log.decisions(customer_id=USER, campaign=made.outcome.series_id)
        assert (logged.record.reason, logged.record.evidence) == ("excluded", EVIDENCE)
        assert logged.record.additional_data == {"bonus": 1}
        assert logged.completion is not None
        assert logged.completion.taken
        assert log.verify() is None


def test_a_host_that_freezes_the_process_after_the_answer_loses_no_completion(rig: MakeRig, tmp_path: Path) -> None:
    """AWS Lambda does: what a thread were to write later, it might never write."""
    path = tmp_path / "decisions.db"
    with SqliteDecisionLog(path) as log, closing(sqlite3.connect(path)) as disk:
        made = rig(deciding(True), decision_log=log)
        for _ in range(3):
            payload = notification(USER)
            made.optimove.expect(payload)
            made.handle(signed_request(payload, secret=made.optimove.secret), deadline=Deadline.after(30))
            count = "SELECT count(*) FROM decision_log WHERE type = 'decision'"
            (decisions,) = disk.execute(count).fetchone()
            (completions,) = disk.execute(count.replace("'decision'", "'completion'")).fetchone()
            assert decisions == completions == len(made.outcomes)


# ---- when the log is down


@pytest.mark.parametrize("on_failure", ["abstain", "deny"])
def test_an_approval_without_evidence_is_not_sent(rig: MakeRig, on_failure: str) -> None:
    log = Keeping()
    log.failures = 1
    made = rig(deciding(True), decision_log=log, on_failure=on_failure)
    question = made.notify(USER)
    assert [sent["approved"] for sent in made.approvals()] == ([] if on_failure == "abstain" else [False])
    assert (made.outcome.kind, question.responses[0].status) == ("failed", 200)
    assert made.outcome.error is not None
    assert made.outcome.error.startswith("The decision log is unreachable: ConnectionError")
    assert USER not in made.outcome.error
    # The log is there again: it gets what was decided, and what became of it.
    (record,), (completion,) = log.records, log.completions
    assert (record.kind, record.verdict) == ("approved", "approve")
    assert (completion.kind, completion.told) == ("failed", "nothing" if on_failure == "abstain" else "denied")


def test_a_denial_is_sent_without_evidence_too(rig: MakeRig) -> None:
    log = Keeping()
    log.failures = 2
    made = rig(deciding(False), decision_log=log)
    made.notify(USER)
    assert [sent["approved"] for sent in made.approvals()] == [False]
    assert made.outcome.kind == "denied"
    assert made.outcome.error is not None


def test_those_who_see_it_otherwise(rig: MakeRig) -> None:
    log = Keeping()
    log.failures = 2
    made = rig(deciding(True), decision_log=log, on_log_failure="decide")
    made.notify(USER)
    assert [sent["approved"] for sent in made.approvals()] == [True]
    assert made.outcome.kind == "approved"
    assert made.outcome.error is not None
    assert "decision log is unreachable" in made.outcome.error


def test_a_log_that_hangs(rig: MakeRig) -> None:
    log = Keeping()
    log.hangs = threading.Event()
    made = rig(deciding(True), decision_log=log)
    started = time.monotonic()
    try:
        made.notify(USER, timeout_ms=1_000)
        assert time.monotonic() - started < 20
    finally:
        log.hangs.set()
    assert made.approvals() == []
    assert (made.outcome.kind, made.outcome.error) == ("failed", "The decision log did not answer in time.")


def test_a_completion_that_is_lost_changes_no_answer(rig: MakeRig) -> None:
    log = Keeping()

    def handler(notification: WebhookNotification, deadline: Deadline) -> bool:
        return True

    made = rig(handler, decision_log=log)
    log.append = _failing_second(log)  # type: ignore[method-assign]
    question = made.notify(USER)
    assert [sent["approved"] for sent in made.approvals()] == [True]
    assert (made.outcome.kind, question.responses[0].status) == ("approved", 200)
    assert made.outcome.error == "The decision log lost what became of it: ConnectionError"


def test_a_completion_that_is_lost_after_another_error_is_an_error_line(
    rig: MakeRig, caplog: pytest.LogCaptureFixture
) -> None:
    log = Keeping()
    log.append = _failing_second(log)  # type: ignore[method-assign]
    made = rig(deciding(ValueError()), decision_log=log)
    made.notify(USER)
    assert made.outcome.error is not None
    assert "ValueError" in made.outcome.error
    lines = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert any("lost what became of request_uid=" in line and line.endswith(": ConnectionError") for line in lines)


def _failing_second(log: Keeping) -> Any:
    append = log.append

    def second_fails(entries: Sequence[DecisionRecord | Completion], /) -> None:
        if log.entries:
            raise ConnectionError(USER)
        append(entries)

    return second_fails


# ---- those who were never asked, and what did not arrive


def test_a_handler_that_fails_or_is_late(rig: MakeRig) -> None:
    log = Keeping()
    rig(deciding(ValueError(USER)), decision_log=log).notify(USER)
    rig(_slow, decision_log=log, reserve=1.0).notify(USER, timeout_ms=1_500)
    assert [(record.kind, record.verdict) for record in log.records] == [("failed", "abstain"), ("late", "abstain")]
    assert [completion.told for completion in log.completions] == ["nothing", "nothing"]
    assert USER not in str([record.error for record in log.records])
    assert all(record.error for record in log.records)


def _slow(notification: WebhookNotification, deadline: Deadline) -> bool:
    time.sleep(deadline.remaining() + 0.1)
    return True


def test_forged_and_expired_and_unreadable(rig: MakeRig) -> None:
    log = Keeping()
    made = rig(deciding(True), decision_log=log, on_failure="deny")
    made.send(notification(USER), secret="another")
    made.send(notification(USER, timeout_ms=0))
    body = notification(USER)
    del body["user"]
    made.send(body)
    made.send(b"[]")
    assert [outcome.kind for outcome in made.outcomes] == ["forged", "expired", "unreadable", "unreadable"]
    forged, expired, denied, unreadable = log.records
    assert (forged.kind, forged.subject.customer_id, forged.verdict) == ("forged", None, None)
    assert (expired.kind, expired.subject.customer_id, expired.verdict) == ("expired", USER, None)
    assert (denied.kind, denied.verdict, denied.request_uid) == ("unreadable", "deny", body["request_uid"])
    assert (unreadable.kind, unreadable.verdict) == ("unreadable", None)
    (completion,) = log.completions
    assert (completion.completes, completion.told) == (denied.id, "denied")


def test_many_forged_requests_do_not_fill_the_log(rig: MakeRig) -> None:
    log = Keeping()
    made = rig(deciding(True), decision_log=log)
    for _ in range(70):
        made.send(notification(USER), secret="another")
    assert len(made.outcomes) == 70
    assert len(log.records) == 60


def test_overloaded() -> None:
    log, release, busy = Keeping(), threading.Event(), threading.Event()

    def handler(notification: WebhookNotification, deadline: Deadline) -> bool:
        busy.set()
        return release.wait(60)

    optimove = FakeOptimove()
    receiver = WebhookReceiver(
        handler, client=optimove.client(), secrets=optimove.secrets, decision_log=log, max_concurrency=1
    )
    waiting = threading.Thread(target=optimove.notify, args=(receiver, "C1"), kwargs={"timeout_ms": 60_000})
    waiting.start()
    assert busy.wait(60)
    optimove.notify(receiver, "C2")
    release.set()
    waiting.join(60)
    refused, approved = log.records
    assert (refused.kind, refused.verdict, refused.subject.customer_id) == ("overloaded", None, "C2")
    assert approved.kind == "approved"


def test_undelivered_and_delivered_again(rig: MakeRig) -> None:
    log = Keeping()
    made = rig(deciding(Decision.approve(evidence=EVIDENCE)), decision_log=log)
    payload = notification(USER, timeout_ms=20_000)
    made.optimove.expect(payload)
    made.optimove.answer_next(Response(400))
    assert made.send(payload).status == 503
    assert made.send(payload).status == 200
    assert made.send(payload).status == 200
    assert [outcome.kind for outcome in made.outcomes] == ["undelivered", "approved", "duplicate"]
    first, again = log.records
    assert (first.redelivered, again.redelivered) == (False, True)
    assert (again.verdict, again.subject.customer_id) == ("approve", USER)
    failed, taken = log.completions
    assert (failed.completes, failed.kind, failed.told, failed.taken) == (first.id, "undelivered", "approved", False)
    assert failed.error is not None
    assert (taken.completes, taken.kind, taken.taken) == (again.id, "approved", True)


@pytest.mark.parametrize(
    ("responses", "taken"),
    [([400], False), ([429, 400], False), ([502, 400], None), ([500] * 500, None), (["lost", 400], None)],
    ids=["refused", "limited, then refused", "failed, then refused", "failed", "lost, then refused"],
)
def test_what_an_earlier_try_may_have_told_is_not_denied(responses: list[Any], taken: bool | None) -> None:
    log, outcomes = Keeping(), list[Outcome]()
    met = [faults.LOST_ANSWER if each == "lost" else faults.answer("", Response(each)) for each in responses]
    with FaultServer(met) as server, server.client() as client:
        receiver = WebhookReceiver(
            lambda notification, deadline: True,
            client=client,
            secrets=server.optimove.secrets,
            decision_log=log,
            on_outcome=outcomes.append,
        )
        server.optimove.notify(receiver, USER, timeout_ms=3_000)
    (outcome,), (completion,) = outcomes, log.completions
    assert (outcome.kind, completion.kind, completion.told, completion.taken) == (
        "undelivered", "undelivered", "approved", taken
    )  # fmt: skip
    if responses[-1] == 400:
        earlier = len(responses) > 1 and responses[0] != 429
        assert ("An earlier request may have reached Optimove: unknown." in str(outcome.error)) is earlier


def test_a_refusal_of_an_answer_that_is_sent_again_says_nothing_of_the_first() -> None:
    log = Keeping()
    chosen = iter([faults.LOST_ANSWER])
    with FaultServer(lambda request: next(chosen, faults.answer("", Response(409)))) as server:
        with server.client(retry=RetryPolicy(attempts=1)) as client:
            receiver = WebhookReceiver(
                lambda notification, deadline: True,
                client=client,
                secrets=server.optimove.secrets,
                decision_log=log,
            )
            payload = notification(USER, timeout_ms=20_000)
            server.optimove.expect(payload)
            for _ in range(2):
                receiver.handle(signed_request(payload, secret=server.optimove.secret))
        assert server.optimove.result(payload["request_uid"]) == "approved"
    assert [each.redelivered for each in log.records] == [False, True]
    assert [each.taken for each in log.completions] == [None, None]


@pytest.mark.parametrize("engine", ["httpx", "aiohttp"])
def test_an_answer_whose_client_is_closed_meanwhile_may_have_been_taken(engine: Any) -> None:
    log = Keeping()
    taken_then_503 = replace(faults.answer("", Response(503)), handled=True)
    again = threading.Event()

    def meets(request: object) -> Fault:
        if server.met:
            again.set()
        return taken_then_503

    with FaultServer(meets) as server:
        client = server.client(engine=engine, retry=RetryPolicy(attempts=50, first_pause=0.05, longest_pause=0.05))
        receiver = WebhookReceiver(
            lambda notification, deadline: True, client=client, secrets=server.optimove.secrets, decision_log=log
        )

        def close() -> None:
            assert again.wait(60)
            client.close()

        closing = threading.Thread(target=close)
        closing.start()
        sent = server.optimove.notify(receiver, USER, timeout_ms=60_000)
        closing.join()
        assert server.optimove.result(sent.request_uid) == "approved"
        server.optimove.notify(receiver, USER, timeout_ms=20_000)
    during, after = log.completions
    assert "closed" in str(during.error)
    assert (during.kind, during.taken) == ("undelivered", None)
    assert (after.kind, after.taken) == ("undelivered", False)  # nothing was sent


class Fencing:
    """A store that says that another replica has taken over."""

    instant = True

    def __init__(self) -> None:
        self._claims = MemoryClaims()

    def acquire(self, question: str, owner: str, lease: float, ttl: float, /) -> Claim:
        return self._claims.acquire(question, owner, lease, ttl)

    def renew(self, question: str, owner: str, lease: float, ttl: float, /) -> bool:
        return False

    def update(self, question: str, owner: str, claim: Claim, lease: float, ttl: float, /) -> bool:
        return False

    def release(self, question: str, owner: str, /) -> None:
        self._claims.release(question, owner)


def test_superseded(rig: MakeRig) -> None:
    log = Keeping()
    made = rig(deciding(True), decision_log=log, claims=Fencing())
    made.notify(USER)
    assert made.approvals() == []
    (completion,) = log.completions
    assert (completion.kind, completion.told, completion.taken) == ("superseded", "nothing", None)


KILLED = """
import os, signal, sys
from optimove_conditional_execution import Decision, WebhookReceiver
from optimove_conditional_execution.stores import SqliteDecisionLog
from optimove_conditional_execution.testing import FakeOptimove

class Killing:
    def __init__(self, log):
        self.log = log
        self.calls = 0

    def append(self, entries):
        self.calls += 1
        if self.calls == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        self.log.append(entries)

optimove = FakeOptimove()
log = Killing(SqliteDecisionLog(sys.argv[1]))
handler = lambda notification, deadline: Decision.approve(evidence={"rule": 4})
receiver = WebhookReceiver(handler, client=optimove.client(), secrets=optimove.secret, decision_log=log)
optimove.notify(receiver, user_id="C234638")
"""


def test_kill_between_the_answer_and_its_completion(tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], timeout=60, check=False)
    assert done.returncode == -9
    with SqliteDecisionLog(path) as log:
        (logged,) = log.decisions(customer_id=USER)
        assert isinstance(logged, LoggedDecision)
        assert (logged.record.verdict, logged.record.evidence, logged.completion) == ("approve", {"rule": 4}, None)
        assert log.verify() is None


# ---- what an outcome knows


def test_an_outcome_can_be_joined_to_a_customer(rig: MakeRig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = rig(deciding(ValueError()))
    payload = notification("Mr-Grey")
    made.optimove.expect(payload)
    made.send(payload)
    outcome = made.outcome
    occurrence = payload["occurrence"]
    assert (outcome.user_id, outcome.series_id) == ("Mr-Grey", str(occurrence["series_id"]))
    assert outcome.occurrence_id == str(occurrence["occurrence_id"])
    assert outcome.action_id == str(occurrence["action"]["id"])
    assert outcome.channel_ids == tuple(str(channel["id"]) for channel in occurrence["action"]["channels"])
    assert "Mr-Grey" not in repr(outcome)
    assert "Mr-Grey" not in str([record.__dict__ for record in caplog.records])
    (line,) = [record for record in caplog.records if record.name.endswith(".webhook")]
    assert line.__dict__["optimove_error"] == outcome.error is not None


def test_an_outcome_of_a_forged_request_names_nobody(rig: MakeRig) -> None:
    made = rig(deciding(True))
    made.send(notification(USER), secret="another")
    outcome: Outcome = made.outcome
    assert (outcome.user_id, outcome.series_id, outcome.channel_ids) == (None, None, ())


# ---- settings


def test_settings_that_are_refused() -> None:
    optimove = FakeOptimove()

    class Awaited:
        async def append(self, entries: Sequence[object], /) -> None: ...

    for name, given in (
        ("decision_log must be", {"decision_log": object()}),
        ("decision_log must be", {"decision_log": "decisions.db"}),
        ("append must be a plain function", {"decision_log": Awaited()}),
        ("on_log_failure must be", {"on_log_failure": "ignore"}),
    ):
        with pytest.raises(ConfigurationError, match=name):
            WebhookReceiver(deciding(True), client=optimove.client(), secrets="s", **given)


def test_a_file_that_cannot_be_written(rig: MakeRig, tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    with SqliteDecisionLog(path) as log:
        made = rig(deciding(True), decision_log=log)
        path.unlink()
        made.notify(USER)
    assert (made.outcome.kind, made.approvals()) == ("failed", [])
    assert "was removed or replaced" in str(made.outcome.error)
    assert not path.exists()
