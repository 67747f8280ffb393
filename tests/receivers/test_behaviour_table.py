"""The table "Triggered: one notification", row by row, for both receivers and both kinds of handlers."""

from __future__ import annotations

import asyncio
import functools
import io
import json
import logging
import pickle
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from optimove_conditional_execution import (
    UNSIGNED,
    Approval,
    AsyncWebhookReceiver,
    ConfigurationError,
    Deadline,
    Decision,
    OptimoveError,
    Outcome,
    PayloadError,
    Request,
    Response,
    WebhookNotification,
    WebhookReceiver,
)
from optimove_conditional_execution.flows.claims import question_of
from optimove_conditional_execution.stores import Claim, ClaimState, MemoryClaims, SqliteClaims
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request
from optimove_conditional_execution.transport import rate_limit
from tests.receivers.conftest import MakeRig


def yes(notification: WebhookNotification, deadline: Deadline) -> bool:
    return True


def no(notification: WebhookNotification, deadline: Deadline) -> bool:
    return False


class Counting:
    """A handler that counts how often it is asked."""

    def __init__(self, answer: Any = True) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def __call__(self, notification: WebhookNotification, deadline: Deadline) -> Any:
        self.asked.append(notification.request_uid)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


# ---- who sends what


def test_a_signature_that_is_missing_wrong_doubled_or_not_ascii(rig: MakeRig) -> None:
    handler = Counting()
    made = rig(handler)
    good = signed_request(notification(), secret=made.optimove.secret)
    signature = good.header_values("optimove-signature-content")[0]
    name = "optimove-signature-content"
    for headers in (
        [],
        [(name, "")],
        [(name, signature[:-1])],
        [(name, signature.replace(signature[0], "x"))],
        [(name, signature), (name, signature)],
        [(name, f"{signature}, {signature}")],
        [(name, signature), (f"x-{name}", "0" * 64)],
        [(name, "\xe9" * 64)],
        [(name, "\udce9" * 64)],
    ):
        response = made.handle(Request("POST", "/", "", headers, good.body))
        assert response.status == 401
    wrong_secret = made.handle(signed_request(notification(), secret="another"))
    assert wrong_secret.status == 401
    assert {outcome.kind for outcome in made.outcomes} == {"forged"}
    assert len(made.outcomes) == 10
    assert not handler.asked
    assert not made.optimove.calls


def test_rotation_and_the_other_header(rig: MakeRig) -> None:
    made = rig(yes, secrets=["new", "old"])
    for index, secret in enumerate(["new", "old"]):
        request = signed_request(made_payload(made), secret=secret, header="X-Optimove-Signature-Content")
        assert made.handle(request).status == 200
        assert made.outcomes[-1].secret_index == index
    assert [approval["approved"] for approval in made.approvals()] == [True, True]


def made_payload(made: Any, **options: Any) -> dict[str, Any]:
    payload = notification(**options)
    made.optimove.expect(payload)
    return payload


def test_unsigned_is_an_explicit_choice(rig: MakeRig) -> None:
    made = rig(yes, secrets=UNSIGNED)
    assert made.handle(signed_request(made_payload(made), secret=None)).status == 200
    assert made.handle(signed_request(made_payload(made), secret="whatever")).status == 200
    assert [outcome.kind for outcome in made.outcomes] == ["approved", "approved"]
    assert made.outcomes[0].secret_index is None
    for nothing in ("", " ", [], None, [""]):
        with pytest.raises(ConfigurationError):
            rig(yes, secrets=nothing)


def test_a_body_over_the_limit(rig: MakeRig) -> None:
    made = rig(yes, max_body=2_000)
    response = made.send(b" " * 2_001)
    assert (response.status, made.outcome.kind) == (413, "unreadable")
    assert made.send(made_payload(made)).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "DELETE", "OPTIONS", "", "POSTER"])
def test_other_methods(rig: MakeRig, method: str) -> None:
    made = rig(yes)
    good = signed_request(notification(), secret=made.optimove.secret)
    response = made.handle(Request(method, headers=good.headers, body=good.body))
    assert response.status == 405
    assert response.headers["allow"] == "POST"
    assert not made.outcomes
    assert not made.optimove.calls


# ---- signed, but


UNREADABLE = [
    b"", b"nonsense", b"[]", b"null", b"{}", b"\xff", b"[" * 50_000,
    json.dumps(notification(changes={"request_uid": None})).encode(),
    json.dumps(notification(changes={"user": {}})).encode(),
    json.dumps(notification(changes={"timestamp": "soon"})).encode(),
]  # fmt: skip


@pytest.mark.parametrize("body", UNREADABLE, ids=range(len(UNREADABLE)))
def test_unreadable(rig: MakeRig, body: bytes) -> None:
    handler = Counting()
    made = rig(handler)
    assert made.send(body).status == 400
    assert made.outcome.kind == "unreadable"
    assert made.outcome.error is not None
    assert not handler.asked
    assert not made.optimove.calls


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("uid", [777, "777"])
def test_the_answer_names_the_question_in_the_type_in_which_it_came(
    rig: MakeRig, tmp_path: Path, store: str, uid: int | str
) -> None:
    claims = MemoryClaims() if store == "memory" else SqliteClaims(tmp_path / "claims.db")
    handler = Counting(Decision.approve({"why": "known"}))
    made = rig(handler, claims=claims)
    payload = {**notification(changes={"timestamp": float(time.time_ns() // 10**6)}), "request_uid": uid}
    payload["user"]["user_id"] = 12345
    assert made.send(payload).status == 503  # Optimove does not know it yet
    made.optimove.expect(payload)
    assert made.send(payload).status == 200
    assert [outcome.kind for outcome in made.outcomes] == ["undelivered", "approved"]
    assert [(sent["request_uid"], type(sent["request_uid"])) for sent in made.approvals()] == [(uid, type(uid))] * 2
    assert handler.asked == ["777"]


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_half_a_surrogate_pair_breaks_neither_the_store_nor_the_answer_nor_the_log(
    rig: MakeRig, tmp_path: Path, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    def echo(notification: WebhookNotification, deadline: Deadline) -> Decision:
        return Decision.approve({"name": notification.user.personalization["name"], "na\ud83dme": 1})

    claims = MemoryClaims() if store == "memory" else SqliteClaims(tmp_path / "claims.db")
    made = rig(echo, claims=claims)
    payload = notification(request_uid="r-1", personalization={"name": "Jo\ud83d"})
    payload["x\udfff"] = "\udfff"
    with caplog.at_level(logging.DEBUG):
        assert made.send(payload).status == 503  # the store keeps what Optimove did not take
        made.optimove.expect(payload)
        assert made.send(payload).status == 200
    assert [outcome.kind for outcome in made.outcomes] == ["undelivered", "approved"]
    assert [sent["additional_data"] for sent in made.approvals()] == [{"name": "Jo\ud83d", "na\\ud83dme": 1}] * 2
    assert caplog.text.encode()


def test_a_byte_order_mark_before_the_notification(rig: MakeRig) -> None:
    made = rig(yes)
    assert made.send(b"\xef\xbb\xbf" + json.dumps(made_payload(made)).encode()).status == 200
    assert made.outcome.kind == "approved"


@pytest.mark.parametrize("on_failure", ["abstain", "deny"])
@pytest.mark.parametrize(
    ("key", "again"),
    [
        ("request_uid", '"r-2"'),
        ("timestamp", "1"),
        ("user", '{"user_id": "C2"}'),
        ("user_id", '"C2"'),
        ("user", "null"),
    ],
)
def test_a_key_that_stands_twice(rig: MakeRig, on_failure: str, key: str, again: str) -> None:
    handler = Counting()
    made = rig(handler, on_failure=on_failure)
    body = json.dumps(made_payload(made, request_uid="r-1"))
    assert made.send(body.replace(f'"{key}": ', f'"{key}": {again}, "{key}": ', 1).encode()).status == 400
    assert made.outcome.kind == "unreadable"
    assert "stands twice" in str(made.outcome.error)
    assert not handler.asked
    # Only where the question and its deadline are certain, `on_failure` answers.
    answered = on_failure == "deny" and key == "user_id"
    assert [sent["approved"] for sent in made.approvals()] == ([False] if answered else [])


@pytest.mark.parametrize("changes", [{"user": {"user_id": 5.5}}, {"timestamp": "soon"}, {"timestamp": None}])
def test_unreadable_but_answerable(rig: MakeRig, changes: dict[str, Any]) -> None:
    handler = Counting()
    payload = notification(request_uid="r-1")
    made = rig(handler, on_failure="deny")
    made.optimove.expect(payload)
    assert made.send({**payload, **changes}).status == 400
    assert made.outcome.kind == "unreadable"
    (sent,) = made.approvals()
    assert (sent["request_uid"], sent["approved"]) == ("r-1", False)
    assert not handler.asked
    silent = rig(handler)
    assert silent.send({**payload, **changes}).status == 400
    assert not silent.optimove.calls
    late = {**payload, **changes, "conditional_execution_approval_deadline": 5}
    expired = rig(handler, on_failure="deny")
    before = notification()
    expired.optimove.expect(before)
    expired.send(before)  # so that a time stamp is known to compare with
    assert expired.send(late).status == 400
    assert len(expired.approvals()) == 1


@pytest.mark.parametrize("timeout_ms", [0, -1, -600_000])
def test_the_deadline_has_passed(rig: MakeRig, timeout_ms: int) -> None:
    handler = Counting()
    made = rig(handler)
    question = made.notify(timeout_ms=timeout_ms)
    assert question.responses[0].status == 200
    assert made.outcome.kind == "expired"
    assert made.outcome.budget_seconds == timeout_ms / 1000
    assert not handler.asked
    assert not made.optimove.calls


def test_much_older_than_its_neighbours(rig: MakeRig) -> None:
    handler = Counting()
    made = rig(handler)
    made.notify()
    hour_ago = round(time.time() * 1000) - 3_600_000
    assert made.notify(timestamp_ms=hour_ago).responses[0].status == 200
    assert [outcome.kind for outcome in made.outcomes] == ["approved", "expired"]
    assert len(handler.asked) == 1


@pytest.mark.parametrize("off_seconds", [-600, 600, -1_500_000_000])
def test_a_clock_that_is_off_changes_nothing(rig: MakeRig, off_seconds: int) -> None:
    made = rig(yes, wall_clock=lambda: time.time() + off_seconds)
    sent = round((time.time() + off_seconds) * 1000)
    assert made.send(made_payload(made, timestamp_ms=sent)).status == 200
    assert made.outcome.kind == "approved"
    assert made.outcome.budget_seconds == 5.0
    # The answer carries Optimove's time, not ours.
    (approval,) = made.approvals()
    assert sent <= approval["timestamp"] <= sent + 3_000


# ---- the same again


def test_the_same_again_after_it_was_acknowledged(rig: MakeRig) -> None:
    handler = Counting()
    made = rig(handler)
    for _ in range(3):
        made.notify(request_uid="r-1")
    assert [outcome.kind for outcome in made.outcomes] == ["approved", "duplicate", "duplicate"]
    assert [outcome.status for outcome in made.outcomes] == [200, 200, 200]
    assert len(handler.asked) == len(made.approvals()) == 1


@pytest.mark.parametrize("answer", [Decision.abstain(), ValueError("x"), None])
def test_the_same_again_after_silence(rig: MakeRig, answer: Any) -> None:
    handler = Counting(answer)
    made = rig(handler)
    for _ in range(2):
        assert made.notify(request_uid="r-1").responses[-1].status == 200
    assert made.outcomes[1].kind == "duplicate"
    assert len(handler.asked) == 1
    assert not made.approvals()


OTHER_QUESTIONS: list[dict[str, Any]] = [
    {"user": {"user_id": "another"}},
    {"user": {"user_id": "C234638", "is_visitor": True}},
    {"occurrence": {"series_id": 1, "occurrence_id": 2, "date": "2026-01-01", "action": {"id": 4}}},
    {"occurrence": {"series_id": 1, "occurrence_id": 9, "date": "2026-01-01", "action": {"id": 3}}},
    {"occurrence": {"series_id": 1, "occurrence_id": 2, "date": "2026-01-02", "action": {"id": 3}}},
    {"occurrence": None},
    {"occurrence": "of a kind that nobody has documented"},
]
QUESTION: dict[str, Any] = {
    "user": {"user_id": "C234638", "is_visitor": False},
    "occurrence": {"series_id": 1, "occurrence_id": 2, "date": "2026-01-01", "action": {"id": 3}},
}


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("other", OTHER_QUESTIONS, ids=range(len(OTHER_QUESTIONS)))
def test_the_same_request_uid_with_another_question_is_asked_on_its_own(
    rig: MakeRig, other: dict[str, Any], store: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    claims = MemoryClaims() if store == "memory" else SqliteClaims(tmp_path / "claims.db")
    handler = Counting(True)
    made = rig(handler, claims=claims)
    made.optimove.answer_next(Response(400))  # an approval is kept
    first = notification("C234638", request_uid="r-1", changes=QUESTION)
    assert made.send(first).status == 503
    handler.answer = False
    made.optimove.expect(first)
    with caplog.at_level(logging.INFO, "optimove_conditional_execution.webhook"):
        assert made.send({**first, **other}).status == 200
    assert len(handler.asked) == 2
    assert [sent["approved"] for sent in made.approvals()] == [True, False]
    record = caplog.records[-1]
    assert record.levelno == logging.WARNING
    assert "the same request_uid has come with another customer" in record.getMessage()
    assert "another" not in record.getMessage().replace("with another customer", "")
    assert [outcome.request_uid_reused for outcome in made.outcomes] == [False, True]
    assert made.send(first).status == 200  # the first one's approval is still its own
    assert [sent["approved"] for sent in made.approvals()] == [True, False, True]
    if isinstance(claims, SqliteClaims):
        claims.close()
        assert b"C234638" not in (tmp_path / "claims.db").read_bytes()


def test_another_spelling_is_the_same_question(rig: MakeRig) -> None:
    handler = Counting()
    made = rig(handler)
    payload = notification(request_uid="r-1", changes=QUESTION)
    made.optimove.expect(payload)
    assert made.send(payload).status == 200
    occurrence = {"series_id": "1", "occurrence_id": 2.0, "date": "2026-01-01", "action": {"id": "3", "name": None}}
    user = {"is_visitor": None, "user_id": "C234638"}
    assert made.send({**payload, "occurrence": occurrence, "user": user}).status == 200
    assert [outcome.kind for outcome in made.outcomes] == ["approved", "duplicate"]
    assert not made.outcomes[1].request_uid_reused
    assert len(handler.asked) == 1


def test_an_unreadable_notification_takes_nobodys_answer_and_blocks_nobody(rig: MakeRig) -> None:
    handler = Counting(True)
    made = rig(handler, on_failure="deny")
    payload = notification(request_uid="r-1")
    made.optimove.expect(payload)
    assert made.send({**payload, "user": None}).status == 400
    assert made.send(payload).status == 200
    assert len(handler.asked) == 1
    made.optimove.answer_next(Response(400))
    kept = notification(request_uid="r-2")
    made.optimove.expect(kept)
    assert made.send(kept).status == 503
    assert made.send({**kept, "user": None}).status == 400
    said = [(sent["request_uid"], sent["approved"]) for sent in made.approvals()]
    assert said == [("r-1", False), ("r-1", True), ("r-2", True), ("r-2", False)]


@pytest.mark.parametrize("answer", [True, False])
def test_the_same_again_after_it_was_not_delivered(rig: MakeRig, answer: bool) -> None:
    handler = Counting(Decision.approve({"bonus": 7}) if answer else Decision.deny(additional_data={"bonus": 7}))
    made = rig(handler)
    made.optimove.answer_next(Response(400))
    first = made.notify(request_uid="r-1")
    assert first.responses[0].status == 503
    handler.answer = not answer  # nobody may see this second thought
    assert made.notify(request_uid="r-1").responses[-1].status == 200
    assert made.notify(request_uid="r-1").responses[-1].status == 200
    assert [outcome.kind for outcome in made.outcomes] == [
        "undelivered", "approved" if answer else "denied", "duplicate",
    ]  # fmt: skip
    sent = made.approvals()
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert (sent[0]["approved"], sent[0]["additional_data"]) == (answer, {"bonus": 7})
    assert len(handler.asked) == 1


def test_the_same_while_the_first_is_being_decided() -> None:
    entered, go_on = threading.Event(), threading.Event()
    asked: list[str] = []

    def handler(notification: WebhookNotification, deadline: Deadline) -> bool:
        asked.append(notification.request_uid)
        entered.set()
        go_on.wait(60)
        return True

    optimove = FakeOptimove()
    receiver = WebhookReceiver(handler, client=optimove.client(), secrets=optimove.secret or "")
    payload = notification(request_uid="r-1", timeout_ms=60_000)
    optimove.expect(payload)
    request = signed_request(payload, secret=optimove.secret)
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(receiver.handle(request).status)) for _ in range(5)]
    threads[0].start()
    assert entered.wait(60)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.1)
    assert not answers  # all of them wait for the first
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert answers == [200] * 5
    assert asked == ["r-1"]
    assert len(optimove.calls_of("send_webhook_approval")) == 1


# ---- what the handler says


SAID: list[tuple[Any, str, list[bool]]] = [
    (True, "approved", [True]),
    (Decision.approve(), "approved", [True]),
    (False, "denied", [False]),
    (Decision.deny("self-excluded"), "denied", [False]),
    (Decision.abstain("not mine"), "abstained", []),
    (None, "failed", []),
    (1, "failed", []),
    (0, "failed", []),
    ("yes", "failed", []),
    ("True", "failed", []),
    ([True], "failed", []),
    (Decision, "failed", []),
    (Decision.approve, "failed", []),
    (ValueError("boom"), "failed", []),
    (TimeoutError(), "failed", []),
    (StopIteration(True), "failed", []),
    (KeyError("x"), "failed", []),
    (RecursionError(), "failed", []),
]


@pytest.mark.parametrize(("answer", "becomes", "sent"), SAID, ids=[repr(said[0]) for said in SAID])
def test_what_the_handler_says(rig: MakeRig, answer: Any, becomes: str, sent: list[bool]) -> None:
    made = rig(Counting(answer))
    question = made.notify()
    assert question.responses[0].status == 200
    assert question.responses[0].body == b""
    assert [approval["approved"] for approval in made.approvals()] == sent
    assert question.approved is (sent == [True])
    assert made.outcome.kind == becomes
    assert made.outcome.request_uid == question.request_uid
    if isinstance(answer, Decision):
        assert made.outcome.decision == answer
    if becomes == "failed":
        assert made.outcome.error is not None
        assert "boom" not in made.outcome.error


@pytest.mark.parametrize("answer", [None, "yes", ValueError("boom"), StopIteration()], ids=repr)
def test_on_failure_deny_says_no(rig: MakeRig, answer: Any) -> None:
    made = rig(Counting(answer), on_failure="deny")
    question = made.notify()
    assert question.responses[0].status == 200
    assert (made.outcome.kind, made.outcome.decision) == ("failed", Decision.deny())
    assert question.answer is not None
    assert question.answer.approved is False


def test_abstaining_is_not_a_failure(rig: MakeRig) -> None:
    made = rig(Counting(Decision.abstain()), on_failure="deny")
    made.notify()
    assert not made.approvals()


@pytest.mark.parametrize("error", [SystemExit(0), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration()])
def test_what_a_handler_raises_is_contained_and_named(rig: MakeRig, error: BaseException) -> None:
    made = rig(Counting(error))
    assert made.notify().responses[0].status == 200
    assert made.outcome.kind == "failed"
    assert type(made.outcome.exception) is type(error)
    assert re.search(
        rf"^The handler raised: {type(error).__name__} at test_behaviour_table.py:\d+ in __call__$",
        made.outcome.error or "",
    )
    assert made.notify().responses[0].status == 200  # the event loop, and the pool, go on


def test_decisions_that_make_no_sense_fail_in_the_handler(rig: MakeRig) -> None:
    def circular(notification: WebhookNotification, deadline: Deadline) -> Decision:
        data: dict[str, Any] = {}
        data["self"] = data
        return Decision.approve(data)

    def unwritable(notification: WebhookNotification, deadline: Deadline) -> Decision:
        return Decision.approve({"when": object()})

    def misspelt(notification: WebhookNotification, deadline: Deadline) -> Decision:
        verdict: Any = "approved"
        return Decision(verdict)

    for handler, raised in ((circular, PayloadError), (unwritable, PayloadError), (misspelt, ConfigurationError)):
        made = rig(handler)
        made.notify()
        assert made.outcome.kind == "failed"
        assert isinstance(made.outcome.exception, raised)
        assert not made.approvals()


def test_additional_data_is_sent_as_json(rig: MakeRig) -> None:
    data = {"bonus": 7, "nested": {"list": [1, None, "x"]}}
    made = rig(Counting(Decision.approve(data)))
    made.notify()
    assert made.approvals()[0]["additional_data"] == data


def test_late(rig: MakeRig) -> None:
    def slow(notification: WebhookNotification, deadline: Deadline) -> bool:
        time.sleep(deadline.remaining() + 0.05)
        return True

    for on_failure, sent in (("abstain", []), ("deny", [False])):
        made = rig(slow, on_failure=on_failure, reserve=1.0)  # half of the time, for a busy machine
        question = made.notify(timeout_ms=1_500)
        assert question.responses[0].status == 200
        assert (made.outcome.kind, [approval["approved"] for approval in made.approvals()]) == ("late", sent)
        assert made.outcome.seconds_to_spare is not None
        assert made.outcome.seconds_to_spare > 0


def test_the_handlers_deadline_leaves_a_reserve(rig: MakeRig) -> None:
    left: list[float] = []

    def handler(notification: WebhookNotification, deadline: Deadline) -> bool:
        left.append(deadline.remaining())
        return True

    made = rig(handler)
    made.notify(timeout_ms=5_000)
    assert 3.0 < left[-1] <= 4.5  # half a second until round trips are known
    for _ in range(9):
        made.notify(timeout_ms=5_000)
    assert 4.5 < max(left) <= 4.95  # of those that no busy machine has held up
    for _ in range(9):
        rig(handler).notify(timeout_ms=900)
    assert 0.401 < max(left[-9:]) <= 0.601  # a third of the time at most
    fixed = rig(handler, reserve=20.0)
    fixed.notify(timeout_ms=60_000)
    fixed.notify(timeout_ms=60_000)
    assert 30.0 < left[-1] <= 40.0
    with pytest.raises(ConfigurationError):
        rig(handler, reserve=-1.0)
    with pytest.raises(ConfigurationError):
        rig(handler, reserve=float("nan"))


# ---- stores, Optimove, load


class Broken:
    """A claim store that cannot be reached when one of its methods is called."""

    def __init__(self, method: str, *, instant: bool) -> None:
        self.instant = instant
        self._broken = method
        self._claims = MemoryClaims()

    def __getattr__(self, name: str) -> Any:
        if name == self._broken:
            raise ConnectionError("no route to the store")
        return getattr(self._claims, name)


@pytest.mark.parametrize("instant", [True, False])
def test_the_claim_store_is_unreachable(rig: MakeRig, instant: bool) -> None:
    handler = Counting()
    made = rig(handler, claims=Broken("acquire", instant=instant))
    before = time.monotonic()
    assert made.notify(timeout_ms=400).responses[0].status == 503
    assert time.monotonic() - before >= 0.29, "it was tried until shortly before the deadline"
    assert made.outcome.kind == "failed"
    assert made.outcome.error is not None
    assert made.outcome.error.startswith("The claim store is unreachable: ConnectionError at test_behaviour_table.py:")
    assert not handler.asked
    assert not made.optimove.calls


def test_a_claim_store_that_raises_stop_iteration_is_unreachable(rig: MakeRig) -> None:
    class Ended(Broken):
        def acquire(self, *_: object) -> Claim:
            return next(iter(()))

    made = rig(yes, claims=Ended("", instant=True))
    assert made.notify(timeout_ms=600).responses[0].status == 503
    assert (made.outcome.error or "").startswith(
        "The claim store is unreachable: StopIteration at test_behaviour_table"
    )


@pytest.mark.parametrize("kind", ["async with a coroutine", "async with a function"])
@pytest.mark.parametrize("broken", ["acquire", "update", ""])
def test_an_instant_claim_store_may_have_coroutine_methods(rig: MakeRig, broken: str) -> None:
    class InLoop(Broken):
        def __getattr__(self, name: str) -> Any:
            async def step(*arguments: object) -> Any:
                await asyncio.sleep(0)
                return super(InLoop, self).__getattr__(name)(*arguments)

            return step

    made = rig(yes, claims=InLoop(broken, instant=True))
    question = made.notify(timeout_ms=1_000 if broken else 5_000)
    assert question.responses[0].status == (503 if broken else 200)
    assert made.outcome.kind == ("failed" if broken else "approved")
    assert made.outcome.error is None if not broken else "ConnectionError" in (made.outcome.error or "")
    assert len(made.optimove.calls) == (0 if broken else 1)


class Hanging(Broken):
    """A claim store that claims when it is told to."""

    def __init__(self) -> None:
        super().__init__("", instant=False)
        self.goes_on, self.has_claimed = threading.Event(), threading.Event()

    def acquire(self, *_: object) -> Claim:
        self.goes_on.wait(60)
        self.has_claimed.set()
        return Claim(ClaimState.OPEN, mine=True)


def test_the_claim_store_hangs(rig: MakeRig) -> None:
    claims = Hanging()
    made = rig(Counting(), claims=claims)
    assert made.notify(timeout_ms=600).responses[0].status == 503
    assert not claims.has_claimed.is_set(), "it was waited for"
    claims.goes_on.set()
    assert not made.optimove.calls


@pytest.mark.parametrize("instant", [True, False])
def test_the_claim_store_is_unreachable_but_to_decide_twice_is_preferred(rig: MakeRig, instant: bool) -> None:
    handler = Counting()
    made = rig(handler, claims=Broken("acquire", instant=instant), on_store_failure="decide")
    question = made.notify(timeout_ms=3_000)
    assert question.responses[0].status == 200
    assert question.approved
    assert made.outcome.kind == "approved"
    assert (made.outcome.error or "").startswith("The claim store is unreachable")
    assert len(handler.asked) == 1


def lease_that_begins_when_asked(path: Path) -> tuple[Any, SqliteClaims]:
    """Return a claim store for a receiver, and the same store whose time stands still until the receiver asks."""
    asked = [0.0]

    def clock() -> float:
        return 1_000.0 + (time.monotonic() - asked[0] if asked[0] else 0.0)

    claims = SqliteClaims(path, wall_clock=clock, monotonic=clock)

    class Asks:
        instant = False

        def acquire(self, *arguments: Any) -> Claim:
            asked[0] = asked[0] or time.monotonic()
            return claims.acquire(*arguments)

        def __getattr__(self, name: str) -> Any:
            return getattr(claims, name)

    return Asks(), claims


@pytest.mark.parametrize("state", ["open", "undelivered"])
def test_a_claim_of_a_replica_that_died_is_taken_over(rig: MakeRig, tmp_path: Path, state: str) -> None:
    asks, claims = lease_that_begins_when_asked(tmp_path / "claims.db")
    handler = Counting(False)
    made = rig(handler, claims=asks)
    payload = made_payload(made, request_uid="r-1", timeout_ms=20_000)
    question = question_of(WebhookNotification.model_validate(payload))
    assert claims.acquire(question, "one that dies", 0.3, 20.0).mine
    if state == "undelivered":
        known = Approval(timestamp=5, request_uid="r-1", approved=True)
        assert claims.update(question, "one that dies", Claim(ClaimState.UNDELIVERED, known), 0.3, 20.0)
    assert made.send(payload).status == 200
    assert made.outcome.kind == ("denied" if state == "open" else "approved")
    assert made.outcome.claim_seconds > 0.2
    assert len(handler.asked) == (1 if state == "open" else 0)
    assert [sent["approved"] for sent in made.approvals()] == [state == "undelivered"]


def test_a_claim_that_is_taken_over_while_it_is_decided(rig: MakeRig) -> None:
    moved = [0.0]
    claims = MemoryClaims(clock=lambda: time.monotonic() + moved[0])
    payload = notification(request_uid="r-1", timeout_ms=60_000)
    question = question_of(WebhookNotification.model_validate(payload))

    def stalls(notification: WebhookNotification, deadline: Deadline) -> bool:
        moved[0] += 10.0
        assert claims.acquire(question, "another", 20.0, 20.0).mine
        assert claims.update(question, "another", Claim(ClaimState.SETTLED), 0.0, 20.0)
        return True

    made = rig(stalls, claims=claims, lease=5.0)
    made.optimove.expect(payload)
    assert made.send(payload).status == 200
    assert made.outcome.kind == "superseded"
    assert not made.approvals()


def test_the_claim_store_breaks_while_the_handler_is_asked(rig: MakeRig) -> None:
    """The answer cannot be recorded, so another delivery might decide otherwise: it is not sent."""
    made = rig(yes, claims=Broken("update", instant=True))
    assert made.notify(timeout_ms=1_200).responses[0].status == 503
    assert made.outcome.kind == "failed"
    assert made.outcome.error is not None
    assert made.outcome.error.startswith("The claim store is unreachable: ConnectionError at ")
    assert not made.approvals()


class BreaksAtTheEnd(Broken):
    """A claim store that cannot be reached once the answer is delivered."""

    def update(self, question: str, owner: str, claim: Claim, lease: float, ttl: float, /) -> bool:
        if claim.state is ClaimState.SETTLED:
            raise ConnectionError("no route to the store")
        return self._claims.update(question, owner, claim, lease, ttl)


def test_the_claim_store_breaks_after_the_answer(rig: MakeRig) -> None:
    made = rig(yes, claims=BreaksAtTheEnd("", instant=True))
    assert made.notify().responses[0].status == 200
    assert made.outcome.kind == "approved"
    assert made.outcome.error is not None
    assert made.outcome.error.startswith("The claim store lost the answer: ConnectionError at ")


@pytest.mark.parametrize("status", [400, 401, 404, 410, 500, 503, 302])
def test_optimove_refuses_the_approval(rig: MakeRig, status: int) -> None:
    made = rig(yes)
    made.optimove.answer_next(*[Response(status)] * 500)
    # Only what is tried until the deadline takes this long; half of it is the handler's, which a busy machine delays.
    assert made.notify(timeout_ms=1_500 if status >= 500 else 20_000).responses[0].status == 503
    assert made.outcome.kind == "undelivered"
    assert made.outcome.decision == Decision.approve()
    assert made.outcome.error is not None
    assert made.outcome.seconds_to_spare is not None
    assert made.outcome.seconds_to_spare > -1.0
    tries = len(made.approvals())
    assert tries == 1 if status < 500 else tries > 4


def test_approvals_are_retried_until_the_deadline(rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "_FIRST_PAUSE", 0.02)
    made = rig(yes)
    made.optimove.answer_next(*[Response(503)] * 4, *[Response(429)] * 4)
    question = made.notify()
    assert question.responses[0].status == 200
    assert len(made.approvals()) == 9


def test_more_handlers_than_places() -> None:
    entered = threading.Semaphore(0)
    go_on = threading.Event()

    def handler(notification: WebhookNotification, deadline: Deadline) -> bool:
        entered.release()
        return go_on.wait(60)

    optimove = FakeOptimove(timeout_ms=60_000)
    outcomes: list[str] = []
    receiver = WebhookReceiver(
        handler,
        client=optimove.client(),
        secrets=optimove.secret or "",
        max_concurrency=2,
        on_outcome=lambda outcome: outcomes.append(outcome.kind),
    )
    threads = [threading.Thread(target=optimove.notify, args=(receiver,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert all(entered.acquire(timeout=60) for _ in threads)
    before = time.monotonic()
    refused = optimove.notify(receiver, request_uid="r-3")
    assert time.monotonic() - before < 20  # of the minute that there is
    assert refused.responses[0].status == 503
    assert outcomes == ["overloaded"]
    go_on.set()
    for thread in threads:
        thread.join(60)
    # Nothing was decided about the one that was refused, so a repeat is asked about.
    assert optimove.notify(receiver, request_uid="r-3").responses[-1].status == 200
    assert outcomes == ["overloaded", "approved", "approved", "approved"]


def test_a_late_function_keeps_its_place_until_it_returns(rig: MakeRig, kind: str) -> None:
    go_on = threading.Event()
    done = threading.Semaphore(0)

    def stuck(notification: WebhookNotification, deadline: Deadline) -> bool:
        go_on.wait(60)
        done.release()
        return True

    if kind == "async with a coroutine":
        return_status = 200  # a coroutine is cancelled, and gives its place back

        async def coroutine(notification: WebhookNotification, deadline: Deadline) -> bool:
            await asyncio.sleep(60)
            return True

        made = rig(coroutine, max_concurrency=1)
    else:
        return_status = 503
        made = rig(stuck, max_concurrency=1)
    # Long enough for a thread of a busy machine to begin: a function that has not by then never does.
    assert made.notify(timeout_ms=600).responses[0].status == 200
    assert made.outcomes[0].kind == "late"
    assert made.notify(timeout_ms=200).responses[0].status == return_status
    go_on.set()
    if kind != "async with a coroutine":
        assert done.acquire(timeout=60)
    assert not made.approvals()  # what a late handler answers is ignored


# ---- the receiver itself


def test_handlers_and_clients_of_the_wrong_colour() -> None:
    optimove = FakeOptimove()

    async def coroutine(notification: WebhookNotification, deadline: Deadline) -> bool:
        return True

    class CallableObject:
        async def __call__(self, notification: WebhookNotification, deadline: Deadline) -> bool:
            return True

    sync_client: Any = optimove.client()
    async_client: Any = optimove.async_client()
    for handler in (coroutine, functools.partial(coroutine), CallableObject()):
        wrong: Any = handler
        with pytest.raises(ConfigurationError, match="AsyncWebhookReceiver"):
            WebhookReceiver(wrong, client=sync_client, secrets="s")
        AsyncWebhookReceiver(handler, client=async_client, secrets="s")
    with pytest.raises(ConfigurationError, match="OptimoveClient"):
        WebhookReceiver(yes, client=async_client, secrets="s")
    with pytest.raises(ConfigurationError, match="AsyncOptimoveClient"):
        AsyncWebhookReceiver(yes, client=sync_client, secrets="s")


@pytest.mark.parametrize(
    "options",
    [
        {"on_failure": "approve"},
        {"on_store_failure": "approve"},
        {"lease": 0},
        {"lease": -1},
        {"lease": "1"},
        {"lease": float("nan")},
        {"max_concurrency": 0},
        {"max_body": 0},
    ],
)
def test_settings_that_make_no_sense(rig: MakeRig, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        rig(yes, **options)


def test_a_handler_that_is_no_function() -> None:
    wrong: Any = "no function"
    optimove = FakeOptimove()
    with pytest.raises(ConfigurationError, match="handler"):
        WebhookReceiver(wrong, client=optimove.client(), secrets="s")
    with pytest.raises(ConfigurationError, match="handler"):
        AsyncWebhookReceiver(wrong, client=optimove.async_client(), secrets="s")


def test_mistakes_show_when_the_receiver_is_made() -> None:
    optimove = FakeOptimove()
    client, aclient = optimove.client(), optimove.async_client()

    def one(notification: WebhookNotification) -> bool:
        return True

    async def observe(outcome: Outcome) -> None: ...

    class AsyncStore(Broken):
        async def acquire(self, *_: object) -> Claim:
            return Claim(ClaimState.OPEN, mine=True)

    wrong: Any
    for wrong in (one, lambda: True, lambda a, b, c: True, lambda *, notification, deadline: True):
        with pytest.raises(ConfigurationError, match="two arguments"):
            WebhookReceiver(wrong, client=client, secrets="s")
    for wrong in (lambda *arguments: True, lambda a, b, c=None: True, print):
        WebhookReceiver(wrong, client=client, secrets="s")
    for wrong in (None, "c", object()):
        with pytest.raises(ConfigurationError, match="client"):
            WebhookReceiver(yes, client=wrong, secrets="s")
        with pytest.raises(ConfigurationError, match="client"):
            AsyncWebhookReceiver(yes, client=wrong, secrets="s")
    wrong = observe
    with pytest.raises(ConfigurationError, match="on_outcome"):
        AsyncWebhookReceiver(yes, client=aclient, secrets="s", on_outcome=wrong)
    wrong = AsyncStore("", instant=False)
    with pytest.raises(ConfigurationError, match="AsyncWebhookReceiver"):
        WebhookReceiver(yes, client=client, secrets="s", claims=wrong)
    for wrong in (MemoryClaims, object(), "claims.db", False):
        with pytest.raises(ConfigurationError, match="claims must be a ClaimStore"):
            WebhookReceiver(yes, client=client, secrets="s", claims=wrong)
        with pytest.raises(ConfigurationError, match="claims must be a ClaimStore"):
            AsyncWebhookReceiver(yes, client=aclient, secrets="s", claims=wrong)
    for options in ({"max_concurrency": "5"}, {"reserve": "0.1"}, {"max_body": 1.5}):
        wrong = options
        with pytest.raises(ConfigurationError):
            WebhookReceiver(yes, client=client, secrets="s", **wrong)


def test_a_framework_request_is_refused_with_the_remedy(rig: MakeRig) -> None:
    made = rig(yes)
    wrong: Any = object()
    with pytest.raises(ConfigurationError, match="raw body"):
        made.handle(wrong)


def test_a_secret_from_a_file_is_warned_about(rig: MakeRig, caplog: pytest.LogCaptureFixture) -> None:
    rig(yes, secrets=["fine", "from-a-file\n"])
    assert "white space" in caplog.text
    assert "from-a-file" not in caplog.text


def test_a_decision_has_a_copy_of_what_it_was_given() -> None:
    given: dict[str, Any] = {}
    decision = Decision.approve(given, evidence=given)
    given["later"] = object()
    assert (decision.additional_data, decision.evidence) == ({}, {})


def test_a_decision_has_no_truth_value() -> None:
    with pytest.raises(TypeError, match="verdict"):
        bool(Decision.deny("self-excluded"))


def test_a_decision_that_was_tampered_with_fails(rig: MakeRig) -> None:
    def handler(notification: WebhookNotification, deadline: Deadline) -> Decision:
        decision = Decision.approve({"a": 1})
        data: Any = decision.additional_data
        data["b"] = object()
        return decision

    made = rig(handler, on_failure="deny")
    question = made.notify()
    assert question.responses[0].status == 200
    assert made.outcome.kind == "failed"
    assert question.answer is not None
    assert not question.approved


@pytest.mark.parametrize("wrong", ["abc", 5, 0, "", [("a", 1)]])
def test_additional_data_is_a_mapping(wrong: Any) -> None:
    for make in (Decision.approve, lambda data: Decision.deny(additional_data=data)):
        with pytest.raises(PayloadError):
            make(wrong)


def test_why_an_answer_was_not_taken_is_told(rig: MakeRig) -> None:
    made = rig(yes)
    made.optimove.answer_next(Response(401))
    made.notify()
    assert made.outcome.error is not None
    assert "OPTIMOVE_API_KEY" in made.outcome.error
    assert made.optimove.api_key not in made.outcome.error


def test_a_lone_notification_from_the_future_does_not_stop_the_others(rig: MakeRig) -> None:
    made = rig(yes)
    for _ in range(9):
        made.notify()
    made.notify(timestamp_ms=round(time.time() * 1000) + 3_600_000)
    for _ in range(5):
        made.notify()
    assert {outcome.kind for outcome in made.outcomes} == {"approved"}


def test_claims_are_given_back_when_the_delivery_is_cancelled_while_claiming() -> None:
    """A claim that a thread makes is made even if nobody waits for it any more."""
    optimove = FakeOptimove()
    claims = Slow()
    receiver = AsyncWebhookReceiver(
        yes, client=optimove.async_client(), secrets=optimove.secrets, claims=claims, lease=60
    )

    async def cut_off() -> None:
        asyncio.ensure_future(optimove.anotify(receiver, request_uid="r-1", timeout_ms=20_000))  # noqa: RUF006 - the loop ends with it
        assert await asyncio.to_thread(claims.claiming.wait, 60)
        claims.goes_on.set()

    asyncio.run(cut_off())
    assert not optimove.calls
    question = asyncio.run(optimove.anotify(receiver, request_uid="r-1", timeout_ms=20_000))
    assert question.approved, "the lease of the first would have to run out"


class Slow(Broken):
    """A claim store that says when it begins to claim, and goes on when it is told to."""

    def __init__(self) -> None:
        super().__init__("", instant=False)
        self.claiming, self.goes_on = threading.Event(), threading.Event()

    def acquire(self, question: str, owner: str, lease: float, ttl: float, /) -> Claim:
        self.claiming.set()
        self.goes_on.wait(60)
        return self._claims.acquire(question, owner, lease, ttl)


def test_a_function_that_returns_a_coroutine(rig: MakeRig, kind: str) -> None:
    async def hidden() -> bool:
        return True

    made = rig(lambda notification, deadline: hidden())
    made.notify()
    # Threads cannot await it; asyncio can, and the coroutine wrapper of this suite does not.
    assert made.outcome.kind == ("approved" if kind == "async with a function" else "failed")


@pytest.mark.parametrize("error", [ValueError("personal data"), SystemExit(0), asyncio.CancelledError()])
def test_an_observer_that_raises_changes_nothing(
    rig: MakeRig, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(outcome: Any) -> None:
        raise error

    made = rig(yes, on_outcome=broken)
    assert made.notify().responses[0].status == 200
    assert f"on_outcome raised {type(error).__name__}" in caplog.text
    assert "personal data" not in caplog.text


def test_an_observer_that_returns_a_coroutine_is_told(rig: MakeRig, caplog: pytest.LogCaptureFixture) -> None:
    async def observe(outcome: Any) -> None: ...

    made = rig(yes, on_outcome=lambda outcome: observe(outcome))
    assert made.notify().responses[0].status == 200
    assert "on_outcome returned a coroutine, which nothing awaits" in caplog.text


@pytest.mark.parametrize("place", ["a filter of the logger", "a filter of a handler", "a handler"])
@pytest.mark.parametrize("error", [KeyError("personal data"), SystemExit(0)])
def test_logging_that_raises_changes_nothing(
    rig: MakeRig, place: str, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(record: logging.LogRecord) -> bool:
        raise error

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise error

    logger = logging.getLogger("optimove_conditional_execution.webhook")
    handler = Broken() if place == "a handler" else logging.StreamHandler()
    if place == "a filter of a handler":
        handler.addFilter(broken)
    logger.addHandler(handler)
    if place == "a filter of the logger":
        logger.addFilter(broken)
    logger.setLevel(logging.INFO)
    try:
        made = rig(yes)
        assert made.notify().approved
        assert made.outcome.kind == "approved"
        assert made.send(b"", secret="wrong").status == 401
    finally:
        logger.removeHandler(handler)
        logger.removeFilter(broken)
        logger.setLevel(logging.NOTSET)
    told = capsys.readouterr().err
    assert f"a filter or handler of optimove_conditional_execution.webhook raised {type(error).__name__}" in told
    assert "personal data" not in told


def test_a_standard_error_that_leads_back_to_logging_changes_nothing(
    rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a stream that writes into a logger, which services put in the place of stderr."""

    def broken(record: logging.LogRecord) -> bool:
        raise LookupError

    class IntoTheLog(io.StringIO):
        def write(self, text: str, /) -> int:
            logging.getLogger("optimove_conditional_execution.webhook").warning(text)
            return len(text)

    logger = logging.getLogger("optimove_conditional_execution.webhook")
    logger.addFilter(broken)
    made = rig(yes)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", IntoTheLog())
            question = made.notify()
            forged = made.send(b"", secret="wrong")
    finally:
        logger.removeFilter(broken)
    assert question.approved
    assert made.outcomes[0].kind == "approved"
    assert forged.status == 401


def test_a_logger_that_cannot_tell_its_level_changes_nothing(rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(level: int) -> bool:
        raise LookupError

    monkeypatch.setattr(logging.getLogger("optimove_conditional_execution.webhook"), "isEnabledFor", broken)
    monkeypatch.setattr(logging.getLogger("optimove_conditional_execution.calls"), "isEnabledFor", broken)
    made = rig(yes)
    assert made.notify().approved
    assert made.outcome.kind == "approved"


@pytest.mark.parametrize("verdict", ["approve", None])
def test_a_stand_in_for_a_decision_is_a_failure(rig: MakeRig, verdict: str | None) -> None:
    double = mock.MagicMock(spec=Decision)
    if verdict is not None:
        double.verdict = verdict
    made = rig(lambda notification, deadline: double, on_failure="deny")
    assert not made.notify().approved
    assert made.outcome.kind == "failed"
    assert made.outcome.request_uid is not None
    assert [approval["approved"] for approval in made.approvals()] == [False]


def test_an_error_whose_text_fails_is_named(rig: MakeRig) -> None:
    class SilentError(OptimoveError):
        def __str__(self) -> str:
            raise LookupError

    def handler(notification: Any, deadline: Any) -> bool:
        raise SilentError("customer")

    made = rig(handler, on_failure="deny")
    assert not made.notify().approved
    assert (made.outcome.kind, made.outcome.error) == ("failed", "The handler raised: SilentError")
    assert [approval["approved"] for approval in made.approvals()] == [False]


def test_a_boolean_that_is_none_of_pythons_is_named_with_its_module(rig: MakeRig) -> None:
    odd = type("bool", (), {"__module__": "numpy"})  # as NumPy 2 calls its own
    made = rig(lambda notification, deadline: odd())
    assert not made.notify().approved
    assert made.outcome.kind == "failed"
    assert made.outcome.error == (
        "The handler returned numpy.bool; it must return a bool or a Decision. Wrap it: bool(...)."
    )


def test_a_decorator_may_add_arguments(rig: MakeRig) -> None:
    def with_session(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(notification: WebhookNotification, deadline: Deadline) -> Any:
            return function(notification, deadline, "session")

        return wrapper

    @with_session
    def handler(notification: WebhookNotification, deadline: Deadline, session: str) -> bool:
        return session == "session"

    assert rig(handler).notify().approved


def test_a_receiver_that_is_pickled_says_why_it_cannot_be(rig: MakeRig) -> None:
    with pytest.raises(TypeError, match=r"cannot be pickled or copied.*Make one in each process"):
        pickle.dumps(rig(yes).receiver)


def test_stage_timings(rig: MakeRig) -> None:
    def handler(notification: WebhookNotification, deadline: Deadline) -> bool:
        time.sleep(0.05)
        return True

    made = rig(handler)
    made.notify()
    outcome = made.outcome
    stages = (
        outcome.verify_seconds + outcome.parse_seconds + outcome.claim_seconds + outcome.decide_seconds
        + outcome.deliver_seconds
    )  # fmt: skip
    assert outcome.decide_seconds >= 0.05
    assert outcome.deliver_seconds > 0
    assert stages <= outcome.total_seconds
    assert outcome.budget_seconds == 5.0
    assert outcome.seconds_to_spare == 5.0 - outcome.total_seconds


def test_the_log_line(rig: MakeRig, caplog: pytest.LogCaptureFixture) -> None:
    made = rig(Counting(ValueError("dana@example.com")))
    with caplog.at_level("INFO", logger="optimove_conditional_execution"):
        made.notify(user_id="person-77", request_uid="uid\nFORGED LINE")
    (record,) = [record for record in caplog.records if record.name == "optimove_conditional_execution.webhook"]
    assert record.levelname == "WARNING"
    message = record.getMessage()
    assert message.startswith("failed request_uid='uid\\nFORGED LINE' status=200")
    assert re.search(r"\(The handler raised: ValueError at test_behaviour_table.py:\d+ in __call__\)$", message)
    assert "\n" not in message
    assert record.__dict__["optimove_kind"] == "failed"
    assert "person-77" not in message
