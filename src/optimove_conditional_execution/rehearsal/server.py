"""uvicorn inside a running event loop, on a port that is known before it serves."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, final

try:
    import uvicorn
except ImportError as error:
    from ..installation import install_hint

    raise ImportError(f"A rehearsal needs uvicorn: {install_hint('cli')}", name="uvicorn") from error

from ..adapters.asgi import ASGIApp
from ..errors import ConfigurationError
from ..messages import Request, Response
from ..testing import FakeOptimove

LOOPBACK: Final = "127.0.0.1"

_SHUTDOWN_SECONDS: Final = 1
_LOOK_AGAIN: Final = 0.005


@final
class _Stub:
    """A `FakeOptimove` as `ASGIApp` wants it: with an async `handle`."""

    def __init__(self, fake: FakeOptimove) -> None:
        self.max_body = fake.max_body
        self.too_large = fake.too_large
        self._handle = fake.handle

    async def handle(self, request: Request) -> Response:
        return self._handle(request)


@final
class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program: it has more to clean up than a server."""
        yield


@contextlib.asynccontextmanager
async def served(app: Any, *, host: str = LOOPBACK, port: int = 0) -> AsyncIterator[str]:
    """Serve an ASGI application, or a `FakeOptimove`, in this event loop while the context lasts.

    Args:
        app: The application, or a `FakeOptimove`.
        host: A name or address of this machine.
        port: 0 takes a free one.

    Yields:
        The base URL, without a trailing slash. For an address that means "all of them" it names loopback.

    Raises:
        ConfigurationError: Nothing can listen there.
    """
    listener = _listener(host, port)
    config = uvicorn.Config(
        ASGIApp(_Stub(app)) if isinstance(app, FakeOptimove) else app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(_LOOK_AGAIN)
        if serving.done():
            await serving
            raise ConfigurationError(f"The server on {host} ended while it was starting.")
        yield _url(host, listener)
    finally:
        server.should_exit = True
        await serving
        listener.close()


def _listener(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # asyncio turns Nagle's algorithm off only for sockets that say they are TCP; with it, answers wait for 40 ms.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen()
        except BaseException:
            listener.close()
            raise
        return listener
    except (OSError, OverflowError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise ConfigurationError(f"Cannot listen on {host} port {port}: {reason}.") from None


def _url(host: str, listener: socket.socket) -> str:
    name, port = listener.getsockname()[:2]
    if ipaddress.ip_address(name).is_unspecified:
        host = LOOPBACK if listener.family is socket.AF_INET else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
