"""Who runs a review, one at a time among all threads and processes, and what is written under the number of the run."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeVar, final

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import OptimoveError, StoreError
from optimove_conditional_execution.flows.effects import name_of
from optimove_conditional_execution.flows.journal import Decided, Journal
from optimove_conditional_execution.stores.sqlite_file import SqliteError

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 5.0
"""Seconds between two tries of a journal; the pause doubles."""

_NUMBERED: Final = ("record", "acknowledge", "acknowledged", "finish")


@final
class Turn:
    """A review that is taken for one run, and given back whatever happens to the run.

    Taking can wait for a disk, in a thread that nobody can cancel. So a run that is cancelled meanwhile leaves first,
    and what is taken after that is given back at once.
    """

    def __init__(self, journal: Journal, key: str) -> None:
        self._journal = journal
        self._key = key
        self._lock = threading.Lock()
        self._taken = False
        self._left = False
        self._run: int | None = None
        self._numbered = frozenset(_NUMBERED) - unnumbered(journal)

    def take(self) -> bool:
        """Become the only one who runs the review; False when somebody is at it."""
        run = self._journal.take(self._key)
        if not run:
            return False
        with self._lock:
            self._taken = not self._left
        if not self._taken:
            self._journal.leave(self._key)
            return False
        # True is what a journal says that numbers no runs.
        self._run = None if run is True else run
        return True

    def leave(self) -> None:
        """Let somebody else run it; without effect unless it was taken."""
        with self._lock:
            self._left = True
            taken = self._taken
        if taken:
            self._journal.leave(self._key)  # it stays taken if that raises, so that it can be tried again
            with self._lock:
                self._taken = False

    def record(self, batches: Sequence[Decided]) -> None:
        """Append decided batches; see `Journal.record`."""
        self._journal.record(self._key, batches, **self._under("record"))

    def acknowledge(self, start: int, end: int) -> None:
        """Write down which statuses Optimove has taken; see `Journal.acknowledge`."""
        self._journal.acknowledge(self._key, start, end, **self._under("acknowledge"))

    def acknowledged(self) -> list[tuple[int, int]]:
        """Return the ranges that Optimove has taken; see `Journal.acknowledged`."""
        return self._journal.acknowledged(self._key, **self._under("acknowledged"))

    def finish(self, report: str) -> None:
        """Write down that nothing is left to do; see `Journal.finish`."""
        self._journal.finish(self._key, report, **self._under("finish"))

    def _under(self, method: str) -> dict[str, Any]:
        return {"run": self._run} if method in self._numbered and self._run is not None else {}


def unnumbered(journal: Journal) -> frozenset[str]:
    """Return the methods of a journal that take no number of a run, as before there were such numbers."""
    return frozenset(name for name in _NUMBERED if not _takes_run(getattr(journal, name, None)))


def _takes_run(method: Any) -> bool:
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):  # some callables have no signature to look at
        return False
    return any(each.name == "run" or each.kind is each.VAR_KEYWORD for each in parameters)


async def insistently(
    call: Callable[[], Awaitable[T]],
    *,
    until: Deadline,
    told: Callable[[Exception], None],
    only: Callable[[Exception], bool] = lambda _: True,
) -> T:
    """Await a call of the journal again and again, with growing pauses, until it succeeds or time is up.

    Args:
        call: Makes the awaitable of one try.
        until: No try begins after this.
        told: Called with what the first try raised, if there will be another one.
        only: Whether what a try raised is worth another one.

    Raises:
        StoreError: The journal cannot be relied on any more: that is never tried again.
        Exception: What the last try raised.
    """
    pause, first = _FIRST_PAUSE, True
    while True:
        try:
            return await call()
        except StoreError:
            raise
        except Exception as error:
            if until.remaining() <= pause or not only(error):
                raise
            if first:
                told(error)
        first = False
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def is_passing(error: Exception) -> bool:
    """Whether a journal that raised this before anything was decided may soon work: a lock, a disk, a network."""
    # Each database driver has an OperationalError of its own for this. Source: PEP 249.
    return isinstance(error, OSError) or any(kind.__name__ == "OperationalError" for kind in type(error).__mro__)


def words(error: Exception) -> str:
    """Return the class of what a journal raised, and its text if that holds no personal data for sure."""
    # SQLite's own texts name tables and columns, never values. Of other databases and disks nobody knows.
    quoted = isinstance(error, SqliteError | OptimoveError) and str(error)
    return f"{name_of(error)}: {error}" if quoted else name_of(error)
