"""Listener tokens: the secret in a listener's registered URL, or in a header.

Optimove documents no signature for the events of a listener (developer.optimove.com, RegisterEventListener), so the URL
itself is the secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from hmac import compare_digest
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

from pydantic import SecretBytes, SecretStr

from .credentials import revealed
from .errors import ConfigurationError
from .messages import Request
from .signature import Unsigned

PARAMETER: Final = "token"


class ListenerToken:
    """The token that a listener's URL must hold, as `?token=...` or as the last segment of its path; or else a header.

    Attributes:
        expected: The token, or None for `UNSIGNED`.
    """

    __slots__ = ("_header", "expected")

    def __init__(self, token: str | SecretStr | Literal[Unsigned.UNSIGNED], *, header: str | None = None) -> None:
        """Check the token of the registered URL, given without percent-encoding.

        Args:
            token: The token.
            header: The name of the header that holds it instead of the URL.

        Raises:
            ConfigurationError: It is empty or blank, or is not text; or there is no such header.
        """
        self.expected = None if isinstance(token, Unsigned) else SecretBytes(_usable(revealed(token)))
        self._header = None if header is None else _header_name(header)
        if header is not None and self.expected is None:
            raise ConfigurationError("token_header needs a token; UNSIGNED means that there is none.")

    @property
    def place(self) -> str:
        """The part of the request that is searched for the token, in words."""
        return "URL" if self._header is None else "token's header"

    def matches(self, request: Request) -> bool:
        """Whether a request holds the token; compared in constant time.

        A header that was named decides alone, and each of several must be right. Without one, where the query has the
        parameter, it decides, and each of several must be right. Otherwise the last segment of the path does.
        """
        if self.expected is None:
            return True
        if self._header is not None:
            headers = [_bytes(value).strip() for value in request.header_values(self._header)]
            return bool(headers) and all(self._equals(value) for value in headers)
        given = list(_parameters(request.query)) or [_last_segment(request.path)]
        return all(self._equals(value) for value in given)

    def _equals(self, value: bytes) -> bool:
        expected = self.expected
        assert expected is not None  # noqa: S101 - `matches` has ruled it out
        return any(compare_digest(expected.get_secret_value(), decoded) for decoded in _decodings(value))


def _usable(token: object) -> bytes:
    if not isinstance(token, str) or not token.strip():
        raise ConfigurationError(
            "token must be the secret text in the URL that you registered, ?token=... or its last path segment, and "
            "not empty or blank; give UNSIGNED when the URL holds none."
        )
    with suppress(UnicodeEncodeError):  # which would quote the token
        return token.encode()
    raise ConfigurationError("token must be valid Unicode text.")


def _header_name(name: object) -> str:
    # WSGI passes header names with underscores, and many servers drop headers that were sent with underscores.
    if isinstance(name, str) and name.isascii() and name.replace("-", "").isalnum():
        return name.lower()
    raise ConfigurationError("token_header must be the name of a header, in letters, digits and dashes.")


def _parameters(query: str | bytes) -> Iterator[bytes]:
    for pair in _bytes(query).split(b"&"):
        name, _, value = pair.partition(b"=")
        if unquote_to_bytes(name) == PARAMETER.encode():
            yield value


def _last_segment(path: str | bytes) -> bytes:
    return _bytes(path).rstrip(b"/").rpartition(b"/")[2]


def _decodings(value: bytes) -> Iterator[bytes]:
    """Yield the possible decodings of a value: some servers pass a URL percent-decoded, others as received.

    A plus sign is a space in a form-encoded query, and itself elsewhere. WSGI, and ASGI for the query, pass bytes
    decoded as Latin-1.
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
    # A request can hold anything, lone surrogates too; some frameworks pass the query as bytes.
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
