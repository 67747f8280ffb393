"""`optimove-ce reconcile`: whom Optimove has sent a campaign, compared with who was approved."""

from __future__ import annotations

import contextlib
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO, get_args

import click

from ..client import OptimoveClient
from ..reconciliation import Difference, Reconciliation
from ..reconciliation import reconcile as compare
from ..rehearsal.result import number_of
from .databases import database_option, read_journal, read_log
from .files import private_file
from .options import json_option

_LINES: Final = (
    ("approved", "approved"),
    ("acknowledged", "of them acknowledged by Optimove"),
    ("held_back", "held back by the kill switch, and so not approved"),
    ("sent", "sent by Optimove"),
    ("unapproved", "sent and not approved"),
    ("not_sent", "approved, acknowledged, and not sent"),
    ("unacknowledged", "approved, not acknowledged, and not sent"),
    ("disagreeing", "approved by only one of journal and log"),
)


_ONE_ERASED: Final = "decision of the log is about a customer who was erased: it cannot"
_ERASED: Final = "decisions of the log are about customers who were erased: they cannot"


@click.command("reconcile", epilog="\b\nExample:\n  optimove-ce reconcile 1359 --journal reviews.db --ids ids.csv")
@click.argument("campaign", type=click.IntRange(min=1))
@database_option("journal", required=False)
@database_option("log", required=False)
@click.option(
    "--ids",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the customers of each difference, as CSV; readable by you only.",
)
@json_option
def reconcile(campaign: int, journal: str | None, log: str | None, ids: Path | None, as_json: bool) -> None:
    """Compare whom Optimove has sent CAMPAIGN with who was approved, after it has gone out.

    Give the journal of the review, the log of decisions, or both. Key and URL are read from OPTIMOVE_API_KEY and
    OPTIMOVE_BASE_URL. No id is ever printed.

    Exit status: 0 nobody got it who was not approved, 1 somebody did, 2 a usage or configuration error, or Optimove
    cannot be asked.
    """
    if journal is None and log is None:
        raise click.UsageError("Give --journal, --log, or both: they hold who was approved.")
    with contextlib.ExitStack() as stack:
        written = None if ids is None else stack.enter_context(private_file(ids))
        kept = None if journal is None else stack.enter_context(read_journal(journal))
        logged = None if log is None else stack.enter_context(read_log(log))
        client = stack.enter_context(OptimoveClient())
        result = stack.enter_context(compare(client, campaign, journal=kept, decision_log=logged))
        if written is not None:
            _write(written, result)
    if as_json:
        click.echo(json.dumps(result.as_json()))
    else:
        for line in _told(result, has_journal=kept is not None, has_log=logged is not None):
            click.echo(line)
    if not result.ok:
        raise click.exceptions.Exit(1)


def _told(result: Reconciliation, *, has_journal: bool, has_log: bool) -> Iterator[str]:
    yield f"Campaign {result.campaign_id}"
    for name, words in _LINES:
        if name != "disagreeing" or (has_journal and has_log):
            yield f"{getattr(result, name):>12,}  {words}"
    if has_journal and not result.reviews:
        yield "The journal has no review of this campaign."
    if has_log and not result.records:
        yield "The log has no decision about this campaign."
    if result.erased:
        yield f"{number_of(result.erased, _ONE_ERASED, _ERASED)} be compared."
    if not result.rows:
        yield "Optimove lists nobody: perhaps the campaign has not gone out yet."


def _write(file: TextIO, result: Reconciliation) -> None:
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(("difference", "customer_id"))
    for difference in get_args(Difference):
        rows.writerows((difference, name) for name in result.ids(difference))
