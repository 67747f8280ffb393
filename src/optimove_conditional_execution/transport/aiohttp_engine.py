"""The engine on aiohttp, for thousands of requests per second. A file of its own: the only one that imports aiohttp."""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Final, final

import aiohttp
import aiohttp.abc
import multidict
import yarl

from ..deadline import Deadline
from ..errors import DeadlineExceeded, TransportError
from ..messages import Response
from .addresses import Addresses
from .connection_pool import KEEPALIVE_SECONDS, MAX_CONNECTIONS, PoolPerLoop
from .engine import AsyncStream, BaseStream, Causes, ErrorTranslator, OutgoingRequest, cause_of, transport_error
from .proxies import proxy_for

_NO_HEADERS: Final = multidict.CIMultiDictProxy[str](multidict.CIMultiDict())


class AiohttpEngine:
    """Sends requests over an aiohttp session per event loop."""

    def __init__(self, *, base_url: str, max_connections: int = MAX_CONNECTIONS) -> None:
        """Lazy: nothing is opened until first use.

        Args:
            base_url: The server, for which the environment may name a proxy.
            max_connections: Concurrent requests of an event loop; streams are not counted.

        Raises:
            ConfigurationError: An environment variable is invalid.
        """
        # aiohttp itself reads the environment in a thread for every request.
        self._proxy = proxy_for(base_url, takes_socks=False)
        self._addresses = Addresses()
        self._pools = PoolPerLoop(
            self._session, aiohttp.ClientSession.close, max_connections=max_connections, is_shared=True
        )

    async def open(self, request: OutgoingRequest) -> AsyncStream:
        """Send a request and return the response, its body still to be read.

        Raises:
            TransportError: No response came.
            DeadlineExceeded: The deadline passed first.
            ConfigurationError: The engine is closed.
        """
        pools = self._pools.current()
        pool = pools.requests if request.read_until is None else pools.streams
        shared = await pool.aacquire(request.deadline)
        # A request that must use a new connection gets a session of its own.
        session = shared if request.heard_since == -math.inf else self._session()

        async def release() -> None:
            try:
                if session is not shared:
                    await session.close()
            finally:
                pool.release(shared)

        try:
            errors = _AiohttpErrors(request)
            with errors:
                seconds = request.timeout()
                end = Deadline.after(seconds)
                async with asyncio.timeout(seconds):
                    response = await session.request(
                        request.method,
                        yarl.URL(request.url, encoded=True),
                        headers=request.plain_headers(),
                        data=request.body,
                        allow_redirects=False,
                        proxy=self._proxy,
                        trace_request_ctx=errors,
                    )
            return _AiohttpStream(response, errors, end, release)
        except BaseException:
            await release()
            raise

    def _session(self) -> aiohttp.ClientSession:
        tracing = aiohttp.TraceConfig()
        tracing.on_request_headers_sent.append(_on_headers)
        tracing.on_request_chunk_sent.append(_on_chunk)
        connector = aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=KEEPALIVE_SECONDS,
            resolver=_Resolver(self._addresses),
            # With aiohttp's cache all requests wait for one pending look-up of a host, even if it hangs.
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
class _Resolver(aiohttp.abc.AbstractResolver):
    """Resolves hosts in threads of the SDK's own, once per request."""

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
    context.trace_request_ctx.headers_sent()


async def _on_chunk(_session: object, context: SimpleNamespace, given: aiohttp.TraceRequestChunkSentParams) -> None:
    context.trace_request_ctx.chunk_sent(len(given.chunk))


@final
class _AiohttpStream(BaseStream["_AiohttpErrors"]):
    """A response of aiohttp."""

    def __init__(
        self,
        source: aiohttp.ClientResponse,
        errors: _AiohttpErrors,
        end: Deadline,
        release: Callable[[], Awaitable[None]],
    ) -> None:
        headers = {name.lower(): value for name, value in source.headers.items()}
        super().__init__(Response(source.status, headers), errors, end, release)
        self._source = source

    async def read(self) -> bytes:
        content = self._source.content
        if self._end is not None and content.at_eof() and content.exception() is None:
            return b""  # nothing is waited for, so no timer is needed
        with self._errors:
            async with asyncio.timeout(self._next_wait().remaining()):
                return await content.readany()

    async def aclose(self) -> None:
        if (release := self._take_release()) is not None:
            self._source.close()  # the rest of the body is not read
            await release()


@final
class _AiohttpErrors(ErrorTranslator):
    """Translates aiohttp's exceptions of a request into ours, and follows how much of it was sent."""

    def __init__(self, request: OutgoingRequest) -> None:
        super().__init__(request)
        self._left = len(request.body or b"")
        self._sent: bool | None = False

    def headers_sent(self) -> None:
        self._sent = None if self._left else True

    def chunk_sent(self, size: int) -> None:
        self._left -= size
        if self._left <= 0:
            self._sent = True

    def translate(self, error: Exception, handled: BaseException | None) -> TransportError | DeadlineExceeded:
        if isinstance(error, aiohttp.ClientResponseError):
            _hold_back(error)
        never_sent = isinstance(error, aiohttp.InvalidURL | aiohttp.ClientConnectorError)
        cause = cause_of(error, _CAUSES)
        return transport_error(
            self.request,
            error,
            request_sent=False if never_sent else self._sent,
            cause=cause,
            # aiohttp's message about an invalid response quotes it.
            safe_to_quote=cause in ("broken", "proxy") and isinstance(error, aiohttp.ClientConnectionError),
            handled=handled,
        )


_CAUSES: Final[Causes] = (
    ((TimeoutError,), "timeout"),
    ((aiohttp.InvalidURL,), "invalid-request"),
    ((aiohttp.ClientProxyConnectionError, aiohttp.ClientHttpProxyError), "proxy"),
    ((aiohttp.ClientError,), "broken"),
)


def _hold_back(error: aiohttp.ClientResponseError) -> None:
    """Remove from an error the request's headers, which its repr shows, and the response, which it quotes."""
    asked = error.request_info
    error.request_info = aiohttp.RequestInfo(asked.url, asked.method, _NO_HEADERS, asked.real_url)
    error.args, error.message = (error.request_info, ()), "the answer breaks the protocol"
    error.__cause__ = error.__context__ = None
