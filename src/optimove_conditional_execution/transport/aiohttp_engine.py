"""The engines on aiohttp, for thousands of requests per second: the only importer of aiohttp."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import math
import socket
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, Final, TypeVar, final

import aiohttp
import aiohttp.abc
import multidict
import yarl

from ..deadline import Deadline
from ..errors import ConfigurationError, DeadlineExceeded, TransportError
from ..fork import detect_fork, reset_after_fork
from ..messages import Response
from ..worker_pool import threads_are_greenlets
from .addresses import Addresses
from .connection_pool import KEEPALIVE_SECONDS, MAX_CONNECTIONS, PoolPerLoop
from .engine import (
    CLOSED,
    MAX_RESPONSE_BODY,
    BaseStream,
    Causes,
    Engine,
    ErrorTranslator,
    OutgoingRequest,
    Stream,
    cause_of,
    transport_error,
)
from .proxies import proxy_for

T = TypeVar("T")

_NO_HEADERS: Final = multidict.CIMultiDictProxy[str](multidict.CIMultiDict())


class AiohttpEngine(Engine):
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
            lambda: _Sessions(self._addresses), _Sessions.aclose, max_connections=max_connections, is_shared=True
        )

    async def send(self, request: OutgoingRequest) -> Response:
        """Send a request; see `Engine.send`. Head and body share one timer and one translator of errors."""
        sessions, release = await self._acquire(request)
        try:
            with _AiohttpErrors(request) as errors:
                async with asyncio.timeout(request.timeout()):
                    return await sessions.exchange(request, errors, self._proxy)
        finally:
            await release()

    async def open(self, request: OutgoingRequest) -> Stream:
        """Send a request; see `Engine.open`."""
        sessions, release = await self._acquire(request)
        try:
            with _AiohttpErrors(request) as errors:
                seconds = request.timeout()
                end = Deadline.after(seconds)
                async with asyncio.timeout(seconds):
                    response = await sessions.request(request, errors, self._proxy)
            return _AiohttpStream(response, errors, end, release)
        except BaseException:
            await release()
            raise

    async def _acquire(self, request: OutgoingRequest) -> tuple[_Sessions, Callable[[], Awaitable[None]]]:
        """Wait until a request may be sent, and return what sends it and what gives that back."""
        pools = self._pools.current()
        pool = pools.requests if request.read_until is None else pools.streams
        shared = await pool.aacquire(request.deadline)
        # A request that must use a new connection gets one of its own.
        sessions = shared if request.heard_since == -math.inf else _Sessions(self._addresses)

        async def release() -> None:
            try:
                if sessions is not shared:
                    await sessions.aclose()
            finally:
                pool.release(shared)

        return sessions, release

    async def aclose(self) -> None:
        """Close this event loop's connections."""
        await self._pools.aclose()


@final
class _Sessions:
    """Two sessions over one connector.

    aiohttp's tracing tells how much of a request was sent, and when it is sent again. It costs a tenth of a call, so a
    POST, which aiohttp never sends again, is not traced: its body tells that it is sent.
    """

    def __init__(self, addresses: Addresses) -> None:
        tracing = aiohttp.TraceConfig()
        tracing.on_connection_create_start.append(_on_connecting)
        tracing.on_request_headers_sent.append(_on_headers)
        self._connector = aiohttp.TCPConnector(
            limit=0,
            keepalive_timeout=KEEPALIVE_SECONDS,
            resolver=_Resolver(addresses),
            # With aiohttp's cache all requests wait for one pending look-up of a host, even if it hangs.
            use_dns_cache=False,
        )
        self._plain, self._traced = (
            aiohttp.ClientSession(
                connector=self._connector,
                connector_owner=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trace_configs=traces,
            )
            for traces in (None, [tracing])
        )

    def request(
        self, request: OutgoingRequest, errors: _AiohttpErrors, proxy: str | None
    ) -> Awaitable[aiohttp.ClientResponse]:
        session = self._plain if request.method == "POST" else self._traced
        return session.request(
            request.method,
            yarl.URL(request.url, encoded=True),
            headers=request.headers.get_secret_value(),
            data=None if request.body is None else _Body(request.body, errors),
            allow_redirects=False,
            proxy=proxy,
            trace_request_ctx=errors,
        )

    async def exchange(self, request: OutgoingRequest, errors: _AiohttpErrors, proxy: str | None) -> Response:
        """Return a response with its body, cut one byte after `MAX_RESPONSE_BODY`.

        When an error is translated this frame has ended, and its local variables are cleared.
        """
        source = await self.request(request, errors, proxy)
        try:
            body = bytearray()
            while len(body) <= MAX_RESPONSE_BODY and (block := await source.content.readany()):
                body += block
            return Response(source.status, _headers(source), bytes(body[: MAX_RESPONSE_BODY + 1]))
        finally:
            source.close()  # of a longer body the rest is not read

    async def aclose(self) -> None:
        await self._plain.close()
        await self._traced.close()
        await self._connector.close()


@final
class _Body(aiohttp.BytesPayload):
    """A body that records that it is sent."""

    def __init__(self, body: bytes, errors: _AiohttpErrors) -> None:
        super().__init__(body)
        self._sending = errors

    async def write(self, writer: aiohttp.abc.AbstractStreamWriter) -> None:
        """Write the body, for aiohttp before 3.12."""
        self._sending.begin()
        await super().write(writer)
        self._sending.sent = True

    async def write_with_length(self, writer: aiohttp.abc.AbstractStreamWriter, content_length: int | None) -> None:
        """Write the body."""
        self._sending.begin()
        await super().write_with_length(writer, content_length)
        self._sending.sent = True


async def _on_connecting(_session: object, context: SimpleNamespace, _given: object) -> None:
    context.trace_request_ctx.check_not_sent()


async def _on_headers(_session: object, context: SimpleNamespace, _given: object) -> None:
    errors: _AiohttpErrors = context.trace_request_ctx
    errors.check_not_sent()
    if errors.request.body is None:
        errors.sent = True


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


def _headers(source: aiohttp.ClientResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in source.headers.items()}


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
        super().__init__(Response(source.status, _headers(source)), errors, end, release)
        self._source = source

    async def read(self) -> bytes:
        with self._errors:
            async with asyncio.timeout(self._next_wait().remaining()):
                return await self._source.content.readany()

    async def aclose(self) -> None:
        if (release := self._take_release()) is not None:
            self._source.close()  # the rest of the body is not read
            await release()


@final
class _AiohttpErrors(ErrorTranslator):
    """Translates aiohttp's exceptions of a request into ours, and follows how much of it was sent."""

    sent: bool | None = False

    def check_not_sent(self) -> None:
        """Refuse to send the request again.

        Raises:
            ServerDisconnectedError: It was sent before. aiohttp sends a GET, a PUT or a DELETE a second time when the
                connection is lost, of which the call would learn nothing.
        """
        if self.sent is not False:
            raise aiohttp.ServerDisconnectedError

    def begin(self) -> None:
        """Record that the request is being sent, which it must not have been before."""
        self.check_not_sent()
        self.sent = None

    def translate(self, error: Exception, handled: BaseException | None) -> TransportError | DeadlineExceeded:
        if isinstance(error, aiohttp.ClientResponseError):
            _hold_back(error)
        cause = cause_of(error, _CAUSES)
        return transport_error(
            self.request,
            error,
            request_sent=self.sent,
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


# ---- for threads

_INHERITED: Final[list[object]] = []
"""The parent's event loops: if they were collected, asyncio would close what a child shares with its parent."""

_CLOSING_SECONDS: Final = 5.0
"""Seconds that `close` waits for the connections to close."""


@final
class LoopThreadEngine(Engine):
    """Sends requests from threads over an engine for asyncio, in an event loop in a daemon thread.

    A forked child has its own thread and connections.
    """

    def __init__(self, engine: Engine) -> None:
        """Lazy: the thread is started at first use.

        Args:
            engine: The engine; only this object uses it.

        Raises:
            ConfigurationError: gevent has replaced threads by greenlets, and an event loop would block all of them.
        """
        if threads_are_greenlets():
            raise ConfigurationError('engine="aiohttp" needs threads, which gevent has replaced: take engine="httpx".')
        self._engine = engine
        self._is_closed = False
        self._start()
        reset_after_fork(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: weakref.finalize[..., LoopThreadEngine] | None = None
        self._streams: set[Stream] = set()  # that are open

    def after_fork(self) -> None:
        """Drop the parent's thread, which a child does not have."""
        _INHERITED.extend((self._loop, self._streams))
        if self._stop is not None:
            self._stop.detach()
        self._start()

    async def send(self, request: OutgoingRequest) -> Response:
        """Send a request; see `Engine.send`."""
        return self._run(self._engine.send(request))  # one switch between threads, rather than one per read

    async def open(self, request: OutgoingRequest) -> Stream:
        """Send a request; see `Engine.open`."""
        return self._run(self._open_in_loop(request))

    async def _open_in_loop(self, request: OutgoingRequest) -> Stream:
        source = await self._engine.open(request)
        self._streams.add(source)
        return _StreamInLoop(source, self._run, self._streams.discard)

    async def aclose(self) -> None:
        """Close the connections, and end the thread."""
        detect_fork()
        with self._lock:
            self._is_closed = True
        if self._thread is not None and self._stop is not None:
            self._stop()
            self._thread.join(_CLOSING_SECONDS)

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        detect_fork()
        with self._lock:  # so that nothing is submitted to a loop that is ending
            if self._is_closed:
                coroutine.close()
                raise ConfigurationError(CLOSED)
            future = asyncio.run_coroutine_threadsafe(coroutine, self._running_loop())
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            closed = ConfigurationError(CLOSED)
            closed.request_sent = None  # the request was in flight
            raise closed from None
        except BaseException:
            future.cancel()  # when this thread was interrupted
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            started: Future[tuple[asyncio.AbstractEventLoop, Callable[[], object]]] = Future()
            arguments = (self._engine, self._streams, started)
            self._thread = threading.Thread(target=_serve, args=arguments, name="optimove-aiohttp", daemon=True)
            self._thread.start()
            self._loop, stop = started.result()
            self._stop = weakref.finalize(self, stop)  # also an engine that nobody closes ends its thread
        return self._loop


def _serve(
    engine: Engine,
    streams: set[Stream],
    started: Future[tuple[asyncio.AbstractEventLoop, Callable[[], object]]],
) -> None:
    async def serve() -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stopped.set)

        started.set_result((loop, stop))
        await stopped.wait()
        # Their readers cannot close them any more, and one can have a connection that the engine does not share.
        for stream in tuple(streams):
            await stream.aclose()
        await engine.aclose()

    asyncio.run(serve())


@final
class _StreamInLoop:
    """A response that is read in the event loop."""

    def __init__(
        self,
        source: Stream,
        run: Callable[[Coroutine[Any, Any, Any]], Any],
        on_close: Callable[[Stream], object],
    ) -> None:
        self.response = source.response
        self.is_framed = source.is_framed
        self._source = source
        self._run = run
        self._on_close = on_close

    async def read(self) -> bytes:
        block: bytes = self._run(self._source.read())
        return block

    async def aclose(self) -> None:
        with contextlib.suppress(ConfigurationError):  # the engine is closed, and this stream with it
            self._run(self._source.aclose())
        self._on_close(self._source)
