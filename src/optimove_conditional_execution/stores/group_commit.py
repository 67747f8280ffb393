"""Group commit: what is appended at the same time shares one transaction, since its end takes most of the time."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from ..deadline import Deadline
from ..errors import OptimoveError
from ..flows.effects import as_exception
from ..worker_pool import DaemonThreadPool
from .hash_chain import Content

LINGER_SECONDS: Final = 0.02
"""Seconds for which entries that nobody waits for may wait for others, and share their transaction."""

_EXIT_SECONDS: Final = 2.0
"""Seconds for which the end of the process waits for such entries."""


OnLost = Callable[[Exception], object]
Make = Callable[[], Sequence[Content]]
"""Makes the contents of entries; what it raises fails these entries alone."""


@dataclass(slots=True, eq=False)
class _Pending:
    """What one caller appends, and how it learns what became of it."""

    make: Make
    told: Future[None] | asyncio.Future[None] | OnLost
    is_for_thread: bool = True
    """Whether only the thread writes it, not the caller too."""


class GroupCommit:
    """Appends entries in groups, one after another. Not to be used by a forked child; it needs another one."""

    def __init__(self, write: Callable[[Sequence[Content]], None]) -> None:
        """Take what writes a group.

        Args:
            write: Appends entries in one transaction; what it raises is raised for all entries of the group.
        """
        self._write: Final = write
        self._waiting: list[_Pending] = []
        self._queue, self._writer = threading.Lock(), threading.Lock()
        self._pool = DaemonThreadPool(1, on_full="queue", name="optimove-log-writer")
        self._is_working = False
        self._hurry = threading.Event()
        self._hurries_in: asyncio.AbstractEventLoop | None = None
        self._process: Final = os.getpid()
        _ALL.add(self)

    def append(self, contents: Sequence[Content]) -> None:
        """Append entries; they are safe when this returns."""
        mine = Future[None]()
        with self._queue:
            self._waiting.append(_Pending(lambda: contents, mine, is_for_thread=False))
        self._write_waiting(mine)
        mine.result()

    def submit(self, make: Make) -> Future[None] | asyncio.Future[None]:
        """Append entries in a thread; they are safe when the future is done.

        Who cancels it gives up waiting; they are appended all the same.

        Args:
            make: Makes their contents: at once, or called in an event loop in that thread. There the contents of a
                group are made in a row, which takes half the time, and the loop is not held up.

        Returns:
            A future of the running event loop, if there is one. A group wakes each loop once.

        Raises:
            Exception: What `make` raises, if it is called at once; else it is raised by the future.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            contents, future = make(), Future[None]()
            self._enqueue(_Pending(lambda: contents, future))
            self._hurry.set()
            return future
        awaitable = loop.create_future()
        self._enqueue(_Pending(make, awaitable))
        # Not at once: what else is ready in this loop appends first, and the thread does not compete with it.
        if self._hurries_in is not loop:
            self._hurries_in = loop
            loop.call_soon(self._hurry_now)
        return awaitable

    def _hurry_now(self) -> None:
        self._hurries_in = None
        self._hurry.set()

    def submit_later(self, make: Make, on_lost: OnLost) -> None:
        """Append entries in a thread, which may wait a moment for others.

        Args:
            make: Makes their contents, in that thread.
            on_lost: Called in that thread with what was raised, if they were not appended.
        """
        self._enqueue(_Pending(make, on_lost))

    def _enqueue(self, pending: _Pending) -> None:
        with self._queue:
            self._waiting.append(pending)
            if self._is_working:
                return
            self._is_working = True
        self._start(pending)

    def _start(self, pending: _Pending | None = None) -> None:
        try:
            self._pool.submit(self._work, ())
        except BaseException as error:  # no thread can be started
            with self._queue:
                self._is_working = False
                given_up = [each for each in self._waiting if each.is_for_thread]
                self._waiting = [each for each in self._waiting if not each.is_for_thread]
            # Others have relied on that thread, too.
            others = _begun([each for each in given_up if each is not pending])
            _tell(others, error if isinstance(error, Exception) else _interrupted())
            raise

    def flush(self) -> None:
        """Write what waits, and wait for what is being written; what goes wrong is told to those who appended it."""
        self._write_waiting(None)

    def wait(self, within: float) -> None:
        """Wait until nothing waits any more, for so many seconds at most."""
        deadline = Deadline.after(within)
        self._hurry.set()
        while (self._waiting or self._writer.locked()) and not deadline.expired:
            time.sleep(0.001)

    def _work(self) -> None:
        try:
            # After a record comes its completion, which waits for the next record, or until here.
            while self._hurry.wait(LINGER_SECONDS) or not self._rests():
                self._hurry.clear()
                self._write_waiting(None)
        except BaseException:  # such as a greenlet that is killed; what waits must not wait for the next entry
            if not self._rests():
                self._start()
            raise

    def _rests(self) -> bool:
        with self._queue:
            self._is_working = bool(self._waiting)
            return not self._waiting

    def _write_waiting(self, mine: Future[None] | None) -> None:
        """Write what waits, unless that was written meanwhile for which this is called."""
        with self._writer:
            if mine is not None and mine.done():
                return
            with self._queue:
                group, self._waiting = self._waiting, []
            if group:  # all of it, whether its caller still waits or not: what failed is evidence, too
                self._write_group(_begun(group))

    def _write_group(self, group: Sequence[_Pending]) -> None:
        contents: list[Content] = []
        made = list(group)
        raised: Exception | None = _interrupted()
        interruption: BaseException | None = None
        try:
            for each in group:
                try:
                    contents += each.make()
                except BaseException as error:  # noqa: BLE001 - it is raised for these entries; others are written
                    made.remove(each)
                    if not isinstance(error, Exception):
                        interruption = error
                    _tell([each], as_exception(error))
            if made:
                self._write(contents)
            raised = None
            if interruption is not None:
                raise interruption
        except Exception as error:  # noqa: BLE001 - it is raised for all of the group
            raised = error
        finally:
            _tell(made, raised)


def _interrupted() -> OptimoveError:
    return OptimoveError("Appending was interrupted.")


def _begun(group: Sequence[_Pending]) -> Sequence[_Pending]:
    """Let nobody cancel it from now on, and return it."""
    for each in group:
        if isinstance(each.told, Future):
            each.told.set_running_or_notify_cancel()
    return group


def _tell(group: Sequence[_Pending], error: Exception | None) -> None:
    """Tell those who have appended that it is done, or what was raised."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for each in group:
        if isinstance(each.told, asyncio.Future):
            by_loop.setdefault(each.told.get_loop(), []).append(each.told)
        elif isinstance(each.told, Future):
            _settle([each.told], error)
        elif error is not None:
            with contextlib.suppress(Exception):
                each.told(error)
    for loop, futures in by_loop.items():
        with contextlib.suppress(RuntimeError):  # it is closed
            loop.call_soon_threadsafe(_settle, futures, error)


def _settle(futures: Sequence[Future[None] | asyncio.Future[None]], error: Exception | None) -> None:
    for future in futures:
        if future.done():  # its caller has given up meanwhile
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


_ALL: Final[weakref.WeakSet[GroupCommit]] = weakref.WeakSet()


@atexit.register
def _finish() -> None:
    """Let entries that nobody waits for be written at the end of the process; its daemon threads would just stop."""
    for group in list(_ALL):
        if group._process == os.getpid():
            group.wait(_EXIT_SECONDS)
