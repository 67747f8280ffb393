"""Requests and answers over aiohttp, for those who send thousands a second. The only module that knows aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
import urllib.request
from types import SimpleNamespace, TracebackType
from typing import Any, Final, final
from urllib.parse import urlsplit

import aiohttp
import multidict
import yarl

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import OptimoveError
from optimove_conditional_execution.messages import Response
from optimove_conditional_execution.tracebacks import clear_locals
from optimove_conditional_execution.transport.exchange import MAX_RESPONSE_BODY, AsyncStream, Exchange
from optimove_conditional_execution.transport.failures import no_answer
from optimove_conditional_execution.transport.loops import LoopPools
from optimove_conditional_execution.transport.places import MAX_CONNECTIONS

_KEEPALIVE_SECONDS: Final = 30.0
_NO_HEADERS: Final = multidict.CIMultiDictProxy[str](multidict.CIMultiDict())


class AiohttpEngine:
    """Sends requests over an aiohttp session for each event loop."""

    def __init__(self, *, max_connections: int = MAX_CONNECTIONS) -> None:
        """Open nothing yet.

        Args:
            max_connections: Requests of an event loop on their way at once; streams are not counted.
        """
        # aiohttp's own way to read the environment asks a thread for every request.
        self._proxies = urllib.request.getproxies()
        self._pools = LoopPools(_session, aiohttp.ClientSession.close, max_connections=max_connections, is_shared=True)

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
                    _sent(session, exchange, progress, self._proxy(exchange.url)) as response,
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
        with _translated(exchange, progress):
            async with asyncio.timeout(exchange.seconds()):
                response = await _sent(session, exchange, progress, self._proxy(exchange.url))
                if 200 <= response.status < 300:
                    return _Stream(response, dataclasses.replace(exchange, deadline=reading_ends), progress)
                async with response:
                    return _Stream(response, exchange, progress, body=await _body(response))

    def _proxy(self, url: str) -> str | None:
        parts = urlsplit(url)
        proxy = self._proxies.get(parts.scheme) or self._proxies.get("all")
        return None if proxy is None or urllib.request.proxy_bypass(parts.netloc) else proxy

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


def _session(_connections: int | None) -> aiohttp.ClientSession:
    tracing = aiohttp.TraceConfig()
    tracing.on_request_headers_sent.append(_on_headers)
    tracing.on_request_chunk_sent.append(_on_chunk)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[tracing],
    )


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
        self, response: aiohttp.ClientResponse, exchange: Exchange, progress: _Progress, body: bytearray | None = None
    ) -> None:
        self.response = _answer(response, body or bytearray())
        names = ("content-length", "transfer-encoding")
        self.is_framed = response.status == 204 or any(name in response.headers for name in names)
        self._source = response if body is None else None
        self._exchange = exchange
        self._progress = progress

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
        is_refused = isinstance(error, aiohttp.InvalidURL | aiohttp.ClientConnectorError)
        raise no_answer(
            self._exchange,
            error,
            request_sent=False if is_refused else self._progress.sent,
            is_late=isinstance(error, TimeoutError),
            # What aiohttp says of a bad answer quotes it, and of a bad URL that.
            is_quotable=isinstance(error, aiohttp.ClientConnectionError) and not isinstance(error, aiohttp.InvalidURL),
            is_senseless=isinstance(error, aiohttp.InvalidURL),
        ) from None


def _hold_back(error: aiohttp.ClientResponseError) -> None:
    """Leave out of an error the request's headers, which its repr shows, and the answer, which it quotes."""
    asked = error.request_info
    error.request_info = aiohttp.RequestInfo(asked.url, asked.method, _NO_HEADERS, asked.real_url)
    error.args, error.message = (error.request_info, ()), "the answer breaks the protocol"
    error.__cause__ = error.__context__ = None
