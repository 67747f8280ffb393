"""Checks of the environment: key, URL, secrets, token, time zone and versions. Nothing is sent."""

from __future__ import annotations

import contextlib
import difflib
import importlib.metadata
import os
import platform
import re
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from ... import __version__
from ...credentials import copied_wrong
from ...errors import ConfigurationError
from ...listener_token import ListenerToken
from ...messages import Request
from ...settings import (
    API_KEY_VARIABLE,
    BASE_URL_VARIABLE,
    SECRET_VARIABLE,
    TIMEZONE_VARIABLE,
    TOKEN_VARIABLE,
    ClientSettings,
    secret_variables,
)
from ...stores.sqlite_file import SQLITE_VERSION
from ...urls import is_loopback
from ..tenant import token_of
from .finding import Finding, checking, not_checked, ok, problem, problem_of, warning

REGISTER: Final = f"{TOKEN_VARIABLE}=... optimove-ce listeners register URL"
"""How to register a listener."""

_SETTINGS: Final = {API_KEY_VARIABLE: "key", BASE_URL_VARIABLE: "https://optimove.test"}
_QUOTES: Final = tuple("\"'`\u2018\u2019\u201c\u201d")
_MIN_LENGTH: Final = 16
_LONGER: Final = 'Choose a longer one, such as of python -c "import secrets; print(secrets.token_urlsafe(32))"'


def accepted(environment: Mapping[str, str], name: str) -> ClientSettings:
    """Return the settings of a client that has the variable `name` from an environment, and the others made up.

    Raises:
        ConfigurationError: A client would refuse the variable.
    """
    given = {**_SETTINGS, name: environment.get(name, "")}
    return ClientSettings.of(api_key=None, base_url=None, timezone=None, environment=given)


def _copy_findings(name: str, value: bytes, kind: str) -> Iterator[Finding]:
    found = list(copied_wrong(value))
    for each in found:
        # A comma or a quotation mark can be part of a secret; an invisible character or a variable's name cannot.
        yield Finding(
            "warning" if each.mistake == "several-secrets" else "problem",
            f"{name} {each.what}, which counts as part of the {kind}.",
            f"Set {name} to the {kind} alone: {each.remedy}.",
        )
    text = value.decode("utf-8", "replace").strip()
    is_told = any(each.mistake == "secret-quotation-marks" for each in found)
    if (text.startswith(_QUOTES) or text.endswith(_QUOTES)) and not is_told:
        what = f"{name} begins or ends with a quotation mark, which counts as part of the {kind}."
        yield problem(what, f"Set {name} to the {kind} alone, unless the mark is part of it.")


def _setting_findings(environment: Mapping[str, str], name: str, kind: str) -> Iterator[Finding]:
    value = environment.get(name, "")
    yield from _copy_findings(name, os.fsencode(value.strip()), kind)
    try:
        accepted(environment, name)
    except ConfigurationError as error:
        yield problem_of(error)
    else:
        if value != value.strip():
            what = f"{name} has white space or a line break around it. The SDK drops it, other programs do not."
            yield warning(what, f"Set {name} to the {kind} alone.")


# ---- key and URL


@checking("key")
def key_check(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check that the key is set, without additions from copying."""
    yield ok(f"{API_KEY_VARIABLE} is set.")
    yield from _setting_findings(environment, API_KEY_VARIABLE, "key")
    if environment.get(API_KEY_VARIABLE, "").strip().lower().startswith(("x-api-key", "bearer ")):
        what = f"{API_KEY_VARIABLE} begins with the name of a header or scheme."
        yield problem(what, f"Set {API_KEY_VARIABLE} to the key alone.")


@checking("url")
def url_check(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check that the base URL is set, is https, and has the form of a tenant's API server."""
    yield ok(f"{BASE_URL_VARIABLE} is {environment.get(BASE_URL_VARIABLE, '').strip().rstrip('/')}.")
    yield from _setting_findings(environment, BASE_URL_VARIABLE, "URL")
    try:
        parts = urlsplit(accepted(environment, BASE_URL_VARIABLE).base_url)
    except ConfigurationError:
        return
    host = parts.hostname or ""
    where = "Your tenant's API server is one such as https://api5.optimove.net; Optimove support tells which."
    if is_loopback(host):
        pass
    elif host in ("api.optimove.net", "api.optimove.com"):
        yield problem(f"{host} is an illustration in Optimove's documents: a tenant's server has a digit.", where)
    elif not re.fullmatch(r"api[0-9]+\.optimove\.net|sandbox-api\.optimove\.net", host):
        what = f"{host} does not have the form apiX.optimove.net, with a digit for X."
        yield warning(what, f"That is right only for a gateway of your own. {where}")
    if parts.scheme == "http" and not is_loopback(host):
        what = f"{BASE_URL_VARIABLE} is plain http: the API key and personal data travel in clear."
        yield problem(what, f"Use https://{parts.netloc}{parts.path}.")
    names = [name for name in parts.path.lower().split("/") if name]
    what = f"{BASE_URL_VARIABLE} has the path {parts.path}, which stands before every call."
    if {"general", "customers", "integrations", "conditional-execution"} & set(names):
        yield problem(what, "It would stand there twice. Leave it away: the SDK adds it.")
    elif names == ["current"]:
        remedy = (
            'pass endpoints=Endpoints(path_prefix="/current"), which is for the calls of scheduled campaigns alone.'
        )
        yield warning(what, f"Leave it away, and {remedy}")
    elif names:
        yield warning(what, "That is right only for a gateway of your own. Else leave it away.")


# ---- secrets and token


@checking("secret")
def secret_check(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check the webhook secret, and the further ones of a rotation."""
    secrets = secret_variables(environment)
    names = ", ".join(secrets)
    yield ok(f"{len(secrets)} secrets are set ({names}); each is tried." if len(secrets) > 1 else f"{names} is set.")
    if not secrets:
        yield warning(
            f"{SECRET_VARIABLE} is not set.",
            "For triggered campaigns set it to the secret that UpdateWebhookSettings was given "
            "(optimove-ce settings set --timeout-ms 5000 --new-secret), unless your service gets it elsewhere.",
        )
    for name in sorted(environment):
        if name.startswith(f"{SECRET_VARIABLE}_") and name not in secrets:
            remedy = f"Number further secrets from 2 on: {SECRET_VARIABLE}_2, {SECRET_VARIABLE}_3."
            yield warning(f"{name} is not read.", remedy)
    seen: dict[bytes, str] = {}
    for name, secret in secrets.items():
        yield from _value_findings(
            name,
            secret,
            "secret",
            f"{_LONGER}, and set it with optimove-ce settings set --timeout-ms 5000 --new-secret.",
        )
        if secret in seen:
            yield warning(f"{name} is the same as {seen[secret]}.", f"Unset {name}.")
        seen.setdefault(secret, name)


def _value_findings(name: str, value: bytes, kind: str, longer: str) -> Iterator[Finding]:
    if not value.strip():
        remedy = f"Set {name}, or unset it."
        yield problem(f"{name} is empty or blank: anybody could sign with it.", remedy)
        return
    yield from _copy_findings(name, value, kind)
    if len(value.strip()) < _MIN_LENGTH:
        yield warning(f"{name} has less than {_MIN_LENGTH} characters, so it can be guessed.", longer)


@checking("token")
def token_check(environment: Mapping[str, str], urls: Sequence[str]) -> Iterator[Finding]:
    """Check the listener's token, and whether the registered URL has it.

    Args:
        environment: Such as `os.environ`.
        urls: Those registered for campaigns; none when that is not known.
    """
    token = environment.get(TOKEN_VARIABLE)
    if token is None and not urls:
        remedy = "For scheduled campaigns set it to the token of your listener, unless your service gets it elsewhere."
        yield not_checked(f"{TOKEN_VARIABLE} is not set.", remedy)
        return
    yield ok(f"{TOKEN_VARIABLE} is set{', and the registered URL has it' if urls else ''}.")
    if token is not None:
        try:
            expected = ListenerToken(token)
        except ConfigurationError:
            what = f"{TOKEN_VARIABLE} is empty, blank or no text."
            yield problem(what, "Set it to a token, or unset it.")
            return
        yield from _value_findings(TOKEN_VARIABLE, os.fsencode(token), "token", f"{_LONGER}.")
        parts = (url.partition("#")[0].partition("?") for url in urls)
        if not all(expected.matches(Request("POST", path, query)) for path, _, query in parts):
            yield problem(
                f"The registered URL does not have the token of {TOKEN_VARIABLE}: a listener that expects it answers "
                "401 to every event.",
                f"Register the URL again: {REGISTER}. Or set {TOKEN_VARIABLE} to the token that the URL has.",
            )
    elif any(token_of(url) is not None for url in urls):
        what = f"The registered URL has a token, and {TOKEN_VARIABLE} is not set, so they cannot be compared."
        yield warning(what, f"Set {TOKEN_VARIABLE} to the token that your listener expects.")
    else:
        yield warning(
            f"The registered URL has no ?token=, and {TOKEN_VARIABLE} is not set. Unless the last part of its path is "
            "a secret, any sender who knows it can send events.",
            f"Choose a token, give it to your listener, and register the URL with it: {REGISTER}.",
        )


# ---- the time zone


@checking("timezone")
def timezone_check(environment: Mapping[str, str], *, is_needed: bool) -> Iterator[Finding]:
    """Check that the zone of Optimove's time stamps is set and known.

    Args:
        environment: Such as `os.environ`.
        is_needed: Whether scheduled campaigns are expected.
    """
    name = environment.get(TIMEZONE_VARIABLE)
    if not name:
        what = f"{TIMEZONE_VARIABLE} is not set, which scheduled campaigns need."
        remedy = "Set it to an IANA name like Europe/London. Ask Optimove in which zone your tenant's time stamps are."
        yield Finding("problem" if is_needed else "warning", what, remedy)
        return
    try:
        now = datetime.now(UTC).astimezone(accepted(environment, TIMEZONE_VARIABLE).timezone)
    except ConfigurationError as error:
        close = " or ".join(_close_names(name, zoneinfo.available_timezones()))
        finding = problem_of(error)
        yield finding._replace(remedy=f"Did you mean {close}? {finding.remedy}") if close else finding
    else:
        yield ok(f"{TIMEZONE_VARIABLE} is {name}, where it is {now:%H:%M} now.")


def _close_names(name: str, known: set[str]) -> list[str]:
    """Return zones whose name, or last part, is similar, ignoring case: `london`, `Europe/Londn`."""
    by_spelling: dict[str, str] = {}
    for zone in sorted(known, reverse=True):
        by_spelling[zone.lower()] = zone
        by_spelling.setdefault(zone.lower().rpartition("/")[2], zone)
    given = name.strip().strip("\"'").replace(" ", "_").lower()
    spellings = difflib.get_close_matches(given, by_spelling, n=3, cutoff=0.8)
    return list(dict.fromkeys(by_spelling[spelling] for spelling in spellings))


# ---- versions

_MIN_SQLITE: Final = (3, 24, 0)
"""`ON CONFLICT ... DO`, which the journal uses. WAL has been there since 3.7. Source: sqlite.org/changes.html."""

_SOUND_SQLITE: Final = (3, 51, 3)
"""Source: sqlite.org/wal.html#walresetbug."""


@checking("versions")
def versions_check(sqlite: tuple[int, ...] = SQLITE_VERSION) -> Iterator[Finding]:
    """Check the versions of Python, the SDK, its dependencies and SQLite.

    Args:
        sqlite: The version of SQLite.
    """
    named = [f"Python {platform.python_version()}", f"SDK {__version__}", f"SQLite {_dotted(sqlite)}"]
    for name in ("httpx", "pydantic", "tenacity", "httpx2", "aiohttp", "opentelemetry-api"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # an extra
            named.append(f"{name} {importlib.metadata.version(name)}")
    found = f"{', '.join(named)}."
    if sqlite < _MIN_SQLITE:
        found += f" This SQLite is too old for the stores in SQLite, which need {_dotted(_MIN_SQLITE)}."
        yield warning(found, "Use a Python with a newer SQLite, if you use those.")
    elif sqlite < _SOUND_SQLITE:
        found += f" Before SQLite {_dotted(_SOUND_SQLITE)} the WAL mode has a rare fault: it concerns the stores in "
        found += "SQLite in several processes."
    yield ok(found)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
