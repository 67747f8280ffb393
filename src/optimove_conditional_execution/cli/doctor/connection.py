"""Checks of the connection to a server: DNS, TCP and TLS, with one request."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from pydantic import Secret

from ..._version import __version__
from ...deadline import Deadline
from ...errors import DeadlineExceeded, TransportError
from ...messages import Response
from ...transport.engine import Engine, OutgoingRequest
from ...transport.proxies import has_proxy, proxy_for
from ...transport.waiting import run_blocking
from ...urls import address_of, is_loopback, origin
from .finding import Check, Finding, check_of, not_checked, ok, problem

_HEADERS: Final = {
    "Accept-Encoding": "identity",
    "User-Agent": f"optimove-conditional-execution/{__version__} doctor",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A server's response.

    Attributes:
        response: Status, headers and body.
        sent_at: This machine's clock before the request, in seconds since 1970.
        seconds: How long it took, on a monotonic clock.
    """

    response: Response = field(repr=False)
    sent_at: float
    seconds: float

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No response, and why.

    Attributes:
        cause: That of a `TransportError`; `not-connected` for a time-out before the request was sent.
        finding: The same as a sentence, and what to do.
    """

    cause: str
    finding: Finding


class Probe:
    """Sends requests, each once and with a time limit."""

    def __init__(self, engine: Engine, *, seconds: float) -> None:
        """Lazy: nothing is sent until `ask`.

        Args:
            engine: Sends the requests, for threads.
            seconds: How long one request may take.
        """
        self._engine = engine
        self.seconds = seconds

    def ask(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer | NoAnswer:
        """Send a request; redirects are not followed."""
        sent = Secret({**_HEADERS, **headers})
        request = OutgoingRequest(method, url, sent, body, Deadline.after(self.seconds), self.seconds)
        sent_at, began = time.time(), time.perf_counter()
        try:
            response = run_blocking(self._engine.send(request))
        except (TransportError, DeadlineExceeded) as error:
            return _no_answer(error, url, self.seconds)
        return Answer(response, sent_at, time.perf_counter() - began)

    def close(self) -> None:
        """Close the connections."""
        run_blocking(self._engine.aclose())


def _proxy_of(url: str) -> str | None:
    """Return the proxy that the engine uses for a URL, as host and port; None for none."""
    proxy = proxy_for(url) if has_proxy(url) else None
    return None if proxy is None else urlsplit(proxy).netloc.rpartition("@")[2]  # without user name and password


def connection_checks(url: str, result: Answer | NoAnswer) -> list[Check]:
    """Return the checks of the name, the connection and TLS, as far as one request shows them.

    Args:
        url: The URL of the request.
        result: Its result.
    """
    host, proxy = urlsplit(url).hostname or "", _proxy_of(url)
    cause, failed = ("", ok("")) if isinstance(result, Answer) else (result.cause, result.finding)
    name = ok(f"{host} is an address." if address_of(host) else f"{host} has an address.")
    connection = ok(f"{origin(url)} can be reached{'' if proxy is None else f' through the proxy {proxy}'}.")
    tls = not_checked("There is no connection.")
    if cause == "dns":
        name, connection = failed, not_checked("The name has no address.")
    elif cause == "tls":
        tls = failed
    elif cause:
        connection = failed
    if cause in ("", "timeout"):
        tls = ok("The server's certificate is valid, and of this host.")
    if proxy is not None:
        name = not_checked(f"The proxy {proxy} looks {host} up.", "Nothing to do, if the connection is ok.")
    if urlsplit(url).scheme == "http":
        plain = not_checked("The URL is plain http.", "Use https: see url.")
        tls = ok("Not needed on loopback.") if is_loopback(host) else plain
    return [check_of("name", name), check_of("connection", connection), check_of("tls", tls)]


# ---- why there is no answer

_URL: Final = "Check the URL: scheme, host and port"
_CA: Final = (
    "Serve the whole chain of a public authority, which Optimove must trust. If it is Optimove's server, and a proxy "
    "of yours inspects TLS, set SSL_CERT_FILE to a PEM file with that proxy's authority."
)
_CLOCK: Final = "Check this machine's clock first; then the certificate must be renewed."
_FIREWALL: Final = (
    f"{_URL}. Does the service run, and does a firewall let this machine through? If only a proxy may, set HTTPS_PROXY."
)

# By reason, else by cause: what it means, and the remedy.
_TEXTS: Final[Mapping[str, tuple[str, str]]] = {
    "dns": ("its name could not be looked up", f"{_URL}, and this machine's DNS."),
    "refused": ("it refuses connections", _FIREWALL),
    "unreachable": ("there is no route to it", _FIREWALL),
    "not-connected": ("it takes no connection within {seconds:g} s", _FIREWALL),
    "proxy": (
        "the proxy {proxy} does not reach it",
        "Check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or list the host in NO_PROXY if no proxy is needed.",
    ),
    "unknown-issuer": ("its certificate is of an authority that this machine does not know", _CA),
    "bad-certificate": ("its certificate is not accepted", _CA),
    "expired": ("its certificate has expired", _CLOCK),
    "not-yet-valid": ("its certificate is not valid yet", _CLOCK),
    "other-host": ("its certificate is of another host", f"{_URL}, and whether something in between answers."),
    "not-tls": ("it does not speak TLS", f"{_URL}."),
    "tls": ("it and this machine agree on no TLS", f"{_URL}, and whether it asks for a client certificate."),
    "timeout": (
        "it took the request, but did not answer within {seconds:g} s",
        "See what the service waits for, or give it longer with --timeout; ask Optimove support about its own.",
    ),
    "broken": (
        "it ended the connection without an answer",
        f"{_URL}: a server that expects TLS does so to plain http, and a firewall may. See the service's log.",
    ),
}


def _no_answer(error: TransportError | DeadlineExceeded, url: str, seconds: float) -> NoAnswer:
    proxy, cause, reason, detail = _proxy_of(url), str(error.cause), "", ""
    if isinstance(error, TransportError):
        reason, detail = error.reason, error.detail
    if cause == "timeout" and error.request_sent is False:
        cause, detail = ("not-connected", "") if proxy is None else ("proxy", "it takes no connection")
    meaning, remedy = _TEXTS.get(reason) or _TEXTS.get(cause) or _TEXTS["broken"]
    said = f" ({detail.rstrip('.')})" if detail else ""
    what = f"No answer from {origin(url)}: {meaning.format(seconds=seconds, proxy=proxy)}{said}."
    return NoAnswer(cause, problem(what, remedy))
