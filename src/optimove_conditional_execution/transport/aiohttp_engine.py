"""Requests and answers over aiohttp, for those who send thousands a second. The only module that knows aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import sys
from collections.abc import AsyncIterator
from types import SimpleNamespace, TracebackType
from typing import Any, Final, final

import aiohttp
import aiohttp.abc
import multidict
import yarl

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import OptimoveError, TransportCause
from optimove_conditional_execution.messages import Response
from optimove_conditional_execution.tracebacks import clear_locals
from optimove_conditional_execution.transport.addresses import Addresses
from optimove_conditional_execution.transport.exchange import MAX_RESPONSE_BODY, AsyncStream, Exchange
from optimove_conditional_execution.transport.failures import transport_error
from optimove_conditional_execution.transport.loops import LoopPools
from optimove_conditional_execution.transport.places import KEEPALIVE_SECONDS, MAX_CONNECTIONS
from optimove_conditional_execution.transport.proxies import proxy_for

_NO_HEADERS: Final = multidict.CIMultiDictProxy[str](multidict.CIMultiDict())


class AiohttpEngine:
    """Sends requests over an aiohttp session for each event loop."""

    def __init__(self, *, base_url: str, max_connections: int = MAX_CONNECTIONS) -> None:
        """Open nothing yet.

        Args:
            base_url: The server that is asked, whose proxy the environment may name.
            max_connections: Requests of an event loop on their way at once; streams are not counted.

        Raises:
            ConfigurationError: A variable of the environment makes no sense.
        """
        # aiohttp's own way to read the environment asks a thread for every request.
        self._proxy = proxy_for(base_url, takes_socks=False)
        self._addresses = Addresses()
        self._pools = LoopPools(
            lambda _connections: self._session(),
            aiohttp.ClientSession.close,
            max_connections=max_connections,
            is_shared=True,
        )

    async def exchange(self, exchange: Exchange) -> Response:
        """Send a request and return the answer, whatever its status; the whole of it ends by the deadline.

        Raises:
            TransportError: No answer came.
            DeadlineExceeded: The deadline passed first.
        """
        places = self._pools.get().places
        session = await places.take(exchange.deadline)
        try:
            progress = _Progress(exchange)
            with _translated(exchange, progress):
                async with (
                    asyncio.timeout(exchange.seconds()),
                    self._chosen(session, exchange) as chosen,
                    _sent(chosen, exchange, progress, self._proxy) as response,
                ):
                    return _answer(response, await _body(response))
        finally:
            places.leave(session)

    async def stream(self, exchange: Exchange, reading_ends: Deadline) -> AsyncStream:
        """Send a request and return the answer's head, with its body still to be read.

        Args:
            exchange: The request; it bounds the wait for the head.
            reading_ends: The end of reading.

        Raises:
            TransportError: No answer came.
            DeadlineExceeded: The deadline passed first.
        """
        session = self._pools.get().streaming
        progress = _Progress(exchange)
        async with contextlib.AsyncExitStack() as stack:
            with _translated(exchange, progress):
                async with asyncio.timeout(exchange.seconds()):
                    chosen = await stack.enter_async_context(self._chosen(session, exchange))
                    response = await _sent(chosen, exchange, progress, self._proxy)
                    if 200 <= response.status < 300:
                        reading = exchange.reading(reading_ends)
                        return _Stream(response, reading, progress, ending=stack.pop_all())
                    async with response:
                        return _Stream(response, exchange, progress, body=await _body(response))

    @contextlib.asynccontextmanager
    async def _chosen(self, session: aiohttp.ClientSession, exchange: Exchange) -> AsyncIterator[aiohttp.ClientSession]:
        """Choose the session of all requests, or one of its own for a request that shall have a new connection."""
        if exchange.heard_since == -math.inf:
            yield session
        else:
            async with self._session() as own:
                yield own

    def _session(self) -> aiohttp.ClientSession:
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(_on_headers)
        tracing.on_request_chunk_sent.append(_on_chunk)
        connector = aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=KEEPALIVE_SECONDS,
            resolver=_Resolver(self._addresses),
            # With a cache all requests wait for the one look-up of a host that is under way, though it hangs.
            use_dns_cache=False,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=[tracing],
        )

    async def aclose(self) -> None:
        """Close this event loop's connections."""
        await self._pools.aclose()


@final
class _Progress:
    """How far a request got."""

    def __init__(self, exchange: Exchange) -> None:
        self._left = len(exchange.body or b"")
        self.sent: bool | None = False

    def headers(self) -> None:
        self.sent = None if self._left else True

    def chunk(self, size: int) -> None:
        self._left -= size
        if self._left <= 0:
            self.sent = True


@final
class _Resolver(aiohttp.abc.AbstractResolver):
    """Looks hosts up in threads of our own, each request by itself."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        found = await asyncio.wrap_future(self._addresses.look_up(host, port, family))
        return [
            {
                "hostname": host,
                "host": address[0],
                "port": port,
                "family": kind,
                "proto": protocol,
                "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            }
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Nothing is open."""


async def _on_headers(_session: object, context: SimpleNamespace, _given: object) -> None:
    context.trace_request_ctx.headers()


async def _on_chunk(_session: object, context: SimpleNamespace, given: aiohttp.TraceRequestChunkSentParams) -> None:
    context.trace_request_ctx.chunk(len(given.chunk))


def _sent(session: aiohttp.ClientSession, exchange: Exchange, progress: _Progress, proxy: str | None) -> Any:
    return session.request(
        exchange.method,
        yarl.URL(exchange.url, encoded=True),
        headers=exchange.plain_headers(),
        data=exchange.body,
        allow_redirects=False,
        proxy=proxy,
        trace_request_ctx=progress,
    )


async def _body(response: aiohttp.ClientResponse) -> bytearray:
    body = bytearray()
    while chunk := await response.content.readany():
        body += chunk
        if len(body) > MAX_RESPONSE_BODY:
            response.close()  # what is still to come shall not be read to its end
            break
    return body


def _answer(response: aiohttp.ClientResponse, body: bytearray) -> Response:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Response(response.status, headers, bytes(body[: MAX_RESPONSE_BODY + 1]))


@final
class _Stream:
    """An answer whose body is read as it comes, unless it has been read."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        exchange: Exchange,
        progress: _Progress,
        *,
        body: bytearray | None = None,
        ending: contextlib.AsyncExitStack | None = None,
    ) -> None:
        self.response = _answer(response, body or bytearray())
        names = ("content-length", "transfer-encoding")
        self.is_framed = response.status == 204 or any(name in response.headers for name in names)
        self._source = response if body is None else None
        self._exchange = exchange
        self._progress = progress
        self._ending = ending

    async def read(self) -> bytes:
        if self._source is None:
            return b""
        with _translated(self._exchange, self._progress):
            if self._exchange.deadline.expired:
                raise TimeoutError
            async with asyncio.timeout(self._exchange.seconds()):
                return await self._source.content.readany()

    async def aclose(self) -> None:
        if self._source is not None:
            self._source.close()
        if self._ending is not None:
            await self._ending.aclose()


class _translated(contextlib.AbstractContextManager[None]):  # noqa: N801 - reads as a verb in a with statement
    """Turn aiohttp's exceptions into ours."""

    def __init__(self, exchange: Exchange, progress: _Progress) -> None:
        self._exchange = exchange
        self._progress = progress
        self._handled = sys.exception()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        # The library's frames hold the request in the clear, those of a cancellation too.
        clear_locals(error, handled=self._handled)
        if not isinstance(error, Exception) or isinstance(error, OptimoveError):
            return
        if isinstance(error, aiohttp.ClientResponseError):
            _hold_back(error)
        never_sent = isinstance(error, aiohttp.InvalidURL | aiohttp.ClientConnectorError)
        cause: TransportCause = next((cause for kind, cause in _CAUSES if isinstance(error, kind)), "other")
        raise transport_error(
            self._exchange,
            error,
            request_sent=False if never_sent else self._progress.sent,
            cause=cause,
            # What aiohttp says of a bad answer quotes it.
            safe_to_quote=cause in ("broken", "proxy") and isinstance(error, aiohttp.ClientConnectionError),
            handled=self._handled,
        ) from None


_CAUSES: Final[tuple[tuple[type[BaseException], TransportCause], ...]] = (
    (TimeoutError, "timeout"),
    (aiohttp.InvalidURL, "invalid-request"),
    (aiohttp.ClientProxyConnectionError, "proxy"),
    (aiohttp.ClientHttpProxyError, "proxy"),
    (aiohttp.ClientError, "broken"),
)


def _hold_back(error: aiohttp.ClientResponseError) -> None:
    """Leave out of an error the request's headers, which its repr shows, and the answer, which it quotes."""
    asked = error.request_info
    error.request_info = aiohttp.RequestInfo(asked.url, asked.method, _NO_HEADERS, asked.real_url)
    error.args, error.message = (error.request_info, ()), "the answer breaks the protocol"
    error.__cause__ = error.__context__ = None
