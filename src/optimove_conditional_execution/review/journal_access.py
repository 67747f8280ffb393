"""Access to a journal from event loops: in threads, again when it fails, and under the lock of a review."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from ..deadline import Deadline
from ..errors import OptimoveError, StoreError
from ..flows.effects import exception_name
from ..flows.journal import Journal, OpenReview
from ..models.events import CampaignReadyEvent
from ..stores.sqlite_file import SqliteError
from ..worker_pool import DaemonThreadPool
from .native_threads import workers

T = TypeVar("T")

_THREADS: Final = 16
"""For all runs of a review object together, each of which waits for a few calls at once; a journal may be locked."""

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries of a journal; the pause doubles."""


class JournalAccess:
    """Calls a journal, which may wait for a disk, from any number of event loops."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._pool = DaemonThreadPool(_THREADS, on_full="queue", name="optimove-journal")

    async def call(self, function: Callable[..., T], *arguments: object) -> T:
        """Call a method of the journal once."""
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
        """Call a method of the journal again and again, with growing pauses, until it succeeds or time is up.

        Args:
            function: The method.
            arguments: Its arguments.
            until: No try begins after this.
            on_error: Called with what the first try raised, if there will be another one.
            only: Whether what a try raised is worth another one.

        Raises:
            StoreError: The journal cannot be relied on any more: that is never tried again.
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


class ReviewLock:
    """The lock of a review, freed whatever happens to the run.

    Opening a review can wait for a disk, in a thread that cannot be cancelled. So a run that is cancelled then releases
    first, and what is locked after that is unlocked at once.
    """

    def __init__(self, journal: Journal, event: CampaignReadyEvent) -> None:
        self._journal = journal
        self._event = event
        self._lock = threading.Lock()
        self._held = False
        self._released = False

    def acquire(self) -> OpenReview | None:
        """Open the review; None when another run has it."""
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
        """Let another run have it; without effect unless it was acquired."""
        with self._lock:
            self._released = True
            held = self._held
        if held:
            self._journal.unlock(self._event.key)  # which may raise, and is tried again then
            with self._lock:
                self._held = False


def is_temporary(error: Exception) -> bool:
    """Return whether a journal that raised this may soon work: a lock, a disk, a network."""
    # Each database driver has an OperationalError of its own for this. Source: PEP 249.
    return isinstance(error, OSError) or any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)


def safe_text(error: Exception) -> str:
    """Return the class of what a journal raised, and its text if that holds no personal data for sure."""
    # SQLite's own texts name tables and columns, never values. Those of other databases and disks are not known.
    quoted = isinstance(error, SqliteError | OptimoveError) and str(error)
    return f"{exception_name(error)}: {error}" if quoted else exception_name(error)
