"""Checks of the tenant's server: access, paths, clock, budget, registrations. They send only GET requests."""

from __future__ import annotations

import dataclasses
import email.utils
import math
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote

from ... import operations
from ...errors import APIError, AuthenticationError, NotFoundError, RateLimitError, ServerError
from ...flows.budget import Reserve, longest_repeatable_handler
from ...models.events import CAMPAIGN_READY, EventListener
from ...models.webhook import Webhook
from ...operations import Endpoint, Endpoints, Operation
from ...transport.responses import parse_response
from ...urls import address_of, is_loopback, normalized, split_absolute, without_query
from ..tenant import plain_url, shown_url, without_token
from .connection import Answer, NoAnswer, Probe, connection_checks
from .environment import REGISTER
from .finding import Check, Finding, checking, not_checked, ok, problem, skipped, warning

T = TypeVar("T")

_AFTER_CONNECTION: Final = ("access", "prefix", "endpoints", "clock", "budget", "webhooks", "listener")
NAMES: Final = ("name", "connection", "tls", *_AFTER_CONNECTION)
"""The checks of a tenant's server, in order."""

_ROUND_TRIPS: Final = 5
_LATER: Final = "Run this again in a minute; ask Optimove support, if it lasts."
_ASK_FOR_PATHS: Final = "Ask your Customer Success Manager for the paths, and pass them as Endpoints(...)."


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """The options of the command.

    Attributes:
        seconds: How long one request may take.
        timeout_ms: How long Optimove waits for an answer.
        endpoints: The service's.
        webhook: The URL of the service's webhook, or None.
        listener: The URL of the service's listener, or None.
        is_rehearsal: Whether Optimove is a simulator on this machine, which reaches loopback.
    """

    seconds: float
    timeout_ms: int
    endpoints: Endpoints
    webhook: str | None = None
    listener: str | None = None
    is_rehearsal: bool = False


class Tenant:
    """Requests to a tenant's server, with their responses."""

    def __init__(self, probe: Probe, base_url: str, key: str | None) -> None:
        """Lazy: nothing is sent until a check needs it.

        Args:
            probe: Sends requests.
            base_url: Without a trailing slash.
            key: The API key; None when there is none, or when it would be sent over plain HTTP.
        """
        self.base_url = base_url
        self.seconds = probe.seconds
        self.has_key = key is not None
        self.answers: list[Answer] = []
        self._probe = probe
        self._headers = {"Accept": "application/json"} | ({} if key is None else {"X-API-KEY": key})

    def get(self, path: str) -> Answer | NoAnswer:
        """Ask for a path."""
        result = self._probe.ask("GET", f"{self.base_url}{path}", self._headers)
        if isinstance(result, Answer):
            self.answers.append(result)
        return result

    def call(self, operation: Operation[T]) -> T | APIError | NoAnswer:
        """Make a call that only reads."""
        return _read(operation, self.get(operation.path))


def _read(operation: Operation[T], result: Answer | NoAnswer) -> T | APIError | NoAnswer:
    if isinstance(result, NoAnswer):
        return result
    try:
        # Private: an error message of the server may echo the key, or a token.
        return parse_response(dataclasses.replace(operation, private=True), result.response, secrets=())
    except APIError as error:
        return error


def tenant_checks(tenant: Tenant, plan: DoctorOptions) -> Generator[Check, None, list[EventListener] | None]:
    """Yield the checks of the tenant's server, and return the listeners, if they could be read."""
    listing = plan.endpoints.bind(operations.get_webhooks())
    first = tenant.get(listing.path)
    yield from connection_checks(tenant.base_url, first)
    if isinstance(first, NoAnswer):
        yield from skipped(_AFTER_CONNECTION, "No answer came.")
        return None
    webhooks = _read(listing, first)
    with_a_slash = operations.with_slash(listing)
    if first.status in operations.NO_ROUTE and with_a_slash is not None:
        second = tenant.call(with_a_slash)  # as a client does
        if isinstance(second, list):
            listing, webhooks = with_a_slash, second
    prefix = plan.endpoints.path_prefix
    other_prefix = "" if prefix else "/current"
    reading, elsewhere = (
        dataclasses.replace(plan.endpoints, path_prefix=each).bind(operations.get_registered_event_listeners())
        for each in (prefix, other_prefix)
    )
    listeners = tenant.call(reading)
    is_elsewhere = False
    if _may_stand_elsewhere(listeners):
        other = tenant.call(elsewhere)
        if isinstance(other, list):
            reading, listeners, is_elsewhere = elsewhere, other, True
    yield _access_check(tenant, webhooks, listeners)
    yield _prefix_check(prefix, other_prefix if is_elsewhere else prefix, listeners)
    if isinstance(webhooks, list) or isinstance(listeners, list):
        yield _endpoints_check(tenant, plan.endpoints, webhooks if isinstance(webhooks, list) else ())
    else:
        yield from skipped(("endpoints",), "Neither call was answered, so no path can be told from another.")
    seconds: list[float] = []
    if isinstance(webhooks, list):
        seconds = [first.seconds, *_more_round_trips(tenant, listing)]
    elif isinstance(listeners, list):
        seconds = _more_round_trips(tenant, reading)
    yield clock_check(tenant.answers)
    yield budget_check(seconds, timeout_ms=plan.timeout_ms)
    yield _webhooks_check(webhooks, plan)
    yield _listener_check(listeners, plan)
    return listeners if isinstance(listeners, list) else None


# ---- access and paths


def _may_stand_elsewhere(reply: object) -> bool:
    is_of_the_call = isinstance(reply, AuthenticationError | RateLimitError | ServerError) and not reply.is_html
    return isinstance(reply, APIError) and not is_of_the_call


@checking("prefix")
def _prefix_check(mine: str, found: str, listeners: object) -> Iterator[Finding]:
    calls = "The calls for scheduled campaigns are found"
    if found != mine:
        remedy = f'Pass endpoints=Endpoints(path_prefix="{found}") to your clients, and --path-prefix here.'
        yield problem(f'{calls} not with path_prefix="{mine}", but with "{found}".', remedy)
    elif isinstance(listeners, list):
        yield ok(f'{calls} with path_prefix="{mine}".')
    else:
        yield not_checked("The answers do not tell which path is right.", "See access.")


@checking("access")
def _access_check(tenant: Tenant, *replies: object) -> Iterator[Finding]:
    if not tenant.has_key:
        yield not_checked("Asked without a key: there is none, or it would travel in clear.")
        return
    yield ok("The key is accepted for both calls.")
    knows_none = all(isinstance(reply, NotFoundError) for reply in replies)
    for reply in replies:
        if isinstance(reply, APIError):
            # An error's first sentence is the finding, the others are the remedy.
            what, _, advice = str(reply).replace(". But ", ", but ").partition(". ")
            # A path is a guess, so this alone need not stop anything.
            is_minor = isinstance(reply, RateLimitError) or (isinstance(reply, NotFoundError) and not knows_none)
            is_minor = is_minor and not reply.is_html
            yield Finding("warning" if is_minor else "problem", f"{what}.", advice or _LATER)
        elif isinstance(reply, NoAnswer):
            yield reply.finding._replace(state="warning")


_ROUTE: Final = frozenset({200, 400, 401, 405})
_TRIGGERED: Final = "/conditional-execution/v2/triggered"
_NOWHERE: Final = "optimove-ce-doctor"
_WRITING: Final = ("PUT", "POST", "PATCH")


@checking("endpoints")
def _endpoints_check(tenant: Tenant, endpoints: Endpoints, webhooks: Sequence[Webhook]) -> Iterator[Finding]:
    """Look for the paths that are guesses. A GET request changes nothing."""
    nowhere = tenant.get(f"{_TRIGGERED}/{_NOWHERE}")
    if not _is_missing(nowhere):
        said = f"answers {nowhere.status}" if isinstance(nowhere, Answer) else "gives no answer"
        what = f"The server {said} to a path that cannot exist, so it does not tell which do."
        yield not_checked(what, _ASK_FOR_PATHS)
        return
    # What stands below the webhooks can be taken for the id of one.
    is_below_open = _is_missing(tenant.get(f"{_TRIGGERED}/webhooks/{_NOWHERE}"))
    an_id = quote(webhooks[0].id, safe="") if webhooks else _NOWHERE
    found: dict[str, Endpoint] = {}
    missing: list[str] = []
    for name, paths in _candidates(endpoints, is_below_open=is_below_open, has_webhook=bool(webhooks)).items():
        mine: Endpoint = getattr(endpoints, name)
        for path in dict.fromkeys((mine.path, *(slashed for each in paths for slashed in (each, f"{each}/")))):
            answer = tenant.get(path.replace("{webhook_id}", an_id))
            if isinstance(answer, Answer) and answer.status in _ROUTE:
                found[name] = Endpoint(_method(mine.method, answer), path)
                break
        else:
            missing.append(name)
    note = "" if webhooks else " Those of a single webhook show only when one is registered."
    yield ok(f"The paths of {', '.join(found) or 'no call'} exist.{note}")
    other = {name: endpoint for name, endpoint in found.items() if endpoint != getattr(endpoints, name)}
    if other:
        text = ", ".join(f'{name}=Endpoint("{each.method}", "{each.path}")' for name, each in other.items())
        what = f"Not where your Endpoints look, but elsewhere: {', '.join(other)}."
        yield problem(what, f"Pass endpoints=Endpoints({text}) to your clients.")
    if missing:
        yield warning(
            f"No path was found for {', '.join(missing)}. A server may answer 404 to a GET where it takes another "
            "method, so this alone need not stop anything.",
            _ASK_FOR_PATHS,
        )


def _candidates(endpoints: Endpoints, *, is_below_open: bool, has_webhook: bool) -> dict[str, list[str]]:
    listing = endpoints.get_webhooks.path.rstrip("/")
    paths = {"get_webhooks": [listing]}
    if has_webhook:  # the path of a single one shows itself only with an id that exists
        paths["get_webhook_by_id"] = paths["delete_webhook"] = [f"{listing}/{{webhook_id}}"]
    for name, noun in (("update_webhook_settings", "settings"), ("send_webhook_approval", "approval")):
        below = [f"{_TRIGGERED}/webhooks/{noun}"] if is_below_open else []
        paths[name] = [f"{_TRIGGERED}/{noun}", *below]
    return paths


def _is_missing(answer: Answer | NoAnswer) -> bool:
    return isinstance(answer, Answer) and answer.status == HTTPStatus.NOT_FOUND


def _method(mine: str, answer: Answer) -> str:
    """Return the service's method, unless the server names the ones that it takes, and that is none of them."""
    allowed = [each.strip().upper() for each in answer.response.header("allow").split(",")]
    if mine in allowed or mine not in _WRITING:
        return mine
    return next((each for each in _WRITING if each in allowed), mine)


# ---- time

_TOLERANCE: Final = 2.0
_RESOLUTION: Final = 1.0
"""Seconds; a `Date` header is cut to the second."""


@checking("clock")
def clock_check(answers: Iterable[Answer]) -> Iterator[Finding]:
    """Compare the local clock with the `Date` headers of answers.

    Each header stands for any moment of its second, taken somewhere between request and answer, so each answer gives a
    range; together they narrow it.
    """
    ranges = list(_ranges(answers))
    if not ranges:
        remedy = "Compare this machine's clock with another, or use NTP."
        yield not_checked("No answer told the server's time.", remedy)
        return
    low, high = max(low for low, _ in ranges), min(high for _, high in ranges)
    if low > high:  # several servers, whose clocks differ
        low, high = ranges[0]
    ahead = (low + high) / 2
    if abs(ahead) < _TOLERANCE or low <= 0 <= high:
        differ = f"differ by less than {_TOLERANCE:g} s, as far as its seconds tell."
        yield ok(f"This machine's clock and the server's {differ}")
        return
    yield warning(
        f"This machine's clock is {'fast' if ahead > 0 else 'slow'} by about {abs(ahead):.1f} s.",
        "Use NTP. For triggered campaigns it changes nothing, since Optimove's own stamps are counted. For scheduled "
        "ones ClearanceRequiredBy is held against this clock, and TimeStamp is read from it.",
    )


def _ranges(answers: Iterable[Answer]) -> Iterator[tuple[float, float]]:
    """Yield how far this machine's clock can be ahead, in seconds, by each answer."""
    for answer in answers:
        try:
            stamp = email.utils.parsedate_to_datetime(answer.response.header("date")).timestamp()
        except (ValueError, TypeError, OverflowError):
            continue
        # A cached response has an older Date.
        if not answer.response.header("age"):
            # A round trip on the monotonic clock: the wall clock may be set in between.
            yield answer.sent_at - stamp - _RESOLUTION, answer.sent_at + answer.seconds - stamp


def _more_round_trips(tenant: Tenant, operation: Operation[Any]) -> list[float]:
    """Return further round trips of a call, as many as fit into the time of one request."""
    found: list[float] = []
    while len(found) < _ROUND_TRIPS - 1 and sum(found) < tenant.seconds:
        result = tenant.get(operation.path)
        if not isinstance(result, Answer) or not isinstance(_read(operation, result), list):
            break
        found.append(result.seconds)
    return found


@checking("budget")
def budget_check(seconds: Sequence[float], *, timeout_ms: int) -> Iterator[Finding]:
    """Compute a receiver's reserve for delivering its answer, and the time left for the handler.

    Approvals cannot be tried without a notification, so other round trips stand for them; the first of them opens the
    connection, as the first approval after a quiet time does.

    Args:
        seconds: Round trips.
        timeout_ms: How long Optimove waits for an answer.
    """
    if not seconds:
        yield not_checked("No round trip could be measured.")
        return
    reserve = Reserve(clock=time.monotonic)
    for each in seconds:
        reserve.observe(each)
    budget = timeout_ms / 1000
    kept, wanted = _ms(reserve.for_budget(budget)), _ms(reserve.for_budget(math.inf))
    repeatable = _ms(longest_repeatable_handler(budget, reserve=reserve.for_budget(budget)))
    finding = (
        f"Round trips ({len(seconds)}) took {_ms(min(seconds))} to {_ms(max(seconds))} ms. Of {timeout_ms} ms a "
        f"receiver keeps {kept} ms to deliver its answer; {timeout_ms - kept} ms are left for your handler. If it "
        f"takes at most {repeatable} ms, another replica can take over from one that died: 2 x handler + lease + "
        "reserve fit."
    )
    yield ok(finding)
    if 3 * wanted > timeout_ms:
        yield warning(
            f"{finding} Delivery would need {wanted} ms, more than a third: answers can come too late.",
            f"Run the service nearer to Optimove's server, or give answers longer: optimove-ce settings set "
            f"--timeout-ms {math.ceil(3 * wanted / 100) * 100}. The setting in Optimove cannot be read: give it with "
            "--timeout-ms.",
        )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


# ---- what is registered


@checking("webhooks")
def _webhooks_check(webhooks: object, plan: DoctorOptions) -> Iterator[Finding]:
    if not isinstance(webhooks, list):
        yield not_checked("They could not be read.", "See access.")
        return
    yield ok("".join(f"{_shown_webhook(webhook)} is registered." for webhook in webhooks[:1]))
    urls = [webhook.url for webhook in webhooks]
    create, delete = "optimove-ce webhooks create URL", "optimove-ce webhooks delete ID"
    mine = plan.webhook
    if mine is not None and normalized(mine) not in map(normalized, urls):
        if any(_essence(url) == _essence(mine) for url in urls):
            what = "The URL of --webhook is not registered, but one that differs in case or scheme."
            yield problem(what, f"Register it: {create}, and delete the other: {delete}.")
        else:
            yield problem("The URL of --webhook is not registered.", f"Register it: {create}.")
    elif not webhooks:
        remedy = f"If you have triggered campaigns: {create}, or client.ensure_webhook(url)."
        yield warning("None is registered: you get no notifications of triggered campaigns.", remedy)
    if len(webhooks) > 1:
        listed = ", ".join(_shown_webhook(webhook) for webhook in webhooks)
        yield warning(
            f"{len(webhooks)} are registered: {listed}. All get every notification and the first answer wins, so a "
            "stale one can deny.",
            f"Delete those that are not in use: {delete}.",
        )
    for address, times in Counter(map(normalized, urls)).items():
        if times > 1:
            what = f"{without_query(address)} is registered {times} times, so each notification comes as often."
            yield warning(what, f"Delete all but one: {delete}.")
    for url in dict.fromkeys(urls):
        yield from address_findings(url, without_query(url), is_rehearsal=plan.is_rehearsal)


def _shown_webhook(webhook: Webhook) -> str:
    # A webhook is protected by a signature, so its path is no secret; query and user name may be.
    return f"{without_query(webhook.url)} ({webhook.id})"


def _essence(url: str) -> str:
    return normalized(url).lower().partition("://")[2]


def campaign_urls(listeners: Sequence[EventListener] | None) -> list[str]:
    """Return the URLs that get the events of campaigns on hold."""
    return [plain_url(each.listener_url) for each in listeners or () if each.event_type_id == CAMPAIGN_READY]


def _compared(url: str) -> str:
    return normalized(without_token(url))


@checking("listener")
def _listener_check(listeners: object, plan: DoctorOptions) -> Iterator[Finding]:
    if not isinstance(listeners, list):
        yield not_checked("The listeners could not be read.", "See access and prefix.")
        return
    urls = campaign_urls(listeners)
    yield ok("".join(f"{shown_url(url, full=False)} is registered for campaigns on hold." for url in urls[:1]))
    if plan.listener is not None and _compared(plan.listener) not in map(_compared, urls):
        what = "The URL of --listener is not registered for events of type 5."
        yield problem(what, f"Register it: {REGISTER}.")
    elif not urls:
        what = "None is registered for events of type 5: you get no events of scheduled campaigns."
        yield warning(what, f"If you have scheduled campaigns with Conditional Execution: {REGISTER}.")
    for each in listeners:
        if each.event_type_id == CAMPAIGN_READY and each.channel_id:
            what = f"One is registered for channel {each.channel_id}: events of type 5 must be registered without one."
            remedy = f"optimove-ce listeners unregister --channel {each.channel_id}, then {REGISTER}."
            yield problem(what, remedy)
    if len(urls) > 1:
        what = f"{len(urls)} are registered for events of type 5. Which of them gets the events is not documented."
        yield warning(what, "Keep one: optimove-ce listeners unregister, then register yours again.")
    if not set(urls) <= {each.listener_url for each in listeners}:
        what = "Its URL is registered percent-encoded, as older programs do. Whether that works is not documented."
        remedy = "If no event arrives, register it plain: optimove-ce listeners register URL."
        yield warning(what, remedy)
    for url in dict.fromkeys(urls):
        yield from address_findings(url, shown_url(url, full=False), is_rehearsal=plan.is_rehearsal)


def address_findings(url: str, shown: str, *, is_rehearsal: bool) -> Iterator[Finding]:
    """Yield findings about an address that Optimove posts to.

    Args:
        url: The address.
        shown: What to call it.
        is_rehearsal: Whether Optimove is a simulator on this machine.
    """
    parts = split_absolute(url)
    host = "" if parts is None else parts.hostname or ""
    if parts is None:
        yield problem(f"{shown} is no absolute URL.", "Register it again, with https:// and the host.")
    elif is_rehearsal:
        return
    elif is_loopback(host) or not _is_public(host):
        what = f"{shown} is an address of this machine or network, which Optimove cannot reach."
        yield problem(what, "Register a public one.")
    elif parts.scheme == "http":
        what = f"{shown} is plain http: personal data travels in clear, and so does a token."
        yield warning(what, "Serve it over https, and register that.")


def _is_public(host: str) -> bool:
    """Whether the internet may reach a host: neither a private address nor a name without a dot."""
    address = address_of(host)
    return "." in host.rstrip(".") if address is None else address.is_global
