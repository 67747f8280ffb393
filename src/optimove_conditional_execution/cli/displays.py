"""How the demo is shown: a live table for people, lines for pipes, one JSON object for programs."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, Protocol, Self, final

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from optimove_conditional_execution.cli.campaign_rehearsal import CampaignOutcome
from optimove_conditional_execution.cli.charts import BurnUp, Histogram, show
from optimove_conditional_execution.cli.judgement import Summary, judge
from optimove_conditional_execution.cli.rehearsal import Visit
from optimove_conditional_execution.cli.review_display import ReviewDisplay
from optimove_conditional_execution.flows.report import Progress

_OTHER_LINES: Final = 8
"""Lines of a terminal that the table's frame and the line above it take."""

_LONGEST_TABLE: Final = 200
_BAR_WIDTH: Final = 8

_STYLES: Final = {
    "approved": "green",
    "denied": "yellow",
    "abstained": "cyan",
    "forged": "magenta",
    "duplicate": "blue",
    "lost": "bold red",
    "late": "bold red",
}


class Display(Protocol):
    """Where the demo is shown; a context manager, which puts the terminal back in order."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def show(self, visit: Visit) -> None:
        """Take note that more is known of a visit."""
        ...

    def finish(self, summary: Summary, *, chart: Histogram, seed: int) -> None:
        """Show how it went.

        Args:
            summary: The numbers.
            chart: The latencies.
            seed: What makes the same demo again.
        """
        ...

    def reviewing(self) -> AbstractContextManager[Callable[[Progress], None]]:
        """Return where the progress of the scheduled campaign goes; a context manager."""
        ...

    def finish_campaign(self, outcome: CampaignOutcome, *, chart: BurnUp) -> None:
        """Show what became of the scheduled campaign.

        Args:
            outcome: The numbers.
            chart: Its review over time.
        """
        ...


def display_for(*, as_json: bool, deadline_ms: int) -> Display:
    """Return the display that suits standard output.

    Args:
        as_json: Whether `--json` was given.
        deadline_ms: Milliseconds that an answer may take.
    """
    if as_json:
        return JsonDisplay()
    if sys.stdout.isatty():
        console = Console()
        if not console.is_dumb_terminal:
            return LiveDisplay(console, deadline_ms=deadline_ms)
    return PlainDisplay(deadline_ms=deadline_ms)


class _Display:
    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


@final
class JsonDisplay(_Display):
    """Nothing until the end, then one JSON object."""

    def __init__(self) -> None:
        self._triggered: dict[str, Any] = {}

    def show(self, visit: Visit) -> None:
        """Show nothing: programs want the end."""

    def finish(self, summary: Summary, *, chart: Histogram, seed: int) -> None:
        """Keep the first half of the object."""
        self._triggered = {**summary.as_json(), "seed": seed}

    def reviewing(self) -> AbstractContextManager[Callable[[Progress], None]]:
        """Return a place for what nobody reads."""
        return contextlib.nullcontext(lambda _: None)

    def finish_campaign(self, outcome: CampaignOutcome, *, chart: BurnUp) -> None:
        """Print the object."""
        both = {"ok": self._triggered["ok"] and outcome.ok, "campaign": outcome.as_json()}
        click.echo(json.dumps({**self._triggered, **both}))


@final
class PlainDisplay(_Display):
    """A line for each notification, when it is over."""

    def __init__(self, *, deadline_ms: int) -> None:
        self._deadline_ms = deadline_ms

    def show(self, visit: Visit) -> None:
        """Print the line of a visit that is over."""
        if visit.over:
            user, scenario, statuses, decision, latency = _cells(visit)
            against = f"{latency} of {self._deadline_ms} ms" if latency else ""
            click.echo(f"{user:<15} {scenario:<16} {statuses:<9} {decision:<19} {against}".rstrip())

    def finish(self, summary: Summary, *, chart: Histogram, seed: int) -> None:
        """Print the numbers, a line each."""
        click.echo()
        for name, value in summary.lines():
            click.echo(f"{name:<11} {value}")
        click.echo()
        show(chart)
        click.echo()
        for finding in summary.findings:
            click.echo(f"! {finding}")
        click.echo(_again(summary, seed))

    def reviewing(self) -> AbstractContextManager[Callable[[Progress], None]]:
        """Return a display that prints lines."""
        click.echo("\nA scheduled campaign is on hold; its listener is told, and reviews it.\n")
        return ReviewDisplay(Console(file=sys.stdout))

    def finish_campaign(self, outcome: CampaignOutcome, *, chart: BurnUp) -> None:
        """Print the numbers, a line each."""
        click.echo()
        for name, value in outcome.lines():
            click.echo(f"{name:<11} {value}")
        click.echo()
        show(chart)
        click.echo()
        for finding in outcome.findings:
            click.echo(f"! {finding}")
        click.echo(outcome.verdict)


@final
class LiveDisplay(_Display):
    """A table that grows while notifications go out and answers come in."""

    def __init__(self, console: Console, *, deadline_ms: int) -> None:
        self._console = console
        self._deadline_ms = deadline_ms
        self._visits: dict[int, Visit] = {}
        self._live = Live(console=console, get_renderable=self._current, refresh_per_second=12, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, visit: Visit) -> None:
        """Keep the visit for the next refresh."""
        self._visits[id(visit)] = visit

    def finish(self, summary: Summary, *, chart: Histogram, seed: int) -> None:
        """Replace the live table by the whole one, and print the numbers below."""
        self._live.stop()
        visits = list(self._visits.values())
        self._console.print(self._table(visits[-_LONGEST_TABLE:]))
        self._console.print(_numbers(summary.lines()))
        self._show(chart)
        for finding in summary.findings:
            self._console.print(Text(f"! {finding}", style="red"))
        self._console.print(Text(_again(summary, seed), style="bold green" if summary.ok else "bold red"))

    def reviewing(self) -> AbstractContextManager[Callable[[Progress], None]]:
        """Return a display that lives."""
        self._console.print("\nA scheduled campaign is on hold; its listener is told, and reviews it.\n")
        return ReviewDisplay(self._console)

    def finish_campaign(self, outcome: CampaignOutcome, *, chart: BurnUp) -> None:
        """Print the numbers below."""
        self._console.print()
        self._console.print(_numbers(outcome.lines()))
        self._show(chart)
        for finding in outcome.findings:
            self._console.print(Text(f"! {finding}", style="red"))
        style = "bold green" if outcome.ok else "bold red"
        self._console.print(Text(outcome.verdict, style=style))

    def _show(self, chart: Histogram | BurnUp) -> None:
        self._console.print()
        show(chart, self._console)
        self._console.print()

    def _current(self) -> Group:
        # Called from the display's own thread: a copy, since the event loop goes on.
        visits = list(self._visits.values())
        over = sum(visit.over for visit in visits)
        shown = visits[-max(4, self._console.height - _OTHER_LINES) :]
        return Group(Text(f"{len(visits)} notifications sent, {over} over"), self._table(shown))

    def _table(self, visits: list[Visit]) -> Table:
        # Narrow enough for 80 columns.
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
        for name in ("user", "scenario", "HTTP", "decision", f"of {self._deadline_ms} ms"):
            table.add_column(name, no_wrap=True)
        for visit in visits:
            user, scenario, statuses, decision, _ = _cells(visit)
            table.add_row(user, scenario, statuses, _coloured(decision), self._bar(visit.question.latency_ms))
        return table

    def _bar(self, latency_ms: int | None) -> Text:
        if latency_ms is None:
            return Text("")
        filled = min(_BAR_WIDTH, -(-latency_ms * _BAR_WIDTH // self._deadline_ms))
        style = "green" if filled <= _BAR_WIDTH // 2 else "yellow"
        return Text.assemble(("#" * filled, style), ("." * (_BAR_WIDTH - filled), "dim"), f" {latency_ms} ms")


def _cells(visit: Visit) -> tuple[str, str, str, str, str]:
    """Return user, scenario, HTTP answers, decision, latency."""
    seen = visit.observation()
    statuses = ", ".join("none" if status is None else str(status) for status in seen.statuses)
    latency = "" if seen.latency_ms is None else str(seen.latency_ms)
    return seen.user_id, seen.scenario.name, statuses, _decision(visit), latency


def _decision(visit: Visit) -> str:
    if not visit.over:
        return "..."
    return ", ".join(verdict.kind for verdict in judge(visit.observation()))


def _coloured(decision: str) -> Text:
    return Text(", ").join(Text(kind, style=_STYLES.get(kind, "dim")) for kind in decision.split(", "))


def _numbers(lines: list[tuple[str, str]]) -> Table:
    numbers = Table(box=None, show_header=False, pad_edge=False)
    numbers.add_column(style="bold")
    numbers.add_column()
    for name, value in lines:
        bad = name in ("lost", "late") and value != "0"
        numbers.add_row(name, Text(value, style="bold red" if bad else ""))
    return numbers


def _again(summary: Summary, seed: int) -> str:
    return f"{summary.verdict} (--seed {seed} plays it again)."
