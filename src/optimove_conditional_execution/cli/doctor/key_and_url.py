"""The API key and the base URL, as the environment has them; nothing is sent."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from optimove_conditional_execution.cli.doctor.check import Check, Issue, State, judged
from optimove_conditional_execution.cli.doctor.texts import is_loopback, is_quoted
from optimove_conditional_execution.credentials import copied_wrong
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.settings import API_KEY_VARIABLE, BASE_URL_VARIABLE, ClientSettings

_WHERE_KEYS_ARE: Final = "An admin makes one in Optimove under Settings > General > API Key Management."
_WHERE_URLS_ARE: Final = (
    "It is your tenant's API server, such as https://api5.optimove.net; Optimove support tells which."
)

_SERVER: Final = re.compile(r"api[0-9]+\.optimove\.net|sandbox-api\.optimove\.net")
_ILLUSTRATIONS: Final = ("apix.optimove.net", "api.optimove.net", "api.optimove.com")
_PATHS_OF_CALLS: Final = frozenset({"general", "customers", "integrations", "conditional-execution"})
_OLDER_PREFIX: Final = "current"


# ---- the key


def key_check(environment: Mapping[str, str]) -> Check:
    """Check that the key is set, and that a copy has left nothing around it."""
    return judged("key", f"{API_KEY_VARIABLE} is set.", _key_issues(environment.get(API_KEY_VARIABLE)))


def usable_key(environment: Mapping[str, str]) -> str | None:
    """Return the key if it fits into a header, as the client would send it."""
    try:
        settings = ClientSettings.of(
            api_key=environment.get(API_KEY_VARIABLE, ""), base_url="http://localhost", timezone=None, environment={}
        )
    except ConfigurationError:
        return None
    return settings.api_key.get_secret_value()


def _key_issues(key: str | None) -> Iterator[Issue]:
    if key is None or not key.strip():
        what = "is not set" if key is None else "is empty or blank"
        yield Issue("problem", f"{API_KEY_VARIABLE} {what}.", f"Set it to your tenant's API key. {_WHERE_KEYS_ARE}")
        return
    bare = key.strip()
    again = f"Set {API_KEY_VARIABLE} to the key alone."
    if is_quoted(bare):
        yield Issue("problem", f"{API_KEY_VARIABLE} begins or ends with a quotation mark.", again)
    if bare.lower().startswith(("x-api-key", "bearer ")):
        yield Issue("problem", f"{API_KEY_VARIABLE} begins with the name of a header or scheme.", again)
    for found in copied_wrong(os.fsencode(bare)):
        if found.mistake not in ("secret-white-space", "secret-quotation-marks"):  # told above and below
            state: State = "warning" if found.mistake == "several-secrets" else "problem"
            yield Issue(state, f"{API_KEY_VARIABLE} {found.what}.", f"{again[:-1]}: {found.remedy}.")
    if not (bare.isascii() and bare.isprintable()) or " " in bare:
        yield Issue(
            "problem",
            f"{API_KEY_VARIABLE} has blanks, line breaks or letters outside ASCII inside, which cannot be in a key.",
            again,
        )
    elif bare != key:
        yield Issue(
            "warning",
            f"{API_KEY_VARIABLE} has white space or a line break around it. The SDK drops it, other programs do not.",
            again,
        )


# ---- the URL


def url_check(environment: Mapping[str, str]) -> Check:
    """Check that the base URL is set, is https, and has the form of a tenant's API server."""
    url = environment.get(BASE_URL_VARIABLE)
    return judged("url", f"{BASE_URL_VARIABLE} is {usable_url(environment)}.", _url_issues(url, environment))


def usable_url(environment: Mapping[str, str]) -> str | None:
    """Return the base URL if a client would take it, without a trailing slash."""
    try:
        return _settings_url(environment)
    except ConfigurationError:
        return None


def _settings_url(environment: Mapping[str, str]) -> str:
    url = environment.get(BASE_URL_VARIABLE, "")
    return ClientSettings.of(api_key="key", base_url=url, timezone=None, environment={}).base_url


def _url_issues(url: str | None, environment: Mapping[str, str]) -> Iterator[Issue]:
    if url is None or not url.strip():
        what = "is not set" if url is None else "is empty or blank"
        yield Issue("problem", f"{BASE_URL_VARIABLE} {what}.", f"Set it. {_WHERE_URLS_ARE}")
        return
    if is_quoted(url):
        yield Issue(
            "problem", f"{BASE_URL_VARIABLE} begins or ends with a quotation mark.", "Set it to the URL without marks."
        )
        return
    try:
        base_url = _settings_url(environment)
    except ConfigurationError as error:
        what = "is no absolute URL" if "://" not in url else "is not a URL that the SDK takes"
        yield Issue("problem", f"{BASE_URL_VARIABLE} {what}.", str(error))
        return
    if url != url.strip():
        yield Issue(
            "warning",
            f"{BASE_URL_VARIABLE} has white space or a line break around it. The SDK drops it, other programs do not.",
            "Set it to the URL alone.",
        )
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if parts.scheme == "http" and not is_loopback(host):
        yield Issue(
            "problem",
            f"{BASE_URL_VARIABLE} is plain http: the API key and personal data travel in clear.",
            f"Use https://{parts.netloc}{parts.path}.",
        )
    yield from _host_issues(host)
    yield from _path_issues(parts.path)


def _host_issues(host: str) -> Iterator[Issue]:
    if host in _ILLUSTRATIONS:
        yield Issue(
            "problem",
            f"{host} is an illustration in Optimove's documents: a tenant's server has a digit.",
            f"Set {BASE_URL_VARIABLE}. {_WHERE_URLS_ARE}",
        )
    elif not _SERVER.fullmatch(host) and not is_loopback(host):
        yield Issue(
            "warning",
            f"{host} does not have the form apiX.optimove.net, with a digit for X.",
            "That is right only for a gateway of your own. Else ask Optimove support for your API server.",
        )


def _path_issues(path: str) -> Iterator[Issue]:
    names = [name for name in path.lower().split("/") if name]
    if _PATHS_OF_CALLS.intersection(names):
        yield Issue(
            "problem",
            f"{BASE_URL_VARIABLE} has the path of a call ({path}), which would then stand there twice.",
            "Leave the path away: the SDK adds it.",
        )
    elif names == [_OLDER_PREFIX]:
        yield Issue(
            "warning",
            f"{BASE_URL_VARIABLE} ends in /current, which then also stands before the calls for triggered campaigns; "
            "those are documented without it.",
            'Leave it away, and pass endpoints=Endpoints(path_prefix="/current") to the client: that is for the calls '
            "of scheduled campaigns alone.",
        )
    elif names:
        yield Issue(
            "warning",
            f"{BASE_URL_VARIABLE} has the path {path}, which stands before every call.",
            "That is right only for a gateway of your own. Else leave it away.",
        )
