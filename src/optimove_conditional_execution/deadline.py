"""Deadlines on a monotonic clock, time zones, and estimates of transit time."""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Final, final
from zoneinfo import ZoneInfo, available_timezones

from .errors import ConfigurationError

Clock = Callable[[], float]
"""A clock: returns seconds since an arbitrary fixed point."""


@final
@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time on a monotonic clock, by which something must be done.

    Make one with `Deadline.after(seconds)`; read `remaining()` where you set a timeout.
    """

    _at: float
    _clock: Clock = field(default=time.monotonic, compare=False)

    @classmethod
    def after(cls, seconds: float, *, clock: Clock = time.monotonic) -> Deadline:
        """Return a deadline `seconds` from now.

        Args:
            seconds: Seconds from now. Zero or less is a deadline that has passed; `math.inf` never expires.
            clock: The monotonic clock, in seconds.

        Raises:
            ConfigurationError: `seconds` is not a number.
        """
        return cls(clock() + _number(seconds), clock)

    def remaining(self) -> float:
        """Return the seconds that are left, never below 0."""
        left = self._at - self._clock()
        return left if left > 0 else 0.0

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self._clock() >= self._at

    @property
    def overdue(self) -> float:
        """The seconds since the deadline has passed, never below 0."""
        past = self._clock() - self._at
        return past if past > 0 else 0.0

    def earlier_by(self, seconds: float) -> Deadline:
        """Return a deadline that is earlier than this one.

        Args:
            seconds: How much earlier; a negative number makes it later.

        Raises:
            ConfigurationError: `seconds` is not a number.
        """
        return Deadline(self._at - _number(seconds), self._clock)

    def __repr__(self) -> str:
        return f"<Deadline in {self.remaining():.3f} s>"


def _number(seconds: object) -> float:
    if type(seconds) is float and not math.isnan(seconds):
        return seconds
    try:
        if isinstance(seconds, int | float) and not math.isnan(seconds):
            return float(seconds)
    except OverflowError:
        pass
    raise ConfigurationError("A deadline needs a number of seconds.")


_STEP_SECONDS: Final = 2.0
"""Seconds of difference between the clocks that mean that the wall clock was set, or the machine suspended."""


class WallAwareClock:
    """A monotonic clock that also moves when the wall clock is ahead of it.

    A monotonic clock stands still while the machine is suspended, and does not see that the wall clock was set right. A
    wall clock can be set back. So this clock returns the larger of the times that have elapsed on both since the
    start: a wall time has been reached as soon as one of the two says so.
    """

    def __init__(self, *, monotonic: Clock = time.monotonic, wall: Clock = time.time) -> None:
        """Start at the current readings of both clocks.

        Args:
            monotonic: A monotonic clock, seconds.
            wall: Seconds since 1970.
        """
        self._monotonic = monotonic
        self._wall = wall
        self._offset = wall() - monotonic()

    def __call__(self) -> float:
        """Return the seconds."""
        return max(self._monotonic(), self._wall() - self._offset)

    def step(self) -> float:
        """Return by how many seconds the wall clock has advanced more than the monotonic one since the start."""
        return self._wall() - self._offset - self._monotonic()

    def step_warning(self) -> str:
        """Return a sentence when the clocks have parted since the start; otherwise it is empty."""
        step = self.step()
        if abs(step) < _STEP_SECONDS:
            return ""
        return (
            f"The wall clock has moved {'forward' if step > 0 else 'back'} by {abs(step):.0f} s more than the "
            "monotonic one since the review began: it was set, or the machine was suspended. Clearance has come as "
            "soon as one of the two says so."
        )


TRANSIT_SAMPLES: Final = 256
TRANSIT_WINDOW_SECONDS: Final = 600.0

_COMPANY_SECONDS: Final = 1.0
_LARGEST_COMPANY: Final = 3

STEP_RUN: Final = 3
STEP_SPREAD_SECONDS: Final = 0.25
"""This many consecutive messages with the same delay, within this many seconds, are a step of the sender's clock."""


class TransitEstimate:
    """Estimates the transit time of messages without assuming that the two clocks agree.

    `received - timestamp` is the transit time plus the unknown difference between the sender's clock and ours. Its
    smallest recent value belongs to the fastest message; the difference to it is a message's own delay. Because only
    differences count, our side may be a monotonic clock, and a wrong wall clock changes nothing.

    A message with a time stamp in the future, from a sender whose clock is wrong, would make all others look late. So
    the smallest value must be confirmed: of six known messages by another one within a second of it, of nine by two.

    When the sender's clock is set back, or when one of its servers is behind the others, messages look late by the same
    amount from then on. So three consecutive late messages whose delays are within 0.25 s of each other are a step of
    the clock: later messages with a similar delay are measured against them. Messages that are on time may arrive in
    between. Three late ones in a row with other delays end the step, and so does a window without any.

    The window holds the last 256 messages, none older than 10 minutes. Safe for threads.
    """

    def __init__(self, *, samples: int = TRANSIT_SAMPLES, window: float = TRANSIT_WINDOW_SECONDS) -> None:
        self._samples = samples
        self._window = window
        self.after_fork()
        self._seen: deque[tuple[float, float]] = deque()
        self._offsets: list[float] = []  # those of `_seen`, in order of size
        self._late: deque[tuple[float, float]] = deque(maxlen=STEP_RUN)
        self._step: float | None = None  # the smallest offset of those that made the step
        self._step_seen = -math.inf

    def after_fork(self) -> None:
        """Replace the lock, in a forked child: a thread may hold it that the child does not have."""
        self._lock = threading.Lock()

    def observe(self, *, received: float, sent: float) -> float:
        """Record a message and return its delay.

        Args:
            received: Our clock at arrival, seconds.
            sent: The sender's time stamp, seconds.

        Returns:
            Seconds, 0 or more, by which this message was slower than the fastest recent one.
        """
        offset = received - sent
        with self._lock:
            self._seen.append((received, offset))
            insort(self._offsets, offset)
            while len(self._seen) > self._samples or self._seen[0][0] < received - self._window:
                _, gone = self._seen.popleft()
                del self._offsets[bisect_left(self._offsets, gone)]
            return max(0.0, offset - self._measure_of(offset, received))

    def sender_now(self, *, now: float) -> float | None:
        """Return what the sender's clock shows at our `now`, in seconds, or None before the first message."""
        with self._lock:
            if not self._offsets:
                return None
            return now - (self._fastest() if self._step is None else self._step)

    def _measure_of(self, offset: float, received: float) -> float:
        """Return the offset that a message without delay would have, and update the step from this one."""
        fastest = self._fastest()
        if offset - fastest > STEP_SPREAD_SECONDS:
            self._late.append((received, offset))
            self._learn_step(received)
        if self._step is not None:
            if received - self._step_seen > self._window or self._step - fastest <= STEP_SPREAD_SECONDS:
                self._step = None
            elif offset >= self._step - STEP_SPREAD_SECONDS:
                if offset - self._step <= STEP_SPREAD_SECONDS:
                    self._step_seen = received
                return self._step
        return fastest

    def _learn_step(self, received: float) -> None:
        """Update the step: the last late messages may agree with each other, or else with the known step."""
        if len(self._late) < STEP_RUN or received - self._late[0][0] > self._window:
            return
        offsets = [offset for _, offset in self._late]
        if max(offsets) - min(offsets) <= STEP_SPREAD_SECONDS:
            if self._step is None or abs(min(offsets) - self._step) > STEP_SPREAD_SECONDS:
                self._step, self._step_seen = min(offsets), received
        elif self._step is not None and all(abs(offset - self._step) > STEP_SPREAD_SECONDS for offset in offsets):
            self._step = None

    def _fastest(self) -> float:
        offsets = self._offsets
        company = min(_LARGEST_COMPANY, len(offsets) // 3) or 1
        for at in range(len(offsets) - company + 1):  # nearly always the first one
            if offsets[at + company - 1] - offsets[at] <= _COMPANY_SECONDS:
                return offsets[at]
        return offsets[0]


def zone_of(timezone: ZoneInfo | str, *, setting: str = "timezone=") -> ZoneInfo:
    """Return the time zone of an IANA name, such as `Europe/London`.

    Args:
        timezone: The name, or the zone itself.
        setting: Where the name was given, for the message.

    Raises:
        ConfigurationError: It is not known.
    """
    if isinstance(timezone, ZoneInfo):
        return timezone
    try:
        return ZoneInfo(timezone)
    except (ValueError, OSError, KeyError, TypeError, AttributeError):  # ZoneInfoNotFoundError is a KeyError
        pass
    advice = f"{setting} must be an IANA name like Europe/London."
    if available_timezones():
        raise ConfigurationError(f"The time zone is not known: {advice}")
    # Slim images and Windows; there every name is unknown, the right ones too.
    raise ConfigurationError(f"This machine has no time zone database: pip install tzdata. If it has one, {advice}")


def readings(moment: datetime, zone: tzinfo) -> list[datetime]:
    """Return the moments in UTC that a local time in a zone can mean, one or two, the earlier first."""
    if moment.tzinfo is not None:
        return [moment.astimezone(UTC)]
    try:
        return sorted({moment.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)})
    except OverflowError:  # within a day of the first or the last moment that there is
        return [moment.replace(tzinfo=UTC)]


_CLOCKS_DIFFER: Final = 300.0
"""Seconds by which the sender's clock may be ahead of ours."""


def announced_instant(
    moment: datetime, zone: tzinfo, *, announced: datetime, announced_zone: tzinfo, now: float | None = None
) -> tuple[datetime, bool]:
    """Return the moment that an announced local time means: the earliest reading that is not before the announcement.

    An announcement can fall into the same repeated hour. Nothing is announced in the future, so it was made at the
    latest of its readings that has passed by `now`, unless then its moment would be over before it.

    Args:
        moment: What was announced, as a clock on the wall shows it, without a zone.
        zone: Where the clock hangs.
        announced: When, as a clock shows it, without a zone.
        announced_zone: Where that clock hangs.
        now: Seconds since 1970; None when it is not known, and then the earliest reading of `announced` is taken.

    Returns:
        The moment in UTC, and whether there was more than one reading of it.
    """
    found = readings(moment, zone)
    stamps = readings(announced, announced_zone)
    passed = [] if now is None else [one for one in stamps[1:] if one.timestamp() <= now + _CLOCKS_DIFFER]
    stamp = next((one for one in reversed(passed) if one <= found[-1]), stamps[0])
    return next((one for one in found if one >= stamp), found[0]), len(found) > 1
