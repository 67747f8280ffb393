"""The decision log of a review: records before decisions count, and completions of what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, cast

from ..deadline import Deadline
from ..errors import ConfigurationError, OptimoveError, PayloadError, StoreError
from ..flows.decision_log import Completion, DecisionLog, DecisionRecord, OnLogFailure, Told, keeps_payloads, queue_of
from ..flows.journal import Ranges
from ..flows.review_log import Decided, Numbered, RunRecords
from ..fork import ForkLock
from .journal_access import StoreAccess, safe_text

_UNIMPORTANT_SECONDS: Final = 2.0
"""Seconds that the log may take for records without which decisions count too."""

_PAUSE_SECONDS: Final = 5.0
"""Seconds for which such records are given up after the log has failed, so that it cannot delay a review."""

_COMPLETIONS_AT_ONCE: Final = 1_000
_BATCHES_AT_ONCE: Final = 8

_LAST_WORDS_SECONDS: Final = 2.0
_LAST_TRIES_SECONDS: Final = 15.0
"""Seconds that a pass waits for completions at its end, at least and at most: longer than a backup locks the log."""


class _Turn:
    """Lets one thread at a time append entries of a review. A class, since a lock has no weak references everywhere."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class ReviewLog:
    """The decision log of a review object, shared by its runs."""

    def __init__(self, log: DecisionLog, on_failure: OnLogFailure) -> None:
        """Wrap a log.

        Args:
            log: The log.
            on_failure: What becomes of decisions that cannot be recorded.
        """
        self.log = log
        self._queue = queue_of(log)
        self.keep_payloads: Final = keeps_payloads(log)
        self.on_failure: Final = on_failure
        self.access = StoreAccess("optimove-log")
        self._turns = weakref.WeakValueDictionary[str, _Turn]()
        self._lock = ForkLock()

    def submit(self, entries: Sequence[DecisionRecord | Completion]) -> Future[None]:
        """Append entries in the order of the calls; a log that takes them without blocking does it in its thread."""
        if self._queue is not None:
            return cast("Future[None]", self._queue.submit(entries))  # there is no event loop in this thread
        self.log.append(entries)
        appended = Future[None]()
        appended.set_result(None)
        return appended

    def turn(self, key: str) -> _Turn:
        """Return the turn of a review; a call of an earlier run that hangs keeps it until it returns.

        Otherwise it could append its records after a later run has declared those numbers discarded.
        """
        with self._lock:
            return self._turns.setdefault(key, _Turn())


@dataclass(eq=False, kw_only=True)
class RunLog:
    """The decision log of one run of a review.

    Attributes:
        shared: The log of the review object.
        records: Makes the entries.
        record_until: Until when a log that fails is tried again.
        on_error: Takes why decisions are not sent.
        on_warning: Takes what the log lost.
    """

    shared: ReviewLog
    records: RunRecords
    record_until: Deadline
    on_error: Callable[[OptimoveError], None]
    on_warning: Callable[[str], None]

    def __post_init__(self) -> None:
        """Prepare a run."""
        self._turn = self.shared.turn(self.records.event.key)
        self._is_over = False
        self._is_open = False
        self._has_warned = False
        self._quiet = Deadline.after(0)
        self._lost = 0
        self._lost_why = ""
        self._working: asyncio.Future[None] | None = None
        self._completions: asyncio.Queue[Completion] = asyncio.Queue()
        self._uncompleted = 0
        self._uncompleted_why = "did not answer in time"

    async def record(self, group: Sequence[Decided], approval: int, denial: int) -> bool:
        """Record decisions before the journal does; return whether the journal may.

        Args:
            group: The batches.
            approval: The number in the journal of the next approval.
            denial: The number of the next denial.
        """
        numbered = self.records.number([each for each in group if each.size], approval, denial)
        if not numbered:  # a release, of which the log knows nothing
            return True
        if self.shared.on_failure == "refuse":
            failed = await self._record(numbered, approval, denial, self.record_until)
            if failed:
                self.on_error(OptimoveError(f"Decisions that the decision log refused are not sent: it {failed}."))
            return not failed
        is_quiet = not self._quiet.expired
        if not is_quiet:
            seconds = min(_UNIMPORTANT_SECONDS, self.record_until.remaining())
            failed = await self._record(numbered, approval, denial, Deadline.after(seconds))
            if failed:
                self._quiet, self._lost_why, is_quiet = Deadline.after(_PAUSE_SECONDS), failed, True
        if is_quiet:
            self._lost += sum(each.size for each in group)
        return True

    async def _record(self, numbered: Sequence[Numbered], approval: int, denial: int, until: Deadline) -> str:
        """Append records; return why it failed, in words, or nothing."""
        in_time = asyncio.timeout(until.remaining())
        raised: list[Exception] = []
        try:
            async with in_time:
                if not self._is_open:
                    # Alone: once it is written, no record of this run can be among those that it discards.
                    opening = [self.records.discarded(approval, denial)]
                    await self._append_until(until, [lambda: opening[0]], raised)
                    self._is_open = True
                await self._append_until(
                    until, [functools.partial(self.records.records, it) for it in numbered], raised
                )
        except Exception as error:  # noqa: BLE001 - a log may raise anything
            if not in_time.expired():
                raised.append(error)
            return f"raised {safe_text(raised[-1])}" if raised else "did not answer in time"
        return ""

    async def _append_until(
        self,
        until: Deadline,
        builds: Sequence[Callable[[], Sequence[DecisionRecord | Completion]]],
        raised: list[Exception],
    ) -> None:
        def on_error(error: Exception) -> None:
            raised.append(error)
            if not self._has_warned:
                self._has_warned = True
                self.on_warning(f"The decision log raised {safe_text(error)}; it was tried again.")

        await self.shared.access.retry(self._append, builds, until=until, on_error=on_error, only=_is_worth_a_try)

    def _append(self, builds: Sequence[Callable[[], Sequence[DecisionRecord | Completion]]]) -> None:
        # In a thread; a few batches at a time, so that few records are in memory. Those share a flush to the disk.
        pending = deque[Future[None]]()
        with self._turn.lock:
            try:
                for build in builds:
                    if self._is_over:
                        raise OptimoveError("The run is over.")
                    if len(pending) == _BATCHES_AT_ONCE:
                        pending.popleft().result()
                    pending.append(self.shared.submit(build()))
                while pending:
                    pending.popleft().result()
            finally:
                futures.wait(pending)

    def complete(
        self, ranges: Ranges, kind: str, *, taken: bool | None, error: str | None = None, told: Told | None = None
    ) -> None:
        """Queue what became of ranges of statuses; see `Completion`."""
        for each in self.records.completions(ranges, kind, taken=taken, error=error, told=told):
            self._completions.put_nowait(each)

    def start(self) -> None:
        """Begin to append completions."""
        self._working = asyncio.ensure_future(self._work())

    async def _work(self) -> None:
        while True:
            some = [await self._completions.get()]
            while len(some) < _COMPLETIONS_AT_ONCE and not self._completions.empty():
                some.append(self._completions.get_nowait())
            self._uncompleted += len(some)
            while not await self._completed(some):
                await asyncio.sleep(1.0)
            self._uncompleted -= len(some)
            for _ in some:
                self._completions.task_done()

    async def _completed(self, some: Sequence[Completion]) -> bool:
        try:
            await self.shared.access.call(self._append, [lambda: some])
        except Exception as error:  # noqa: BLE001 - a log may raise anything, and the answers have left
            self._uncompleted_why = f"raised {safe_text(error)}"
            return False
        return True

    async def finish(self, revoked: Iterable[Ranges], *, patience: float) -> None:
        """Wait until the completions are appended, and end the run.

        Args:
            revoked: The numbers of approvals that were revoked.
            patience: Seconds to wait if the log fails; between 2 and 15 are waited.
        """
        try:
            for ranges in revoked:
                self.complete(ranges, "revoked", taken=None)
                await asyncio.sleep(0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(_LAST_WORDS_SECONDS, min(patience, _LAST_TRIES_SECONDS))):
                    await self._completions.join()
        finally:
            self.close()
        if self._lost:
            self.on_warning(
                f"{self._lost} decisions may have no record, and count all the same, as on_log_failure says: the "
                f"decision log {self._lost_why}."
            )
        if missing := self._uncompleted + self._completions.qsize():
            self.on_warning(
                f"The decision log lost {missing} entries about what became of decisions: it {self._uncompleted_why}. "
                "The journal knows it."
            )

    def close(self) -> None:
        """End the run: what waits to be appended is given up, since a later run could contradict it."""
        self._is_over = True
        if self._working is not None:
            self._working.cancel()


def _is_worth_a_try(error: Exception) -> bool:
    return not isinstance(error, PayloadError | ConfigurationError | StoreError)
