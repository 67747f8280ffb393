"""Base class of both reviews, apart from their public methods: one pass under a review's lock, and all passes."""

from __future__ import annotations

import abc
import asyncio
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, Literal, TypeVar
from zoneinfo import ZoneInfo

from .. import validation
from ..client import AsyncOptimoveClient, OptimoveClient
from ..deadline import Clock, Deadline, WallAwareClock, zone_of
from ..defaults import STOP_SECONDS
from ..errors import ConfigurationError, DeadlineExceeded, OptimoveError, StoreError, SupersededError
from ..flows.decision_log import DecisionLog, OnLogFailure, check_log
from ..flows.journal import Journal, OpenReview
from ..flows.ledger import Ledger
from ..flows.report import CompletionEstimate, Progress, ReviewReport
from ..models.events import CampaignReadyEvent
from ..observers import notify
from ..operations import DEFAULT_PAGE_SIZE, MAX_STATUSES
from ..shadow import Shadow
from ..stores.journals import MemoryJournal
from ..switch import SwitchSource
from ..validation import is_async
from .config import LOGGER, ReviewConfig
from .controls import Controlled, ReviewControls
from .journal_access import JournalAccess, ReviewLock, is_temporary, safe_text
from .pipeline import Pipeline
from .run_log import ReviewLog
from .runtime import UPDATES_AT_ONCE, Runtime
from .timing import STOPPED, Passes, Stop, doubts_about

T = TypeVar("T")
R = TypeVar("R", bound=Callable[..., Any])
C = TypeVar("C", OptimoveClient, AsyncOptimoveClient)

_LAST_WORDS_SECONDS: Final = 2.0
"""Seconds that a completed review waits for a slow journal, even after clearance."""

_STOPPED_SECONDS: Final = 1.0
"""Seconds that a stopped review waits for a journal at least, to keep its report and to release its lock."""

_LAST_TRIES_SECONDS: Final = 15.0
"""Seconds that a completed review retries a failing journal, before clearance: longer than a backup locks it."""


class Review(abc.ABC, Generic[R, C]):
    """Base class of both reviews."""

    def __init__(
        self,
        reviewer: R,
        *,
        client: C,
        timezone: str | ZoneInfo | None = None,
        journal: Journal | None = None,
        batch_size: int = 1_000,
        concurrency: int = 4,
        batch_timeout: float | None = None,
        batch_attempts: int = 3,
        safety_margin: float = 30.0,
        report_denied: bool = False,
        progress: Callable[[Progress], None] | None = None,
        on_report: Callable[[ReviewReport], None] | None = None,
        customer_attributes: Sequence[str] = (),
        page_size: int | None = DEFAULT_PAGE_SIZE,
        chunk_size: int = MAX_STATUSES,
        control_group: Literal["ask", "skip"] = "ask",
        decision_log: DecisionLog | None = None,
        on_log_failure: OnLogFailure = "refuse",
        switch: SwitchSource | None = None,
        shadow: R | Shadow[R] | None = None,
        observe: bool = False,
        wall_clock: Clock = time.time,
    ) -> None:
        """Set up a review for a reviewer and a client.

        Args:
            reviewer: Decides about a batch of customers: returns the ids of those who may get the campaign.
                `per_customer` makes one of a function of a single customer.
            client: Reads the customers and sends the statuses.
            timezone: The zone of Optimove's time stamps, an IANA name; unset, the client's.
            journal: Stores what was decided and sent, so that a crash loses nothing: `stores.SqliteJournal(path)`, or
                for several machines `stores.postgres.PostgresJournal(conninfo)`.
                Unset, a `MemoryJournal`, which is lost in a crash.
            batch_size: Customers per batch, at most.
            concurrency: Batches that are reviewed concurrently.
            batch_timeout: Seconds after which the reviewer is asked again about a batch; its first answer that is
                recorded counts. None waits until the safety margin. A plain reviewer that hangs occupies a thread.
            batch_attempts: How often the reviewer is asked about a customer whose decision fails, with growing pauses,
                in one run.
            safety_margin: Seconds before clearance from which the reviewer is not called any more and the remaining
                decisions are sent; at most half of the time left. The reviewer's deadline is up to half a second before
                that, so that what it returns at its deadline is sent too.
            report_denied: Whether customers who are not approved are reported too. Optimove treats a customer who is
                never reported as not approved.
            progress: Called with a `Progress` some times a second and at the end; it must be quick.
            on_report: Called with the report of each review that `submit` or `resume` ran, when it is complete,
                clearance has come, or it was stopped.
            customer_attributes: Names of customer attributes to ask Optimove for.
            page_size: Rows per page; None for an API without paging.
            chunk_size: Statuses per update, 10,000 at most.
            control_group: Whether the reviewer is asked about rows of the control group (`action_id` 1), or they are
                skipped; a customer who has other rows too is asked about all the same.
            decision_log: Gets a record of the decision about every customer before the journal does, and what became of
                it after each update, such as `stores.SqliteDecisionLog`. None records nothing.
            on_log_failure: What becomes of decisions that cannot be recorded. `"refuse"`: the log is tried again until
                half of `safety_margin` before clearance, and they do not count: nothing of them is sent, and a further
                run asks again. `"decide"`: they count without a record, and a warning of the report has their number.
            switch: The kill switch: the path of a file (see `switch.SwitchState.parse`), or a function without
                arguments that says the same; `AsyncCampaignReview` takes a coroutine function too. It is looked at
                before each batch and before each update, at most every second. Instead of the reviewer it denies or
                abstains, finally; approvals that the journal holds are held back. One that fails counts as a reviewer
                that fails. An event does not say its campaign's tags, so a stop of any tag stops every review.
            shadow: A second reviewer, such as a new rule: it is asked about each batch after the reviewer, once, and
                what it says is recorded and never counts. A `shadow.Shadow` has settings.
            observe: Send nothing. What the reviewer says is recorded, in the journal as abstentions with a reason, and
                in the decision log. A review that has observed is over: the same event is not reviewed again.
            wall_clock: Seconds since 1970.

        Raises:
            ConfigurationError: An argument is missing or invalid.
        """
        hint = "For a function of one customer use per_customer."
        validation.check_callable("reviewer", reviewer, "customers", "deadline", hint=hint)
        self._check_flavour(reviewer, client)
        check_log(decision_log, on_log_failure)
        if switch is not None:
            validation.check_takes("client.send", client.send, "before_send", needed_by="switch=")
        self._controls = ReviewControls.of(
            switch=switch,
            shadow=shadow,
            observe=observe,
            log=decision_log,
            is_async_review=is_async(client.send),
        )
        zone = client.timezone if timezone is None else zone_of(timezone)
        if zone is None:
            raise ConfigurationError(
                "ClearanceRequiredBy has no zone: set the variable OPTIMOVE_TIMEZONE, or pass timezone=, to "
                "the IANA name of your tenant's, such as Europe/London. Optimove does not document it: ask."
            )
        self._config = ReviewConfig(
            timezone=zone,
            batch_size=batch_size,
            concurrency=concurrency,
            batch_timeout=batch_timeout,
            batch_attempts=batch_attempts,
            safety_margin=safety_margin,
            report_denied=report_denied,
            progress=progress,
            on_report=on_report,
            customer_attributes=tuple(customer_attributes),
            page_size=page_size,
            chunk_size=chunk_size,
            control_group=control_group,
            wall_clock=wall_clock,
        )
        self._reviewer = reviewer
        self._client: C = client
        self._journal = JournalAccess(MemoryJournal() if journal is None else journal)
        self._log = None if decision_log is None else ReviewLog(decision_log, on_log_failure)
        self._stop = Stop()

    def stop(self, *, within: float = STOP_SECONDS) -> None:
        """Stop all reviews of this object; returns at once, and may be called in a signal handler or from any thread.

        No further batch begins. Calls of the reviewer that run get a new deadline, half of `within` from now; what they
        return by then counts. Then what is recorded is sent, unless pages are missing whose rows could still say no,
        the report is kept in the journal, and `run` and `resume` return, with `stopped` in the report. From then on
        `submit` only records the event, and `run` reviews nothing. `resume` goes on with everything that is
        unfinished, in this process or another one.

        Args:
            within: Seconds until everything is done. A journal that hangs can take two seconds more.

        Raises:
            ConfigurationError: `within` is not a number of seconds, 0 or more.
        """
        self._stop.request(within)

    @abc.abstractmethod
    def _check_flavour(self, reviewer: R, client: C) -> None:
        """Reject a sync client or reviewer where an async one is needed, and vice versa."""

    @abc.abstractmethod
    def _runtime(self) -> Runtime:
        """Return the runtime of one pass, which calls the client and the reviewer."""

    @abc.abstractmethod
    async def _publish(self, report: ReviewReport) -> None:
        """Call `on_report`."""

    async def _run_event(self, event: CampaignReadyEvent, expected: int | None) -> ReviewReport:
        """Run one pass of a review, for `run`."""
        check_event(event)
        if expected is not None:
            validation.integer("expected_customers", expected)
        report = await self._run_locked(event, Passes(self._stop), expected=expected, is_last=True)
        if report is None:
            busy = OptimoveError("Another thread or process has the lock of this review.")
            report = ReviewReport(campaign_id=event.campaign_id, error=busy)
        return report

    async def _run_until_complete(self, event: CampaignReadyEvent, *, fresh: bool) -> ReviewReport | None:
        """Run a review for `submit` and `resume`, pass after pass, until it is complete or clearance comes.

        Between two passes the lock is free. So a process that has lost the review to another one notices, and stops.
        Whatever the journal raises is logged, and is part of the report.

        Returns:
            The report; None when another thread or process holds the lock.
        """
        try:
            report = await self._run_passes(event, Passes(self._stop), fresh=fresh)
        except Exception as error:  # noqa: BLE001 - one review that cannot run must not stop the others
            LOGGER.error("campaign %d: the review failed: %s", event.campaign_id, safe_text(error))
            return ReviewReport(campaign_id=event.campaign_id, error=_as_optimove_error(error))
        if report is None:
            LOGGER.info("campaign %d: another thread or process has the lock of this review", event.campaign_id)
        else:
            await self._publish(report)
        return report

    async def _run_passes(self, event: CampaignReadyEvent, passes: Passes, *, fresh: bool) -> ReviewReport | None:
        report: ReviewReport | None
        try:
            report = await self._run_locked(event, passes, fresh=fresh)
        except Exception as error:
            # A submitted review has no caller that could start it again.
            if not fresh or isinstance(error, ConfigurationError | StoreError):
                raise
            LOGGER.error("campaign %d: the journal raised %s", event.campaign_id, safe_text(error))
            report = ReviewReport(campaign_id=event.campaign_id, error=_as_optimove_error(error))
        while report is not None and not report.complete and not report.stopped:
            if isinstance(report.error, SupersededError):
                break
            left = self._config.seconds_left(event)
            pause = passes.pause(left)
            if pause is None:
                break
            LOGGER.warning(
                "campaign %d: incomplete %.0f s before clearance; the review goes on in %.1f s",
                event.campaign_id,
                left,
                pause,
            )
            if await passes.stop.pause(pause):
                return _stopped(report)
            try:
                report = await self._run_locked(event, passes, fresh=False)
            except Exception as error:  # noqa: BLE001 - a journal that fails now may work at the next try
                LOGGER.error("campaign %d: the journal raised %s", event.campaign_id, safe_text(error))
        return report

    async def _resume_all(self) -> list[ReviewReport]:
        if self._stop.requested:
            self._stop = Stop()  # those that are being stopped have the old one
        events = await self._journal.call(self._journal.journal.unfinished)
        reports = await asyncio.gather(*(self._run_until_complete(event, fresh=False) for event in events))
        return [report for report in reports if report is not None]

    async def _run_locked(
        self,
        event: CampaignReadyEvent,
        passes: Passes,
        *,
        fresh: bool = True,
        expected: int | None = None,
        is_last: bool = False,
    ) -> ReviewReport | None:
        """Run one pass of a review; None when another thread or process holds its lock."""
        stop = passes.stop
        if stop.requested:
            return _stopped(ReviewReport(campaign_id=event.campaign_id))
        lock = ReviewLock(self._journal.journal, event)
        try:
            opened = await stop.bounded(self._open(event, lock))
            if opened is None:
                return _stopped(ReviewReport(campaign_id=event.campaign_id)) if stop.requested else None
            if opened.report is not None:
                return ReviewReport.from_json(opened.report)
            report = passes.added(
                await self._execute(event, opened, passes, fresh=fresh, expected=expected, is_last=is_last)
            )
            is_over = report.complete or self._config.seconds_left(event) <= 0
            report = await self._write_report(event, opened, report, stop, is_over=is_over)
        finally:
            if failed := await self._failure(lock.release, stop, patience=_LAST_WORDS_SECONDS):
                LOGGER.error(
                    "campaign %d: the journal raised %s when it was left", event.campaign_id, safe_text(failed)
                )
        _log(report)
        return report

    async def _open(self, event: CampaignReadyEvent, lock: ReviewLock) -> OpenReview | None:
        """Open the review in the journal, retrying temporary errors until the safety margin.

        Raises:
            DeadlineExceeded: The call did not return by clearance.
            Exception: What the last try raised.
        """
        left = max(0.0, event.clearance_deadline(self._config.timezone).timestamp() - self._config.wall_clock())

        def on_error(error: Exception) -> None:
            LOGGER.error("campaign %d: the journal raised %s; it is tried again", event.campaign_id, safe_text(error))

        until = Deadline.after(left - self._config.margin(left))
        in_time = asyncio.timeout(max(left, _LAST_WORDS_SECONDS) if left else _LAST_TRIES_SECONDS)
        try:
            async with in_time:
                return await self._journal.retry(lock.acquire, until=until, on_error=on_error, only=is_temporary)
        except TimeoutError:
            if not in_time.expired():
                raise  # the journal's own
        raise DeadlineExceeded("The journal had not answered when clearance came.", request_sent=False)

    async def _execute(
        self,
        event: CampaignReadyEvent,
        opened: OpenReview,
        passes: Passes,
        *,
        fresh: bool,
        expected: int | None,
        is_last: bool,
    ) -> ReviewReport:
        config = self._config
        now = config.wall_clock()
        clock = WallAwareClock(wall=config.wall_clock)
        clearance, doubtful = event.clearance(config.timezone, now=now)
        left = clearance.timestamp() - now
        ledger = Ledger(
            event=event,
            chunk_size=config.chunk_size,
            report_denied=config.report_denied,
            skip_control_group=config.control_group == "skip",
            taken=opened.acknowledged,
        )
        warnings = doubts_about(event, clearance if doubtful else None, config, fresh=fresh)
        if left <= 0:
            return await self._too_late(event, ledger, left, warnings)
        if opened.announced_twice:
            warnings.append(
                "The journal holds another review of this campaign with the same clearance: Optimove has announced it "
                "twice, with other time stamps. Their statuses of one customer may differ; the last one counts."
            )
            LOGGER.warning("campaign %d: %s", event.campaign_id, warnings[-1])
        if passes.margin is None:
            passes.margin = config.margin(left)
        deadline = Deadline.after(left, clock=clock)
        limit = self._client.rate_limit
        runtime = self._runtime()
        if self._controls is not None:
            runtime = Controlled(runtime, self._controls, event.campaign_id)
        pipeline = Pipeline(
            config=config,
            event=event,
            runtime=runtime,
            journal=self._journal,
            log=self._log,
            run_number=opened.run,
            ledger=ledger,
            estimate=CompletionEstimate(
                clearance=deadline,
                chunk_size=config.chunk_size,
                pause_between_requests=0.0 if limit is None else limit.per / limit.requests,
                expected=expected,
                clock=clock,
                updates_at_once=UPDATES_AT_ONCE,
            ),
            clearance=deadline,
            margin=passes.margin,
            clock=clock,
            warnings=warnings,
            only_sending=passes.all_decided,
            is_last=is_last,
            stop=passes.stop,
        )
        report = await pipeline.run()
        passes.all_decided, passes.all_sent = pipeline.all_decided, ledger.settled
        return report

    async def _too_late(
        self, event: CampaignReadyEvent, ledger: Ledger, left: float, warnings: Sequence[str]
    ) -> ReviewReport:
        """Return the report of earlier runs, when clearance has passed."""

        def replay() -> None:
            for batch in self._journal.journal.batches(event.key):
                ledger.restore(batch)

        await self._journal.call(replay)
        return ReviewReport(
            campaign_id=event.campaign_id,
            **ledger.counts(),
            abstained=ledger.abstained,
            not_reached=ledger.waiting,
            complete=False,
            finished_before_clearance=False,
            stopped=False,
            seconds_to_spare=left,
            error=DeadlineExceeded("Clearance has passed, so nothing was read and nothing sent.", request_sent=False),
            warnings=tuple(warnings),
        )

    async def _write_report(
        self, event: CampaignReadyEvent, opened: OpenReview, report: ReviewReport, stop: Stop, *, is_over: bool
    ) -> ReviewReport:
        """Write the report to the journal.

        Statuses may have been sent: a journal that fails now must neither lose the report nor delay it past clearance.
        """
        journal = self._journal.journal
        write = functools.partial(journal.finish if is_over else journal.keep_report, event.key, run=opened.run)
        # An incomplete review goes on: what it waits here, it lacks then.
        patience = report.seconds_to_spare if is_over else 0.0
        failed = await self._failure(lambda: write(report.to_json()), stop, patience=patience)
        if failed is None or (not is_over and not isinstance(failed, StoreError)):
            return report
        if isinstance(failed, StoreError):
            error = failed if is_over or report.error is None else report.error
            return dataclasses.replace(report, complete=False, finished_before_clearance=False, error=error)
        text = f"The journal raised {safe_text(failed)} when the review was over; a further run only writes that down."
        return dataclasses.replace(report, warnings=(*report.warnings, text))

    async def _failure(self, function: Callable[[], object], stop: Stop, *, patience: float = 0.0) -> Exception | None:
        """Call the journal, and return what the last try raised; an abandoned call that waits for a lock goes on.

        Args:
            function: The call.
            stop: Shortens it, but to a second at least.
            patience: Seconds to retry for.
        """
        tries = Deadline.after(min(max(0.0, patience), _LAST_TRIES_SECONDS))
        try:
            async with asyncio.timeout(max(_STOPPED_SECONDS, stop.at_most(max(_LAST_WORDS_SECONDS, patience)))):
                await self._journal.retry(function, until=tries)
        except Exception as error:  # noqa: BLE001 - an integrator's journal may raise anything
            return error
        return None


def _stopped(report: ReviewReport) -> ReviewReport:
    error = report.error or OptimoveError(STOPPED)
    return dataclasses.replace(report, stopped=True, error=error, warnings=(*report.warnings, STOPPED))


def _as_optimove_error(error: Exception) -> OptimoveError:
    return error if isinstance(error, OptimoveError) else OptimoveError(f"The journal raised {safe_text(error)}.")


def check_event(event: object) -> None:
    """Reject a value that is not a `CampaignReadyEvent`.

    Raises:
        ConfigurationError: It is not.
    """
    if not isinstance(event, CampaignReadyEvent):
        raise ConfigurationError(
            f"A review needs a CampaignReadyEvent, not a {type(event).__name__}: CampaignReadyEvent.from_json(body)."
        )


def publish(config: ReviewConfig, report: ReviewReport) -> None:
    """Call `on_report`; whatever it raises is logged."""
    if config.on_report is not None:
        notify("on_report", config.on_report, report, LOGGER)


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
