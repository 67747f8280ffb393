"""`optimove-ce review`: run and resume reviews from a shell, and list those of a journal."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import click
from rich.console import Console

from ..client import AsyncOptimoveClient
from ..errors import ConfigurationError
from ..flows.customer_history import unanswered
from ..flows.journal import DecidedBatch, ReviewState
from ..flows.report import ReviewReport
from ..models.events import CampaignReadyEvent
from ..review import AsyncCampaignReview, per_customer
from ..review.stopping import STOP_SECONDS
from ..signature_diagnosis import UTF_16, utf_16
from ..stores import SqliteJournal
from .charts import show_section
from .console import ReviewDisplay, review_sections
from .options import echo_result, json_option, together
from .report_file import report_option, write_page
from .signals import Interrupted, run_interruptibly
from .user_function import user_function

T = TypeVar("T")

if TYPE_CHECKING:
    from ..stores.postgres import PostgresJournal

_REVIEWER: Final = click.argument("reviewer", metavar="MODULE:FUNCTION")
_JOURNAL: Final = click.option(
    "--journal",
    type=click.Path(dir_okay=False),
    required=True,
    help="The SQLite file that holds what was decided and sent, or a postgresql:// URL.",
)
_DENIED: Final = click.option("--report-denied", is_flag=True, help="Report those who are not approved, too.")
_SAFETY_MARGIN: Final = 30.0
_STOP_WITHIN: Final = click.option(
    "--stop-within",
    type=click.FloatRange(min=0),
    default=STOP_SECONDS,
    help="Seconds in which a signal stops it; a supervisor must wait longer before it kills.",
)
_CAMPAIGN: Final = click.option("--campaign", type=int, metavar="N", help="Only this campaign.")
_ONE: Final = click.option("--per-customer", "one_by_one", is_flag=True, help="FUNCTION takes one customer.")
_RUNNING: Final = together(_JOURNAL, _ONE, _DENIED, _STOP_WITHIN, report_option, json_option)


@click.group(epilog="\b\nExample:\n  optimove-ce review status --journal reviews.db")
def review() -> None:
    """Review scheduled campaigns with a function of yours.

    MODULE:FUNCTION is looked for in the current folder first; it may be a plain function or a coroutine function. Key,
    URL and time zone are read from OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL and OPTIMOVE_TIMEZONE.
    """


@review.command("run", epilog="\b\nExample:\n  optimove-ce review run gate:reviewer event.json --journal reviews.db")
@_REVIEWER
@click.argument("event", type=click.File("rb"), metavar="EVENT")
@_RUNNING
def run_review(event: BinaryIO, **options: Any) -> None:
    """Review the campaign of EVENT: a file with what Optimove posted to the listener, or - for stdin.

    SIGTERM, SIGHUP and Ctrl-C stop it within --stop-within: resume goes on. A second signal ends it at once.

    Exit status: 0 the review is complete, 1 it is not, 2 a usage or configuration error, 143 it was stopped by SIGTERM
    before it was complete, 129 by SIGHUP, 130 by Ctrl-C.
    """
    content = event.read()
    if utf_16(content) is not None:
        raise ConfigurationError(f"EVENT is in UTF-16, and JSON is UTF-8. {UTF_16}")
    ready = CampaignReadyEvent.from_json(content)

    async def run(review: AsyncCampaignReview) -> list[ReviewReport]:
        return [await review.run(ready)]

    _review(run, **options)


@review.command("resume", epilog="\b\nExample:\n  optimove-ce review resume gate:reviewer --journal reviews.db")
@_REVIEWER
@_RUNNING
def resume_reviews(journal: str, **options: Any) -> None:
    """Run what a crash or a stop left unfinished.

    SIGTERM, SIGHUP and Ctrl-C stop it within --stop-within. A second signal ends it at once.

    Exit status: 0 every review is complete, 1 one is not, 2 a usage or configuration error, 143 they were stopped by
    SIGTERM before they were complete, 129 by SIGHUP, 130 by Ctrl-C.
    """
    _review(AsyncCampaignReview.resume, journal=_existing(journal), **options)


@review.command("status", epilog="\b\nExample:\n  optimove-ce review status --journal reviews.db --json")
@_JOURNAL
@json_option
def review_status(journal: str, as_json: bool) -> None:
    """List the reviews of a journal with their progress."""
    rows = [
        {
            "campaign_id": kept.event.campaign_id,
            "clearance_required_by": kept.event.clearance_required_by.isoformat(sep=" "),
            "decided": kept.decided,
            "approved": kept.approved,
            "finished": kept.finished,
        }
        for kept in _kept(_existing(journal))
    ]
    line = "campaign {campaign_id}  clearance {clearance_required_by}  decided {decided}  approved {approved}  {state}"
    lines = [line.format(**row, state="finished" if row["finished"] else "unfinished") for row in rows]
    echo_result(rows, "\n".join(lines) or "The journal holds no review.", as_json=as_json)


@review.command("unanswered", epilog="\b\nExample:\n  optimove-ce review unanswered --journal reviews.db --json")
@_JOURNAL
@_CAMPAIGN
@json_option
def unanswered_customers(journal: str, campaign: int | None, as_json: bool) -> None:
    """List the customers whom the reviewer was asked about, and whose answer never came or came too late.

    They are not approved, but what the reviewer does for a customer, such as activating a bonus, may have happened.
    Who was answered about in a later run is not listed. After a kill -9 or a power cut the journal cannot name those
    who were being asked about.
    """
    rows = [
        {
            "campaign_id": state.event.campaign_id,
            "clearance_required_by": state.event.clearance_required_by.isoformat(sep=" "),
            "customer_id": customer_id,
            "why": why,
        }
        for state, found in _from_journal(_existing(journal), campaign, lambda _, batches: unanswered(batches))
        for customer_id, why in found.items()
    ]
    lines = [
        "campaign {campaign_id}  clearance {clearance_required_by}  {customer_id}  {why}".format(**row) for row in rows
    ]
    none = "Every customer whom the reviewer was asked about was answered about."
    echo_result(rows, "\n".join(lines) or none, as_json=as_json)


def _review(
    work: Callable[[AsyncCampaignReview], Awaitable[list[ReviewReport]]],
    *,
    reviewer: str,
    journal: str,
    one_by_one: bool,
    report_denied: bool,
    stop_within: float,
    report: Path | None,
    as_json: bool,
) -> None:
    function = user_function(reviewer, "reviewer")
    asked: Any = per_customer(function, concurrency=16) if one_by_one else function
    # On standard error, so that the report can be piped; and cron mails what is written there.
    display = ReviewDisplay(Console(stderr=True, quiet=as_json or not sys.stderr.isatty()))

    signals: list[int] = []
    running: list[AsyncCampaignReview] = []

    def stop(number: int) -> None:
        signals.append(number)
        click.echo(f"Stopping within {stop_within:g} s; a second signal ends it at once.", err=True)
        for one in running:
            one.stop(within=stop_within)

    async def go() -> list[ReviewReport]:
        async with AsyncOptimoveClient() as client:
            with display:
                made = AsyncCampaignReview(
                    asked,
                    client=client,
                    journal=_journal(journal),
                    safety_margin=_SAFETY_MARGIN,
                    report_denied=report_denied,
                    progress=display,
                )
                running.append(made)
                if signals:
                    raise Interrupted(signals[0])
                return await work(made)

    try:
        reports = run_interruptibly(go(), on_signal=stop)
    except ConnectionError as error:
        raise _unreachable(error) from error
    left = 0 if reports else sum(not kept.finished for kept in _kept(journal))
    nothing = f"Others are at {left} unfinished reviews." if left else "Nothing is left to do."
    sections = review_sections(reports, display.samples, safety_margin=_SAFETY_MARGIN, nothing=nothing)
    if as_json:
        click.echo(json.dumps([json.loads(one.to_json()) for one in reports]))
    for section in () if as_json else sections:
        show_section(section)
    if report is not None:
        write_page(report, title="Review of scheduled campaigns", sections=sections)
    if signals and any(one.stopped for one in reports):
        where = "URL" if _is_url(journal) else journal
        click.echo(f"Stopped: optimove-ce review resume {reviewer} --journal {where} goes on.", err=True)
        raise click.exceptions.Exit(128 + signals[0])
    if not all(one.complete for one in reports):
        raise click.exceptions.Exit(1)


def _journal(path: str) -> SqliteJournal | PostgresJournal:
    if _is_url(path):
        try:
            from ..stores.postgres import PostgresJournal
        except ImportError as error:
            raise ConfigurationError(str(error)) from None
        return PostgresJournal(path)
    try:
        return SqliteJournal(path)
    except Exception as error:  # the file may be of any kind
        raise ConfigurationError(
            f"The journal {path} cannot be used ({error}): it must be an SQLite file of ours, in a folder that exists."
        ) from error


def _kept(path: str) -> list[ReviewState]:
    return [state for state, _ in _from_journal(path, None, lambda *_: None)]


def _from_journal(
    path: str, campaign: int | None, read: Callable[[ReviewState, Iterator[DecidedBatch]], T]
) -> list[tuple[ReviewState, T]]:
    with _journal(path) as journal:
        try:
            return [
                (state, read(state, journal.batches(state.event.key)))
                for state in journal.reviews()
                if campaign in (None, state.event.campaign_id)
            ]
        except ConfigurationError:
            raise
        except ConnectionError as error:
            raise _unreachable(error) from error
        except Exception as error:  # the file may be of any kind
            raise ConfigurationError(f"The journal {path} cannot be read ({error}).") from error


def _existing(journal: str) -> str:
    # A mistyped name must not create an empty journal that looks like a finished one.
    if not _is_url(journal) and not Path(journal).is_file():
        raise ConfigurationError(f"There is no journal {journal}.")
    return journal


def _unreachable(error: ConnectionError) -> ConfigurationError:
    return ConfigurationError(f"The journal cannot be used: {error}")


def _is_url(journal: str) -> bool:
    return journal.startswith(("postgresql://", "postgres://"))
