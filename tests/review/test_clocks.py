"""Clocks that step while a review runs, and clearances in the night in which clocks change."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from optimove_conditional_execution import (
    AsyncCampaignReview,
    AsyncListenerReceiver,
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    Deadline,
    DeadlineExceeded,
    ListenerReceiver,
    Request,
    Response,
    ReviewReport,
)
from optimove_conditional_execution.deadline import WallAwareClock, announced_instant, zone_of
from optimove_conditional_execution.stores import MemoryJournal
from optimove_conditional_execution.testing import FakeOptimove
from tests.review.conftest import Rig, everybody

LONDON = zone_of("Europe/London")


class SteppingClock:
    """A wall clock that can be set while it is read."""

    def __init__(self) -> None:
        self.step = 0.0

    def __call__(self) -> float:
        return time.time() + self.step


def steps_at(number: int, wall: SteppingClock, seconds: float) -> Callable[..., list[str]]:
    """Return a reviewer during whose batch of that number the wall clock is set."""
    asked: list[int] = []

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        asked.append(1)
        if len(asked) == number:
            wall.step = seconds
        time.sleep(0.02)
        return everybody(customers, deadline)

    return reviewer


SMALL: dict[str, Any] = {"batch_size": 100, "concurrency": 1, "chunk_size": 100, "safety_margin": 2}


def test_nothing_is_sent_when_the_wall_clock_has_gone_past_clearance(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    wall = SteppingClock()
    campaign = rig.fake.add_campaign(1_000, lead_seconds=60)
    handle, late = rig.fake.handle, []

    def watched(request: Any) -> Response:
        if request.path.endswith("UpdateCustomerPromotionStatus"):
            late.append(wall() * 1_000 > campaign.clearance_ms)
        return handle(request)

    rig.fake.handle = watched  # type: ignore[method-assign]
    report = rig.run(steps_at(3, wall, 3_600), campaign.event(), wall_clock=wall, **SMALL)
    assert len(late) < 10, "the review went on"
    assert not any(late)
    assert (report.complete, report.finished_before_clearance) == (False, False)
    assert report.seconds_to_spare < -3_000
    assert isinstance(report.error, DeadlineExceeded)
    assert any("wall clock has moved forward by 3600 s" in warning for warning in report.warnings)
    assert "wall clock has moved forward" in caplog.text


def test_a_review_that_waits_for_its_reviewer_ends_when_the_wall_clock_passes_clearance(rig: Rig) -> None:
    wall = SteppingClock()
    campaign = rig.fake.add_campaign(10, lead_seconds=600)
    begun = time.monotonic()

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        wall.step = 3_600.0
        if rig.colour != "async":  # a coroutine function that blocks holds its own event loop
            time.sleep(1)
        assert deadline.expired
        return everybody(customers, deadline)

    report = rig.run(reviewer, campaign.event(), wall_clock=wall)
    assert time.monotonic() - begun < 60
    assert not campaign.updates
    assert (report.complete, report.finished_before_clearance) == (False, False)


def test_a_wall_clock_that_was_set_back_is_told_and_gives_no_more_time(rig: Rig) -> None:
    wall = SteppingClock()
    campaign = rig.fake.add_campaign(500, lead_seconds=60)
    report = rig.run(steps_at(2, wall, -3_600), campaign.event(), wall_clock=wall, **SMALL)
    assert report.complete
    assert report.seconds_to_spare <= 62
    assert any("wall clock has moved back by 3600 s" in warning for warning in report.warnings)


def test_a_review_that_the_monotonic_clock_ends_is_not_over_while_the_wall_clock_sees_time(
    fake_optimove: FakeOptimove,
) -> None:
    wall = SteppingClock()
    journal = MemoryJournal()
    campaign = fake_optimove.add_campaign(100, lead_seconds=2)

    def hangs_once(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        if not wall.step:
            wall.step = -600.0  # the clock was ten minutes fast, and was set right
            time.sleep(3.2)
        return everybody(customers, deadline)

    with fake_optimove.client() as client:
        review = CampaignReview(hangs_once, client=client, journal=journal, wall_clock=wall)
        assert not review.run(campaign.event()).complete
        assert not journal.reviews()[0].finished
        assert review.run(campaign.event()).complete


def test_of_two_clocks_the_one_that_is_ahead_counts() -> None:
    monotonic, wall = 100.0, 5_000.0
    clock = WallAwareClock(monotonic=lambda: monotonic, wall=lambda: wall)
    deadline = Deadline.after(60, clock=clock)
    monotonic, wall = 110.0, 5_010.0
    assert (deadline.remaining(), clock.step()) == (50.0, 0.0)
    wall = 5_045.0
    assert (deadline.remaining(), clock.step()) == (15.0, 35.0)
    wall = 4_000.0
    assert (deadline.remaining(), clock.step()) == (50.0, -1_010.0)
    monotonic = 161.0
    assert deadline.expired


# ---- the night in which clocks change


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


NIGHTS = {
    "fold, announced the day before": ("2026-10-24 20:00", "2026-10-25 01:30", None, "2026-10-25 00:30+00:00"),
    "fold, both in the first hour": (
        "2026-10-25 01:20",
        "2026-10-25 01:45",
        "2026-10-25 00:20+00:00",
        "2026-10-25 00:45+00:00",
    ),
    "fold, both in the second hour": (
        "2026-10-25 01:20",
        "2026-10-25 01:45",
        "2026-10-25 01:20+00:00",
        "2026-10-25 01:45+00:00",
    ),
    "fold, one in each hour": (
        "2026-10-25 01:50",
        "2026-10-25 01:10",
        "2026-10-25 00:50+00:00",
        "2026-10-25 01:10+00:00",
    ),
    "fold, one in each hour, found late": (
        "2026-10-25 01:50",
        "2026-10-25 01:10",
        "2026-10-25 01:05+00:00",
        "2026-10-25 01:10+00:00",
    ),
    "fold, nobody knows when": ("2026-10-25 01:20", "2026-10-25 01:45", None, "2026-10-25 00:45+00:00"),
    "gap, announced the day before": ("2027-03-27 20:00", "2027-03-28 01:30", None, "2027-03-28 00:30+00:00"),
    "gap, announced between its readings": (
        "2027-03-28 00:50",
        "2027-03-28 01:30",
        "2027-03-28 00:50+00:00",
        "2027-03-28 01:30+00:00",
    ),
}


@pytest.mark.parametrize(("announced", "clearance", "now", "means"), NIGHTS.values(), ids=NIGHTS)
def test_the_earliest_reading_that_is_not_before_the_announcement(
    announced: str, clearance: str, now: str | None, means: str
) -> None:
    seconds = None if now is None else at(now).timestamp()
    moment, doubtful = announced_instant(
        at(clearance), LONDON, announced=at(announced), announced_zone=LONDON, now=seconds
    )
    assert moment == at(means)
    assert doubtful
    event = CampaignReadyEvent(
        event_type_id=5, timestamp=at(announced), campaign_id=7, clearance_required_by=at(clearance)
    )
    assert event.clearance_deadline(LONDON, now=None if now is None else at(now)) == at(means)


def test_another_hour_of_the_same_night_is_not_doubtful() -> None:
    moment, doubtful = announced_instant(
        at("2026-10-25 03:00"), LONDON, announced=at("2026-10-25 01:20"), announced_zone=LONDON
    )
    assert (moment, doubtful) == (at("2026-10-25 03:00+00:00"), False)


SECOND_0120 = at("2026-10-25 01:20+00:00").timestamp()
NIGHT_EVENT = {
    "EventTypeID": 5,
    "TimeStamp": "2026-10-25 01:20:00",
    "CampaignDuration": 1,
    "ClearanceRequiredBy": "2026-10-25 01:45:00",
}


@pytest.mark.parametrize("path", ["run", "submit", "resume", "listener", "too late"])
@pytest.mark.parametrize("colour", ["sync", "async"])
def test_the_doubt_is_logged_and_in_the_report_on_every_path(
    path: str, colour: str, fake_optimove: FakeOptimove, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.time()
    late = 3_600.0 if path == "too late" else 0.0
    campaign = fake_optimove.add_campaign(50)
    payload = {**NIGHT_EVENT, "CampaignID": campaign.campaign_id}
    event = CampaignReadyEvent.model_validate(payload)
    rig = Rig(colour, fake_optimove)
    journal = MemoryJournal()
    options: dict[str, Any] = {
        "timezone": "Europe/London",
        "journal": journal,
        "wall_clock": lambda: SECOND_0120 + late + time.time() - began,
    }
    if path in ("run", "too late"):
        report = rig.run(everybody, event, **options)
    elif path == "submit":
        (report,) = rig.submit(everybody, event, **options)
    elif path == "resume":
        journal.add(event)
        report = rig.resume(everybody, **options)[0]
    else:
        report = announced(rig, payload, options)
    assert report.complete is (path != "too late")
    assert len(campaign.recipients()) == (0 if path == "too late" else 50)
    assert any("2026-10-25 01:45:00 UTC" in warning for warning in report.warnings)
    told = [record for record in caplog.records if "falls into a change of clocks" in record.getMessage()]
    assert [record.levelname for record in told] == ["WARNING"]


def announced(rig: Rig, payload: dict[str, Any], options: dict[str, Any]) -> ReviewReport:
    """Post the event to a listener, and return the report of the review that it starts."""
    told: list[ReviewReport] = []
    request = Request("POST", "/listener", "token=the-token", body=json.dumps(payload).encode())
    if rig.colour == "sync":
        with (
            rig.fake.client() as client,
            CampaignReview(everybody, client=client, on_report=told.append, **options) as review,
        ):
            assert ListenerReceiver(review.submit, token="the-token").handle(request).status == 200
        return told[0]

    async def go() -> None:
        async with (
            rig.fake.async_client() as client,
            AsyncCampaignReview(everybody, client=client, on_report=told.append, **options) as review,
        ):
            receiver = AsyncListenerReceiver(review.submit, token="the-token")
            assert (await receiver.handle(request)).status == 200

    asyncio.run(go())
    return told[0]
