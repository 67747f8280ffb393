"""Pictures made of characters: with colours on a terminal, in plain ASCII for a pipe."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import click
from rich.console import Console

from optimove_conditional_execution.cli.pictures.burn_up import BurnUp, Series
from optimove_conditional_execution.cli.pictures.canvas import Canvas
from optimove_conditional_execution.cli.pictures.histogram import Bin, Histogram
from optimove_conditional_execution.cli.pictures.scales import first_that_fits, ticks
from optimove_conditional_execution.cli.pictures.time_axis import TimeAxis
from optimove_conditional_execution.cli.pictures.wording import counted, duration, milliseconds, number

Picture = Histogram | BurnUp

WIDTH: Final = 80
"""Columns in a pipe, and the most on a terminal."""

_NARROWEST: Final = 32
_HEIGHT: Final = 8
_MARGIN: Final = 3
"""Columns on the right that the last label may need."""

_BETWEEN: Final = 3
"""Columns between two words of a legend."""

_CELL_FROM: Final = 0.25
"""So much of a cell must be covered for an area to fill it."""

_IN_TIME, _LATE, _FRAME, _MARK = "green", "bold red", "dim", "bold"
_SERIES_STYLES: Final = ("cyan", "green")


@final
@dataclass(frozen=True, slots=True)
class _Ink:
    """The characters of a drawing."""

    columns: str
    """A cell that is filled, more and more."""
    late_columns: str
    areas: tuple[str, str]
    """Of the first and the second series."""
    across: str
    upright: str
    corner: str
    tick: str
    mark: str
    margin: str
    total: str
    gap: str


_ASCII: Final = _Ink(".:#", ".:!", (".", "#"), "-", "|", "+", "+", "|", ":", "-", "//")
_UNICODE: Final = _Ink("▁▂▃▄▅▆▇█", "▁▂▃▄▅▆▇█", ("░", "█"), "─", "│", "└", "┴", "┃", "┊", "╌", "//")


def show(picture: Picture, console: Console | None = None) -> None:
    """Print a picture on standard output: with colours on a terminal, in plain ASCII in a pipe.

    Args:
        picture: What to draw.
        console: A terminal to draw on instead.
    """
    if console is None and sys.stdout.isatty():
        console = Console()
    if console is None or not console.is_terminal or console.is_dumb_terminal:
        click.echo("\n".join(drawn(picture).lines()))
        return
    canvas = drawn(picture, width=min(WIDTH, console.width), ascii_only=console.options.ascii_only)
    console.print(canvas.rich(), soft_wrap=True)


def drawn(picture: Picture, *, width: int = WIDTH, ascii_only: bool = True) -> Canvas:
    """Return a drawing of a picture; of one without any data it is a sentence.

    Args:
        picture: What to draw.
        width: Columns at most, 32 or more.
        ascii_only: Whether to leave out block and line characters.
    """
    width, ink = max(_NARROWEST, width), _ASCII if ascii_only else _UNICODE
    if isinstance(picture, Histogram):
        return _histogram(picture, width, ink) if picture.bins else _sentence(picture)
    return _burn_up(picture, width, ink) if picture.drawable else _sentence(picture)


def _sentence(picture: Picture) -> Canvas:
    canvas = Canvas(len(picture.sentence), 1)
    canvas.put(0, 0, picture.sentence)
    return canvas


# ---- the histogram


def _histogram(picture: Histogram, width: int, ink: _Ink) -> Canvas:
    levels = ticks(picture.most, 4, least=1)
    left = len(number(levels[-1])) + 1
    room = width - left - 1 - _MARGIN - 1
    while len(picture.bins) > room:
        picture = picture.coarser()
    across = room // len(picture.bins)
    bottom, before = 2 + _HEIGHT, picture.before_deadline
    canvas = Canvas(width, bottom + 2)
    canvas.put(0, 0, picture.title, "bold")

    def edge(index: int) -> int:
        # The deadline has a column of its own, between two bins; the other edges lie right of a column.
        return left + index * across + (index >= before)

    end = edge(len(picture.bins))
    _frame(canvas, levels, left=left, end=end, bottom=bottom, ink=ink)
    for index, one in enumerate(picture.bins):
        _column(canvas, one, levels[-1], edge(index) + 1, across, bottom, ink)
    _beside(canvas, 1, edge(before), f"deadline {milliseconds(picture.deadline_ms)}", _MARK)
    for row in range(1, bottom + 1):
        canvas.put(row, edge(before), ink.mark, _MARK)
    choices = ([(float(edge(index)), text) for index, text in labels] for labels in picture.labels())
    for at, text in first_that_fits(choices, gap=1):
        if int(at) != edge(before):
            canvas.put(bottom, int(at), ink.tick, _FRAME)
        canvas.put(bottom + 1, min(int(at) - len(text) // 2, width - len(text)), text)
    return canvas


def _column(canvas: Canvas, one: Bin, top: float, start: int, across: int, bottom: int, ink: _Ink) -> None:
    shades, style = (ink.late_columns, _LATE) if one.late else (ink.columns, _IN_TIME)
    # Whatever is there is seen, be it one of a hundred thousand.
    filled = max(1, round(one.count / top * _HEIGHT * len(shades))) if one.count else 0
    for row in range(_HEIGHT):
        shade = min(len(shades), filled - row * len(shades))
        if shade > 0:
            canvas.put(bottom - 1 - row, start, shades[shade - 1] * across, style)


# ---- the burn-up


def _burn_up(picture: BurnUp, width: int, ink: _Ink) -> Canvas:
    levels, axis = picture.levels, picture.axis
    left = len(number(levels[-1])) + 1
    room = width - left - 1 - _MARGIN
    legend = _legend(picture, ink, width)
    marks = _marks(picture, axis)
    above = 1 + len(legend) + len(marks)
    bottom = above + _HEIGHT
    canvas = Canvas(width, bottom + 2)

    def column(position: float) -> int:
        return left + 1 + min(room - 1, int(position * room))

    canvas.put(0, 0, picture.title, "bold")
    for row, items in enumerate(legend, start=1):
        at = 0
        for text, style in items:
            canvas.put(row, at, text, style)
            at += len(text) + _BETWEEN
    _frame(canvas, levels, left=left, end=left + room, bottom=bottom, ink=ink)
    if picture.total is not None:
        row = bottom - 1 - min(_HEIGHT - 1, int(picture.total / levels[-1] * _HEIGHT))
        canvas.put(row, left + 1, ink.total * (column(axis.position(min(axis.end, picture.clearance))) - left), _FRAME)
    seconds_a_column = axis.end / axis.position(axis.end) / room
    for kind, series in _kinds(picture):
        for at in range(room):
            height = _height(series, at * seconds_a_column, (at + 1) * seconds_a_column) / levels[-1] * _HEIGHT
            for row in range(math.ceil(height - _CELL_FROM)):
                canvas.put(bottom - 1 - row, left + 1 + at, ink.areas[kind], _SERIES_STYLES[kind])
    # Clearance comes last, to lie on top.
    for top, (position, label, style) in reversed(list(enumerate(marks, start=1 + len(legend)))):
        for row in range(top, bottom + 1):
            canvas.put(row, column(position), ink.mark if style == _MARK else ink.margin, style)
        _beside(canvas, top, column(position), label, style)
    if axis.break_at is not None:
        canvas.put(bottom, column(axis.break_at), ink.gap, _FRAME)
    choices = ([(float(column(position)), text) for position, text in labels] for labels in axis.labels())
    for middle, text in first_that_fits(choices, gap=2):
        canvas.put(bottom, int(middle), ink.tick, _FRAME)
        canvas.put(bottom + 1, max(0, int(middle) - len(text) // 2), text)
    return canvas


def _marks(picture: BurnUp, axis: TimeAxis) -> list[tuple[float, str, str]]:
    """Return positions, labels and styles, from the right to the left: so no line crosses a label."""
    marks = [(axis.clearance_at, f"clearance after {duration(picture.clearance)}", _MARK)]
    if axis.asking_ends_at is not None and picture.safety_margin is not None:
        marks.append((axis.asking_ends_at, f"safety margin of {duration(picture.safety_margin)}", _FRAME))
    return marks


def _kinds(picture: BurnUp) -> Iterator[tuple[int, Series]]:
    """Yield the series, each with the number of its area; a single one is full."""
    return enumerate(picture.series, start=len(_ASCII.areas) - len(picture.series))


def _height(series: Series, start: float, end: float) -> float:
    """Return the number at the end of a column, which may hold the series' own end."""
    if not series.points or start > series.points[-1][0] or end < series.points[0][0]:
        return 0.0
    return series.at(min(end, series.points[-1][0])) or 0.0


def _legend(picture: BurnUp, ink: _Ink, width: int) -> list[list[tuple[str, str]]]:
    """Return the legend's rows: texts and styles."""
    items = [
        (f"{ink.areas[kind]} {series.last:,} {series.name}", _SERIES_STYLES[kind]) for kind, series in _kinds(picture)
    ]
    if picture.total is not None:
        items.append((f"{ink.total} of {counted(picture.total, 'customer')}", _FRAME))
    fits = sum(len(text) + _BETWEEN for text, _ in items) - _BETWEEN <= width
    return [items] if fits else [[item] for item in items]


# ---- what both have


def _frame(canvas: Canvas, levels: tuple[float, ...], *, left: int, end: int, bottom: int, ink: _Ink) -> None:
    for row in range(bottom - _HEIGHT, bottom):
        canvas.put(row, left, ink.upright, _FRAME)
    canvas.put(bottom, left, ink.corner + ink.across * (end - left), _FRAME)
    for level in levels:
        text = number(level)
        row = bottom - round(level / levels[-1] * _HEIGHT)
        canvas.put(min(bottom, row), left - 1 - len(text), text)


def _beside(canvas: Canvas, row: int, column: int, label: str, style: str) -> None:
    canvas.put(row, column - len(label) - 1 if column > len(label) else column + 2, label, style)
