"""`optimove-ce demo`: both kinds of campaigns from end to end, over real HTTP, on this machine."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from optimove_conditional_execution.cli.campaign_rehearsal import (
    CUSTOMERS,
    SAFETY_MARGIN,
    CampaignOutcome,
    rehearse_campaign,
)
from optimove_conditional_execution.cli.charts import BurnUp, Histogram, ReviewSamples, Section
from optimove_conditional_execution.cli.displays import display_for
from optimove_conditional_execution.cli.interruption import run_interruptibly
from optimove_conditional_execution.cli.judgement import Summary
from optimove_conditional_execution.cli.rehearsal import rehearse
from optimove_conditional_execution.cli.report_file import report_option, write_page
from optimove_conditional_execution.cli.scenarios import ALL_SCENARIOS_COUNT, cast
from optimove_conditional_execution.flows.report import Progress


@click.command(epilog="\b\nExamples:\n  optimove-ce demo\n  optimove-ce demo --count 100 --json")
@click.option(
    "--count",
    type=click.IntRange(1, 10_000),
    default=40,
    show_default=True,
    help=f"Notifications to post; with {ALL_SCENARIOS_COUNT} or more every scenario is played.",
)
@click.option(
    "--timeout-ms",
    type=click.IntRange(100, 60_000),
    default=2_000,
    show_default=True,
    help="Milliseconds that an answer may take.",
)
@click.option(
    "--customers",
    type=click.IntRange(1, 1_000_000),
    default=CUSTOMERS,
    show_default=True,
    help="Customers of the scheduled campaign.",
)
@click.option("--seed", type=int, help="Plays the same customers in the same order again.")
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def demo(count: int, timeout_ms: int, customers: int, seed: int | None, report: Path | None, as_json: bool) -> None:
    """Watch decisions come back on time: a triggered campaign, then a scheduled one.

    A simulated Optimove and a sample service, in a process of its own, talk over HTTP on loopback: customers who are
    eligible, self-excluded or unknown, a backend that is slow or fails, forged and repeated notifications. Then a
    campaign on hold is announced to a listener, and all its customers are reviewed before clearance. Nothing leaves
    this machine, and no Optimove account is needed.

    Exit status: 0 nothing was lost and nothing was late, 1 something was, 2 it could not start.
    """
    # Short, so that people can type it again.
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    with display_for(as_json=as_json, deadline_ms=timeout_ms) as display:
        seen = run_interruptibly(rehearse(cast(count, seed=seed), timeout_ms=timeout_ms, on_change=display.show))
        summary = Summary.of(seen, deadline_ms=timeout_ms)
        latencies = Histogram(
            [one.latency_ms for one in seen if one.latency_ms is not None],
            deadline_ms=timeout_ms,
            untimed_late=summary.late,
        )
        display.finish(summary, chart=latencies, seed=seed)
    samples = ReviewSamples()
    with display.reviewing() as reviewing:

        def on_progress(progress: Progress) -> None:
            samples(progress)
            reviewing(progress)

        outcome = run_interruptibly(rehearse_campaign(customers, on_progress=on_progress))
    told = () if outcome.report is None else samples.of(outcome.report.campaign_id)
    burn_up = BurnUp.of_review(told, total=customers - outcome.control, safety_margin=SAFETY_MARGIN)
    display.finish_campaign(outcome, chart=burn_up)
    if report is not None:
        sections = [_triggered(summary, latencies, seed), _scheduled(outcome, burn_up)]
        write_page(report, title="Demonstration of Conditional Execution", sections=sections)
    if not (summary.ok and outcome.ok):
        raise click.exceptions.Exit(1)


def _triggered(summary: Summary, chart: Histogram, seed: int) -> Section:
    return Section(
        title="A triggered campaign",
        ok=summary.ok,
        verdict=f"{summary.verdict} (--seed {seed} plays it again).",
        facts=summary.lines(),
        charts=[chart],
        findings=summary.findings,
    )


def _scheduled(outcome: CampaignOutcome, chart: BurnUp) -> Section:
    return Section(
        title="A scheduled campaign",
        ok=outcome.ok,
        verdict=outcome.verdict,
        facts=outcome.lines(),
        charts=[chart],
        findings=outcome.findings,
    )
