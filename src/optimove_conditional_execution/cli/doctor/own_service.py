"""Checks of what is yours: a service that must be reachable and reject unauthenticated requests, and its claim store.

A separate module: all other checks are about the environment and Optimove's server.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final, Literal
from urllib.parse import urljoin, urlsplit

from ...errors import ConfigurationError, OptimoveError
from ...stores.remote import ServerFacts
from ..options import CLAIMS_VARIABLE
from ..tenant import shown_url
from .connection import Answer, NoAnswer, Probe
from .finding import Check, Finding, check_of, checking, not_checked, ok, problem, problem_of, skipped, warning
from .tenant import address_findings

_HEADERS: Final = {"Content-Type": "application/json"}
_BODY: Final = b"{}"
"""Neither a notification nor an event: what reads it cannot act on it."""

# What Optimove posts, what authenticates it, and how to require that.
_KINDS: Final = {
    "own-webhook": ("notifications", "a signature", "Pass secrets= to the receiver, not UNSIGNED"),
    "own-listener": ("events", "the token", "Pass token= to the receiver, not UNSIGNED"),
}


def own_service_check(
    probe: Probe, name: Literal["own-webhook", "own-listener"], url: str, *, is_rehearsal: bool
) -> Check:
    """Send unauthenticated requests, and check that they are rejected: a POST with 401, a GET with 405.

    Args:
        probe: Sends requests.
        name: Which of the two URLs it is.
        url: The URL, without a token.
        is_rehearsal: Whether Optimove is a simulator on this machine.
    """
    what, proof, _ = _KINDS[name]
    posted = probe.ask("POST", url, _HEADERS, _BODY)
    if isinstance(posted, NoAnswer):
        findings = [posted.finding]
    elif posted.status == HTTPStatus.UNAUTHORIZED:
        findings = list(_get_findings(probe.ask("GET", url, {})))
    else:
        findings = [_status_finding(name, url, posted)]
    findings += address_findings(url, shown_url(url, full=False), is_rehearsal=is_rehearsal)
    return check_of(name, ok(f"It can be reached from here, and refuses {what} without {proof} (401)."), *findings)


def _get_findings(got: Answer | NoAnswer) -> Iterator[Finding]:
    if isinstance(got, NoAnswer) or got.status != HTTPStatus.METHOD_NOT_ALLOWED:
        how = f"gets {got.status}" if isinstance(got, Answer) else "gets no answer"
        what = f"A GET {how} instead of 405: something before the receiver answers, or no receiver of this SDK."
        yield warning(what, "Give the path to the receiver alone; it answers 405 to every method but POST.")


def _status_finding(name: str, url: str, answer: Answer) -> Finding:
    what, proof, demand = _KINDS[name]
    found = f"A POST without {proof} gets {answer.status}"
    close = f"{demand}, and let it read the request before anything else does."
    match answer.status // 100, answer.status % 100:
        case 2, _:
            return problem(f"{found}: forged {what} are accepted.", close)
        case 3, _:
            return _redirect_finding(url, answer)
        case 4, 0 | 22:
            return problem(f"{found}: although {proof} is missing it is read, so forged {what} may be accepted.", close)
        case 4, 3:
            text = f"{found}, not the receiver's 401: a firewall, a log-in or a CSRF check may refuse Optimove, too."
            return warning(text, "Let POSTs through to the receiver. In Django use csrf_exempt.")
        case 4, 4:
            return problem(
                f"{found}: nothing is mounted there.", "Check the path of the URL, and the slash at its end."
            )
        case 4, 5:
            return problem(f"{found}: the path takes no POST.", 'Mount the receiver with methods=["POST"].')
        case 5, _:
            return problem(f"{found}: the service, or a proxy in front of it, fails.", "See the service's log.")
    remedy = "See what stands before the receiver: it must get the request as it came."
    return problem(f"{found}, which is not the receiver's 401.", remedy)


def _redirect_finding(url: str, answer: Answer) -> Finding:
    try:
        # The path can hold a token.
        there = shown_url(urljoin(url, answer.response.header("location")), full=False)
    except ValueError:
        there = "no URL"
    return problem(
        f"A POST is redirected ({answer.status}) to {there}: to another scheme, to a slash at the end, or perhaps to a "
        "log-in. Optimove may not follow, or may turn it into a GET.",
        "Register the URL that answers, and let Optimove in without a log-in. With Starlette and FastAPI do not mount "
        'the receiver: app.add_route(path, ASGIApp(receiver), methods=["POST"]).',
    )


# ---- the claim store that several replicas share


_REDIS: Final = ("redis", "rediss", "unix")
_POSTGRES: Final = ("postgresql", "postgres")
_TRIES: Final = 5
_SLOW_SECONDS: Final = 0.05
_CLOCK_SECONDS: Final = 5.0


def claims_checks(url: str) -> Iterator[Check]:
    """Yield the checks of a claim store; one claim is written and deleted again."""
    try:
        kind, claims, facts_of = _store(url)
        took = _seconds_per_step(claims)
        asked_at = time.time()
        facts = facts_of(url)
        now = (asked_at + time.time()) / 2
    except (ImportError, OptimoveError) as error:
        finding = problem_of(error)
        elsewhere = f"Is the server started, and does a firewall let this machine through? Check {CLAIMS_VARIABLE}."
        yield check_of("claims", finding if finding.remedy else finding._replace(remedy=elsewhere))
        yield from skipped(("claims-clock", "claims-kept"), "The claim store is not usable.")
        return
    yield _pace_check(kind, took)
    yield _clock_check(kind, facts.clock - now)
    yield _kept_check(kind, facts.settings)
    pooler = facts.settings.get("pooler")
    if pooler is not None:
        said = f"A pooler stands before {kind}, in {pooler} mode: no statement is prepared, which takes longer."
        yield check_of("pooler", ok(said))


def _store(url: str) -> tuple[str, Any, Callable[[str], ServerFacts]]:
    scheme = urlsplit(url).scheme
    # Each needs its extra.
    if scheme in _REDIS:
        from ...stores.redis import RedisClaims, redis_facts

        return "Redis", RedisClaims(url), redis_facts
    if scheme in _POSTGRES or "=" in url:
        from ...stores.postgres import PostgresClaims, postgres_facts

        return "PostgreSQL", PostgresClaims(url), postgres_facts
    raise ConfigurationError(
        f"This is no claim store: set {CLAIMS_VARIABLE} to redis://host/0, rediss://host/0 or postgresql://user@host/database."
    )


def _seconds_per_step(claims: Any) -> float:
    question, owner, seconds = f"optimove-ce doctor {secrets.token_hex(8)}", secrets.token_hex(16), []
    try:
        claims.acquire(question, owner, 1.0, 5.0)  # which connects
        for _ in range(_TRIES):
            began = time.perf_counter()
            claims.renew(question, owner, 1.0, 5.0)
            seconds.append(time.perf_counter() - began)
        claims.release(question, owner)
    finally:
        claims.close()
    return statistics.median(seconds)


@checking("claims")
def _pace_check(kind: str, took: float) -> Iterator[Finding]:
    yield ok(f"{kind} takes claims; a step takes {took * 1000:.1f} ms.")
    if took > _SLOW_SECONDS:
        yield warning(
            f"{kind} takes {took * 1000:.0f} ms for a step, and each notification waits for three.",
            "Run the store near the gate, in the same zone of the same region.",
        )


@checking("claims-clock")
def _clock_check(kind: str, ahead: float) -> Iterator[Finding]:
    said = f"{kind}'s clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's."
    yield ok(f"{said} Leases count on {kind}'s alone.")
    if abs(ahead) > _CLOCK_SECONDS:
        yield warning(said, "Set both by NTP. Leases do not suffer from it.")


@checking("claims-kept")
def _kept_check(kind: str, settings: Any) -> Iterator[Finding]:
    if not settings:
        yield not_checked(f"{kind} does not tell its settings.", "Allow the user INFO, or ask who runs it.")
        return
    yield ok(f"{kind} keeps what it has confirmed.")
    told = settings.get
    if told("aof_enabled") == "0":
        yield warning(
            "Redis forgets claims when it crashes, and what is forgotten is decided again, perhaps otherwise.",
            "Set appendonly yes.",
        )
    if told("aof_last_write_status", "ok") != "ok":
        yield problem("Redis could not write its append-only file.", "See its log, and its disk.")
    policy = told("maxmemory_policy", "noeviction")
    if policy != "noeviction" and told("maxmemory", "0") != "0":
        yield warning(
            f"Redis evicts claims when its memory is full (maxmemory-policy {policy}); then they are decided again.",
            "Set maxmemory-policy noeviction, or give the gate a Redis of its own.",
        )
    if told("fsync") == "off":
        yield warning("PostgreSQL loses claims when its machine crashes (fsync off).", "Set fsync on.")
    if told("synchronous_commit") == "off":
        yield warning(
            "PostgreSQL confirms claims before they are kept (synchronous_commit off).",
            "Set synchronous_commit on for the gate's role or database.",
        )
