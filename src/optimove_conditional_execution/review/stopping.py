"""Stopping reviews early: the request to stop, and clocks that move ahead so that deadlines come earlier.

A file of its own, since a request comes from any thread or a signal handler, and all parts of a review read it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from .. import validation
from ..deadline import Clock, Deadline

T = TypeVar("T")

STOP_SECONDS: Final = 20.0
"""Seconds that a stop takes by default: Kubernetes kills a container 30 s after its SIGTERM."""

STOPPED: Final = "The review was stopped before it was complete: resume() goes on with it."

_LOOK_SECONDS: Final = 0.1
"""Seconds between two looks at whether a stop was requested, which another thread or a signal handler may do."""


_LAST_STEPS_SECONDS: Final = 2.0
"""Seconds that a journal that hangs can take beyond the time of a stop."""


def longest_wait(within: float | None) -> float | None:
    """Return how many seconds to wait for reviews that are stopped within so many; None has no bound."""
    return None if within is None or within == math.inf else within + _LAST_STEPS_SECONDS


class Stop:
    """A request to stop all reviews of an object. It takes no lock, so that a signal handler can make it.

    Attributes:
        until: When everything must be done; None before the request.
    """

    def __init__(self) -> None:
        """Start without a request."""
        self.until: Deadline | None = None

    def request(self, within: float) -> None:
        """Request it; of two requests the one that ends earlier counts.

        Args:
            within: Seconds until everything must be done.

        Raises:
            ConfigurationError: It is not a number of seconds, 0 or more.
        """
        until = Deadline.after(validation.seconds("within", within))
        if self.until is None or until.remaining() < self.until.remaining():
            self.until = until

    @property
    def requested(self) -> bool:
        """Whether a stop was requested."""
        return self.until is not None

    def at_most(self, seconds: float) -> float:
        """Return the seconds for a step: as given, but after a request half of what is left at most."""
        return seconds if self.until is None else min(seconds, self.until.remaining() / 2)

    async def pause(self, seconds: float) -> bool:
        """Sleep; return early with True when a stop is requested."""
        end = Deadline.after(seconds)
        while not self.requested and not end.expired:
            await asyncio.sleep(min(_LOOK_SECONDS, end.remaining()))
        return self.requested

    async def bounded(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Await a step; None if it was abandoned, since half of the time of a stop was over."""
        task = asyncio.ensure_future(work)
        end: Deadline | None = None
        try:
            while not task.done():
                await asyncio.wait((task,), timeout=_LOOK_SECONDS)
                if end is None and self.until is not None:
                    end = Deadline.after(self.until.remaining() / 2)
                if end is not None and end.expired and not task.done():
                    return None
        finally:
            task.cancel()
        return task.result()


class _Earliest:
    def __init__(self, deadlines: tuple[Deadline, ...]) -> None:
        self._deadlines = deadlines

    def __call__(self) -> float:
        return -min(deadline.remaining() for deadline in self._deadlines)


def earliest(*deadlines: Deadline) -> Deadline:
    """Return a deadline that is, at any time, the earliest of several; each may be brought forward."""
    return Deadline(0.0, _Earliest(deadlines))


class AdvancingClock:
    """A clock that can be moved ahead, so that the deadlines on it come earlier for everybody who has one."""

    def __init__(self, clock: Clock) -> None:
        """Start at the reading of another clock.

        Args:
            clock: A monotonic clock, seconds.
        """
        self._clock = clock
        self._ahead = 0.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self._clock() + self._ahead

    def bring(self, deadline: Deadline, seconds: float) -> None:
        """Move ahead until a deadline on this clock is at most so many seconds away.

        Args:
            deadline: The deadline.
            seconds: Seconds from now.
        """
        self._ahead += max(0.0, deadline.remaining() - seconds)
