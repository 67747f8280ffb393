"""One run of a review: reading, asking, recording and sending at the same time, the slowest setting the pace.

The order for every customer is: decide, record, send, mark. So a process may die at any moment: what was decided stands
in the journal, and what was not marked is sent again with the same answer. A journal that fails holds back what it does
not hold yet, and nothing else; it is tried again while there is time. One that says that another run has taken over
(see `flows.journal.Journal`), or that cannot be relied on any more, ends the run at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar, final

from optimove_conditional_execution import operations
from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import TOO_LARGE, APIError, DeadlineExceeded, OptimoveError, StoreError
from optimove_conditional_execution.flows.effects import name_of
from optimove_conditional_execution.flows.failures import Failures, Unit
from optimove_conditional_execution.flows.journal import Decided, Journal
from optimove_conditional_execution.flows.ledger import Chunk, Ledger
from optimove_conditional_execution.flows.paging import seconds_for_customers
from optimove_conditional_execution.flows.planner import Planner
from optimove_conditional_execution.flows.report import Progress, ReviewReport
from optimove_conditional_execution.flows.statuses import is_too_large
from optimove_conditional_execution.flows.verdicts import Batch, OddAnswer
from optimove_conditional_execution.observers import SafeLogger, notify
from optimove_conditional_execution.review.plan import Plan
from optimove_conditional_execution.review.sides import UPDATES_AT_ONCE, PageRequest, Side
from optimove_conditional_execution.review.turn import Turn, insistently, words
from optimove_conditional_execution.transport.send import Tally

R = TypeVar("R")

LOGGER: Final = SafeLogger("review")

_LOOK_SECONDS: Final = 0.25
"""Between two looks at how far the review is, and at the clocks."""

_STEP_SECONDS: Final = 2.0
"""The wall clock has been set, or the machine suspended, when it is so far from where the monotonic one expects it."""

_GATHERING_SECONDS: Final = 0.01
"""What is decided in this time is written to the journal together: a disk takes one large write sooner than many."""

_IDLE_SECONDS: Final = 1.0
"""When no row has come for so long, a batch that is not full goes to the reviewer."""

_NOT_ALL_READ: Final = "The customers had not all come when it was time to send what was decided."

_REPLAYED_AT_ONCE: Final = 20

_HANDING_OVER_SECONDS: Final = 0.5
"""What a reviewer returns at its deadline still has to come here, from another thread perhaps."""

_JOURNAL_SECONDS: Final = 1.0
"""How long an update waits for a journal that is slow to say whose run it is, or to mark the update before."""

_LAST_MARKS_SECONDS: Final = 15.0
"""How long a run that has sent everything waits for a journal that cannot mark it: longer than a backup locks it."""


@final
class Pipeline:
    """Runs a review once."""

    def __init__(
        self,
        plan: Plan,
        *,
        side: Side,
        journal: Journal,
        turn: Turn,
        ledger: Ledger,
        planner: Planner,
        warnings: Sequence[str],
    ) -> None:
        self._plan = plan
        self._key = plan.event.key
        self._side = side
        self._journal = journal
        self._turn = turn
        self._ledger = ledger
        self._planner = planner
        self._tally = Tally()
        self._all_read = False
        self._error: OptimoveError | None = None
        self._warnings = list(warnings)
        self._behind = False
        self._stepped = False
        self._replayed = asyncio.Event()
        self._failures = Failures()
        # What is decided at the last moment must not be lost on its way; a tenth, when there is little time.
        self._answering = plan.asking.earlier_by(min(_HANDING_OVER_SECONDS, plan.asking.remaining() / 10))
        self._batches: asyncio.Queue[Batch | None] = asyncio.Queue(plan.concurrency)
        self._decided: asyncio.Queue[Decided | None] = asyncio.Queue(8 * plan.concurrency)
        self._chunks: asyncio.Queue[Chunk | None] = asyncio.Queue(1)
        self._sent: asyncio.Queue[Chunk] = asyncio.Queue()
        self._refused: Exception | None = None
        self._checking: asyncio.Future[list[tuple[int, int]]] | None = None

    async def run(self) -> ReviewReport:
        """Run it to its end or to clearance, whichever is first."""
        asking = asyncio.ensure_future(self._ask())
        ending = asyncio.ensure_future(self._end(asking))
        recording = asyncio.ensure_future(self._record())
        marking = asyncio.ensure_future(self._mark())
        sending = asyncio.ensure_future(self._send(marking))
        watching = asyncio.ensure_future(self._watch())
        stages = (asking, ending, recording, sending, marking)
        open_stages: set[asyncio.Future[None]] = set(stages)
        try:
            # Looking again and again, since clearance can come sooner than it seemed: see `WallAwareClock`.
            while open_stages and not self._plan.clearance.expired:
                over, open_stages = await asyncio.wait(
                    open_stages, timeout=self._until(self._plan.clearance), return_when=asyncio.FIRST_EXCEPTION
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
                self._fail(outcome)
        self._show()
        return self._report()

    @property
    def all_decided(self) -> bool:
        """Whether every customer has come, and the journal holds an answer for each."""
        ledger = self._ledger
        return self._all_read and not ledger.waiting and not ledger.failed

    @staticmethod
    def _until(deadline: Deadline) -> float:
        return min(deadline.remaining(), _LOOK_SECONDS)

    # ---- reading and asking

    async def _ask(self) -> None:
        await self._replay()
        self._replayed.set()
        if self._plan.only_sending:
            self._all_read = True
            return
        if self._plan.asking.expired:
            self._note(DeadlineExceeded(_NOT_ALL_READ, request_sent=False))
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._read())
            for _ in range(self._plan.concurrency):
                group.create_task(self._decide())

    async def _replay(self) -> None:
        """Take in what an earlier run decided, and send on what Optimove has not taken."""
        replayed = 0
        batches: Iterator[Decided] | None = None

        def some_more() -> list[Decided]:
            nonlocal batches
            if batches is None:
                batches = islice(self._journal.decided(self._key), replayed, None)
            try:
                return list(islice(batches, _REPLAYED_AT_ONCE))
            except BaseException:
                batches = None  # an iterator that has raised is at its end
                raise

        while some := await self._insist(self._plan.asking, some_more):
            replayed += len(some)
            for batch in some:
                self._ledger.replay(batch)
            await self._cut()

    async def _read(self) -> None:
        plan = self._plan
        request = PageRequest(
            plan.event.campaign_id,
            attributes=plan.attributes,
            page_size=plan.page_size,
            deadline=plan.asking,
            tally=self._tally,
            wait_for_customers=seconds_for_customers(plan.clearance.remaining(), until=plan.asking.remaining()),
            on_warning=self._warn,
        )
        flushing = asyncio.ensure_future(self._flush_when_idle())
        try:
            async with contextlib.aclosing(self._side.customers(request)) as blocks:
                async for block in blocks:
                    self._ledger.admit(block)
                    block.clear()
                    while (batch := self._ledger.next_batch(plan.batch_size)) is not None:
                        await self._batches.put(batch)
            self._all_read = True
        except OptimoveError as error:
            self._note(error)
        finally:
            flushing.cancel()
        if (batch := self._ledger.next_batch(plan.batch_size, flush=True)) is not None:
            await self._batches.put(batch)
        for _ in range(plan.concurrency):
            await self._batches.put(None)

    async def _flush_when_idle(self) -> None:
        """Let the reviewer decide about those who have come while the next page keeps us waiting: it may never come."""
        while True:
            rows = self._ledger.rows
            await asyncio.sleep(_IDLE_SECONDS)
            if self._ledger.rows == rows and not self._batches.full():
                batch = self._ledger.next_batch(self._plan.batch_size, flush=True)
                if batch is not None:
                    self._batches.put_nowait(batch)

    async def _decide(self) -> None:
        while (batch := await self._batches.get()) is not None:
            if self._answering.expired:
                continue
            self._planner.asking()
            try:
                answer = await self._side.ask(batch, self._answering, at_last=self._plan.asking)
            except Exception as error:  # noqa: BLE001 - a reviewer may raise anything
                # Late: nobody in it is reached.
                if not (isinstance(error, TimeoutError) and self._answering.expired):
                    self._ledger.fail(batch)
                    # The message is the user's code's own and may hold personal data; ours says what to do.
                    odd = isinstance(error, OddAnswer)
                    self._failed("batches", str(error) if odd else f"The reviewer raised {name_of(error)}.")
            else:
                for reason, count in answer.reasons.items():
                    self._failed("customers", reason, count)
                if answer.strangers and not self._ledger.strangers:  # the first; all of them are told at the end
                    LOGGER.warning(
                        "campaign %d: the reviewer returned %d ids that do not stand in its batch of %d; not sent",
                        self._plan.event.campaign_id,
                        answer.strangers,
                        len(batch.ids),
                    )
                await self._decided.put(self._ledger.decide(batch, answer))
            del batch  # not to be kept while waiting for the next one

    def _failed(self, unit: Unit, reason: str, count: int = 1) -> None:
        if self._failures.add(unit, reason, count):
            LOGGER.error("campaign %d: %s failed: %s", self._plan.event.campaign_id, unit, reason)

    async def _end(self, asking: asyncio.Future[None]) -> None:
        """Let the later stages end when asking has, or its time is up; not before what was decided earlier is on."""
        await self._replayed.wait()
        while not asking.done() and not self._plan.asking.expired:
            await asyncio.wait((asking,), timeout=self._until(self._plan.asking))
        if not asking.done():
            asking.cancel()
            await asyncio.wait((asking,))
            if not self._all_read:
                self._note(DeadlineExceeded(_NOT_ALL_READ))
        await self._decided.put(None)

    # ---- recording and sending

    async def _record(self) -> None:
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
                writable = await self._written(batches)
                if writable:
                    self._ledger.recorded(batches)
                    await self._cut()
        await self._cut(flush=True)
        await self._chunks.put(None)

    async def _written(self, batches: list[Decided]) -> bool:
        """Record batches. When that fails, nobody knows whether they stand there, so nothing may follow them."""
        self._refused = None
        in_time = asyncio.timeout(self._plan.recording.remaining())
        try:
            async with in_time:
                await self._insist(self._plan.recording, self._turn.record, batches)
        except StoreError:
            raise
        except Exception as error:  # noqa: BLE001 - somebody else's journal may raise anything
            raised = self._refused or error if in_time.expired() else error
            if in_time.expired() and raised is error:
                self._note(DeadlineExceeded("The journal was not done when it was time to send what it holds."))
            else:
                cause = OptimoveError(f"Decisions that the journal refused are not sent: it raised {words(raised)}")
                self._note(cause)
                if isinstance(self._error, DeadlineExceeded):  # the customers who had to wait for it came too late
                    self._error = cause
            return False
        return True

    async def _insist(self, until: Deadline, function: Callable[..., R], *arguments: object) -> R:
        """Call the journal, again and again if it fails."""
        return await insistently(lambda: self._side.call(function, *arguments), until=until, told=self._journal_failed)

    def _journal_failed(self, error: Exception) -> None:
        self._refused = error
        text = f"The journal raised {words(error)}; it was tried again."
        LOGGER.error("campaign %d: %s", self._plan.event.campaign_id, text)
        if text not in self._warnings:
            self._warnings.append(text)

    async def _cut(self, *, flush: bool = False) -> None:
        while (chunk := self._ledger.next_chunk(flush=flush)) is not None:
            await self._chunks.put(chunk)

    async def _send(self, marking: asyncio.Future[None]) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(UPDATES_AT_ONCE):
                group.create_task(self._send_chunks())
        await self._all_marked(marking)

    async def _send_chunks(self) -> None:
        while (chunk := await self._chunks.get()) is not None:
            await self._send_chunk(chunk)
        self._chunks.put_nowait(None)  # for the next one that sends

    async def _send_chunk(self, chunk: Chunk) -> bool:
        """Send an update, in halves when it is too large, and tell whether the rest of it is worth a try."""
        plan = self._plan
        await self._check_run()
        self._look_at_clock()
        if plan.clearance.expired:
            self._note(DeadlineExceeded("Clearance came before all statuses were sent.", request_sent=False))
            return False
        begun = self._planner.seconds()
        operation = operations.update_customer_promotion_status(
            plan.event.campaign_id, chunk.statuses, timestamp=plan.now()
        )
        tally = Tally()
        try:
            await self._side.send(operation, plan.clearance, tally)
        except OptimoveError as error:
            if is_too_large(error, len(chunk.statuses)):
                first, second = chunk.halves()
                if not await self._send_chunk(first):
                    return False
                self._ledger.cut_smaller(len(first.statuses))
                return await self._send_chunk(second)
            self._note(error)
            return not (isinstance(error, APIError) and error.status == TOO_LARGE)
        finally:
            self._tally.calls += tally.calls
            self._tally.requests += tally.requests
        self._ledger.took(chunk)
        self._planner.sent(self._planner.seconds() - begun)
        await self._handed_to_mark(chunk)
        return True

    async def _check_run(self) -> None:
        """Stop if another run has taken over; see `Journal`.

        A journal that cannot say so now does not hold back what it holds: that is the same whoever sends it.
        """
        checking = self._checking
        if checking is None or checking.done():
            self._checking = checking = asyncio.ensure_future(self._side.call(self._turn.acknowledged))
        await asyncio.wait((checking,), timeout=_JOURNAL_SECONDS)
        error = checking.exception() if checking.done() else None
        if isinstance(error, StoreError):
            raise error

    async def _handed_to_mark(self, chunk: Chunk) -> None:
        """Have an update marked before the next one goes out, if the journal is as quick as usual."""
        is_behind = not self._sent.empty()
        self._sent.put_nowait(chunk)
        if not is_behind:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_JOURNAL_SECONDS):
                    await self._sent.join()

    async def _mark(self) -> None:
        """Mark what Optimove has taken, until cancelled."""
        while True:
            chunk = await self._sent.get()
            for start, end in chunk.ranges:
                await self._insist(self._plan.clearance, self._turn.acknowledge, start, end)
            self._sent.task_done()

    async def _all_marked(self, marking: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(_LAST_MARKS_SECONDS):
                await self._sent.join()
        except TimeoutError:
            self._note(
                OptimoveError(
                    "The journal could not mark all that was sent; a further run sends it again, with the same answers."
                )
            )
        marking.cancel()

    # ---- telling

    async def _watch(self) -> None:
        while True:
            self._look_at_clock()
            self._show()
            await asyncio.sleep(_LOOK_SECONDS)

    def _look_at_clock(self) -> None:
        step = self._plan.clock_step()
        if not self._stepped and abs(step) >= _STEP_SECONDS:
            self._stepped = True
            self._warn(
                f"The wall clock has moved {'on' if step > 0 else 'back'} by {abs(step):.0f} s more than the monotonic "
                "one since the review began: it was set, or the machine was suspended. Clearance has come as soon as "
                "one of the two says so."
            )

    def _warn(self, text: str) -> None:
        self._warnings.append(text)
        LOGGER.warning("campaign %d: %s", self._plan.event.campaign_id, text)

    def _show(self) -> None:
        progress = self._progress()
        if progress.behind and not self._behind:
            self._behind = True
            text = (
                f"The work that is known cannot be done before clearance: {progress.seconds_left:.0f} s are left, and "
                f"{-(progress.slack or 0.0):.0f} s more are needed at {progress.rate:.0f} customers a second."
            )
            self._warn(text)
        if self._plan.progress is None:
            return
        notify("progress", self._plan.progress, progress, LOGGER)

    def _progress(self) -> Progress:
        ledger, planner = self._ledger, self._planner
        return Progress(
            campaign_id=self._plan.event.campaign_id,
            rows=ledger.rows,
            reviewed=ledger.reviewed,
            approved=ledger.approved,
            denied=ledger.denied,
            failed=ledger.failed,
            acknowledged=ledger.acknowledged,
            all_read=self._all_read,
            rate=planner.rate(ledger.answered),
            seconds=planner.seconds(),
            seconds_left=self._plan.clearance.remaining(),
            slack=planner.slack(reviewed=ledger.answered, waiting=ledger.waiting, unsent=ledger.unsent),
        )

    def _note(self, error: OptimoveError) -> None:
        LOGGER.error("campaign %d: %s", self._plan.event.campaign_id, error)
        self._error = self._error or error

    def _fail(self, error: Exception) -> None:
        if isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, OptimoveError):
            self._note(error)
        else:
            self._note(OptimoveError(f"The review stopped, and nothing more is sent: {words(error)}"))

    def _report(self) -> ReviewReport:
        ledger = self._ledger
        self._look_at_clock()
        in_time = not self._plan.clearance.expired
        complete = self.all_decided and self._error is None and ledger.settled
        if not complete and not in_time and self._error is None:
            self._error = DeadlineExceeded("Clearance came before the review was complete.")
        if ledger.strangers:
            self._warn(f"The reviewer returned {ledger.strangers} ids that did not stand in its batch; not sent.")
        warnings = [*self._warnings, *self._failures.told()]
        return ReviewReport(
            campaign_id=self._plan.event.campaign_id,
            reviewed=ledger.reviewed,
            approved=ledger.approved,
            denied=ledger.denied,
            failed=ledger.failed,
            not_reached=ledger.waiting,
            acknowledged=ledger.acknowledged,
            rows=ledger.rows,
            repeated_rows=ledger.repeated_rows,
            control_group_rows=ledger.control_group_rows,
            chunks=ledger.chunks,
            retries=self._tally.requests - self._tally.calls,
            seconds=self._planner.seconds(),
            seconds_to_spare=self._planner.seconds_to_spare(),
            complete=complete,
            finished_before_clearance=complete and in_time,
            error=self._error,
            warnings=tuple(warnings),
        )
