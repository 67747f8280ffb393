"""What failed in a review and why, in words that quote nobody's data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, final

Unit = Literal["batches", "customers"]


@final
class Failures:
    """Counts failures by their reason."""

    def __init__(self) -> None:
        """Start with none."""
        self._counts: dict[tuple[Unit, str], int] = {}

    def add(self, unit: Unit, reason: str, count: int = 1) -> bool:
        """Count failures, and tell whether the reason is new.

        Args:
            unit: What failed.
            reason: A sentence without personal data.
            count: How many.
        """
        known = self._counts.get((unit, reason), 0)
        self._counts[unit, reason] = known + count
        return not known

    def told(self) -> Iterator[str]:
        """Yield a line for each reason."""
        for (unit, reason), count in self._counts.items():
            yield f"{count} {unit} failed: {reason}"
