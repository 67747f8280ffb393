"""`optimove-ce replay`: ask a new rule about recorded decisions, and print who would be decided differently."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click

from ..errors import ConfigurationError
from ..rehearsal.result import number_of
from ..replay import Replayed, ReplayReport, replay
from .decision_logs import campaign_option, log_option, opened_log, readable, since_option, until_option
from .options import Seconds, json_option
from .private_file import private_file
from .user_function import user_function

_COLUMNS: Final = (
    "entry", "at", "flow", "campaign", "customer_id", "request_uid", "event_key", "before", "before_reason", "after",
    "after_reason", "error",
)  # fmt: skip
_LEFT: Final = {
    "without_payload": "without a payload",
    "erased": "erased",
    "not_decided": "that no rule had decided",
    "no_rule": "of the other kind of campaign",
}


@click.command(
    "replay", epilog="\b\nExample:\n  optimove-ce replay --handler gate:new_rule --csv changed.csv --log decisions.db"
)
@log_option
@click.option("--handler", metavar="MODULE:FUNCTION", help="The new rule for triggered campaigns.")
@click.option("--reviewer", metavar="MODULE:FUNCTION", help="The new rule for scheduled campaigns.")
@campaign_option
@since_option
@until_option
@click.option(
    "--csv", "csv_file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write who would be decided differently into this file; it holds customer ids.",
)  # fmt: skip
@click.option(
    "--timeout", type=Seconds(min=0.001, max=3_600), default=10.0, help="Seconds for each call of the new rule."
)
@json_option
def replay_command(
    log: str,
    handler: str | None,
    reviewer: str | None,
    campaign: str | None,
    since: datetime | None,
    until: datetime | None,
    csv_file: Path | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Ask a new rule about recorded decisions, and count who would be decided differently.

    The log must have been written with keep_payloads=True; the key of an encrypted one is read from
    OPTIMOVE_DECISION_LOG_KEY. Nothing is sent to Optimove; what the rule itself does happens. MODULE:FUNCTION is looked
    for in the current folder first, and may be a plain function or a coroutine function.

    Exit status: 0 all are decided as before, 1 one is not, or the new rule failed for it, 2 a usage or configuration
    error, also when there was nothing to ask about.
    """
    rules: dict[str, Any] = {
        "handler": None if handler is None else user_function(handler, "handler"),
        "reviewer": None if reviewer is None else user_function(reviewer, "reviewer"),
    }
    with opened_log(log) as opened, _differences(csv_file) as on_difference:
        found = readable(opened.decisions(campaign=campaign, since=since, until=until))
        report = replay(found, on_difference=on_difference, timeout=timeout, **rules)
    if not report.asked:
        left = _left_out(report)
        raise ConfigurationError(
            f"There was nothing to ask about{f': {left}' if left else ''}. The log must be written with "
            "keep_payloads=True."
        )
    if as_json:
        click.echo(json.dumps(_as_json(report)))
    else:
        _print(report, csv_file)
    if report.unchanged < report.asked:
        raise click.exceptions.Exit(1)


@contextmanager
def _differences(file: Path | None) -> Iterator[Callable[[Replayed], None] | None]:
    if file is None:
        yield None
        return
    with private_file(file) as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(_COLUMNS)

        def write(replayed: Replayed) -> None:
            logged, record = replayed.logged, replayed.logged.record
            rows.writerow(
                [
                    logged.entry, record.at.isoformat(), record.flow, record.subject.campaign,
                    record.subject.customer_id, record.request_uid, record.event_key, replayed.before, record.reason,
                    replayed.after, replayed.reason, replayed.error,
                ]
            )  # fmt: skip

        yield write


def _left_out(report: ReplayReport) -> str:
    return ", ".join(f"{count} {_LEFT[why]}" for why, count in report.left_out.items())


def _as_json(report: ReplayReport) -> dict[str, object]:
    changed = [
        {"before": before, "after": after, "count": count} for (before, after), count in report.changed.most_common()
    ]
    return {
        "asked": report.asked,
        "unchanged": report.unchanged,
        "changed": changed,
        "failed": dict(report.failed.most_common()),
        "left_out": {name: report.left_out[name] for name in ("without_payload", "erased", "not_decided", "no_rule")},
    }


def _print(report: ReplayReport, file: Path | None) -> None:
    changed, failed = report.changed.total(), report.failed.total()
    click.echo(
        f"Asked about {number_of(report.asked, 'decision')}: {report.unchanged} as before, {changed} different, "
        f"{failed} failed."
    )
    for (before, after), count in report.changed.most_common():
        click.echo(f"  {count:>8}  {before} -> {after}")
    for why, count in report.failed.most_common():
        click.echo(f"  {count:>8}  {why}")
    if left := _left_out(report):
        click.echo(f"Left out: {left}.")
    if file is not None:
        click.echo(f"Who they are is in {file}.")
