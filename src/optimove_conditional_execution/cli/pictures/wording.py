"""Numbers and times as people read them."""

from __future__ import annotations

from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 3_600
_DIGITS_FROM: Final = 100


def number(value: float) -> str:
    """Return a number with separators between thousands, and with decimals only where it is small."""
    if value == int(value) or abs(value) >= _DIGITS_FROM:
        return f"{round(value):,}"
    return f"{value:.3g}"


def milliseconds(value: float) -> str:
    """Return milliseconds as words."""
    return f"{number(value)} ms"


def unit_of(seconds: float) -> tuple[float, str]:
    """Return the unit for an axis that ends there: its seconds and its name."""
    if seconds >= 2 * _HOUR:
        return _HOUR, "h"
    return (_MINUTE, "min") if seconds >= 3 * _MINUTE else (1, "s")


def duration(seconds: float) -> str:
    """Return seconds as words, in the unit that suits them."""
    size, name = unit_of(abs(seconds))
    value = seconds / size
    return f"{value:,.0f} {name}" if abs(value) >= 10 else f"{number(round(value, 1))} {name}"


def counted(count: int, one: str, more: str = "") -> str:
    """Return a count with its noun.

    Args:
        count: How many.
        one: The noun for one.
        more: For none and several; unset, with an s.
    """
    return f"{count:,} {one if count == 1 else more or one + 's'}"
