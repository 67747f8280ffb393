"""Webhook secrets and the time zone, as the environment has them; nothing is sent."""

from __future__ import annotations

import difflib
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Final

from optimove_conditional_execution.cli.doctor.check import Check, Issue, judged
from optimove_conditional_execution.cli.doctor.texts import copy_issues
from optimove_conditional_execution.cli.secret_variables import NamedSecret, named_secrets
from optimove_conditional_execution.deadline import zone_of
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.settings import SECRET_VARIABLE, TIMEZONE_VARIABLE

_SHORTEST_SECRET: Final = 16
_SUGGESTIONS: Final = 3


# ---- secrets


def secret_check(environment: Mapping[str, str]) -> Check:
    """Check the webhook secret, and the further ones of a rotation."""
    secrets = named_secrets(environment)
    names = ", ".join(name for name, _ in secrets)
    several = f"{len(secrets)} secrets are set ({names}); each is tried." if len(secrets) > 1 else f"{names} is set."
    return judged("secret", several, _secret_issues(secrets, environment))


def _secret_issues(secrets: Sequence[NamedSecret], environment: Mapping[str, str]) -> Iterator[Issue]:
    if not secrets:
        yield Issue(
            "warning",
            f"{SECRET_VARIABLE} is not set.",
            "For triggered campaigns set it to the secret that UpdateWebhookSettings was given "
            "(optimove-ce settings set --timeout-ms 5000 --new-secret), unless your service gets it elsewhere.",
        )
    known = {name for name, _ in secrets}
    for name in sorted(environment):
        if name.startswith(f"{SECRET_VARIABLE}_") and name not in known:
            yield Issue(
                "warning",
                f"{name} is not read.",
                f"Number further secrets from 2 on: {SECRET_VARIABLE}_2, {SECRET_VARIABLE}_3.",
            )
    seen: dict[bytes, str] = {}
    for name, secret in secrets:
        yield from _one_secret(name, secret)
        if secret in seen:
            yield Issue("warning", f"{name} is the same as {seen[secret]}.", f"Unset {name}.")
        seen.setdefault(secret, name)


def _one_secret(name: str, secret: bytes) -> Iterator[Issue]:
    if not secret.strip():
        yield Issue("problem", f"{name} is empty or blank: anybody could sign with it.", f"Set {name}, or unset it.")
        return
    yield from copy_issues(name, secret, "secret")
    if len(secret.strip()) < _SHORTEST_SECRET:
        yield Issue(
            "warning",
            f"{name} has less than {_SHORTEST_SECRET} characters, so it can be guessed.",
            'Choose a longer one, such as of python -c "import secrets; print(secrets.token_urlsafe(32))", and set it '
            "with optimove-ce settings set --timeout-ms 5000 --new-secret.",
        )


# ---- the time zone


def timezone_check(environment: Mapping[str, str], *, now: datetime, is_needed: bool) -> Check:
    """Check that the zone of Optimove's time stamps is set and known.

    Args:
        environment: Such as `os.environ`.
        now: The time, with a zone.
        is_needed: Whether scheduled campaigns are expected.
    """
    name = environment.get(TIMEZONE_VARIABLE)
    known = zoneinfo.available_timezones()
    return judged("timezone", _fine_zone(name, now), _zone_issues(name, known, is_needed))


def _fine_zone(name: str | None, now: datetime) -> str:
    try:
        return f"{TIMEZONE_VARIABLE} is {name}, where it is {now.astimezone(zone_of(name or '')):%H:%M} now."
    except ConfigurationError:
        return ""


def _zone_issues(name: str | None, known: set[str], is_needed: bool) -> Iterator[Issue]:
    if not known:
        yield Issue("problem", "This machine has no time zone database.", "Run: pip install tzdata")
    if not name:
        yield Issue(
            "problem" if is_needed else "warning",
            f"{TIMEZONE_VARIABLE} is not set, which scheduled campaigns need.",
            "Set it to an IANA name like Europe/London. Ask Optimove in which zone your tenant's time stamps are.",
        )
        return
    if known and not _is_zone(name):
        close = _close_names(name, known)
        meant = f"Did you mean {' or '.join(close)}? " if close else ""
        yield Issue(
            "problem",
            f"{TIMEZONE_VARIABLE} is not a time zone that this machine knows.",
            f"{meant}Set it to an IANA name like Europe/London; abbreviations and offsets will not do.",
        )


def _is_zone(name: str) -> bool:
    try:
        zone_of(name)
    except ConfigurationError:
        return False
    return True


def _close_names(name: str, known: set[str]) -> list[str]:
    """Return zones whose name, or last part, is nearly this one, whatever the case: `london`, `Europe/Londn`."""
    by_spelling: dict[str, str] = {}
    for zone in sorted(known, reverse=True):
        by_spelling[zone.lower()] = zone
        by_spelling.setdefault(zone.lower().rpartition("/")[2], zone)
    given = name.strip().strip("\"'").replace(" ", "_").lower()
    spellings = difflib.get_close_matches(given, by_spelling, n=_SUGGESTIONS, cutoff=0.8)
    return list(dict.fromkeys(by_spelling[spelling] for spelling in spellings))
