"""The pipeline of one pass of a review: concurrent stages that read, review, record, send and mark.

The order for every customer is: decide, record, send, mark. So a process may crash at any time: decisions are in the
journal, and a status that was not marked is sent again with the same value. A failing journal holds back only what it
does not hold yet; it is retried while there is time. A journal that reports that another run has taken over (see
`flows.journal.Journal`), or that is unusable, ends the pass at once. Locks and further passes are in `review.base`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final, Literal, TypeVar

from .. import operations
from ..deadline import Deadline, WallAwareClock
from ..errors import TOO_LARGE, APIError, DeadlineExceeded, OptimoveError, StoreError
from ..flows.completion_estimate import CompletionEstimate
from ..flows.effects import exception_name
from ..flows.journal import DecidedBatch, Ranges
from ..flows.ledger import Chunk, Ledger
from ..flows.paging import seconds_for_customers
from ..flows.report import Progress, ReviewReport
from ..flows.reviewer_answer import Batch, InvalidAnswer
from ..flows.status_updates import is_too_large
from ..models.events import CampaignReadyEvent
from ..observers import SafeLogger, notify
from ..transport.send import RequestCounter
from .config import ReviewConfig
from .journal_access import JournalAccess, safe_text
from .runtime import UPDATES_AT_ONCE, Runtime

R = TypeVar("R")

LOGGER: Final = SafeLogger("review")

_LOOK_SECONDS: Final = 0.25
"""Seconds between two checks of the progress and of the clocks."""

_STEP_SECONDS: Final = 2.0
"""Seconds of difference between the clocks that mean that the wall clock was set, or the machine suspended."""

_GATHERING_SECONDS: Final = 0.01
"""Seconds for which decisions are collected for one write to the journal: one large write is faster than many."""

_IDLE_SECONDS: Final = 1.0
"""Seconds without a new row after which an incomplete batch goes to the reviewer."""

_NOT_ALL_READ: Final = "Not all customers had been read when it was time to send what was decided."

_REPLAYED_AT_ONCE: Final = 20

_HANDING_OVER_SECONDS: Final = 0.5
"""Seconds of grace: a result returned at the deadline still has to reach the event loop, perhaps from a thread."""

_JOURNAL_SECONDS: Final = 1.0
"""Seconds that an update waits for a slow journal to check the run, or to mark the update before."""

_LAST_MARKS_SECONDS: Final = 15.0
"""Seconds that a pass that has sent everything waits for a journal that cannot mark it: longer than a backup locks."""


@dataclass(eq=False, kw_only=True)
class Pipeline:
    """Runs one pass of a review.

    Attributes:
        config: The review's settings.
        event: The campaign.
        runtime: Calls the client and the reviewer.
        journal: Calls the journal.
        run_number: The number of this run in the journal.
        ledger: Counters and queues.
        estimate: Estimates when the pass will be complete.
        clearance: The deadline for statuses.
        clock: The clock of `clearance`.
        margin: Seconds before clearance from which the reviewer is not called any more.
        warnings: Warnings about the event and the pass.
        only_sending: Whether an earlier pass has read and decided about all customers.
    """

    config: ReviewConfig
    event: CampaignReadyEvent
    runtime: Runtime
    journal: JournalAccess
    run_number: int
    ledger: Ledger
    estimate: CompletionEstimate
    clearance: Deadline
    clock: WallAwareClock
    margin: float
    warnings: list[str]
    only_sending: bool

    def __post_init__(self) -> None:
        """Prepare a pass."""
        self._ask_until = self.clearance.earlier_by(self.margin)
        # A failing journal is retried until then, so that there is time to send what it holds.
        self._record_until = self.clearance.earlier_by(self.margin / 2)
        # A result returned at the deadline must still be counted; a tenth of the time, when there is little.
        self._answer_until = self._ask_until.earlier_by(min(_HANDING_OVER_SECONDS, self._ask_until.remaining() / 10))
        journal, key, run = self.journal.journal, self.event.key, self.run_number
        self._record = functools.partial(journal.record, key, run=run)
        self._acknowledge = functools.partial(journal.acknowledge, key, run=run)
        self._acknowledged = functools.partial(journal.acknowledged, key, run=run)
        self._requests = RequestCounter()
        self._all_read = False
        self._error: OptimoveError | None = None
        self._behind = False
        self._stepped = False
        self._replayed = asyncio.Event()
        self._failures: Counter[tuple[str, str]] = Counter()  # by unit and reason
        self._batches: asyncio.Queue[Batch | None] = asyncio.Queue(self.config.concurrency)
        self._decided: asyncio.Queue[DecidedBatch | None] = asyncio.Queue(8 * self.config.concurrency)
        self._chunks: asyncio.Queue[Chunk | None] = asyncio.Queue(1)
        self._sent: asyncio.Queue[Chunk] = asyncio.Queue()
        self._journal_error: Exception | None = None
        self._checking: asyncio.Future[Ranges] | None = None

    async def run(self) -> ReviewReport:
        """Run the pass until it is complete or clearance comes."""
        asking = asyncio.ensure_future(self._run_reviewer())
        ending = asyncio.ensure_future(self._end(asking))
        recording = asyncio.ensure_future(self._record_batches())
        marking = asyncio.ensure_future(self._mark_updates())
        sending = asyncio.ensure_future(self._send_updates(marking))
        watching = asyncio.ensure_future(self._watch())
        stages = (asking, ending, recording, sending, marking)
        open_stages: set[asyncio.Future[None]] = set(stages)
        try:
            # Polling, since clearance can come earlier than a single wait would end: see `WallAwareClock`.
            while open_stages and not self.clearance.expired:
                over, open_stages = await asyncio.wait(
                    open_stages, timeout=self._until(self.clearance), return_when=asyncio.FIRST_EXCEPTION
                )
                if any(not stage.cancelled() and stage.exception() is not None for stage in over):
                    break
        finally:
            for task in (*stages, watching):
                task.cancel()
            if self._checking is not None:
                self._checking.cancel()
            outcomes = await asyncio.gather(*stages, watching, return_exceptions=True)
        for outcome in outcomes[:-1]:
            if isinstance(outcome, Exception):
                self._stop(outcome)
        self._publish_progress()
        return self._report()

    @property
    def all_decided(self) -> bool:
        """Whether every customer has been read, and the journal holds a decision for each."""
        ledger = self.ledger
        return self._all_read and not ledger.waiting and not ledger.failed

    @staticmethod
    def _until(deadline: Deadline) -> float:
        return min(deadline.remaining(), _LOOK_SECONDS)

    async def _run_reviewer(self) -> None:
        await self._replay()
        self._replayed.set()
        if self.only_sending:
            self._all_read = True
            return
        if self._ask_until.expired:
            self._record_error(DeadlineExceeded(_NOT_ALL_READ, request_sent=False))
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            for _ in range(self.config.concurrency):
                group.create_task(self._review_batches())

    async def _replay(self) -> None:
        """Restore what an earlier run decided, and queue what Optimove has not acknowledged."""
        replayed = 0
        batches: Iterator[DecidedBatch] | None = None

        def some_more() -> list[DecidedBatch]:
            nonlocal batches
            if batches is None:
                batches = islice(self.journal.journal.batches(self.event.key), replayed, None)
            try:
                return list(islice(batches, _REPLAYED_AT_ONCE))
            except BaseException:
                batches = None  # a generator that has raised is exhausted
                raise

        while some := await self._retry(self._ask_until, some_more):
            replayed += len(some)
            for batch in some:
                self.ledger.restore(batch)
            await self._queue_updates()

    async def _read(self) -> None:
        customers = self.runtime.customers(
            self.event.campaign_id,
            customer_attributes=self.config.customer_attributes,
            page_size=self.config.page_size,
            deadline=self._ask_until,
            counter=self._requests,
            wait_for_customers=seconds_for_customers(self.clearance.remaining(), until=self._ask_until.remaining()),
            on_warning=self._warn,
        )
        flushing = asyncio.ensure_future(self._flush_when_idle())
        try:
            async with contextlib.aclosing(customers) as blocks:
                async for block in blocks:
                    self.ledger.add_rows(block)
                    block.clear()
                    while (batch := self.ledger.next_batch(self.config.batch_size)) is not None:
                        await self._batches.put(batch)
            self._all_read = True
        except OptimoveError as error:
            self._record_error(error)
        finally:
            flushing.cancel()
        if (batch := self.ledger.next_batch(self.config.batch_size, flush=True)) is not None:
            await self._batches.put(batch)
        for _ in range(self.config.concurrency):
            await self._batches.put(None)

    async def _flush_when_idle(self) -> None:
        """Queue an incomplete batch for the reviewer while the next page is slow: it may never arrive."""
        while True:
            rows = self.ledger.rows
            await asyncio.sleep(_IDLE_SECONDS)
            if self.ledger.rows == rows and not self._batches.full():
                batch = self.ledger.next_batch(self.config.batch_size, flush=True)
                if batch is not None:
                    self._batches.put_nowait(batch)

    async def _review_batches(self) -> None:
        while (batch := await self._batches.get()) is not None:
            if self._answer_until.expired:
                continue
            self.estimate.first_batch()
            try:
                answer = await self.runtime.ask(batch, self._answer_until, at_last=self._ask_until)
            except Exception as error:  # noqa: BLE001 - a reviewer may raise anything
                # Late: no customer of the batch counts as reached.
                if not (isinstance(error, TimeoutError) and self._answer_until.expired):
                    self.ledger.mark_failed(batch)
                    # The exception's message may hold personal data; the SDK's own says what to do.
                    is_invalid = isinstance(error, InvalidAnswer)
                    self._count_failure(
                        "batches", str(error) if is_invalid else f"The reviewer raised {exception_name(error)}."
                    )
            else:
                for reason, count in answer.reasons.items():
                    self._count_failure("customers", reason, count)
                if answer.unknown_ids and not self.ledger.unknown_ids:  # logged once; the report has the total
                    LOGGER.warning(
                        "campaign %d: the reviewer returned %d ids that are not in its batch of %d; not sent",
                        self.event.campaign_id,
                        answer.unknown_ids,
                        len(batch.ids),
                    )
                await self._decided.put(self.ledger.apply(batch, answer))
            del batch  # so that it is not kept alive while waiting for the next one

    def _count_failure(self, unit: Literal["batches", "customers"], reason: str, count: int = 1) -> None:
        """Count what failed, and log each reason once; it quotes no customer's data."""
        if (unit, reason) not in self._failures:
            LOGGER.error("campaign %d: %s failed: %s", self.event.campaign_id, unit, reason)
        self._failures[unit, reason] += count

    async def _end(self, asking: asyncio.Future[None]) -> None:
        """End the later stages when reviewing has ended, or its time is up, and earlier decisions have been queued."""
        await self._replayed.wait()
        while not asking.done() and not self._ask_until.expired:
            await asyncio.wait((asking,), timeout=self._until(self._ask_until))
        if not asking.done():
            asking.cancel()
            await asyncio.wait((asking,))
            if not self._all_read:
                self._record_error(DeadlineExceeded(_NOT_ALL_READ))
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
            batches = [batch for batch in group if batch is not None and (batch.approved or batch.denied)]
            if batches and writable:
                writable = await self._write(batches)
                if writable:
                    self.ledger.mark_recorded(batches)
                    await self._queue_updates()
        await self._queue_updates(flush=True)
        await self._chunks.put(None)

    async def _write(self, batches: list[DecidedBatch]) -> bool:
        """Record batches. After a failure it is unknown whether they were written, so no more may be recorded."""
        self._journal_error = None
        in_time = asyncio.timeout(self._record_until.remaining())
        try:
            async with in_time:
                await self._retry(self._record_until, self._record, batches)
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

    async def _retry(self, until: Deadline, function: Callable[..., R], *arguments: object) -> R:
        """Call the journal, with retries."""
        return await self.journal.retry(function, *arguments, until=until, on_error=self._journal_failed)

    def _journal_failed(self, error: Exception) -> None:
        self._journal_error = error
        text = f"The journal raised {safe_text(error)}; it was tried again."
        LOGGER.error("campaign %d: %s", self.event.campaign_id, text)
        if text not in self.warnings:
            self.warnings.append(text)

    async def _queue_updates(self, *, flush: bool = False) -> None:
        while (chunk := self.ledger.next_chunk(flush=flush)) is not None:
            await self._chunks.put(chunk)

    async def _send_updates(self, marking: asyncio.Future[None]) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(UPDATES_AT_ONCE):
                group.create_task(self._send_chunks())
        await self._wait_for_marks(marking)

    async def _send_chunks(self) -> None:
        while (chunk := await self._chunks.get()) is not None:
            await self._send_chunk(chunk)
        self._chunks.put_nowait(None)  # for the next sender task

    async def _send_chunk(self, chunk: Chunk) -> bool:
        """Send an update, in halves when it is too large; return whether the next update is worth a try."""
        await self._check_run()
        self._look_at_clock()
        if self.clearance.expired:
            self._record_error(DeadlineExceeded("Clearance came before all statuses were sent.", request_sent=False))
            return False
        begun = self.estimate.seconds()
        operation = operations.update_customer_promotion_status(
            self.event.campaign_id, chunk.statuses, timestamp=self.config.local_time()
        )
        counter = RequestCounter()
        try:
            await self.runtime.send(operation, self.clearance, counter)
        except OptimoveError as error:
            if is_too_large(error, len(chunk.statuses)):
                first, second = chunk.halves()
                if not await self._send_chunk(first):
                    return False
                self.ledger.cut_smaller(len(first.statuses))
                return await self._send_chunk(second)
            self._record_error(error)
            return not (isinstance(error, APIError) and error.status == TOO_LARGE)
        finally:
            self._requests.calls += counter.calls
            self._requests.requests += counter.requests
        self.ledger.mark_acknowledged(chunk)
        self.estimate.update_sent(self.estimate.seconds() - begun)
        await self._hand_to_mark(chunk)
        return True

    async def _check_run(self) -> None:
        """Stop if another run has taken over; see `Journal`.

        A journal that cannot answer now does not delay what it already holds: every run would send the same.
        """
        checking = self._checking
        if checking is None or checking.done():
            self._checking = checking = asyncio.ensure_future(self.journal.call(self._acknowledged))
        await asyncio.wait((checking,), timeout=_JOURNAL_SECONDS)
        error = checking.exception() if checking.done() else None
        if isinstance(error, StoreError):
            raise error

    async def _hand_to_mark(self, chunk: Chunk) -> None:
        """Queue an update to be marked, and wait for that before the next one is sent, unless the journal is slow."""
        is_behind = not self._sent.empty()
        self._sent.put_nowait(chunk)
        if not is_behind:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_JOURNAL_SECONDS):
                    await self._sent.join()

    async def _mark_updates(self) -> None:
        """Mark acknowledged updates in the journal, until cancelled."""
        while True:
            chunk = await self._sent.get()
            await self._retry(self.clearance, self._acknowledge, chunk.ranges)
            self._sent.task_done()

    async def _wait_for_marks(self, marking: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(_LAST_MARKS_SECONDS):
                await self._sent.join()
        except TimeoutError:
            text = "The journal could not mark all that was sent; a further run sends it again, with the same answers."
            self._record_error(OptimoveError(text))
        marking.cancel()

    async def _watch(self) -> None:
        while True:
            self._look_at_clock()
            self._publish_progress()
            await asyncio.sleep(_LOOK_SECONDS)

    def _look_at_clock(self) -> None:
        step = self.clock.step()
        if not self._stepped and abs(step) >= _STEP_SECONDS:
            self._stepped = True
            self._warn(
                f"The wall clock has moved {'forward' if step > 0 else 'back'} by {abs(step):.0f} s more than the "
                "monotonic one since the review began: it was set, or the machine was suspended. Clearance has come as "
                "soon as one of the two says so."
            )

    def _warn(self, text: str) -> None:
        self.warnings.append(text)
        LOGGER.warning("campaign %d: %s", self.event.campaign_id, text)

    def _publish_progress(self) -> None:
        progress = self._progress()
        if progress.behind and not self._behind:
            self._behind = True
            self._warn(
                f"The work that is known cannot be done before clearance: {progress.seconds_left:.0f} s are left, and "
                f"{-(progress.slack or 0.0):.0f} s more are needed at {progress.rate:.0f} customers a second."
            )
        if self.config.progress is not None:
            notify("progress", self.config.progress, progress, LOGGER)

    def _progress(self) -> Progress:
        ledger, estimate = self.ledger, self.estimate
        return Progress(
            campaign_id=self.event.campaign_id,
            **ledger.counts(),
            all_read=self._all_read,
            rate=estimate.rate(ledger.answered),
            seconds=estimate.seconds(),
            seconds_left=self.clearance.remaining(),
            slack=estimate.slack(reviewed=ledger.answered, waiting=ledger.waiting, unsent=ledger.unsent),
        )

    def _record_error(self, error: OptimoveError) -> None:
        LOGGER.error("campaign %d: %s", self.event.campaign_id, error)
        self._error = self._error or error

    def _stop(self, error: Exception) -> None:
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
        if not complete and not in_time and self._error is None:
            self._error = DeadlineExceeded("Clearance came before the review was complete.")
        if ledger.unknown_ids:
            self._warn(f"The reviewer returned {ledger.unknown_ids} ids that were not in its batch; not sent.")
        failed = (f"{count} {unit} failed: {reason}" for (unit, reason), count in self._failures.items())
        return ReviewReport(
            campaign_id=self.event.campaign_id,
            **ledger.counts(),
            not_reached=ledger.waiting,
            repeated_rows=ledger.repeated_rows,
            control_group_rows=ledger.control_group_rows,
            chunks=ledger.chunks,
            retries=self._requests.requests - self._requests.calls,
            seconds=self.estimate.seconds(),
            seconds_to_spare=self.estimate.seconds_to_spare(),
            complete=complete,
            finished_before_clearance=complete and in_time,
            error=self._error,
            warnings=(*self.warnings, *failed),
        )
