"""Checks of the claim store that several replicas share: it answers, takes a claim, and keeps what it has confirmed."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from ...errors import ConfigurationError, OptimoveError
from ...stores.remote import ServerFacts
from .finding import Check, Finding, check_of, checking, not_checked, ok, problem, problem_of, skipped, warning

VARIABLE: Final = "OPTIMOVE_CLAIMS_URL"

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
        elsewhere = f"Is the server started, and does a firewall let this machine through? Check {VARIABLE}."
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
        f"This is no claim store: set {VARIABLE} to redis://host/0, rediss://host/0 or postgresql://user@host/database."
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
