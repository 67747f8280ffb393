"""HTTP requests and responses as values, without a server or a framework; why a body was lost or changed in transit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, cast

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

_BOM: Final = b"\xef\xbb\xbf"
_LOOKED_AT: Final = 4_096
"""Bytes of a body that are inspected to detect its type."""


@dataclass(frozen=True, slots=True, init=False)
class Request:
    """A request as your web framework received it.

    Header names are case-insensitive, and a repeated header is kept as often as it was sent. The repr shows the method
    alone: all the rest can hold secrets or personal data, a listener's token in path or query among them.

    Attributes:
        method: Upper-case method.
        path: The path, without the query.
        query: The query string, without the question mark.
        headers: Pairs of lower-case name and value, in the order received.
        body: The raw bytes, exactly as received: a signature covers these bytes and no re-serialised form of them.
    """

    method: str
    path: str = field(repr=False)
    query: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)

    def __init__(
        self,
        method: str,
        path: str = "/",
        query: str = "",
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        body: bytes = b"",
    ) -> None:
        """Build a request; header names and the method are normalised.

        Args:
            method: Any case.
            path: The path, without the query.
            query: The query string, without the question mark.
            headers: A mapping, or pairs when a name can come more than once. The `headers` of Flask, Django, Starlette
                and httpx can be passed unchanged.
            body: The raw bytes.
        """
        # The headers of some servers have `items` without being a Mapping.
        pairs = cast("Iterable[tuple[str, str]]", getattr(headers, "items", lambda: headers)())
        object.__setattr__(self, "method", method.upper())
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "query", query)
        object.__setattr__(
            self,
            "headers",
            tuple(
                [
                    (name.lower(), value)
                    if type(name) is str and type(value) is str
                    else (_text(name).lower(), _text(value))
                    for name, value in pairs
                ]
            ),
        )
        object.__setattr__(self, "body", body)

    def header_values(self, name: str) -> tuple[str, ...]:
        """Return every value of a header, in the order received; an empty tuple when it is missing.

        Args:
            name: In lower case.
        """
        return tuple([value for key, value in self.headers if key == name])


@dataclass(frozen=True, slots=True)
class Response:
    """A response for your web framework to send, or one received from Optimove.

    Attributes:
        status: The HTTP status.
        headers: Header names and values; lower-case names where the SDK made or read them.
        body: The bytes.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=lambda: _NO_HEADERS, repr=False)
    body: bytes = field(default=b"", repr=False)

    @property
    def is_html(self) -> bool:
        """Whether the body is a web page, by its first bytes or its content type; no JSON API sends one.

        False for JSON and for an empty body, whatever the content type: many frameworks label everything text/html.
        """
        start = self.body[:_LOOKED_AT].removeprefix(_BOM).lstrip()
        if start[:1] == b"<":
            return True
        return bool(start) and start[:1] not in b'{["' and "html" in self.header("content-type").lower()

    def header(self, name: str) -> str:
        """Return a header's value without surrounding white space; empty when the header is missing.

        Args:
            name: In lower case.
        """
        return next((value for key, value in self.headers.items() if key.lower() == name), "").strip()


def _text(value: str | bytes) -> str:
    # Some servers pass headers as bytes; Latin-1 maps each byte to one character.
    return value.decode("latin-1") if isinstance(value, bytes) else value


def plain(status: int, text: str = "", *, headers: Mapping[str, str] = _NO_HEADERS) -> Response:
    """Return a short plain-text response."""
    body = text.encode()
    every = {"content-type": "text/plain; charset=utf-8", "content-length": str(len(body))}
    return Response(status, {**every, **headers} if headers else every, body)


LOST_IN_CHUNKS: Final = (
    "The body is empty: it was sent in chunks (Transfer-Encoding), and what is in front of the receiver did not pass "
    "them on. Django under a WSGI server does that, and so do WSGI servers without wsgi.input_terminated. "
    "WSGIApp(receiver) for this route under gunicorn takes chunks, and so does ASGIApp under any server."
)

_LOST: Final = (
    "a middleware or the view has read it before, or it was lost in transit. Pass the raw bytes on before "
    "anything else reads them."
)
_CODINGS: Final = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress"})
_LONGEST_NUMBER: Final = 18


def is_lost_in_chunks(request: Request) -> bool:
    """Whether a body with chunked transfer encoding was announced, and the body is empty."""
    return not request.body and any(value.strip() for value in request.header_values("transfer-encoding"))


def body_fault(request: Request) -> str | None:
    """Return why, according to the headers, a body does not match its signature or cannot be parsed.

    Returns:
        One or two sentences, which quote nothing; None when the headers match the body.
    """
    announced, came = _announced(request), len(request.body)
    if not came:
        if announced:
            return f"The body is empty, though {announced} bytes were announced (Content-Length): {_LOST}"
        return "The body is empty."
    if announced is not None and came < announced:
        return f"The body has only {came} of the {announced} bytes that were announced (Content-Length): {_LOST}"
    coding = _coding(request)
    if coding is not None:
        return (
            f"The request has a Content-Encoding ({coding}). The signature covers the bytes that Optimove signed: "
            "exclude this route from whatever compresses or decompresses bodies."
        )
    if announced is not None and came > announced:
        return (
            f"The body has {came} bytes, but {announced} were announced (Content-Length): it was changed in transit, "
            "by something that decompresses or rewrites bodies."
        )
    return None


def _announced(request: Request) -> int | None:
    values = request.header_values("content-length")
    value = values[0].strip() if len(values) == 1 else ""
    return int(value) if value.isascii() and value.isdigit() and len(value) <= _LONGEST_NUMBER else None


def _coding(request: Request) -> str | None:
    value = ",".join(request.header_values("content-encoding")).strip().lower()
    if value in ("", "identity"):
        return None
    return value if value in _CODINGS else "an unusual one"
