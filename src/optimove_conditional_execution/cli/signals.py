"""Handling of SIGINT, SIGTERM and SIGHUP: cancel the running task, let it clean up, and report the signal."""

from __future__ import annotations

import signal
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final, TypeVar

T = TypeVar("T")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_HANGUP: Final = getattr(signal, "SIGHUP", None)


class Interrupted(Exception):  # noqa: N818 - not an error
    """A signal has ended the program, after its clean-up.

    Attributes:
        exit_status: The shell's number for it, such as 130 for Ctrl-C.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"signal {signal_number}")
        self.exit_status = 128 + signal_number


def run_interruptibly(main: Coroutine[Any, Any, T], *, on_signal: Callable[[int], None] | None = None) -> T:
    """Run a coroutine in an event loop of its own, which SIGINT, SIGTERM and SIGHUP cancel.

    Args:
        main: What to run. Its clean-up must have a bound, since no further signal ends it.
        on_signal: Called in the event loop with the number of the first signal, which then cancels nothing; only a
            second one does.

    Raises:
        Interrupted: A signal came.
    """
    import asyncio  # here, as the help texts do without it

    try:
        return asyncio.run(_guarded(main, on_signal))
    except BaseExceptionGroup as group:
        # A task group wraps what one task has raised; callers handle the error itself.
        raise _first(group) from None


async def _guarded(main: Coroutine[Any, Any, T], on_signal: Callable[[int], None] | None) -> T:
    import asyncio

    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(main)
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        # Only call_soon_threadsafe wakes the loop from a signal handler.
        if on_signal is not None and len(received) == 1:
            loop.call_soon_threadsafe(on_signal, number)
        elif len(received) == (1 if on_signal is None else 2):
            loop.call_soon_threadsafe(task.cancel)

    previous = {number: signal.signal(number, stop) for number in _SIGNALS}
    if _HANGUP is not None:
        # With nohup a closed terminal is to change nothing. A handler, since a service that is started would inherit
        # that the signal is ignored, and not that it is handled.
        is_ignored = signal.getsignal(_HANGUP) is signal.SIG_IGN
        previous[_HANGUP] = signal.signal(_HANGUP, _nothing if is_ignored else stop)
    try:
        return await task
    except asyncio.CancelledError:
        if received:
            raise Interrupted(received[-1]) from None
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _nothing(_: int, __: FrameType | None) -> None:
    """Ignore a signal."""


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
