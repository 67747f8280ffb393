"""When a review runs: doubts about the times of its event, its passes, and stopping it early.

An incomplete review is run again while there is time, and all passes have one report. A request to stop comes from any
thread or a signal handler; clocks that move ahead bring the deadlines forward for everybody who has one.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from .. import validation
from ..deadline import Clock, Deadline, readings
from ..flows.report import ReviewReport
from ..models.events import CampaignReadyEvent
from .config import LOGGER, ReviewConfig

T = TypeVar("T")

WRONG_ZONE_SECONDS: Final = 2_700.0
"""Seconds between a fresh event's time stamp and now, above which its zone must be another one; most differ by 1 h."""

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
"""Seconds between two passes of a review; the pause doubles."""

_SHORTEST_PASS: Final = 1.0
"""Seconds before clearance after which no further pass begins."""

STOPPED: Final = "The review was stopped before it was complete: resume() goes on with it."

_LOOK_SECONDS: Final = 0.1
"""Seconds between two looks at whether a stop was requested, which another thread or a signal handler may do."""


_LAST_STEPS_SECONDS: Final = 2.0
"""Seconds that a journal that hangs can take beyond the time of a stop."""


def doubts_about(
    event: CampaignReadyEvent, clearance: datetime | None, config: ReviewConfig, *, fresh: bool
) -> list[str]:
    """Return warnings about an event's times, and log them.

    Args:
        event: The event.
        clearance: The chosen reading when there are several.
        config: The review's settings.
        fresh: Whether the event has just come.
    """
    zone = config.timezone
    doubts: list[str] = []
    if clearance is not None:
        doubts.append(
            f"ClearanceRequiredBy falls into a change of clocks in {zone.key}, so it has two readings. "
            "The earliest that is not before the event's TimeStamp is used: "
            f"{clearance.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."
        )
    if event.contradicts(zone):
        doubts.append(
            f"ClearanceRequiredBy names another UTC offset than {zone.key} has then; the event's own counts. "
            "Check timezone=, which statuses are stamped in."
        )
    now = config.wall_clock()
    stamps = readings(event.timestamp, event.timestamp_zone(zone))
    off = min((stamp.timestamp() - now for stamp in stamps), key=abs)
    if fresh and abs(off) >= WRONG_ZONE_SECONDS:
        doubts.append(
            f"The event's TimeStamp is {abs(off) / 3600:.1f} h {'ahead of' if off > 0 else 'behind'} now in "
            f"{zone.key}: probably the time zone is wrong, and with it the clearance. Check timezone=."
        )
    for doubt in doubts:
        LOGGER.warning("campaign %d: %s", event.campaign_id, doubt)
    return doubts


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


class Passes:
    """The passes of a review: each is a run of its pipeline, and an incomplete review is run again while there is time.

    Attributes:
        stop: Whether they are to stop.
        margin: Seconds before clearance from which the reviewer is not called any more; None before the first pass.
        all_decided: Whether every customer has been read and decided about, so that only sending is left.
        all_sent: Whether Optimove has acknowledged every decided status, so that only reviewing is left.
    """

    def __init__(self, stop: Stop | None = None, *, clock: Clock = time.monotonic) -> None:
        """Start before the first pass.

        Args:
            stop: Whether they are to stop; None if nothing stops them.
            clock: A monotonic clock, seconds.
        """
        self.stop = Stop() if stop is None else stop
        self._clock = clock
        self._begun = clock()
        self._count = 0
        self._report: ReviewReport | None = None
        self._next_pause = _FIRST_PAUSE
        self._last_began = self._begun
        self.margin: float | None = None
        self.all_decided = False
        self.all_sent = False

    def added(self, report: ReviewReport) -> ReviewReport:
        """Add the report of a pass, and return the report of all passes together."""
        self._count += 1
        before = self._report
        if before is not None:
            again = () if self._count > 2 else (f"The first pass was incomplete: {_reason(before)}",)
            report = dataclasses.replace(
                report,
                # Customers who were read in an earlier pass, and not in this one, are still undecided.
                not_reached=report.not_reached + max(0, _known(before) - _known(report)),
                rows=max(before.rows, report.rows),
                repeated_rows=max(before.repeated_rows, report.repeated_rows),
                control_group_rows=max(before.control_group_rows, report.control_group_rows),
                chunks=before.chunks + report.chunks,
                retries=before.retries + report.retries,
                would_approve=None
                if report.would_approve is None
                else report.would_approve + (before.would_approve or 0),
                seconds=self._clock() - self._begun,
                warnings=tuple(dict.fromkeys((*before.warnings, *again, *report.warnings))),
            )
        self._report = report
        return report

    def pause(self, left: float) -> float | None:
        """Return the seconds to wait before the next pass; None when there is no time for one.

        Args:
            left: Seconds until clearance.
        """
        # At least as long as the last pass took: reading a large campaign again uses up the shared rate limit.
        took = self._clock() - self._last_began
        pause = min(max(self._next_pause, took), left / 2)
        if self.margin is not None and not self.all_sent and left > self.margin:
            pause = min(pause, max(left - self.margin, _FIRST_PAUSE))  # then what is decided is to be sent
        if left - pause < _SHORTEST_PASS:
            return None
        if self.all_sent and self.margin is not None and left - pause <= self.margin:
            return None  # the reviewer would not be called any more, and nothing is left to send
        self._next_pause = min(2 * self._next_pause, _LONGEST_PAUSE)
        self._last_began = self._clock() + pause
        return pause


def _known(report: ReviewReport) -> int:
    return report.approved + report.denied + report.failed + report.not_reached


def _reason(report: ReviewReport) -> str:
    if report.error is not None:
        return str(report.error)
    return f"{report.failed} customers failed, {report.not_reached} were not reached."
