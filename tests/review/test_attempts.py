"""Customers whose decision fails, or whose reviewer hangs, are asked about again; the journal names them."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import (
    AsyncCampaignReview,
    CampaignCustomer,
    CampaignReview,
    ConfigurationError,
    CustomerBatch,
    Deadline,
    DeadlineExceeded,
    Decision,
    ReviewReport,
    ServerError,
    StoreError,
    per_customer,
)
from optimove_conditional_execution.stores import DecidedBatch, MemoryJournal, SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove
from tests.review.conftest import Rig, everybody

A, B, C = "C0000001", "C0000002", "C0000003"


def test_who_failed_is_asked_about_again_alone(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(3)
    asked: list[tuple[int, list[str]]] = []

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> dict[str, Any]:
        asked.append((customers.attempt, everybody(customers, deadline)))
        odd = {B: "?"} if customers.attempt == 1 else {}
        return {one.customer_id: odd.get(one.customer_id, one.customer_id != C) for one in customers}

    journal = MemoryJournal()
    report = rig.run(reviewer, campaign.event(), journal=journal)
    assert asked == [(1, [A, B, C]), (2, [B])]
    assert (report.complete, report.approved, report.denied, report.failed, report.warnings) == (True, 2, 1, 0, ())
    assert sorted(campaign.recipients()) == [A, B]
    failed = [batch.failed for batch in journal.batches(campaign.event().key) if batch.failed]
    assert failed == [{"InvalidAnswer": (B,)}]


@pytest.mark.parametrize("attempts", [1, 2])
def test_it_is_asked_so_often_in_all(rig: Rig, attempts: int) -> None:
    asked: list[int] = []

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        asked.append(customers.attempt)
        raise ConnectionError

    report = rig.run(reviewer, rig.fake.add_campaign(3).event(), batch_attempts=attempts)
    assert asked == list(range(1, attempts + 1))
    assert (report.failed, report.complete) == (3, False)
    assert report.warnings == ("1 batches failed: The reviewer raised ConnectionError.",)


def test_who_failed_is_in_the_journal(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(20)
    journal = MemoryJournal()

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> Any:
        if customers[0].customer_id == "C0000011":
            raise ServerError("no", status=503, operation="")
        return {
            one.customer_id: Decision.deny("minor") if one.customer_id == A else Decision.abstain()
            for one in customers
            if one.customer_id in (A, B)
        }

    report = rig.run(reviewer, campaign.event(), journal=journal, batch_size=10, report_denied=True)
    assert (report.reviewed, report.denied, report.abstained, report.failed) == (20, 10, 1, 10)
    assert (len(campaign.statuses), B in campaign.statuses) == (9, False), "who abstains is not reported"
    kept = list(journal.batches(campaign.event().key))
    names = tuple(f"C{number:07}" for number in range(11, 21))
    assert {kind: ids for batch in kept for kind, ids in batch.failed.items()} == {"ServerError 503": names}
    assert {name: words for batch in kept for name, words in batch.reasons.items()} == {A: "minor"}
    (state,) = journal.reviews()
    assert not state.finished
    assert ReviewReport.from_json(str(state.report)).failed == 10, "the report of an incomplete run is kept"


def test_the_reasons_of_one_customer_at_a_time_are_kept(rig: Rig) -> None:
    def one(customer: CampaignCustomer) -> Decision | bool:
        if customer.customer_id == A:
            return Decision.approve(reason="vip")
        return customer.customer_id == B or Decision.abstain("no register")

    campaign, journal = rig.fake.add_campaign(3), MemoryJournal()
    report = rig.run(per_customer(one), campaign.event(), journal=journal, report_denied=True)
    assert (report.complete, campaign.statuses) == (True, {A: True, B: True})
    (batch, _) = journal.batches(campaign.event().key)
    assert (batch.abstained, batch.reasons) == ((C,), {A: "vip", C: "no register"})


@pytest.mark.parametrize("colour", ["sync", "async, plain reviewer"])
def test_a_batch_that_hangs_is_asked_about_again_and_its_late_answer_is_ignored(
    colour: str, fake_optimove: FakeOptimove
) -> None:
    campaign, journal = fake_optimove.add_campaign(3), MemoryJournal()
    again, answered_late = threading.Event(), threading.Event()

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        if customers.attempt == 1:
            again.wait(30)
            answered_late.set()
            return []
        again.set()
        answered_late.wait(0.2)  # the first answer comes while this one is on its way
        return everybody(customers, deadline)

    report = Rig(colour, fake_optimove).run(reviewer, campaign.event(), journal=journal, batch_timeout=0.3)
    assert report.complete
    assert (report.approved, report.denied) in ((3, 0), (0, 3)), "the first answer that is recorded counts, of all"
    (state,) = journal.reviews()
    assert (state.decided, state.approved) == (3, report.approved)
    assert not campaign.contradictions


def test_a_first_answer_that_is_late_counts_when_there_is_no_other(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(3)
    first_may_go, over = threading.Event(), threading.Event()

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        if customers.attempt == 1:
            first_may_go.wait(30)
            return everybody(customers, deadline)[:2]
        first_may_go.set()
        over.wait(30)
        return everybody(customers, deadline)

    review = CampaignReview(reviewer, client=fake_optimove.client(), batch_timeout=0.3, concurrency=1)
    report = review.run(campaign.event())
    over.set()
    assert (report.complete, report.approved, report.denied) == (True, 2, 1)


def test_whom_a_late_answer_did_not_reach_still_gets_the_next_one(fake_optimove: FakeOptimove) -> None:
    campaign, again = fake_optimove.add_campaign(3), threading.Event()

    def one(customer: CampaignCustomer) -> bool:
        return customer.customer_id != C or again.wait(30)

    one_by_one: Any = per_customer(one)

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> Any:
        if customers.attempt == 1:
            answer = one_by_one(customers, deadline)
            again.wait(30)
            return answer
        again.set()
        time.sleep(0.1)  # the late answer comes now
        return everybody(customers, deadline)

    report = CampaignReview(reviewer, client=fake_optimove.client(), batch_timeout=0.5).run(campaign.event())
    assert (report.complete, report.approved, report.not_reached) == (True, 3, 0)


def test_a_batch_that_waits_for_a_thread_is_not_begun_after_its_time(fake_optimove: FakeOptimove) -> None:
    campaign, over, asked = fake_optimove.add_campaign(3), threading.Event(), list[int]()

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        asked.append(customers.number)
        over.wait(30)
        return everybody(customers, deadline)

    review = CampaignReview(
        reviewer,
        client=fake_optimove.client(),
        batch_size=1,
        concurrency=1,
        batch_timeout=0.5,  # long enough for a thread of a busy machine to begin
        batch_attempts=1,
    )
    report = review.run(campaign.event())
    over.set()
    time.sleep(0.1)
    assert (report.failed, report.approved, asked) == (3, 0, [1])


def test_who_failed_is_still_counted_when_clearance_has_passed(tmp_path: Path, fake_optimove: FakeOptimove) -> None:
    """A process that is killed while a minute is left, and a restart when it is over."""
    campaign = fake_optimove.add_campaign([f"C{number}" for number in range(6)], lead_seconds=60)
    program = """
import os, sys, time
from optimove_conditional_execution import CampaignReadyEvent, CampaignReview, Decision
from optimove_conditional_execution.stores import SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove

def reviewer(customers, deadline):
    names = [each.customer_id for each in customers]
    if customers.number == 2:
        raise ConnectionError
    if customers.number == 1:
        return {names[0]: Decision.abstain(), names[1]: True}
    while not any(batch.failed for batch in journal.batches(event.key)):
        time.sleep(0.01)
    os.kill(os.getpid(), 9)

event, journal, optimove = CampaignReadyEvent.from_json(sys.argv[1]), SqliteJournal(sys.argv[2]), FakeOptimove()
optimove.add_campaign([f"C{number}" for number in range(6)], campaign_id=event.campaign_id)
CampaignReview(reviewer, client=optimove.client(), journal=journal, batch_size=2, concurrency=1).run(event)
"""
    path = tmp_path / "reviews.db"
    command = [sys.executable, "-c", program, json.dumps(campaign.payload), str(path)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    with SqliteJournal(path) as journal, fake_optimove.client() as client:
        later = CampaignReview(everybody, client=client, journal=journal, wall_clock=lambda: time.time() + 120)
        (report,) = later.resume()
        assert isinstance(report.error, DeadlineExceeded)
        assert (report.reviewed, report.approved, report.denied, report.abstained, report.failed) == (4, 1, 1, 1, 2)
        (state,) = journal.reviews()
        assert (state.finished, ReviewReport.from_json(str(state.report)).failed) == (True, 2)
    assert not campaign.statuses


def test_an_answer_after_the_end_of_the_pass_is_ignored(fake_optimove: FakeOptimove) -> None:
    campaign, over, calls = fake_optimove.add_campaign(2), threading.Event(), list[dict[str, Any]]()

    class Full(MemoryJournal):  # type: ignore[misc]
        def record(self, key: str, batches: Sequence[DecidedBatch], /, *, run: int | None = None) -> None:
            if any(batch.approved for batch in batches):
                raise StoreError("full")
            super().record(key, batches, run=run)

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        if customers[0].customer_id == A:
            over.wait(30)
        else:
            time.sleep(0.3)
        return everybody(customers, deadline)

    async def go() -> ReviewReport:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: calls.append(context))
        review = AsyncCampaignReview(
            reviewer, client=fake_optimove.async_client(), journal=Full(), batch_size=1, batch_timeout=0.1
        )
        report = await review.run(campaign.event())
        over.set()
        await asyncio.sleep(0.1)
        return report

    report = asyncio.run(go())
    assert (report.complete, report.approved, campaign.statuses, calls) == (False, 0, {}, [])


def test_a_coroutine_that_hangs_is_asked_again(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(3)

    async def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        if customers.attempt == 1:
            await asyncio.sleep(60)
        return everybody(customers, deadline)

    review = AsyncCampaignReview(reviewer, client=fake_optimove.async_client(), batch_timeout=0.3)
    report = asyncio.run(review.run(campaign.event()))
    assert (report.complete, report.approved, report.warnings) == (True, 3, ())


def test_who_was_asked_about_without_an_answer_is_named(fake_optimove: FakeOptimove) -> None:
    campaign, journal = fake_optimove.add_campaign(5, lead_seconds=3), MemoryJournal()
    over = threading.Event()

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        if customers.number == 2:
            over.wait(20)
        return everybody(customers, deadline)

    review = CampaignReview(reviewer, client=fake_optimove.client(), journal=journal, batch_size=2, concurrency=1)
    report = review.run(campaign.event())
    over.set()
    kept = list(journal.batches(campaign.event().key))
    assert [batch.unanswered for batch in kept if batch.unanswered] == [("C0000003", "C0000004")]
    assert [batch.not_reached for batch in kept if batch.not_reached] == [("C0000005",)]
    assert (report.approved, report.not_reached, report.complete) == (2, 3, False)


@pytest.mark.parametrize("options", [{"batch_attempts": 0}, {"batch_timeout": 0}, {"batch_timeout": -1.0}])
def test_settings_that_make_no_sense(fake_optimove: FakeOptimove, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        CampaignReview(everybody, client=fake_optimove.client(), **options)
