"""Pictures as SVG, for a page; their colours come from its style sheet."""

from __future__ import annotations

from optimove_conditional_execution.cli.pictures.burn_up import BurnUp, Series
from optimove_conditional_execution.cli.pictures.histogram import Histogram
from optimove_conditional_execution.cli.pictures.markup import Markup, joined, tag
from optimove_conditional_execution.cli.pictures.plot import LINE, Plot, Size
from optimove_conditional_execution.cli.pictures.scales import first_that_fits, ticks
from optimove_conditional_execution.cli.pictures.style import PICTURE_STYLE
from optimove_conditional_execution.cli.pictures.wording import counted, duration, milliseconds

_LEAST_BAR = 2.0
"""Units that a bar has at least: one answer of a hundred thousand must be seen."""


def histogram_svg(picture: Histogram, size: Size, *, name: str) -> Markup:
    """Return a histogram.

    Args:
        picture: One with bins.
        size: How large.
        name: Unique in the page.
    """
    # On a narrow picture a bar would be thinner than the gap beside it.
    while len(picture.bins) > size.width / 8:
        picture = picture.coarser()
    plot = Plot(size, ticks(picture.most, 4, least=1), above=1)
    count = len(picture.bins)
    deadline = plot.x(picture.before_deadline / count)
    wide = (plot.right - plot.left) / count
    bars = []
    for index, one in enumerate(picture.bins):
        if one.count:
            high = max(_LEAST_BAR, plot.bottom - plot.y(one.count))
            place = {"x": plot.x(index / count) + wide * 0.06, "y": plot.bottom - high, "width": wide * 0.88}
            bars.append(tag("rect", {**place, "height": high, "class": "late bar" if one.late else "bar"}))
    choices = ([(plot.x(index / count), text) for index, text in labels] for labels in picture.labels())
    fitting = first_that_fits(choices, gap=plot.letter, width_of_character=plot.letter)
    axis = [((at - plot.left) / (plot.right - plot.left), text) for at, text in fitting]
    return plot.picture(
        name,
        picture.title,
        picture.sentence,
        plot.band(deadline, plot.right, "past"),
        plot.grid(),
        *bars,
        plot.labels(axis, "ms from notification to answer" + (", log scale" if picture.scale == "log" else "")),
        plot.mark(deadline, 0, f"deadline {milliseconds(picture.deadline_ms)}", "deadline"),
    )


def burn_up_svg(picture: BurnUp, size: Size, *, name: str) -> Markup:
    """Return a burn-up.

    Args:
        picture: One that is drawable.
        size: How large.
        name: Unique in the page.
    """
    axis = picture.axis
    draft = Plot(size, picture.levels, above=0)
    legend = _legend(picture, draft)
    margin = axis.asking_ends_at is not None
    plot = Plot(size, picture.levels, above=len(legend) + 1 + margin)
    work_ends, clearance = plot.x(axis.position(axis.end)), plot.x(axis.clearance_at)
    drawn: list[Markup] = [plot.band(clearance, plot.right, "past")]
    if axis.asking_ends_at is not None:
        drawn.append(plot.band(plot.x(axis.asking_ends_at), clearance, "margin"))
    drawn.append(plot.grid())
    first = 2 - len(picture.series)
    drawn += [_area(series, plot, picture, f"series-{kind}") for kind, series in enumerate(picture.series, start=first)]
    if picture.total is not None:
        level = plot.y(picture.total)
        drawn.append(plot.line(plot.left, level, min(work_ends, clearance), level, "total"))
    drawn += _entries(legend, plot)
    if axis.asking_ends_at is not None and picture.safety_margin is not None:
        label = f"safety margin of {duration(picture.safety_margin)}"
        drawn.append(plot.mark(plot.x(axis.asking_ends_at), len(legend) + 1, label, "margin-line"))
    drawn.append(plot.mark(clearance, len(legend), f"clearance after {duration(picture.clearance)}", "deadline"))
    if axis.break_at is not None:
        drawn.append(_break(plot, plot.x(axis.break_at)))
    choices = ([(plot.x(position), text) for position, text in labels] for labels in axis.labels())
    fitting = first_that_fits(choices, gap=2 * plot.letter, width_of_character=plot.letter)
    labels = [((at - plot.left) / (plot.right - plot.left), text) for at, text in fitting]
    drawn.append(plot.labels(labels, "time since the start" + (", then a break" if axis.broken else "")))
    return plot.picture(name, picture.title, picture.sentence, *drawn)


def standalone(picture: Markup) -> str:
    """Return a picture as a file of its own, with its colours."""
    head, _, rest = picture.partition(">")
    return f"{head}>{tag('style', None, Markup(PICTURE_STYLE))}{rest}\n"


def _area(series: Series, plot: Plot, picture: BurnUp, kind: str) -> Markup:
    if not series.points:
        return Markup("")
    points = [(plot.x(picture.axis.position(seconds)), plot.y(count)) for seconds, count in series.points]
    path = "L".join(f"{x:.5g} {y:.5g}" for x, y in points)
    closed = f"M{points[0][0]:.5g} {plot.bottom:g}L{path}L{points[-1][0]:.5g} {plot.bottom:g}Z"
    (x, y) = points[-1]
    return joined(
        tag("path", {"d": closed, "class": f"area {kind}"}),
        tag("path", {"d": f"M{path}", "class": f"line {kind}"}),
        tag("circle", {"cx": x, "cy": y, "r": 3.5, "class": f"dot {kind}"}),
    )


def _legend(picture: BurnUp, plot: Plot) -> list[list[tuple[float, str, str]]]:
    """Return the legend's rows: where an entry begins, its text, and its class."""
    first = 2 - len(picture.series)
    entries = [
        (f"{series.last:,} {series.name}", f"series-{kind}") for kind, series in enumerate(picture.series, start=first)
    ]
    if picture.total is not None:
        entries.append((f"of {counted(picture.total, 'customer')}", "total"))
    rows: list[list[tuple[float, str, str]]] = []
    at = plot.size.width
    for text, kind in entries:
        wide = 22 + plot.text_width(text) + 18
        if at + wide > plot.size.width:
            rows.append([])
            at = 0.0
        rows[-1].append((at, text, kind))
        at += wide
    return rows


def _entries(legend: list[list[tuple[float, str, str]]], plot: Plot) -> list[Markup]:
    drawn = []
    for row, entries in enumerate(legend):
        y = 10 + LINE * row
        for at, text, kind in entries:
            if kind == "total":
                drawn.append(plot.line(at + 1, y + 6, at + 15, y + 6, kind))
            else:
                place = {"x": at + 1, "y": y, "width": 14, "height": 12, "rx": 2}
                drawn.append(tag("rect", {**place, "class": f"swatch {kind}"}))
            drawn.append(plot.text(at + 22, y + plot.size.font - 2, text, anchor="start"))
    return drawn


def _break(plot: Plot, at: float) -> Markup:
    y = plot.bottom
    return joined(
        plot.line(at - 3, y, at + 3, y, "gap"),
        plot.line(at - 6, y + 6, at, y - 6, "axis"),
        plot.line(at, y + 6, at + 6, y - 6, "axis"),
    )
