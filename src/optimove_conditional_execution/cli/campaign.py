"""`optimove-ce campaign`: one scheduled campaign of a simulated Optimove, for an integrator's own listener."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TextIO

import click

from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.cli.campaigning import (
    CampaignResult,
    announced,
    registered_listener,
    until_cleared,
)
from optimove_conditional_execution.cli.charts import show
from optimove_conditional_execution.cli.given_urls import checked_url
from optimove_conditional_execution.cli.interruption import Interrupted, run_interruptibly
from optimove_conditional_execution.cli.listening import until_reachable
from optimove_conditional_execution.cli.postman import Postman
from optimove_conditional_execution.cli.report_file import report_option, write_page
from optimove_conditional_execution.cli.servers import LOOPBACK, Simulator, is_loopback, served
from optimove_conditional_execution.cli.service_command import command_argument, service_command, start_within_option
from optimove_conditional_execution.cli.tenant import TOKEN_VARIABLE, token_of, with_token
from optimove_conditional_execution.settings import API_KEY_VARIABLE, BASE_URL_VARIABLE, TIMEZONE_VARIABLE
from optimove_conditional_execution.testing import FakeOptimove
from optimove_conditional_execution.transport.http import AsyncHttpEngine


@click.command(
    epilog="\b\nExamples:\n"
    "  optimove-ce campaign --listener http://127.0.0.1:8000/campaigns -- uvicorn reviews:app --port 8000 "
    "--no-access-log\n"
    "  optimove-ce campaign --port 8900 --listener http://127.0.0.1:8000/campaigns --lead 20\n"
    "  optimove-ce campaign --customers 100000 --lead 600 --json"
)
@command_argument
@click.option(
    "--listener",
    metavar="URL",
    callback=checked_url,
    help="Your listener. Without it, the one that your service registers.",
)
@click.option("--campaign-id", type=click.IntRange(1), default=1359, show_default=True, help="The CampaignID.")
@click.option(
    "--customers", type=click.IntRange(0, 10_000_000), default=100, show_default=True, help="Customers on hold."
)
@click.option(
    "--lead",
    type=click.FloatRange(0.1, 86_400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="From the event to ClearanceRequiredBy.",
)
@click.option(
    "--timezone",
    envvar=TIMEZONE_VARIABLE,
    default="UTC",
    show_default=True,
    help="The zone of the event's times; read from OPTIMOVE_TIMEZONE too.",
)
@click.option(
    "--wait",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help="End so long after the event, when clearance is later.",
)
@click.option(
    "--host", default=LOOPBACK, show_default=True, help="Where to listen; other machines cannot reach loopback."
)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="0, the default, takes a free one.")
@start_within_option
@click.option("--recipients", type=click.File("w"), help="Write who would get the campaign into a file, an id a line.")
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def campaign(
    command: Sequence[str],
    listener: str | None,
    campaign_id: int,
    customers: int,
    lead: float,
    timezone: str,
    wait: float | None,
    host: str,
    port: int,
    start_within: float,
    recipients: TextIO | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Put a scheduled campaign on hold, tell your listener, and see whom your review approves before clearance.

    It prints the settings for your service, and waits until something listens. The customers C0000001 and on are
    served, and their statuses taken, until clearance or Ctrl-C. The API key is that of OPTIMOVE_API_KEY, so that a
    service which runs already need not start again; without it one is made anew. A token is read from
    OPTIMOVE_LISTENER_TOKEN and added to the URL of --listener, unless it has one.

    COMMAND starts your service with these settings, and a token, instead, and stops it at the end; what it writes goes
    to standard error. It must listen, or register its listener, within --start-within; without COMMAND there is no
    limit.

    Exit status: 0 customers were reported in time, 1 none was, 2 it could not start.
    """
    if not is_loopback(host):
        click.echo(f"Warning: {host} can be reached from other machines, over plain HTTP.", err=True)
    given_key = os.environ.get(API_KEY_VARIABLE)
    fake = FakeOptimove(api_key=given_key or secrets.token_urlsafe(24), secret=None, timezone=timezone)
    token = None if listener is None else token_of(listener)
    if token is None:
        token = os.environ.get(TOKEN_VARIABLE)
    if token is None and command:
        token = secrets.token_urlsafe(24)
    target = None if listener is None else with_token(listener, token)
    results: list[CampaignResult] = []

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            base_url = await stack.enter_async_context(served(ASGIApp(Simulator(fake)), host=host, port=port))
            engine = await stack.enter_async_context(contextlib.aclosing(AsyncHttpEngine()))
            settings = {BASE_URL_VARIABLE: base_url, TIMEZONE_VARIABLE: fake.timezone.key}
            key = {API_KEY_VARIABLE: fake.api_key}
            service = None
            if command:
                _introduce(settings, as_json=as_json, is_started=True)
                settings |= key | {TOKEN_VARIABLE: str(token)}
                service = await stack.enter_async_context(service_command(command, settings, url=target))
                url = await service.until(_listening(fake, target), within=start_within, what="listen for campaigns")
            else:
                _introduce(settings if given_key else settings | key, as_json=as_json, is_started=False)
                url = await _listening(fake, target)
            held = fake.add_campaign(customers, campaign_id=campaign_id, lead_seconds=lead)
            results.append(CampaignResult(held, None))
            status = await announced(Postman(engine), url, held)
            results[0] = CampaignResult(held, status)
            if not as_json:
                click.echo(f"{_told(status)}; clearance in {lead:g} s.", err=True)
            await until_cleared(held, wait=wait)
            if service is not None and service.ended is not None:
                click.echo(f"Warning: {service.ended}.", err=True)

    with contextlib.suppress(Interrupted):
        run_interruptibly(run())
    reported = 0
    for result in results:
        click.echo(json.dumps(result.as_json()) if as_json else str(result))
        if not as_json and result.chart.drawable:
            click.echo()
            show(result.chart)
        reported += result.reported
        if recipients is not None:
            recipients.writelines(f"{customer_id}\n" for customer_id in result.campaign.recipients())
    if report is not None and results:
        write_page(report, title="A campaign of the simulator", sections=[result.section() for result in results])
    if not reported:
        raise click.exceptions.Exit(1)


async def _listening(fake: FakeOptimove, target: str | None) -> str:
    """Wait until a listener takes connections, and return its URL: the given one, or the one that is registered."""
    url = target or await registered_listener(fake)
    await until_reachable(url)
    return url


def _told(status: int | None) -> str:
    if status is None:
        return "Warning: the listener gave no answer"
    if status == HTTPStatus.UNAUTHORIZED:
        return f"Warning: the listener gave HTTP 401: its token is not the one in the URL; set {TOKEN_VARIABLE} alike"
    return "The listener has been told" if status // 100 == 2 else f"Warning: the listener gave HTTP {status}"


def _introduce(settings: Mapping[str, str], *, as_json: bool, is_started: bool) -> None:
    if as_json:
        click.echo(json.dumps({"event": "ready", "environment": settings}))
    elif not is_started:
        for name, value in settings.items():
            click.echo(f"export {name}={value}")
        click.echo("Waiting for your listener: start your service with these settings.", err=True)
