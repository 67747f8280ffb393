"""Reviews that are incomplete go on by themselves while there is time before clearance."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    Deadline,
    Request,
    Response,
    ReviewReport,
)
from optimove_conditional_execution.review import timing
from optimove_conditional_execution.review.timing import Passes
from optimove_conditional_execution.stores import MemoryJournal, SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove
from tests.review.conftest import Rig, both_colours, everybody, odd
from tests.review.test_clocks import SteppingClock

BAD = Response(400, {"content-type": "application/json"}, b'{"message": "not now"}')


def refusing(fake: FakeOptimove, path: str, *answers: Response) -> list[str]:
    """Answer the first requests of a path otherwise; return the paths of all requests."""
    left, handle, paths = list(answers), fake.handle, list[str]()

    def answer(request: Request) -> Response:
        name = request.path.rpartition("/")[2]
        paths.append(name)
        return left.pop(0) if left and name == path else handle(request)

    fake.handle = answer  # type: ignore[method-assign]
    return paths


READ, UPDATE = "GetProcessedCampaignCustomers", "UpdateCustomerPromotionStatus"


@pytest.fixture(autouse=True)
def short_pauses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "fake_optimove" in request.fixturenames:
        monkeypatch.setattr(timing, "_FIRST_PAUSE", 0.1)


@pytest.mark.parametrize("answer", [BAD], ids=["a refusal"])
def test_an_update_that_was_refused_is_sent_again_before_clearance(
    answer: Response, rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = rig.fake.add_campaign(300, lead_seconds=30)
    journal = MemoryJournal()
    paths = refusing(rig.fake, UPDATE, *[answer] * 2)
    (report,) = rig.submit(everybody, campaign.event(), journal=journal)
    assert (report.complete, report.acknowledged, report.rows, report.chunks) == (True, 300, 300, 1)
    assert len(campaign.recipients()) == 300
    assert not campaign.twice
    assert paths.count(READ) <= 3, "everybody was decided about: nobody is read again"
    assert ReviewReport.from_json(str(journal.reviews()[0].report)) == report
    assert any("first pass was incomplete" in warning for warning in report.warnings)
    assert "the review goes on in" in caplog.text


def test_a_reading_that_failed_is_taken_up_again(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(300, lead_seconds=30)
    refusing(rig.fake, READ, *[BAD] * 2)
    (report,) = rig.submit(everybody, campaign.event())
    assert (report.complete, report.acknowledged) == (True, 300)


def test_a_reviewer_that_failed_is_asked_again_about_those_alone(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(300, lead_seconds=30)
    asked: list[str] = []
    failed: list[str] = []

    def recovers(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        ids = [customer.customer_id for customer in customers]
        asked.extend(ids)
        if asked.count("C0000001") < 2 and "C0000001" in ids:
            failed.extend(ids)
            raise ConnectionError
        return odd(customers, deadline)

    (report,) = rig.submit(recovers, campaign.event(), batch_size=100)
    assert (report.complete, report.approved, report.failed) == (True, 150, 0)
    assert {name for name in asked if asked.count(name) > 1} == set(failed)
    assert 0 < len(failed) <= 100
    assert not campaign.contradictions


def test_resume_goes_on_too(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(300, lead_seconds=30)
    journal = MemoryJournal()
    journal.add(campaign.event())
    refusing(rig.fake, UPDATE, BAD)
    (report,) = rig.resume(everybody, journal=journal)
    assert (report.complete, report.acknowledged) == (True, 300)


def test_run_returns_after_one_pass(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(300, lead_seconds=600)
    refusing(rig.fake, UPDATE, BAD)
    report = rig.run(everybody, campaign.event())
    assert (report.complete, report.acknowledged) == (False, 0)


@both_colours
def test_it_ends_at_clearance_and_says_so(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(10, lead_seconds=3)
    refused = refusing(rig.fake, UPDATE, *[BAD] * 100)
    begun = time.monotonic()
    (report,) = rig.submit(everybody, campaign.event())
    assert time.monotonic() - begun < 30
    assert (report.complete, report.finished_before_clearance, report.acknowledged) == (False, False, 0)
    assert 2 <= refused.count(UPDATE) <= 10
    assert "400" in str(report.error)


def test_within_the_safety_margin_it_sends_and_asks_nobody(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(200, lead_seconds=60)
    handle, wall = rig.fake.handle, SteppingClock()
    asked: list[float] = []

    class TwoPasses(MemoryJournal):  # type: ignore[misc]
        """Lets 40 s of the minute pass between the second pass and the third: the margin has come."""

        ended = 0

        def unlock(self, key: str, /) -> None:
            super().unlock(key)
            self.ended += 1
            if self.ended == 2:
                wall.step = 40.0

    def refuses_until_the_margin(request: Request) -> Response:
        return BAD if request.path.endswith(UPDATE) and not wall.step else handle(request)

    rig.fake.handle = refuses_until_the_margin  # type: ignore[method-assign]

    def half(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        asked.append(wall.step)
        if customers[0].customer_id != "C0000001":
            raise ConnectionError
        return everybody(customers, deadline)

    options: dict[str, Any] = {"journal": TwoPasses(), "wall_clock": wall, "safety_margin": 100}
    (report,) = rig.submit(half, campaign.event(), batch_size=100, concurrency=1, **options)
    assert (report.acknowledged, report.failed, report.complete) == (100, 100, False)
    assert len(campaign.recipients()) == 100
    assert len(asked) > 2
    assert set(asked) == {0.0}, "half of the time was left for the reviewer, since the margin is longer"


def test_whoever_has_lost_the_review_to_somebody_else_stops(rig: Rig) -> None:
    """Between two passes somebody else takes the review, and keeps it."""
    campaign = rig.fake.add_campaign(10, lead_seconds=6)

    class Stolen(MemoryJournal):  # type: ignore[misc]
        def unlock(self, key: str, /) -> None:
            super().unlock(key)
            super().open(campaign.event())

    refused = refusing(rig.fake, UPDATE, *[BAD] * 100)
    assert rig.submit(everybody, campaign.event(), journal=Stolen()) == []
    assert refused.count(UPDATE) == 1


def test_nobody_holds_the_review_during_a_pause(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(10, lead_seconds=60)
    journal = MemoryJournal()
    refusing(fake_optimove, UPDATE, BAD)
    told: list[ReviewReport] = []
    with (
        fake_optimove.client() as client,
        CampaignReview(everybody, client=client, journal=journal, on_report=told.append) as review,
    ):
        review.submit(campaign.event())
        end = time.monotonic() + 45
        other: Any = None
        while time.monotonic() < end and not (other is not None and other.complete):
            other = review.run(campaign.event())
            time.sleep(0.05)
        assert other.complete
    assert not campaign.twice


def test_a_journal_that_raises_between_passes_does_not_end_it(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(10, lead_seconds=30)
    calls = threading.Event()

    class RaisesOnce(MemoryJournal):  # type: ignore[misc]
        taken = 0

        def open(self, event: CampaignReadyEvent, /) -> Any:
            RaisesOnce.taken += 1
            if RaisesOnce.taken == 2:
                calls.set()
                raise LookupError
            return super().open(event)

    RaisesOnce.taken = 0
    refusing(rig.fake, UPDATE, BAD)
    (report,) = rig.submit(everybody, campaign.event(), journal=RaisesOnce())
    assert calls.is_set()
    assert (report.complete, report.acknowledged) == (True, 10)


def test_a_journal_that_raises_before_the_first_pass_does_not_end_it(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = rig.fake.add_campaign(10, lead_seconds=30)
    journal = MemoryJournal()
    real = journal.open
    first = iter([LookupError("customer-5")])

    def raises_once(*arguments: Any, **options: Any) -> Any:
        for error in first:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(journal, "open", raises_once)
    (report,) = rig.submit(everybody, campaign.event(), journal=journal)
    assert (report.complete, report.acknowledged) == (True, 10)
    assert len(campaign.recipients()) == 10


def test_a_journal_that_raises_when_it_is_unlocked_does_not_end_it(rig: Rig, tmp_path: Path) -> None:
    campaign = rig.fake.add_campaign(10, lead_seconds=30)
    refusing(rig.fake, UPDATE, BAD)
    with SqliteJournal(tmp_path / "reviews.db") as journal:
        unlock, first = journal.unlock, iter([LookupError("customer-5")])

        def raises_once(key: str, /) -> None:
            for error in first:
                raise error
            unlock(key)

        journal.unlock = raises_once  # type: ignore[method-assign]
        told = rig.submit(everybody, campaign.event(), journal=journal)
    assert [(report.complete, report.acknowledged) for report in told] == [(True, 10)]


# ---- the pauses


class StoppedClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_pauses_grow_to_a_minute_and_end_at_clearance() -> None:
    clock = StoppedClock()
    passes = Passes(clock=clock)
    pauses: list[float] = []
    while (pause := passes.pause(600 - clock.now)) is not None:
        pauses.append(pause)
        clock.now += pause + 0.1
    assert pauses[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert 590 < clock.now < 600


def test_a_pause_is_no_shorter_than_the_pass_before_it() -> None:
    clock = StoppedClock()
    passes = Passes(clock=clock)
    clock.now = 45.0
    assert passes.pause(1_000) == 45.0
    clock.now += 45.0 + 3.0
    assert passes.pause(900) == pytest.approx(3.0)
    clock.now += 3.0 + 500.0
    assert passes.pause(400) == 200.0


def test_no_pass_begins_when_nobody_would_be_asked_and_nothing_is_left_to_send() -> None:
    clock = StoppedClock()
    passes = Passes(clock=clock)
    passes.margin, passes.all_sent = 30.0, True
    assert passes.pause(32.5) == 1.0
    assert passes.pause(31.5) is None
    passes.all_sent = False
    assert passes.pause(31.5) == 1.5, "what is decided is sent, as soon as the margin comes"


def test_who_was_left_over_by_a_pass_that_read_less_is_not_reached() -> None:
    passes = Passes(clock=StoppedClock())
    passes.added(ReviewReport(campaign_id=1, approved=5, denied=1, failed=3, not_reached=2))
    assert passes.added(ReviewReport(campaign_id=1, approved=6, denied=1, failed=1)).not_reached == 3
    assert passes.added(ReviewReport(campaign_id=1, approved=9, denied=4, failed=0)).not_reached == 0


def test_counts_of_timing_stand_in_the_report() -> None:
    passes = Passes(clock=StoppedClock())
    first = passes.added(ReviewReport(campaign_id=1, rows=9, chunks=1, retries=2, failed=3, warnings=("a",)))
    assert (first.rows, first.warnings) == (9, ("a",))
    second = passes.added(ReviewReport(campaign_id=1, rows=0, chunks=2, retries=1, warnings=("b", "a")))
    assert (second.rows, second.chunks, second.retries) == (9, 3, 3)
    assert second.warnings == ("a", "The first pass was incomplete: 3 customers failed, 0 were not reached.", "b")
    third = passes.added(ReviewReport(campaign_id=1, complete=True, warnings=("c",)))
    assert third.warnings == (*second.warnings, "c")
