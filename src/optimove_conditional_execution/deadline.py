"""Time as the SDK sees it: deadlines on a monotonic clock, and how late a message is."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, final

from optimove_conditional_execution.errors import ConfigurationError

Clock = Callable[[], float]
"""Seconds since any fixed moment, never going back."""


@final
@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment by which something must be done, on a clock that nobody can set back.

    Make one with `Deadline.after(seconds)`; read `remaining()` where you set a timeout.
    """

    _at: float
    _clock: Clock = field(default=time.monotonic, compare=False)

    @classmethod
    def after(cls, seconds: float, *, clock: Clock = time.monotonic) -> Deadline:
        """Return the deadline that many seconds from now.

        Args:
            seconds: How long from now. Zero or less is a deadline that has passed; `math.inf` never comes.
            clock: The monotonic clock, in seconds.

        Raises:
            ConfigurationError: `seconds` is not a number.
        """
        if math.isnan(seconds):
            raise ConfigurationError("A deadline needs a number of seconds, not NaN.")
        return cls(clock() + seconds, clock)

    def remaining(self) -> float:
        """Return the seconds that are left, never below 0."""
        return max(0.0, self._at - self._clock())

    @property
    def expired(self) -> bool:
        """Whether the moment has come."""
        return self._clock() >= self._at

    def earlier_by(self, seconds: float) -> Deadline:
        """Return a deadline that comes `seconds` before this one."""
        return Deadline(self._at - seconds, self._clock)

    def __repr__(self) -> str:
        return f"<Deadline in {self.remaining():.3f} s>"


TRANSIT_SAMPLES: Final = 256
TRANSIT_WINDOW_SECONDS: Final = 600.0


@final
class TransitEstimate:
    """How long each message was under way, seen without trusting that two clocks agree.

    `received - timestamp` is the transit time plus the unknown difference between the sender's clock and ours. Its
    smallest recent value belongs to the message that was fastest; what a message has above that is its own delay.
    Because only differences count, our side may be a monotonic clock, and a wrong wall clock changes nothing.

    The window holds the last 256 messages, none older than 10 minutes. Safe for threads.
    """

    def __init__(self, *, samples: int = TRANSIT_SAMPLES, window: float = TRANSIT_WINDOW_SECONDS) -> None:
        self._samples = samples
        self._window = window
        self._lock = threading.Lock()
        # Offsets grow from left to right, so the left one is the smallest of the window: each message is added and
        # removed once, where a plain minimum would look at all 256 for every message.
        self._offsets: deque[tuple[int, float, float]] = deque()
        self._count = 0

    def observe(self, *, received: float, sent: float) -> float:
        """Take a message into account and return its delay.

        Args:
            received: Our clock at arrival, seconds.
            sent: The sender's time stamp, seconds.

        Returns:
            Seconds, 0 or more, by which this message was slower than the fastest of its neighbours.
        """
        offset = received - sent
        with self._lock:
            self._count += 1
            while self._offsets and self._offsets[-1][2] >= offset:
                self._offsets.pop()
            self._offsets.append((self._count, received, offset))
            while (
                self._offsets[0][0] <= self._count - self._samples or self._offsets[0][1] < received - self._window
            ) and len(self._offsets) > 1:
                self._offsets.popleft()
            return offset - self._offsets[0][2]

    def sender_now(self, *, now: float) -> float | None:
        """Return what the sender's clock shows at our `now`, in seconds, or None before the first message."""
        with self._lock:
            return now - self._offsets[0][2] if self._offsets else None
