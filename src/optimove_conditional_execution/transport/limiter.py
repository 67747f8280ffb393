"""No more requests than Optimove allows, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections import deque
from collections.abc import Callable
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
    nobody starves, and a wait that would outlast its deadline fails at once. Who gives up gives the turn back, and all
    behind it move up.
    """

    def __init__(self, limit: RateLimit, *, clock: Clock = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._turns: deque[_Turn] = deque()

    def wait(self, deadline: Deadline) -> None:
        """Block until a request may start.

        Raises:
            DeadlineExceeded: The turn would come after the deadline; nothing was sent.
        """
        turn = self._reserve(deadline)
        if turn.start <= self._clock():
            return
        moved = threading.Event()
        turn.moved = moved.set
        try:
            while (pause := turn.start - self._clock()) > 0:
                moved.wait(min(pause, threading.TIMEOUT_MAX))
                moved.clear()
        except BaseException:
            self._give_back(turn)
            raise

    async def wait_async(self, deadline: Deadline) -> None:
        """Do what `wait` does, without blocking the event loop; cancelling gives the turn back."""
        turn = self._reserve(deadline)
        if turn.start <= self._clock():
            return
        moved = asyncio.Event()
        turn.moved = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, moved.set)
        try:
            while (pause := turn.start - self._clock()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await moved.wait()
                moved.clear()
        except BaseException:
            self._give_back(turn)
            raise

    def _reserve(self, deadline: Deadline) -> _Turn:
        with self._lock:
            now = self._clock()
            while self._turns and self._turns[0].start <= now - self._limit.per:
                self._turns.popleft()
            start = self._earliest(len(self._turns), now)
            if start - now > deadline.remaining():
                raise DeadlineExceeded(
                    f"The rate limit of {self._limit.requests} requests in {self._limit.per:g} s leaves no turn before "
                    "the deadline.",
                    request_sent=False,
                )
            turn = _Turn(start)
            self._turns.append(turn)
            return turn

    def _give_back(self, turn: _Turn) -> None:
        with self._lock:
            now = self._clock()
            if turn.start <= now:
                return  # it counts: its request may have been sent
            place = self._turns.index(turn)
            del self._turns[place]
            for behind in range(place, len(self._turns)):
                self._turns[behind].move(self._earliest(behind, now))

    def _earliest(self, place: int, now: float) -> float:
        """Return when a turn may start that has so many in front of it."""
        start = now
        if place:
            start = max(start, self._turns[place - 1].start)  # never before the one in front
        if place >= self._limit.requests:
            start = max(start, self._turns[place - self._limit.requests].start + self._limit.per)
        return start


@final
class _Turn:
    """When a request may start, and how to tell the one that waits for it of an earlier moment."""

    __slots__ = ("moved", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.moved: Callable[[], object] | None = None

    def move(self, start: float) -> None:
        if start < self.start:
            self.start = start
            if self.moved is not None:
                with contextlib.suppress(RuntimeError):  # the event loop of somebody who waited has been closed
                    self.moved()
