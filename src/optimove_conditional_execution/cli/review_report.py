"""How reviews are told of when they are over: lines, charts, one JSON array, and a page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from optimove_conditional_execution.cli.charts import BurnUp, ReviewSamples, Section, show
from optimove_conditional_execution.cli.report_file import write_page
from optimove_conditional_execution.flows.report import ReviewReport


def tell(reports: Sequence[ReviewReport], charts: Sequence[BurnUp], *, nothing: str = "") -> None:
    """Print reports with their charts.

    Args:
        reports: In order.
        charts: One for each; those with nothing to draw are left out.
        nothing: What is printed when there is no report.
    """
    for report, chart in zip(reports, charts, strict=True):
        click.echo(_line(report))
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
    write_page(
        path,
        title="Review of scheduled campaigns",
        sections=sections or [Section(title="No review", ok=True, verdict=nothing)],
    )


def charts_of(reports: Sequence[ReviewReport], samples: ReviewSamples, *, safety_margin: float) -> list[BurnUp]:
    """Return a chart for each report; one of a review that did no work has nothing to draw.

    Args:
        reports: In order.
        samples: What the reviews told of their progress.
        safety_margin: Seconds, as the reviews were given.
    """
    campaigns = Counter(report.campaign_id for report in reports)
    charts = []
    for report in reports:
        # Progress names the campaign alone: of two reviews of one campaign nobody knows whose it was.
        told = samples.of(report.campaign_id) if campaigns[report.campaign_id] == 1 else ()
        total = report.reviewed + report.not_reached if told and told[-1].all_read else None
        charts.append(BurnUp.of_review(told, total=total, safety_margin=safety_margin))
    return charts


def _line(report: ReviewReport) -> str:
    numbers = "  ".join(f"{name} {value}" for name, value in _counts(report))
    return f"campaign {report.campaign_id}  {_state(report)}  {numbers}  to spare {report.seconds_to_spare:.0f} s"


def _state(report: ReviewReport) -> str:
    return "complete" if report.complete else "INCOMPLETE"


def _counts(report: ReviewReport) -> list[tuple[str, int]]:
    return [
        ("reviewed", report.reviewed),
        ("approved", report.approved),
        ("denied", report.denied),
        ("failed", report.failed),
        ("not reached", report.not_reached),
        ("acknowledged", report.acknowledged),
    ]


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
        verdict = "Complete: every customer was decided about, and every status to report was acknowledged."
    else:
        verdict = "INCOMPLETE: whoever was not approved and acknowledged does not get the campaign."
    return Section(
        title=f"Campaign {report.campaign_id}",
        ok=report.complete,
        verdict=verdict,
        facts=facts,
        charts=[chart],
        findings=_errors(report),
        warnings=report.warnings,
    )
