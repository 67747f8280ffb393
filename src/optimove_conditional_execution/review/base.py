"""What both reviews are built from: their settings, and what happens around a run."""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Generic, Literal, TypeVar
from zoneinfo import ZoneInfo

from optimove_conditional_execution import validation
from optimove_conditional_execution.client import AsyncOptimoveClient, OptimoveClient
from optimove_conditional_execution.deadline import Clock, Deadline, WallAwareClock, readings, zone_of
from optimove_conditional_execution.errors import (
    ConfigurationError,
    DeadlineExceeded,
    OptimoveError,
    StoreError,
    SupersededError,
)
from optimove_conditional_execution.flows.journal import Journal
from optimove_conditional_execution.flows.ledger import Ledger
from optimove_conditional_execution.flows.planner import Planner
from optimove_conditional_execution.flows.report import Progress, ReviewReport
from optimove_conditional_execution.models.listener import CampaignReadyEvent
from optimove_conditional_execution.observers import notify
from optimove_conditional_execution.operations import MAX_STATUSES
from optimove_conditional_execution.review.passes import Passes
from optimove_conditional_execution.review.pipeline import LOGGER, Pipeline
from optimove_conditional_execution.review.plan import Plan
from optimove_conditional_execution.review.sides import UPDATES_AT_ONCE, Side
from optimove_conditional_execution.review.turn import Turn, insistently, is_passing, unnumbered, words
from optimove_conditional_execution.stores.memory_journal import MemoryJournal

T = TypeVar("T")
R = TypeVar("R", bound=Callable[..., Any])
C = TypeVar("C", OptimoveClient, AsyncOptimoveClient)

WRONG_ZONE_SECONDS: Final = 2_700.0
"""A fresh event that is further from now than this was written in another zone; most differ by an hour or more."""

_LAST_WORDS_SECONDS: Final = 2.0
"""How long a review that is over waits for a journal that is slow, though clearance has come."""

_LAST_TRIES_SECONDS: Final = 15.0
"""How long a review that is over tries a journal that fails, before clearance: longer than a backup locks it."""


class Review(abc.ABC, Generic[R, C]):
    """What both reviews are built from."""

    def __init__(
        self,
        reviewer: R,
        *,
        client: C,
        timezone: str | ZoneInfo | None = None,
        journal: Journal | None = None,
        batch_size: int = 1_000,
        concurrency: int = 4,
        safety_margin: float = 30.0,
        report_denied: bool = False,
        progress: Callable[[Progress], None] | None = None,
        on_report: Callable[[ReviewReport], None] | None = None,
        customer_attributes: Sequence[str] = (),
        page_size: int | None = 10_000,
        chunk_size: int = MAX_STATUSES,
        control_group: Literal["ask", "skip"] = "ask",
        wall_clock: Clock = time.time,
    ) -> None:
        """Wire a reviewer to a client.

        Args:
            reviewer: Decides about a batch of customers: returns the ids of those who may get the campaign.
                `per_customer` makes one of a function of a single customer.
            client: Reads the customers and sends the statuses.
            timezone: The zone of Optimove's time stamps, an IANA name; unset, the client's.
            journal: Remembers what was decided and sent, so that a crash loses nothing: `stores.SqliteJournal(path)`.
                Unset, a `MemoryJournal`, which a crash loses.
            batch_size: Customers that the reviewer gets at once, at most.
            concurrency: Batches that it gets at the same time.
            safety_margin: Seconds before clearance at which the reviewer is not asked any more and what is decided goes
                out; half of the time there is when that is less. Its deadline is up to half a second before, so that
                what it returns at the last moment goes out too.
            report_denied: Whether those who are not approved are reported too. Optimove takes who is never reported for
                not approved.
            progress: Called with a `Progress` some times a second and at the end; it must be quick.
            on_report: Called with the report of each review that `submit` or `resume` ran, when it is complete or
                clearance has come.
            customer_attributes: Names of customer attributes to ask Optimove for.
            page_size: Rows of a page; None for an API that knows no pages.
            chunk_size: Statuses of an update, 10,000 at most.
            control_group: Whether the reviewer is asked about rows of the control group (`action_id` 1), or they are
                skipped; a customer who stands in other rows too is asked about all the same.
            wall_clock: Seconds since 1970.

        Raises:
            ConfigurationError: An argument is missing or makes no sense.
        """
        hint = "For a function of one customer use per_customer."
        validation.check_callable("reviewer", reviewer, "customers", "deadline", hint=hint)
        self._check(reviewer, client)
        zone = client.timezone if timezone is None else zone_of(timezone)
        if zone is None:
            raise ConfigurationError(
                "ClearanceRequiredBy has no zone: set the variable OPTIMOVE_TIMEZONE, or pass timezone=, to "
                "the IANA name of your tenant's, such as Europe/London. Optimove does not document it: ask."
            )
        validation.integer("batch_size", batch_size)
        validation.integer("concurrency", concurrency)
        validation.seconds("safety_margin", safety_margin)
        if page_size is not None:
            validation.integer("page_size", page_size)
        if validation.integer("chunk_size", chunk_size) > MAX_STATUSES:
            raise ConfigurationError(f"chunk_size must be {MAX_STATUSES} at most: Optimove takes no more in a call.")
        if control_group not in ("ask", "skip"):
            raise ConfigurationError('control_group must be "ask" or "skip".')
        self._reviewer = reviewer
        self._client: C = client
        self._zone = zone
        self._journal = MemoryJournal() if journal is None else journal
        self._batch_size = batch_size
        self._concurrency = concurrency
        self._safety_margin = safety_margin
        self._report_denied = report_denied
        self._progress = progress
        self._on_report = on_report
        self._attributes = tuple(customer_attributes)
        self._page_size = page_size
        self._chunk_size = chunk_size
        self._skip_control_group = control_group == "skip"
        self._wall_clock = wall_clock
        if missing := unnumbered(self._journal):
            LOGGER.warning(
                "%s takes no run= in %s: a run that has lost its lock is not stopped; see stores.Journal",
                type(self._journal).__name__,
                ", ".join(sorted(missing)),
            )

    @abc.abstractmethod
    def _check(self, reviewer: R, client: C) -> None:
        """Refuse what is of the other colour."""

    @abc.abstractmethod
    def _side(self) -> Side:
        """Return how the client, the reviewer and the journal are called."""

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._wall_clock(), self._zone).replace(tzinfo=None, microsecond=0)

    async def _run(
        self,
        event: CampaignReadyEvent,
        *,
        fresh: bool = True,
        expected: int | None = None,
        passes: Passes | None = None,
    ) -> ReviewReport | None:
        """Run a review once; None when somebody else is at it."""
        side = self._side()
        passes = Passes() if passes is None else passes
        turn = Turn(self._journal, event.key)
        await self._opened(event, side, self._journal.keep, event)
        try:
            if not await self._opened(event, side, turn.take):
                return None
            over = await self._opened(event, side, self._journal.report, event.key)
            if over is not None:
                return ReviewReport.from_json(over)
            report = passes.added(await self._reviewed(event, side, turn, passes, fresh=fresh, expected=expected))
            if report.complete or self._left(event) <= 0:
                report = await self._written(report, turn, side)
        finally:
            if failed := await _failure(side, turn.leave):
                LOGGER.error("campaign %d: the journal raised %s when it was left", event.campaign_id, words(failed))
        _log(report)
        return report

    async def _opened(self, event: CampaignReadyEvent, side: Side, function: Callable[..., T], *arguments: object) -> T:
        """Call the journal before anything is decided; if it is locked, say, again until the safety margin."""
        left = max(0.0, event.clearance_deadline(self._zone).timestamp() - self._wall_clock())

        def told(error: Exception) -> None:
            LOGGER.error("campaign %d: the journal raised %s; it is tried again", event.campaign_id, words(error))

        return await insistently(
            lambda: side.call(function, *arguments),
            until=Deadline.after(left - min(self._safety_margin, left / 2)),
            told=told,
            only=is_passing,
        )

    async def _written(self, report: ReviewReport, turn: Turn, side: Side) -> ReviewReport:
        # What was sent is sent: a journal that fails now must not take the report with it, nor hold it past clearance.
        failed = await _failure(side, turn.finish, report.to_json(), patience=report.seconds_to_spare)
        if failed is None:
            return report
        if isinstance(failed, StoreError):
            return dataclasses.replace(report, complete=False, finished_before_clearance=False, error=failed)
        text = f"The journal raised {words(failed)} when the review was over; a further run only writes that down."
        return dataclasses.replace(report, warnings=(*report.warnings, text))

    async def _asked(self, event: CampaignReadyEvent, expected: int | None) -> ReviewReport:
        check_event(event)
        if expected is not None:
            validation.integer("expected_customers", expected)
        report = await self._run(event, expected=expected)
        if report is None:
            busy = OptimoveError("Another thread or process is at this review.")
            report = ReviewReport(campaign_id=event.campaign_id, error=busy)
        return report

    def _left(self, event: CampaignReadyEvent) -> float:
        """Return the seconds until clearance on the wall clock; negative after it."""
        now = self._wall_clock()
        clearance, _ = event.clearance(self._zone, now=now)
        return clearance.timestamp() - now

    async def _reviewed(
        self, event: CampaignReadyEvent, side: Side, turn: Turn, passes: Passes, *, fresh: bool, expected: int | None
    ) -> ReviewReport:
        now = self._wall_clock()
        clock = WallAwareClock(wall=self._wall_clock)
        clearance, doubtful = event.clearance(self._zone, now=now)
        left = clearance.timestamp() - now
        ledger = Ledger(
            chunk_size=self._chunk_size,
            report_denied=self._report_denied,
            skip_control_group=self._skip_control_group,
            taken=await self._opened(event, side, turn.acknowledged),
        )
        warnings = self._doubts(event, clearance if doubtful else None, fresh=fresh)
        if left <= 0:
            return await self._too_late(event, ledger, side, left, warnings)
        if passes.margin is None:
            passes.margin = min(self._safety_margin, left / 2)
        deadline = Deadline.after(left, clock=clock)
        limit = self._client.rate_limit
        planner = Planner(
            clearance=deadline,
            chunk_size=self._chunk_size,
            pause_between_requests=0.0 if limit is None else limit.per / limit.requests,
            expected=expected,
            clock=clock,
            updates_at_once=UPDATES_AT_ONCE,
        )
        plan = Plan(
            event=event,
            clearance=deadline,
            asking=deadline.earlier_by(passes.margin),
            recording=deadline.earlier_by(passes.margin / 2),
            batch_size=self._batch_size,
            concurrency=self._concurrency,
            page_size=self._page_size,
            attributes=self._attributes,
            now=self._now,
            clock_step=clock.step,
            progress=self._progress,
            only_sending=passes.all_decided,
        )
        if any(_is_rival(kept.event, event) for kept in await self._opened(event, side, self._journal.reviews)):
            warnings.append(
                "The journal holds another review of this campaign with the same clearance: Optimove has announced it "
                "twice, with other time stamps. What the reviews say of one customer may differ; the last word counts."
            )
            LOGGER.warning("campaign %d: %s", event.campaign_id, warnings[-1])
        pipeline = Pipeline(
            plan, side=side, journal=self._journal, turn=turn, ledger=ledger, planner=planner, warnings=warnings
        )
        report = await pipeline.run()
        passes.all_decided, passes.all_sent = pipeline.all_decided, ledger.settled
        return report

    async def _too_late(
        self, event: CampaignReadyEvent, ledger: Ledger, side: Side, left: float, warnings: Sequence[str]
    ) -> ReviewReport:
        """Report what earlier runs did."""

        def replay() -> None:
            for batch in self._journal.decided(event.key):
                ledger.replay(batch)

        await side.call(replay)
        return ReviewReport(
            campaign_id=event.campaign_id,
            reviewed=ledger.reviewed,
            approved=ledger.approved,
            denied=ledger.denied,
            acknowledged=ledger.acknowledged,
            seconds_to_spare=left,
            error=DeadlineExceeded("Clearance has passed, so nothing was read and nothing sent.", request_sent=False),
            warnings=tuple(warnings),
        )

    def _doubts(self, event: CampaignReadyEvent, clearance: datetime | None, *, fresh: bool) -> list[str]:
        """Return what is doubtful about an event's times; `clearance` is the reading taken when there are several."""
        doubts: list[str] = []
        if clearance is not None:
            doubts.append(
                f"ClearanceRequiredBy falls into a change of clocks in {self._zone.key}, so it has two readings. "
                "Taken is the earliest that is not before the event's TimeStamp: "
                f"{clearance.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."
            )
        if event.contradicts(self._zone):
            doubts.append(
                f"ClearanceRequiredBy names another UTC offset than {self._zone.key} has then; the event's own counts. "
                "Check timezone=, which statuses are stamped in."
            )
        now = self._wall_clock()
        stamps = readings(event.timestamp, event.timestamp_zone(self._zone))
        off = min((stamp.timestamp() - now for stamp in stamps), key=abs)
        if fresh and abs(off) >= WRONG_ZONE_SECONDS:
            doubts.append(
                f"The event's TimeStamp is {abs(off) / 3600:.1f} h {'ahead of' if off > 0 else 'behind'} now in "
                f"{self._zone.key}: probably the time zone is wrong, and with it the clearance. Check timezone=."
            )
        for doubt in doubts:
            LOGGER.warning("campaign %d: %s", event.campaign_id, doubt)
        return doubts

    async def _resume(self) -> list[ReviewReport]:
        events = await self._side().call(self._journal.unfinished)
        reports = await asyncio.gather(*(self._resumed(event) for event in events))
        return [report for report in reports if report is not None]

    async def _resumed(self, event: CampaignReadyEvent) -> ReviewReport | None:
        try:
            return await self._told(event, fresh=False)
        except Exception as error:  # noqa: BLE001 - one review that cannot run must not keep the others from it
            LOGGER.error("campaign %d: the review could not be resumed: %s", event.campaign_id, words(error))
            told = error if isinstance(error, OptimoveError) else OptimoveError(f"The journal raised {words(error)}.")
            return ReviewReport(campaign_id=event.campaign_id, error=told)

    async def _told(self, event: CampaignReadyEvent, *, fresh: bool) -> ReviewReport | None:
        report = await self._run_on(event, fresh=fresh)
        if report is None:
            LOGGER.info("campaign %d: somebody else is at this review", event.campaign_id)
        elif self._on_report is not None:
            await self._side().tell(notify, "on_report", self._on_report, report, LOGGER)
        return report

    async def _run_on(self, event: CampaignReadyEvent, *, fresh: bool) -> ReviewReport | None:
        """Run a review again and again, until it is complete or clearance comes; None when somebody else is at it.

        Between two passes nobody holds the review. So whoever has lost it to another process finds that out, and stops.
        """
        passes = Passes()
        report = await self._run(event, fresh=fresh, passes=passes)
        while report is not None and not report.complete and not isinstance(report.error, SupersededError):
            left = self._left(event)
            pause = passes.pause(left)
            if pause is None:
                break
            LOGGER.warning(
                "campaign %d: incomplete %.0f s before clearance; the review goes on in %.1f s",
                event.campaign_id,
                left,
                pause,
            )
            await asyncio.sleep(pause)
            try:
                report = await self._run(event, fresh=False, passes=passes)
            except Exception as error:  # noqa: BLE001 - a journal that fails now may work at the next try
                LOGGER.error("campaign %d: the journal raised %s", event.campaign_id, words(error))
        return report

    async def _in_background(self, event: CampaignReadyEvent) -> None:
        try:
            await self._told(event, fresh=True)
        except Exception as error:  # noqa: BLE001 - nobody waits for it; the journal still holds the event
            LOGGER.error("campaign %d: the review failed: %s", event.campaign_id, words(error))


def _is_rival(kept: CampaignReadyEvent, event: CampaignReadyEvent) -> bool:
    return (
        kept.key != event.key
        and kept.campaign_id == event.campaign_id
        and kept.clearance_required_by == event.clearance_required_by
    )


def check_event(event: object) -> None:
    """Refuse what is no event of a campaign that is ready.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(event, CampaignReadyEvent):
        raise ConfigurationError(
            f"A review needs a CampaignReadyEvent, not a {type(event).__name__}: CampaignReadyEvent.from_json(body)."
        )


async def _failure(
    side: Side, function: Callable[..., object], *arguments: object, patience: float = 0.0
) -> Exception | None:
    """Call the journal, and return what it raised at last; one that waits for a lock goes on by itself.

    Args:
        side: How it is called.
        function: What is called.
        arguments: With what.
        patience: Seconds that there are to try again.
    """
    tries = Deadline.after(min(max(0.0, patience), _LAST_TRIES_SECONDS))
    try:
        async with asyncio.timeout(max(_LAST_WORDS_SECONDS, patience)):
            await insistently(lambda: side.call(function, *arguments), until=tries, told=lambda _: None)
    except Exception as error:  # noqa: BLE001 - somebody else's journal may raise anything
        return error
    return None


def _log(report: ReviewReport) -> None:
    LOGGER.log(
        logging.INFO if report.complete else logging.ERROR,
        "campaign %d: %s, approved=%d denied=%d failed=%d not_reached=%d acknowledged=%d chunks=%d to_spare=%.1fs%s",
        report.campaign_id,
        "complete" if report.complete else "INCOMPLETE",
        report.approved,
        report.denied,
        report.failed,
        report.not_reached,
        report.acknowledged,
        report.chunks,
        report.seconds_to_spare,
        "" if report.error is None else f" ({report.error})",
    )
