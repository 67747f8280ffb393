"""What must not shake a review: servers, journals, reviewers and callers at their worst."""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
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
    OptimoveError,
    PayloadError,
    Response,
    SupersededError,
    UnexpectedResponseError,
    per_customer,
)
from optimove_conditional_execution.flows import reviewer_answer
from optimove_conditional_execution.flows.effects import Overloaded
from optimove_conditional_execution.flows.paging import Paging
from optimove_conditional_execution.review import asking, pipeline
from optimove_conditional_execution.stores import DecidedBatch, MemoryJournal, OpenReview, SqliteJournal, journals
from optimove_conditional_execution.testing import FakeOptimove, campaign_ready
from optimove_conditional_execution.worker_pool import DaemonThreadPool
from tests.review.conftest import Rig, both_colours, everybody, odd
from tests.review.stalling import StallingCampaign
from tests.review.test_clocks import SteppingClock


def test_what_was_not_reported_is_not_taken_for_reported(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(20)
    journal = MemoryJournal()

    def half(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        if customers[0].customer_id == "C0000016":
            raise ValueError
        return odd(customers, deadline)

    first = rig.run(half, campaign.event(), journal=journal, batch_size=15, concurrency=1)
    assert (first.acknowledged, journal.reviews()[0].acknowledged, len(campaign.statuses)) == (8, 8, 8)
    second = rig.run(odd, campaign.event(), journal=journal, report_denied=True)
    assert (second.acknowledged, second.complete, len(campaign.statuses)) == (20, True, 20)
    assert not campaign.contradictions


def test_a_review_in_an_event_loop_of_another_library_says_what_it_needs(fake_optimove: FakeOptimove) -> None:
    event = fake_optimove.add_campaign(1).event()
    journal = MemoryJournal()
    review = AsyncCampaignReview(everybody, client=fake_optimove.async_client(), journal=journal)

    for coroutine in (review.run(event), review.submit(event), review.resume()):
        with pytest.raises(ConfigurationError, match=r"AsyncCampaignReview needs asyncio.*trio"):
            coroutine.send(None)  # as trio does
    assert journal.reviews() == []


def test_a_review_that_is_resumed_too_late_reports_what_was_done_before(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(20)
    journal = MemoryJournal()

    def first_half(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        if customers[0].customer_id == "C0000011":
            raise ValueError
        return everybody(customers, deadline)

    rig.run(first_half, campaign.event(), journal=journal, batch_size=10, concurrency=1)
    late = campaign.event().clearance_required_by.replace(tzinfo=dt.UTC).timestamp() + 60
    report = rig.run(everybody, campaign.event(), journal=journal, wall_clock=lambda: late)
    assert (report.reviewed, report.approved, report.acknowledged, report.complete) == (20, 10, 10, False)
    assert report.failed == 10, "the journal knows them"
    assert isinstance(report.error, DeadlineExceeded)


@pytest.mark.parametrize("year", [2400, 9999])
def test_a_clearance_of_centuries(rig: Rig, year: int) -> None:
    campaign = rig.fake.add_campaign(30)
    event = campaign.event().model_copy(update={"clearance_required_by": dt.datetime(year, 12, 31)})
    if rig.colour == "sync":
        assert rig.run(per_customer(lambda customer: True), event).approved == 30
    assert rig.run(everybody, event).approved == 30


RAISED = [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration(), GeneratorExit()]


@pytest.mark.parametrize("raised", RAISED, ids=lambda raised: type(raised).__name__)
def test_whatever_is_raised_for_one_customer_is_that_ones_alone(raised: BaseException) -> None:
    fake = FakeOptimove()

    def decide(customer: CampaignCustomer) -> bool:
        if int(customer.customer_id[1:]) % 5 == 0:
            raise raised
        return True

    report = CampaignReview(per_customer(decide, concurrency=3), client=fake.client()).run(
        fake.add_campaign(200).event()
    )
    assert (report.approved, report.failed, report.not_reached) == (160, 40, 0)


def test_a_cancellation_inside_of_one_customer_is_that_ones_alone() -> None:
    fake = FakeOptimove()

    async def decide(customer: CampaignCustomer) -> bool:
        await asyncio.sleep(0)
        if int(customer.customer_id[1:]) % 5 == 0:
            raise asyncio.CancelledError
        return True

    review = AsyncCampaignReview(per_customer(decide, concurrency=3), client=fake.async_client())
    report = asyncio.run(review.run(fake.add_campaign(200).event()))
    assert (report.approved, report.failed, report.not_reached) == (160, 40, 0)


@pytest.mark.parametrize("colour", ["sync", "async, plain reviewer"])
@pytest.mark.parametrize("raised", RAISED[:4], ids=lambda raised: type(raised).__name__)
def test_a_reviewers_exception_is_named(raised: BaseException, colour: str, fake_optimove: FakeOptimove) -> None:
    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        raise raised

    report = Rig(colour, fake_optimove).run(reviewer, fake_optimove.add_campaign(10).event())
    assert report.warnings == (f"1 batches failed: The reviewer raised {type(raised).__name__}.",)
    assert report.failed == 10


def test_a_cancellation_inside_of_a_coroutine_function_is_no_lateness(fake_optimove: FakeOptimove) -> None:
    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        raise asyncio.CancelledError

    report = Rig("async", fake_optimove).run(reviewer, fake_optimove.add_campaign(10).event())
    assert report.warnings == ("1 batches failed: The reviewer raised CancelledError.",)


def test_an_errors_text_stays_out_even_when_the_class_is_ours(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        raise OptimoveError("no answer for jane@example.com")

    report = rig.run(reviewer, rig.fake.add_campaign(10).event())
    assert report.warnings == ("1 batches failed: The reviewer raised OptimoveError.",)
    assert "jane" not in caplog.text + report.to_json()


class SlowToOpen(MemoryJournal):  # type: ignore[misc]
    """Waits for a lock, as an SQLite file does while another process writes."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go = threading.Event()

    def open(self, event: CampaignReadyEvent, /) -> OpenReview | None:
        self.may_go.wait(60)
        return super().open(event)


def test_a_review_taken_after_its_run_was_cancelled_is_given_back(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(10)
    journal = SlowToOpen()

    async def go() -> None:
        async with fake_optimove.async_client() as client:
            review = AsyncCampaignReview(everybody, client=client, journal=journal)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await review.run(campaign.event())
            journal.may_go.set()
            end = time.monotonic() + 60
            while time.monotonic() < end:
                report = await review.run(campaign.event())
                if report.complete:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError(f"still taken: {report.error}")

    asyncio.run(go())


def test_a_report_that_came_while_taking_stands(rig: Rig) -> None:
    class FinishedMeanwhile(MemoryJournal):  # type: ignore[misc]
        def open(self, event: CampaignReadyEvent, /) -> OpenReview | None:
            self.add(event)
            self.finish(event.key, '{"campaign_id": 7, "approved": 3}')
            return super().open(event)

    journal = FinishedMeanwhile()
    event = rig.fake.add_campaign(10).event()
    report = rig.run(everybody, event, journal=journal)
    assert (report.campaign_id, report.approved) == (7, 3)
    assert not rig.fake.calls
    assert journal.open(event), "it was unlocked"


@both_colours
@pytest.mark.usefixtures("short_last_words")
def test_a_journal_that_waits_does_not_hold_the_report_past_clearance(rig: Rig) -> None:
    class Locked(MemoryJournal):  # type: ignore[misc]
        def finish(self, key: str, report: str, /, *, run: int | None = None) -> None:
            free.wait(60)

        def unlock(self, key: str, /) -> None:
            free.wait(60)

    free = threading.Event()
    campaign = rig.fake.add_campaign(10)
    begun = time.monotonic()
    report = rig.run(lambda customers, deadline: 1 / 0, campaign.event(), journal=Locked(), seconds=1)
    took = time.monotonic() - begun
    free.set()
    assert took < 30
    assert report.failed == 10


@both_colours
@pytest.mark.usefixtures("short_last_words")
def test_a_journal_that_hangs_before_anything_is_decided_does_not_hold_the_run_past_clearance(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = threading.Event()
    journal = MemoryJournal()
    monkeypatch.setattr(journal, "open", lambda *_, **__: free.wait(60))
    campaign = rig.fake.add_campaign(10)
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="The journal had not answered when clearance came"):
        rig.run(everybody, campaign.event(), journal=journal, seconds=0.5)
    took = time.monotonic() - begun
    free.set()
    assert took < 30


def test_one_review_that_cannot_run_does_not_keep_the_others_from_it(rig: Rig) -> None:
    class HalfBroken(MemoryJournal):  # type: ignore[misc]
        def open(self, event: CampaignReadyEvent, /) -> OpenReview | None:
            if event == broken.event():
                raise LookupError
            return super().open(event)

    broken, good = rig.fake.add_campaign(10), rig.fake.add_campaign(10)
    journal = HalfBroken()
    for campaign in (broken, good):
        journal.add(campaign.event())
    if rig.colour == "sync":
        reports = CampaignReview(everybody, client=rig.fake.client(), journal=journal).resume()
    else:
        reports = asyncio.run(AsyncCampaignReview(everybody, client=rig.fake.async_client(), journal=journal).resume())
    assert [(report.campaign_id, report.complete) for report in reports] == [
        (broken.campaign_id, False),
        (good.campaign_id, True),
    ]
    assert str(reports[0].error) == "The journal raised LookupError."


def test_a_campaign_that_is_announced_twice_is_told(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(10)
    journal = MemoryJournal()
    assert not rig.run(everybody, campaign.event(), journal=journal).warnings
    stamp = campaign.event().timestamp + dt.timedelta(seconds=1)
    again = rig.run(odd, campaign.event().model_copy(update={"timestamp": stamp}), journal=journal)
    assert len(again.warnings) == 1
    assert "announced it twice" in again.warnings[0]


def test_submit_without_a_thread_says_so_and_does_not_hang(
    fake_optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(self: DaemonThreadPool, function: Callable[..., object], arguments: tuple[object, ...]) -> None:
        raise Overloaded

    journal = MemoryJournal()
    event = fake_optimove.add_campaign(1).event()
    with CampaignReview(everybody, client=fake_optimove.client(), journal=journal) as review:
        with monkeypatch.context() as patch:
            patch.setattr(DaemonThreadPool, "submit", no_thread)
            with pytest.raises(OptimoveError, match="no thread left"):
                review.submit(event)
        assert journal.unfinished() == [event]


# ---- servers


@pytest.mark.parametrize("between", ["} ,", "}\n,", "}\r\n, "])
def test_rows_may_be_separated_in_any_way(rig: Rig, between: str) -> None:
    campaign = rig.fake.add_campaign(1_000)
    handle = rig.fake.handle

    def spaced(request: Any) -> Response:
        answer = handle(request)
        return Response(answer.status, body=answer.body.replace(b"},", between.encode()))

    rig.fake.handle = spaced  # type: ignore[method-assign]
    report = rig.run(everybody, campaign.event())
    assert (report.approved, report.complete, report.error) == (1_000, True, None)


def test_a_page_that_came_long_before_is_an_error(rig: Rig) -> None:
    event = rig.fake.add_campaign(1).event()
    pages = [json.dumps([{"CustomerID": name}]).encode() for name in "abcb"]
    rig.fake.answer_next(*(Response(200, body=page) for page in pages))
    report = rig.run(everybody, event, client_options={"rate_limit": None})
    assert isinstance(report.error, UnexpectedResponseError)
    assert "come before" in str(report.error)


def test_rows_without_a_customer_do_not_keep_the_others_waiting(rig: Rig) -> None:
    event = rig.fake.add_campaign(1).event()
    first: list[dict[str, object]] = [{"CustomerID": f"A{number}"} for number in range(100)]
    first[16] = {"CustomerID": None}
    first[50] = {"Name": "B"}
    second = [{"CustomerID": f"B{number}"} for number in range(100)]
    rig.fake.answer_next(*(Response(200, body=json.dumps(page).encode()) for page in (first, second, [])))
    asked: list[str] = []

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        asked.extend(everybody(customers, deadline))
        return []

    report = rig.run(reviewer, event)
    assert (len(set(asked)), report.reviewed, report.complete) == (198, 198, False)
    assert isinstance(report.error, UnexpectedResponseError)
    assert (
        "2 of 200 rows name no customer; the first is row 17: CampaignCustomer: CustomerID is not an id: text"
        in str(report.error)
    )
    assert [call.request.query.rpartition("skip=")[2] for call in rig.fake.calls][1:] == ["100", "200"]


def test_a_list_of_something_else_is_refused_at_once() -> None:
    paging = Paging(5, page_size=100)
    assert paging.next_page() is not None
    with pytest.raises(UnexpectedResponseError, match="CustomerID is missing"):
        paging.feed(b'[{"id": 1},{"id": 2}]')


def test_an_empty_answer_without_a_frame_is_asked_for_once_more() -> None:
    paging = Paging(5, page_size=100)
    assert paging.next_page() is not None
    paging.feed(b'[{"CustomerID": "A"}]')
    assert len(paging.close_page()) == 1
    for _ in range(2):
        assert paging.next_page() is not None
        assert paging.close_page(is_framed=False) == []
    assert paging.next_page() is None


@pytest.mark.parametrize("number", [-1, 2**63, 10**40])
def test_a_campaign_has_a_number(number: int) -> None:
    noon = dt.datetime(2026, 11, 23, 12)
    payload = {**campaign_ready(1, timestamp=noon, clearance_required_by=noon), "CampaignID": number}
    with pytest.raises(PayloadError, match="not the number of a campaign") as caught:
        CampaignReadyEvent.from_json(json.dumps(payload))
    assert caught.value.path == "CampaignID"


def test_a_damaged_lock_of_one_review_leaves_the_others_alone(fake_optimove: FakeOptimove, tmp_path: Path) -> None:
    broken, good = fake_optimove.add_campaign(10), fake_optimove.add_campaign(10)
    with SqliteJournal(tmp_path / "reviews.db") as journal:
        for campaign in (broken, good):
            journal.add(campaign.event())
        assert journal.open(broken.event())
        (lock,) = tmp_path.glob("*.lock")
        name = lock.name
        journal.unlock(broken.event().key)
        (tmp_path / name).write_bytes(b"no database at all" * 100)
        with fake_optimove.client() as client:
            reports = CampaignReview(everybody, client=client, journal=journal).resume()
    assert {report.campaign_id: report.complete for report in reports} == {
        broken.campaign_id: False,
        good.campaign_id: True,
    }


def test_what_has_come_is_asked_about_though_the_server_stalls() -> None:
    """Over HTTP: a page of which the last bytes never come."""
    with StallingCampaign(rows=3_500) as campaign:
        for colour in ("sync", "async"):
            report = campaign.review(colour, everybody)
            assert report.reviewed == report.approved == report.acknowledged, colour
            assert report.approved >= 3_000, colour
            assert isinstance(report.error, DeadlineExceeded), colour
            assert not report.complete


def test_a_reviewer_that_returns_at_its_deadline_is_heard(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "HANDING_OVER_SECONDS", 60 * asking.HANDING_OVER_SECONDS)
    wall = SteppingClock()

    def patient(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        wall.step = deadline.remaining() + 1.0
        assert deadline.expired
        time.sleep(0.5)  # longer than the review takes to see it
        return everybody(customers, deadline)

    campaign = rig.fake.add_campaign(20, lead_seconds=600)
    report = rig.run(patient, campaign.event(), wall_clock=wall)
    assert (report.approved, report.acknowledged, report.not_reached) == (20, 20, 0)
    assert len(campaign.recipients()) == 20


def test_an_answer_without_an_end_holds_neither_thread_nor_loop(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewer_answer, "_MOST_ITEMS", 10_000)  # the real bound takes seconds to reach

    def endless(customers: Sequence[CampaignCustomer], deadline: Deadline) -> Any:
        return itertools.repeat(customers[0].customer_id)

    campaign = rig.fake.add_campaign(20)
    report = rig.run(endless, campaign.event())
    assert (report.failed, report.approved, campaign.calls) == (20, 0, [])
    assert "must return those of its batch" in report.warnings[0]


ROWS = [{"CustomerID": f"A{number}", "PromoCode": "X" * 50} for number in range(300)]


@pytest.mark.parametrize("lengths", [(30, 20, 25), (250, 120, 260), (250, 20, 250)], ids=str)
def test_a_page_that_comes_again_in_pieces_is_an_error(lengths: tuple[int, ...]) -> None:
    paging = Paging(5, page_size=1_000)

    def read(length: int) -> int:
        assert paging.next_page() is not None
        return len(paging.feed(json.dumps(ROWS[:length]).encode()[:-1] + b","))

    assert read(lengths[0]) == lengths[0]
    with pytest.raises(UnexpectedResponseError, match="has come before"):
        [read(length) for length in lengths[1:]]


def test_a_page_that_breaks_off_goes_on_behind_the_rows_that_came() -> None:
    paging = Paging(5, page_size=1_000)
    came: list[CampaignCustomer] = []
    for length in (120, 1, 30, 100, 500):
        operation = paging.next_page()
        assert operation is not None
        assert dict(operation.query)["$skip"] == str(len(came))
        came += paging.feed(json.dumps(ROWS[len(came) :][:length]).encode()[:-1] + b",")
    assert [customer.customer_id for customer in came] == [row["CustomerID"] for row in ROWS]


def even(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    """Approve those whom `odd` does not."""
    return [customer.customer_id for customer in customers if not int(customer.customer_id[1:]) % 2]


@pytest.mark.parametrize("lost", ["the lock", "the file"])
def test_a_run_that_loses_its_review_stops_and_nobody_is_told_two_things(rig: Rig, tmp_path: Path, lost: str) -> None:
    path = tmp_path / "reviews.db"
    campaign = rig.fake.add_campaign(2_000)
    asked = 0

    def slowly_odd(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        nonlocal asked
        asked += 1
        time.sleep(0.05)
        if asked == 8:
            for each in tmp_path.iterdir():
                if lost == "the file" or each.suffix == ".lock":
                    each.unlink()
            if lost == "the lock":
                another.start()
                another.join(60)
        return odd(customers, deadline)

    def run_another() -> None:
        with SqliteJournal(path) as other, rig.fake.client(rate_limit=None) as client:
            review = CampaignReview(even, client=client, journal=other, report_denied=True, chunk_size=200)
            second.append(review.run(campaign.event()))

    second: list[Any] = []
    another = threading.Thread(target=run_another)
    with SqliteJournal(path) as journal:
        first = rig.run(
            slowly_odd,
            campaign.event(),
            journal=journal,
            batch_size=100,
            concurrency=1,
            chunk_size=200,
            report_denied=True,
            client_options={"rate_limit": None},
        )
    assert not first.complete
    assert not campaign.contradictions
    if lost == "the lock":
        assert isinstance(first.error, SupersededError)
        assert "taken over" in str(first.error)
        another.join(60)
        assert second[0].complete
        assert not campaign.contradictions
        assert second[0].reviewed == len(campaign.statuses) == 2_000
        assert 0 < first.reviewed < 2_000
    else:
        assert "restart all processes" in str(first.error)
        assert len(campaign.statuses) <= 800


def test_a_run_that_was_superseded_at_its_end_does_not_call_itself_complete(rig: Rig) -> None:
    class TakenOver(MemoryJournal):  # type: ignore[misc]
        def finish(self, key: str, report: str, /, *, run: int | None = None) -> None:
            self.unlock(key)
            assert self.open(campaign.event())
            super().finish(key, report, run=run)

    campaign = rig.fake.add_campaign(10)
    journal = TakenOver()
    report = rig.run(everybody, campaign.event(), journal=journal)
    assert (report.complete, report.finished_before_clearance) == (False, False)
    assert isinstance(report.error, SupersededError)
    assert journal.unfinished() == [campaign.event()]


def test_a_cancelled_runs_last_write_does_not_slip_into_the_next_run() -> None:
    class SlowToRecord(MemoryJournal):  # type: ignore[misc]
        def record(self, key: str, batches: Sequence[DecidedBatch], /, *, run: int | None = None) -> None:
            if not recording.is_set():
                recording.set()
                may_go.wait(30)
                try:
                    super().record(key, batches, run=run)
                except SupersededError as error:
                    refused.append(error)
                done.set()
            else:
                super().record(key, batches, run=run)

    recording, may_go, done = threading.Event(), threading.Event(), threading.Event()
    refused: list[SupersededError] = []
    fake = FakeOptimove()
    campaign = fake.add_campaign(100)
    journal = SlowToRecord()

    async def go() -> None:
        async with fake.async_client() as client:
            first = asyncio.ensure_future(
                AsyncCampaignReview(odd, client=client, journal=journal).run(campaign.event())
            )
            assert await asyncio.to_thread(recording.wait, 30)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert (await AsyncCampaignReview(even, client=client, journal=journal).run(campaign.event())).complete
            may_go.set()
            assert await asyncio.to_thread(done.wait, 30)

    asyncio.run(go())
    assert len(refused) == 1
    assert journal.reviews()[0].decided == 100
    assert not campaign.contradictions


def flaky(method: str, failures: int, error: Exception) -> MemoryJournal:
    """Return a journal of which a method raises a few times."""
    journal = MemoryJournal()
    real = getattr(journal, method)
    left = iter(range(failures))

    def fails(*arguments: Any, **options: Any) -> Any:
        if next(left, None) is not None:
            raise error
        return real(*arguments, **options)

    setattr(journal, method, fails)
    return journal


@pytest.mark.parametrize("method", ["open", "batches", "record", "acknowledge", "acknowledged", "finish"])
def test_a_journal_that_fails_for_a_moment_costs_nothing(
    rig: Rig, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    campaign = rig.fake.add_campaign(300)
    journal = flaky(method, 2, sqlite3.OperationalError("database is locked"))
    report = rig.run(everybody, campaign.event(), journal=journal, chunk_size=100)
    assert report.complete
    assert len(campaign.recipients()) == 300
    assert not campaign.twice
    assert journal.unfinished() == []
    if method not in ("finish", "acknowledged"):
        assert "the journal raised OperationalError: database is locked" in caplog.text.replace("The j", "the j")


@pytest.mark.parametrize("rig", ["sync", "async, plain reviewer"], indirect=True)  # the reviewer may block
def test_what_is_recorded_goes_out_though_the_journal_fails_for_good(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(MemoryJournal):  # type: ignore[misc]
        times = 0

        def record(self, key: str, batches: Sequence[DecidedBatch], /, *, run: int | None = None) -> None:
            self.times += 1
            if self.times > 2:
                raise sqlite3.OperationalError("database or disk is full")
            super().record(key, batches, run=run)
            recorded.set()

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        if customers[0].customer_id != "C0000001":
            recorded.wait(60)  # so that the journal does not get all of them at once
        return everybody(customers, deadline)

    recorded = threading.Event()
    campaign = rig.fake.add_campaign(3_000)
    journal = Full()
    with caplog.at_level(logging.ERROR):
        report = rig.run(
            reviewer, campaign.event(), journal=journal, batch_size=200, concurrency=1, safety_margin=2, seconds=4
        )
    (kept,) = journal.reviews()
    assert 0 < kept.approved < 3_000
    assert len(campaign.recipients()) == kept.approved == kept.acknowledged == report.acknowledged
    assert not report.complete
    assert "OperationalError: database or disk is full" in str(report.error)
    assert "OperationalError: database or disk is full" in caplog.text
    assert "C0000" not in caplog.text


@both_colours
def test_the_words_of_a_journal_that_may_quote_data_are_not_told(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    campaign = rig.fake.add_campaign(10)
    journal = flaky("record", 1_000, RuntimeError("duplicate key: customer-5"))
    report = rig.run(everybody, campaign.event(), journal=journal, seconds=2)
    assert "RuntimeError" in str(report.error)
    assert "customer-5" not in caplog.text + report.to_json()


@both_colours
def test_a_backup_that_locks_the_journal_for_a_while(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_BUSY_SECONDS", 0.3)
    campaign = rig.fake.add_campaign(3_000)
    backup = sqlite3.connect(tmp_path / "reviews.db", timeout=60, isolation_level=None, check_same_thread=False)
    asked: list[int] = []

    class UntilItFails(SqliteJournal):  # type: ignore[misc]
        def record(self, key: str, batches: Sequence[DecidedBatch], /, *, run: int | None = None) -> None:
            try:
                super().record(key, batches, run=run)
            except sqlite3.OperationalError:
                backup.execute("COMMIT")
                raise

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        asked.append(len(customers))
        if len(asked) == 2:
            backup.execute("BEGIN IMMEDIATE")
        return everybody(customers, deadline)

    with UntilItFails(tmp_path / "reviews.db") as journal:
        report = rig.run(reviewer, campaign.event(), journal=journal, batch_size=1_000, concurrency=1)
    backup.close()
    assert report.complete
    assert len(campaign.recipients()) == 3_000
    assert any("database is locked" in warning for warning in report.warnings)
