"""Event loops of `CampaignReview` under gevent's monkey patch: each in a native thread of its own.

A file of its own, since it alone uses gevent.

Under the patch all threads are greenlets of one native thread, and a native thread runs one event loop at a time: a
second review would be refused while a first one waits. Whatever else looks for a running loop, Django's database layer
say, would find that of a review, too. So each loop gets a native thread of its own there, with nothing in it but the
loop. What a review calls (your reviewer, the client, the journal) runs in greenlets of the native thread that the
review was called in, since that is where their connections and locks belong.

Source: gevent's API reference: `monkey.get_original`, `hub.loop.run_callback_threadsafe`, `hub.loop.async_`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from ..flows.effects import as_exception
from ..worker_pool import DaemonThreadPool, threads_are_greenlets

T = TypeVar("T")

# gevent has no types of its own, so its hub is Any.
_HUB: Final[contextvars.ContextVar[Any]] = contextvars.ContextVar("optimove_review_hub", default=None)


def run_in_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in an event loop of its own, and wait for it."""
    if not threads_are_greenlets():
        with asyncio.Runner() as runner:
            return runner.run(coroutine)
    return _run_in_native_thread(coroutine)


def workers(pool: DaemonThreadPool) -> DaemonThreadPool | _Greenlets:
    """Return what runs calls for the running event loop: a pool, or greenlets where `run_in_loop` was called."""
    hub = _HUB.get()
    return pool if hub is None else _Greenlets(hub)


def _run_in_native_thread(coroutine: Coroutine[Any, Any, T]) -> T:
    gevent, event = importlib.import_module("gevent"), importlib.import_module("gevent.event")
    start_new_thread = importlib.import_module("gevent.monkey").get_original("_thread", "start_new_thread")
    hub = gevent.get_hub()
    result = event.AsyncResult()
    context = contextvars.copy_context()
    context.run(_HUB.set, hub)
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []

    async def main() -> T:
        begun.append((asyncio.get_running_loop(), asyncio.current_task()))
        return await coroutine

    def work() -> None:
        settle: Callable[[Any], None] = result.set
        value: Any = None
        try:
            with asyncio.Runner() as runner:
                value = runner.run(main(), context=context)
        except BaseException as error:  # noqa: BLE001 - it is set on the result
            settle, value = result.set_exception, error
        try:
            # This thread's own hub ends before anybody learns of the result: were its greenlets left to the end of
            # the process, greenlet would crash there.
            gevent.get_hub().destroy(destroy_loop=True)
        finally:
            hub.loop.run_callback_threadsafe(settle, value)
            del value  # an error's traceback holds this frame

    start_new_thread(work, ())
    # Without any other greenlet gevent would raise LoopExit: it does not see that another thread sets the result.
    waiting = hub.loop.async_()
    waiting.start(_nothing)
    try:
        found: T = result.get()
    except BaseException:
        for loop, task in begun if not result.ready() else ():  # the greenlet was killed, or Ctrl-C was pressed
            with contextlib.suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(task.cancel if task is not None else loop.stop)
        raise
    finally:
        waiting.close()
    return found


def _nothing() -> None:
    """Do nothing: the watcher only keeps gevent's loop alive."""


class _Greenlets:
    """Runs calls of an event loop in greenlets of another native thread.

    Locks of gevent work badly between native threads, so each future is touched in the event loop's thread alone.
    """

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._spawn = importlib.import_module("gevent").spawn

    def submit(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # no call waits for a worker, so none can be cancelled before it begins
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()

        def settle(result: object, error: Exception | None) -> None:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def work() -> None:
            result, raised = None, None
            try:
                result = context.run(function, *arguments)
            except BaseException as error:  # noqa: BLE001 - it is set on the future
                raised = as_exception(error)
            with contextlib.suppress(RuntimeError):  # the review is over, and its loop closed
                loop.call_soon_threadsafe(settle, result, raised)

        self._hub.loop.run_callback_threadsafe(self._spawn, work)
        return future
