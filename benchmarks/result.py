"""One line of the table."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """A measurement beside its floor.

    Attributes:
        what: What was measured.
        unit: Of both numbers.
        ours: The SDK's number.
        floor: The same work without the SDK.
        goal: What the ratio must not be above, or below when more is better.
        more_is_better: Whether the numbers are a throughput.
    """

    what: str
    unit: str
    ours: float
    floor: float
    goal: float
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """Ours over the floor's."""
        return self.ours / self.floor

    @property
    def reached(self) -> bool:
        """Whether the goal is met."""
        return self.ratio >= self.goal if self.more_is_better else self.ratio <= self.goal

    def row(self) -> str:
        """Return the line of the table."""
        ours, floor = f"{self.ours:.1f} {self.unit}", f"{self.floor:.1f} {self.unit}"
        sign = "at least" if self.more_is_better else "at most"
        verdict = "reached" if self.reached else "MISSED"
        return f"{self.what:44} {ours:>12} {floor:>12} {self.ratio:7.2f}  {sign} {self.goal}: {verdict}"


def fastest(functions: list[Callable[[], object]], *, calls: int, rounds: int) -> list[float]:
    """Return the seconds a call of each function at its fastest; rounds alternate, so that noise meets all alike."""
    best = [float("inf")] * len(functions)
    for _ in range(rounds):
        for index, function in enumerate(functions):
            began = time.perf_counter()
            for _ in range(calls):
                function()
            best[index] = min(best[index], (time.perf_counter() - began) / calls)
    return best
