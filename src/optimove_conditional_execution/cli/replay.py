"""`optimove-ce replay`: ask a new rule about recorded decisions, and print who would be decided differently."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TextIO

import click

from ..errors import ConfigurationError
from ..rehearsal.result import number_of
from ..replay import Left, Replayed, ReplayReport, replay
from .databases import database_option, read_log, readable, selection_options
from .files import private_file
from .options import Seconds, json_option, user_function

_COLUMNS: Final = (
    "entry", "at", "flow", "campaign", "customer_id", "request_uid", "event_key", "before", "before_reason", "after",
    "after_reason", "error",
)  # fmt: skip
_LEFT: Final[dict[Left, str]] = {
    "without_payload": "without a payload",
    "erased": "erased",
    "not_decided": "that no rule had decided",
    "no_rule": "of the other kind of campaign",
}


@click.command(
    "replay", epilog="\b\nExample:\n  optimove-ce replay --handler gate:new_rule --csv changed.csv --log decisions.db"
)
@database_option("log")
@click.option("--handler", metavar="MODULE:FUNCTION", help="The new rule for triggered campaigns.")
@click.option("--reviewer", metavar="MODULE:FUNCTION", help="The new rule for scheduled campaigns.")
@selection_options
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
    csv_file: Path | None,
    timeout: float,
    as_json: bool,
    **selection: Any,
) -> None:
    """Ask a new rule about recorded decisions, and count who would be decided differently.

    The log must have been written with keep_payloads=True; the key of an encrypted one is read from
    OPTIMOVE_DECISION_LOG_KEY. Nothing is sent to Optimove; what the rule itself does happens. MODULE:FUNCTION is looked
    for in the current folder first, and may be a plain function or a coroutine function.

    Exit status: 0 all are decided as before, 1 one is not, or the new rule failed for it, 2 a usage or configuration
    error, also when there was nothing to ask about.
    """
    given = {"handler": handler, "reviewer": reviewer}
    rules: dict[str, Any] = {what: user_function(name, what) for what, name in given.items() if name is not None}
    with read_log(log) as opened, contextlib.ExitStack() as stack:
        on_difference = None if csv_file is None else _writer(stack.enter_context(private_file(csv_file)))
        found = readable(opened.decisions(**selection))
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


def _writer(stream: TextIO) -> Callable[[Replayed], None]:
    rows: csv.DictWriter[str] = csv.DictWriter(stream, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    rows.writeheader()

    def write(replayed: Replayed) -> None:
        told = replayed.logged.as_json()
        after = {"after": replayed.after, "after_reason": replayed.reason, "error": replayed.error}
        rows.writerow({**told, "before": replayed.before, "before_reason": told["reason"], **after})

    return write


def _left_out(report: ReplayReport) -> str:
    return ", ".join(f"{count} {_LEFT[why]}" for why, count in report.left_out.items())


def _as_json(report: ReplayReport) -> dict[str, object]:
    return {
        "asked": report.asked,
        "unchanged": report.unchanged,
        "changed": [
            {"before": old, "after": new, "count": count} for (old, new), count in report.changed.most_common()
        ],
        "failed": dict(report.failed.most_common()),
        "left_out": {name: report.left_out[name] for name in _LEFT},
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
