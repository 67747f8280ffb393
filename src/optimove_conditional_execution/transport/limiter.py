"""No more requests than Optimove allows, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import final

from optimove_conditional_execution.deadline import Clock, Deadline
from optimove_conditional_execution.errors import DeadlineExceeded
from optimove_conditional_execution.settings import seconds, whole_number


@final
@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most so many requests in any window of so many seconds.

    Optimove allows 50 requests in 10 s for each API key.
    Source: developer.optimove.com/reference/understanding-api-rate-limits-at-optimove.

    Attributes:
        requests: How many, 1 or more.
        per: The length of the sliding window, in seconds.
    """

    requests: int
    per: float

    def __post_init__(self) -> None:
        """Refuse limits that would let nothing through."""
        whole_number("RateLimit.requests", self.requests)
        seconds("RateLimit.per", self.per, above_zero=True)


@final
class RateLimiter:
    """A sliding window, shared by all threads and tasks of a client.

    Each request reserves the earliest moment at which the window has room, first come, first served. So nobody polls,
    nobody starves, and a wait that would outlast its deadline fails at once.
    """

    def __init__(self, limit: RateLimit, *, clock: Clock = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._starts: deque[float] = deque()

    def wait(self, deadline: Deadline) -> None:
        """Block until a request may start.

        Raises:
            DeadlineExceeded: The turn would come after the deadline; nothing was sent.
        """
        start, pause = self._reserve(deadline)
        if pause > 0:
            try:
                time.sleep(pause)
            except BaseException:
                self._give_back(start)
                raise

    async def wait_async(self, deadline: Deadline) -> None:
        """Do what `wait` does, without blocking the event loop; cancelling gives the turn back."""
        start, pause = self._reserve(deadline)
        if pause > 0:
            try:
                await asyncio.sleep(pause)
            except BaseException:
                self._give_back(start)
                raise

    def _reserve(self, deadline: Deadline) -> tuple[float, float]:
        with self._lock:
            now = self._clock()
            while self._starts and self._starts[0] <= now - self._limit.per:
                self._starts.popleft()
            start = now
            if len(self._starts) >= self._limit.requests:
                # Never before the one in front: turns that were given back leave gaps, which nobody jumps into.
                start = max(now, self._starts[-self._limit.requests] + self._limit.per, self._starts[-1])
            if start - now > deadline.remaining():
                raise DeadlineExceeded(
                    f"The rate limit of {self._limit.requests} requests in {self._limit.per:g} s leaves no turn before "
                    "the deadline.",
                    request_sent=False,
                )
            self._starts.append(start)
            return start, start - now

    def _give_back(self, start: float) -> None:
        with self._lock:
            if start > self._clock():
                with contextlib.suppress(ValueError):
                    self._starts.remove(start)
