"""`optimove-ce review`: run and resume reviews from a shell, and list those of a journal."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click

import optimove_conditional_execution as sdk  # its names are loaded when they are first used

from ..defaults import STOP_SECONDS
from ..errors import ConfigurationError
from ..validation import number_of
from .databases import database_option, is_url, open_journal, open_log, reachable, read_journal
from .options import echo_result, json_option, printable, report_option, together, user_function
from .signals import run_interruptibly

if TYPE_CHECKING:  # a help text needs neither it nor rich: each command imports what it runs
    from ..flows.customer_history import CustomerReview

_JOURNAL: Final = database_option("journal")
_REVIEWER: Final = click.argument("reviewer", metavar="MODULE:FUNCTION")
_DENIED: Final = click.option("--report-denied", is_flag=True, help="Report those who are not approved, too.")
_SAFETY_MARGIN: Final = 30.0
_STOP_WITHIN: Final = click.option(
    "--stop-within",
    type=click.FloatRange(min=0),
    default=STOP_SECONDS,
    help="Seconds in which a signal stops it; a supervisor must wait longer before it kills.",
)
_SWITCH: Final = click.option(
    "--switch", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="The file of a kill switch."
)
_CAMPAIGN: Final = click.option("--campaign", type=int, metavar="N", help="Only this campaign.")
_ONE: Final = click.option("--per-customer", "one_by_one", is_flag=True, help="FUNCTION takes one customer.")
_LOG: Final = database_option("log", required=False)
_RUNNING: Final = together(_JOURNAL, _LOG, _ONE, _DENIED, _STOP_WITHIN, _SWITCH, report_option, json_option)


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
    from ..signature_diagnosis import UTF_16, utf_16

    content = event.read()
    if utf_16(content) is not None:
        raise ConfigurationError(f"EVENT is in UTF-16, and JSON is UTF-8. {UTF_16}")
    ready = sdk.CampaignReadyEvent.from_json(content)

    async def run(review: sdk.AsyncCampaignReview) -> list[sdk.ReviewReport]:
        return [await review.run(ready)]

    _review(run, is_new=True, **options)


@review.command("resume", epilog="\b\nExample:\n  optimove-ce review resume gate:reviewer --journal reviews.db")
@_REVIEWER
@_RUNNING
def resume_reviews(**options: Any) -> None:
    """Run what a crash or a stop left unfinished.

    SIGTERM, SIGHUP and Ctrl-C stop it within --stop-within. A second signal ends it at once.

    Exit status: 0 every review is complete, 1 one is not, 2 a usage or configuration error, 143 they were stopped by
    SIGTERM before they were complete, 129 by SIGHUP, 130 by Ctrl-C.
    """
    _review(sdk.AsyncCampaignReview.resume, is_new=False, **options)


@review.command("status", epilog="\b\nExample:\n  optimove-ce review status --journal reviews.db --json")
@_JOURNAL
@json_option
def review_status(journal: str, as_json: bool) -> None:
    """List the reviews of a journal with their progress."""
    with read_journal(journal) as kept:
        rows = [
            {**_head(state.event), **{name: getattr(state, name) for name in ("decided", "approved", "finished")}}
            for state in kept.reviews()
        ]
    line = f"{_HEAD}  decided {{decided}}  approved {{approved}}  {{state}}"
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
    from ..flows.customer_history import unanswered

    with read_journal(journal) as kept:
        rows = [
            {**_head(state.event), "customer_id": customer_id, "why": why}
            for state in _selected(kept.reviews(), campaign)
            for customer_id, why in unanswered(kept.batches(state.event.key)).items()
        ]
    lines = [f"{_HEAD}  {{customer_id}}  {{why}}".format(**row) for row in rows]
    none = "Every customer whom the reviewer was asked about was answered about."
    echo_result(rows, "\n".join(lines) or none, as_json=as_json)


@review.command("explain", epilog="\b\nExample:\n  optimove-ce review explain C234638 --journal reviews.db")
@click.argument("customer")
@_JOURNAL
@_CAMPAIGN
@json_option
def explain_customer(customer: str, journal: str, campaign: int | None, as_json: bool) -> None:
    """Tell from the journal what became of CUSTOMER: approved, denied or failed, why, in which batch and update, when.

    Without --campaign the reviews that do not name the customer are only counted.

    Exit status: 0 answered, 1 the journal holds no such review, 2 a usage or configuration error.
    """
    from ..flows.customer_history import explain

    with read_journal(journal) as kept:
        states = _selected(kept.reviews(), campaign)
        found = [
            explain(state, kept.history(state.event.key), kept.acknowledged(state.event.key), customer)
            for state in states
        ]
    told = [each for each in found if each.steps or campaign is not None]
    if as_json:
        click.echo(json.dumps([each.as_json() for each in told]))
    else:
        for line in chain.from_iterable(map(_explained, told)):
            click.echo(printable(line))
        if not states:
            click.echo("The journal holds no such review.")
        elif others := len(found) - len(told):
            other = "other " if told else ""
            click.echo(f"{number_of(others, f'{other}review does', f'{other}reviews do')} not name the customer.")
    if not states:
        raise click.exceptions.Exit(1)


_HEAD: Final = "campaign {campaign_id}  clearance {clearance_required_by}"


def _head(event: sdk.CampaignReadyEvent) -> dict[str, Any]:
    clearance = event.clearance_required_by.isoformat(sep=" ")
    return {"campaign_id": event.campaign_id, "clearance_required_by": clearance}


def _selected(states: Iterable[sdk.stores.ReviewState], campaign: int | None) -> list[sdk.stores.ReviewState]:
    return [state for state in states if campaign in (None, state.event.campaign_id)]


_STANDINGS: Final = {
    "approved": "approved",
    "denied": "denied",
    "abstained": "not approved, the reviewer abstained",
    "failed": "not approved, the decision failed",
    "unanswered": "not approved, the reviewer gave no answer before time was up",
    "not_reached": "not approved, time was up, or the review was stopped, before the reviewer was asked",
    "skipped": "not asked about, a customer of the control group",
    "not_in_campaign": "not in the campaign",
    "unknown": "not in the journal, which does not hold all customers of the campaign",
}
_STEPS: Final = {
    **_STANDINGS,
    "confirmed": "asked about again, and the earlier decision stands",
    "released": "approvals became final, and were sent from then on",
    "acknowledged": "Optimove took it",
}


def _explained(found: CustomerReview) -> Iterator[str]:
    because = f" ({found.reason})" if found.reason else ""
    sent = ""
    if found.acknowledged:
        sent = ", and Optimove took it"
    elif found.standing == "approved":  # denials are sent on request only
        sent = ", and the journal does not hold that Optimove took it"
    yield f"{_HEAD.format(**_head(found.event))}  {_STANDINGS[found.standing]}{because}{sent}."
    for step in found.steps:
        at = "time not recorded" if step.at is None else f"{datetime.fromtimestamp(step.at, UTC):%Y-%m-%d %H:%M:%S UTC}"
        kind = "update" if step.what == "acknowledged" else "batch"
        place = f"{kind} {'not recorded' if step.number is None else step.number}: "
        why = f" ({step.reason})" if step.reason not in (None, found.reason) else ""
        yield f"    {at}  {'' if step.what == 'released' else place}{_STEPS[step.what]}{why}"


def _review(
    work: Callable[[sdk.AsyncCampaignReview], Awaitable[list[sdk.ReviewReport]]],
    *,
    is_new: bool,
    reviewer: str,
    journal: str,
    log: str | None,
    one_by_one: bool,
    report_denied: bool,
    stop_within: float,
    switch: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    from rich.console import Console

    from .charts import show_section, write_page
    from .console import ReviewDisplay, review_sections

    function = user_function(reviewer, "reviewer")
    asked: Any = sdk.per_customer(function, concurrency=16) if one_by_one else function
    # On standard error, so that the report can be piped; and cron mails what is written there.
    display = ReviewDisplay(Console(stderr=True, quiet=as_json or not sys.stderr.isatty()))

    client = sdk.AsyncOptimoveClient()
    signals: list[int] = []

    def stop(number: int) -> None:
        signals.append(number)
        click.echo(f"Stopping within {stop_within:g} s; a second signal ends it at once.", err=True)
        made.stop(within=stop_within)

    async def go() -> list[sdk.ReviewReport]:
        async with client:
            with display:
                return await work(made)

    with reachable("journal"), open_log(log) as decisions:
        made = sdk.AsyncCampaignReview(
            asked,
            client=client,
            journal=open_journal(journal, is_new=is_new),
            safety_margin=_SAFETY_MARGIN,
            report_denied=report_denied,
            progress=display,
            switch=switch,
            decision_log=decisions,
        )
        reports = run_interruptibly(go(), on_signal=stop)
    left = 0
    if not reports:
        with read_journal(journal) as kept:
            left = sum(not state.finished for state in kept.reviews())
    nothing = f"Others are at {left} unfinished reviews." if left else "Nothing is left to do."
    sections = review_sections(reports, display.samples, safety_margin=_SAFETY_MARGIN, nothing=nothing)
    if as_json:
        click.echo(json.dumps([json.loads(one.to_json()) for one in reports]))
    for section in () if as_json else sections:
        show_section(section)
    if report is not None:
        write_page(report, title="Review of scheduled campaigns", sections=sections)
    if signals and any(one.stopped for one in reports):
        given = {"--journal": journal} | ({} if log is None else {"--log": log})
        where = " ".join(f"{option} {'URL' if is_url(path) else path}" for option, path in given.items())
        click.echo(f"Stopped: optimove-ce review resume {reviewer} {where} goes on.", err=True)
        raise click.exceptions.Exit(128 + signals[0])
    if not all(one.complete for one in reports):
        raise click.exceptions.Exit(1)
