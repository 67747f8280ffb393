"""How long answers took, in the few numbers that people compare with a deadline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import final


@final
@dataclass(frozen=True, slots=True)
class Latencies:
    """Percentiles by the nearest-rank method, so each is a latency that was really seen.

    Attributes:
        p50: Milliseconds; None when there was no answer at all, as in the others.
        p95: Milliseconds.
        p99: Milliseconds.
        max: Milliseconds.
    """

    p50: int | None
    p95: int | None
    p99: int | None
    max: int | None

    @classmethod
    def of(cls, milliseconds: Iterable[int]) -> Latencies:
        """Return the percentiles of some latencies."""
        ordered = sorted(milliseconds)
        return cls(*(_rank(ordered, percent) for percent in (50, 95, 99, 100)))

    def as_json(self) -> dict[str, int | None]:
        """Return them as a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        """Return them as words."""
        if self.max is None:
            return "no answers"
        return f"p50 {self.p50} ms, p95 {self.p95} ms, p99 {self.p99} ms, max {self.max} ms"


def _rank(ordered: Sequence[int], percent: int) -> int | None:
    return ordered[math.ceil(percent / 100 * len(ordered)) - 1] if ordered else None
