"""Whether a URL was called by somebody who knows it: the token that a listener's registered URL holds.

Optimove documents no signature for the events of a listener (developer.optimove.com, RegisterEventListener), so the URL
itself is the secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from hmac import compare_digest
from typing import Final, Literal, final
from urllib.parse import unquote_to_bytes

from pydantic import SecretBytes, SecretStr

from optimove_conditional_execution.credentials import revealed
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.messages import Request
from optimove_conditional_execution.signature import Unsigned

PARAMETER: Final = "token"


@final
class Token:
    """What the URL of a listener must hold: `?token=...`, or as the last segment of its path.

    Attributes:
        expected: The token, or None for `UNSIGNED`.
    """

    __slots__ = ("expected",)

    def __init__(self, token: str | SecretStr | Literal[Unsigned.UNSIGNED]) -> None:
        """Take the token that stands in the registered URL, before any percent-encoding.

        Raises:
            ConfigurationError: It is empty or blank, or is not text.
        """
        self.expected = None if isinstance(token, Unsigned) else SecretBytes(_usable(revealed(token)))

    def opens(self, request: Request) -> bool:
        """Whether a request's URL holds the token; compared in constant time.

        Where the query has the parameter, it decides, and each of several must be right. Otherwise the last segment of
        the path does.
        """
        if self.expected is None:
            return True
        given = list(_parameters(request.query)) or [_last_segment(request.path)]
        return all(self._fits(value) for value in given)

    def _fits(self, value: bytes) -> bool:
        expected = self.expected
        assert expected is not None  # noqa: S101 - `opens` has ruled it out
        return any(compare_digest(expected.get_secret_value(), reading) for reading in _readings(value))


def _usable(token: object) -> bytes:
    if not isinstance(token, str) or not token.strip():
        raise ConfigurationError(
            "token must be the secret text in the URL that you registered, ?token=... or its last path segment, and "
            "not empty or blank; give UNSIGNED when the URL holds none."
        )
    with suppress(UnicodeEncodeError):  # which would quote the token
        return token.encode()
    raise ConfigurationError("token must be valid Unicode text.")


def _parameters(query: str | bytes) -> Iterator[bytes]:
    for pair in _bytes(query).split(b"&"):
        name, _, value = pair.partition(b"=")
        if unquote_to_bytes(name) == PARAMETER.encode():
            yield value


def _last_segment(path: str | bytes) -> bytes:
    return _bytes(path).rstrip(b"/").rpartition(b"/")[2]


def _readings(value: bytes) -> Iterator[bytes]:
    """Yield what a value can mean, since some servers hand a URL over decoded and others as it came.

    A plus sign is a blank where a form made the query, and itself elsewhere. WSGI, and ASGI for the query, hand bytes
    over as if they were Latin-1.
    """
    for raw in (value, _narrow(value)):
        yield raw
        yield unquote_to_bytes(raw)
        yield unquote_to_bytes(raw.replace(b"+", b" "))


def _narrow(value: bytes) -> bytes:
    try:
        return value.decode().encode("latin-1")
    except UnicodeError:
        return value


def _bytes(text: str | bytes) -> bytes:
    # Anything can stand in a request, lone surrogates too; some frameworks hand the query over as bytes.
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
