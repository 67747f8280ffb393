"""Replay: a new rule is asked about what was recorded; differences are counted and listed, and nothing is sent."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReview,
    ConfigurationError,
    Deadline,
    Decision,
    WebhookNotification,
    WebhookReceiver,
    per_customer,
    policy,
)
from optimove_conditional_execution.models.campaign import CustomerBatch
from optimove_conditional_execution.replay import Replayed, replay
from optimove_conditional_execution.shadow import Shadow
from optimove_conditional_execution.stores import DecisionRecord, LoggedDecision, SqliteDecisionLog, Subject
from optimove_conditional_execution.testing import FakeOptimove

pytestmark = pytest.mark.usefixtures("patient_switch")

CUSTOMERS = [f"C{number}" for number in range(6)]


def number_of(notification: WebhookNotification) -> int:
    return int(notification.user.user_id[1:])


def old_rule(notification: WebhookNotification, deadline: Deadline) -> Decision:
    return Decision.approve() if number_of(notification) % 2 else Decision.deny("even")


def old_reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return [each.customer_id for each in customers if int(each.customer_id[1:]) % 2]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteDecisionLog]:
    with SqliteDecisionLog(tmp_path / "decisions.db", keep_payloads=True) as log:
        yield log


@pytest.fixture
def optimove() -> FakeOptimove:
    return FakeOptimove()


@pytest.fixture
def triggered(log: SqliteDecisionLog, optimove: FakeOptimove) -> SqliteDecisionLog:
    """A log in which the even ones of six were denied."""
    receiver = WebhookReceiver(old_rule, client=optimove.client(), secrets=optimove.secrets, decision_log=log)
    for name in CUSTOMERS:
        optimove.notify(receiver, user_id=name)
    return log


def reviewed(log: SqliteDecisionLog, optimove: FakeOptimove, customers: Sequence[Any] = CUSTOMERS) -> None:
    campaign = optimove.add_campaign(list(customers))
    with optimove.client(timezone="UTC") as client:
        assert CampaignReview(old_reviewer, client=client, decision_log=log).run(campaign.event()).complete


def new_rule(notification: WebhookNotification, deadline: Deadline) -> Any:
    """Approves C0 too, and leaves C1 to others."""
    return {0: Decision.approve(reason="forgiven"), 1: Decision.abstain()}.get(
        number_of(notification), old_rule(notification, deadline)
    )


async def async_rule(notification: WebhookNotification, deadline: Deadline) -> Any:
    await asyncio.sleep(0)
    return new_rule(notification, deadline)


@pytest.mark.parametrize(
    "rule", [new_rule, async_rule, lambda notification, deadline: async_rule(notification, deadline)]
)
def test_who_would_be_decided_differently(
    triggered: SqliteDecisionLog, optimove: FakeOptimove, rule: Callable[..., Any]
) -> None:
    sent, head, found = len(optimove.calls), triggered.head(), list[Replayed]()
    report = replay(triggered.decisions(), handler=rule, on_difference=found.append)
    assert (report.asked, report.unchanged) == (6, 4)
    assert report.changed == {("deny", "approve"): 1, ("approve", "abstain"): 1}
    assert not report.failed
    assert not report.left_out
    first, second = found
    assert (first.logged.record.subject.customer_id, first.before, first.after) == ("C0", "deny", "approve")
    assert (first.reason, second.logged.record.subject.customer_id) == ("forgiven", "C1")
    assert not {"C0", "forgiven", "even"} & set(repr(found).replace("'", " ").split())
    assert (len(optimove.calls), triggered.head()) == (sent, head), "nothing is sent, and nothing recorded"


def test_the_same_rule_decides_the_same(triggered: SqliteDecisionLog) -> None:
    report = replay(triggered.decisions(), handler=old_rule)
    assert (report.asked, report.unchanged) == (6, 6)


def test_a_gate_that_observed_and_a_shadow(log: SqliteDecisionLog, optimove: FakeOptimove) -> None:
    """What the rule said counts, not that nothing was sent; and a shadow's answer is not one of a rule that counted."""
    shadow = Shadow(lambda notification, deadline: False)
    receiver = WebhookReceiver(
        old_rule, client=optimove.client(), secrets=optimove.secrets, decision_log=log, observe=True, shadow=shadow
    )
    for name in CUSTOMERS:
        optimove.notify(receiver, user_id=name)
    assert shadow.wait()
    assert sum(logged.record.kind == "shadow" for logged in log.decisions()) == 6
    report = replay(log.decisions(), handler=old_rule)
    assert (report.asked, report.unchanged, dict(report.left_out)) == (6, 6, {})


@pytest.mark.parametrize("observe", [False, True])
@pytest.mark.parametrize("says", ["deny", "abstain"])
def test_what_the_kill_switch_answered_is_left_out(
    log: SqliteDecisionLog, optimove: FakeOptimove, says: str, observe: bool
) -> None:
    receiver = WebhookReceiver(
        old_rule,
        client=optimove.client(),
        secrets=optimove.secrets,
        decision_log=log,
        switch=lambda: says,
        observe=observe,
    )
    for name in CUSTOMERS:
        optimove.notify(receiver, user_id=name)
    with optimove.client(timezone="UTC") as client:
        review = CampaignReview(
            old_reviewer, client=client, decision_log=log, switch=lambda: says, observe=observe, control_group="skip"
        )
        review.run(optimove.add_campaign(list(CUSTOMERS)).event())
    assert {logged.record.switch for logged in log.decisions()} == {says}
    assert log.verify() is None
    report = replay(log.decisions(), handler=lambda *_: True, reviewer=old_reviewer)
    assert (report.asked, dict(report.left_out)) == (0, {"not_decided": 12})


def test_an_observed_review(log: SqliteDecisionLog, optimove: FakeOptimove) -> None:
    with optimove.client(timezone="UTC") as client:
        review = CampaignReview(old_reviewer, client=client, decision_log=log, observe=True)
        assert review.run(optimove.add_campaign(list(CUSTOMERS)).event()).would_approve == 3
    report = replay(log.decisions(), reviewer=lambda customers, deadline: [each.customer_id for each in customers])
    assert (report.asked, dict(report.changed)) == (6, {("deny", "approve"): 3})


def test_a_part_of_the_log(triggered: SqliteDecisionLog) -> None:
    assert replay(triggered.decisions(customer_id="C3"), handler=new_rule).asked == 1
    assert replay(triggered.decisions(since=datetime(2200, 1, 1, tzinfo=UTC)), handler=new_rule).asked == 0


def raising(notification: WebhookNotification, deadline: Deadline) -> bool:
    if number_of(notification) == 1:
        raise KeyError(notification.user.user_id)
    return bool(number_of(notification) % 2)


def ending(notification: WebhookNotification, deadline: Deadline) -> bool:
    raise SystemExit(notification.user.user_id)


@pytest.mark.parametrize(
    ("rule", "failed"),
    [
        (raising, {"The handler raised KeyError.": 1}),
        (ending, {"The handler raised SystemExit.": 6}),
        (lambda notification, deadline: "yes", {"The handler returned str; it must return a bool or a Decision.": 6}),
    ],
)
def test_a_rule_that_fails(triggered: SqliteDecisionLog, rule: Any, failed: Mapping[str, int]) -> None:
    found = list[Replayed]()
    report = replay(triggered.decisions(), handler=rule, on_difference=found.append)
    assert report.failed == failed
    assert (report.asked, report.unchanged) == (6, 6 - sum(failed.values()))
    assert {(each.after, each.error) for each in found} == {(None, text) for text in failed}


async def hanging_async(notification: WebhookNotification, deadline: Deadline) -> bool:
    if number_of(notification) == 1:
        await asyncio.sleep(60)
    return bool(number_of(notification) % 2)


@pytest.mark.parametrize("is_plain", [True, False])
def test_a_rule_that_hangs_is_left_behind(triggered: SqliteDecisionLog, is_plain: bool) -> None:
    over = threading.Event()

    def hanging(notification: WebhookNotification, deadline: Deadline) -> bool:
        if number_of(notification) == 1:
            over.wait(60)
        return bool(number_of(notification) % 2)

    report = replay(triggered.decisions(), handler=hanging if is_plain else hanging_async, timeout=1.0)
    over.set()
    assert report.failed == {"The handler did not answer in time.": 1}
    assert report.unchanged == 5


def test_a_rule_that_always_hangs_occupies_no_more_threads(triggered: SqliteDecisionLog) -> None:
    over = threading.Event()

    def always(notification: WebhookNotification, deadline: Deadline) -> bool:
        over.wait(60)
        return True

    # Long enough for a thread of a busy machine to begin: a call that has not by then never does.
    report = replay(triggered.decisions(), handler=always, timeout=0.6, concurrency=2)
    over.set()
    assert report.failed == {"The handler did not answer in time.": 2, "Earlier calls of the handler still hang.": 4}


def test_what_is_left_out(log: SqliteDecisionLog, triggered: SqliteDecisionLog, optimove: FakeOptimove) -> None:
    first = next(triggered.decisions()).record
    again = replace(first, id="again", redelivered=True)
    late = replace(first, id="late", kind="late", verdict="abstain")
    unasked = replace(first, id="overloaded", kind="overloaded", verdict=None)
    log.append([again, late, unasked, replace(first, id="bare", payload=None), replace(first, id="odd", payload=b"{")])
    reviewed(log, optimove)
    assert log.erase("C5") == 2
    report = replay(log.decisions(), handler=new_rule)
    assert report.left_out == {"not_decided": 2, "without_payload": 1, "erased": 1, "no_rule": 6}
    assert report.failed == {"The payload cannot be understood.": 1}
    assert report.asked == 6


# ---- reviews


def everybody(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return [each.customer_id for each in customers]


async def everybody_async(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return everybody(customers, deadline)


async def check_async(customer: CampaignCustomer) -> bool:
    return True


@pytest.mark.parametrize(
    "reviewer",
    [
        everybody,
        everybody_async,
        lambda customers, deadline: dict.fromkeys(everybody(customers, deadline), True),
        lambda customers, deadline: (each.customer_id for each in customers),
        per_customer(lambda customer: True),
        per_customer(check_async),
        policy.all_of(fine=lambda customer, deadline: True).reviewer,
    ],
)
def test_a_new_reviewer(log: SqliteDecisionLog, optimove: FakeOptimove, reviewer: Any) -> None:
    reviewed(log, optimove)
    found = list[Replayed]()
    report = replay(log.decisions(), reviewer=reviewer, on_difference=found.append)
    assert (report.asked, report.changed, report.failed) == (6, {("deny", "approve"): 3}, {})
    assert sorted(str(each.logged.record.subject.customer_id) for each in found) == ["C0", "C2", "C4"]


def test_a_reviewer_gets_what_it_got(log: SqliteDecisionLog, optimove: FakeOptimove) -> None:
    rows = [
        {"CustomerID": name, "ChannelID": channel, "ActionID": 2, "CustomerAttributes": "vip"}
        for name in CUSTOMERS
        for channel in (15, 16)
    ]
    reviewed(log, optimove, rows)
    reviewed(log, optimove)
    batches: list[CustomerBatch] = []

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        batches.append(customers)
        return old_reviewer(customers, deadline)

    report = replay(log.decisions(), reviewer=reviewer, batch_size=4)
    assert report.unchanged == report.asked
    first, *_ = batches
    assert first[0].customer_attributes == ("vip",)
    assert all(len({each.customer_id for each in batch}) == len(batch) <= 4 for batch in batches)
    assert len({batch.event.key for batch in batches}) == 2
    assert {row.channel_id for row in first[0].rows} == {15, 16}


@pytest.mark.parametrize(
    ("answer", "failed"),
    [
        (KeyError("C1"), "The reviewer raised KeyError."),
        ("C1", "The reviewer returned a str; it must return the customer_ids"),
        (["Cx"], "Nothing that the reviewer returned is in its batch"),
    ],
)
def test_a_reviewer_that_fails(log: SqliteDecisionLog, optimove: FakeOptimove, answer: Any, failed: str) -> None:
    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    reviewed(log, optimove)
    report = replay(log.decisions(), reviewer=reviewer)
    ((text, count),) = report.failed.items()
    assert (text.startswith(failed), count) == (True, 6)


def test_a_reviewer_of_which_one_customer_fails(log: SqliteDecisionLog, optimove: FakeOptimove) -> None:
    def one(customer: CampaignCustomer) -> bool:
        return {"C0": False}.get(customer.customer_id) or bool(1 // (customer.customer_id != "C1"))

    reviewed(log, optimove)
    report = replay(log.decisions(), reviewer=per_customer(one))
    assert report.failed == {"The function raised ZeroDivisionError.": 1}


# ---- settings


def test_encrypted_payloads(tmp_path: Path, optimove: FakeOptimove) -> None:
    key, path = Fernet.generate_key(), tmp_path / "decisions.db"
    with SqliteDecisionLog(path, keep_payloads=True, encryption_keys=key) as log:
        receiver = WebhookReceiver(old_rule, client=optimove.client(), secrets=optimove.secrets, decision_log=log)
        optimove.notify(receiver, user_id="C0")
    with SqliteDecisionLog(path, encryption_keys=key) as log:
        assert replay(log.decisions(), handler=new_rule).changed == {("deny", "approve"): 1}
    with SqliteDecisionLog(path) as log, pytest.raises(ConfigurationError, match="entry 1 is encrypted"):
        replay(log.decisions(), handler=new_rule)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({}, "needs handler= or reviewer="),
        ({"handler": lambda: True}, "handler"),
        ({"reviewer": 7}, "reviewer"),
        ({"handler": new_rule, "timeout": 0}, "timeout"),
        ({"handler": new_rule, "concurrency": 0}, "concurrency"),
        ({"handler": new_rule, "batch_size": 0}, "batch_size"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        replay([], **settings)


def test_memory_stays_flat(triggered: SqliteDecisionLog) -> None:
    payload = next(triggered.decisions()).record.payload

    def many(count: int) -> Iterator[LoggedDecision]:
        for number in range(count):
            subject = Subject(customer_id=f"C{number}")
            yield LoggedDecision(
                entry=number,
                record=DecisionRecord(
                    at=datetime.now(UTC), flow="triggered", kind="denied", subject=subject, verdict="deny",
                    payload=payload,
                ),
            )  # fmt: skip

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            assert replay(many(count), handler=async_rule).asked == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(50)  # what is imported and cached the first time
    assert peak(2_000) < 2 * peak(200)
