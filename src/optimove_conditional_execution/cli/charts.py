"""Text charts of latencies against a deadline and of reviews against clearance, for terminals, pipes and HTML pages.

chart = Histogram(latencies_ms, deadline_ms=5_000)
show(chart)
write_page(path, title="A rehearsal", sections=[Section(title="...", ok=True, verdict="...", charts=[chart])])
"""

from __future__ import annotations

import bisect
import html
import importlib.resources
import io
import math
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
from rich.console import Console, ConsoleOptions, RenderResult
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from .. import __version__
from ..errors import ConfigurationError
from ..flows.report import Progress
from ..validation import number_of

MAX_SAMPLES: Final = 240
_WIDTH: Final = 76
_ROWS: Final = 12
_STEPS: Final = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
"""Bin edges in each decade: about equal distances on a logarithmic scale."""

_DECADES: Final = range(-3, 10)
_LATE: Final = "bold red"
_STYLES: Final = ("green", "cyan")
_BAD: Final = ("wrong", "lost", "late")
"""Facts that are an error unless they are 0."""


def number(value: float) -> str:
    """Return a number with separators between thousands, and with decimals only where it is small."""
    return f"{round(value):,}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Return seconds as words, in seconds, minutes or hours."""
    size, unit = (3_600, "h") if abs(seconds) >= 7_200 else (60, "min") if abs(seconds) >= 180 else (1, "s")
    value = seconds / size
    return f"{value:,.0f} {unit}" if abs(value) >= 10 else f"{number(round(value, 1))} {unit}"


@dataclass(frozen=True, slots=True)
class Histogram:
    """Latencies against their deadline; a rich renderable.

    Attributes:
        latencies_ms: Milliseconds from notification to answer, in any order. One that equals the deadline is in time.
        deadline_ms: Milliseconds that an answer may take.
        untimed_late: Answers that came after the deadline and are not among the latencies.
    """

    latencies_ms: Sequence[float]
    deadline_ms: float
    untimed_late: int = 0

    @property
    def drawable(self) -> bool:
        """Whether there is an answer to draw."""
        return bool(self.latencies_ms)

    @property
    def bins(self) -> list[tuple[float, float, int]]:
        """Lower edge, upper edge and count of each bin; adjacent empty bins are merged, and the deadline is an edge."""
        edges = sorted({self.deadline_ms, *(step * 10.0**decade for decade in _DECADES for step in _STEPS)})
        counts = Counter(bisect.bisect_left(edges, latency) for latency in self.latencies_ms)
        deadline = edges.index(self.deadline_ms)
        bins: list[tuple[float, float, int]] = []
        for index in range(min(deadline, *counts), max(deadline, *counts) + 1):
            low, high, count = edges[index - 1] if index else 0.0, edges[index], counts[index]
            if not count and bins and not bins[-1][2] and low != self.deadline_ms:
                bins[-1] = (bins[-1][0], high, 0)
            else:
                bins.append((low, high, count))
        return bins

    @property
    def sentence(self) -> str:
        """A description of the chart."""
        against = f"the deadline of {number(self.deadline_ms)} ms"
        more = f" {self.untimed_late:,} more came after it and could not be timed." if self.untimed_late else ""
        if not self.latencies_ms:
            return f"No answer was timed that could be compared with {against}.{more}"
        ordered = sorted(self.latencies_ms)
        median, slowest = (f"{number(value)} ms" for value in (ordered[(len(ordered) - 1) // 2], ordered[-1]))
        late = len(ordered) - bisect.bisect_right(ordered, self.deadline_ms)
        took = (
            f"It took {slowest}" if len(ordered) == 1 else f"Half of them within {median}, the slowest took {slowest}"
        )
        return f"{number_of(len(ordered), 'answer')}. {took}. {late or 'None'} came after {against}.{more}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.drawable:
            most = max(count for _, _, count in self.bins)
            yield Text("Answers by latency, in ms", style="bold")
            label = max(len(f"{number(low)} to {number(high)}") for low, high, _ in self.bins)
            room = options.max_width - label - len(f"{most:,}") - 4
            for low, high, count in self.bins:
                late = low >= self.deadline_ms
                bar = _bar(console, [(count, _LATE if late else _STYLES[0])], most, room)
                yield Text.assemble(f"{f'{number(low)} to {number(high)}':>{label}}  ", bar, f" {count:,}")
                if high == self.deadline_ms:
                    yield Text(f"{'':>{label}}  --- deadline {number(high)} ms ---", style="bold")
        yield Text(self.sentence)


@dataclass(frozen=True, slots=True)
class BurnUp:
    """Numbers that grow until clearance, such as customers decided and acknowledged; a rich renderable.

    Attributes:
        series: By name: seconds since the start and the number then, in order; the larger numbers first, two at most.
        clearance: Seconds from the start until clearance.
        safety_margin: Seconds before clearance from which on the reviewer got no new batches; None without one.
        total: Customers; None when it is not known.
    """

    series: Mapping[str, Sequence[tuple[float, int]]]
    clearance: float
    safety_margin: float | None = None
    total: int | None = None

    @classmethod
    def of_review(cls, samples: Sequence[Progress], *, total: int | None, safety_margin: float) -> BurnUp:
        """Return the chart of a review.

        Args:
            samples: Of one review, in order.
            total: Customers; None when not all pages have been read.
            safety_margin: Seconds, as the review was given; as in a review, half of the time is the most.
        """
        # The first sample: later ones have 0 when clearance has passed.
        clearance = samples[0].seconds + samples[0].seconds_left if samples else 0.0
        series = {
            "decided": [(sample.seconds, sample.approved + sample.denied) for sample in samples],
            "acknowledged": [(sample.seconds, sample.acknowledged) for sample in samples],
        }
        return cls(series, clearance, min(safety_margin, clearance / 2), total)

    @property
    def last(self) -> float:
        """Seconds of the last point."""
        return max((points[-1][0] for points in self.series.values() if points), default=0.0)

    @property
    def drawable(self) -> bool:
        """Whether there is something to draw: a number above 0, and some time."""
        return self.last > 0 and self.clearance > 0 and any(_at(points, self.last) for points in self.series.values())

    @property
    def sentence(self) -> str:
        """A description of the chart."""
        if not self.drawable:
            return "Nothing was counted over time, so there is nothing to draw."
        numbers = " and ".join(f"{_at(points, self.last):,} {name}" for name, points in self.series.items())
        of = "" if self.total is None else f" of {number_of(self.total, 'customer')}"
        left = self.clearance - self.last
        when = f"{duration(left)} before clearance" if left >= 0 else f"{duration(-left)} after clearance"
        margin = "" if self.safety_margin is None else f" The safety margin is {duration(self.safety_margin)}."
        return f"After {duration(self.last)}: {numbers}{of}. That was {when}.{margin}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.drawable:
            yield Text("Customers over time, against clearance", style="bold")
            # The last series is drawn over the one before it.
            names, styles = list(self.series), _STYLES[len(_STYLES) - len(self.series) :]
            legend = [f"{mark} {name}" for mark, name in zip(_marks(console, len(names)), names, strict=True)]
            yield Text("   ").join(Text(text, style) for text, style in zip(legend, styles, strict=True))
            most = max(self.total or 0, *(_at(points, self.last) for points in self.series.values()))
            rows = max(1, min(_ROWS, int(self.last * 10)))  # their labels show tenths of a second
            moments = [self.last * row / rows for row in range(1, rows + 1)]
            label = max(len(f"{moment:,.1f} s") for moment in moments)
            room = options.max_width - label - len(f"{most:,}") - 4
            for moment in moments:
                late = moment > self.clearance
                counts = [_at(points, moment) for points in self.series.values()]
                parts = [(count, _LATE if late else style) for count, style in zip(counts, styles, strict=True)]
                yield Text.assemble(
                    f"{f'{moment:,.1f} s':>{label}}  ", _bar(console, parts, most, room), f" {counts[0]:,}"
                )
        yield Text(self.sentence)


Chart = Histogram | BurnUp


class ReviewSamples:
    """Samples of the progress of reviews, by campaign, in bounded memory; pass it as a review's `progress=`.

    When a campaign has too many samples, every second one is dropped, and from then on only every second one is kept,
    so that they stay evenly spaced. The first and the latest are always kept.

    Attributes:
        latest: The latest progress of each campaign.
    """

    def __init__(self) -> None:
        self._kept: defaultdict[int, list[Progress]] = defaultdict(list)
        self.latest: dict[int, Progress] = {}
        self._told: Counter[int] = Counter()
        self._every: defaultdict[int, int] = defaultdict(lambda: 1)

    def __call__(self, progress: Progress) -> None:
        """Record the progress of a review."""
        campaign = progress.campaign_id
        self.latest[campaign] = progress
        if self._told[campaign] % self._every[campaign] == 0:
            kept = self._kept[campaign]
            kept.append(progress)
            if len(kept) >= MAX_SAMPLES:
                del kept[1::2]
                self._every[campaign] *= 2
        self._told[campaign] += 1

    def of(self, campaign_id: int) -> list[Progress]:
        """Return a campaign's samples, in order."""
        kept, latest = self._kept[campaign_id], self.latest.get(campaign_id)
        return [*kept] if latest is None or kept[-1] is latest else [*kept, latest]


def _at(points: Sequence[tuple[float, int]], seconds: float) -> int:
    """Return the number at a time: that of the last point before it."""
    index = bisect.bisect_right(points, seconds + 1e-9, key=lambda point: point[0])
    return points[index - 1][1] if index else 0


def _marks(console: Console, count: int) -> str:
    marks = "█░" if console.is_terminal and not console.options.ascii_only else "#."
    return "".join(reversed(marks[:count]))


def _bar(console: Console, parts: Sequence[tuple[int, str]], most: int, room: int) -> Text:
    """Return a bar as wide as the first part's share of `most`; later parts are drawn over its beginning."""
    bar = Text()
    # A number above 0 is always visible, even one of a hundred thousand.
    ends = [math.ceil(count / most * room) for count, _ in parts]
    drawn = 0
    for mark, end, (_, style) in reversed(list(zip(_marks(console, len(parts)), ends, parts, strict=True))):
        bar.append(mark * max(0, end - drawn), style)
        drawn = max(drawn, end)
    return bar


def show(chart: Chart, console: Console | None = None) -> None:
    """Print a chart: in colours on a terminal, in plain ASCII in a pipe.

    Args:
        chart: What to draw.
        console: Where to; unset, standard output.
    """
    console = Console(file=sys.stdout) if console is None else console
    console.print(chart, width=min(_WIDTH, console.width) if console.is_terminal else _WIDTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Section of a page: title, verdict, numbers and charts.

    Attributes:
        title: A heading.
        ok: Whether the result is good.
        verdict: The result as a sentence.
        facts: Names and values, in order.
        charts: Drawn one below the other.
        findings: A sentence for each error.
        warnings: A sentence for each warning.
    """

    title: str
    ok: bool
    verdict: str
    facts: Sequence[tuple[str, str]] = ()
    charts: Sequence[Chart] = ()
    findings: Sequence[str] = ()
    warnings: Sequence[str] = ()

    def lines(self) -> list[Text]:
        """Return the facts."""
        width = max(11, *(len(name) for name, _ in self.facts), 0)
        return [
            Text(f"{name:<{width}} {value}", _LATE if name in _BAD and value != "0" else "")
            for name, value in self.facts
        ]

    def notes(self) -> list[Text]:
        """Return the findings and warnings."""
        findings = [Text(f"! {finding}", _LATE) for finding in self.findings]
        return findings + [Text(f"? {warning}", "yellow") for warning in self.warnings]

    def result(self, mark: str = "") -> Text:
        """Return the verdict."""
        return Text(f"{mark}{self.verdict}", _STYLES[0] if self.ok else _LATE)


def show_section(section: Section, console: Console | None = None) -> None:
    """Print a section without its title, the verdict last: in colours on a terminal, in plain ASCII in a pipe.

    Args:
        section: What to print.
        console: Where to; unset, standard output.
    """
    console = Console(file=sys.stdout) if console is None else console
    if section.facts:
        console.print(Text(), *section.lines(), sep="\n", soft_wrap=True)
        for chart in section.charts:
            if chart.drawable:
                console.print()
                show(chart, console)
        console.print()
    console.print(*section.notes(), section.result(), sep="\n", soft_wrap=True)


# Middle tones, which can be read on white, on black and on paper.
_COLOURS: Final = ((204, 41, 54), (38, 132, 64), (163, 112, 0), (46, 110, 200), (150, 70, 170), (0, 125, 145))
_THEME: Final = TerminalTheme((255, 255, 255), (0, 0, 0), [(110, 110, 110), *_COLOURS, (110, 110, 110)])


def page(title: str, sections: Sequence[Section], *, made: datetime) -> str:
    """Return sections as one HTML page: no script, no network, everything escaped.

    Args:
        title: Its heading.
        sections: In order.
        made: When, with a zone.
    """
    console = Console(record=True, file=io.StringIO(), width=_WIDTH, force_terminal=True, legacy_windows=False)
    console.print(Text(title, style="bold"))
    console.print(Text(f"{made:%d %B %Y, %H:%M:%S %Z}; optimove-conditional-execution {__version__}"))
    for section in sections:
        console.print(Text(f"\n{section.title}\n", style="bold underline"))
        for part in (section.result("✓ " if section.ok else "✗ "), *section.notes(), Text(), *section.lines()):
            console.print(part)
        for chart in section.charts:
            console.print(Text(), chart, sep="\n")
    template = (
        importlib.resources.files("optimove_conditional_execution").joinpath("cli", "page.html").read_text("utf-8")
    )
    text = console.export_html(theme=_THEME, code_format=template).replace("TITLE", html.escape(title), 1)
    # Control characters and lone surrogates are invalid in HTML, and a right-to-left override would reverse the text.
    return "".join(character if character.isprintable() or character == "\n" else "\ufffd" for character in text)


def write_page(path: Path, *, title: str, sections: Sequence[Section], made: datetime | None = None) -> None:
    """Write a report as one HTML page. A reader sees the old file or the new one, never a part.

        section = Section(title="Triggered campaign", ok=True, verdict="Nothing lost.", facts=[("sent", "40")],
                          charts=[Histogram(latencies_ms, deadline_ms=5_000)])
        write_page(report, title="A rehearsal", sections=[section])

    Args:
        path: From `report_option`.
        title: The page's heading.
        sections: Its contents; all text is escaped.
        made: When; unset, now.

    Raises:
        ConfigurationError: It cannot be written (any more).
    """
    text = page(title, sections, made=datetime.now(UTC) if made is None else made)
    try:
        # It names customers: the permissions of an older page are kept.
        with click.open_file(path, "w", encoding="utf-8", atomic=True) as file:
            file.write(text)
    except OSError as error:
        raise ConfigurationError(f"The report {path} could not be written: {error.strerror}.") from None
