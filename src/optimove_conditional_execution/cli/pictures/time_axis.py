"""The time axis of a burn-up, which must show both the work and a clearance that may be hours away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

from optimove_conditional_execution.cli.pictures.scales import ticks
from optimove_conditional_execution.cli.pictures.wording import number, unit_of

_BREAK_FROM: Final = 4
"""When clearance is so many times as far as the end of the work, the axis is broken."""

_WORK_ENDS: Final = 0.74
_BREAK: Final = 0.8
_ASKING_ENDS: Final = 0.88
_CLEARANCE: Final = 0.96


@final
@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Seconds since the start, from 0 on the left to 1 on the right.

    It is linear. When the work takes less than a quarter of the time until clearance, it would stand in a corner; then
    the axis shows the work alone, is broken, and clearance stands behind the break.

    Attributes:
        end: Seconds at which the linear part ends.
        clearance: Seconds from the start until clearance.
        asking_ends: Seconds from the start until the safety margin begins; None without one.
        broken: Whether clearance stands behind a break.
    """

    end: float
    clearance: float
    asking_ends: float | None
    broken: bool

    @classmethod
    def of(cls, *, last: float, clearance: float, asking_ends: float | None) -> TimeAxis:
        """Choose an axis.

        Args:
            last: Seconds of the last thing that is shown, above 0.
            clearance: Seconds, above 0.
            asking_ends: Seconds, below `clearance`; None without a safety margin.
        """
        if last * _BREAK_FROM < clearance:
            return cls(ticks(last, 5)[-1], clearance, asking_ends, broken=True)
        return cls(max(last, clearance) / _CLEARANCE, clearance, asking_ends, broken=False)

    def position(self, seconds: float) -> float:
        """Return where a moment of the work stands."""
        return seconds / self.end * (_WORK_ENDS if self.broken else 1.0)

    @property
    def break_at(self) -> float | None:
        """Where the axis is broken; None when it is not."""
        return _BREAK if self.broken else None

    @property
    def clearance_at(self) -> float:
        """Where clearance stands."""
        return _CLEARANCE if self.broken else self.position(self.clearance)

    @property
    def asking_ends_at(self) -> float | None:
        """Where the safety margin begins; None without one."""
        if self.asking_ends is None:
            return None
        return _ASKING_ENDS if self.broken else self.position(self.asking_ends)

    def labels(self) -> Iterator[list[tuple[float, str]]]:
        """Yield choices of labels below the axis, the most detailed first: where, and the text."""
        size, unit = unit_of(self.end)
        for most in (8, 5, 4, 2, 1):
            found = [value for value in ticks(self.end / size, most) if value * size <= self.end * 1.0001]
            yield [(self.position(value * size), f"{number(value)} {unit}") for value in found]
