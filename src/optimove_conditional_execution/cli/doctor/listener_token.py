"""The token of a listener: in the environment, and in the URL that is registered."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from optimove_conditional_execution.cli.doctor.check import Check, Issue, judged, not_checked
from optimove_conditional_execution.cli.doctor.texts import copy_issues
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.flows.token import PARAMETER, Token
from optimove_conditional_execution.messages import Request
from optimove_conditional_execution.models.listener import CAMPAIGN_READY, EventListener
from optimove_conditional_execution.settings import TOKEN_VARIABLE

REGISTER: Final = f"{TOKEN_VARIABLE}=... optimove-ce listeners register URL"
"""How to register a listener."""

_SHORTEST_TOKEN: Final = 16
_WRONG_SEGMENT: Final = "no-token"


def token_check(environment: Mapping[str, str], listeners: Sequence[EventListener] | None) -> Check:
    """Check the listener's token, and whether the registered URL has it.

    Args:
        environment: Such as `os.environ`.
        listeners: What is registered, of all types; None when that is not known.
    """
    token = environment.get(TOKEN_VARIABLE)
    urls = [
        plain_url(listener.listener_url) for listener in listeners or () if listener.event_type_id == CAMPAIGN_READY
    ]
    if token is None and not urls:
        return not_checked(
            "token",
            f"{TOKEN_VARIABLE} is not set.",
            "For scheduled campaigns set it to the token of your listener, unless your service gets it elsewhere.",
        )
    issues = list(_unset_token_issues(urls) if token is None else _token_issues(token, urls))
    fine = f"{TOKEN_VARIABLE} is set" + (", and the registered URL has it." if urls else ".")
    return judged("token", fine, issues)


def _unset_token_issues(urls: Sequence[str]) -> Iterator[Issue]:
    if any(_has_token(url) for url in urls):
        yield Issue(
            "warning",
            f"The registered URL has a token, and {TOKEN_VARIABLE} is not set, so they cannot be compared.",
            f"Set {TOKEN_VARIABLE} to the token that your listener expects.",
        )
    else:
        yield Issue(
            "warning",
            f"The registered URL has no ?{PARAMETER}=, and {TOKEN_VARIABLE} is not set. Unless the last part of its "
            "path is a secret, whoever knows it can send events.",
            f"Choose a token, give it to your listener, and register the URL with it: {REGISTER}.",
        )


def _token_issues(token: str, urls: Sequence[str]) -> Iterator[Issue]:
    try:
        expected = Token(token)
    except ConfigurationError:
        yield Issue("problem", f"{TOKEN_VARIABLE} is empty, blank or no text.", "Set it to a token, or unset it.")
        return
    yield from copy_issues(TOKEN_VARIABLE, os.fsencode(token), "token")
    if len(token.strip()) < _SHORTEST_TOKEN:
        yield Issue(
            "warning",
            f"{TOKEN_VARIABLE} has less than {_SHORTEST_TOKEN} characters, so it can be guessed.",
            'Choose a longer one, such as of python -c "import secrets; print(secrets.token_urlsafe(32))".',
        )
    if not all(_opens(expected, url) for url in urls):
        yield Issue(
            "problem",
            f"The registered URL does not have the token of {TOKEN_VARIABLE}: a listener that expects it answers 401 "
            "to every event.",
            f"Register the URL again: {REGISTER}. Or set {TOKEN_VARIABLE} to the token that the URL has.",
        )


def _opens(token: Token, url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return token.opens(Request("POST", parts.path, parts.query))


def _has_token(url: str) -> bool:
    try:
        return any(name == PARAMETER for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True))
    except ValueError:
        return False


def closed_url(url: str, environment: Mapping[str, str]) -> str:
    """Return a listener's URL without its token: with a wrong one where the last part of the path is the token."""
    parts = urlsplit(without_token(url))
    before, _, last = parts.path.rstrip("/").rpartition("/")
    token = environment.get(TOKEN_VARIABLE)
    if token and unquote(last) == token:
        parts = parts._replace(path=f"{before}/{quote(_WRONG_SEGMENT)}")
    return parts.geturl()


def without_token(url: str) -> str:
    """Return a listener's URL without the parameter that is its token."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != PARAMETER]
    return parts._replace(query=urlencode(kept), fragment="").geturl()


def plain_url(url: str) -> str:
    """Return a registered URL, decoded where it is percent-encoded as a whole."""
    return url if "://" in url else unquote(url)
