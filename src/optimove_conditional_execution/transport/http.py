"""The wire: one request, one answer. The only module that knows httpx.

Everything above sees `Response`, `TransportError` and `DeadlineExceeded`, so that another HTTP engine can take this
one's place.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final, TypeVar

import httpx

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import (
    ConfigurationError,
    DeadlineExceeded,
    OptimoveError,
    TransportError,
)
from optimove_conditional_execution.messages import Request, Response
from optimove_conditional_execution.transport.exchange import MAX_RESPONSE_BODY, Exchange


class HttpEngine:
    """Sends requests over one httpx client: one connection pool and one TLS context."""

    def __init__(self, http_client: object | None = None) -> None:
        """Open a connection pool, or take somebody else's.

        Raises:
            ConfigurationError: `http_client` is no `httpx.Client`, or the machine's settings for proxies or TLS make no
                sense.
        """
        if http_client is not None and not isinstance(http_client, httpx.Client):
            raise ConfigurationError(
                "http_client must be an httpx.Client; AsyncOptimoveClient takes httpx.AsyncClient."
            )
        self._owned = http_client is None
        self._process = os.getpid()
        self._client = _set_up(httpx.Client) if http_client is None else http_client

    def exchange(self, exchange: Exchange) -> Response:
        """Send a request and return the answer, whatever its status.

        Raises:
            TransportError: No answer came.
            DeadlineExceeded: The deadline passed first.
        """
        if self._process != os.getpid():
            self._after_fork()
        progress = _Progress()
        with _translated(exchange, progress):
            seconds = exchange.seconds()
            end = Deadline.after(seconds)
            _refuse_closed(self._client)
            request = _request(self._client, exchange, seconds, trace=progress.note)
            try:
                response = self._client.send(request, stream=True, follow_redirects=False)
            except httpx.HTTPStatusError as error:
                return _judged(error.response)
            try:
                body = bytearray()
                for chunk in _chunks(response) or response.iter_raw():
                    body += chunk
                    if len(body) > MAX_RESPONSE_BODY:
                        break
                    if end.expired:
                        raise TimeoutError
            finally:
                response.close()
        return _response(response, body)

    def close(self) -> None:
        """Close the connections, unless the httpx client is somebody else's."""
        if self._owned and self._process == os.getpid():
            self._client.close()

    def _after_fork(self) -> None:
        # Two processes on one connection read each other's answers. What was inherited is left to its owner.
        if not self._owned:
            raise ConfigurationError(
                "The http_client was made before a fork: make it, and the client, in each process."
            )
        self._client = _set_up(httpx.Client)
        self._process = os.getpid()


class AsyncHttpEngine:
    """Sends requests over httpx async clients: one TLS context, and a connection pool for each event loop."""

    def __init__(self, http_client: object | None = None) -> None:
        """Prepare a TLS context, or take somebody else's client.

        Raises:
            ConfigurationError: `http_client` is no `httpx.AsyncClient`, or the machine's settings for proxies or TLS
                make no sense.
        """
        if http_client is not None and not isinstance(http_client, httpx.AsyncClient):
            raise ConfigurationError("http_client must be an httpx.AsyncClient; OptimoveClient takes httpx.Client.")
        self._process = os.getpid()
        self._given = http_client
        self._closed = False
        self._lock = threading.Lock()
        # A connection belongs to the event loop that opened it.
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )
        self._new_pool: Callable[[], httpx.AsyncClient] | None = None
        if http_client is None:
            context = _set_up(httpx.create_ssl_context)
            self._new_pool = functools.partial(httpx.AsyncClient, verify=context)
            _set_up(self._new_pool)  # tells now what is wrong with the proxies of the environment

    async def exchange(self, exchange: Exchange) -> Response:
        """Send a request and return the answer, whatever its status; the whole of it ends by the deadline.

        Raises:
            TransportError: No answer came.
            DeadlineExceeded: The deadline passed first.
        """
        client = self._client()
        progress = _Progress()
        with _translated(exchange, progress):
            seconds = exchange.seconds()
            _refuse_closed(client)
            request = _request(client, exchange, seconds, trace=progress.note_async)
            async with asyncio.timeout(seconds):
                try:
                    response = await client.send(request, stream=True, follow_redirects=False)
                except httpx.HTTPStatusError as error:
                    return _judged(error.response)
                try:
                    body = bytearray()
                    read = _chunks(response)
                    if read is not None:
                        body += b"".join(read)
                    else:
                        async for chunk in response.aiter_raw():
                            body += chunk
                            if len(body) > MAX_RESPONSE_BODY:
                                break
                finally:
                    await response.aclose()
        return _response(response, body)

    async def aclose(self) -> None:
        """Close this event loop's connections, unless the httpx client is somebody else's."""
        self._closed = self._given is None
        with self._lock:
            client = self._pools.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _client(self) -> httpx.AsyncClient:
        if self._process != os.getpid():
            # Two processes on one connection read each other's answers. What was inherited is left to its owner.
            if self._given is not None:
                raise ConfigurationError("The http_client was made before a fork: make it, and the client, after it.")
            self._lock = threading.Lock()
            self._pools = weakref.WeakKeyDictionary()
            self._process = os.getpid()
        if self._given is not None:
            return self._given
        if self._closed or self._new_pool is None:
            raise ConfigurationError(_CLOSED)
        loop = asyncio.get_running_loop()
        with self._lock:
            client = self._pools.get(loop)
            if client is None:
                client = self._pools[loop] = self._new_pool()
        return client


_CLOSED: Final = "This client has been closed; make a new one."

P = TypeVar("P")


def _set_up(make: Callable[[], P]) -> P:
    try:
        return make()
    except Exception as error:  # noqa: BLE001 - its message can hold a proxy's password
        raise ConfigurationError(
            f"httpx cannot be set up ({type(error).__name__}): check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE "
            "and SSL_CERT_DIR."
        ) from None


def _refuse_closed(client: httpx.Client | httpx.AsyncClient) -> None:
    if client.is_closed:
        raise ConfigurationError(_CLOSED)


def _judged(response: httpx.Response) -> Response:
    """Return the answer that an event hook has raised for, as `raise_for_status` does; errors are ours to tell."""
    return _response(response, bytearray(response.content if response.is_stream_consumed else b""))


def _chunks(response: httpx.Response) -> list[bytes] | None:
    """Return the body when somebody's event hook has read it already."""
    return [response.content] if response.is_stream_consumed else None


def _request(
    client: httpx.Client | httpx.AsyncClient, exchange: Exchange, seconds: float, *, trace: object
) -> httpx.Request:
    return client.build_request(
        exchange.method,
        exchange.url,
        headers=exchange.headers,
        content=exchange.body,
        timeout=seconds,
        extensions={"trace": trace},
    )


def _response(response: httpx.Response, body: bytearray) -> Response:
    return Response(response.status_code, dict(response.headers.items()), bytes(body[: MAX_RESPONSE_BODY + 1]))


class _Progress:
    """How far a request got, as httpcore's trace events tell it."""

    def __init__(self) -> None:
        self.sent: bool | None = None
        self.seen = False

    def note(self, event: str, _info: dict[str, Any]) -> None:
        if not self.seen:
            self.seen = True
            self.sent = False
        if event.endswith("send_request_headers.started"):
            self.sent = None
        elif event.endswith("send_request_body.complete"):
            self.sent = True

    async def note_async(self, event: str, info: dict[str, Any]) -> None:
        self.note(event, info)


class _translated(contextlib.AbstractContextManager[None]):  # noqa: N801 - reads as a verb in a with statement
    """Turn the engine's exceptions into ours. A class, because a generator would cost a third more per call."""

    def __init__(self, exchange: Exchange, progress: _Progress) -> None:
        self._exchange = exchange
        self._progress = progress

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, OptimoveError):
            return
        sent = _sent(error, self._progress)
        name = type(error).__name__
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            if self._exchange.deadline.remaining() <= _ROUNDING:
                raise DeadlineExceeded(
                    f"No answer from {self._origin()} before the deadline.", request_sent=sent
                ) from None
            text = f"No answer from {self._origin()} within {self._exchange.longest:g} s ({name})."
        elif isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ProxyError):
            text = f"No answer from {self._origin()} ({name}: {error}). Check OPTIMOVE_BASE_URL, or base_url=."
        elif isinstance(error, httpx.LocalProtocolError | httpx.InvalidURL | httpx.UnsupportedProtocol):
            text = f"The request to {self._origin()} could not be sent ({name}): check base_url and the endpoints."
        else:
            # Raised by an event hook, a transport or an event loop of somebody else's; its message can quote anything.
            text = f"No answer from {self._origin()}: {name} was raised while it was asked."
        raise TransportError(text, request_sent=sent) from None

    def _origin(self) -> str:
        scheme, _, rest = self._exchange.url.partition("://")
        return f"{scheme}://{rest.partition('/')[0]}"


_ROUNDING: Final = 0.005
"""Seconds by which a timer may fire early."""

_NEVER_SENT: Final = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
    httpx.LocalProtocolError,
)


def _sent(error: BaseException, progress: _Progress) -> bool | None:
    if isinstance(error, _NEVER_SENT):
        return False
    if progress.seen:
        return progress.sent
    return True if isinstance(error, httpx.ReadError | httpx.ReadTimeout | httpx.RemoteProtocolError) else None


# ---- in the same process, without sockets


def local_client(handle: Callable[[Request], Response]) -> httpx.Client:
    """Return an httpx client whose requests are answered by a function."""
    return httpx.Client(transport=httpx.MockTransport(lambda request: _handled(handle, request)))


def local_async_client(handle: Callable[[Request], Response]) -> httpx.AsyncClient:
    """Return an async httpx client whose requests are answered by a function."""
    return httpx.AsyncClient(transport=httpx.MockTransport(lambda request: _handled(handle, request)))


def _handled(handle: Callable[[Request], Response], request: httpx.Request) -> httpx.Response:
    answer = handle(
        Request(
            request.method,
            request.url.path,
            request.url.query.decode("ascii"),
            list(_pairs(request.headers)),
            request.content,
        )
    )
    return httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body)


def _pairs(headers: httpx.Headers) -> Iterator[tuple[str, str]]:
    yield from headers.multi_items()
