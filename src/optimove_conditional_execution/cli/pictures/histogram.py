"""How long answers took, counted in bins, against the deadline."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, final

from optimove_conditional_execution.cli.pictures.scales import (
    STEPS,
    TENTHS,
    TWENTIETHS,
    preferred,
    ticks,
)
from optimove_conditional_execution.cli.pictures.wording import counted, milliseconds, number

_LOG_FROM: Final = 10
"""An axis that ends beyond so many times the median is logarithmic: half of the answers would stand in one tenth."""

_FINE_UP_TO: Final = 100
"""Up to this quotient of the axis' ends a decade has twenty bins, above it ten."""

_MOST_DECADES: Final = 5
_LINEAR_BINS: Final = 40


@final
@dataclass(frozen=True, slots=True)
class Bin:
    """Latencies above `low`, up to and with `high`; the first bin has its `low` too.

    Attributes:
        low: Milliseconds.
        high: Milliseconds.
        count: Answers.
        late: Whether it lies past the deadline; no bin lies on both sides.
    """

    low: float
    high: float
    count: int
    late: bool

    def __str__(self) -> str:
        """Return its bounds as words."""
        return f"{number(self.low)} to {milliseconds(self.high)}"


@final
@dataclass(frozen=True, slots=True)
class Histogram:
    """A picture of latencies and their deadline; `Histogram.of` makes it.

        picture = Histogram.of([31, 35, 34, 73], deadline_ms=5_000)
        show(picture)

    The axis is linear from 0 when half of the answers take a tenth of its length or more. Otherwise it is logarithmic:
    answers of 5 ms against a deadline of 5,000 ms would all stand in its first hundredth.

    Attributes:
        bins: In order, without gaps; empty when there was no answer. The deadline is the end of one.
        deadline_ms: Milliseconds that an answer might take.
        scale: How the axis runs.
        total: Answers.
        late: Answers that took longer than the deadline.
        median_ms: Milliseconds within which half of the answers came; None without any.
        slowest_ms: Milliseconds of the slowest; None without any.
        untimed_late: Answers that came after the deadline and stand in no bin, since nobody measured them.
    """

    bins: tuple[Bin, ...]
    deadline_ms: float
    scale: Literal["linear", "log"]
    total: int
    late: int
    median_ms: float | None
    slowest_ms: float | None
    untimed_late: int = 0

    @classmethod
    def of(cls, latencies_ms: Iterable[float], *, deadline_ms: float, untimed_late: int = 0) -> Histogram:
        """Count latencies.

        Args:
            latencies_ms: Milliseconds from notification to answer, of every answer that came, in any order.
            deadline_ms: Milliseconds that an answer might take. An answer that took just that long is in time.
            untimed_late: Answers that came after the deadline and are not among the latencies.

        Raises:
            ValueError: A latency is negative or no finite number, or the deadline is not above 0.
        """
        ordered = sorted(latencies_ms)
        if not all(math.isfinite(latency) and latency >= 0 for latency in ordered):
            raise ValueError("latencies_ms must be finite and not negative: measure them with one monotonic clock.")
        if not (math.isfinite(deadline_ms) and deadline_ms > 0):
            raise ValueError("deadline_ms must be above 0 and finite.")
        if not ordered:
            return cls((), deadline_ms, "linear", 0, 0, None, None, untimed_late)
        median, slowest = ordered[(len(ordered) - 1) // 2], ordered[-1]
        top = max(slowest, deadline_ms)
        scale: Literal["linear", "log"] = "log" if median * _LOG_FROM < top else "linear"
        first = min(ordered[0], deadline_ms)
        edges = _log_edges(first, top) if scale == "log" else _linear_edges(top)
        if all(float(latency).is_integer() for latency in ordered):
            # A bin that holds no whole number would look like a gap in the answers.
            edges = [float(math.floor(edge)) for edge in edges]
        bounds = sorted({*edges, float(deadline_ms)})
        bounds = bounds[max(0, bisect.bisect_left(bounds, first) - 1) :] if scale == "log" else bounds
        ranks = [0, *(bisect.bisect_right(ordered, edge) for edge in bounds[1:])]
        bins = tuple(
            Bin(low, high, after - before, late=low >= deadline_ms)
            for low, high, before, after in zip(bounds[:-1], bounds[1:], ranks[:-1], ranks[1:], strict=True)
        )
        late = len(ordered) - bisect.bisect_right(ordered, deadline_ms)
        return cls(bins, deadline_ms, scale, len(ordered), late, median, slowest, untimed_late)

    @property
    def most(self) -> int:
        """Answers in the fullest bin."""
        return max((one.count for one in self.bins), default=0)

    @property
    def before_deadline(self) -> int:
        """How many bins lie before the deadline."""
        return sum(not one.late for one in self.bins)

    @property
    def title(self) -> str:
        """What it shows, as a heading."""
        return f"Answers by latency, in ms{' (log scale)' if self.scale == 'log' else ''}"

    @property
    def sentence(self) -> str:
        """What it shows, as words."""
        against = f"the deadline of {milliseconds(self.deadline_ms)}"
        more = f" {self.untimed_late:,} more came after it and could not be timed." if self.untimed_late else ""
        if self.median_ms is None or self.slowest_ms is None:
            return f"No answer was timed that could be held against {against}.{more}"
        came = "It took" if self.total == 1 else f"Half of them within {milliseconds(self.median_ms)}, the slowest took"
        late = f"{self.late:,}" if self.late else "None"
        took = f"{came} {milliseconds(self.slowest_ms)}"
        return f"{counted(self.total, 'answer')}. {took}. {late} came after {against}.{more}"

    @property
    def caption(self) -> str:
        """Why its axis runs as it does."""
        if self.scale == "linear":
            return "Each bar counts the answers between two latencies. The axis is linear."
        return (
            "Each bar counts the answers between two latencies. The axis is logarithmic, since most answers took less "
            "than a tenth of its length: equal distances mean equal factors."
        )

    def labels(self) -> Iterator[list[tuple[int, str]]]:
        """Yield choices of labels below the axis, the most detailed first: the number of an edge, and its text."""
        edges = [one.low for one in self.bins] + [one.high for one in self.bins[-1:]]
        round_ones: list[Sequence[float]]
        if self.scale == "log":
            lowest = max(min(edge for edge in edges if edge > 0) / 2, 1e-9)
            round_ones = [preferred(lowest, edges[-1], some) for some in (STEPS, (1.0, 5.0), (1.0,))]
        else:
            round_ones = [ticks(edges[-1], most) for most in (10, 5, 4, 2, 1)]
        for some in round_ones:
            wanted = set(some)
            yield [(index, number(edge)) for index, edge in enumerate(edges) if edge in wanted]

    def coarser(self) -> Histogram:
        """Return it with about half as many bins, for a narrow place; one that cannot be coarser returns itself."""
        merged = tuple(
            Bin(pair[0].low, pair[-1].high, sum(one.count for one in pair), pair[0].late)
            for late in (False, True)
            for pair in _pairs([one for one in self.bins if one.late is late])
        )
        return replace(self, bins=merged)


def _pairs(bins: Sequence[Bin]) -> Iterator[Sequence[Bin]]:
    return (bins[index : index + 2] for index in range(0, len(bins), 2))


def _log_edges(first: float, top: float) -> list[float]:
    # A little less, so that the first bin begins below it.
    low = max(first * 0.99, top / 10**_MOST_DECADES)
    edges = preferred(low, top, TWENTIETHS if top / low <= _FINE_UP_TO else TENTHS)
    # The first bin is open below, so that what is faster still has a place.
    return [0.0, *edges]


def _linear_edges(top: float) -> list[float]:
    return list(ticks(top, _LINEAR_BINS))
