"""How the time until Optimove's deadline is divided: thinking first, and a reserve to deliver the answer."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final, final

from optimove_conditional_execution.deadline import Clock, Deadline, TransitEstimate
from optimove_conditional_execution.settings import seconds

FIRST_RESERVE: Final = 0.5
SMALLEST_RESERVE: Final = 0.05
LONGEST_BUDGET: Final = 3_600.0
"""Seconds; a notification that claims a later deadline is given this long, so that every wait has a bound."""

_SAMPLES: Final = 256


@final
class Reserve:
    """How long delivering an answer may take: 1.5 times the 99th percentile of the last 256 deliveries.

    It starts at 0.5 s, is never below 0.05 s, and never more than half of a budget. Safe for threads.
    """

    def __init__(self, fixed: float | None = None) -> None:
        """Measure, unless the integrator knows better.

        Args:
            fixed: Seconds to keep in reserve whatever is measured.

        Raises:
            ConfigurationError: `fixed` is negative or no number.
        """
        if fixed is not None:
            seconds("reserve", fixed)
        self._fixed = fixed
        self._lock = threading.Lock()
        self._durations: deque[float] = deque(maxlen=_SAMPLES)
        self._seconds = FIRST_RESERVE

    def observe(self, took: float) -> None:
        """Take a delivery into account that took so many seconds, or was given up after them."""
        with self._lock:
            self._durations.append(took)
            ordered = sorted(self._durations)
            percentile = ordered[math.ceil(0.99 * len(ordered)) - 1]
            self._seconds = max(SMALLEST_RESERVE, 1.5 * percentile)

    def of(self, budget: float) -> float:
        """Return the seconds to keep back of a budget of so many seconds."""
        return min(self._seconds if self._fixed is None else self._fixed, budget / 2)


@final
@dataclass(frozen=True, slots=True)
class Budget:
    """The time for one notification.

    Attributes:
        seconds: From its arrival to Optimove's deadline; 0 or less when that has passed.
        transit: Seconds that it was under way longer than its neighbours.
        deadline: Optimove's deadline, on our clock.
        thinking: Until when the handler may think.
    """

    seconds: float
    transit: float
    deadline: Deadline
    thinking: Deadline


def budget(
    *, sent_ms: int, deadline_ms: int, received: float, transit: TransitEstimate, reserve: Reserve, clock: Clock
) -> Budget:
    """Return the time that a notification leaves.

    It is counted from Optimove's own two time stamps, so that a wrong local clock changes nothing, less the transit
    time that a comparison with its neighbours shows.

    Args:
        sent_ms: The notification's `timestamp`.
        deadline_ms: Its `conditional_execution_approval_deadline`.
        received: Our clock when it arrived.
        transit: What the neighbours showed; takes this one into account.
        reserve: What to keep back.
        clock: Our monotonic clock.
    """
    delay = transit.observe(received=received, sent=sent_ms / 1000)
    seconds = min((deadline_ms - sent_ms) / 1000 - delay, LONGEST_BUDGET)
    deadline = Deadline.after(seconds - (clock() - received), clock=clock)
    return Budget(seconds, delay, deadline, deadline.earlier_by(reserve.of(max(0.0, seconds))))
