"""Time as the SDK sees it: deadlines on a monotonic clock, and how late a message is."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, final
from zoneinfo import ZoneInfo, available_timezones

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
        return cls(clock() + _number(seconds), clock)

    def remaining(self) -> float:
        """Return the seconds that are left, never below 0."""
        return max(0.0, self._at - self._clock())

    @property
    def expired(self) -> bool:
        """Whether the moment has come."""
        return self._clock() >= self._at

    def earlier_by(self, seconds: float) -> Deadline:
        """Return a deadline that comes before this one.

        Args:
            seconds: How long before; a negative number is after it.

        Raises:
            ConfigurationError: `seconds` is not a number.
        """
        return Deadline(self._at - _number(seconds), self._clock)

    def __repr__(self) -> str:
        return f"<Deadline in {self.remaining():.3f} s>"


def _number(seconds: object) -> float:
    try:
        if isinstance(seconds, int | float) and not math.isnan(seconds):
            return float(seconds)
    except OverflowError:
        pass
    raise ConfigurationError("A deadline needs a number of seconds.")


TRANSIT_SAMPLES: Final = 256
TRANSIT_WINDOW_SECONDS: Final = 600.0

_COMPANY_SECONDS: Final = 1.0
_LARGEST_COMPANY: Final = 3


@final
class TransitEstimate:
    """How long each message was under way, seen without trusting that two clocks agree.

    `received - timestamp` is the transit time plus the unknown difference between the sender's clock and ours. Its
    smallest recent value belongs to the message that was fastest; what a message has above that is its own delay.
    Because only differences count, our side may be a monotonic clock, and a wrong wall clock changes nothing.

    A message that is stamped ahead, by a sender whose clock is wrong, would make all others look late. So the smallest
    value must have company: with six messages known another one within a second of it, with nine two others.

    The window holds the last 256 messages, none older than 10 minutes. Safe for threads.
    """

    def __init__(self, *, samples: int = TRANSIT_SAMPLES, window: float = TRANSIT_WINDOW_SECONDS) -> None:
        self._samples = samples
        self._window = window
        self._lock = threading.Lock()
        self._seen: deque[tuple[float, float]] = deque()
        self._offsets: list[float] = []  # those of `_seen`, in order of size

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
            self._seen.append((received, offset))
            insort(self._offsets, offset)
            while len(self._seen) > self._samples or self._seen[0][0] < received - self._window:
                _, gone = self._seen.popleft()
                del self._offsets[bisect_left(self._offsets, gone)]
            return max(0.0, offset - self._fastest())

    def sender_now(self, *, now: float) -> float | None:
        """Return what the sender's clock shows at our `now`, in seconds, or None before the first message."""
        with self._lock:
            return now - self._fastest() if self._offsets else None

    def _fastest(self) -> float:
        company = min(_LARGEST_COMPANY, len(self._offsets) // 3) or 1
        neighbours = zip(self._offsets, self._offsets[company - 1 :], strict=False)
        return next((low for low, high in neighbours if high - low <= _COMPANY_SECONDS), self._offsets[0])


def zone_of(timezone: ZoneInfo | str) -> ZoneInfo:
    """Return the time zone of an IANA name, such as `Europe/London`.

    Raises:
        ConfigurationError: It is not known.
    """
    if isinstance(timezone, ZoneInfo):
        return timezone
    try:
        return ZoneInfo(timezone)
    except (ValueError, OSError, KeyError, TypeError, AttributeError):  # ZoneInfoNotFoundError is a KeyError
        raise unknown_zone("timezone= must be an IANA name like Europe/London.") from None


def unknown_zone(advice: str) -> ConfigurationError:
    """Return the error for a time zone that is not found: its name is wrong, or there is no database of zones.

    Args:
        advice: What to do about a name, with a full stop.
    """
    if available_timezones():
        return ConfigurationError(f"The time zone is not known: {advice}")
    # Slim images and Windows; there every name is unknown, the right ones too.
    return ConfigurationError(f"This machine has no time zone database: pip install tzdata. If it has one, {advice}")


def instant(moment: datetime, zone: ZoneInfo) -> tuple[datetime, bool]:
    """Return the moment that a clock on the wall means.

    Args:
        moment: What the clock shows, without a zone.
        zone: Where it hangs.

    Returns:
        The moment in UTC, and whether it is doubtful: in the hour that a change of clocks repeats there are two such
        moments, in the hour that it leaves out there are two readings. It is the earlier one then.
    """
    try:
        readings = {moment.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    except OverflowError:  # within a day of the first or the last moment that there is
        return moment.replace(tzinfo=UTC), False
    return min(readings), len(readings) > 1
