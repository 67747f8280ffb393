"""All checks in their order: what one shows decides what the next can ask."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, final
from urllib.parse import urlsplit

from optimove_conditional_execution import operations
from optimove_conditional_execution._version import __version__
from optimove_conditional_execution.cli.doctor.access import (
    Reply,
    access_check,
    may_stand_elsewhere,
    other_prefix,
    prefix_check,
    reply,
)
from optimove_conditional_execution.cli.doctor.check import Check, not_checked
from optimove_conditional_execution.cli.doctor.clock import clock_check
from optimove_conditional_execution.cli.doctor.connection import connection_checks
from optimove_conditional_execution.cli.doctor.endpoints import NAME as ENDPOINTS_CHECK
from optimove_conditional_execution.cli.doctor.endpoints import endpoints_check
from optimove_conditional_execution.cli.doctor.key_and_url import key_check, url_check, usable_key, usable_url
from optimove_conditional_execution.cli.doctor.listener_token import closed_url, token_check
from optimove_conditional_execution.cli.doctor.own_service import LISTENER, WEBHOOK, door_check
from optimove_conditional_execution.cli.doctor.probe import Answer, Probe, Silence, proxy_for
from optimove_conditional_execution.cli.doctor.registered import campaign_listeners, listener_check, webhooks_check
from optimove_conditional_execution.cli.doctor.round_trips import budget_check
from optimove_conditional_execution.cli.doctor.secrets_and_zone import secret_check, timezone_check
from optimove_conditional_execution.cli.doctor.texts import is_loopback
from optimove_conditional_execution.cli.doctor.versions import versions_check
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.models.listener import EventListener
from optimove_conditional_execution.operations import Endpoints, Operation
from optimove_conditional_execution.transport.http import HttpEngine

T = TypeVar("T")

_ROUND_TRIPS: Final = 5
_OF_THE_TENANT: Final = (
    "name",
    "connection",
    "tls",
    "access",
    "prefix",
    ENDPOINTS_CHECK,
    "clock",
    "budget",
    "webhooks",
    "listener",
)


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What the engineer told.

    Attributes:
        seconds: How long one request may take.
        timeout_ms: How long Optimove waits for an answer.
        path_prefix: That of the service's `Endpoints`.
        webhook: The URL of the service's webhook, or None.
        listener: The URL of the service's listener, or None.
    """

    seconds: float
    timeout_ms: int
    path_prefix: str = ""
    webhook: str | None = None
    listener: str | None = None


def examine(environment: Mapping[str, str], plan: Plan) -> Iterator[Check]:
    """Yield every check, each as soon as it is made.

    Args:
        environment: Such as `os.environ`.
        plan: What the engineer told.

    Raises:
        ConfigurationError: The prefix makes no sense.
    """
    endpoints = Endpoints(path_prefix=plan.path_prefix)
    yield key_check(environment)
    yield url_check(environment)
    base_url = usable_url(environment)
    is_rehearsal = base_url is not None and is_loopback(urlsplit(base_url).hostname or "")
    listeners: list[EventListener] | None = None
    with ExitStack() as stack:
        try:
            probe = Probe(stack.enter_context(closing(HttpEngine())), seconds=plan.seconds)
        except ConfigurationError as error:
            yield not_checked("name", "Nothing can be asked.")
            yield Check("connection", "problem", "This machine is not set up for connections.", str(error))
            yield from _skipped(_OF_THE_TENANT[2:], "Nothing can be asked.")
        else:
            if base_url is None:
                yield from _skipped(_OF_THE_TENANT, "The base URL is missing or makes no sense.")
            else:
                # A key that must not travel in clear does not do so for a check either.
                key = usable_key(environment) if is_rehearsal or base_url.startswith("https:") else None
                tenant = _Tenant(probe, base_url, key, endpoints)
                listeners = yield from _examine_tenant(tenant, plan, is_rehearsal=is_rehearsal)
            if plan.webhook is not None:
                yield door_check(probe, WEBHOOK, plan.webhook, is_rehearsal=is_rehearsal)
            if plan.listener is not None:
                url = closed_url(plan.listener, environment)
                yield door_check(probe, LISTENER, url, is_rehearsal=is_rehearsal)
    yield secret_check(environment)
    yield token_check(environment, listeners)
    is_scheduled = plan.listener is not None or bool(campaign_listeners(listeners or ()))
    yield timezone_check(environment, now=datetime.now(UTC), is_needed=is_scheduled)
    yield versions_check()


@final
class _Tenant:
    """Asks a tenant's server, and keeps the answers."""

    def __init__(self, probe: Probe, base_url: str, key: str | None, endpoints: Endpoints) -> None:
        self.probe = probe
        self.base_url = base_url
        self.has_key = key is not None
        self.endpoints = endpoints
        self.answers: list[Answer] = []
        self._headers = {
            **({} if key is None else {"X-API-KEY": key}),
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": f"optimove-conditional-execution/{__version__} doctor",
        }

    def ask(self, operation: Operation[T]) -> Answer | Silence:
        result = self.probe.ask(operation.method, f"{self.base_url}{operation.path}", self._headers)
        if isinstance(result, Answer):
            self.answers.append(result)
        return result

    def look(self, path: str) -> Answer | Silence:
        return self.probe.ask("GET", f"{self.base_url}{path}", self._headers)

    def replied(self, operation: Operation[T]) -> Reply[T]:
        return reply(operation, self.ask(operation))


def _examine_tenant(
    tenant: _Tenant, plan: Plan, *, is_rehearsal: bool
) -> Generator[Check, None, list[EventListener] | None]:
    """Yield the checks of the tenant's server, and return the listeners, if they could be read."""
    listing = tenant.endpoints.bind(operations.get_webhooks())
    first = tenant.ask(listing)
    proxy = proxy_for(tenant.base_url)
    yield from connection_checks(tenant.base_url, first, proxy=proxy, seconds=plan.seconds)
    if isinstance(first, Silence):
        yield from _skipped(_OF_THE_TENANT[3:], "No answer came.")
        return None
    webhooks = reply(listing, first)
    with_a_slash = operations.with_slash(listing)
    if first.status in operations.NO_ROUTE and with_a_slash is not None:
        second = tenant.replied(with_a_slash)  # as a client does
        if second.kind == "read":
            listing, webhooks = with_a_slash, second
    here, elsewhere = _listings(tenant.endpoints)
    mine = tenant.replied(here)
    other = tenant.replied(elsewhere) if may_stand_elsewhere(mine) else None
    listeners, found_at = (other, elsewhere) if other is not None and other.kind == "read" else (mine, here)
    if tenant.has_key:
        yield access_check(webhooks, listeners)
    else:
        yield not_checked("access", "Asked without a key: there is none, or it would travel in clear.")
    yield prefix_check(plan.path_prefix, mine, other)
    if "read" in (webhooks.kind, listeners.kind):
        yield endpoints_check(tenant.look, tenant.endpoints, webhooks.value or ())
    else:
        yield not_checked(ENDPOINTS_CHECK, "Neither call was answered, so no path can be told from another.")
    seconds: list[float] = []
    if webhooks.value is not None:
        seconds = [first.seconds, *_more_round_trips(tenant, listing)]
    elif listeners.value is not None:
        seconds = _more_round_trips(tenant, found_at)
    yield clock_check(tenant.answers)
    yield budget_check(seconds, timeout_ms=plan.timeout_ms)
    if webhooks.value is None:
        yield not_checked("webhooks", "They could not be read.", "See access.")
    else:
        yield webhooks_check(webhooks.value, expected=plan.webhook, is_rehearsal=is_rehearsal)
    if listeners.value is None:
        yield not_checked("listener", "The listeners could not be read.", "See access and prefix.")
    else:
        yield listener_check(listeners.value, expected=plan.listener, is_rehearsal=is_rehearsal)
    return listeners.value


def _listings(endpoints: Endpoints) -> tuple[Operation[list[EventListener]], Operation[list[EventListener]]]:
    """Return the call for listeners under the service's prefix, and under the other one."""
    there = dataclasses.replace(endpoints, path_prefix=other_prefix(endpoints.path_prefix))
    listing = operations.get_registered_event_listeners()
    return endpoints.bind(listing), there.bind(listing)


def _more_round_trips(tenant: _Tenant, operation: Operation[Any]) -> list[float]:
    """Return some more round trips of a call, as many as go into the time of one request."""
    found: list[float] = []
    while len(found) < _ROUND_TRIPS - 1 and sum(found) < tenant.probe.seconds:
        result = tenant.ask(operation)
        if not isinstance(result, Answer) or reply(operation, result).kind != "read":
            break
        found.append(result.seconds)
    return found


def _skipped(names: Iterable[str], why: str) -> Iterator[Check]:
    return (not_checked(name, why) for name in names)
