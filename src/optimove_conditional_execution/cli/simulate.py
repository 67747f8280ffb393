"""`optimove-ce simulate`: a stand-in for Optimove that an integrator's own service can talk to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Sequence
from typing import Any

import click

from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.cli.campaigning import CampaignResult, Campaigns
from optimove_conditional_execution.cli.given_urls import checked_urls
from optimove_conditional_execution.cli.interruption import Interrupted, run_interruptibly
from optimove_conditional_execution.cli.postman import Postman
from optimove_conditional_execution.cli.replies import remedy
from optimove_conditional_execution.cli.secret_variables import SECRET_VARIABLE
from optimove_conditional_execution.cli.servers import LOOPBACK, Simulator, is_loopback, served
from optimove_conditional_execution.cli.simulation import Result, Simulation
from optimove_conditional_execution.operations import DEFAULT_TIMEOUT_MS
from optimove_conditional_execution.settings import API_KEY_VARIABLE, BASE_URL_VARIABLE, TIMEZONE_VARIABLE
from optimove_conditional_execution.testing import FakeOptimove
from optimove_conditional_execution.transport.http import AsyncHttpEngine


@click.command(
    epilog="\b\nExamples:\n"
    "  optimove-ce simulate --port 8900 --rate 2\n"
    "  optimove-ce simulate --count 10 --webhook http://127.0.0.1:8000/optimove"
)
@click.option(
    "--host", default=LOOPBACK, show_default=True, help="Where to listen; other machines cannot reach loopback."
)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="0, the default, takes a free one.")
@click.option(
    "--rate",
    type=click.FloatRange(0, 100, min_open=True),
    default=1.0,
    show_default=True,
    help="Notifications a second.",
)
@click.option("--count", type=click.IntRange(1), help="End after so many; without it Ctrl-C ends it.")
@click.option(
    "--timeout-ms",
    type=click.IntRange(1, 3_600_000),
    default=DEFAULT_TIMEOUT_MS,
    show_default=True,
    help="Milliseconds that an answer may take, until your service sets it.",
)
@click.option(
    "--webhook",
    "webhooks",
    multiple=True,
    metavar="URL",
    callback=checked_urls,
    help="Register this URL, as ensure_webhook would; may be repeated.",
)
@click.option("--user", "users", multiple=True, metavar="ID", help="Ask about this customer; may be repeated.")
@click.option(
    "--campaign-every",
    type=click.FloatRange(0.1),
    metavar="SECONDS",
    help="Fire a scheduled campaign so often, once a listener is registered; without it none is fired.",
)
@click.option(
    "--customers",
    type=click.IntRange(0, 10_000_000),
    default=100,
    show_default=True,
    help="Customers of a scheduled campaign.",
)
@click.option(
    "--lead",
    type=click.FloatRange(0.1, 86_400),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="From a scheduled campaign's event to its clearance.",
)
@click.option(
    "--timezone",
    envvar=TIMEZONE_VARIABLE,
    default="UTC",
    show_default=True,
    help="The zone of scheduled campaigns' times; read from OPTIMOVE_TIMEZONE too.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def simulate(
    host: str,
    port: int,
    rate: float,
    count: int | None,
    timeout_ms: int,
    webhooks: Sequence[str],
    users: Sequence[str],
    campaign_every: float | None,
    customers: int,
    lead: float,
    timezone: str,
    as_json: bool,
) -> None:
    """Stand in for Optimove, so that your own service can be tried: signed notifications in, approvals out.

    It prints the settings for your service; API key and secret are made anew at each start and protect nothing. Each
    registered webhook gets every notification, and the first answer counts. A registered listener gets a scheduled
    campaign with --campaign-every; its customers are served and their statuses taken until clearance.

    Exit status: 0 it was ended by Ctrl-C, SIGTERM or --count, 2 it could not start.
    """
    if not is_loopback(host):
        click.echo(f"Warning: {host} can be reached from other machines, over plain HTTP.", err=True)
    fake = FakeOptimove(
        api_key=secrets.token_urlsafe(24),
        secret=secrets.token_urlsafe(32),
        timeout_ms=timeout_ms,
        timezone=timezone,
    )
    # Given ids, unlike those that the simulator makes, so that they stay apart.
    fake.webhooks.update({f"given{number}": url for number, url in enumerate(dict.fromkeys(webhooks), start=1)})

    hinted: set[int] = set()

    def show(result: Result | CampaignResult) -> None:
        click.echo(json.dumps(result.as_json()) if as_json else str(result))
        for reply in result.replies if isinstance(result, Result) else ():
            # Once: it may run for weeks.
            if reply.status is not None and reply.status not in hinted and (why := remedy(reply)):
                hinted.add(reply.status)
                click.echo(f"HTTP {reply.status}: {why}.", err=True)

    simulations: list[Simulation] = []

    async def run() -> None:
        async with (
            served(ASGIApp(Simulator(fake)), host=host, port=port) as base_url,
            contextlib.aclosing(AsyncHttpEngine()) as engine,
        ):
            _introduce(fake, base_url, as_json=as_json)
            postman = Postman(engine)
            simulation = Simulation(fake, postman, users=users, rate=rate, count=count, on_result=show)
            simulations.append(simulation)
            campaigns = Campaigns(fake, postman, customers=customers, lead_seconds=lead, on_result=show)
            async with asyncio.TaskGroup() as group:
                firing = None if campaign_every is None else group.create_task(campaigns.run(every=campaign_every))
                await simulation.run()
                if firing is not None:
                    firing.cancel()

    with contextlib.suppress(Interrupted):
        run_interruptibly(run())
    for simulation in simulations:
        click.echo(json.dumps(simulation.summary()) if as_json else f"\n{simulation}")


def _introduce(fake: FakeOptimove, base_url: str, *, as_json: bool) -> None:
    settings: dict[str, Any] = {
        BASE_URL_VARIABLE: base_url,
        API_KEY_VARIABLE: fake.api_key,
        SECRET_VARIABLE: fake.secret,
        TIMEZONE_VARIABLE: fake.timezone.key,
    }
    if as_json:
        click.echo(json.dumps({"event": "ready", "environment": settings, "webhooks": list(fake.webhooks.values())}))
        return
    for name, value in settings.items():
        click.echo(f"export {name}={value}")
    if not fake.webhooks:
        click.echo("Waiting for a webhook: your service calls client.ensure_webhook(url).", err=True)
