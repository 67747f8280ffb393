"""`optimove-ce demo`, `trigger`, `campaign` and `simulate`: rehearsals from a shell; their tables are in `console`."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO

import click

import optimove_conditional_execution as sdk  # its names are loaded when they are first used

from ..defaults import DEFAULT_TIMEOUT_MS, LOOPBACK, START_SECONDS
from ..urls import is_loopback
from .options import (
    MAX_TIMEOUT_MS,
    F,
    Seconds,
    as_text,
    given_secrets,
    json_lines_option,
    json_option,
    report_option,
    together,
    url,
)
from .signals import Interrupted, run_interruptibly
from .tenant import token_of, with_token

if TYPE_CHECKING:  # a help text needs neither them nor rich: each command imports what it runs
    from ..rehearsal.plan import FaultKind
    from .charts import Section

DEMO_CUSTOMERS: Final = 25_000
_DEFAULT_PERCENT: Final = 10.0
_DECISIONS: Final = ("approved", "denied", "abstained")


def _fault_share(given: str) -> tuple[FaultKind, float]:
    """Return how many of a hundred notifications have which fault, from `KIND` or `KIND=PERCENT`."""
    from ..rehearsal.plan import FAULT_KINDS

    word, is_equal, number = given.partition("=")
    kinds: dict[str, FaultKind] = {kind: kind for kind in FAULT_KINDS}
    kind = kinds.get(word)
    if kind is None:
        raise click.BadParameter(f"{word!r} is none of {', '.join(FAULT_KINDS)}.")
    try:
        percent = float(number.removesuffix("%")) if is_equal else _DEFAULT_PERCENT
    except ValueError:
        percent = 0.0
    if not 0 < percent <= 100:
        raise click.BadParameter(f"{number!r} is no percentage: {kind}=20 means 20 of 100.")
    return kind, percent


def _expectation(given: str) -> tuple[str, str]:
    """Return a customer and the right decision, from `ID=DECISION`."""
    customer_id, _, decision = given.rpartition("=")
    if not customer_id or decision not in _DECISIONS:
        raise click.BadParameter(f"{given!r} is not ID=DECISION, with one of {', '.join(_DECISIONS)}.")
    return customer_id, decision


def _complete_fault(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    from ..rehearsal.plan import FAULT_KINDS

    return [kind for kind in FAULT_KINDS if kind.startswith(incomplete)]


def _as_dict(_: click.Context, __: click.Parameter, given: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(given)
    if len(found) < len(set(given)):
        raise click.BadParameter("names one of them twice, with different values.")
    return found


def _check_host(_: click.Context, __: click.Parameter, host: str) -> str:
    if not is_loopback(host):
        click.echo(f"Warning: {host} can be reached from other machines, over plain HTTP.", err=True)
    return host


_command: Final = click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND ...]")
_host: Final = click.option(
    "--host", default=LOOPBACK, callback=_check_host, help="Where to listen; other machines cannot reach loopback."
)
_port: Final = click.option("--port", type=click.IntRange(0, 65_535), default=0, help="0 takes a free one.")
_start_within: Final = click.option(
    "--start-within", type=Seconds(0, 3_600), default=START_SECONDS, help="How long your service may take to listen."
)
_serving: Final = together(_host, _port, _start_within, report_option, json_lines_option)
_file: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_expect: Final = click.option(
    "--expect",
    multiple=True,
    metavar="ID=DECISION",
    type=_expectation,
    callback=_as_dict,
    help="The right decision about a customer, such as C1=denied; may be repeated.",
)
_users: Final = click.option(
    "--user", "users", multiple=True, metavar="ID", help="Ask about this customer; may be repeated."
)
_timezone: Final = click.option(
    "--timezone",
    envvar="OPTIMOVE_TIMEZONE",
    default="UTC",
    help="The zone of a scheduled campaign's times; read from OPTIMOVE_TIMEZONE too.",
)
_customers: Final = click.option(
    "--customers", type=click.IntRange(0, 10_000_000), default=100, help="Customers of a scheduled campaign."
)


def _milliseconds(name: str, until: str) -> Callable[[F], F]:
    text = f"Milliseconds that an answer may take, {until} your service sets it."
    return click.option(name, type=click.IntRange(1, MAX_TIMEOUT_MS), default=DEFAULT_TIMEOUT_MS, help=text)


def _lead(default: float) -> Callable[[F], F]:
    text = "From a scheduled campaign's event to its clearance."
    return click.option("--lead", "lead_seconds", type=Seconds(0.1, 86_400), default=default, help=text)


@click.command(
    epilog="\b\nExamples:\n"
    "  optimove-ce trigger http://127.0.0.1:8000/optimove --count 20 -- uvicorn gate:app --port 8000\n"
    "  optimove-ce trigger http://127.0.0.1:8000/optimove --port 8900 --fault forged --fault late=20 --json\n"
    "  optimove-ce trigger http://127.0.0.1:8000/optimove --payload recorded.jsonl --expect C9=denied -- node gate.js"
)
@click.argument("url", type=url)
@_command
@click.option("--count", type=click.IntRange(1, 10_000), default=20, help="Customers who are asked about.")
@click.option("--rate", type=click.FloatRange(0, 1_000, min_open=True), default=10.0, help="Notifications a second.")
@_milliseconds("--deadline-ms", "unless")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND[=PERCENT]",
    type=_fault_share,
    callback=_as_dict,
    shell_complete=_complete_fault,
    help="Give so many of a hundred a fault: duplicate, late, forged or oversize; may be repeated. "
    f"Without a number it is {_DEFAULT_PERCENT:g}.",
)
@click.option(
    "--skew",
    "skew_seconds",
    type=Seconds(-86_400, 86_400),
    default=0.0,
    help="How far Optimove's clock is ahead of ours, for the whole run; no result may change.",
)
@click.option("--seed", type=int, help="Repeat a run with the same customers and faults.")
@_users
@click.option(
    "--payload",
    "payloads",
    type=_file,
    help="Send these notifications instead, each once: JSON or JSON lines, recorded or made by hand. They get new time "
    "stamps, a new deadline and a new request_uid, and are signed.",
)
@click.option("--as-is", is_flag=True, help="Keep the payloads' time stamps, deadlines and request_uids.")
@_expect
@click.option(
    "--undecided",
    type=click.FloatRange(0, 100),
    metavar="PERCENT",
    help="How many of a hundred may stay without a decision; without it a third, of ten or more customers.",
)
@_serving
def trigger(command: Sequence[str], report: Path | None, as_json: bool, **options: Any) -> None:
    """Send the notifications of a triggered campaign to your webhook URL, faults included, and check the results.

    A simulated Optimove posts signed notifications and takes the answers. A good one must be approved, denied or left
    undecided with HTTP 200 before its deadline; a forged one must get 401, one over 262,144 bytes 413, and neither an
    approval; a late one must not be answered; and a repeat must change nothing. Whether a decision is the right one is
    checked for the customers of --expect, who are asked about, too: abstained means that Optimove gets no answer.

    COMMAND starts your service with the settings it needs, and stops it at the end; what it writes goes to standard
    error. Without COMMAND the settings are printed, and your service is waited for. API key and secret are those of
    OPTIMOVE_API_KEY and OPTIMOVE_WEBHOOK_SECRET; without them new ones are made.

    Exit status: 0 all results are right, 1 one is not, or too few customers were decided, 2 it could not start, 130 it
    was ended by Ctrl-C.
    """
    from ..settings import API_KEY_VARIABLE, BASE_URL_VARIABLE, SECRET_VARIABLE, secret_variables
    from .console import line_of, triggered_section

    given_key = os.environ.get(API_KEY_VARIABLE)
    secret = as_text(given_secrets()[0]) if secret_variables(os.environ) else None
    given = {API_KEY_VARIABLE: given_key, SECRET_VARIABLE: secret}

    def introduce(environment: Mapping[str, str]) -> None:
        # A service that is started here gets them in its environment, and given settings are known already.
        shown = {name: value for name, value in environment.items() if not (command or given.get(name))}
        _introduce(shown, as_json, base_url=environment[BASE_URL_VARIABLE])

    def show_over(one: sdk.rehearsal.Observation) -> None:
        if one.over:
            click.echo(json.dumps(one.as_json()) if as_json else line_of(one))

    rehearsal = sdk.rehearsal.TriggeredRehearsal(
        **options,  # they have the names of its fields
        command=command,
        api_key=given_key,
        secret=secret,
        on_ready=introduce,
        on_note=lambda note: click.echo(note, err=True),
        on_change=show_over,
    )
    interrupted = _run(rehearsal.arun())
    result = rehearsal.result()
    section = triggered_section(result, is_interrupted=interrupted is not None)
    _show(result.as_json(), section, as_json)
    status = interrupted.exit_status if interrupted else int(not result.ok)
    _end("A rehearsal of a triggered campaign", [section], report, status)


@click.command(
    epilog="\b\nExamples:\n"
    "  optimove-ce campaign --listener http://127.0.0.1:8000/campaigns -- uvicorn reviews:app --port 8000 "
    "--no-access-log\n"
    "  optimove-ce campaign --port 8900 --listener http://127.0.0.1:8000/campaigns --lead 20\n"
    "  optimove-ce campaign --customers 100000 --lead 600 --json\n"
    "  optimove-ce campaign --rows customers.csv --expect C0000007=denied -- python reviews.py"
)
@_command
@click.option("--listener", type=url, help="Your listener. Without it, the one that your service registers.")
@click.option("--campaign-id", type=click.IntRange(1), default=1359, help="The CampaignID.")
@_customers
@click.option(
    "--rows",
    type=_file,
    help="Their rows instead, as GetProcessedCampaignCustomers has them: JSON, JSON lines or CSV.",
)
@_expect
@_lead(60.0)
@_timezone
@click.option(
    "--wait",
    type=Seconds(0, min_open=True),
    help="End this long after the event, when clearance is later.",
)
@click.option("--recipients", type=click.File("w"), help="Write who would get the campaign into a file, an id a line.")
@_serving
def campaign(
    command: Sequence[str],
    listener: str | None,
    lead_seconds: float,
    recipients: TextIO | None,
    report: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Put a scheduled campaign on hold, post its event to your listener, and show who is approved before clearance.

    It prints the settings for your service, and waits until something listens. The customers C0000001 and on, or those
    of --rows, are served, and their statuses taken, until clearance or Ctrl-C. The API key is that of OPTIMOVE_API_KEY,
    so that a running service need not be restarted; without it a new one is made. A token is read from
    OPTIMOVE_LISTENER_TOKEN and added to the URL of --listener, unless it has one.

    COMMAND starts your service with these settings, and a token, instead, and stops it at the end; what it writes goes
    to standard error. It must listen, or register its listener, within --start-within; without COMMAND there is no
    limit.

    Exit status: 0 customers were reported in time, 1 none was, or a decision is not that of --expect, or the service
    did not await a coroutine, 2 it could not start.
    """
    from ..settings import API_KEY_VARIABLE, BASE_URL_VARIABLE, TIMEZONE_VARIABLE, TOKEN_VARIABLE
    from .console import campaign_section, recipients_line

    given_key = os.environ.get(API_KEY_VARIABLE)
    token = (None if listener is None else token_of(listener)) or os.environ.get(TOKEN_VARIABLE)
    if token is None and command:
        token = secrets.token_urlsafe(24)

    def introduce(environment: Mapping[str, str]) -> None:
        shown = {name: environment[name] for name in (BASE_URL_VARIABLE, TIMEZONE_VARIABLE)}
        if not command and not given_key:
            shown[API_KEY_VARIABLE] = environment[API_KEY_VARIABLE]
        if as_json or not command:
            _introduce(shown, as_json)
        if not as_json and not command:
            click.echo("Waiting for your listener: start your service with these settings.", err=True)

    def announced(status: int | None) -> None:
        if not as_json:
            click.echo(f"{_told(status)}; clearance in {lead_seconds:g} s.", err=True)

    rehearsal = sdk.rehearsal.ScheduledRehearsal(
        **options,  # they have the names of its fields
        listener=None if listener is None else with_token(listener, token),
        command=command,
        lead_seconds=lead_seconds,
        api_key=given_key,
        token=token,
        on_ready=introduce,
        on_announced=announced,
        on_note=lambda note: click.echo(f"Warning: {note}", err=True),
    )
    _run(rehearsal.arun())
    result = rehearsal.result()
    if not result.listener_statuses:  # it was interrupted first
        raise click.exceptions.Exit(1)
    section = campaign_section(result)
    _show(result.as_json(), section, as_json)
    if not as_json:
        click.echo(recipients_line(result))
    if recipients is not None:
        recipients.writelines(f"{customer_id}\n" for customer_id in result.recipients)
    _end("A campaign of the simulator", [section], report, result.failed)


def _told(status: int | None) -> str:
    from ..rehearsal.result import OTHER_TOKEN

    if status is not None and status // 100 == 2:
        return "The event was posted to the listener"
    given = "no answer" if status is None else f"HTTP {status}"
    return f"Warning: the listener gave {given}{f': {OTHER_TOKEN}' if status == 401 else ''}"


@click.command(
    epilog="\b\nExamples:\n"
    "  optimove-ce simulate --port 8900 --rate 2\n"
    "  optimove-ce simulate --count 10 --webhook http://127.0.0.1:8000/optimove"
)
@_host
@_port
@click.option("--rate", type=click.FloatRange(0, 100, min_open=True), default=1.0, help="Notifications a second.")
@click.option("--count", type=click.IntRange(1), help="End after this many; without it Ctrl-C ends it.")
@_milliseconds("--timeout-ms", "until")
@click.option(
    "--webhook",
    "webhooks",
    type=url,
    multiple=True,
    help="Register this URL, as ensure_webhook would; may be repeated.",
)
@_users
@click.option(
    "--campaign-every",
    type=Seconds(0.1),
    help="Announce a scheduled campaign at this interval, once a listener is registered; without it none.",
)
@_customers
@_lead(30.0)
@_timezone
@json_lines_option
def simulate(as_json: bool, **options: Any) -> None:
    """Simulate Optimove, so that you can try your own service: it posts signed notifications and takes approvals.

    It prints the settings for your service; API key and secret are new at each start and protect nothing. Each
    registered webhook gets every notification, and the first answer counts. A registered listener gets a scheduled
    campaign with --campaign-every; its customers are served and their statuses taken until clearance.

    Exit status: 0 it was ended by Ctrl-C, SIGTERM or --count, 2 it could not start.
    """
    from ..rehearsal.triggered import Simulation
    from .console import line_of, recipients_line

    hinted: set[int] = set()

    def introduce(environment: Mapping[str, str]) -> None:
        _introduce(environment, as_json, webhooks=list(dict.fromkeys(options["webhooks"])))
        if not as_json and not options["webhooks"]:
            click.echo("Waiting for a webhook: your service calls client.ensure_webhook(url).", err=True)

    def show_notification(result: sdk.rehearsal.Observation) -> None:
        click.echo(json.dumps(result.as_plain_json()) if as_json else line_of(result, is_checked=False))
        for reply in result.replies:
            # Once: it may run for weeks.
            if reply.status is not None and reply.status not in hinted and reply.remedy:
                hinted.add(reply.status)
                click.echo(f"HTTP {reply.status}: {reply.remedy}.", err=True)

    def show_campaign(result: sdk.rehearsal.ScheduledResult) -> None:
        facts = ", ".join(f"{name} {value}" for name, value in result.lines())
        text = f"campaign {result.campaign_id}: {facts}\n{recipients_line(result)}"
        click.echo(json.dumps(result.as_json()) if as_json else text)

    simulation = Simulation(
        **options,  # they have the names of its fields
        on_ready=introduce,
        on_result=show_notification,
        on_campaign=show_campaign,
    )
    _run(simulation.run())
    numbers = simulation.as_json()
    if as_json:
        click.echo(json.dumps(numbers))
        return
    names = ("approved", "denied", "unanswered", "late", "pending")
    click.echo(f"\n{numbers['sent']} sent: " + ", ".join(f"{numbers[name]} {name}" for name in names))
    click.echo(f"latency: {simulation.latencies}, of {numbers['deadline_ms']} ms")


@click.command(epilog="\b\nExamples:\n  optimove-ce demo\n  optimove-ce demo --count 100 --json")
@click.option(
    "--count",
    type=click.IntRange(1, 10_000),
    default=40,
    help="Notifications to post; with 8 or more every scenario is played.",
)
@click.option(
    "--timeout-ms", type=click.IntRange(100, 60_000), default=2_000, help="Milliseconds that an answer may take."
)
@click.option(
    "--customers",
    type=click.IntRange(1, 1_000_000),
    default=DEMO_CUSTOMERS,
    help="Customers of the scheduled campaign.",
)
@click.option("--seed", type=int, help="Repeat a run with the same customers in the same order.")
@report_option
@json_option
def demo(count: int, timeout_ms: int, customers: int, seed: int | None, report: Path | None, as_json: bool) -> None:
    """Show a triggered campaign and then a scheduled one, against a sample service.

    A simulated Optimove and a sample service, in a process of its own, talk over HTTP on loopback: customers who are
    eligible, self-excluded or unknown, a backend that is slow or fails, forged and repeated notifications. Then a
    campaign on hold is announced to a listener, and all its customers are reviewed before clearance. Nothing leaves
    this machine, and no Optimove account is needed.

    Exit status: 0 nothing was lost and nothing was late, 1 something was, 2 it could not start.
    """
    from rich.console import Console

    from ..rehearsal.demo import SAFETY_MARGIN, demo_scheduled, demo_triggered
    from .charts import BurnUp, show_section
    from .console import NotificationDisplay, ReviewDisplay, demo_section, histogram

    seed = secrets.randbelow(1_000_000) if seed is None else seed
    console = Console(file=sys.stdout, quiet=as_json)
    with NotificationDisplay(console) as notifications:
        triggered = run_interruptibly(demo_triggered(count, seed=seed, timeout_ms=timeout_ms, on_change=notifications))
    sections = [demo_section("A triggered campaign", triggered, histogram(triggered.result))]
    show_section(sections[0], console)
    console.print(
        "\nA scheduled campaign is on hold: its event is posted to a listener, which reviews it.\n", soft_wrap=True
    )
    with ReviewDisplay(console) as display:
        scheduled = run_interruptibly(demo_scheduled(customers, on_progress=display))
    total = customers - scheduled.numbers["control_group"]
    told = display.samples.of(scheduled.result.campaign_id)
    burn_up = BurnUp.of_review(told, total=total, safety_margin=SAFETY_MARGIN)
    sections.append(demo_section("A scheduled campaign", scheduled, burn_up))
    show_section(sections[1], console)
    ok = triggered.ok and scheduled.ok
    if as_json:
        click.echo(json.dumps({**triggered.numbers, "ok": ok, "campaign": scheduled.numbers}))
    _end("Demonstration of Conditional Execution", sections, report, not ok)


def _show(numbers: Mapping[str, Any], section: Section, as_json: bool) -> None:
    from .charts import show_section

    if as_json:
        click.echo(json.dumps(numbers))
    else:
        show_section(section)


def _introduce(environment: Mapping[str, str], as_json: bool, **further: Any) -> None:
    if as_json:
        click.echo(json.dumps({"event": "ready", "environment": environment, **further}))
        return
    for name, value in environment.items():
        click.echo(f"export {name}={value}")


def _run(main: Coroutine[Any, Any, object]) -> Interrupted | None:
    """Run to the end, or until a signal ends it, which is returned; there is a result in both cases."""
    try:
        run_interruptibly(main)
    except Interrupted as interrupted:
        return interrupted
    return None


def _end(title: str, sections: Sequence[Section], report: Path | None, status: int) -> NoReturn:
    """Write the page, if one is asked for, and end the command."""
    if report is not None:
        from .charts import write_page

        write_page(report, title=title, sections=sections)
    raise click.exceptions.Exit(int(status))
