"""A review that is stopped: nobody is asked any more, what may be sent is sent, and `resume` goes on."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from optimove_conditional_execution import (
    AsyncCampaignReview,
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    ConfigurationError,
    CustomerBatch,
    Deadline,
    ReviewReport,
    per_customer,
)
from optimove_conditional_execution.flows.journal import DecidedBatch, OpenReview
from optimove_conditional_execution.flows.report import Progress
from optimove_conditional_execution.review.timing import AdvancingClock, earliest
from optimove_conditional_execution.stores import MemoryJournal
from optimove_conditional_execution.testing import FakeOptimove
from tests.review.conftest import everybody

PATIENCE = 30.0
FIRST, SECOND = ("C0000001", "C0000002"), ("C0000003", "C0000004")

Stop = Callable[..., None]


class Stopping:
    """A review of either colour that its reviewer, or the test, can stop."""

    def __init__(self, colour: str, fake: FakeOptimove, journal: MemoryJournal) -> None:
        self.colour = colour
        self.fake = fake
        self.journal = journal
        self.stop: Stop = lambda **_: None
        self.took = 0.0

    def run(self, reviewer: Any, event: CampaignReadyEvent, *, and_resume: bool = False, **options: Any) -> Any:
        """Return the report, and with `and_resume` those of `resume` after it."""
        settings: dict[str, Any] = {"journal": self.journal, "batch_size": 2, "concurrency": 1} | options
        if self.colour == "sync":
            with self.fake.client() as client:
                review = CampaignReview(reviewer, client=client, **settings)
                self.stop = review.stop
                report = self._timed(review.run(event))
                return (report, review.resume()) if and_resume else report

        async def go() -> Any:
            async with self.fake.async_client() as client:
                review = AsyncCampaignReview(reviewer, client=client, **settings)
                self.stop = review.stop
                report = self._timed(await review.run(event))
                return (report, await review.resume()) if and_resume else report

        return asyncio.run(go())

    def begins(self, within: float) -> None:
        """Stop it now, and take the time."""
        self._began = time.monotonic()
        self.stop(within=within)

    def _timed(self, report: ReviewReport) -> ReviewReport:
        self.took = time.monotonic() - self._began
        return report

    def kept(self, event: CampaignReadyEvent) -> list[DecidedBatch]:
        return list(self.journal.batches(event.key))


@pytest.fixture(params=["sync", "async"])
def stopping(request: pytest.FixtureRequest, fake_optimove: FakeOptimove) -> Stopping:
    return Stopping(request.param, fake_optimove, MemoryJournal())


def until(deadline: Deadline) -> float:
    """Wait until a deadline that is an hour away, and return after how long it came."""
    begun = time.monotonic()
    while not deadline.expired and time.monotonic() < begun + PATIENCE:
        time.sleep(0.01)
    return time.monotonic() - begun - deadline.overdue


@pytest.mark.parametrize("options", [{}, {"batch_timeout": 600.0}])
def test_a_running_reviewer_sees_it_as_its_deadline_and_what_is_recorded_is_sent(
    stopping: Stopping, options: dict[str, Any]
) -> None:
    campaign = stopping.fake.add_campaign(4)
    waited: list[float] = []
    all_read, over = threading.Event(), threading.Event()

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        if customers.number == 2:
            assert all_read.wait(PATIENCE)
            stopping.begins(within=4)
            waited.append(until(deadline))
            over.wait(PATIENCE)  # and is late all the same
        return everybody(customers, deadline)

    def progress(now: Progress) -> None:
        if now.all_read:
            all_read.set()

    report = stopping.run(reviewer, campaign.event(), progress=progress, **options)
    over.set()
    assert (report.stopped, report.complete, report.failed) == (True, False, 0)
    assert (report.approved, report.acknowledged, report.not_reached) == (2, 2, 2)
    assert sorted(campaign.recipients()) == [*FIRST], "every row was read, so what is recorded is sent"
    assert stopping.took < PATIENCE / 2
    assert "resume()" in str(report.error)
    assert any("2 customers were asked about" in text for text in report.warnings)
    assert [batch.unanswered for batch in stopping.kept(campaign.event()) if batch.unanswered] == [SECOND]
    (state,) = stopping.journal.reviews()
    assert not state.finished
    assert ReviewReport.from_json(str(state.report)).stopped, "its report is kept"
    assert waited, "a reviewer whose thread is abandoned saw its deadline, too"
    assert waited[0] < 4


def test_nobody_is_asked_any_more_and_nothing_is_released_that_a_later_row_could_revoke(stopping: Stopping) -> None:
    campaign = stopping.fake.add_campaign(10)
    asked: list[str] = []

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        asked.extend(everybody(customers, deadline))
        if len(asked) == 4:
            stopping.begins(within=60)  # answers in time; three more batches are queued or not read
            noticed = Deadline.after(PATIENCE)
            while deadline.remaining() > 60 and not noticed.expired:
                time.sleep(0.01)
        return everybody(customers, deadline)

    report, resumed = stopping.run(reviewer, campaign.event(), and_resume=True)
    assert (report.stopped, report.approved, report.acknowledged) == (True, 4, 0)
    assert any("4 approvals were not sent by this run" in text for text in report.warnings)
    assert stopping.took < 30
    (again,) = resumed
    assert (again.complete, again.stopped, again.approved, again.acknowledged) == (True, False, 10, 10)
    assert sorted(asked) == sorted(campaign.recipients()), "each was asked about once"
    assert not campaign.contradictions


def test_a_customer_whose_call_hangs_is_unanswered_alone(stopping: Stopping) -> None:
    campaign = stopping.fake.add_campaign(4)
    over = threading.Event()

    def plain(customer: CampaignCustomer) -> bool:
        if customer.customer_id == FIRST[1]:
            stopping.begins(within=3)
            over.wait(PATIENCE)
        return True

    report = stopping.run(per_customer(plain, concurrency=1), campaign.event(), batch_size=4)
    over.set()
    assert (report.stopped, report.approved, report.not_reached) == (True, 1, 3)
    (batch, *_) = stopping.kept(campaign.event())
    assert (batch.approved, batch.unanswered, batch.not_reached) == (FIRST[:1], FIRST[1:], SECOND)


def test_coroutines_of_one_customer_are_cut_short(fake_optimove: FakeOptimove) -> None:
    stopping = Stopping("async", fake_optimove, MemoryJournal())
    campaign = fake_optimove.add_campaign(2)

    async def hangs(customer: CampaignCustomer) -> bool:
        if customer.customer_id == FIRST[1]:
            stopping.begins(within=2)
            await asyncio.sleep(PATIENCE)
        return True

    report = stopping.run(per_customer(hangs), campaign.event())
    assert (report.stopped, report.approved, report.not_reached) == (True, 1, 1)
    assert stopping.took < PATIENCE / 2
    assert next(iter(stopping.kept(campaign.event()))).unanswered == FIRST[1:]


def test_close_stops_a_review_that_waits_for_its_next_pass(fake_optimove: FakeOptimove) -> None:
    first, other = fake_optimove.add_campaign(2).event(), fake_optimove.add_campaign(2).event()
    told: list[ReviewReport] = []
    failed = threading.Event()

    def fails(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        failed.set()
        raise ConnectionError

    journal = MemoryJournal()
    with fake_optimove.client() as client:
        review = CampaignReview(fails, client=client, journal=journal, on_report=told.append, batch_attempts=1)
        review.submit(first)
        assert failed.wait(PATIENCE)
        while not journal.reviews()[0].report:
            time.sleep(0.01)  # the first pass ends
        begun = time.monotonic()
        review.close(within=5)
        assert time.monotonic() - begun < PATIENCE
        assert [(one.stopped, one.failed) for one in told] == [(True, 2)]
        failed.clear()
        review.submit(other)
        review.close()
        assert not failed.is_set(), "after a stop an event is only recorded"
        assert review.run(first).stopped
    assert journal.unfinished() == [first, other]


def test_aclose_has_a_bound_though_a_reviewer_hangs(fake_optimove: FakeOptimove) -> None:
    told: list[ReviewReport] = []
    asked = asyncio.Event()

    async def hangs(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        asked.set()
        await asyncio.sleep(PATIENCE)
        return []

    async def go() -> float:
        async with fake_optimove.async_client() as client:
            review = AsyncCampaignReview(hangs, client=client, on_report=told.append)
            await review.submit(fake_optimove.add_campaign(3).event())
            await asked.wait()
            begun = time.monotonic()
            await review.aclose(within=1)
            return time.monotonic() - begun

    assert asyncio.run(go()) < PATIENCE / 2
    assert [(one.stopped, one.not_reached) for one in told] == [(True, 3)]


class HangingJournal(MemoryJournal):  # type: ignore[misc]  # as an integrator may do
    """Hangs when a review is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opening, self.may_go = threading.Event(), threading.Event()

    def open(self, event: CampaignReadyEvent, /) -> OpenReview | None:
        self.opening.set()
        self.may_go.wait(PATIENCE)
        return super().open(event)


def test_a_journal_that_hangs_does_not_hold_a_stop(fake_optimove: FakeOptimove) -> None:
    journal, event = HangingJournal(), fake_optimove.add_campaign(1).event()
    review = CampaignReview(everybody, client=fake_optimove.client(), journal=journal)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(review.run, event)
        assert journal.opening.wait(PATIENCE)
        review.stop(within=1)
        report = running.result(timeout=PATIENCE / 2)
    journal.may_go.set()
    assert (report.stopped, report.rows) == (True, 0)
    with fake_optimove.client() as client:
        left = time.monotonic() + PATIENCE
        while not (reports := CampaignReview(everybody, client=client, journal=journal).resume()):
            assert time.monotonic() < left, "the lock is released when the journal has answered"
            time.sleep(0.05)
    assert reports[0].complete


@pytest.mark.parametrize("within", [-1, "5", None, float("nan")])
def test_a_stop_needs_a_number_of_seconds(fake_optimove: FakeOptimove, within: Any) -> None:
    review = CampaignReview(everybody, client=fake_optimove.client())
    with pytest.raises(ConfigurationError, match="within"):
        review.stop(within=within)


def test_a_deadline_that_is_brought_forward_is_so_for_all_who_have_it() -> None:
    now = [100.0]
    clock = AdvancingClock(lambda: now[0])
    last = Deadline.after(60, clock=clock)
    first = last.earlier_by(1)
    either = earliest(first, Deadline.after(600))
    assert (first.remaining(), either.remaining()) == (59, 59)
    clock.bring(last, 5)
    assert (last.remaining(), first.remaining(), either.remaining()) == (5, 4, 4)
    clock.bring(last, 50)
    assert last.remaining() == 5, "never later"
    now[0] += 4
    assert (first.expired, either.expired, last.expired) == (True, True, False)


def test_such_a_deadline_can_be_sent_to_another_process() -> None:
    deadline = earliest(Deadline.after(60, clock=AdvancingClock(time.monotonic)), Deadline.after(600))
    assert 50 < pickle.loads(pickle.dumps(deadline)).remaining() <= 60
