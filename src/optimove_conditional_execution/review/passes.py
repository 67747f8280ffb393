"""The passes of one review: what each hands on to the next, and how long to wait between them."""

from __future__ import annotations

import dataclasses
import time
from typing import Final

from optimove_conditional_execution.deadline import Clock
from optimove_conditional_execution.flows.report import ReviewReport

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_SHORTEST_PASS: Final = 1.0
"""Seconds before clearance after which no further pass begins."""


class Passes:
    """A review that stays incomplete is run again while there is time. Each run of its pipeline is a pass.

    Attributes:
        margin: Seconds before clearance at which the reviewer is not asked any more; None before the first pass.
        all_decided: Whether every customer has come and is decided about, so that only sending is left.
        all_sent: Whether Optimove has taken every status that was decided, so that only asking is left.
    """

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        """Begin before the first pass.

        Args:
            clock: A monotonic clock, seconds.
        """
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
        """Take in the report of a pass, and return that of all passes together."""
        self._count += 1
        before = self._report
        if before is not None:
            again = () if self._count > 2 else (f"The first pass was incomplete: {_reason(before)}",)
            report = dataclasses.replace(
                report,
                # Those who came in an earlier pass, and not in this one, are still to be decided about.
                not_reached=report.not_reached + max(0, _known(before) - _known(report)),
                rows=max(before.rows, report.rows),
                repeated_rows=max(before.repeated_rows, report.repeated_rows),
                control_group_rows=max(before.control_group_rows, report.control_group_rows),
                chunks=before.chunks + report.chunks,
                retries=before.retries + report.retries,
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
        # As long as the last pass took at least: reading a large campaign again costs others of the rate limit.
        took = self._clock() - self._last_began
        pause = min(max(self._next_pause, took), left / 2)
        if left - pause < _SHORTEST_PASS:
            return None
        if self.all_sent and self.margin is not None and left - pause <= self.margin:
            return None  # the reviewer would not be asked any more, and nothing is left to send
        self._next_pause = min(2 * self._next_pause, _LONGEST_PAUSE)
        self._last_began = self._clock() + pause
        return pause


def _known(report: ReviewReport) -> int:
    return report.approved + report.denied + report.failed + report.not_reached


def _reason(report: ReviewReport) -> str:
    if report.error is not None:
        return str(report.error)
    return f"{report.failed} customers failed, {report.not_reached} were not reached."
