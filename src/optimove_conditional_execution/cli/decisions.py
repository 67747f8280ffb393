"""`optimove-ce decisions`, `replay` and `reconcile`: what was decided, what a new rule would decide, what was sent."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, TextIO, TypeVar, get_args

import click

import optimove_conditional_execution as sdk  # its names are loaded when they are first used

from ..errors import ConfigurationError
from ..validation import number_of
from .databases import (
    check_secret,
    database_option,
    moment_option,
    private_file,
    read_journal,
    read_log,
    selection_options,
)
from .options import Seconds, echo_result, json_lines_option, json_option, printable, user_function

T = TypeVar("T")

_SHOW: Final = "show"
_COLUMNS: Final = (
    "entry", "at", "flow", "kind", "verdict", "customer_id", "campaign", "occurrence", "action", "channels",
    "promotions", "request_uid", "event_key", "reason", "evidence", "error", "told", "taken", "completed_at",
    "completion", "completion_error", "erased", "observed", "decided", "switch", "redelivered", "additional_data",
)  # fmt: skip

_NOBODY: Final = {
    "failed": "the decision failed",
    "late": "the rule did not answer in time",
    "forged": "refused, the signature was wrong, so nobody was asked",
    "unreadable": "the notification could not be understood, so nobody was asked",
    "expired": "it came after its deadline, so nobody was asked",
    "overloaded": "no handler was free, so nobody was asked",
    "cancelled": "the process ended while it was being answered",
    "not_reached": "time was up, or the review was stopped, before it was decided",
    "shadow": "a shadow was asked",
    "skipped": "of the control group, so nobody was asked",
}
_SAID: Final = {"approve": "yes", "deny": "no"}


class _Decisions(click.Group):
    """`decisions CUSTOMER` means `decisions show CUSTOMER`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [_SHOW, *args]
        return super().parse_args(ctx, args)


_LOG: Final = database_option("log")
_YES: Final = click.option("--yes", "is_sure", is_flag=True, help="Do it without asking.")


@click.group(cls=_Decisions, epilog="\b\nExample:\n  optimove-ce decisions C234638 --log decisions.db")
def decisions() -> None:
    """Tell why a customer got a campaign or did not.

    `decisions CUSTOMER` is short for `decisions show CUSTOMER`. If the log holds an HMAC instead of the ids, its secret
    is read from OPTIMOVE_DECISION_LOG_SECRET. The log can be set as OPTIMOVE_DECISION_LOG instead of --log.
    """


@decisions.command(_SHOW, epilog="\b\nExample:\n  optimove-ce decisions C234638 --log decisions.db --campaign 29")
@click.argument("customer")
@_LOG
@selection_options
@json_option
def show_decisions(customer: str, log: str, as_json: bool, **selection: Any) -> None:
    """List what was decided about CUSTOMER, the oldest first."""
    with read_log(log) as opened:
        found = opened.decisions(customer_id=customer, **selection)
        first = list(islice(found, 1))
        if not first:
            check_secret(opened.decisions(**selection))
        if as_json:
            click.echo(json.dumps([each.as_json() for each in chain(first, found)]))
            return
        for each in chain(first, found):
            click.echo("\n".join(map(printable, _told(each))))
        if not first:
            click.echo("The log holds no such decision.")


@decisions.command("export", epilog="\b\nExample:\n  optimove-ce decisions export --log decisions.db --csv > march.csv")
@_LOG
@selection_options
@click.option("--differences", is_flag=True, help="Only what a shadow, or an observed handler, would have changed.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header; the default.")
@json_lines_option
def export_decisions(log: str, differences: bool, as_csv: bool, as_json: bool, **selection: Any) -> None:
    """Print all decisions. They hold personal data."""
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other.")
    with read_log(log) as opened:
        found = opened.decisions(**selection)
        if differences:
            found = (each for each in found if each.record.differs)
        if isinstance(sys.stdout, io.TextIOWrapper):  # which has the locale's encoding in a pipe, on Windows
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")  # an id may have a lone surrogate
        write = _echo_json if as_json else _csv(sys.stdout, _COLUMNS, _cells)
        for each in found:
            write(each)


@decisions.command("verify", epilog="\b\nExample:\n  optimove-ce decisions verify --log decisions.db")
@_LOG
@click.option("--head", help="What this command printed earlier: the log must still hold that entry.")
@json_option
def verify_decisions(log: str, head: str | None, as_json: bool) -> None:
    """Check that no entry was changed, removed or reordered.

    Exit status: 0 the log is intact, 1 it is not, 2 a usage or configuration error. Keep the head that it prints where
    those who can write the file cannot.
    """
    with read_log(log) as opened:
        now, fault = opened.head(), opened.verify(head=head)
    entry, problem = (None, None) if fault is None else (fault.entry, fault.problem)
    told = {"ok": fault is None, "entry": entry, "problem": problem, "head": now}
    text = f"The log is intact. Its head is {now}" if fault is None else f"Entry {entry} {problem}."
    echo_result(told, text, as_json=as_json)
    raise click.exceptions.Exit(int(fault is not None))


@decisions.command("prune", epilog="\b\nExample:\n  optimove-ce decisions prune --before 2021-03-01 --log decisions.db")
@_LOG
@moment_option("--before", "Delete what is from before this moment", required=True)
@_YES
@json_option
def prune_decisions(log: str, before: datetime, is_sure: bool, as_json: bool) -> None:
    """Delete the oldest decisions, up to the first that is not from before a moment.

    Asks on a terminal; elsewhere it needs --yes. That the log was pruned, and up to which entry, becomes an entry of
    its own, so the rest stays verifiable. Exit status: 0 done, 1 the answer was no, 2 a usage or configuration error.
    """
    moment = before.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    with read_log(log) as opened:
        _ask(f"Delete all decisions from before {moment} for good?", is_sure=is_sure)
        count = opened.prune(before)
    decisions, were = number_of(count, "decision"), "was" if count == 1 else "were"
    text = f"{decisions} from before {moment} {were} deleted. The log keeps that it was pruned, and where."
    echo_result({"pruned": count}, text, as_json=as_json)


@decisions.command("erase", epilog="\b\nExample:\n  optimove-ce decisions erase C234638 --log decisions.db")
@click.argument("customer")
@_LOG
@_YES
@json_option
def erase_decisions(customer: str, log: str, is_sure: bool, as_json: bool) -> None:
    """Delete what the log knows of CUSTOMER, and keep that decisions were made.

    Deleted are the id, the reasons, the evidence, the additional data and the payloads. What stays is a record of each
    decision about somebody whom the log does not know any more: when, about which campaign, the verdict, what became of
    it, and Optimove's request_uid. So it stays provable that the gate ran. Asks on a terminal; elsewhere it needs
    --yes. Exit status: 0 done, 1 the answer was no, 2 a usage or configuration error.
    """
    with read_log(log) as opened:
        _ask("Delete for good what the log knows of this customer? That decisions were made is kept.", is_sure=is_sure)
        count = opened.erase(customer)
        if not count:
            check_secret(opened.decisions())
    text = (
        f"{number_of(count, 'decision was', 'decisions were')} erased: the id, reasons, evidence, additional data and "
        "payloads are deleted. The log keeps that they were made: when, about which campaign, the verdict, and "
        "Optimove's request_uid."
    )
    echo_result({"erased": count}, text if count else "The log holds nothing about this customer.", as_json=as_json)


def _ask(question: str, *, is_sure: bool) -> None:
    if is_sure:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("This deletes for good: confirm it with --yes, since there is no terminal to ask on.")
    if not click.confirm(question, err=True):
        click.echo("Nothing was deleted.", err=True)
        raise click.exceptions.Exit(1)


def _told(logged: sdk.stores.LoggedDecision) -> Iterator[str]:
    """Yield the lines about one decision."""
    record, subject = logged.record, logged.record.subject
    names = ("campaign", "occurrence", "action", "channels", "promotions")
    values = {name: getattr(subject, name) for name in names}
    asked = [
        f"{name} {', '.join(value) if isinstance(value, tuple) else value}" for name, value in values.items() if value
    ]
    kind = _NOBODY.get(record.kind, record.kind)
    if record.kind == "confirmed":
        kind = f"asked again about further rows, the rule said {_SAID.get(str(record.verdict), 'nothing')}"
    if record.observed is not None:
        kind += f", and {'it' if record.decided else 'the rule'} said {record.observed}"
        kind += f" where the rule that counts said {record.decided}" if record.decided else ", which does not count"
    because = f" ({record.reason})" if record.reason else ""
    error = f": {record.error.rstrip('.')}" if record.error else ""
    again = "the same answer was given again: " if record.redelivered else ""
    when = record.at.strftime("%Y-%m-%d %H:%M:%S UTC")
    yield f"{when}  {', '.join(asked) or record.flow}: {again}{kind}{because}{error}. {_outcome(logged)}"
    if record.evidence:
        yield f"    evidence: {json.dumps(record.evidence, ensure_ascii=False)}"


_STANDING: Final = {
    "confirmed": "The earlier decision stands.",
    "shadow": "A shadow's answer never counts.",
    "discarded": "It was never sent: the process ended first, and the customer was asked about again.",
    "revoked": "It was not sent: a later answer about the customer was no.",
    "superseded": "It was not sent: another replica had taken over.",
}


def _outcome(logged: sdk.stores.LoggedDecision) -> str:
    """Return what became of the answer, in a sentence."""
    record, done = logged.record, logged.completion
    for kind in (record.kind, done and done.kind):
        if kind in _STANDING:
            return _STANDING[kind]
    said = _SAID.get(str(record.verdict))
    if done and done.told:
        said = {"approved": "yes", "denied": "no"}.get(done.told)
    if said is None:
        why = f": {done.error.rstrip('.')}" if done and done.error and done.error != record.error else ""
        return f"Optimove was told nothing{why}."
    if done is None:
        if record.flow == "triggered":
            return "Whether Optimove was told is not known: it is being answered, or the process ended."
        return "There is no word yet that Optimove was told." if said == "yes" else "Optimove was not told yes."
    if done.taken:
        return f"Optimove was told {said}, and took it."
    error = f": {done.error.rstrip('.')}" if done.error else ""
    if done.taken is None:
        return f"Whether Optimove took the {said} is not known{error}."
    return f"Optimove did not take the {said}{error}."


def _echo_json(each: sdk.stores.LoggedDecision) -> None:
    click.echo(json.dumps(each.as_json()))


def _cells(each: sdk.stores.LoggedDecision) -> dict[str, Any]:
    told = each.as_json()
    done: dict[str, Any] = told.pop("completion") or {}
    told |= {
        "channels": ", ".join(told["channels"]),
        "promotions": ", ".join(told["promotions"]),
        **{name: json.dumps(told[name]) if told[name] else "" for name in ("evidence", "additional_data")},
        "told": done.get("told"),
        "taken": done.get("taken"),
        "completed_at": done.get("at"),
        "completion": done.get("kind"),
        "completion_error": done.get("error"),
    }
    return {name: _cell(value) for name, value in told.items()}


def _csv(stream: TextIO, columns: Sequence[str], cells: Callable[[T], Mapping[str, Any]]) -> Callable[[T], None]:
    """Write the first line of a CSV file, and return what writes a row of it."""
    rows: csv.DictWriter[str] = csv.DictWriter(_Lines(stream), columns, extrasaction="ignore")
    rows.writeheader()
    return lambda each: rows.writerow(cells(each))


class _Lines:
    """Writes rows with a line feed. Before Python 3.13 a carriage return in a text is quoted if a row ends with one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, row: str) -> int:
        return self._stream.write(row.removesuffix("\r\n") + "\n")


_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""With these a cell begins that a spreadsheet takes for a formula; the last four are full-width. Source: OWASP, CSV
Injection."""


def _cell(value: object) -> object:
    """Return what no spreadsheet executes."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


# ---- replay

_REPLAY_COLUMNS: Final = (
    "entry", "at", "flow", "campaign", "customer_id", "request_uid", "event_key", "before", "before_reason", "after",
    "after_reason", "error",
)  # fmt: skip
_LEFT: Final[dict[sdk.replay.Left, str]] = {
    "without_payload": "without a payload",
    "erased": "erased",
    "not_decided": "that no rule had decided",
    "no_rule": "of the other kind of campaign",
}


@click.command(epilog="\b\nExample:\n  optimove-ce replay --handler gate:new_rule --csv changed.csv --log decisions.db")
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
def replay(
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
        on_difference = None
        if csv_file is not None:
            on_difference = _csv(stack.enter_context(private_file(csv_file)), _REPLAY_COLUMNS, _replay_cells)
        found = opened.decisions(**selection)
        report = sdk.replay.replay(found, on_difference=on_difference, timeout=timeout, **rules)
    if not report.asked:
        left = _left_out(report)
        raise ConfigurationError(
            f"There was nothing to ask about{f': {left}' if left else ''}. The log must be written with "
            "keep_payloads=True."
        )
    echo_result(_numbers(report), "\n".join(_lines(report, csv_file)), as_json=as_json)
    raise click.exceptions.Exit(int(report.unchanged < report.asked))


def _replay_cells(replayed: sdk.replay.Replayed) -> dict[str, Any]:
    told = replayed.logged.as_json()
    after = {"after": replayed.after, "after_reason": replayed.reason, "error": replayed.error}
    cells = {**told, "before": replayed.before, "before_reason": told["reason"], **after}
    return {name: _cell(value) for name, value in cells.items()}


def _left_out(report: sdk.replay.ReplayReport) -> str:
    return ", ".join(f"{count} {_LEFT[why]}" for why, count in report.left_out.items())


def _numbers(report: sdk.replay.ReplayReport) -> dict[str, object]:
    return {
        "asked": report.asked,
        "unchanged": report.unchanged,
        "changed": [
            {"before": old, "after": new, "count": count} for (old, new), count in report.changed.most_common()
        ],
        "failed": dict(report.failed.most_common()),
        "left_out": {name: report.left_out[name] for name in _LEFT},
    }


def _lines(report: sdk.replay.ReplayReport, file: Path | None) -> Iterator[str]:
    changed, failed = report.changed.total(), report.failed.total()
    asked = number_of(report.asked, "decision")
    yield f"Asked about {asked}: {report.unchanged} as before, {changed} different, {failed} failed."
    for (before, after), count in report.changed.most_common():
        yield f"  {count:>8}  {before} -> {after}"
    for why, count in report.failed.most_common():
        yield f"  {count:>8}  {why}"
    if left := _left_out(report):
        yield f"Left out: {left}."
    if file is not None:
        yield f"Who they are is in {file}."


# ---- reconcile

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


@click.command(epilog="\b\nExample:\n  optimove-ce reconcile 1359 --journal reviews.db --ids ids.csv")
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
    from ..reconciliation import Difference

    if journal is None and log is None:
        raise click.UsageError("Give --journal, --log, or both: they hold who was approved.")
    with contextlib.ExitStack() as stack:
        written = None if ids is None else stack.enter_context(private_file(ids))
        kept = None if journal is None else stack.enter_context(read_journal(journal))
        logged = None if log is None else stack.enter_context(read_log(log))
        client = stack.enter_context(sdk.OptimoveClient())
        result = stack.enter_context(sdk.reconcile(client, campaign, journal=kept, decision_log=logged))
        if written is not None:
            rows = csv.writer(_Lines(written))
            rows.writerow(("difference", "customer_id"))
            for difference in get_args(Difference):
                rows.writerows((difference, name) for name in result.ids(difference))  # for programs, so as they are
    lines = _compared(result, has_journal=kept is not None, has_log=logged is not None)
    echo_result(result.as_json(), "\n".join(lines), as_json=as_json)
    raise click.exceptions.Exit(int(not result.ok))


def _compared(result: sdk.Reconciliation, *, has_journal: bool, has_log: bool) -> Iterator[str]:
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
