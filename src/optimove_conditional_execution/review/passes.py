"""The passes of a review: an incomplete one is run again while there is time, and all passes have one report."""

from __future__ import annotations

import dataclasses
import time
from typing import Final

from ..deadline import Clock
from ..flows.report import ReviewReport
from .stopping import Stop

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
"""Seconds between two passes of a review; the pause doubles."""

_SHORTEST_PASS: Final = 1.0
"""Seconds before clearance after which no further pass begins."""


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
