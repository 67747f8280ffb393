"""What the tenant's server answers to the two calls that only read, and under which path."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Generic, Literal, TypeVar, final
from urllib.parse import urlsplit

from optimove_conditional_execution.cli.doctor.check import Check, Issue, judged, not_checked
from optimove_conditional_execution.cli.doctor.probe import Answer, Silence
from optimove_conditional_execution.errors import (
    APIError,
    AuthenticationError,
    NotFoundError,
    RateLimitError,
    ServerError,
)
from optimove_conditional_execution.operations import Operation
from optimove_conditional_execution.transport.answers import firewall, interpret

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Kind = Literal["read", "refused", "page", "missing", "limited", "failing", "redirect", "odd", "silent"]

PREFIXES: Final = ("", "/current")

_WEBHOOKS: Final = "GetWebhooks"
_LISTENERS: Final = "GetRegisteredEventListeners"

# Statuses under which a page is a firewall's or somebody else's; other errors can have a page of the server's own.
_PAGE_STATUSES: Final = frozenset({403, 406, 429, 503, *range(200, 300)})

_REFUSED: Final = (
    "Check OPTIMOVE_API_KEY: it can be wrong, expired, revoked or of another tenant. Or it is of a type that may not "
    "make these calls: Conditional Execution most likely needs one of type Admin (Settings > General > API Key "
    "Management)."
)


@final
@dataclass(frozen=True, slots=True)
class Reply(Generic[T_co]):
    """What became of a call.

    Attributes:
        kind: How it was answered; `read` when it was understood.
        path: Where it went to, below the base URL.
        status: The HTTP status; None without an answer.
        value: What was read.
        note: What else the answer tells: the firewall's name, the host of a redirect.
    """

    kind: Kind
    path: str
    status: int | None = None
    value: T_co | None = None
    note: str = ""


def reply(operation: Operation[T], result: Answer | Silence) -> Reply[T]:
    """Return what an answer to a call means."""
    path = operation.path
    if isinstance(result, Silence):
        return Reply("silent", path)
    status = result.status
    if result.response.is_html and status in _PAGE_STATUSES:
        return Reply("page", path, status, note=firewall(result.response))
    try:
        return Reply("read", path, status, interpret(operation, result.response, secrets=()))
    except AuthenticationError:
        return Reply("refused", path, status)
    except NotFoundError:
        return Reply("missing", path, status)
    except RateLimitError:
        return Reply("limited", path, status)
    except ServerError:
        return Reply("failing", path, status)
    except APIError:
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            return Reply("missing", path, status)
        if 300 <= status < 400:
            return Reply("redirect", path, status, note=urlsplit(result.header("location") or "").netloc)
        return Reply("odd", path, status)


# ---- access


def access_check(webhooks: Reply[object], listeners: Reply[object]) -> Check:
    """Say whether the key opens the tenant's API.

    Args:
        webhooks: The reply to GetWebhooks.
        listeners: The reply to GetRegisteredEventListeners, under the prefix that did best.
    """
    fine = f"The key is accepted: {_WEBHOOKS} and {_LISTENERS} are answered."
    return judged("access", fine, _access_issues(_Call(_WEBHOOKS, webhooks), _Call(_LISTENERS, listeners)))


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    reply: Reply[object]


def _access_issues(webhooks: _Call, listeners: _Call) -> Iterator[Issue]:
    calls = (webhooks, listeners)
    replies = [call.reply for call in calls]
    if all(reply.kind == "missing" for reply in replies):
        yield Issue(
            "problem",
            f"The server knows neither call: {_listed(calls)}.",
            "It is probably no API server of Optimove's: check OPTIMOVE_BASE_URL, host and path. If it is, ask your "
            "Customer Success Manager for the paths, and pass them as Endpoints.",
        )
        return
    for kind, issue in (
        ("refused", _refused),
        ("page", _page),
        ("redirect", _redirect),
        ("limited", _limited),
        ("failing", _failing),
        ("odd", _odd),
        ("silent", _silent),
    ):
        found = [call for call in calls if call.reply.kind == kind]
        if found:
            yield issue(found)
    if webhooks.reply.kind == "missing":
        yield Issue(
            "warning",
            f"{_listed([webhooks])}: that path is a guess, so this alone need not stop anything.",
            "Ask your Customer Success Manager for the path, and whether triggered Conditional Execution is enabled; "
            "pass it as Endpoints(get_webhooks=Endpoint(...)).",
        )
    if listeners.reply.kind == "missing":
        yield Issue(
            "warning",
            f"{_listed([listeners])}, with and without /current.",
            "For scheduled campaigns ask your Customer Success Manager for the paths, and pass them as Endpoints.",
        )


def _refused(calls: Sequence[_Call]) -> Issue:
    one = " The key itself is accepted elsewhere, so it is probably of the wrong type." if len(calls) == 1 else ""
    return Issue("problem", f"{_listed(calls)}: the key is refused.{one}", _REFUSED)


def _page(calls: Sequence[_Call]) -> Issue:
    note = next((f" It looks like {call.reply.note}'s." for call in calls if call.reply.note), "")
    return Issue(
        "problem",
        f"{_listed(calls)}, with an HTML page: a web firewall, a proxy or another server answered.{note}",
        "Ask Optimove support whether its firewall must know this machine's outgoing address, and check "
        "OPTIMOVE_BASE_URL and the proxies in between.",
    )


def _redirect(calls: Sequence[_Call]) -> Issue:
    where = next((f" to {call.reply.note}" for call in calls if call.reply.note), "")
    return Issue(
        "problem",
        f"{_listed(calls)}: a redirect{where}. The SDK follows none.",
        "Check OPTIMOVE_BASE_URL: scheme, host and path.",
    )


def _limited(calls: Sequence[_Call]) -> Issue:
    return Issue(
        "warning",
        f"{_listed(calls)}: over Optimove's rate limit.",
        "Run this again in a minute. If it stays so, find out what else uses this key.",
    )


def _failing(calls: Sequence[_Call]) -> Issue:
    return Issue(
        "problem",
        f"{_listed(calls)}: Optimove, or something in front of it, fails.",
        "Run this again in some minutes; ask Optimove support, if it lasts.",
    )


def _odd(calls: Sequence[_Call]) -> Issue:
    return Issue(
        "problem",
        f"{_listed(calls)}, which is not what is documented.",
        "Check OPTIMOVE_BASE_URL: another server, or another version of the API, may have answered.",
    )


def _silent(calls: Sequence[_Call]) -> Issue:
    names = " and ".join(call.name for call in calls)
    return Issue("warning", f"{names} got no answer.", "Run this again, or with a longer --timeout.")


def _listed(calls: Sequence[_Call]) -> str:
    return " and ".join(f"{call.name} (GET {call.reply.path}) answers {call.reply.status}" for call in calls)


# ---- the prefix


def may_stand_elsewhere(listeners: Reply[object]) -> bool:
    """Whether it is worth asking under the other prefix."""
    return listeners.kind in ("missing", "page", "redirect", "odd")


def prefix_check(prefix: str, listeners: Reply[object], other: Reply[object] | None) -> Check:
    """Say which prefix the calls for scheduled campaigns need.

    Args:
        prefix: What the service's `Endpoints` have.
        listeners: The reply under that prefix.
        other: The reply under the other one, if that was asked.
    """
    if listeners.kind == "read":
        return Check("prefix", "ok", f"The calls for scheduled campaigns are found {_below(prefix)}.")
    if other is not None and other.kind == "read":
        right = other_prefix(prefix)
        return Check(
            "prefix",
            "problem",
            f"The calls for scheduled campaigns are not found {_below(prefix)}, but {_below(right)}.",
            f'Pass endpoints=Endpoints(path_prefix="{right}") to your clients, and --path-prefix "{right}" here.',
        )
    if other is not None:
        return not_checked("prefix", "The calls for scheduled campaigns are found under neither prefix.", "See access.")
    return not_checked("prefix", "The answer does not tell whether the path is right.", "See access.")


def other_prefix(prefix: str) -> str:
    """Return the prefix that the tenant may have instead."""
    return PREFIXES[0] if prefix else PREFIXES[1]


def _below(prefix: str) -> str:
    return f"below {prefix}" if prefix else "without a prefix"
