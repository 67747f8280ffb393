"""The engines for threads and for asyncio, on httpx or httpx2, which have the same interface."""

from __future__ import annotations

import asyncio
import functools
import importlib
import logging
import math
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any, Final, Literal, TypeVar, final

import httpx

from ...deadline import Deadline
from ...errors import ConfigurationError, DeadlineExceeded, TransportError
from ...fork import detect_fork, reset_after_fork
from ...installation import install_hint
from ...messages import Request, Response
from ...observers import report_logging_error
from ..addresses import Addresses
from ..connection_pool import KEEPALIVE_SECONDS, MAX_CONNECTIONS, ConnectionPool, PoolPerLoop
from ..engine import (
    CLOSED,
    FORKED,
    BaseStream,
    Causes,
    Engine,
    ErrorTranslator,
    OutgoingRequest,
    Stream,
    cause_of,
    transport_error,
)
from ..proxies import has_proxy, proxy_for
from .httpx_deadline import (
    RequestProgress,
    deadline_scope,
    install_deadlines,
    is_in_call,
    remove_deadlines,
    track_progress,
)

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
        self._url = functools.lru_cache(maxsize=64)(self.module.URL)  # parsing takes a third of making a request
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

    def request(self, client: Any, request: OutgoingRequest, seconds: float) -> Any:
        """Return the library's request, with a timeout in seconds for each wait."""
        read = seconds if request.read_until is None else request.attempt_timeout
        return client.build_request(
            request.method,
            self._url(request.url),
            headers=request.headers.get_secret_value(),
            content=request.body,
            timeout=(seconds, read, seconds, seconds),
        )

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


_GRACE_SECONDS: Final = 0.015
"""Seconds by which our timeout in asyncio exceeds the library's own: it closes connections that time out, but not those
that are cancelled during the TLS handshake."""


class _HttpxEngine(Engine):
    """Base class of the engines."""

    _kind: Literal["Client", "AsyncClient"]
    _stream: type[_HttpxStream]
    _grace = 0.0

    def __init__(
        self,
        http_client: object | None = None,
        *,
        library: LibraryName = "httpx",
        max_connections: int = MAX_CONNECTIONS,
        base_url: str | None = None,
    ) -> None:
        """Prepare a TLS context, or use the user's client.

        Args:
            http_client: The user's client.
            library: The library to make clients with, when none is given.
            max_connections: Concurrent requests, for asyncio per event loop; streams are not counted.
            base_url: The server, for which the environment may name a proxy; None for any.

        Raises:
            ConfigurationError: `http_client` is not an `httpx.Client`, or for asyncio an `httpx.AsyncClient`, the
                library is not installed, or the machine's settings for proxies or TLS are invalid.
        """
        self._clients = Clients(self._kind, http_client, library, base_url)
        self._max_connections = max_connections
        self._start()

    @abstractmethod
    def _start(self) -> None:
        """Make the connection pools."""

    async def open(self, request: OutgoingRequest) -> Stream:
        """Send a request; see `Engine.open`."""
        pool, client = await self._acquire(request)
        try:
            with HttpxErrors(self._clients, request) as errors:
                seconds = request.timeout()
                end = Deadline.after(seconds + self._grace)
                if client.is_closed:
                    raise ConfigurationError(CLOSED)  # httpx would raise a RuntimeError
                outgoing = self._clients.request(client, request, seconds)
                with deadline_scope(end, errors.progress):
                    try:
                        response = await self._send(client, outgoing, end)
                    except self._clients.module.HTTPStatusError as error:
                        response = error.response  # an event hook raised for a status, which `parse_response` handles
                give_back = functools.partial(self._give_back, pool, client)
                return self._stream(response, errors, end, lambda: pool.release(client), give_back)
        except BaseException:
            await self._give_back(pool, client)
            raise

    async def _give_back(self, pool: ConnectionPool[Any], client: Any) -> None:
        """Give back a client whose request has failed."""
        pool.release(client)

    @abstractmethod
    async def _acquire(self, request: OutgoingRequest) -> tuple[ConnectionPool[Any], Any]:
        """Wait for a client, and return it with its pool."""

    @abstractmethod
    async def _send(self, client: Any, outgoing: Any, end: Deadline) -> Any:
        """Send a request of the library, and return the library's response."""


class _HttpxStream(BaseStream[HttpxErrors], ABC):
    """A response of httpx, whose body the user's event hook may have read, or closed unread."""

    def __init__(
        self,
        source: Any,
        errors: HttpxErrors,
        end: Deadline,
        release: Callable[[], object],
        give_back: Callable[[], Awaitable[None]],
    ) -> None:
        head = Response(source.status_code, dict(source.headers.items()))
        super().__init__(head, errors, end, release, is_framed=not source.http_version.startswith("HTTP/1"))
        self._source = source
        self._give_back = give_back
        self._is_broken = False
        self._already: list[bytes] | None = [] if source.is_closed else None
        if source.is_stream_consumed:
            self._already = [source.content]

    async def read(self) -> bytes:
        self._is_broken = True
        with self._errors as errors, deadline_scope(wait := self._next_wait(), errors.progress):
            block = await self._next(wait)
        self._is_broken = False
        return block

    async def aclose(self) -> None:
        if (release := self._take_release()) is not None:
            is_broken, self._is_broken = self._is_broken, True
            try:
                with self._errors as errors, track_progress(errors.progress):
                    await self._close()
                self._is_broken = is_broken
            finally:
                # Breaks the circle of a closed response and its stream, so that the request's body is freed at once.
                self._source.stream = self._errors.clients.module.ByteStream(b"")
                if self._is_broken:
                    await self._give_back()
                else:
                    release()

    @abstractmethod
    async def _next(self, wait: Deadline) -> bytes:
        """Return the next bytes, received by a deadline."""

    @abstractmethod
    async def _close(self) -> None:
        """Close the library's response."""


@final
class _BlockingStream(_HttpxStream):
    async def _next(self, wait: Deadline) -> bytes:
        block = next(self._blocks, b"")
        if block and self._end is not None and self._end.expired:
            raise TimeoutError  # the user's transport may not have ended the wait
        return block

    @functools.cached_property
    def _blocks(self) -> Iterator[bytes]:
        return iter(self._source.iter_raw() if self._already is None else self._already)

    async def _close(self) -> None:
        self._source.close()


@final
class _AsyncStream(_HttpxStream):
    async def _next(self, wait: Deadline) -> bytes:
        if self._already is not None:
            return self._already.pop() if self._already else b""
        async with asyncio.timeout(wait.remaining()):
            return await anext(self._blocks, b"")

    @functools.cached_property
    def _blocks(self) -> AsyncIterator[bytes]:
        blocks: AsyncIterator[bytes] = self._source.aiter_raw()
        return blocks

    async def _close(self) -> None:
        await self._source.aclose()


@final
class HttpEngine(_HttpxEngine):
    """Sends requests from threads, over clients that share one TLS context; its coroutines block."""

    _kind = "Client"
    _stream = _BlockingStream
    _closed_because = ""

    def _start(self) -> None:
        self._requests = ConnectionPool(self._max_connections, self._clients.make)
        self._streams = ConnectionPool(math.inf, self._clients.make)
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Drop the parent's connections: two processes on one would read each other's responses."""
        self._start()
        if self._clients.given is not None:
            self._closed_because = FORKED

    async def _acquire(self, request: OutgoingRequest) -> tuple[ConnectionPool[Any], Any]:
        detect_fork()
        if self._closed_because:
            raise ConfigurationError(self._closed_because)
        pool = self._requests if request.read_until is None else self._streams
        return pool, pool.acquire(request.deadline)

    async def _send(self, client: Any, outgoing: Any, end: Deadline) -> Any:
        return client.send(outgoing, stream=True, follow_redirects=False)

    async def aclose(self) -> None:
        """Close the connections; the user's client stays open, and is restored."""
        detect_fork()
        if not self._closed_because:
            self._closed_because = CLOSED
            self._clients.restore()
        if self._clients.given is None:
            with track_progress(RequestProgress()):
                for client in (*self._requests.clients(), *self._streams.clients()):
                    client.close()


@final
class AsyncHttpEngine(_HttpxEngine):
    """Sends requests from asyncio, over async clients: one TLS context, and pools for each event loop."""

    _kind = "AsyncClient"
    _stream = _AsyncStream
    _grace = _GRACE_SECONDS

    def _start(self) -> None:
        is_given = self._clients.given is not None
        self._pools: PoolPerLoop[Any] = PoolPerLoop(
            self._clients.make, _aclose, max_connections=self._max_connections, is_given=is_given
        )

    async def _acquire(self, request: OutgoingRequest) -> tuple[ConnectionPool[Any], Any]:
        pools = self._pools.current()
        pool = pools.requests if request.read_until is None else pools.streams
        return pool, await pool.aacquire(request.deadline)

    async def _give_back(self, pool: ConnectionPool[Any], client: Any) -> None:
        if self._clients.given is not None:
            pool.release(client)
            return
        # httpcore keeps a connection for ever whose request is cancelled while it waits for one of httpcore's locks.
        pool.replace(client)
        await _aclose(client)

    async def _send(self, client: Any, outgoing: Any, end: Deadline) -> Any:
        async with asyncio.timeout(end.remaining()):
            return await client.send(outgoing, stream=True, follow_redirects=False)

    async def aclose(self) -> None:
        """Close this event loop's connections; the user's client stays open, and is restored."""
        if self._pools.is_open:
            self._clients.restore()
        await self._pools.aclose()


async def _aclose(client: Any) -> None:
    with track_progress(RequestProgress()):
        await client.aclose()


# ---- clients without sockets


def local_client(handle: Callable[[Request], Response]) -> httpx.Client:
    """Return an httpx client whose requests are answered by a function in this process, without sockets."""
    return httpx.Client(transport=_local_transport(handle))


def local_async_client(handle: Callable[[Request], Response]) -> httpx.AsyncClient:
    """Return an async httpx client whose requests are answered by a function; see `local_client`."""
    return httpx.AsyncClient(transport=_local_transport(handle))


def _local_transport(handle: Callable[[Request], Response]) -> httpx.MockTransport:
    def respond(request: httpx.Request) -> httpx.Response:
        path, query = request.url.path, request.url.query.decode("ascii")
        response = handle(Request(request.method, path, query, request.headers.multi_items(), request.content))
        return httpx.Response(response.status, headers=dict(response.headers), content=response.body)

    return httpx.MockTransport(respond)
