"""`optimove-ce doctor`, and how its checks are shown."""

from __future__ import annotations

import json
import logging
import os
from typing import Final

import click

from optimove_conditional_execution.cli.doctor.check import Check, State
from optimove_conditional_execution.cli.doctor.examination import Plan, examine
from optimove_conditional_execution.cli.given_urls import checked_url
from optimove_conditional_execution.operations import DEFAULT_TIMEOUT_MS

_COLOURS: Final[dict[State, str]] = {"ok": "green", "warning": "yellow", "problem": "red", "not checked": "blue"}
_MOST_MS: Final = 3_600_000


@click.command(epilog="\b\nExample:\n  optimove-ce doctor --webhook https://gate.example.com/optimove")
@click.option(
    "--webhook",
    metavar="URL",
    callback=checked_url,
    help="The webhook of your service: it must be registered, be reachable from here, and refuse what is unsigned.",
)
@click.option(
    "--listener",
    metavar="URL",
    callback=checked_url,
    help="The listener of your service: the same, for events without the token.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 60),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long one request may take.",
)
@click.option(
    "--timeout-ms",
    type=click.IntRange(1, _MOST_MS),
    default=DEFAULT_TIMEOUT_MS,
    show_default=True,
    help="Milliseconds that Optimove waits for an answer, as you have set it: it cannot be read.",
)
@click.option("--path-prefix", default="", help="The path_prefix of your Endpoints, such as /current.")
@click.option("--strict", is_flag=True, help="Let warnings fail, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
def doctor(
    webhook: str | None,
    listener: str | None,
    timeout: float,
    timeout_ms: int,
    path_prefix: str,
    strict: bool,
    as_json: bool,
) -> None:
    """Say what is wrong with this environment, before you go live.

    It looks at the settings (OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_WEBHOOK_SECRET, OPTIMOVE_LISTENER_TOKEN,
    OPTIMOVE_TIMEZONE), at the way to your tenant's API, at this machine's clock, and at what is registered. It changes
    nothing there: it only lists webhooks and listeners. Key, secret and token are never printed.

    With --webhook and --listener it also posts {} to your service, without signature or token, which must be refused.

    Exit status: 0 no problem, 1 a problem (with --strict also a warning), 2 a usage error.
    """
    # A key that travels in clear is a finding here; the client's warning would only say it twice.
    logging.getLogger("optimove_conditional_execution.client").addHandler(logging.NullHandler())
    plan = Plan(seconds=timeout, timeout_ms=timeout_ms, path_prefix=path_prefix, webhook=webhook, listener=listener)
    checks: list[Check] = []
    for check in examine(os.environ, plan):
        if not as_json:
            _show(check, checks[-1].remedy if checks else "")
        checks.append(check)
    problems, warnings = (sum(check.state == state for check in checks) for state in ("problem", "warning"))
    is_ok = not problems and not (strict and warnings)
    if as_json:
        numbers = {"ok": is_ok, "problems": problems, "warnings": warnings}
        click.echo(json.dumps({**numbers, "checks": [check.as_json() for check in checks]}))
    else:
        click.echo(f"\n{_counted(problems, 'problem')}, {_counted(warnings, 'warning')}.")
    if not is_ok:
        raise click.exceptions.Exit(1)


def _show(check: Check, said: str) -> None:
    state = click.style(f"{check.state:<11}", fg=_COLOURS[check.state], bold=check.state == "problem")
    click.echo(f"{state}  {check.name:<12}  {_printable(check.finding)}")
    # When nothing can be asked, one line tells what many others would repeat.
    if check.state != "ok" and not (check.state == "not checked" and check.remedy == said):
        click.echo(f"{'':<11}  {'':<12}  -> {_printable(check.remedy)}")


def _printable(text: str) -> str:
    # Ids and URLs come from a server; what a terminal would obey must not.
    return "".join(character if character.isprintable() else "?" for character in text)


def _counted(number: int, what: str) -> str:
    return f"{number or 'No'} {what}{'' if number == 1 else 's'}"
