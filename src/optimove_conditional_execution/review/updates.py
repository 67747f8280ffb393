"""Sends the status updates of one pass, and marks in the journal what Optimove has acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from .. import operations
from ..deadline import Deadline
from ..errors import (
    TOO_LARGE,
    APIError,
    DeadlineExceeded,
    HeldBackError,
    OptimoveError,
    StoreError,
    was_processed,
)
from ..flows.decision_log import Told
from ..flows.journal import Ranges
from ..flows.ledger import Chunk, Ledger
from ..flows.report import CompletionEstimate
from ..flows.status_updates import is_too_large
from ..transport.send import RequestCounter
from .config import ReviewConfig
from .journal_access import RunJournal
from .run_log import RunLog
from .runtime import UPDATES_AT_ONCE, Runtime, Update

_JOURNAL_SECONDS: Final = 1.0
"""Seconds that an update waits for a slow journal to check the run, or to mark the update before."""

_LAST_MARKS_SECONDS: Final = 15.0
"""Seconds that a pass that has sent everything waits for a journal that cannot mark it: longer than a backup locks."""


class Updates:
    """The updates of one pass: a few at the same time, each sent, then marked."""

    def __init__(
        self,
        config: ReviewConfig,
        runtime: Runtime,
        ledger: Ledger,
        journal: RunJournal,
        *,
        campaign_id: int,
        clearance: Deadline,
        estimate: CompletionEstimate,
        log: RunLog | None,
        look_at_clock: Callable[[], None],
        on_error: Callable[[OptimoveError], None],
    ) -> None:
        """Prepare a pass.

        Args:
            config: The review's settings.
            runtime: Calls the client.
            ledger: Has the statuses.
            journal: Calls the journal.
            campaign_id: The campaign.
            clearance: The deadline for statuses.
            estimate: Estimates when the pass will be complete.
            log: Takes what became of each update.
            look_at_clock: Called before each update.
            on_error: Takes what prevents a status from being sent or marked.
        """
        self._config = config
        self._runtime = runtime
        self._ledger = ledger
        self._journal = journal
        self._campaign_id = campaign_id
        self._clearance = clearance
        self._estimate = estimate
        self._log = log
        self._look_at_clock = look_at_clock
        self._on_error = on_error
        self._has_more = asyncio.Event()
        self._is_last = False
        self._sent: asyncio.Queue[Ranges] = asyncio.Queue()
        self._checking: asyncio.Future[None] | None = None
        self.requests = RequestCounter()

    def go_on(self, *, is_last: bool = False) -> None:
        """Let `send` send the updates that the ledger has by now.

        Args:
            is_last: Whether it is to end after them.
        """
        self._is_last = is_last
        self._has_more.set()

    def cancel(self) -> None:
        """Abandon a check of the run."""
        if self._checking is not None:
            self._checking.cancel()

    async def send(self, marking: asyncio.Future[None]) -> None:
        """Send updates as `go_on` allows, and wait until they are marked.

        Args:
            marking: Runs `mark`; cancelled at the end.
        """
        async with asyncio.TaskGroup() as group:
            for _ in range(UPDATES_AT_ONCE):
                group.create_task(self._send_chunks())
        await self._wait_for_marks(marking)

    async def _send_chunks(self) -> None:
        while True:
            while (chunk := self._ledger.next_chunk()) is not None:
                await self._send_chunk(chunk)
            if self._is_last:
                return
            await self._has_more.wait()
            self._has_more.clear()

    async def _send_chunk(self, chunk: Chunk, *, earlier_unknown: bool = False) -> bool:
        """Send an update, in halves when it is too large; return whether the next update is worth a try.

        With `earlier_unknown` Optimove may have taken it as a part of a larger one.
        """
        await self._check_run()
        self._look_at_clock()
        if self._clearance.expired:
            late = DeadlineExceeded("Clearance came before all statuses were sent.", request_sent=False)
            self._undelivered(chunk, late, earlier_unknown=earlier_unknown)
            return False
        begun = self._estimate.seconds()
        operation = operations.update_customer_promotion_status(
            self._campaign_id, dict.fromkeys(chunk.ids, chunk.approves), timestamp=self._config.local_time()
        )
        counter = RequestCounter()
        try:
            await self._runtime.send(Update(operation, self._clearance, counter, len(chunk.ids) * chunk.approves))
        except OptimoveError as error:
            if is_too_large(error, len(chunk.ids)):
                first, second = chunk.halves()
                earlier_unknown |= was_processed(error) is None
                if not await self._send_chunk(first, earlier_unknown=earlier_unknown):
                    return False
                self._ledger.cut_smaller(len(first.ids))
                return await self._send_chunk(second, earlier_unknown=earlier_unknown)
            self._undelivered(chunk, error, earlier_unknown=earlier_unknown)
            return not (isinstance(error, APIError) and error.status == TOO_LARGE)
        except asyncio.CancelledError:
            self._complete(chunk, "undelivered", error="The run ended while it was being sent.")
            raise
        finally:
            self.requests.calls += counter.calls
            self.requests.requests += counter.requests
        self._ledger.mark_acknowledged(chunk)
        self._complete(chunk, "acknowledged", taken=True)
        self._estimate.update_sent(self._estimate.seconds() - begun)
        await self._hand_to_mark(chunk)
        return True

    def _undelivered(self, chunk: Chunk, error: OptimoveError, *, earlier_unknown: bool) -> None:
        self._on_error(error)
        # Unless it is certain, Optimove may have taken it.
        taken = None if earlier_unknown else was_processed(error)
        told: Told | None = "nothing" if isinstance(error, HeldBackError) and taken is False else None
        self._complete(chunk, "undelivered", taken=taken, error=f"{type(error).__name__}: {error}", told=told)

    def _complete(
        self,
        chunk: Chunk,
        kind: str,
        *,
        taken: bool | None = None,
        error: str | None = None,
        told: Told | None = None,
    ) -> None:
        if self._log is not None:
            self._log.complete(chunk.ranges, kind, taken=taken, error=error, told=told)

    async def _check_run(self) -> None:
        """Stop if another run has taken over; see `Journal`.

        A journal that cannot answer now does not delay what it already holds: every run would send the same.
        """
        checking = self._checking
        if checking is None or checking.done():
            self._checking = checking = asyncio.ensure_future(self._journal.check())
        await asyncio.wait((checking,), timeout=_JOURNAL_SECONDS)
        error = checking.exception() if checking.done() else None
        if isinstance(error, StoreError):
            raise error

    async def _hand_to_mark(self, chunk: Chunk) -> None:
        """Queue an update to be marked, and wait for that before the next one is sent, unless the journal is slow."""
        is_behind = not self._sent.empty()
        self._sent.put_nowait(chunk.ranges)
        if not is_behind:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_JOURNAL_SECONDS):
                    await self._sent.join()

    async def mark(self) -> None:
        """Mark acknowledged updates in the journal, until cancelled."""
        while True:
            ranges = await self._sent.get()
            await self._journal.acknowledge(ranges, until=self._clearance)
            self._sent.task_done()

    async def _wait_for_marks(self, marking: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(_LAST_MARKS_SECONDS):
                await self._sent.join()
        except TimeoutError:
            text = "The journal could not mark all that was sent; a further run sends it again, with the same answers."
            self._on_error(OptimoveError(text))
        marking.cancel()
