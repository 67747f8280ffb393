"""`optimove-ce decisions`: what a log of decisions knows of a customer, its export, and whether it was changed."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO, final

import click

from ..errors import ConfigurationError, OptimoveError
from ..flows.decision_log import LoggedDecision
from ..settings import LOG_SECRET_VARIABLE
from ..stores import SqliteDecisionLog

_SHOW: Final = "show"
_COLUMNS: Final = (
    "entry", "at", "flow", "kind", "verdict", "customer_id", "campaign", "occurrence", "action", "channels",
    "promotions", "request_uid", "event_key", "reason", "evidence", "error", "told", "taken", "completed_at",
    "completion", "completion_error", "erased", "observed", "decided",
)  # fmt: skip

_NOBODY: Final = {
    "failed": "the rule failed",
    "late": "the rule did not answer in time",
    "forged": "refused, the signature was wrong, so nobody was asked",
    "unreadable": "the notification could not be understood, so nobody was asked",
    "expired": "it came after its deadline, so nobody was asked",
    "overloaded": "no handler was free, so nobody was asked",
    "cancelled": "the process ended while it was being answered",
    "not_reached": "time was up before it was decided",
    "shadow": "a shadow was asked",
    "skipped": "of the control group, so nobody was asked",
}
_SAID: Final = {"approve": "yes", "deny": "no"}


@final
class _Decisions(click.Group):
    """`decisions CUSTOMER` means `decisions show CUSTOMER`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [_SHOW, *args]
        return super().parse_args(ctx, args)


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("must be a date or a time such as 2026-03-03 or 2026-03-03T12:00+01:00.") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


_LOG: Final = click.option(
    "--log",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The SQLite file that a receiver or a review writes its decisions to.",
)
_CAMPAIGN: Final = click.option("--campaign", metavar="N", help="Only this campaign: its series id, or CampaignID.")
_SINCE: Final = click.option(
    "--since", metavar="DATE", callback=_moment, help="Only from this moment on; UTC without a zone."
)


@click.group(cls=_Decisions, epilog="\b\nExample:\n  optimove-ce decisions C234638 --log decisions.db")
def decisions() -> None:
    """Tell why a customer got a campaign or did not.

    `decisions CUSTOMER` is short for `decisions show CUSTOMER`. If the log holds an HMAC instead of the ids, its secret
    is read from OPTIMOVE_DECISION_LOG_SECRET.
    """


@decisions.command(_SHOW, epilog="\b\nExample:\n  optimove-ce decisions C234638 --log decisions.db --campaign 29")
@click.argument("customer")
@_LOG
@_CAMPAIGN
@_SINCE
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_decisions(customer: str, path: Path, campaign: str | None, since: datetime | None, as_json: bool) -> None:
    """List what was decided about CUSTOMER, the oldest first."""
    with _opened(path) as log:
        found = _read(path, log.decisions(customer_id=customer, campaign=campaign, since=since))
        if as_json:
            click.echo(json.dumps([each.as_json() for each in found]))
            return
        none = True
        for each in found:
            none = False
            for line in _told(each):
                click.echo(line)
        if none:
            click.echo("The log holds no such decision.")


@decisions.command("export", epilog="\b\nExample:\n  optimove-ce decisions export --log decisions.db --csv > march.csv")
@_LOG
@_CAMPAIGN
@_SINCE
@click.option("--differences", is_flag=True, help="Only what a shadow, or an observed handler, would have changed.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV with a header; the default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def export_decisions(
    path: Path, campaign: str | None, since: datetime | None, differences: bool, as_csv: bool, as_json: bool
) -> None:
    """Print all decisions. They hold personal data."""
    if as_csv and as_json:
        raise click.UsageError("--csv and --json exclude each other.")
    with _opened(path) as log:
        found = _read(path, log.decisions(campaign=campaign, since=since))
        if differences:
            found = (each for each in found if each.record.differs)
        if as_json:
            for each in found:
                click.echo(json.dumps(each.as_json()))
        else:
            _write_csv(sys.stdout, found)


@decisions.command("verify", epilog="\b\nExample:\n  optimove-ce decisions verify --log decisions.db")
@_LOG
@click.option("--head", help="What this command printed earlier: the log must still hold that entry.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_decisions(path: Path, head: str | None, as_json: bool) -> None:
    """Check that no entry was changed, removed or reordered.

    Exit status: 0 the log is intact, 1 it is not, 2 a usage or configuration error. Keep the head that it prints where
    those who can write the file cannot.
    """
    with _opened(path) as log:
        now, fault = log.head(), log.verify(head=head)
    if as_json:
        told = {"entry": None, "problem": None} if fault is None else {"entry": fault.entry, "problem": fault.problem}
        click.echo(json.dumps({"ok": fault is None, **told, "head": now}))
    elif fault is None:
        click.echo(f"The log is intact. Its head is {now}")
    else:
        click.echo(f"Entry {fault.entry} {fault.problem}.")
    if fault is not None:
        raise click.exceptions.Exit(1)


def _opened(path: Path) -> SqliteDecisionLog:
    # A mistyped name must not create an empty log that looks like one without decisions.
    if not path.is_file():
        raise ConfigurationError(f"There is no log {path}.")
    try:
        return SqliteDecisionLog(path, identify=os.environ.get(LOG_SECRET_VARIABLE))
    except OptimoveError:
        raise
    except Exception as error:  # the file may be of any kind
        raise ConfigurationError(
            f"The log {path} cannot be used ({error}): it must be an SQLite file of ours."
        ) from error


def _read(path: Path, found: Iterator[LoggedDecision]) -> Iterator[LoggedDecision]:
    try:
        yield from found
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ConfigurationError(
            f"An entry of {path} cannot be read ({type(error).__name__}): it was changed. "
            "`optimove-ce decisions verify` names the first that was."
        ) from None


def _told(logged: LoggedDecision) -> Iterator[str]:
    """Yield the lines about one decision."""
    record, subject = logged.record, logged.record.subject
    asked = [f"campaign {subject.campaign}"] if subject.campaign is not None else []
    asked += [f"occurrence {subject.occurrence}"] if subject.occurrence is not None else []
    asked += [f"action {subject.action}"] if subject.action is not None else []
    asked += [f"channels {', '.join(subject.channels)}"] if subject.channels else []
    asked += [f"promotions {', '.join(subject.promotions)}"] if subject.promotions else []
    kind = _NOBODY.get(record.kind, record.kind)
    if record.kind == "confirmed":
        kind = f"asked again about further rows, the rule said {_SAID.get(str(record.verdict), 'nothing')}"
    if record.observed is not None:
        kind += f", and it said {record.observed}"
        kind += f" where the rule that counts said {record.decided}" if record.decided else ", which does not count"
    because = f" ({record.reason})" if record.reason else ""
    error = f": {record.error.rstrip('.')}" if record.error else ""
    again = "the same answer was given again: " if record.redelivered else ""
    when = record.at.strftime("%Y-%m-%d %H:%M:%S UTC")
    yield _printable(f"{when}  {', '.join(asked) or record.flow}: {again}{kind}{because}{error}. {_outcome(logged)}")
    if record.evidence:
        yield _printable(f"    evidence: {json.dumps(record.evidence, ensure_ascii=False)}")


def _outcome(logged: LoggedDecision) -> str:
    """Return what became of the answer, in a sentence."""
    record, done = logged.record, logged.completion
    verdict = _SAID.get(str(record.verdict))
    if record.kind == "confirmed":
        return "The earlier decision stands."
    if record.kind == "shadow":
        return "A shadow's answer never counts."
    if done is None:
        if verdict is None:
            return "Optimove was told nothing."
        if record.flow == "scheduled":
            return "There is no word yet that Optimove was told." if verdict == "yes" else "Optimove was not told yes."
        return "Whether Optimove was told is not known: it is being answered, or the process ended."
    if done.kind == "discarded":
        return "It was never sent: the process ended first, and the customer was asked about again."
    if done.kind == "revoked":
        return "It was not sent: a later answer about the customer was no."
    if done.kind == "superseded":
        return "It was not sent: another replica had taken over."
    said = {"approved": "yes", "denied": "no", "nothing": None}.get(done.told) if done.told else verdict
    if said is None:
        return "Optimove was told nothing."
    if done.taken:
        return f"Optimove was told {said}, and took it."
    error = f": {done.error.rstrip('.')}" if done.error else ""
    if done.taken is None:
        return f"Whether Optimove took the {said} is not known{error}."
    return f"Optimove did not take the {said}{error}."


def _write_csv(stream: TextIO, found: Iterable[LoggedDecision]) -> None:
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(_COLUMNS)
    for each in found:
        told = each.as_json()
        done: dict[str, Any] = told["completion"] or {}
        told |= {
            "channels": ", ".join(told["channels"]),
            "promotions": ", ".join(told["promotions"]),
            "evidence": json.dumps(told["evidence"]) if told["evidence"] else "",
            "told": done.get("told"),
            "taken": done.get("taken"),
            "completed_at": done.get("at"),
            "completion": done.get("kind"),
            "completion_error": done.get("error"),
        }
        rows.writerow([_encodable(told[name]) for name in _COLUMNS])


def _encodable(value: object) -> object:
    """Return text that UTF-8 can hold: an id may have a lone surrogate."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _printable(text: str) -> str:
    """Return text that cannot steer a terminal: ids and reasons are others' text."""
    return "".join(character if character.isprintable() else "?" for character in text)
