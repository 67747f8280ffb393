"""The engines for threads and for asyncio, on httpx or httpx2."""

from __future__ import annotations

import asyncio
import functools
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, final

from ...deadline import Deadline
from ...errors import ConfigurationError
from ...fork import detect_fork, reset_after_fork
from ...messages import Response
from ..connection_pool import MAX_CONNECTIONS, ConnectionPool, PoolPerLoop
from ..engine import CLOSED, FORKED, BaseStream, Engine, OutgoingRequest, Stream
from .httpx_adapter import Clients, HttpxErrors, LibraryName, refuse_closed
from .httpx_deadline import RequestProgress, deadline_scope, track_progress

_GRACE_SECONDS: Final = 0.015
"""Seconds by which our timeout in asyncio exceeds the library's own: it closes connections that time out, but not those
that are cancelled during the TLS handshake."""


class _HttpxEngine(Engine):
    """Base class of the engines."""

    _clients: Clients
    _stream: type[_HttpxStream]
    _grace = 0.0

    async def open(self, request: OutgoingRequest) -> Stream:
        """Send a request; see `Engine.open`."""
        pool, client = await self._acquire(request)
        try:
            with HttpxErrors(self._clients, request) as errors:
                seconds = request.timeout()
                end = Deadline.after(seconds + self._grace)
                refuse_closed(client)
                outgoing = self._clients.request(client, request, seconds)
                with deadline_scope(end, errors.progress):
                    try:
                        response = await self._send(client, outgoing, end)
                    except self._clients.module.HTTPStatusError as error:
                        response = error.response  # an event hook raised for a status, which `parse_response` handles
                return self._stream(response, errors, end, lambda: pool.release(client))
        except BaseException:
            pool.release(client)
            raise

    @abstractmethod
    async def _acquire(self, request: OutgoingRequest) -> tuple[ConnectionPool[Any], Any]:
        """Wait for a client, and return it with its pool."""

    @abstractmethod
    async def _send(self, client: Any, outgoing: Any, end: Deadline) -> Any:
        """Send a request of the library, and return the library's response."""


class _HttpxStream(BaseStream[HttpxErrors], ABC):
    """A response of httpx, whose body the user's event hook may have read, or closed unread."""

    def __init__(self, source: Any, errors: HttpxErrors, end: Deadline, release: Callable[[], object]) -> None:
        head = Response(source.status_code, dict(source.headers.items()))
        super().__init__(head, errors, end, release, is_framed=not source.http_version.startswith("HTTP/1"))
        self._source = source
        self._already: list[bytes] | None = [] if source.is_closed else None
        if source.is_stream_consumed:
            self._already = [source.content]

    async def read(self) -> bytes:
        with self._errors as errors, deadline_scope(wait := self._next_wait(), errors.progress):
            return await self._next(wait)

    async def aclose(self) -> None:
        if (release := self._take_release()) is not None:
            try:
                with self._errors as errors, track_progress(errors.progress):
                    await self._close()
            finally:
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
        return self._in_time(next(self._blocks, b""))

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

    _stream = _BlockingStream

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
            max_connections: Concurrent requests; streams are not counted.
            base_url: The server, for which the environment may name a proxy; None for any.

        Raises:
            ConfigurationError: `http_client` is not an `httpx.Client`, the library is not installed, or the machine's
                settings for proxies or TLS are invalid.
        """
        self._clients = Clients("Client", http_client, library, base_url)
        self._max_connections = max_connections
        self._closed_because = ""
        self._start()
        reset_after_fork(self)

    def _start(self) -> None:
        self._requests = ConnectionPool(self._max_connections, self._clients.make)
        self._streams = ConnectionPool(math.inf, self._clients.make)

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

    _stream = _AsyncStream
    _grace = _GRACE_SECONDS

    def __init__(
        self,
        http_client: object | None = None,
        *,
        library: LibraryName = "httpx",
        max_connections: int = MAX_CONNECTIONS,
        base_url: str | None = None,
    ) -> None:
        """Prepare a TLS context, or use the user's client; see `HttpEngine`.

        Args:
            http_client: The user's client, an `httpx.AsyncClient`.
            library: The library to make clients with, when none is given.
            max_connections: Concurrent requests per event loop; streams are not counted.
            base_url: The server, for which the environment may name a proxy; None for any.
        """
        self._clients = Clients("AsyncClient", http_client, library, base_url)
        self._pools: PoolPerLoop[Any] = PoolPerLoop(
            self._clients.make, _aclose, max_connections=max_connections, is_given=http_client is not None
        )

    async def _acquire(self, request: OutgoingRequest) -> tuple[ConnectionPool[Any], Any]:
        pools = self._pools.current()
        pool = pools.requests if request.read_until is None else pools.streams
        return pool, await pool.aacquire(request.deadline)

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
