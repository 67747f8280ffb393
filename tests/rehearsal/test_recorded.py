"""Recorded or hand-made payloads: what is posted of them, which files are read, and how many may stay undecided."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from optimove_conditional_execution import ConfigurationError, verify
from optimove_conditional_execution.rehearsal import (
    Observation,
    PlannedNotification,
    Reply,
    ScheduledRehearsal,
    ScheduledResult,
    TriggeredRehearsal,
    TriggeredResult,
    rehearse_triggered,
)
from optimove_conditional_execution.rehearsal.plan import Expectation, read_rows
from optimove_conditional_execution.testing import FakeOptimove, notification
from tests.conftest import served

STAMPS = ("timestamp", "conditional_execution_approval_deadline", "request_uid")
RECORDED = [
    {**notification("C1", timestamp_ms=1_000, timeout_ms=4_000), "tenant_field": {"kept": [1, None]}},
    notification(17, request_uid=5, timestamp_ms=2_000),
]
RECORDED[0]["timestamp"] = "1000"


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook that answers nothing; yields its URL, and what came with a right signature."""
    came: list[dict[str, Any]] = []

    async def record(request: Request) -> PlainTextResponse:
        body = await request.body()
        verify(body, signature=request.headers["optimove-signature-content"], secrets="the-secret")
        came.append(json.loads(body))
        return PlainTextResponse("")

    with served(Starlette(routes=[Route("/x", record, methods=["POST"])])) as url:
        yield f"{url}/x", came


def test_payloads_are_sent_with_new_stamps(webhook: tuple[str, list[dict[str, Any]]]) -> None:
    url, came = webhook
    result = rehearse_triggered(
        url=url, secret="the-secret", payloads=RECORDED, expect={"17": "abstained"}, deadline_ms=1_000, rate=100
    )
    assert (result.sent, result.abstained, result.findings) == (2, 2, ())
    for payload, posted in zip(RECORDED, sorted(came, key=lambda one: one["user"]["user_id"] == 17), strict=True):
        assert {**payload, **{name: posted[name] for name in STAMPS}} == posted
        assert posted["conditional_execution_approval_deadline"] - posted["timestamp"] == 1_000
        assert posted["timestamp"] > 1_700_000_000_000
        assert posted["request_uid"] != payload["request_uid"]


def test_payloads_are_sent_as_they_are(webhook: tuple[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    url, came = webhook
    (file := tmp_path / "recorded.json").write_text(json.dumps(RECORDED), "utf-8-sig")
    result = rehearse_triggered(url=url, secret="the-secret", payloads=file, as_is=True, rate=100)
    assert sorted(came, key=lambda one: one["user"]["user_id"] == 17) == RECORDED
    assert [one.request_uid for one in result.observations] == [str(one["request_uid"]) for one in RECORDED]


@pytest.mark.parametrize(
    ("payloads", "complaint"),
    [
        ([], "There is no notification given"),
        ([{"user": {}}], "Notification 1 cannot be understood: .*user_id"),
        ([RECORDED[1], ["Mary"]], "Notification 2 is not a JSON object"),
    ],
)
def test_a_payload_that_is_no_notification(payloads: list[Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        TriggeredRehearsal(payloads=payloads)


def test_payloads_exclude_users_and_must_hold_who_is_expected() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        TriggeredRehearsal(payloads=RECORDED, users=["C1"])
    with pytest.raises(ConfigurationError, match="C2 among them"):
        TriggeredRehearsal(payloads=RECORDED, expect={"C2": "denied"})
    with pytest.raises(ConfigurationError, match="request_uid"):
        TriggeredRehearsal(payloads=[{**RECORDED[0], "request_uid": None}], as_is=True)


def test_who_is_expected_is_asked_about_once() -> None:
    rehearsal = TriggeredRehearsal(count=6, faults={"forged": 50}, expect={"C1": "denied", "C2": "approved"}, seed=3)
    asked = {one.user_id: one for one in rehearsal.notifications}
    assert len(asked) == len(rehearsal.notifications) == 6
    assert (asked["C1"].expected, asked["C2"].expected) == ("denied", "approved")
    assert asked["C1"].must_be_decided
    assert asked["C2"].must_be_decided
    before = {one.user_id for one in TriggeredRehearsal(count=6, faults={"forged": 50}, seed=3).notifications}
    assert len(before & asked.keys()) == 4, "the seed gives the same others"


def test_rows_of_a_csv_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text('CustomerID,actionid,PromoCode,Note\r\n007,4,"A,B","two\nlines"\r\nC8,,,\r\n', newline="")
    rows = read_rows(file)
    assert rows == [
        {"CustomerID": "007", "ActionID": 4, "PromoCode": "A,B", "CustomerAttributes": {"Note": "two\nlines"}},
        {"CustomerID": "C8", "CustomerAttributes": {"Note": ""}},
    ]
    fake = FakeOptimove()
    fake.add_campaign(rows, campaign_id=1)
    with fake.client() as client:
        served_rows = list(client.get_processed_campaign_customers(1, customer_attributes=["Note"]))
    assert [(one.customer_id, one.promo_codes, one.customer_attributes) for one in served_rows] == [
        ("007", ("A", "B"), ("two\nlines",)), ("C8", (), ("",)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "There is no row of .*rows.csv"),
        ("ID,ActionID\nC1,4\n", "Row 1 of .*rows.csv has no CustomerID"),
        ("CustomerID\nC1\nC2,4\n", "Row 2 of .*rows.csv has more cells than"),
        ('CustomerID\n"C1"x\n', "rows.csv is not CSV"),
        ("CustomerID,customerid\nC1,C2\n", "names a column twice"),
        (b"CustomerID\n\xff\n", "it is not UTF-8"),
    ],
)
def test_a_file_without_usable_rows(text: str | bytes, complaint: str, tmp_path: Path) -> None:
    (file := tmp_path / "rows.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        ScheduledRehearsal(rows=file)
    assert "C1" not in str(caught.value)


@pytest.mark.parametrize("given", [{}, [], True, None, 1.5, ""])
def test_a_customer_id_is_text_or_a_whole_number(given: object) -> None:
    with pytest.raises(ConfigurationError, match=r"Row 1 has no CustomerID"):
        read_rows([{"CustomerID": given}])


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"user":\n' + "[" * 100_000 + "]" * 100_000 + "}", '{"a": 1}\n' + "[" * 100_000]
)
def test_json_that_is_nested_too_deeply(text: str, tmp_path: Path) -> None:
    (file := tmp_path / "recorded.json").write_text(text)
    with pytest.raises(ConfigurationError, match=r"recorded.json cannot be read: its JSON is nested too deeply"):
        TriggeredRehearsal(payloads=file)
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        ScheduledRehearsal(rows=file)


def test_what_a_campaign_may_be_expected_to_do() -> None:
    held = FakeOptimove().add_campaign(["C1", "C2", "C3"])
    held.take([("C1", True), ("C2", False)], timestamp="", at_ms=held.added_ms)
    right = ScheduledResult.of(held, [200], expect={"C1": "approved", "C2": "denied", "C3": "denied"})
    assert (right.ok, right.failed, right.unmet) == (True, False, 0)
    wrong = ScheduledResult.of(held, [200], expect={"C2": "approved"})
    assert (wrong.failed, str(wrong.findings[0])[:67]) == (
        True, "C2 should have been approved, and was reported as not approved: com",
    )  # fmt: skip
    assert ScheduledResult.of(held, [200], never_awaited=["is_eligible"]).failed


def result(
    abstained: int, decided: int, undecided: float | None, expected: Expectation | None = None
) -> TriggeredResult:
    """Return the result of a rehearsal with so many notifications of each kind."""
    reply = Reply("http://127.0.0.1/x", 0.1, status=200)
    planned = PlannedNotification("C1", expected=expected)
    silent = Observation(planned, "uid", (reply,), latency_ms=1)
    approved = Observation(PlannedNotification("C2"), "uid", (reply,), answer=True, latency_ms=1)
    return TriggeredResult.of([silent] * abstained + [approved] * decided, deadline_ms=5_000, undecided=undecided)


def test_too_many_without_a_decision_are_a_finding() -> None:
    down = result(25, 35, None)
    assert [str(finding) for finding in down.findings] == [
        "25 of 60 notifications stayed without a decision, more than 33.3 %: the handler abstained, raised or was too "
        "slow, which the log of the service shows: a register or database may be down.",
    ]
    assert (down.ok, down.abstained, down.findings[0].user_ids) == (False, 25, ("C1",))
    assert result(20, 40, None).ok
    assert result(5, 4, None).ok, "nine are too few to tell"
    assert not result(1, 1, 49.0).ok
    assert not result(1, 99, 0.0).ok
    assert result(25, 35, 50.0).ok
    assert result(25, 35, None, expected="abstained").ok, "they were expected to stay without one"
    assert result(25, 35, None, expected="not approved").ok
