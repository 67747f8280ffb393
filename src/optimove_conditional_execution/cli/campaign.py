"""`optimove-ce campaign`: one scheduled campaign of a simulated Optimove, for an integrator's own listener."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from pathlib import Path
from typing import Any, TextIO

import click

from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.cli.campaigning import (
    CampaignResult,
    announced,
    registered_listener,
    until_cleared,
    until_reachable,
)
from optimove_conditional_execution.cli.given_urls import checked_url
from optimove_conditional_execution.cli.interruption import Interrupted, run_interruptibly
from optimove_conditional_execution.cli.pictures import report_option, show, write_page
from optimove_conditional_execution.cli.postman import Postman
from optimove_conditional_execution.cli.servers import LOOPBACK, Simulator, is_loopback, served
from optimove_conditional_execution.cli.tenant import with_token
from optimove_conditional_execution.settings import API_KEY_VARIABLE, BASE_URL_VARIABLE, TIMEZONE_VARIABLE
from optimove_conditional_execution.testing import FakeOptimove
from optimove_conditional_execution.transport.http import AsyncHttpEngine


@click.command(
    epilog="\b\nExamples:\n"
    "  optimove-ce campaign --port 8900 --listener http://127.0.0.1:8000/campaigns --lead 20\n"
    "  optimove-ce campaign --customers 100000 --lead 600 --json"
)
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
@click.option("--recipients", type=click.File("w"), help="Write who would get the campaign into a file, an id a line.")
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def campaign(
    listener: str | None,
    campaign_id: int,
    customers: int,
    lead: float,
    timezone: str,
    wait: float | None,
    host: str,
    port: int,
    recipients: TextIO | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Put a scheduled campaign on hold, tell your listener, and see whom your review approves before clearance.

    It prints the settings for your service, and waits until something listens. The customers C0000001 and on are
    served, and their statuses taken, until clearance or Ctrl-C. The API key is that of OPTIMOVE_API_KEY, so that a
    service which runs already need not start again; without it one is made anew. A token is read from
    OPTIMOVE_LISTENER_TOKEN and added to the URL of --listener, unless it has one.

    Exit status: 0 customers were reported in time, 1 none was, 2 it could not start.
    """
    if not is_loopback(host):
        click.echo(f"Warning: {host} can be reached from other machines, over plain HTTP.", err=True)
    given_key = os.environ.get(API_KEY_VARIABLE)
    fake = FakeOptimove(api_key=given_key or secrets.token_urlsafe(24), secret=None, timezone=timezone)
    target = None if listener is None else with_token(listener)
    results: list[CampaignResult] = []

    async def run() -> None:
        async with (
            served(ASGIApp(Simulator(fake)), host=host, port=port) as base_url,
            contextlib.aclosing(AsyncHttpEngine()) as engine,
        ):
            _introduce(fake, base_url, with_key=not given_key, as_json=as_json)
            url = target or await registered_listener(fake)
            await until_reachable(url)
            held = fake.add_campaign(customers, campaign_id=campaign_id, lead_seconds=lead)
            results.append(CampaignResult(held, None))
            results[0] = CampaignResult(held, await announced(Postman(engine), url, held))
            if not as_json:
                click.echo(f"The listener has been told; clearance in {lead:g} s.", err=True)
            await until_cleared(held, wait=wait)

    with contextlib.suppress(Interrupted):
        run_interruptibly(run())
    reported = 0
    for result in results:
        click.echo(json.dumps(result.as_json()) if as_json else str(result))
        if not as_json and result.picture.drawable:
            click.echo()
            show(result.picture)
        reported += result.reported
        if recipients is not None:
            recipients.writelines(f"{customer_id}\n" for customer_id in result.campaign.recipients())
    if report is not None and results:
        write_page(report, title="A campaign of the simulator", sections=[result.section() for result in results])
    if not reported:
        raise click.exceptions.Exit(1)


def _introduce(fake: FakeOptimove, base_url: str, *, with_key: bool, as_json: bool) -> None:
    settings: dict[str, Any] = {BASE_URL_VARIABLE: base_url, TIMEZONE_VARIABLE: fake.timezone.key}
    if with_key:
        settings[API_KEY_VARIABLE] = fake.api_key
    if as_json:
        click.echo(json.dumps({"event": "ready", "environment": settings}))
        return
    for name, value in settings.items():
        click.echo(f"export {name}={value}")
    click.echo("Waiting for your listener: start your service with these settings.", err=True)
