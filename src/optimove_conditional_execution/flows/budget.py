"""The time budget of a notification: the handler's share, and a reserve to deliver the answer."""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from typing import Final

from .. import validation
from ..deadline import Clock, Deadline, TransitEstimate
from ..defaults import FIRST_RESERVE, SHORTEST_LEASE, SMALLEST_RESERVE

RESERVE_WINDOW_SECONDS: Final = 300.0
LONGEST_BUDGET: Final = 3_600.0
"""Maximum budget in seconds; a later deadline of a notification is capped, so that every wait has a bound."""

KEPT_AFTER: Final = 30.0
"""Seconds for which a claim is kept after the latest time at which Optimove's deadline can be.

That is the time between Optimove's two time stamps from the arrival on, since the transit time that a delivery deducts
is an estimate, and that of a repeat another one. A repeat that comes later still can look as if it were in time, say to
a replica that has just been started; decided anew, it could be answered otherwise.
"""

_FACTOR: Final = 1.5
_FEWEST: Final = 5
_SAMPLES: Final = 1_024


class Reserve:
    """Time reserved to deliver an answer: 1.5 times the 95th percentile of the deliveries of the last 5 minutes.

    A single slow delivery does not count: the percentile is at most the second largest known value. With little
    traffic, the last 5 deliveries count whatever their age, so that slow ones are not forgotten; at most 1,024 are
    kept. The reserve starts at 0.5 s, as if measured from a delivery, and is at least 0.05 s and at most a third of a
    budget. A fixed reserve is at most half of it. Thread-safe.
    """

    def __init__(self, fixed: float | None = None, *, clock: Clock) -> None:
        """Start a measured reserve, or set a fixed one.

        Args:
            fixed: Seconds of a fixed reserve; None measures.
            clock: Monotonic, in seconds.

        Raises:
            ConfigurationError: `fixed` is negative or not a number.
        """
        if fixed is not None:
            validation.seconds("reserve", fixed)
        self._fixed = fixed
        self._clock = clock
        self.after_fork()
        first = FIRST_RESERVE / _FACTOR
        self._seen: deque[tuple[float, float]] = deque([(clock(), first)])
        self._durations: list[float] = [first]  # those of `_seen`, in order of size
        self._measured, self._until = FIRST_RESERVE, math.inf

    def after_fork(self) -> None:
        """Replace the lock, in a forked child: a thread may hold it that the child does not have."""
        self._lock = threading.Lock()

    def observe(self, took: float) -> None:
        """Record that a delivery took this many seconds, or was abandoned after them."""
        now = self._clock()
        with self._lock:
            self._seen.append((now, took))
            insort(self._durations, took)
            self._measure(now)

    def for_budget(self, budget: float) -> float:
        """Return the seconds to reserve out of a budget of so many seconds."""
        if self._fixed is not None:
            return min(self._fixed, budget / 2)
        now = self._clock()
        if now > self._until:
            with self._lock:
                self._measure(now)
        return min(self._measured, budget / 3)

    def _measure(self, now: float) -> None:
        """Drop old deliveries, and keep what the others say until the next one is old."""
        seen, durations, count = self._seen, self._durations, len(self._seen)
        while count > _SAMPLES or (count > _FEWEST and seen[0][0] < now - RESERVE_WINDOW_SECONDS):
            del durations[bisect_left(durations, seen.popleft()[1])]
            count -= 1
        percentile = durations[max(0, count - 1 - (count // 20 or 1))]
        self._measured = max(SMALLEST_RESERVE, _FACTOR * percentile)
        self._until = seen[0][0] + RESERVE_WINDOW_SECONDS if count > _FEWEST else math.inf


def default_lease(budget: float) -> float:
    """Return the seconds of a lease on a claim, for a budget of so many seconds."""
    return max(SHORTEST_LEASE, budget / 6)


def longest_repeatable_handler(budget: float, *, lease: float | None = None, reserve: float = FIRST_RESERVE) -> float:
    """Return for how many seconds a handler may run so that another replica can still answer when its own one dies.

    In the worst case a replica dies just before its handler is done, its lease has just been renewed, and the handler
    of another one takes as long: 2 x handler + lease + reserve must fit within the budget.

    Args:
        budget: Seconds from a notification to its deadline.
        lease: Seconds of a lease; None is the default for this budget.
        reserve: Seconds to deliver the answer.
    """
    return max(0.0, (budget - (default_lease(budget) if lease is None else lease) - reserve) / 2)


@dataclass(eq=False, slots=True)
class Budget:
    """The time budget of one notification.

    Attributes:
        seconds: From its arrival to Optimove's deadline; 0 or less when that has passed.
        transit: Seconds of transit time above that of the fastest recent ones, as far as deducted from the budget.
        deadline: Optimove's deadline, on our clock, or the host's if that is earlier.
        handler_deadline: When the handler's answer is due, so that there is time to deliver it.
        kept: Until when a claim on the notification is to be kept; see `KEPT_AFTER`.
    """

    seconds: float
    transit: float
    deadline: Deadline
    handler_deadline: Deadline
    kept: Deadline


@dataclass(eq=False, frozen=True, slots=True, kw_only=True)
class BudgetEstimator:
    """Estimates the time budget of a notification.

    The budget is the difference of Optimove's own two time stamps, so that a wrong local clock changes nothing, less
    the transit time relative to the fastest recent notifications. A late answer does no harm, and a missing one is
    lost, so in doubt the handler is called: the transit time takes at most half of the budget, unless it exceeds all of
    it and our wall clock, which is used for nothing else, shows too that the deadline has passed.

    Attributes:
        transit: The estimate of transit times.
        reserve: The time reserved for delivery.
        clock: Monotonic, in seconds.
        wall_clock: Seconds since 1970.
    """

    transit: TransitEstimate
    reserve: Reserve
    clock: Clock
    wall_clock: Clock

    def budget(
        self,
        *,
        sent_ms: int,
        deadline_ms: int,
        received: float,
        transit: TransitEstimate | None = None,
        host: Deadline | None = None,
    ) -> Budget:
        """Return the time budget of a notification.

        Args:
            sent_ms: The notification's `timestamp`.
            deadline_ms: Its `conditional_execution_approval_deadline`.
            received: The monotonic clock when it arrived.
            transit: The estimate that records this notification; None for the shared one.
            host: The deadline of a host that ends the call, such as AWS Lambda; None without one.
        """
        stated = (deadline_ms - sent_ms) / 1000
        delay = (transit or self.transit).observe(received=received, sent=sent_ms / 1000)
        passed = delay >= stated and deadline_ms / 1000 <= self.wall_clock()
        if stated > 0 and not passed:
            delay = min(delay, stated / 2)
        left = min(stated - delay, LONGEST_BUDGET)
        end, usable = received + left, max(0.0, left)
        deadline = Deadline(end, self.clock)
        if host is not None and (until_host := host.remaining()) < deadline.remaining():
            deadline, usable = host, until_host
        handler_deadline = deadline.earlier_by(self.reserve.for_budget(usable))
        return Budget(left, delay, deadline, handler_deadline, Deadline(end + delay + KEPT_AFTER, self.clock))
