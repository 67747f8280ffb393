"""The wire: one request, one answer. The only module that knows httpx.

Everything above sees `Response`, `TransportError` and `DeadlineExceeded`, so that another HTTP engine can take this
one's place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Final

import httpx

from optimove_conditional_execution.errors import ConfigurationError, DeadlineExceeded, TransportError
from optimove_conditional_execution.messages import Request, Response
from optimove_conditional_execution.transport.exchange import MAX_RESPONSE_BODY, Exchange


class HttpEngine:
    """Sends requests over one httpx client: one connection pool and one TLS context."""

    def __init__(self, http_client: object | None = None) -> None:
        if http_client is not None and not isinstance(http_client, httpx.Client):
            raise ConfigurationError(
                "http_client must be an httpx.Client; AsyncOptimoveClient takes httpx.AsyncClient."
            )
        self._owned = http_client is None
        self._client = httpx.Client(follow_redirects=False) if http_client is None else http_client

    def exchange(self, exchange: Exchange) -> Response:
        """Send a request and return the answer, whatever its status.

        Raises:
            TransportError: No answer came.
            DeadlineExceeded: The deadline passed first.
        """
        progress = _Progress()
        with _translated(exchange, progress):
            request = _request(self._client, exchange, trace=progress.note)
            response = self._client.send(request, stream=True, follow_redirects=False)
            try:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > MAX_RESPONSE_BODY:
                        break
                    if exchange.deadline.expired:
                        raise DeadlineExceeded("The answer did not end before the deadline.", request_sent=True)
            finally:
                response.close()
        return _response(response, body)

    def close(self) -> None:
        """Close the connections, unless the httpx client is somebody else's."""
        if self._owned:
            self._client.close()


class AsyncHttpEngine:
    """Sends requests over one httpx async client: one connection pool and one TLS context."""

    def __init__(self, http_client: object | None = None) -> None:
        if http_client is not None and not isinstance(http_client, httpx.AsyncClient):
            raise ConfigurationError("http_client must be an httpx.AsyncClient; OptimoveClient takes httpx.Client.")
        self._owned = http_client is None
        self._client = httpx.AsyncClient(follow_redirects=False) if http_client is None else http_client

    async def exchange(self, exchange: Exchange) -> Response:
        """Send a request and return the answer, whatever its status; the whole of it ends by the deadline.

        Raises:
            TransportError: No answer came.
            DeadlineExceeded: The deadline passed first.
        """
        progress = _Progress()
        with _translated(exchange, progress):
            request = _request(self._client, exchange, trace=progress.note_async)
            async with asyncio.timeout(exchange.seconds()):
                response = await self._client.send(request, stream=True, follow_redirects=False)
                try:
                    body = bytearray()
                    async for chunk in response.aiter_bytes():
                        body += chunk
                        if len(body) > MAX_RESPONSE_BODY:
                            break
                finally:
                    await response.aclose()
        return _response(response, body)

    async def aclose(self) -> None:
        """Close the connections, unless the httpx client is somebody else's."""
        if self._owned:
            await self._client.aclose()


def _request(client: httpx.Client | httpx.AsyncClient, exchange: Exchange, *, trace: object) -> httpx.Request:
    return client.build_request(
        exchange.method,
        exchange.url,
        headers=exchange.headers,
        content=exchange.body,
        timeout=exchange.seconds(),
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
        if error is None or not isinstance(
            error, httpx.HTTPError | httpx.InvalidURL | httpx.StreamError | TimeoutError
        ):
            if isinstance(error, RuntimeError) and "closed" in str(error):
                raise ConfigurationError("This client has been closed; make a new one.") from error
            return
        if isinstance(error, DeadlineExceeded):
            return
        sent = _sent(error, self._progress)
        name = type(error).__name__
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            if self._exchange.deadline.remaining() <= _ROUNDING:
                raise DeadlineExceeded("No answer before the deadline.", request_sent=sent) from None
            text = f"No answer within {self._exchange.longest:g} s ({name})."
        elif isinstance(error, httpx.LocalProtocolError | httpx.InvalidURL | httpx.UnsupportedProtocol):
            # These messages quote the request, and with it the API key.
            text = f"The request could not be sent ({name}): check base_url and the endpoints."
        else:
            text = f"No answer ({name}: {error})."
        raise TransportError(text, request_sent=sent) from None


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
