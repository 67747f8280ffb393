"""`optimove-ce trigger`: one triggered campaign of a simulated Optimove, for an integrator's own webhook."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, final

import click

from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.cli.charts import show
from optimove_conditional_execution.cli.given_urls import required_url
from optimove_conditional_execution.cli.interruption import Interrupted, run_interruptibly
from optimove_conditional_execution.cli.listening import is_reachable, until_reachable
from optimove_conditional_execution.cli.postman import Postman
from optimove_conditional_execution.cli.replies import origin
from optimove_conditional_execution.cli.report_file import report_option, write_page
from optimove_conditional_execution.cli.secret_variables import SECRET_VARIABLE, secret_or_new
from optimove_conditional_execution.cli.servers import LOOPBACK, Simulator, is_loopback, served
from optimove_conditional_execution.cli.service_command import command_argument, service_command, start_within_option
from optimove_conditional_execution.cli.trigger_judgement import Seen
from optimove_conditional_execution.cli.trigger_plan import (
    DEFAULT_PERCENT,
    FaultKind,
    Planned,
    complete_fault,
    fault_shares,
    plan,
)
from optimove_conditional_execution.cli.trigger_summary import TriggerSummary
from optimove_conditional_execution.cli.triggering import Triggering
from optimove_conditional_execution.operations import DEFAULT_TIMEOUT_MS
from optimove_conditional_execution.settings import API_KEY_VARIABLE, BASE_URL_VARIABLE
from optimove_conditional_execution.testing import FakeOptimove
from optimove_conditional_execution.transport.http import AsyncHttpEngine

_CONNECTIONS: Final = 256


@click.command(
    epilog="\b\nExamples:\n"
    "  optimove-ce trigger http://127.0.0.1:8000/optimove --count 20 -- uvicorn gate:app --port 8000\n"
    "  optimove-ce trigger http://127.0.0.1:8000/optimove --port 8900 --fault forged --fault late=20 --json"
)
@click.argument("url", metavar="URL", callback=required_url)
@command_argument
@click.option(
    "--count", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Customers who are asked about."
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1_000, min_open=True),
    default=10.0,
    show_default=True,
    help="Notifications a second.",
)
@click.option(
    "--deadline-ms",
    type=click.IntRange(1, 3_600_000),
    default=DEFAULT_TIMEOUT_MS,
    show_default=True,
    help="Milliseconds that an answer may take, unless your service sets it.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="KIND[=PERCENT]",
    callback=fault_shares,
    shell_complete=complete_fault,
    help="Give so many of a hundred a fault: duplicate, late, forged or oversize; may be repeated. "
    f"Without a number it is {DEFAULT_PERCENT:g}.",
)
@click.option(
    "--skew",
    type=click.FloatRange(-86_400, 86_400),
    default=0.0,
    metavar="SECONDS",
    help="How far Optimove's clock is ahead of ours, for the whole run; it must change nothing.",
)
@click.option("--seed", type=int, help="Asks about the same customers, with the same faults, again.")
@click.option("--user", "users", multiple=True, metavar="ID", help="Ask about this customer; may be repeated.")
@click.option(
    "--host", default=LOOPBACK, show_default=True, help="Where to listen; other machines cannot reach loopback."
)
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="0, the default, takes a free one.")
@start_within_option
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def trigger(
    url: str,
    command: Sequence[str],
    count: int,
    rate: float,
    deadline_ms: int,
    faults: Mapping[FaultKind, float],
    skew: float,
    seed: int | None,
    users: Sequence[str],
    host: str,
    port: int,
    start_within: float,
    report: Path | None,
    as_json: bool,
) -> None:
    """Fire a triggered campaign at your webhook URL, faults included, and judge what becomes of it.

    A simulated Optimove posts signed notifications and takes the answers. A good one must be approved, denied or left
    undecided with HTTP 200 before its deadline; a forged one must get 401, one over 262,144 bytes 413, and neither an
    approval; a late one must not be answered; and a repeat must change nothing.

    COMMAND starts your service with the settings it needs, and stops it at the end; what it writes goes to standard
    error. Without COMMAND the settings are printed, and your service is waited for. API key and secret are those of
    OPTIMOVE_API_KEY and OPTIMOVE_WEBHOOK_SECRET; without them they are made anew.

    Exit status: 0 all is as it should be, 1 something is not, or nobody was decided about, 2 it could not start, 130 it
    was ended by Ctrl-C.
    """
    if not is_loopback(host):
        click.echo(f"Warning: {host} can be reached from other machines, over plain HTTP.", err=True)
    # Short, so that people can type it again.
    seed = secrets.randbelow(1_000_000) if seed is None else seed
    planned = plan(count, faults=faults, users=users, seed=seed)
    given_key = os.environ.get(API_KEY_VARIABLE)
    secret, is_new = secret_or_new(os.environ)
    rehearsal = _Rehearsal(
        FakeOptimove(
            api_key=given_key or secrets.token_urlsafe(24),
            secret=secret,
            timeout_ms=deadline_ms,
            wall_clock=lambda: time.time() + skew,
        ),
        url=url,
        skew=skew,
        as_json=as_json,
        made_anew={API_KEY_VARIABLE: not given_key, SECRET_VARIABLE: is_new},
    )
    interrupted: Interrupted | None = None
    try:
        run_interruptibly(
            rehearsal.run(planned, rate=rate, command=command, host=host, port=port, start_within=start_within)
        )
    except Interrupted as interruption:
        interrupted = interruption
    summary = rehearsal.summary()
    verdict = _verdict(summary, seed, was_interrupted=interrupted is not None)
    if as_json:
        click.echo(json.dumps({**summary.as_json(), "seed": seed, "skew_seconds": skew}))
    else:
        _show(summary, verdict)
    if report is not None:
        write_page(report, title="A rehearsal of a triggered campaign", sections=[summary.section(verdict)])
    if interrupted is not None:
        raise click.exceptions.Exit(interrupted.exit_status)
    if not summary.ok:
        raise click.exceptions.Exit(1)


@final
class _Rehearsal:
    """The parts of one run, and what is left of them when it ends early."""

    def __init__(
        self, fake: FakeOptimove, *, url: str, skew: float, as_json: bool, made_anew: Mapping[str, bool]
    ) -> None:
        self._fake = fake
        self._url = url
        self._skew = skew
        self._as_json = as_json
        self._made_anew = made_anew
        self._triggering: Triggering | None = None
        self._further: list[str] = []

    def summary(self) -> TriggerSummary:
        """Return how it has gone so far."""
        seen = [] if self._triggering is None else self._triggering.seen()
        return TriggerSummary.of(seen, calls=self._fake.calls, further=self._further, deadline_ms=self._fake.timeout_ms)

    async def run(
        self,
        planned: Sequence[Planned],
        *,
        rate: float,
        command: Sequence[str],
        host: str,
        port: int,
        start_within: float,
    ) -> None:
        """Serve the simulator, start the service or wait for it, and play the plan."""
        async with contextlib.AsyncExitStack() as stack:
            base_url = await stack.enter_async_context(served(ASGIApp(Simulator(self._fake)), host=host, port=port))
            engine = await stack.enter_async_context(contextlib.aclosing(AsyncHttpEngine(max_connections=_CONNECTIONS)))
            # A given id, unlike those that the simulator makes: a service that registers the URL itself finds it.
            self._fake.webhooks["given1"] = self._url
            self._introduce(base_url, is_started=bool(command))
            service = None
            if command:
                service = await stack.enter_async_context(
                    service_command(command, self._settings(base_url), url=self._url)
                )
                await service.until_listening(self._url, within=start_within)
            elif not await self._is_listening(start_within):
                return
            self._triggering = Triggering(
                self._fake,
                Postman(engine),
                url=self._url,
                clock=lambda: time.time() + self._skew,
                on_over=self._show,
            )
            await self._triggering.run(planned, rate=rate)
            if service is not None and service.ended is not None:
                self._further.append(f"{service.ended[0].upper()}{service.ended[1:]}.")

    async def _is_listening(self, within: float) -> bool:
        if await is_reachable(self._url):
            if self._made_anew[SECRET_VARIABLE]:
                click.echo(
                    f"What listens at {origin(self._url)} cannot know the secret that was made anew just now: set "
                    f"{SECRET_VARIABLE} and {API_KEY_VARIABLE} here to those of your service.",
                    err=True,
                )
            return True
        if within and not self._as_json:
            click.echo(f"Waiting {within:g} s for your service: start it with these settings.", err=True)
        try:
            async with asyncio.timeout(within):
                await until_reachable(self._url)
        except TimeoutError:
            self._further.append(
                f"Nothing listens at {origin(self._url)} (connection refused): start your service there, or correct "
                "the URL."
            )
            return False
        return True

    def _settings(self, base_url: str) -> dict[str, str]:
        return {
            BASE_URL_VARIABLE: base_url,
            API_KEY_VARIABLE: self._fake.api_key,
            SECRET_VARIABLE: str(self._fake.secret),
        }

    def _introduce(self, base_url: str, *, is_started: bool) -> None:
        # A service that is started here gets them by itself, and what was given is known already.
        shown = {
            name: value
            for name, value in self._settings(base_url).items()
            if not is_started and self._made_anew.get(name, True)
        }
        if self._as_json:
            click.echo(json.dumps({"event": "ready", "base_url": base_url, "environment": shown}))
            return
        for name, value in shown.items():
            click.echo(f"export {name}={value}")

    def _show(self, seen: Seen) -> None:
        click.echo(json.dumps(seen.as_json()) if self._as_json else str(seen))


def _show(summary: TriggerSummary, verdict: str) -> None:
    if summary.latencies_ms:
        click.echo()
        show(summary.chart)
    click.echo()
    for name, value in summary.lines():
        click.echo(f"{name:<11} {value}")
    for finding in summary.findings:
        click.echo(f"! {finding}")
    for hint in summary.hints:
        click.echo(f"? {hint}")
    click.echo(verdict)


def _verdict(summary: TriggerSummary, seed: int, *, was_interrupted: bool) -> str:
    again = f"(--seed {seed} asks about the same customers again)"
    if was_interrupted:
        return f"Interrupted {again}."
    if summary.ok:
        return f"All as it should be {again}."
    if not summary.findings:
        return f"Nothing wrong, but nobody was decided {again}."
    return f"{len(summary.findings)} {'finding' if len(summary.findings) == 1 else 'findings'} {again}."
