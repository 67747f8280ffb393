"""The pipeline of one pass of a review: concurrent stages that read, review and record; then it sends and marks.

The order for every customer is: decide, log, record, release, send, mark. So a process may crash at any time: decisions
are in the journal, and a status that was not marked is sent again with the same value. Since a later row of a customer
can still say no, nothing is released before the last page has been read, or the safety margin has come. A failing
journal holds back only what it does not hold yet; it is retried while there is time. A journal that reports that
another run has taken over (see `flows.journal.Journal`), or that is unusable, ends the pass. `review.base` has locks.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final

from ..deadline import Deadline, WallAwareClock
from ..errors import DeadlineExceeded, HeldBackError, OptimoveError, StoreError
from ..flows.journal import DecidedBatch
from ..flows.ledger import Answered, Ledger
from ..flows.paging import UnreadableRows, seconds_for_customers
from ..flows.report import CompletionEstimate, Progress, ReviewReport
from ..flows.review_log import Decided, RunRecords
from ..flows.reviewer_answer import BatchResult
from ..models.events import CampaignReadyEvent
from ..observers import notify
from .asking import HANDING_OVER_SECONDS, Asking
from .config import LOGGER, ReviewConfig
from .journal_access import JournalAccess, RunJournal, safe_text
from .run_log import ReviewLog, RunLog
from .runtime import Runtime
from .timing import STOPPED, AdvancingClock, Stop
from .updates import Updates

_LOOK_SECONDS: Final = 0.25
"""Seconds between two checks of the progress and of the clocks."""

_GATHERING_SECONDS: Final = 0.01
"""Seconds for which decisions are collected for one write to the journal: one large write is faster than many."""

_IDLE_SECONDS: Final = 1.0
"""Seconds without a new row after which an incomplete batch goes to the reviewer."""

_NOT_ALL_READ: Final = "Not all customers had been read when it was time to send what was decided."

_NEAR_SECONDS: Final = 30.0
"""If reading has failed for good so shortly before the safety margin, the last pass waits, to send what is decided."""


@dataclass(eq=False, kw_only=True)
class Pipeline:
    """Runs one pass of a review.

    Attributes:
        config: The review's settings.
        event: The campaign.
        runtime: Calls the client and the reviewer.
        journal: Calls the journal.
        log: The decision log; None without one.
        run_number: The number of this run in the journal.
        ledger: Counters and queues.
        estimate: Estimates when the pass will be complete.
        clearance: The deadline for statuses.
        clock: The clock of `clearance`.
        margin: Seconds before clearance from which the reviewer is not called any more.
        warnings: Warnings about the event and the pass.
        only_sending: Whether an earlier pass has read and decided about all customers.
        is_last: Whether no further pass follows by itself.
        stop: Whether it is to stop.
    """

    config: ReviewConfig
    event: CampaignReadyEvent
    runtime: Runtime
    journal: JournalAccess
    log: ReviewLog | None
    run_number: int
    ledger: Ledger
    estimate: CompletionEstimate
    clearance: Deadline
    clock: WallAwareClock
    margin: float
    warnings: list[str]
    only_sending: bool
    is_last: bool
    stop: Stop

    def __post_init__(self) -> None:
        """Prepare a pass."""
        self._margin_begins = self.clearance.earlier_by(self.margin)
        # A stop moves these clocks ahead; the reviewer has a deadline on the first.
        self._asking_clock, self._sending_clock = AdvancingClock(self.clock), AdvancingClock(self.clock)
        self._ask_until = Deadline.after(self._margin_begins.remaining(), clock=self._asking_clock)
        self._send_until = Deadline.after(self.clearance.remaining(), clock=self._sending_clock)
        self._stopping = asyncio.Event()
        self._stop_error: OptimoveError | None = None
        # A failing journal is retried until then, so that there is time to send what it holds.
        self._record_until = self.clearance.earlier_by(self.margin / 2)
        # A result returned at the deadline must still be counted; a tenth of the time, when there is little.
        grace = min(HANDING_OVER_SECONDS, self._ask_until.remaining() / 10)
        self._answer_until = self._ask_until.earlier_by(grace)
        self._journal = RunJournal(self.journal, self.event.key, self.run_number, self._journal_failed)
        self._all_read = self._last_page_read = False
        self._error: OptimoveError | None = None
        self._behind = False
        self._stepped = False
        self._replayed = asyncio.Event()
        self._decided: asyncio.Queue[Answered | DecidedBatch | None] = asyncio.Queue(8 * self.config.concurrency)
        self._journal_error: Exception | None = None
        self._log: RunLog | None = None
        if self.log is not None:
            self._log = RunLog(
                shared=self.log,
                records=RunRecords(event=self.event, run=self.run_number, wall_clock=self.config.wall_clock),
                record_until=self._record_until,
                on_error=self._record_error,
                on_warning=self._warn,
            )
        self._asking = Asking(
            self.config,
            self.runtime,
            campaign_id=self.event.campaign_id,
            answer_until=self._answer_until,
            ask_until=self._ask_until,
            on_answer=self._decided.put,
            on_asked=self.estimate.first_batch,
            keep_payloads=self.log is not None and self.log.keep_payloads,
        )
        self._updates = Updates(
            self.config,
            self.runtime,
            self.ledger,
            self._journal,
            campaign_id=self.event.campaign_id,
            clearance=self._send_until,
            estimate=self.estimate,
            log=self._log,
            look_at_clock=self._look_at_clock,
            on_error=self._record_error,
        )

    async def run(self) -> ReviewReport:
        """Run the pass until it is complete or clearance comes."""
        asking = asyncio.ensure_future(self._run_reviewer())
        ending = asyncio.ensure_future(self._end(asking))
        recording = asyncio.ensure_future(self._record_batches())
        marking = asyncio.ensure_future(self._updates.mark())
        sending = asyncio.ensure_future(self._updates.send(marking))
        watching = asyncio.ensure_future(self._watch())
        if self._log is not None:
            self._log.start()
        stages = (asking, ending, recording, sending, marking)
        open_stages: set[asyncio.Future[None]] = set(stages)
        try:
            # Polling, since clearance can come earlier than a single wait would end: see `WallAwareClock`.
            while open_stages and not self._send_until.expired:
                over, open_stages = await asyncio.wait(
                    open_stages, timeout=_look_until(self._send_until), return_when=asyncio.FIRST_EXCEPTION
                )
                if any(not stage.cancelled() and stage.exception() is not None for stage in over):
                    break
        except BaseException:
            if self._log is not None:
                self._log.close()
            raise
        finally:
            for task in (*stages, watching):
                task.cancel()
            self._updates.cancel()
            self._asking.close()
            outcomes = await asyncio.gather(*stages, watching, return_exceptions=True)
        for outcome in outcomes[:-1]:
            if isinstance(outcome, Exception):
                self._fail(outcome)
        if self._log is not None:
            # An incomplete review goes on: what it waits here, it lacks then, and the next pass writes them again.
            is_last = self.all_decided and self.ledger.settled
            await self._log.finish(self.ledger.revoked(), patience=self.clearance.remaining() if is_last else 0.0)
        self._publish_progress()
        return self._report()

    @property
    def all_decided(self) -> bool:
        """Whether every customer has been read, and the journal holds a decision for each."""
        ledger = self.ledger
        return self._all_read and not ledger.waiting and not ledger.failed

    async def _run_reviewer(self) -> None:
        await self._journal.replay(self.ledger.restore, until=self._ask_until)
        if self._log is not None:  # a crash may have kept it out of the log
            self._log.complete(self.ledger.acknowledged_before, "acknowledged", taken=True)
        self.ledger.send_released()
        self._updates.go_on()
        self._replayed.set()
        if self.only_sending:
            self._all_read = self._last_page_read = True
            return
        if self._stopping.is_set():
            return
        if self._ask_until.expired:
            self._record_error(DeadlineExceeded(_NOT_ALL_READ, request_sent=False))
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            for _ in range(self.config.concurrency):
                group.create_task(self._asking.work(group))

    async def _read(self) -> None:
        reading = asyncio.ensure_future(self._read_rows())
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if not reading.done():
                reading.cancel()
                await asyncio.wait((reading,))
        if not reading.cancelled():
            reading.result()
        if (batch := self.ledger.next_batch(self.config.batch_size, flush=True)) is not None:
            await self._asking.put(batch)
        await self._asking.end()

    async def _read_rows(self) -> None:
        customers = self.runtime.customers(
            self.event.campaign_id,
            customer_attributes=self.config.customer_attributes,
            page_size=self.config.page_size,
            deadline=self._ask_until,
            counter=self._updates.requests,
            wait_for_customers=seconds_for_customers(self.clearance.remaining(), until=self._ask_until.remaining()),
            on_warning=self._warn,
        )
        flushing = asyncio.ensure_future(self._flush_when_idle())
        try:
            async with contextlib.aclosing(customers) as blocks:
                async for block in blocks:
                    skipped = self.ledger.add_rows(block)
                    block.clear()
                    if skipped is not None:
                        await self._decided.put(skipped)
                    while (batch := self.ledger.next_batch(self.config.batch_size)) is not None:
                        await self._asking.put(batch)
            self._all_read = self._last_page_read = True
        except OptimoveError as error:
            self._last_page_read = isinstance(error, UnreadableRows)
            self._record_error(error)
        finally:
            flushing.cancel()

    async def _flush_when_idle(self) -> None:
        """Queue an incomplete batch for the reviewer while the next page is slow: it may never arrive."""
        while True:
            rows = self.ledger.rows
            await asyncio.sleep(_IDLE_SECONDS)
            if self.ledger.rows == rows and not self._asking.is_full:
                batch = self.ledger.next_batch(self.config.batch_size, flush=True)
                if batch is not None:
                    await self._asking.put(batch)

    async def _end(self, asking: asyncio.Future[None]) -> None:
        """End recording when reviewing has ended, or its time is up, and earlier decisions have been restored."""
        await self._replayed.wait()
        while not asking.done() and not self._ask_until.expired:
            await asyncio.wait((asking,), timeout=_look_until(self._ask_until))
        if not asking.done():
            asking.cancel()
            await asyncio.wait((asking,))
            if not self._all_read and not self._stopping.is_set():
                self._record_error(DeadlineExceeded(_NOT_ALL_READ))
        self._asking.count_failures()
        for answered in self._asking.unanswered():
            await self._decided.put(answered)
        while (batch := self.ledger.next_batch(self.config.batch_size, flush=True)) is not None:
            not_reached = BatchResult(frozenset(), not_reached=frozenset(batch.asked.ids))
            await self._decided.put(Answered(batch.asked, not_reached))
        is_near = self.ledger.rows > 0 and self._ask_until.remaining() <= _NEAR_SECONDS
        if self.is_last and is_near and not self._last_page_read:
            while not self._ask_until.expired and not self._stopping.is_set():
                await asyncio.sleep(_look_until(self._ask_until))
        await self._decided.put(None)

    async def _record_batches(self) -> None:
        closing, writable = False, True
        while not closing:
            group = [await self._decided.get()]
            if group != [None]:
                await asyncio.sleep(_GATHERING_SECONDS)
            while not self._decided.empty():
                group.append(self._decided.get_nowait())
            closing = None in group
            decided = [
                Decided(self.ledger.decide(each), each.result) if isinstance(each, Answered) else Decided(each)
                for each in group
                if each is not None
            ]
            if decided:
                writable = writable and await self._write(decided)
                if not writable:
                    self.ledger.take_back([each.batch for each in decided])
        if self._last_page_read or self._margin_begins.expired:
            await self._release(writable=writable)
        elif unreleased := self.ledger.unreleased:
            self._warn(
                f"{unreleased} approvals were not sent by this run, since pages are missing whose rows could still say "
                "no. The next run reads them; from the safety margin on it sends what it has."
            )
        self._updates.go_on(is_last=True)

    async def _release(self, *, writable: bool) -> None:
        """Record that sending begins, and queue what is to be sent."""
        unreleased = self.ledger.unreleased
        if unreleased:
            released = writable and await self._write([Decided(DecidedBatch(released=self.run_number))])
            # A later run that does not know of the release could deny, and report, who is approved now. It does not
            # when it reads the same rows, or reports no denials.
            if not released and not self._last_page_read and self.config.report_denied:
                return
            if not self._last_page_read:
                self._warn(
                    f"{unreleased} approvals are sent though pages are missing, since the safety margin has come: a "
                    "further row of these customers could have said no."
                )
        self.ledger.send_all()

    async def _write(self, decided: list[Decided]) -> bool:
        """Record batches. After a failure it is unknown whether they were written, so no more may be recorded."""
        batches = [each.batch for each in decided]
        recorded = False
        try:
            if self._log is None or await self._log.record(decided, *self.ledger.next_numbers):
                recorded = await self._write_journal(batches)
        finally:
            if recorded:
                self.ledger.mark_recorded(batches)
            else:
                self.ledger.take_back(batches)
        return recorded

    async def _write_journal(self, batches: list[DecidedBatch]) -> bool:
        self._journal_error = None
        in_time = asyncio.timeout(self._record_until.remaining())
        try:
            async with in_time:
                await self._journal.record(batches, until=self._record_until)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - a journal may raise anything
            raised = self._journal_error or error if in_time.expired() else error
            if in_time.expired() and raised is error:
                self._record_error(DeadlineExceeded("The journal did not finish in time to send what it holds."))
            else:
                cause = OptimoveError(f"Decisions that the journal refused are not sent: it raised {safe_text(raised)}")
                self._record_error(cause)
                if isinstance(self._error, DeadlineExceeded):  # the customers who had to wait for it were too late
                    self._error = cause
            return False
        return True

    def _journal_failed(self, error: Exception) -> None:
        self._journal_error = error
        text = f"The journal raised {safe_text(error)}; it was tried again."
        LOGGER.error("campaign %d: %s", self.event.campaign_id, text)
        if text not in self.warnings:
            self.warnings.append(text)

    async def _watch(self) -> None:
        while True:
            if self.stop.until is not None and not self._stopping.is_set():
                self._begin_to_stop(self.stop.until.remaining())
            self._look_at_clock()
            self._publish_progress()
            await asyncio.sleep(_LOOK_SECONDS)

    def _begin_to_stop(self, left: float) -> None:
        """Ask about no further batch; calls that run get half of the time that is left, the report a tenth."""
        LOGGER.warning("campaign %d: stopping within %.1f s", self.event.campaign_id, left)
        self._stop_error = self._error or OptimoveError(STOPPED)
        self._asking_clock.bring(self._ask_until, left * 0.5)
        self._record_until = min(self._record_until, Deadline.after(left * 0.7), key=Deadline.remaining)
        self._sending_clock.bring(self._send_until, left * 0.9)
        self._asking.stop()
        self._stopping.set()

    def _look_at_clock(self) -> None:
        if not self._stepped and (moved := self.clock.step_warning()):
            self._stepped = True
            self._warn(moved)

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        LOGGER.warning("campaign %d: %s", self.event.campaign_id, text)

    def _publish_progress(self) -> None:
        ledger, estimate = self.ledger, self.estimate
        progress = Progress(
            campaign_id=self.event.campaign_id,
            **ledger.counts(),
            all_read=self._all_read,
            rate=estimate.rate(ledger.answered),
            seconds=estimate.seconds(),
            seconds_left=self.clearance.remaining(),
            slack=estimate.slack(reviewed=ledger.answered, waiting=ledger.waiting, unsent=ledger.unsent),
        )
        if progress.behind and not self._behind:
            self._behind = True
            self._warn(
                f"The work that is known cannot be done before clearance: {progress.seconds_left:.0f} s are left, and "
                f"{-(progress.slack or 0.0):.0f} s more are needed at {progress.rate:.0f} customers a second."
            )
        if self.config.progress is not None:
            notify("progress", self.config.progress, progress, LOGGER)

    def _record_error(self, error: OptimoveError) -> None:
        if self._stopping.is_set() and isinstance(error, DeadlineExceeded):
            return  # it is the stop's time that is up
        LOGGER.error("campaign %d: %s", self.event.campaign_id, error)
        if self._error is None or (isinstance(error, HeldBackError) and error.request_sent is not False):
            self._error = error  # of those held back, the one that may have been sent counts

    def _fail(self, error: Exception) -> None:
        if isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        if not isinstance(error, OptimoveError):
            error = OptimoveError(f"The review stopped, and nothing more is sent: {safe_text(error)}")
        self._record_error(error)

    def _report(self) -> ReviewReport:
        ledger = self.ledger
        self._look_at_clock()
        in_time = not self.clearance.expired
        complete = self.all_decided and self._error is None and ledger.settled
        stopped = not complete and self._stop_error is not None
        if stopped and not isinstance(self._error, StoreError):
            if self._error not in (None, self._stop_error):
                self.warnings.append(str(self._error))
            self._error = self._stop_error
        elif not complete and not in_time and self._error is None:
            self._error = DeadlineExceeded("Clearance came before the review was complete.")
        if unknown := self._asking.unknown_ids:
            self._warn(f"The reviewer returned {unknown} ids that were not in its batch; not sent.")
        for text in ledger.warnings():
            self._warn(text)
        failed = (f"{count} {unit} failed: {reason}" for (unit, reason), count in self._asking.failed.items())
        return ReviewReport(
            campaign_id=self.event.campaign_id,
            **ledger.counts(),
            abstained=ledger.abstained,
            not_reached=ledger.waiting,
            repeated_rows=ledger.repeated_rows,
            control_group_rows=ledger.control_group_rows,
            chunks=ledger.chunks,
            retries=self._updates.requests.requests - self._updates.requests.calls,
            seconds=self.estimate.seconds(),
            seconds_to_spare=self.estimate.seconds_to_spare(),
            complete=complete,
            finished_before_clearance=complete and in_time,
            error=self._error,
            warnings=(*self.warnings, *failed),
            stopped=stopped,
            **self.runtime.findings(),
        )


def _look_until(deadline: Deadline) -> float:
    return min(deadline.remaining(), _LOOK_SECONDS)
