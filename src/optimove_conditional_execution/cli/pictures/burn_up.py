"""How many customers of a campaign were done with at each moment, against clearance."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from optimove_conditional_execution.cli.pictures.samples import evenly
from optimove_conditional_execution.cli.pictures.scales import ticks
from optimove_conditional_execution.cli.pictures.time_axis import TimeAxis
from optimove_conditional_execution.cli.pictures.wording import counted, duration
from optimove_conditional_execution.flows.report import Progress


@final
@dataclass(frozen=True, slots=True)
class Series:
    """A number that grows.

    Attributes:
        name: What is counted, such as "decided".
        points: Seconds since the start and the number then, in order.
    """

    name: str
    points: tuple[tuple[float, int], ...]

    @property
    def last(self) -> int:
        """The number at the end."""
        return self.points[-1][1] if self.points else 0

    def at(self, seconds: float) -> float | None:
        """Return the number at a moment, on the line between two points; None where nothing was measured."""
        if not self.points or not self.points[0][0] <= seconds <= self.points[-1][0]:
            return None
        index = bisect.bisect_right(self.points, seconds, key=lambda point: point[0])
        (before, low) = self.points[index - 1]
        if index == len(self.points):
            return low
        (after, high) = self.points[index]
        return low + (high - low) * (seconds - before) / (after - before)


@final
@dataclass(frozen=True, slots=True)
class BurnUp:
    """A picture of a review, or of what its campaign heard; `BurnUp.of` and `BurnUp.of_review` make it.

        samples = ProgressSamples()
        report = CampaignReview(reviewer, client=client, progress=samples).run(event)
        show(BurnUp.of_review(samples.all(), total=report.reviewed + report.not_reached, safety_margin=30))

    Attributes:
        series: Each is drawn over the one before it, which should be the larger one.
        clearance: Seconds from the start until clearance.
        asking_ends: Seconds from the start until the safety margin begins; None without one.
        total: Customers; None when nobody knows.
    """

    series: tuple[Series, ...]
    clearance: float
    asking_ends: float | None
    total: int | None

    @classmethod
    def of(
        cls,
        series: Mapping[str, Sequence[tuple[float, int]]],
        *,
        clearance: float,
        safety_margin: float | None = None,
        total: int | None = None,
    ) -> BurnUp:
        """Draw numbers over time.

        Args:
            series: By name: seconds since the start and the number then, the larger numbers first.
            clearance: Seconds from the start until clearance.
            safety_margin: Seconds before clearance at which the reviewer was not asked any more; as in a review, half
                of the time is the most. None without one.
            total: Customers; None when nobody knows.
        """
        margin = None if safety_margin is None else min(safety_margin, clearance / 2)
        return cls(
            tuple(Series(name, evenly(sorted(points))) for name, points in series.items()),
            clearance,
            None if margin is None else clearance - margin,
            total,
        )

    @classmethod
    def of_review(cls, samples: Sequence[Progress], *, total: int | None, safety_margin: float) -> BurnUp:
        """Draw a review.

        Args:
            samples: Of one review, in order.
            total: Customers; None when not all have come.
            safety_margin: Seconds, as the review was given.
        """
        return cls.of(
            {
                "decided": [(sample.seconds, sample.approved + sample.denied) for sample in samples],
                "acknowledged": [(sample.seconds, sample.acknowledged) for sample in samples],
            },
            # The first sample: later ones say 0 when clearance has passed.
            clearance=samples[0].seconds + samples[0].seconds_left if samples else 0.0,
            safety_margin=safety_margin,
            total=total,
        )

    @property
    def safety_margin(self) -> float | None:
        """Seconds between the end of asking and clearance; None without a margin."""
        return None if self.asking_ends is None else self.clearance - self.asking_ends

    @property
    def last(self) -> float:
        """Seconds of the last point."""
        return max((one.points[-1][0] for one in self.series if one.points), default=0.0)

    @property
    def drawable(self) -> bool:
        """Whether there is something to draw: a number above 0, and some time."""
        return self.last > 0 and self.clearance > 0 and any(one.last for one in self.series)

    @property
    def axis(self) -> TimeAxis:
        """The time axis, if there is something to draw."""
        return TimeAxis.of(last=self.last, clearance=self.clearance, asking_ends=self.asking_ends)

    @property
    def levels(self) -> tuple[float, ...]:
        """Round numbers of customers for the upright axis, from 0."""
        most = max(count for one in self.series for _, count in one.points)
        return ticks(max(most, self.total or 0), 4, least=1)

    @property
    def title(self) -> str:
        """What it shows, as a heading."""
        return "Customers over time, against clearance"

    @property
    def sentence(self) -> str:
        """What it shows, as words."""
        if not self.drawable:
            return "Nothing was counted over time, so there is nothing to draw."
        numbers = " and ".join(f"{one.last:,} {one.name}" for one in self.series)
        of = "" if self.total is None else f" of {counted(self.total, 'customer')}"
        left = self.clearance - self.last
        when = f"{duration(left)} before clearance" if left >= 0 else f"{duration(-left)} after clearance"
        return f"After {duration(self.last)}: {numbers}{of}. That was {when}."

    @property
    def caption(self) -> str:
        """What else there is to know about it."""
        if self.axis.broken:
            return "Time since the start. The axis is broken: clearance is much later than the end of the work."
        return "Time since the start."
