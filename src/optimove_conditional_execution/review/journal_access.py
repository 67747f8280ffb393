"""Access to a journal, or a log, from event loops: calls in threads, retries, and the lock of a review."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final, TypeVar

from ..deadline import Deadline
from ..errors import OptimoveError, StoreError
from ..flows.effects import exception_name
from ..flows.journal import DecidedBatch, Journal, OpenReview, Ranges
from ..models.events import CampaignReadyEvent
from ..stores.sqlite_file import SqliteError
from ..worker_pool import DaemonThreadPool
from .native_threads import workers

T = TypeVar("T")

_THREADS: Final = 16
"""Threads for all runs of a review object, each of which has a few calls pending; a journal may be locked."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries of a journal; the pause doubles."""


_REPLAYED_AT_ONCE: Final = 20


class StoreAccess:
    """Calls a journal or a log, which may block on a disk, from any number of event loops."""

    def __init__(self, name: str) -> None:
        self._pool = DaemonThreadPool(_THREADS, on_full="queue", name=name)

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a method once."""
        result: T = await asyncio.wrap_future(workers(self._pool).submit(function, arguments))
        return result

    async def retry(
        self,
        function: Callable[..., T],
        *arguments: object,
        until: Deadline,
        on_error: Callable[[Exception], None] = lambda _: None,
        only: Callable[[Exception], bool] = lambda _: True,
    ) -> T:
        """Call a method, retrying with growing pauses, until it succeeds or time is up.

        Args:
            function: The method.
            arguments: Its arguments.
            until: No try starts after this.
            on_error: Called with what the first try raised, if another try follows.
            only: Returns whether an error is worth another try.

        Raises:
            StoreError: The store is unusable: that is never retried.
            Exception: What the last try raised.
        """
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self.call(function, *arguments)
            except StoreError:
                raise
            except Exception as error:
                if until.remaining() <= pause or not only(error):
                    raise
                if pause == _FIRST_PAUSE:
                    on_error(error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


class JournalAccess(StoreAccess):
    """Calls a journal."""

    def __init__(self, journal: Journal) -> None:
        super().__init__("optimove-journal")
        self.journal = journal


class RunJournal:
    """What one run of a review asks the journal; a call that fails is tried again until a deadline."""

    def __init__(self, access: JournalAccess, key: str, run: int, on_error: Callable[[Exception], None]) -> None:
        """Prepare a run.

        Args:
            access: Calls the journal.
            key: The review.
            run: The number of the run, which the journal checks.
            on_error: Called with what the first try of a call raised, if another try follows.
        """
        journal = access.journal
        self._retry = functools.partial(access.retry, on_error=on_error)
        self._batches = functools.partial(journal.batches, key)
        self._record = functools.partial(journal.record, key, run=run)
        self._acknowledge = functools.partial(journal.acknowledge, key, run=run)
        self._acknowledged = functools.partial(access.call, functools.partial(journal.acknowledged, key, run=run))

    async def replay(self, restore: Callable[[DecidedBatch], None], *, until: Deadline) -> None:
        """Call a function with what earlier runs have recorded."""
        replayed = 0
        batches: Iterator[DecidedBatch] | None = None

        def some_more() -> list[DecidedBatch]:
            nonlocal batches
            if batches is None:
                batches = islice(self._batches(), replayed, None)
            try:
                return list(islice(batches, _REPLAYED_AT_ONCE))
            except BaseException:
                batches = None  # a generator that has raised is exhausted
                raise

        while some := await self._retry(some_more, until=until):
            replayed += len(some)
            for batch in some:
                restore(batch)

    async def record(self, batches: Sequence[DecidedBatch], *, until: Deadline) -> None:
        """Record batches; see `Journal.record`."""
        await self._retry(self._record, batches, until=until)

    async def acknowledge(self, ranges: Ranges, *, until: Deadline) -> None:
        """Mark statuses that Optimove has acknowledged; see `Journal.acknowledge`."""
        await self._retry(self._acknowledge, ranges, until=until)

    async def check(self) -> None:
        """Ask the journal once.

        Raises:
            SupersededError: Another run has taken over.
        """
        await self._acknowledged()


class ReviewLock:
    """Exclusive lock on a review, released however the run ends.

    Opening a review can block on a disk, in a thread that cannot be cancelled. So a cancelled run may call `release`
    before the lock is acquired; it is then unlocked as soon as it is acquired.
    """

    def __init__(self, journal: Journal, event: CampaignReadyEvent) -> None:
        self._journal = journal
        self._event = event
        self._lock = threading.Lock()
        self._held = False
        self._released = False

    def acquire(self) -> OpenReview | None:
        """Open the review; None when another run holds its lock."""
        opened = self._journal.open(self._event)
        if opened is None:
            return None
        with self._lock:
            self._held = not self._released
        if not self._held:
            self._journal.unlock(self._event.key)
            return None
        return opened

    def release(self) -> None:
        """Release the lock; without effect unless it was acquired."""
        with self._lock:
            self._released = True
            held = self._held
        if held:
            self._journal.unlock(self._event.key)  # which may raise, and is then retried
            with self._lock:
                self._held = False


def is_temporary(error: Exception) -> bool:
    """Return whether a journal's error is likely to be temporary: a lock, a disk, a network."""
    # Each database driver has its own OperationalError for this. Source: PEP 249.
    return isinstance(error, OSError) or any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)


def safe_text(error: Exception) -> str:
    """Return the class of a journal's error, and its message if that cannot hold personal data."""
    # SQLite's own messages name tables and columns, never values. Those of other databases are not known.
    quoted = isinstance(error, SqliteError | OptimoveError) and str(error)
    return f"{exception_name(error)}: {error}" if quoted else exception_name(error)
