"""No more requests than Optimove allows, in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from optimove_conditional_execution import validation
from optimove_conditional_execution.deadline import Clock, Deadline
from optimove_conditional_execution.errors import DeadlineExceeded


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
        validation.integer("RateLimit.requests", self.requests)
        validation.seconds("RateLimit.per", self.per, above_zero=True)


_LEEWAY: Final = 0.005
"""A share of the window, 50 ms of 10 s: clocks run at different speeds, and servers count with different grain."""

_LONGEST_WAY: Final = 0.2
"""A share of the window, 2 s of 10 s. A request that is not answered after so long has arrived before."""


@final
class RateLimiter:
    """A sliding window, shared by all threads and tasks of a client.

    The server counts a request when it arrives, which is some time after it was begun: connections are opened, machines
    are busy. It has arrived when it is answered, so its place in the window is free again one window after its answer.

    Each request reserves the earliest moment at which the window has room, first come, first served. So nobody polls,
    nobody starves, and a wait that would outlast its deadline fails at once. Who gives up gives the turn back, and all
    behind it move up.
    """

    def __init__(self, limit: RateLimit, *, clock: Clock = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._turns: deque[Turn] = deque()

    def wait(self, deadline: Deadline) -> Turn:
        """Block until a request may start, and return its turn: tell `answered` when it is over.

        Raises:
            DeadlineExceeded: The turn would come after the deadline; nothing was sent.
        """
        turn = self._reserve(deadline)
        if turn.has_begun:
            return turn
        moved = threading.Event()
        turn.moved = moved.set
        try:
            while (pause := self._begin(turn, deadline)) > 0:
                moved.wait(min(pause, threading.TIMEOUT_MAX))
                moved.clear()
        except BaseException:
            self._give_back(turn)
            raise
        return turn

    async def wait_async(self, deadline: Deadline) -> Turn:
        """Do what `wait` does, without blocking the event loop; cancelling gives the turn back."""
        turn = self._reserve(deadline)
        if turn.has_begun:
            return turn
        moved = asyncio.Event()
        turn.moved = functools.partial(asyncio.get_running_loop().call_soon_threadsafe, moved.set)
        try:
            while (pause := self._begin(turn, deadline)) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await moved.wait()
                moved.clear()
        except BaseException:
            self._give_back(turn)
            raise
        return turn

    def answered(self, turn: Turn) -> None:
        """Take in that a request is over: answered, lost or given up."""
        turn.end = self._clock()

    def _reserve(self, deadline: Deadline) -> Turn:
        with self._lock:
            now = self._clock()
            while self._turns and self._turns[0].has_begun and self._free_at(self._turns[0], now) <= now:
                self._turns.popleft()
            turn = Turn(self._earliest(len(self._turns), now))
            self._check(turn, deadline, now)
            turn.has_begun = turn.start <= now
            self._turns.append(turn)
            return turn

    def _begin(self, turn: Turn, deadline: Deadline) -> float:
        """Begin a turn if it has come, and return how many seconds it is still away."""
        with self._lock:
            now = self._clock()
            if turn.start <= now:
                # What is in front may have been answered later than was thought when the turn was reserved.
                turn.start = self._earliest(self._turns.index(turn), now)
                self._check(turn, deadline, now)
                turn.has_begun = turn.start <= now
            return turn.start - now

    def _check(self, turn: Turn, deadline: Deadline, now: float) -> None:
        if turn.start - now > deadline.remaining():
            raise DeadlineExceeded(
                f"The rate limit of {self._limit.requests} requests in {self._limit.per:g} s leaves no turn before "
                "the deadline.",
                request_sent=False,
            )

    def _give_back(self, turn: Turn) -> None:
        with self._lock:
            now = self._clock()
            if turn.has_begun:
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
        ahead = place - self._limit.requests
        if ahead >= 0:
            start = max(start, self._free_at(self._turns[ahead], now))
            # Of requests that are under way a later one can arrive first.
            for turn in itertools.islice(self._turns, ahead):
                if not turn.has_begun:
                    break
                start = max(start, self._free_at(turn, now))
        return start

    def _free_at(self, turn: Turn, now: float) -> float:
        """Return when a turn's place in the window is free again, or the earliest moment that is possible."""
        per = self._limit.per
        if turn.start > now:
            arrived = turn.start
        else:
            arrived = min(now if turn.end is None else turn.end, turn.start + _LONGEST_WAY * per)
        return arrived + per * (1 + _LEEWAY)


@final
class Turn:
    """When a request may start, and how to tell the one that waits for it of an earlier moment."""

    __slots__ = ("end", "has_begun", "moved", "start")

    def __init__(self, start: float) -> None:
        self.start = start
        self.end: float | None = None
        self.has_begun = False
        self.moved: Callable[[], object] | None = None

    def move(self, start: float) -> None:
        """Begin at an earlier moment, and tell the one who waits."""
        if start < self.start:
            self.start = start
            if self.moved is not None:
                with contextlib.suppress(RuntimeError):  # the event loop of somebody who waited has been closed
                    self.moved()
