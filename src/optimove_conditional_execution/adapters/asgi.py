"""ASGI: uvicorn, Hypercorn, Starlette, FastAPI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final, Protocol, final

from optimove_conditional_execution.drivers import is_async
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.messages import Request, Response, plain
from optimove_conditional_execution.receivers.tasks import DRAIN_SECONDS
from optimove_conditional_execution.transport.loops import running_loop

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_BODY_SECONDS: Final = 10.0


class AsyncReceiver(Protocol):
    """What can be mounted: `AsyncWebhookReceiver`, or anything else that answers requests."""

    @property
    def max_body(self) -> int:
        """Bytes that a body may have."""
        ...

    def too_large(self) -> Response:
        """Return the answer to a longer body."""
        ...

    async def handle(self, request: Request) -> Response:
        """Answer a request."""
        ...


@final
class ASGIApp:
    """A receiver as an ASGI application.

    With Starlette and FastAPI add it as a route of its own, `Route("/hook", ASGIApp(receiver), methods=["POST"])`;
    their `mount` answers a POST to `/hook` with a redirect.
    """

    def __init__(
        self, receiver: AsyncReceiver, *, body_timeout: float = _BODY_SECONDS, drain_timeout: float = DRAIN_SECONDS
    ) -> None:
        """Wrap a receiver.

        Args:
            receiver: An `AsyncWebhookReceiver`.
            body_timeout: Seconds that a sender has for its body; a slower one gets a 408.
            drain_timeout: Seconds that the end of the server's lifespan waits for deliveries that still run; see
                `AsyncWebhookReceiver.drain`. A framework that mounts this does not tell it of that end: call `drain` in
                the framework's own lifespan.

        Raises:
            ConfigurationError: The receiver is not an async one.
        """
        if not is_async(getattr(receiver, "handle", None)):
            raise ConfigurationError("ASGIApp needs an AsyncWebhookReceiver; WSGIApp takes a WebhookReceiver.")
        self._receiver = receiver
        self._body_timeout = body_timeout
        self._drain_timeout = drain_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send | None = None) -> None:
        """Answer one connection's request.

        Raises:
            ConfigurationError: It was not called by an ASGI server, or not in an event loop of asyncio.
        """
        if send is None:
            raise ConfigurationError("ASGIApp is for ASGI servers such as uvicorn; use WSGIApp under gunicorn.")
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            running_loop("ASGIApp")
            response = await self._answer(scope, receive)
            if response is not None:
                await _send(response, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _answer(self, scope: Scope, receive: Receive) -> Response | None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        limit = self._receiver.max_body
        declared = next((value for name, value in headers if name.lower() == "content-length"), "")
        if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
            return _last(self._receiver.too_large(), scope)
        try:
            async with asyncio.timeout(self._body_timeout):
                body = await _body(receive, limit)
        except TimeoutError:
            return _last(plain(408, "The body did not arrive in time."), scope)
        if body is None:
            return None
        if len(body) > limit:
            return _last(self._receiver.too_large(), scope)
        query = scope.get("query_string", b"").decode("latin-1")
        return await self._receiver.handle(Request(scope["method"], scope["path"], query, headers, body))

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    running_loop("ASGIApp")
                except ConfigurationError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
            elif message["type"] == "lifespan.shutdown":
                drain: Any = getattr(self._receiver, "drain", None)
                if is_async(drain):
                    await drain(within=self._drain_timeout)
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return


async def _body(receive: Receive, limit: int) -> bytes | None:
    """Return the body, or a beginning that is longer than the limit; None when the sender has gone."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return bytes(message.get("body", b""))
    body = bytearray()
    while message["type"] == "http.request":
        body += message.get("body", b"")
        if len(body) > limit or not message.get("more_body", False):
            return bytes(body)
        message = await receive()
    return None


def _last(response: Response, scope: Scope) -> Response:
    """Return a response after which the connection ends, since the rest of the body is not read."""
    if not scope.get("http_version", "1.1").startswith("1"):
        return response  # later versions end a stream, not the connection, and forbid the header
    return Response(response.status, {**response.headers, "connection": "close"}, response.body)


async def _send(response: Response, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
