"""What is kept of a review's progress: evenly spread samples, never more than so many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, final

from optimove_conditional_execution.flows.report import Progress

MOST: Final = 240
"""Samples of a review; a picture shows no more."""


def evenly(samples: Sequence[tuple[float, int]], most: int = MOST) -> tuple[tuple[float, int], ...]:
    """Return so many of the samples at most, evenly spread, the first and the last among them.

    Args:
        samples: In order.
        most: 2 or more.
    """
    if len(samples) <= most:
        return tuple(samples)
    last = len(samples) - 1
    return tuple(samples[index * last // (most - 1)] for index in range(most))


@final
class ProgressSamples:
    """Keeps a review's progress in flat memory, however long it runs; made to be its `progress=`.

    When there are too many, every second one is dropped, and from then on only every second one is kept. So what is
    kept stays evenly spread; the first and the last always stand in it.
    """

    def __init__(self, most: int = MOST) -> None:
        """Keep nothing yet.

        Args:
            most: Samples at most, 4 or more.
        """
        self._most = most
        self._kept: list[Progress] = []
        self._every = 1
        self._seen = 0
        self._latest: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        """Take note of how far the review is."""
        self._latest = progress
        if self._seen % self._every == 0:
            self._kept.append(progress)
            # One place is the latest one's.
            if len(self._kept) >= self._most:
                self._kept = self._kept[::2]
                self._every *= 2
        self._seen += 1

    def all(self) -> tuple[Progress, ...]:
        """Return the samples, in order."""
        if self._latest is None or self._kept[-1] is self._latest:
            return tuple(self._kept)
        return (*self._kept, self._latest)


@final
class ReviewSamples:
    """Keeps the progress of several reviews that run at once, by campaign."""

    def __init__(self) -> None:
        self._campaigns: dict[int, ProgressSamples] = {}

    def __call__(self, progress: Progress) -> None:
        """Take note of how far a review is."""
        self._campaigns.setdefault(progress.campaign_id, ProgressSamples())(progress)

    def of(self, campaign_id: int) -> tuple[Progress, ...]:
        """Return a campaign's samples, in order."""
        kept = self._campaigns.get(campaign_id)
        return () if kept is None else kept.all()
