"""Where values stand on an axis, and which round numbers are written below it. Plain arithmetic, for every renderer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

STEPS: Final = (1.0, 2.0, 5.0)
"""Round numbers of one decade, for axes."""

TENTHS: Final = (1.0, 1.25, 1.6, 2.0, 2.5, 3.15, 4.0, 5.0, 6.3, 8.0)
"""Ten preferred numbers of one decade (ISO 3, R10), each about a quarter more than the one before."""

TWENTIETHS: Final = (
    1.0, 1.12, 1.25, 1.4, 1.6, 1.8, 2.0, 2.24, 2.5, 2.8, 3.15, 3.55, 4.0, 4.5, 5.0, 5.6, 6.3, 7.1, 8.0, 9.0,
)  # fmt: skip
"""Twenty of them (R20)."""


def preferred(low: float, high: float, numbers: Sequence[float] = STEPS) -> list[float]:
    """Return the round numbers from the last one up to `low` to the first one from `high` on.

    Args:
        low: Above 0.
        high: `low` or more.
        numbers: Of the decade from 1 to 10, ascending.
    """
    first = math.floor(math.log10(low)) - 1
    last = math.ceil(math.log10(high)) + 1
    # Read from text, since 3 * 0.1 is not 0.3.
    found = [float(f"{number}e{decade}") for decade in range(first, last + 1) for number in numbers]
    start = max(index for index, number in enumerate(found) if number <= low)
    end = min(index for index, number in enumerate(found) if number >= high)
    return found[start : end + 1]


def step_for(span: float, most: int, *, least: float = 0.0) -> float:
    """Return the smallest round step that divides a span into so many parts at most.

    Args:
        span: Above 0.
        most: Parts, 1 or more.
        least: No smaller step; 1 for what is counted.
    """
    return preferred(1e-9, max(span / most, least, 1e-9))[-1]


def ticks(top: float, most: int, *, least: float = 0.0) -> tuple[float, ...]:
    """Return 0 and further multiples of a round step, the last of them `top` or the next one above.

    Args:
        top: The largest value, 0 or more.
        most: How many steps at most.
        least: No smaller step; 1 for what is counted.
    """
    if top <= 0:
        return (0.0, max(1.0, least))
    step = step_for(top, most, least=least)
    count = max(1, math.ceil(round(top / step, 9)))
    # Rounded, since 3 * 0.1 is not 0.3.
    return tuple(float(f"{index * step:.12g}") for index in range(count + 1))


def first_that_fits(
    choices: Iterable[Sequence[tuple[float, str]]], *, gap: float, width_of_character: float = 1.0
) -> Sequence[tuple[float, str]]:
    """Return the first choice of labels that do not run into each other.

    Args:
        choices: Each a row of labels, centred on ascending positions; the most detailed first.
        gap: Room between two labels.
        width_of_character: In the unit of the positions.

    Returns:
        The row; an empty one when none fits.
    """
    for labels in choices:
        ends = [(at, len(label) * width_of_character / 2) for at, label in labels]
        if all(
            left + left_half + gap <= right - right_half for (left, left_half), (right, right_half) in pairwise(ends)
        ):
            return labels
    return ()
