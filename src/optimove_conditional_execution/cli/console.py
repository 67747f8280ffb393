"""Output for people: live tables on a terminal, lines in a pipe, results as sections."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Self, final

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..flows.report import Progress, ReviewReport
from ..rehearsal import Observation, ScheduledResult, TriggeredResult
from ..rehearsal.demo import DemoPart
from ..rehearsal.result import sentences
from ..validation import number_of
from .charts import BurnUp, Histogram, ReviewSamples, Section, duration

_BAR_WIDTH: Final = 16
_SECONDS_A_LINE: Final = 1.0
_LONGEST_TABLE: Final = 200
_OTHER_LINES: Final = 8
"""Lines of a terminal for the table's frame and the line above it."""

_NAMES: Final = {"not_reached": "not reached", "chunks": "updates"}
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
        self.is_live = console.is_terminal and not console.is_dumb_terminal
        self._live = Live(console=console, get_renderable=self._now, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        if self.is_live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
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

    Attributes:
        samples: What it was told, for a chart.
    """

    def __init__(self, console: Console | None = None) -> None:
        """Lazy: nothing is shown until the first call.

        Args:
            console: Where to; unset, standard error.
        """
        self.samples = ReviewSamples()
        self._printed: dict[int, tuple[float, Progress]] = {}
        super().__init__(Console(stderr=True) if console is None else console)

    def __call__(self, progress: Progress) -> None:
        """Show the progress of a review; called by the review, in its own thread."""
        self.samples(progress)
        printed = self._printed.get(progress.campaign_id)
        if not self.is_live and (printed is None or time.monotonic() - printed[0] >= _SECONDS_A_LINE):
            self._print(progress)

    def _finish(self) -> None:
        if self.is_live and self.samples.latest:
            self.console.print(self._now())
        for progress in () if self.is_live else self.samples.latest.values():
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
        for progress in list(self.samples.latest.values()):
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
        ("left", duration(progress.seconds_left)),
        ("slack", "?" if progress.slack is None else duration(progress.slack)),
    ]


class NotificationDisplay(_LiveTable):
    """Display of the demo's notifications: a table, or in a pipe a line for each when it is over."""

    def __init__(self, console: Console) -> None:
        """Lazy: nothing is shown until the first call."""
        self._seen: dict[str, Observation] = {}
        super().__init__(console)

    def __call__(self, one: Observation) -> None:
        """Show the state of a notification."""
        self._seen[one.request_uid] = one
        if one.over and not self.is_live:
            self.console.print(Text(line_of(one)), soft_wrap=True)

    def _finish(self) -> None:
        if self.is_live:
            self.console.print(self._table(list(self._seen.values())[-_LONGEST_TABLE:]))

    def _now(self) -> Group:
        seen = list(self._seen.values())
        told = Text(f"{number_of(len(seen), 'notification')} sent, {sum(one.over for one in seen)} over")
        return Group(told, self._table(seen[-max(4, self.console.height - _OTHER_LINES) :]))

    def _table(self, seen: Sequence[Observation]) -> Table:
        # Narrow enough for 80 columns.
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0)
        for name in ("user", "scenario", "HTTP", "decision", "latency"):
            table.add_column(name, no_wrap=True)
        for one in seen:
            *cells, kinds, latency = _cells(one)
            coloured = Text(", ").join(Text(kind, style=_STYLES.get(kind, "dim")) for kind in kinds.split(", "))
            table.add_row(*cells, coloured, latency)
        return table


def _cells(one: Observation, *, is_checked: bool = True) -> tuple[str, str, str, str, str]:
    """Return user, scenario or fault, HTTP answers, the result, and the latency."""
    kinds = one.answered if not is_checked else ", ".join(check.kind for check in one.checks()) if one.over else "..."
    statuses = ", ".join(str(reply) for reply in one.replies)
    latency = "" if one.latency_ms is None else f"{one.latency_ms} of {one.deadline_ms} ms"
    return one.planned.user_id, one.planned.scenario or one.planned.fault or "", statuses, kinds, latency


def line_of(one: Observation, *, is_checked: bool = True) -> str:
    """Return a notification that is over as a line: with the results of its checks, or how it was answered."""
    user, fault, statuses, kinds, latency = _cells(one, is_checked=is_checked)
    return f"{user:<14} {fault:<16} HTTP {statuses:<9} {kinds:<20} {latency}".rstrip()


# ---- rehearsals that are over


def triggered_section(result: TriggeredResult, *, is_interrupted: bool) -> Section:
    """Return a triggered rehearsal as a section of a report."""
    if is_interrupted:
        went = "Interrupted"
    elif result.ok:
        went = "All results are right"
    else:
        went = (
            number_of(len(result.findings), "finding")
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
        ok=not result.failed,
        verdict=f"{number_of(result.reported, 'customer')} reported in time.",
        facts=result.lines(),
        charts=[BurnUp(series, clearance=result.clearance_seconds, total=result.rows)],
        findings=sentences(result.findings),
    )


def recipients_line(result: ScheduledResult) -> str:
    """Return who would get a campaign; a line of its own, since reports name no customer."""
    first = result.as_json()["first_recipients"]
    others = result.approved - len(first)
    more = f" and {others} more" if others else ""
    return f"would get it: {', '.join(first)}{more}" if first else "No customer would get it."


def demo_section(title: str, part: DemoPart[Any], chart: Histogram | BurnUp) -> Section:
    """Return a part of the demo as a section of a report."""
    return Section(
        title=title, ok=part.ok, verdict=part.verdict, facts=part.lines, charts=[chart], findings=part.findings
    )


# ---- reviews that are over


def review_sections(
    reports: Sequence[ReviewReport], samples: ReviewSamples, *, safety_margin: float, nothing: str
) -> list[Section]:
    """Return a section for each report, with a chart; that of a review that did nothing is empty.

    Args:
        reports: In order.
        samples: The progress of the reviews.
        safety_margin: Seconds, as the reviews were given.
        nothing: What to say when there is no report.
    """
    campaigns = Counter(report.campaign_id for report in reports)
    sections = []
    for report in reports:
        # Progress has only the campaign id: it cannot be assigned if two reviews have the same campaign.
        told = samples.of(report.campaign_id) if campaigns[report.campaign_id] == 1 else ()
        total = report.reviewed + report.not_reached if told and told[-1].all_read else None
        chart = BurnUp.of_review(told, total=total, safety_margin=safety_margin)
        names = ("reviewed", "approved", "denied", "failed", "not_reached", "acknowledged", "rows", "chunks", "retries")
        if report.complete:
            verdict = "Complete: every customer was decided, and every status to report was acknowledged."
        else:
            verdict = "INCOMPLETE: customers who were not approved and acknowledged do not get the campaign."
        sections.append(
            Section(
                title=f"Campaign {report.campaign_id}",
                ok=report.complete,
                verdict=verdict,
                facts=[
                    ("campaign", str(report.campaign_id)),
                    *((_NAMES.get(name, name), f"{getattr(report, name):,}") for name in names),
                    ("took", duration(report.seconds)),
                    ("to spare", f"{duration(report.seconds_to_spare)} before clearance"),
                ],
                charts=[chart],
                findings=[] if report.error is None else [str(report.error)],
                warnings=report.warnings,
            )
        )
    return sections or [Section(title="No review", ok=True, verdict=nothing)]
