"""How calls wait: in threads or in asyncio. A file of its own, below all that waits.

What a call does is written once, as coroutines. For threads all that they await blocks the thread until it is done, so
they never suspend, and `run_blocking` runs them without an event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any, Protocol, TypeVar, final

from ..errors import ConfigurationError

T = TypeVar("T")


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends, and return its result.

    Raises:
        ConfigurationError: It suspended, since a function of the application is a coroutine function.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise ConfigurationError("A client for threads cannot await: pass plain functions, or use AsyncOptimoveClient.")


def iterate_blocking(source: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """Yield the items of an asynchronous generator that never suspends, and close it."""
    step = _first_step(source)
    try:
        while True:
            try:
                item = run_blocking(step)
            except StopAsyncIteration:
                return
            yield item
            step = source.asend(None)
    finally:
        run_blocking(source.aclose())


def _first_step(source: AsyncGenerator[T, None]) -> Coroutine[Any, Any, T]:
    """Begin an asynchronous generator of which an event loop in this thread learns nothing.

    Else the loop would close it when it ends, and the rest of the items would be missing.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return source.asend(None)  # the hooks are called here
    finally:
        sys.set_asyncgen_hooks(*hooks)


class Alarm(Protocol):
    """A wait that can be ended early; made where it is waited for."""

    def ring(self) -> None:
        """End the wait, from any thread."""
        ...

    async def wait(self, seconds: float) -> None:
        """Wait for some seconds, or until it rings."""
        ...


@final
class ThreadAlarm:
    """Waits in a thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.ring = self._event.set

    async def wait(self, seconds: float) -> None:
        """Block the thread."""
        self._event.wait(min(seconds, threading.TIMEOUT_MAX))
        self._event.clear()


@final
class TaskAlarm:
    """Waits in a task of asyncio."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def ring(self) -> None:
        """End the wait, from any thread."""
        with contextlib.suppress(RuntimeError):  # the event loop of the caller has been closed
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Suspend the task."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        self._event.clear()
