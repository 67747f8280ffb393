"""One request of the doctor's, tried once: an answer with its times, or why there is none."""

from __future__ import annotations

import errno
import socket
import ssl
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, final
from urllib.parse import urlsplit

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import DeadlineExceeded, TransportError
from optimove_conditional_execution.messages import Response
from optimove_conditional_execution.transport.engine import Engine, OutgoingRequest, read_all

Cause = Literal[
    "unknown-name",
    "look-up-failed",
    "refused",
    "unreachable",
    "no-connection",
    "proxy",
    "unknown-issuer",
    "expired",
    "not-yet-valid",
    "other-host",
    "bad-certificate",
    "not-tls",
    "no-tls",
    "no-answer",
    "broken-off",
]

TLS_CAUSES: Final[frozenset[Cause]] = frozenset(
    {"unknown-issuer", "expired", "not-yet-valid", "other-host", "bad-certificate", "not-tls", "no-tls"}
)

# OpenSSL's numbers, of openssl/x509_vfy.h.
_CERTIFICATES: Final[dict[int, Cause]] = {
    2: "unknown-issuer",
    18: "unknown-issuer",
    19: "unknown-issuer",
    20: "unknown-issuer",
    21: "unknown-issuer",
    9: "not-yet-valid",
    10: "expired",
    62: "other-host",
    64: "other-host",
}
# What OpenSSL says, in different versions, of a server that speaks plain HTTP.
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"})
_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EADDRNOTAVAIL})


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said.

    Attributes:
        response: Status, headers and body.
        sent_at: This machine's clock before the request, in seconds since 1970.
        received_at: The same after the answer.
        seconds: How long it took, on a clock that nobody can set.
    """

    response: Response = field(repr=False)
    sent_at: float
    received_at: float
    seconds: float

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status

    def header(self, name: str) -> str | None:
        """Return a header's value; the name in lower case."""
        return next((value for key, value in self.response.headers.items() if key.lower() == name), None)


@final
@dataclass(frozen=True, slots=True)
class Silence:
    """Why no answer came.

    Attributes:
        cause: What went wrong.
        detail: The system's words for it, which hold nothing of the request but the host; often empty.
    """

    cause: Cause
    detail: str = ""


@final
class Probe:
    """Asks, once each time, in bounded time."""

    def __init__(self, engine: Engine, *, seconds: float) -> None:
        """Ask nothing yet.

        Args:
            engine: What carries requests, as it does for a client.
            seconds: How long one request may take.
        """
        self._engine = engine
        self.seconds = seconds

    def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer | Silence:
        """Send a request; redirects are not followed."""
        request = OutgoingRequest(method, url, dict(headers), body, Deadline.after(self.seconds), self.seconds)
        sent_at, began = time.time(), time.perf_counter()
        try:
            response = read_all(self._engine.open(request))
        except (TransportError, DeadlineExceeded) as error:
            return _silence(error, url)
        return Answer(response, sent_at, time.time(), time.perf_counter() - began)


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment has for a URL, as host and port; None for none."""
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    # Without its user name and password.
    return None if not proxy else urlsplit(proxy if "://" in proxy else f"//{proxy}").netloc.rpartition("@")[2]


def _silence(error: TransportError | DeadlineExceeded, url: str) -> Silence:
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Silence(_CERTIFICATES.get(cause.verify_code, "bad-certificate"), cause.verify_message)
        if isinstance(cause, ssl.SSLError):
            reason = cause.reason or ""
            return Silence("not-tls" if reason in _NOT_TLS else "no-tls", reason.lower().replace("_", " "))
    # httpx is known to the transport alone, so its error is told by its name.
    if any(type(cause).__name__ == "ProxyError" for cause in causes):
        return Silence("proxy", str(next(cause for cause in causes if type(cause).__name__ == "ProxyError")))
    proxied = proxy_for(url) is not None
    for cause in causes:
        found = _of_socket(cause)
        if found is not None:
            return Silence("proxy", found.detail) if proxied else found
    if isinstance(error, DeadlineExceeded) or any(isinstance(cause, TimeoutError) for cause in causes):
        if error.request_sent is False:
            return Silence("proxy", "it takes no connection") if proxied else Silence("no-connection")
        return Silence("no-answer")
    return Silence("broken-off")


def _of_socket(cause: BaseException) -> Silence | None:
    if isinstance(cause, socket.gaierror):
        known = cause.errno == socket.EAI_AGAIN
        return Silence("look-up-failed" if known else "unknown-name", cause.strerror or "")
    if isinstance(cause, ConnectionRefusedError):
        return Silence("refused", "connection refused")
    if isinstance(cause, OSError) and cause.errno in _UNREACHABLE:
        return Silence("unreachable", cause.strerror or "")
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what lies below an error: the engine replaces the library's error, but does not forget it."""
    seen: set[int] = set()
    below: BaseException | None = error
    while below is not None and id(below) not in seen:
        seen.add(id(below))
        yield below
        below = below.__cause__ or below.__context__
