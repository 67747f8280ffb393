"""Output for people: live tables on a terminal, lines in a pipe, results with their charts."""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..flows.report import Progress, ReviewReport
from ..rehearsal import Observation, ScheduledResult, TriggeredResult
from ..rehearsal.demo import DemoScheduled, DemoTriggered
from ..rehearsal.result import sentences
from .charts import BurnUp, Histogram, ReviewSamples, Section, counted, show
from .report_file import write_page

_BAR_WIDTH: Final = 16
_LATENCY_WIDTH: Final = 8
_SECONDS_A_LINE: Final = 1.0
_HOUR: Final = 3_600
_LONGEST_TABLE: Final = 200
_OTHER_LINES: Final = 8
"""Lines of a terminal for the table's frame and the line above it."""

_STYLES: Final = {
    "approved": "green",
    "denied": "yellow",
    "abstained": "cyan",
    "refused": "magenta",
    "unchanged": "blue",
    "wrong": "bold red",
}


class _LiveTable(ABC):
    """A table that is redrawn on a terminal, a last time at the end; in a pipe there are lines."""

    def __init__(self, console: Console) -> None:
        self.console = console
        is_live = console.is_terminal and not console.is_dumb_terminal
        self._live = (
            Live(console=console, get_renderable=self._now, refresh_per_second=8, transient=True) if is_live else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        self._finish()

    @abstractmethod
    def _now(self) -> RenderableType:
        """Return the present table; called in the display's own thread, so it works on copies."""

    @abstractmethod
    def _finish(self) -> None: ...


@final
class ReviewDisplay(_LiveTable):
    """Display of a review on a terminal; pass it as `progress=`.

    Use it as a context manager, which restores the terminal:

        with ReviewDisplay() as display:
            CampaignReview(reviewer, client=client, progress=display).run(event)

    In a pipe it prints a line a second, and the last one of each review. It needs the extra `cli`.
    """

    def __init__(self, console: Console | None = None) -> None:
        """Lazy: nothing is shown until the first call.

        Args:
            console: Where to; unset, standard error.
        """
        self._latest: dict[int, Progress] = {}
        self._printed: dict[int, tuple[float, Progress]] = {}
        super().__init__(Console(stderr=True) if console is None else console)

    def __call__(self, progress: Progress) -> None:
        """Show the progress of a review; called by the review, in its own thread."""
        self._latest[progress.campaign_id] = progress
        printed = self._printed.get(progress.campaign_id)
        if self._live is None and (printed is None or time.monotonic() - printed[0] >= _SECONDS_A_LINE):
            self._print(progress)

    def _finish(self) -> None:
        if self._live is not None and self._latest:
            self.console.print(self._now())
        for progress in self._latest.values() if self._live is None else ():
            if self._printed[progress.campaign_id][1] is not progress:
                self._print(progress)

    def _print(self, progress: Progress) -> None:
        self._printed[progress.campaign_id] = (time.monotonic(), progress)
        values = ", ".join(value if name == "rate" else f"{value} {name}" for name, value in _numbers(progress))
        self.console.print(Text(f"campaign {progress.campaign_id}: {values}"), soft_wrap=True)

    def _now(self) -> Table:
        table = Table(box=None, pad_edge=False)
        for name in ("campaign", "", "decided", "approved", "rate", "left", "slack"):
            table.add_column(name, no_wrap=True, justify="left" if name in ("campaign", "") else "right")
        for progress in list(self._latest.values()):
            # The number is known when the last row has arrived.
            total = max(1, progress.rows) if progress.all_read else None
            bar = ProgressBar(total=total, completed=progress.reviewed, width=_BAR_WIDTH, pulse=total is None)
            *values, slack = (value for _, value in _numbers(progress))
            behind = Text(slack, style="bold red" if progress.behind else "")
            table.add_row(str(progress.campaign_id), bar, *values, behind)
        return table


def _numbers(progress: Progress) -> list[tuple[str, str]]:
    """Return names and values, in the order in which they are shown."""
    return [
        ("decided", f"{progress.approved + progress.denied:,}"),
        ("approved", f"{progress.approved:,}"),
        ("rate", f"{progress.rate:,.0f}/s"),
        ("left", _duration(progress.seconds_left)),
        ("slack", "?" if progress.slack is None else _duration(progress.slack)),
    ]


def _duration(seconds: float) -> str:
    return f"{seconds:,.0f} s" if abs(seconds) < _HOUR else f"{seconds / _HOUR:,.1f} h"


@final
class NotificationDisplay(_LiveTable):
    """Display of the demo's notifications: a table, or in a pipe a line for each when it is over."""

    def __init__(self, console: Console, *, deadline_ms: int) -> None:
        """Lazy: nothing is shown until the first call.

        Args:
            console: Where to.
            deadline_ms: Milliseconds that an answer may take.
        """
        self._deadline_ms = deadline_ms
        self._seen: dict[str, Observation] = {}
        super().__init__(console)

    def __call__(self, one: Observation) -> None:
        """Show the state of a notification."""
        self._seen[one.request_uid] = one
        if self._live is None and one.over and not self.console.quiet:
            user, scenario, statuses, kinds = _cells(one)
            against = "" if one.latency_ms is None else f"{one.latency_ms} of {self._deadline_ms} ms"
            click.echo(f"{user:<15} {scenario:<16} {statuses:<9} {kinds:<19} {against}".rstrip())

    def _finish(self) -> None:
        if self._live is not None:
            self.console.print(self._table(list(self._seen.values())[-_LONGEST_TABLE:]))

    def _now(self) -> Group:
        seen = list(self._seen.values())
        told = Text(f"{len(seen)} notifications sent, {sum(one.over for one in seen)} over")
        return Group(told, self._table(seen[-max(4, self.console.height - _OTHER_LINES) :]))

    def _table(self, seen: Sequence[Observation]) -> Table:
        # Narrow enough for 80 columns.
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
        for name in ("user", "scenario", "HTTP", "decision", f"of {self._deadline_ms} ms"):
            table.add_column(name, no_wrap=True)
        for one in seen:
            user, scenario, statuses, kinds = _cells(one)
            coloured = Text(", ").join(Text(kind, style=_STYLES.get(kind, "dim")) for kind in kinds.split(", "))
            table.add_row(user, scenario, statuses, coloured, self._bar(one.latency_ms))
        return table

    def _bar(self, latency_ms: int | None) -> Text:
        if latency_ms is None:
            return Text("")
        filled = min(_LATENCY_WIDTH, -(-latency_ms * _LATENCY_WIDTH // self._deadline_ms))
        style = "green" if filled <= _LATENCY_WIDTH // 2 else "yellow"
        return Text.assemble(("#" * filled, style), ("." * (_LATENCY_WIDTH - filled), "dim"), f" {latency_ms} ms")


def _cells(one: Observation) -> tuple[str, str, str, str]:
    """Return user, scenario or fault, HTTP answers, and the result."""
    kinds = ", ".join(check.kind for check in one.checks()) if one.over else "..."
    statuses = ", ".join(str(reply) for reply in one.replies)
    return one.planned.user_id, one.planned.scenario or one.planned.fault or "", statuses, kinds


def line_of(one: Observation) -> str:
    """Return a notification that is over as a line."""
    user, fault, statuses, kinds = _cells(one)
    against = "" if one.latency_ms is None else f"{one.latency_ms} of {one.deadline_ms} ms"
    return f"{user:<14} {fault:<10} HTTP {statuses:<9} {kinds:<20} {against}".rstrip()


def show_section(section: Section, console: Console | None = None) -> None:
    """Print a result: numbers, charts, findings and verdict.

    Args:
        section: As on the page of `--report`.
        console: Where to; unset, standard output.
    """
    target = Console(file=sys.stdout) if console is None else console

    def line(text: str, style: str = "") -> None:
        if target.is_terminal:
            target.print(Text(text, style=style), soft_wrap=True)
        else:
            click.echo(text)

    line("")
    for name, value in section.facts:
        line(f"{name:<11} {value}", "bold red" if name in ("wrong", "lost", "late") and value != "0" else "")
    line("")
    for chart in section.charts:
        if chart.drawable:
            show(chart, target)
            line("")
    for finding in section.findings:
        line(f"! {finding}", "red")
    for warning in section.warnings:
        line(f"? {warning}", "yellow")
    line(section.verdict, "bold green" if section.ok else "bold red")


# ---- rehearsals that are over


def triggered_section(result: TriggeredResult, *, is_interrupted: bool) -> Section:
    """Return a triggered rehearsal as a section of a report."""
    if is_interrupted:
        went = "Interrupted"
    elif result.ok:
        went = "All results are right"
    else:
        went = (
            counted(len(result.findings), "finding")
            if result.findings
            else "Nothing wrong, but no customer was decided"
        )
    return Section(
        title="A triggered campaign",
        ok=result.ok,
        verdict=f"{went} (--seed {result.seed} asks about the same customers again).",
        facts=result.lines(),
        charts=[histogram(result)],
        findings=sentences(result.findings),
        warnings=result.hints,
    )


def histogram(result: TriggeredResult) -> Histogram:
    """Return the latencies of a triggered rehearsal against its deadline."""
    latencies = [max(0, latency) for latency in result.latencies_ms]
    return Histogram(latencies, deadline_ms=result.deadline_ms, untimed_late=result.late)


def campaign_section(result: ScheduledResult) -> Section:
    """Return a scheduled rehearsal as a section of a report."""
    series = {"statuses reported": result.reported_over_time}
    return Section(
        title=f"Campaign {result.campaign_id}",
        ok=bool(result.reported),
        verdict=f"{counted(result.reported, 'customer')} reported in time.",
        facts=result.lines(),
        charts=[BurnUp(series, clearance=result.clearance_seconds, total=result.rows)],
    )


def campaign_lines(result: ScheduledResult) -> str:
    """Return a scheduled rehearsal as three lines."""
    facts, numbers = dict(result.lines()), result.as_json()
    names = ("approved", "denied", "unknown", "late", "twice", "contradictions")
    first = ", ".join(numbers["first_recipients"])
    others = result.approved - len(numbers["first_recipients"])
    more = f" and {others} more" if others else ""
    return (
        f"campaign {result.campaign_id}: the listener gave {facts['listener']}; {result.rows} rows\n"
        f"{numbers['updates']} updates, of {numbers['largest_update']} at most: "
        + ", ".join(f"{numbers[name]} {name}" for name in names)
        + (f"\nwould get it: {first}{more}" if first else "\nNo customer would get it.")
    )


def demo_section(title: str, half: DemoTriggered | DemoScheduled, chart: Histogram | BurnUp) -> Section:
    """Return a part of the demo as a section of a report."""
    return Section(
        title=title, ok=half.ok, verdict=half.verdict, facts=half.lines(), charts=[chart], findings=half.findings
    )


# ---- reviews that are over


def tell(reports: Sequence[ReviewReport], charts: Sequence[BurnUp], *, nothing: str = "") -> None:
    """Print reports with their charts.

    Args:
        reports: In order.
        charts: One for each; those with nothing to draw are left out.
        nothing: What is printed when there is no report.
    """
    for report, chart in zip(reports, charts, strict=True):
        state = "complete" if report.complete else "INCOMPLETE"
        numbers = "  ".join(f"{name} {value}" for name, value in _counts(report))
        click.echo(f"campaign {report.campaign_id}  {state}  {numbers}  to spare {report.seconds_to_spare:.0f} s")
        for line in [*_errors(report), *report.warnings]:
            click.echo(f"  {line}")
        if chart.drawable:
            click.echo()
            show(chart)
            click.echo()
    if not reports:
        click.echo(nothing)


def tell_json(reports: Sequence[ReviewReport]) -> None:
    """Print reports as one JSON array."""
    click.echo(json.dumps([json.loads(report.to_json()) for report in reports]))


def write_reviews(path: Path, reports: Sequence[ReviewReport], charts: Sequence[BurnUp], *, nothing: str = "") -> None:
    """Write reports as a page, a section for each.

    Args:
        path: From `--report`.
        reports: In order.
        charts: One for each.
        nothing: What the page says when there is no report.

    Raises:
        ConfigurationError: It cannot be written.
    """
    sections = [_section(report, chart) for report, chart in zip(reports, charts, strict=True)]
    sections = sections or [Section(title="No review", ok=True, verdict=nothing)]
    write_page(path, title="Review of scheduled campaigns", sections=sections)


def charts_of(reports: Sequence[ReviewReport], samples: ReviewSamples, *, safety_margin: float) -> list[BurnUp]:
    """Return a chart for each report; that of a review that did nothing is empty.

    Args:
        reports: In order.
        samples: The progress of the reviews.
        safety_margin: Seconds, as the reviews were given.
    """
    campaigns = Counter(report.campaign_id for report in reports)
    charts = []
    for report in reports:
        # Progress has only the campaign id: it cannot be assigned if two reviews have the same campaign.
        told = samples.of(report.campaign_id) if campaigns[report.campaign_id] == 1 else ()
        total = report.reviewed + report.not_reached if told and told[-1].all_read else None
        charts.append(BurnUp.of_review(told, total=total, safety_margin=safety_margin))
    return charts


def _counts(report: ReviewReport) -> list[tuple[str, int]]:
    names = ("reviewed", "approved", "denied", "failed", "not_reached", "acknowledged")
    return [(name.replace("_", " "), getattr(report, name)) for name in names]


def _errors(report: ReviewReport) -> list[str]:
    return [] if report.error is None else [str(report.error)]


def _section(report: ReviewReport, chart: BurnUp) -> Section:
    facts = [(name, f"{count:,}") for name, count in _counts(report)]
    facts += [
        ("rows", f"{report.rows:,}"),
        ("updates", f"{report.chunks:,}"),
        ("retries", f"{report.retries:,}"),
        ("took", f"{report.seconds:,.1f} s"),
        ("to spare", f"{report.seconds_to_spare:,.0f} s before clearance"),
    ]
    if report.complete:
        verdict = "Complete: every customer was decided, and every status to report was acknowledged."
    else:
        verdict = "INCOMPLETE: customers who were not approved and acknowledged do not get the campaign."
    return Section(
        title=f"Campaign {report.campaign_id}",
        ok=report.complete,
        verdict=verdict,
        facts=facts,
        charts=[chart],
        findings=_errors(report),
        warnings=report.warnings,
    )
