"""Adapter to httpx and httpx2, which have the same interface: clients, requests, responses, errors."""

from __future__ import annotations

import functools
import importlib
import logging
import socket
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, Literal, TypeVar, final

import httpx

from ...deadline import Deadline
from ...errors import ConfigurationError, DeadlineExceeded, TransportError
from ...installation import install_hint
from ...messages import Response
from ...observers import report_logging_error
from ..addresses import Addresses
from ..connection_pool import KEEPALIVE_SECONDS
from ..engine import CLOSED, BaseStream, Causes, ErrorTranslator, OutgoingRequest, cause_of, transport_error
from ..proxies import has_proxy, proxy_for
from .httpx_deadline import RequestProgress, install_deadlines, is_in_call, remove_deadlines

P = TypeVar("P")

LibraryName = Literal["httpx", "httpx2"]

_NAMES: Final[tuple[LibraryName, ...]] = ("httpx", "httpx2")


@final
class Clients:
    """The clients of an engine: of httpx or httpx2, made by the engine or by the user.

    Attributes:
        module: The library.
        given: The user's client, or None.
        causes: The causes of the library's exceptions.
    """

    def __init__(
        self, kind: Literal["Client", "AsyncClient"], given: object | None, library: LibraryName, base_url: str | None
    ) -> None:
        """Prepare a TLS context, or use the user's client.

        Args:
            kind: The class of the clients.
            given: The user's client.
            library: The library to make clients with, when none is given.
            base_url: The server, for which the environment may name a proxy; None for any.

        Raises:
            ConfigurationError: `given` is not of that class, the library is not installed, or the machine's settings
                for proxies or TLS are invalid.
        """
        self.given: Any = given
        self.module: Any = _load(library) if given is None else _module_of(given, kind)
        _guard_loggers(self.module.__name__)
        self.causes = _causes(self.module)
        self._addresses = Addresses()
        if given is not None:
            install_deadlines(given, self._addresses)
            return
        limits = self.module.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEPALIVE_SECONDS)
        proxy = {} if base_url is None else {"proxy": proxy_for(base_url), "trust_env": False}
        self._has_proxy = has_proxy if base_url is None else lambda _url: proxy["proxy"] is not None
        context = _checked(self.module.create_ssl_context)
        self._make = functools.partial(getattr(self.module, kind), verify=context, limits=limits, **proxy)
        _checked(self._make)  # fails now, not at the first request, if the proxies of the environment are invalid

    def make(self) -> Any:
        """Return a client for one connection, or the user's."""
        if self.given is not None:
            return self.given
        client = self._make()
        install_deadlines(client, self._addresses)
        return client

    def restore(self) -> None:
        """Undo the changes to the user's client."""
        if self.given is not None:
            remove_deadlines(self.given)

    def uses_proxy(self, url: str) -> bool:
        """Whether requests to a URL use a proxy from the environment; unknown for the user's client."""
        return self.given is None and self._has_proxy(url)

    def was_sent(self, error: Exception) -> bool | None:
        """Return whether the request was sent, if the class of an exception says so; None if not."""
        module = self.module
        before = (module.ConnectError, module.ConnectTimeout, module.PoolTimeout, module.ProxyError, socket.gaierror)
        if cause_of(error, self.causes) == "invalid-request" or isinstance(error, before):
            return False
        return True if isinstance(error, (module.ReadError, module.ReadTimeout, module.RemoteProtocolError)) else None


def _causes(module: Any) -> Causes:
    return (
        ((TimeoutError, module.TimeoutException), "timeout"),
        ((module.LocalProtocolError, module.InvalidURL, module.UnsupportedProtocol), "invalid-request"),
        ((module.ProxyError,), "proxy"),
        ((module.TransportError, socket.gaierror), "broken"),
    )


@final
class _GuardedLogging(logging.Filter):
    """Protects our calls from exceptions in logging of the library.

    httpx logs each response before it returns it. A filter or handler that raised there would lose the response of a
    request that was processed, and the connection with it. Records of other calls pass unchanged.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Handle the record here when one of our calls caused it."""
        if not is_in_call():
            return True
        try:
            logging.getLogger(record.name).callHandlers(record)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - as in `SafeLogger`
            report_logging_error(record.name, error)
        return False


_GUARD: Final = _GuardedLogging()


def _guard_loggers(library: str) -> None:
    core = library.replace("httpx", "httpcore")
    for name in (library, *(f"{core}.{part}" for part in ("connection", "http11", "http2", "proxy", "socks"))):
        logging.getLogger(name).addFilter(_GUARD)  # idempotent


def _load(name: LibraryName) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigurationError(
            f"engine={name!r} needs a package that is not installed: {install_hint(name)}."
        ) from None


def _module_of(client: object, kind: Literal["Client", "AsyncClient"]) -> ModuleType:
    for name in _NAMES:
        module = sys.modules.get(name)
        if module is not None and isinstance(client, getattr(module, kind)):
            return module
    mine, other = (
        ("OptimoveClient", "AsyncOptimoveClient") if kind == "Client" else ("AsyncOptimoveClient", "OptimoveClient")
    )
    other_kind = "AsyncClient" if kind == "Client" else "Client"
    raise ConfigurationError(
        f"http_client of an {mine} must be an httpx.{kind}, or one of httpx2; {other} takes the {other_kind}."
    )


def _checked(make: Callable[[], P]) -> P:
    try:
        return make()
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - its message can hold a proxy's password, so it is not chained
        name = type(error).__name__
    raise ConfigurationError(
        f"httpx cannot be set up ({name}): check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and "
        "SSL_CERT_DIR."
    )


def refuse_closed(client: httpx.Client | httpx.AsyncClient) -> None:
    """Raise `ConfigurationError` for a closed client; httpx would raise a RuntimeError."""
    if client.is_closed:
        raise ConfigurationError(CLOSED)


def build(client: httpx.Client | httpx.AsyncClient, request: OutgoingRequest, seconds: float) -> httpx.Request:
    """Return an httpx request, with a timeout in seconds for each wait."""
    read = seconds if request.read_until is None else request.attempt_timeout
    return client.build_request(
        request.method,
        request.url,
        headers=request.plain_headers(),
        content=request.body,
        timeout=(seconds, read, seconds, seconds),
    )


class HttpxStream(BaseStream["HttpxErrors"]):
    """A response of httpx, whose body the user's event hook may have read, or closed unread."""

    def __init__(
        self, source: httpx.Response, errors: HttpxErrors, end: Deadline, release: Callable[[], object]
    ) -> None:
        head = Response(source.status_code, dict(source.headers.items()))
        super().__init__(head, errors, end, release, is_framed=not source.http_version.startswith("HTTP/1"))
        self._source: Any = source
        self._already: list[bytes] | None = [] if source.is_closed else None
        if source.is_stream_consumed:
            self._already = [source.content]

    def _let_go(self) -> None:
        """Break the circle of a closed response and its stream, so that the request's body is freed at once."""
        self._source.stream = self._errors.clients.module.ByteStream(b"")


@final
class HttpxErrors(ErrorTranslator):
    """Translates httpx's exceptions of a request into ours."""

    def __init__(self, clients: Clients, request: OutgoingRequest) -> None:
        super().__init__(request)
        self.clients = clients
        self.progress = RequestProgress(request.heard_since)

    def translate(self, error: Exception, handled: BaseException | None) -> TransportError | DeadlineExceeded:
        """Return the error for an exception of the library, or of a hook that it called."""
        cause = cause_of(error, self.clients.causes)
        sent = self.clients.was_sent(error)
        return transport_error(
            self.request,
            error,
            request_sent=self.progress.sent if self.progress.seen and sent is not False else sent,
            cause=cause,
            safe_to_quote=cause in ("broken", "proxy"),
            uses_proxy=cause == "broken" and self.clients.uses_proxy(self.request.url),
            handled=handled,
        )
