"""ASGI adapter: uvicorn, Hypercorn, Starlette, FastAPI."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Final, final

from ..errors import ConfigurationError
from ..messages import Request, Response, plain
from ..receivers.base import DRAIN_SECONDS, Receiver
from ..receivers.health import AsyncHealth
from ..tracebacks import clear_own_locals
from ..transport.connection_pool import running_loop
from ..validation import is_async

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_BODY_SECONDS: Final = 10.0


@final
class ASGIApp:
    """A receiver as an ASGI application.

    With Starlette and FastAPI add it as a route of its own, `Route("/hook", ASGIApp(receiver), methods=["POST"])`;
    their `mount` answers a POST to `/hook` with a redirect.
    """

    def __init__(
        self,
        receiver: Receiver[Awaitable[Response]],
        *,
        body_timeout: float = _BODY_SECONDS,
        drain_timeout: float = DRAIN_SECONDS,
        health: AsyncHealth | None = None,
    ) -> None:
        """Wrap a receiver.

        Args:
            receiver: An `AsyncWebhookReceiver`.
            body_timeout: Seconds for receiving the body; a slower sender gets a 408. If nothing of it is received, the
                receiver records that, since a middleware may have read the body before.
            drain_timeout: Seconds that the end of the server's lifespan waits for deliveries that still run; see
                `AsyncWebhookReceiver.drain`. A framework that mounts this app does not forward lifespan events: call
                `drain` in the framework's own lifespan.
            health: Answers requests for its two paths; all others go to the receiver.

        Raises:
            ConfigurationError: The receiver is not an async one, or `health` is not an `AsyncHealth`.
        """
        if not is_async(getattr(receiver, "handle", None)):
            raise ConfigurationError("ASGIApp needs an AsyncWebhookReceiver; WSGIApp takes a WebhookReceiver.")
        if health is not None and not isinstance(health, AsyncHealth):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
            raise ConfigurationError("ASGIApp needs an AsyncHealth; WSGIApp takes a Health.")
        self._receiver = receiver
        self._health = health
        self._body_timeout = body_timeout
        self._drain_timeout = drain_timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send | None = None) -> None:
        """Handle a connection scope: answer its request.

        Raises:
            ConfigurationError: It was not called by an ASGI server, or not in an event loop of asyncio.
        """
        try:
            await self._serve(scope, receive, send)
        except BaseException as error:
            # Trackers record local variables, and the scope holds signature and token, the buffer personal data.
            del scope, receive
            clear_own_locals(error)
            raise

    async def _serve(self, scope: Scope, receive: Receive, send: Send | None) -> None:
        if send is None:
            raise ConfigurationError("ASGIApp is for ASGI servers such as uvicorn; use WSGIApp under gunicorn.")
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            running_loop("ASGIApp")
            if self._health is not None and self._health.handles(scope["path"]):
                await _send(await self._health.handle(Request(scope["method"], scope["path"])), send)
            else:
                await self._answer(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        limit = self._receiver.max_body
        declared = next((value for name, value in headers if name.lower() == "content-length"), "")
        if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
            await _send(_last(self._receiver.too_large(), scope), send)
            return
        body = bytearray()
        ended, gone = False, False
        try:
            async with asyncio.timeout(self._body_timeout):
                ended = await _read(receive, body, limit)
                gone = not ended
        except TimeoutError:
            pass
        if len(body) > limit:
            response = _last(self._receiver.too_large(), scope)
        elif ended or (not body and _has_body(headers)):
            # Nothing of an announced body was received: a middleware may have read it, and the receiver records that.
            query = scope.get("query_string", b"").decode("latin-1")
            response = await self._receiver.handle(Request(scope["method"], scope["path"], query, headers, bytes(body)))
            if not ended:
                response = _last(response, scope)
        else:
            response = _last(plain(408, "The body did not arrive in time."), scope)
        # A disconnected client reads no response. But middleware such as Starlette's BaseHTTPMiddleware fails without
        # one.
        try:
            await _send(response, send)
        except OSError:
            if not gone:
                raise

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


async def _read(receive: Receive, body: bytearray, limit: int) -> bool:
    """Read a body, at most until it exceeds the limit; return whether it is complete."""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return False  # the client has disconnected
        body += message.get("body", b"")
        if len(body) > limit or not message.get("more_body", False):
            return True


def _has_body(headers: Iterable[tuple[str, str]]) -> bool:
    """Whether a request announces a body."""
    return any(
        name.lower() == "transfer-encoding" or (name.lower() == "content-length" and value.strip("0 "))
        for name, value in headers
    )


def _last(response: Response, scope: Scope) -> Response:
    """Return a response with `Connection: close`, since the rest of the body is not read."""
    if not scope.get("http_version", "1.1").startswith("1"):
        return response  # HTTP/2 and later reset a stream, not the connection, and forbid the header
    return Response(response.status, {**response.headers, "connection": "close"}, response.body)


async def _send(response: Response, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})
