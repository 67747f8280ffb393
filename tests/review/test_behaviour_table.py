"""What a review does in each situation; docs/explanation/decisions.md says why."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import (
    AsyncCampaignReview,
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    ConfigurationError,
    Deadline,
    DeadlineExceeded,
    NotFoundError,
    Progress,
    Response,
    ReviewReport,
    UnexpectedResponseError,
    per_customer,
)
from optimove_conditional_execution.flows.journal import DecidedBatch, Ranges
from optimove_conditional_execution.review import base, updates
from optimove_conditional_execution.stores import MemoryJournal, SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove
from tests.review.conftest import Rig, both_colours, everybody, odd


def test_every_customer_is_decided_about_and_reported(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(25_000)
    report = rig.run(odd, campaign.event())
    assert (report.rows, report.reviewed, report.approved, report.denied) == (25_000, 25_000, 12_500, 12_500)
    assert (report.failed, report.not_reached, report.acknowledged, report.chunks) == (0, 0, 12_500, 2)
    assert report.complete
    assert report.finished_before_clearance
    assert report.error is None
    assert not report.warnings
    assert 0 < report.seconds < report.seconds_to_spare
    assert sorted(campaign.recipients()) == [f"C{n:07}" for n in range(1, 25_001, 2)]
    assert sorted(campaign.calls) == [2_500, 10_000]
    assert not campaign.twice


class Order:
    """A journal that writes down what happens when, next to what Optimove gets."""

    def __init__(self, fake: FakeOptimove) -> None:
        self.journal = MemoryJournal()
        self.fake = fake
        self.events: list[tuple[str, int]] = []
        for name in ("add", "open", "unlock", "batches", "acknowledged", "finish", "unfinished", "reviews"):
            setattr(self, name, getattr(self.journal, name))

    def sent(self) -> int:
        return sum(call.status == 200 for call in self.fake.calls_of("update_customer_promotion_status"))

    def record(self, key: str, batches: Sequence[DecidedBatch], *, run: int) -> None:
        time.sleep(0.01)
        self.journal.record(key, batches, run=run)
        self.events.append(("recorded", sum(len(batch.approved) for batch in batches)))

    def acknowledge(self, key: str, ranges: Ranges, *, run: int) -> None:
        self.events.append(("acknowledged", self.sent()))
        self.journal.acknowledge(key, ranges, run=run)


def test_decide_record_send_mark(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(3_000)
    journal = Order(rig.fake)
    recorded_before: list[int] = []
    handle = rig.fake.handle

    def watched(request: Any) -> Response:
        if request.path.endswith("UpdateCustomerPromotionStatus"):
            recorded_before.append(sum(count for name, count in journal.events if name == "recorded"))
        return handle(request)

    rig.fake.handle = watched  # type: ignore[method-assign]
    report = rig.run(everybody, campaign.event(), journal=journal, batch_size=100, chunk_size=1_000)
    assert report.complete
    assert campaign.calls == [1_000, 1_000, 1_000]
    assert all(recorded >= 1_000 * (number + 1) for number, recorded in enumerate(recorded_before))
    marked = [sent for name, sent in journal.events if name == "acknowledged"]
    assert len(marked) == 3
    assert all(sent >= number for number, sent in enumerate(marked, 1))


def test_nothing_goes_out_before_the_last_page_is_read(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(2_000)
    assert rig.run(
        everybody, campaign.event(), page_size=100, chunk_size=100, client_options={"rate_limit": None}
    ).complete
    names = [call.operation for call in rig.fake.calls if call.status == 200]
    first = names.index("update_customer_promotion_status")
    assert "get_processed_campaign_customers" not in names[first:]
    assert len(names) == 21 + 20


def test_one_who_hangs_holds_neither_the_run_nor_what_is_decided() -> None:
    fake = FakeOptimove()
    campaign = fake.add_campaign(3_000, lead_seconds=4)
    for_ever = threading.Event()

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        if customers[0].customer_id == "C0001001":
            for_ever.wait(60)
        return everybody(customers, deadline)

    begun = time.monotonic()
    report = CampaignReview(reviewer, client=fake.client(), safety_margin=2.0).run(campaign.event())
    for_ever.set()
    assert time.monotonic() - begun < 30
    assert (report.approved, report.not_reached, report.acknowledged) == (2_000, 1_000, 2_000)
    assert not report.complete
    assert len(campaign.recipients()) == 2_000
    assert not campaign.late


def test_a_coroutine_that_ignores_its_cancellation_is_left_behind() -> None:
    fake = FakeOptimove()
    campaign = fake.add_campaign(10, lead_seconds=3)

    over, ended = asyncio.Event(), asyncio.Event()

    async def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        left = Deadline.after(60)
        while not (over.is_set() or left.expired):
            try:
                await asyncio.wait_for(over.wait(), left.remaining())
            except (asyncio.CancelledError, TimeoutError):
                continue
        ended.set()
        return everybody(customers, deadline)

    async def go() -> ReviewReport:
        report = await AsyncCampaignReview(reviewer, client=fake.async_client()).run(campaign.event())
        assert not ended.is_set()
        over.set()
        await ended.wait()
        return report

    report = asyncio.run(go())
    assert (report.not_reached, report.approved) == (10, 0)
    assert not campaign.statuses


ODD_ANSWERS: dict[str, Callable[[Any], Any]] = {
    "raises": lambda customers: 1 / 0,
    "None": lambda customers: None,
    "text": lambda customers: "C0000001",
    "a mapping of truthy values": lambda customers: {customer.customer_id: "yes" for customer in customers},
    "a mapping of nobody in the batch": lambda customers: {number: True for number, _ in enumerate(customers)},
    "customers": lambda customers: list(customers),
    "a generator that raises": lambda customers: (1 / (500 - n) for n, _ in enumerate(customers)),
}


@pytest.mark.parametrize("name", ODD_ANSWERS)
def test_a_failure_is_that_of_its_batch_alone(rig: Rig, name: str, caplog: pytest.LogCaptureFixture) -> None:
    campaign = rig.fake.add_campaign(3_000)

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> Any:
        return (
            ODD_ANSWERS[name](customers) if customers[0].customer_id == "C0001001" else everybody(customers, deadline)
        )

    with caplog.at_level(logging.ERROR, "optimove_conditional_execution"):
        report = rig.run(reviewer, campaign.event())
    assert (report.reviewed, report.approved, report.failed) == (3_000, 2_000, 1_000)
    assert (report.acknowledged, report.complete, report.error) == (2_000, False, None)
    assert "C0001500" not in campaign.recipients()
    assert len(report.warnings) == 1
    assert ("1,000 customers failed" if "truthy" in name else "1 batches failed") in report.warnings[0].replace(
        "1000", "1,000"
    )
    assert not any("C000" in record.getMessage() for record in caplog.records)


def test_ids_of_nobody_in_the_batch_are_never_sent(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    campaign = rig.fake.add_campaign(10)
    report = rig.run(lambda customers, deadline: ["C0000003", "C9999999", 4, True], campaign.event())
    assert campaign.recipients() == ["C0000003"]
    assert not campaign.unknown
    assert "3 ids" in report.warnings[0]
    told = [record for record in caplog.records if "ids that are not in its batch" in record.getMessage()]
    assert {record.levelname for record in told} == {"WARNING"}
    assert "C0000003" not in caplog.text
    assert "C9999999" not in caplog.text


def test_a_reviewer_that_returns_numbers_fails_loudly(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    campaign = rig.fake.add_campaign(["101", "102", "103"], lead_seconds=60)
    report = rig.run(lambda customers, deadline: [int(each.customer_id) for each in customers], campaign.event())
    assert (report.failed, report.denied, report.complete) == (3, 0, False)
    assert "values of type int" in report.warnings[0]
    assert "return customer_id, which is a str" in report.warnings[0]
    assert any(record.levelname == "ERROR" and "type int" in record.getMessage() for record in caplog.records)
    assert not any(name in caplog.text for name in ("101", "102", "103"))


def test_the_same_event_again_gives_the_report_and_asks_nobody(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(100)
    journal = MemoryJournal()
    first = rig.run(odd, campaign.event(), journal=journal)
    calls = len(rig.fake.calls)
    assert rig.run(everybody, campaign.event(), journal=journal) == first
    assert len(rig.fake.calls) == calls


def test_two_notifications_of_one_campaign_are_two_reviews(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(100)
    journal = MemoryJournal()
    later = campaign.event().clearance_required_by + dt.timedelta(minutes=5)
    assert rig.run(odd, campaign.event(), journal=journal).approved == 50
    second = campaign.event().model_copy(update={"clearance_required_by": later})
    assert rig.run(everybody, second, journal=journal).approved == 100
    assert len(journal.reviews()) == 2


@both_colours
def test_what_cannot_be_recorded_is_not_sent(rig: Rig) -> None:
    class Broken(MemoryJournal):  # type: ignore[misc]
        def record(self, key: str, batches: Sequence[DecidedBatch], /, *, run: int | None = None) -> None:
            raise sqlite3.OperationalError("disk I/O error")

    campaign = rig.fake.add_campaign(2_000)
    report = rig.run(everybody, campaign.event(), journal=Broken(), seconds=1)
    assert not campaign.statuses
    assert not report.complete
    assert "OperationalError: disk I/O error" in str(report.error)


@both_colours
def test_what_is_not_written_down_by_clearance_is_not_reached(rig: Rig) -> None:
    class Slow(MemoryJournal):  # type: ignore[misc]
        def record(self, key: str, batches: Sequence[DecidedBatch], /, *, run: int | None = None) -> None:
            written.wait(30)

    written = threading.Event()
    campaign = rig.fake.add_campaign(100)
    report = rig.run(everybody, campaign.event(), journal=Slow(), seconds=1)
    written.set()
    assert (report.complete, report.reviewed, report.not_reached) == (False, 0, 100)
    assert isinstance(report.error, DeadlineExceeded)
    assert not campaign.updates


@both_colours
@pytest.mark.usefixtures("short_last_words")
def test_a_journal_that_fails_at_the_end_does_not_take_the_report_along(
    rig: Rig, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "_STOPPED_SECONDS", 30.0)  # it does not hang, and a busy machine may

    class Broken(MemoryJournal):  # type: ignore[misc]
        def finish(self, key: str, report: str, /, *, run: int | None = None) -> None:
            raise sqlite3.OperationalError("disk I/O error")

        def unlock(self, key: str, /) -> None:
            super().unlock(key)
            raise LookupError

    campaign = rig.fake.add_campaign(100)
    journal = Broken()
    report = rig.run(everybody, campaign.event(), journal=journal, seconds=1.5)
    assert (report.complete, report.acknowledged) == (True, 100)
    assert report.warnings == (
        "The journal raised OperationalError: disk I/O error when the review was over; "
        "a further run only writes that down.",
    )
    assert "the journal raised LookupError when it was left" in caplog.text
    again = rig.run(odd, campaign.event(), journal=journal, seconds=1.5)
    assert (again.approved, again.acknowledged, again.chunks) == (100, 100, 0)
    assert campaign.calls == [100]


@both_colours
def test_what_cannot_be_marked_as_sent_is_sent_again_with_the_same_answer(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(SqliteJournal):  # type: ignore[misc]
        def acknowledge(self, key: str, ranges: Ranges, /, *, run: int | None = None) -> None:
            raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(updates, "_LAST_MARKS_SECONDS", 0.3)
    campaign = rig.fake.add_campaign(3_000)
    with Broken(tmp_path / "reviews.db") as broken:
        report = rig.run(odd, campaign.event(), journal=broken, chunk_size=500, concurrency=1)
    assert (report.complete, "could not mark" in str(report.error)) == (False, True)
    assert "The journal raised OperationalError: disk I/O error; it was tried again." in report.warnings
    assert campaign.calls == [500, 500, 500]  # what stands in the journal goes out all the same
    with SqliteJournal(tmp_path / "reviews.db") as journal:
        again = rig.run(everybody, campaign.event(), journal=journal, chunk_size=500)
    assert again.complete
    assert len(campaign.twice) == 1_500
    assert not campaign.contradictions
    assert {f"C{number:07d}" for number in range(1, 1_001, 2)} <= set(campaign.recipients())


def test_clearance_in_the_past_sends_nothing(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(10, lead_seconds=-5)
    report = rig.run(everybody, campaign.event())
    assert isinstance(report.error, DeadlineExceeded)
    assert not report.complete
    assert not report.finished_before_clearance
    assert report.seconds_to_spare < 0
    assert not rig.fake.calls


@pytest.mark.parametrize(
    ("local", "utc"),
    [("2026-10-25 01:30", "2026-10-25 00:30+00:00"), ("2027-03-28 01:30", "2027-03-28 00:30+00:00")],
    ids=["fold", "gap"],
)
def test_a_change_of_clocks_takes_the_earlier_reading(local: str, utc: str, fake_optimove: FakeOptimove) -> None:
    end = dt.datetime.fromisoformat(utc).timestamp()
    event = CampaignReadyEvent(
        event_type_id=5,
        timestamp=dt.datetime(2026, 1, 1),
        campaign_id=1359,
        clearance_required_by=dt.datetime.fromisoformat(local),
    )
    for now, outcome in ((end - 2, NotFoundError), (end + 2, DeadlineExceeded)):
        review = CampaignReview(
            everybody,
            client=fake_optimove.client(),
            timezone="Europe/London",
            wall_clock=lambda now=now: now,  # type: ignore[misc]
        )
        report = review.run(event)
        assert isinstance(report.error, outcome)
        assert f"{utc[:16]}:00 UTC" in report.warnings[0]


def test_a_fresh_event_of_another_hour_is_reported(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(10, lead_seconds=20_000)
    report = rig.run(everybody, campaign.event(), timezone="America/New_York")
    assert "probably the time zone is wrong" in report.warnings[0]
    assert not rig.run(everybody, rig.fake.add_campaign(10).event()).warnings


def test_the_zone_that_an_event_names_wins_and_a_contradiction_is_reported(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = rig.fake.add_campaign(10, lead_seconds=20_000)
    clearance = campaign.event().clearance_deadline(campaign.timezone)
    event = CampaignReadyEvent.from_json(
        json.dumps(
            {
                "EventTypeID": 5,
                "TimeStamp": dt.datetime.now(dt.UTC).isoformat(),
                "CampaignID": campaign.campaign_id,
                "ClearanceRequiredBy": clearance.isoformat(),
            }
        )
    )
    with caplog.at_level("WARNING"):
        report = rig.run(everybody, event, timezone="Asia/Tokyo")
    assert (report.complete, report.approved) == (True, 10)
    assert report.seconds_to_spare > 10_000
    (warning,) = report.warnings
    assert "names another UTC offset than Asia/Tokyo" in warning
    assert warning in caplog.text


def test_the_zone_must_be_known(fake_optimove: FakeOptimove) -> None:
    with pytest.raises(ConfigurationError, match="OPTIMOVE_TIMEZONE"):
        CampaignReview(everybody, client=fake_optimove.client(timezone=None))
    with pytest.raises(ConfigurationError, match="per_customer"):
        CampaignReview(lambda customer: True, client=fake_optimove.client())  # type: ignore[arg-type]

    async def coroutine(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        return []

    with pytest.raises(ConfigurationError, match="AsyncCampaignReview"):
        CampaignReview(coroutine, client=fake_optimove.client())  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="AsyncOptimoveClient"):
        AsyncCampaignReview(coroutine, client=fake_optimove.client())  # type: ignore[arg-type]


def test_a_refused_chunk_does_not_stop_the_others_and_is_sent_by_the_next_run(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(3_000)
    journal = MemoryJournal()
    handle = rig.fake.handle
    refused: list[Any] = []

    def refusing(request: Any) -> Response:
        if b"C0001500" in request.body and not refused:
            refused.append(request)
            return Response(400, body=b"no")
        return handle(request)

    rig.fake.handle = refusing  # type: ignore[method-assign]
    report = rig.run(everybody, campaign.event(), journal=journal, chunk_size=1_000, concurrency=1)
    assert (report.acknowledged, report.complete) == (2_000, False)
    assert "400" in str(report.error)
    again = rig.run(odd, campaign.event(), journal=journal, chunk_size=1_000)
    assert (again.approved, again.acknowledged, again.complete, again.chunks) == (3_000, 3_000, True, 1)
    assert not campaign.twice


@both_colours
def test_failed_tries_are_repeated_and_counted(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(10)
    rig.fake.answer_next(
        Response(503), Response(429), Response(200, body=b'[{"CustomerID":"C0000001"}]'), Response(503)
    )
    report = rig.run(everybody, campaign.event())
    assert report.complete
    assert report.retries == 3


def test_a_page_that_comes_again_is_an_error(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(250, ignores_paging=True)
    report = rig.run(everybody, campaign.event(), page_size=100)
    assert isinstance(report.error, UnexpectedResponseError)
    assert "page_size=None" in str(report.error)
    assert (report.approved, report.acknowledged, report.complete) == (250, 0, False)
    assert report.warnings == (
        "250 approvals were not sent by this run, since pages are missing whose rows could still say no. The next run "
        "reads them; from the safety margin on it sends what it has.",
    )
    other = rig.fake.add_campaign(250, ignores_paging=True)
    assert rig.run(everybody, other.event(), page_size=None).complete


@pytest.mark.parametrize("empty", ["[]", "null", "empty", "204", "404"])
def test_every_way_to_say_that_there_are_no_more(rig: Rig, empty: Any) -> None:
    campaign = rig.fake.add_campaign(25, empty_as=empty, page_cap=10)
    report = rig.run(everybody, campaign.event())
    assert (report.complete, report.rows) == (True, 25)


def test_a_404_on_the_first_page_is_an_error(rig: Rig) -> None:
    event = rig.fake.add_campaign(1, lead_seconds=2).event().model_copy(update={"campaign_id": 99_999})
    assert isinstance(rig.run(everybody, event).error, NotFoundError)


def test_the_others_are_reported_when_asked_to(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(1_000)
    report = rig.run(odd, campaign.event(), report_denied=True, chunk_size=300)
    assert (report.complete, report.approved, report.acknowledged) == (True, 500, 1_000)
    assert sum(campaign.statuses.values()) == 500
    assert max(campaign.calls) == 300


def test_the_control_group_is_counted_and_can_be_left_out(rig: Rig) -> None:
    report = rig.run(everybody, rig.fake.add_campaign(100, control_every=10).event())
    assert (report.control_group_rows, report.approved) == (10, 100)
    report = rig.run(everybody, rig.fake.add_campaign(100, control_every=10).event(), control_group="skip")
    assert (report.control_group_rows, report.approved, report.complete) == (10, 90, True)


def test_progress_is_told_and_cannot_break_a_review(rig: Rig) -> None:
    seen: list[Progress] = []

    def progress(now: Progress) -> None:
        seen.append(now)
        raise ValueError

    report = rig.run(everybody, rig.fake.add_campaign(3_000).event(), progress=progress, batch_size=100)
    assert report.complete
    assert (seen[-1].reviewed, seen[-1].acknowledged, seen[-1].all_read) == (3_000, 3_000, True)
    assert [now.reviewed for now in seen] == sorted(now.reviewed for now in seen)
    assert not seen[-1].behind


def test_it_warns_as_soon_as_time_does_not_suffice(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(20_000, lead_seconds=4)

    def slow(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        time.sleep(0.3)
        return everybody(customers, deadline)

    told: list[Progress] = []
    review = CampaignReview(slow, client=fake_optimove.client(), batch_size=100, concurrency=1, progress=told.append)
    report = review.run(campaign.event(), expected_customers=20_000)
    first = next(now for now in told if now.behind)
    assert first.seconds_left > 2
    assert any("cannot be done before clearance" in warning for warning in report.warnings)
    assert report.acknowledged == report.approved > 0


def test_submit_keeps_the_event_and_resume_runs_what_is_left(tmp_path: Path, fake_optimove: FakeOptimove) -> None:
    campaigns = [fake_optimove.add_campaign(500) for _ in range(2)]
    path = tmp_path / "journal.db"
    for campaign in campaigns:
        assert SqliteJournal(path).add(campaign.event())
    reports = CampaignReview(odd, client=fake_optimove.client(), journal=SqliteJournal(path)).resume()
    assert [(report.approved, report.complete) for report in reports] == [(250, True)] * 2
    third = fake_optimove.add_campaign(100)
    told: list[ReviewReport] = []
    with CampaignReview(
        odd, client=fake_optimove.client(), journal=SqliteJournal(path), on_report=told.append
    ) as review:
        review.submit(third.event())
        assert len(SqliteJournal(path).reviews()) == 3
    assert [report.campaign_id for report in told] == [third.campaign_id]
    assert len(third.recipients()) == 50
    assert not review.resume()


def test_one_runs_a_review_and_the_other_leaves_it(tmp_path: Path, fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(100)
    journals = [SqliteJournal(tmp_path / "journal.db") for _ in range(2)]
    journals[0].add(campaign.event())
    assert journals[0].open(campaign.event())
    review = CampaignReview(everybody, client=fake_optimove.client(), journal=journals[1])
    assert "the lock of this review" in str(review.run(campaign.event()).error)
    assert not review.resume()
    journals[0].unlock(campaign.event().key)
    assert review.run(campaign.event()).complete


def test_a_blocking_review_refuses_an_event_loop(fake_optimove: FakeOptimove) -> None:
    review = CampaignReview(everybody, client=fake_optimove.client())

    async def go() -> None:
        with pytest.raises(ConfigurationError, match="AsyncCampaignReview"):
            review.run(fake_optimove.add_campaign(1).event())

    asyncio.run(go())


# ---- one customer at a time


def test_per_customer_never_asks_about_more_at_once(rig: Rig) -> None:
    lock, at_once, most = threading.Lock(), 0, 0

    def one(customer: CampaignCustomer) -> bool:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.001)
        with lock:
            at_once -= 1
        if customer.customer_id == "C0000007":
            raise ValueError
        return int(customer.customer_id[1:]) % 2 == 1

    report = rig.run(per_customer(one, concurrency=5), rig.fake.add_campaign(400).event(), batch_size=50)
    assert (report.approved, report.denied, report.failed) == (199, 200, 1)
    assert 1 < most <= 5


def test_per_customer_takes_coroutines() -> None:
    fake, at_once, most = FakeOptimove(), 0, 0
    campaign = fake.add_campaign(400)

    async def one(customer: CampaignCustomer) -> bool:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return customer.customer_id != "C0000007"

    review = AsyncCampaignReview(per_customer(one, concurrency=7), client=fake.async_client(), batch_size=50)
    report = asyncio.run(review.run(campaign.event()))
    assert (report.approved, report.denied, report.complete) == (399, 1, True)
    assert most == 7


def test_customers_after_the_deadline_are_not_reached() -> None:
    def one(customer: CampaignCustomer) -> bool:
        time.sleep(0.02)
        return True

    # A tenth of the reviewer's time is left for handing over what it has: on a busy machine it needs more.
    for lead in (2, 6, 18):
        fake = FakeOptimove()
        campaign = fake.add_campaign(2_000, lead_seconds=lead)
        review = CampaignReview(per_customer(one, concurrency=2), client=fake.client(), concurrency=1, batch_size=2_000)
        report = review.run(campaign.event())
        assert report.not_reached == 2_000 - report.approved
        assert not campaign.late
        if 0 < report.approved == report.acknowledged:
            break
    assert 0 < report.approved == report.acknowledged < 2_000
