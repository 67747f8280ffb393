"""This machine's clock against the server's."""

from __future__ import annotations

import email.utils
from collections.abc import Iterable, Iterator
from typing import Final

from optimove_conditional_execution.cli.doctor.check import Check, not_checked
from optimove_conditional_execution.cli.doctor.probe import Answer

_TOLERANCE: Final = 2.0
_RESOLUTION: Final = 1.0
"""Seconds; a `Date` header is cut to the second."""


def clock_check(answers: Iterable[Answer]) -> Check:
    """Compare the local clock with the `Date` headers of answers.

    Each header stands for any moment of its second, taken somewhere between request and answer, so each answer gives a
    range; together they narrow it.
    """
    ranges = list(_ranges(answers))
    if not ranges:
        return not_checked(
            "clock", "No answer told the server's time.", "Compare this machine's clock with another, or use NTP."
        )
    low, high = max(low for low, _ in ranges), min(high for _, high in ranges)
    if low > high:  # several servers, whose clocks differ
        low, high = ranges[0]
    ahead = (low + high) / 2
    if abs(ahead) < _TOLERANCE or low <= 0 <= high:
        return Check(
            "clock",
            "ok",
            f"This machine's clock and the server's differ by less than {_TOLERANCE:g} s, as far as its seconds tell.",
        )
    return Check(
        "clock",
        "warning",
        f"This machine's clock is {'fast' if ahead > 0 else 'slow'} by about {abs(ahead):.1f} s.",
        "Use NTP. For triggered campaigns it changes nothing, since Optimove's own stamps are counted. For scheduled "
        "ones ClearanceRequiredBy is held against this clock, and TimeStamp is read from it.",
    )


def _ranges(answers: Iterable[Answer]) -> Iterator[tuple[float, float]]:
    """Yield how far this machine's clock can be ahead, in seconds, by each answer."""
    for answer in answers:
        stamp = _seconds(answer.header("date"))
        # What a cache has kept was stamped before it was asked for.
        if stamp is not None and answer.header("age") is None:
            # A round trip on a clock that nobody sets: the wall clock may be set in between.
            yield answer.sent_at - stamp - _RESOLUTION, answer.sent_at + answer.seconds - stamp


def _seconds(date: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date or "").timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
