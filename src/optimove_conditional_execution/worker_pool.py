"""Bounded pool of daemon threads, for code that cannot be cancelled; it never delays the exit of the process."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import math
import queue
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Final, Literal, TypeVar, final

from .deadline import Deadline
from .flows.effects import Late, Overloaded, as_exception
from .fork import detect_fork, reset_after_fork

T = TypeVar("T")

_IDLE_SECONDS: Final = 10.0


def threads_are_greenlets() -> bool:
    """Whether gevent's monkey patch has replaced threads by greenlets.

    Source: gevent's API reference, `monkey.is_module_patched`.
    """
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def native_lock() -> threading.Lock:
    """Return a lock for a few statements that do not wait, which native threads share under gevent's patch too."""
    if not threads_are_greenlets():
        return threading.Lock()
    lock: threading.Lock = sys.modules["gevent.monkey"].get_original("threading", "Lock")()
    return lock


_Job = tuple[Future[Any], contextvars.Context, Callable[..., Any], tuple[Any, ...]]


Submit = Callable[[Callable[..., Any], tuple[Any, ...]], Future[Any]]
"""Calls a function with arguments in a thread, as `DaemonThreadPool.submit` does."""


@final
class DaemonThreadPool:
    """A bounded pool of daemon threads, started on demand and ended when idle.

    `concurrent.futures.ThreadPoolExecutor` would wait at exit for a handler that hangs, which cannot be cancelled. Here
    a hanging call occupies a worker until it returns, and nothing more. Thread-safe; empty in a forked child.
    """

    def __init__(self, max_workers: int, *, on_full: Literal["refuse", "queue"], name: str) -> None:
        """Set up the pool; threads are started when they are needed.

        Args:
            max_workers: How many calls run concurrently.
            on_full: Whether a further call is refused with `Overloaded`, or queued.
            name: The threads' name.
        """
        self._max_workers = max_workers
        self._refuse = on_full == "refuse"
        self._name = name
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Begin without threads: a child does not have its parent's."""
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._busy = 0
        self._threads = 0

    def acquire(self) -> None:
        """Occupy a worker for work that needs no thread.

        Raises:
            Overloaded: All workers are busy.
        """
        detect_fork()
        with self._lock:
            if self._refuse and self._busy >= self._max_workers:
                raise Overloaded
            self._busy += 1

    def release(self, _: object = None) -> None:
        """Give a place back."""
        with self._lock:
            self._busy -= 1

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        """Submit a call to a thread, with the caller's context variables.

        Raises:
            Overloaded: The pool is full and `on_full` is `"refuse"`, or no thread can be started.
        """
        self.acquire()
        future: Future[Any] = Future()
        with self._lock:
            if self._threads < min(self._busy, self._max_workers):
                try:
                    threading.Thread(target=self._work, args=(self._jobs,), name=self._name, daemon=True).start()
                    self._threads += 1
                except RuntimeError:  # no thread can be started; a running one may still take the job
                    if not self._threads:
                        self._busy -= 1
                        raise Overloaded from None
            self._jobs.put((future, contextvars.copy_context(), function, arguments))
        return future

    def _work(self, jobs: queue.SimpleQueue[_Job]) -> None:
        while True:
            try:
                future, context, function, arguments = jobs.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    if jobs.empty():
                        self._threads -= 1
                        return
                continue
            if not future.set_running_or_notify_cancel():
                self.release()
                continue
            try:
                result = context.run(function, *arguments)
            except BaseException as error:  # noqa: BLE001 - it is set on the future
                self.release()
                future.set_exception(as_exception(error))
            else:
                self.release()
                future.set_result(result)
            # An idle thread must not keep the last notification alive.
            del future, context, function, arguments


Defer = Callable[[BaseException], Deadline]
"""Is called with the exception that interrupts a wait, and returns the deadline to go on waiting until."""


def result_by(
    future: Future[T],
    deadline: Deadline,
    *,
    defer: Defer | None = None,
    meanwhile: Callable[[], object] | None = None,
    every: float = math.inf,
) -> T:
    """Return the result of a future, or abandon it: at a deadline, or when this thread is interrupted.

    Args:
        future: From `DaemonThreadPool.submit`.
        deadline: When it is abandoned.
        defer: What to do about an interruption: SystemExit out of a signal handler, Ctrl-C, or how gevent ends a
            greenlet. None: the future is abandoned and the interruption raised.
        meanwhile: Called each time that `every` seconds have passed without a result, unless fewer are left.
        every: Seconds; also how long `meanwhile` may take, so that it never outlasts the deadline.

    Raises:
        Late: It was not done by the deadline.
        Exception: What the call raised.
    """
    end = deadline
    while not future.done():
        try:
            concurrent.futures.wait([future], timeout=_timeout(end, every))
            if meanwhile is not None and not future.done() and end.remaining() > every:
                meanwhile()
        except BaseException as error:
            if defer is None:
                future.cancel()
                raise
            end = defer(error)
        if end.expired:
            break
    if not future.done():
        future.cancel()
        raise Late
    return future.result()


async def aresult_by(
    future: asyncio.Future[T],
    deadline: Deadline,
    *,
    defer: Defer | None = None,
    meanwhile: Callable[[], Awaitable[object]] | None = None,
    every: float = math.inf,
    starting: bool = False,
) -> T:
    """Return the result of a future, or abandon it: at a deadline, or when this task is cancelled; see `result_by`.

    Not `asyncio.wait_for`, which waits for a task that ignores its cancellation.

    With `starting` it is a task that has not begun yet: one that waits for nothing is done a turn of the event loop
    later, and needs no timer.
    """
    end = deadline
    while not future.done():
        try:
            if starting:
                starting = False
                await asyncio.sleep(0)
                continue
            await until_done(future, _timeout(end, every))
            if meanwhile is not None and not future.done() and end.remaining() > every:
                await meanwhile()
        except BaseException as error:
            if defer is None or not isinstance(error, asyncio.CancelledError):
                _abandon(future)
                raise
            end = defer(error)  # and again: anyio, for example, cancels at every await until the task ends
        if end.expired:
            break
    if not future.done():
        _abandon(future)
        raise Late
    return result_of(future)


async def until_done(future: asyncio.Future[Any], seconds: float | None = None) -> None:
    """Wait until a future is done. Who cancels the wait does not cancel the future.

    As `asyncio.wait` does it for many futures, in a third of the steps.

    Args:
        future: A future of the running event loop.
        seconds: How long to wait at most; None waits until it is done.
    """
    loop = future.get_loop()
    waiter = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = None if seconds is None else loop.call_later(seconds, wake)
    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        if timer is not None:
            timer.cancel()
        future.remove_done_callback(wake)


def result_of(future: asyncio.Future[T]) -> T:
    """Return the result of a future that is done.

    Raises:
        Exception: What was raised, or stands for it.
    """
    raised = asyncio.CancelledError() if future.cancelled() else future.exception()
    if raised is not None:
        raise as_exception(raised)
    return future.result()


def _abandon(future: asyncio.Future[Any]) -> None:
    future.cancel()
    # No caller retrieves its exception any more; without this asyncio would log that it was never retrieved.
    future.add_done_callback(lambda done: done.cancelled() or done.exception())


def _timeout(deadline: Deadline, every: float) -> float | None:
    seconds = min(deadline.remaining(), every)
    return None if seconds == math.inf else seconds
