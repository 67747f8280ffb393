"""Whatever comes in, both receivers answer what the table says, and nothing is approved by accident."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from optimove_conditional_execution import (
    AsyncWebhookReceiver,
    Decision,
    Outcome,
    Request,
    Response,
    WebhookReceiver,
)
from optimove_conditional_execution.testing import FakeOptimove
from tests.hostile.deliveries import (
    MAX_BODY,
    NOW_MS,
    OPEN_AND_SHUT,
    SECRET,
    UID,
    Expected,
    Hostile,
    deliveries,
    expected_of,
    signed,
    written,
)

OnFailure = Literal["abstain", "deny"]
STATUSES = {200, 400, 401, 405, 413, 503}

quick = settings(
    max_examples=100,
    derandomize=True,  # the suite is no lottery; raise max_examples and delete this line to look for more
    database=None,
)


def _raise(*_: object) -> bool:
    raise ValueError("the register is down")


@dataclass(frozen=True)
class Says:
    """What a handler does, and what it means: "yes", "no", "nothing", or "failed"."""

    does: Callable[..., Any]
    means: str


HANDLERS = {
    "True": Says(lambda *_: True, "yes"),
    "approve": Says(lambda *_: Decision.approve({"why": "known"}), "yes"),
    "False": Says(lambda *_: False, "no"),
    "deny": Says(lambda *_: Decision.deny("self-excluded"), "no"),
    "abstain": Says(lambda *_: Decision.abstain(), "nothing"),
    "raises": Says(_raise, "failed"),
    "None": Says(lambda *_: None, "failed"),
    "1": Says(lambda *_: 1, "failed"),
    "text": Says(lambda *_: "True", "failed"),
    "the class": Says(lambda *_: Decision, "failed"),
}


@dataclass(frozen=True)
class Came:
    """What came of a delivery."""

    status: int
    approvals: list[bool]
    approved: bool
    outcomes: list[str]


class Records(logging.Handler):
    """Keeps log records."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def nothing_unforeseen() -> Iterator[None]:
    """Fail when the SDK logs an error, or a traceback with anything."""
    logger = logging.getLogger("optimove_conditional_execution")
    records = Records()
    logger.addHandler(records)
    try:
        yield
    finally:
        logger.removeHandler(records)
    bad = [record for record in records.records if record.levelno >= logging.ERROR or record.exc_info]
    assert [record.getMessage() for record in bad] == []


def delivered(request: Request, handler: Callable[..., Any], *, on_failure: OnFailure, known: bool, kind: str) -> Came:
    """Hand a request to a fresh receiver, whose Optimove knows the notification or does not."""
    fake = FakeOptimove(secret=SECRET)
    question = fake.trigger("C1", request_uid=UID, timeout_ms=3_600_000)[0]
    if not known:
        fake.notifications.clear()
    outcomes: list[Outcome] = []
    options: Any = {
        "secrets": SECRET,
        "on_failure": on_failure,
        "max_body": MAX_BODY,
        "on_outcome": outcomes.append,
    }
    response: Response
    with nothing_unforeseen():
        if kind == "sync":
            response = WebhookReceiver(handler, client=fake.client(), **options).handle(request)
        else:
            receiver = AsyncWebhookReceiver(handler, client=fake.async_client(), **options)
            response = asyncio.run(receiver.handle(request))
    sent = [json.loads(call.request.body) for call in fake.calls_of("send_webhook_approval")]
    assert len(sent) == len(fake.calls)
    return Came(
        response.status,
        [call["approved"] for call in sent],
        question.approved,
        [outcome.kind for outcome in outcomes],
    )


def check(hostile: Hostile, says: Says, *, on_failure: OnFailure, known: bool, kind: str, handler: Any = None) -> Came:
    """Deliver, and compare with the table."""
    came = delivered(
        hostile.request, says.does if handler is None else handler, on_failure=on_failure, known=known, kind=kind
    )
    expected = hostile.expected
    means = says.means if expected.question else "failed" if expected.failed else "nothing"
    if means == "failed":
        means = "no" if on_failure == "deny" else "nothing"
    assert came.status in STATUSES
    if expected.status is not None:
        assert came.status == expected.status
    else:
        assert came.status == (503 if means in ("yes", "no") and not known else 200)
    assert came.approvals == {"yes": [True], "no": [False], "nothing": []}[means]
    assert came.approved is (means == "yes" and known)
    assert len(came.outcomes) == (0 if came.status == 405 else 1)
    return came


@pytest.mark.parametrize("kind", ["sync", "async"])
class TestAnyDelivery:
    @quick
    @given(
        hostile=deliveries,
        name=st.sampled_from(sorted(HANDLERS)),
        on_failure=st.sampled_from(["abstain", "deny"]),
        known=st.booleans(),
    )
    def test_gets_the_tables_answer(
        self, kind: str, hostile: Hostile, name: str, on_failure: OnFailure, known: bool
    ) -> None:
        check(hostile, HANDLERS[name], on_failure=on_failure, known=known, kind=kind)

    @pytest.mark.parametrize("on_failure", ["abstain", "deny"])
    @pytest.mark.parametrize("name", sorted(OPEN_AND_SHUT))
    def test_what_is_unreadable_stays_so(self, kind: str, name: str, on_failure: OnFailure) -> None:
        hostile = Hostile(signed(OPEN_AND_SHUT[name]), Expected(400))
        check(hostile, HANDLERS["True"], on_failure=on_failure, known=True, kind=kind)

    @quick
    @given(answer=st.none() | st.integers() | st.floats() | st.text() | st.binary() | st.lists(st.booleans()))
    @example(answer=[True])
    @example(answer=1)
    @example(answer=1.0)
    @example(answer="approve")
    def test_no_odd_answer_of_a_handler_approves(self, kind: str, answer: Any) -> None:
        payload = {
            "timestamp": NOW_MS,
            "conditional_execution_approval_deadline": NOW_MS + 3_600_000,
            "request_uid": UID,
            "user": {"user_id": "C1"},
        }
        hostile = Hostile(signed(written(payload)), expected_of(payload))
        came = check(hostile, Says(lambda *_: answer, "failed"), on_failure="abstain", known=True, kind=kind)
        assert came.outcomes == ["failed"]

    @pytest.mark.parametrize("deadline_ms", [0, 1, 1_000, 4_999, 5_000, 10**12])
    @pytest.mark.parametrize("timestamp", [None, "x", -1, 1.5, []])
    def test_a_deadline_near_1970_without_a_time_stamp(self, kind: str, timestamp: Any, deadline_ms: int) -> None:
        payload = {
            "timestamp": timestamp,
            "conditional_execution_approval_deadline": deadline_ms,
            "request_uid": UID,
            "user": {"user_id": "C1"},
        }
        came = delivered(signed(written(payload)), HANDLERS["True"].does, on_failure="deny", known=True, kind=kind)
        assert came.status == 400
        assert True not in came.approvals


@quick
@given(hostile=deliveries, name=st.sampled_from(sorted(HANDLERS)), on_failure=st.sampled_from(["abstain", "deny"]))
def test_a_coroutine_function_is_no_different(hostile: Hostile, name: str, on_failure: OnFailure) -> None:
    says = HANDLERS[name]

    async def handler(*arguments: Any) -> Any:
        await asyncio.sleep(0)
        return says.does(*arguments)

    check(hostile, says, on_failure=on_failure, known=True, kind="async", handler=handler)
