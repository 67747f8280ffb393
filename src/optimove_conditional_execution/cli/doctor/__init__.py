"""`optimove-ce doctor`: checks before going live, with read-only calls; this module runs them in order and shows them.

Each check is a function that returns a `Check`. Those in `environment.py` read the environment, those in
`connection.py`, `tenant.py` and `own_service.py` send requests with a `Probe`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

import optimove_conditional_execution as sdk  # its names are loaded when they are first used

from ...defaults import DEFAULT_TIMEOUT_MS
from ...errors import ConfigurationError
from ...urls import is_loopback
from ...validation import number_of
from ..options import CLAIMS_VARIABLE, MAX_TIMEOUT_MS, Seconds, echo_result, json_option, printable, url
from ..tenant import without_token
from .finding import Check, State, check_of, problem, skipped

if TYPE_CHECKING:  # a help text needs none of them
    from .connection import Probe
    from .tenant import DoctorOptions

_COLOURS: Final[dict[State, str]] = {"ok": "green", "warning": "yellow", "problem": "red", "not checked": "blue"}
_SERVICE: Final = "it must be registered, be reachable from here, and refuse"


@click.command(epilog="\b\nExample:\n  optimove-ce doctor --webhook https://gate.example.com/optimove")
@click.option("--webhook", type=url, help=f"Your webhook: {_SERVICE} what is unsigned.")
@click.option("--listener", type=url, help=f"Your listener: {_SERVICE} what has no token.")
@click.option(
    "--claims",
    envvar=CLAIMS_VARIABLE,
    metavar="URL",
    help="The claim store of your replicas, redis:// or postgresql://: a claim is written and deleted again. Others on "
    f"this machine can read options, so set {CLAIMS_VARIABLE} instead when the URL has a password.",
)
@click.option("--timeout", "seconds", type=Seconds(0.1, 60), default=5.0, help="How long one request may take.")
@click.option(
    "--timeout-ms",
    type=click.IntRange(1, MAX_TIMEOUT_MS),
    default=DEFAULT_TIMEOUT_MS,
    help="Milliseconds that Optimove waits for an answer, as you have set it: it cannot be read.",
)
@click.option(
    "--path-prefix", default="", show_default=False, help="The path_prefix of your Endpoints, such as /current."
)
@click.option("--strict", is_flag=True, help="Exit with status 1 on warnings, too.")
@json_option
def doctor(claims: str | None, path_prefix: str, strict: bool, as_json: bool, **options: Any) -> None:
    """Check this environment before you go live.

    It checks the settings (OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_WEBHOOK_SECRET, OPTIMOVE_LISTENER_TOKEN,
    OPTIMOVE_TIMEZONE), the connection to your tenant's API, this machine's clock, and what is registered. It changes
    nothing there: it only lists webhooks and listeners. Key, secret and token are never printed.

    With --webhook and --listener it also posts {} to your service, without signature or token, which must be rejected.
    With --claims it tries the claim store that your replicas share, and looks whether it keeps what it confirms.

    Exit status: 0 no problem, 1 a problem (with --strict also a warning), 2 a usage error.
    """
    from .own_service import claims_checks
    from .tenant import DoctorOptions

    # A key that is sent over plain HTTP is a finding here; the client's warning would repeat it.
    logging.getLogger("optimove_conditional_execution.client").addHandler(logging.NullHandler())
    # The other options have the names of its fields.
    plan = DoctorOptions(endpoints=sdk.Endpoints(path_prefix=path_prefix), **options)
    checks: list[Check] = []
    for check in chain(_checks(os.environ, plan), claims_checks(claims) if claims else ()):
        if not as_json:
            _show(check, checks[-1].remedy if checks else "")
        checks.append(check)
    problems, warnings = (sum(check.state == state for check in checks) for state in ("problem", "warning"))
    is_ok = not problems and not (strict and warnings)
    numbers = {"ok": is_ok, "problems": problems, "warnings": warnings, "checks": [asdict(check) for check in checks]}
    echo_result(numbers, f"\n{number_of(problems, 'problem')}, {number_of(warnings, 'warning')}.", as_json=as_json)
    raise click.exceptions.Exit(int(not is_ok))


def _checks(variables: Mapping[str, str], plan: DoctorOptions) -> Iterator[Check]:
    """Yield every check, each as soon as it is made: later checks depend on the results of earlier ones."""
    from ...transport.http import HttpEngine
    from .connection import Probe
    from .environment import key_check, secret_check, timezone_check, token_check, url_check, versions_check
    from .tenant import NAMES, campaign_urls

    yield key_check(variables)
    yield url_check(variables)
    listeners: list[sdk.EventListener] | None = None
    try:
        engine = HttpEngine()
    except ConfigurationError as error:
        yield from skipped(NAMES[:1], "Nothing can be asked.")
        yield check_of("connection", problem("This machine is not set up for connections.", str(error)))
        yield from skipped(NAMES[2:], "Nothing can be asked.")
    else:
        with closing(Probe(engine, seconds=plan.seconds)) as probe:
            listeners = yield from _checks_by_requests(variables, plan, probe)
    urls = campaign_urls(listeners)
    yield secret_check(variables)
    yield token_check(variables, urls)
    yield timezone_check(variables, is_needed=plan.listener is not None or bool(urls))
    yield versions_check()


def _checks_by_requests(
    variables: Mapping[str, str], plan: DoctorOptions, probe: Probe
) -> Generator[Check, None, list[sdk.EventListener] | None]:
    from ...settings import API_KEY_VARIABLE, BASE_URL_VARIABLE, TOKEN_VARIABLE
    from .environment import accepted
    from .own_service import own_service_check
    from .tenant import NAMES, Tenant, tenant_checks

    listeners: list[sdk.EventListener] | None = None
    try:
        base_url = accepted(variables, BASE_URL_VARIABLE).base_url
    except ConfigurationError:
        yield from skipped(NAMES, "The base URL is missing, or is none.")
    else:
        plan = replace(plan, is_rehearsal=is_loopback(urlsplit(base_url).hostname or ""))
        key: str | None = None
        # A check does not send the key over plain HTTP either.
        if plan.is_rehearsal or base_url.startswith("https:"):
            with suppress(ConfigurationError):
                key = accepted(variables, API_KEY_VARIABLE).api_key.get_secret_value()
        listeners = yield from tenant_checks(Tenant(probe, base_url, key), plan)
    if plan.webhook is not None:
        yield own_service_check(probe, "own-webhook", plan.webhook, is_rehearsal=plan.is_rehearsal)
    if plan.listener is not None:
        url = without_token(plan.listener, variables.get(TOKEN_VARIABLE))
        yield own_service_check(probe, "own-listener", url, is_rehearsal=plan.is_rehearsal)
    return listeners


def _show(check: Check, said: str) -> None:
    state = click.style(f"{check.state:<11}", fg=_COLOURS[check.state], bold=check.state == "problem")
    click.echo(f"{state}  {check.name:<12}  {printable(check.finding)}")
    # When nothing can be sent, one line replaces many equal ones.
    if check.state != "ok" and not (check.state == "not checked" and check.remedy == said):
        click.echo(f"{'':<11}  {'':<12}  -> {printable(check.remedy)}")
