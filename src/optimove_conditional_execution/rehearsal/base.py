"""What all rehearsals share: servers in the event loop, and the service that is started, or waited for."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

try:
    import uvicorn
except ImportError as error:
    from ..installation import install_hint

    raise ImportError(f"A rehearsal needs uvicorn: {install_hint('cli')}", name="uvicorn") from error

from ..adapters.asgi import ASGIApp
from ..defaults import LOOPBACK, START_SECONDS
from ..errors import ConfigurationError
from ..messages import Request, Response
from ..settings import API_KEY_VARIABLE, BASE_URL_VARIABLE
from ..testing import FakeOptimove
from ..transport.http import AsyncHttpEngine
from .result import Finding, ScheduledResult, TriggeredResult
from .service import Service, started

R = TypeVar("R", TriggeredResult, ScheduledResult)

_CONNECTIONS: Final = 256
_AWAIT: Final = "write await before its call; until then a condition takes it for true, whatever it would return"

_SHUTDOWN_SECONDS: Final = 1
_LOOK_AGAIN: Final = 0.005


class _Stub:
    """A `FakeOptimove` as `ASGIApp` wants it: with an async `handle`."""

    def __init__(self, fake: FakeOptimove) -> None:
        self.max_body = fake.max_body
        self.too_large = fake.too_large
        self._handle = fake.handle

    async def handle(self, request: Request) -> Response:
        return self._handle(request)


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


@contextlib.asynccontextmanager
async def simulated(
    fake: FakeOptimove, variables: Mapping[str, str], *, host: str = LOOPBACK, port: int = 0
) -> AsyncIterator[tuple[AsyncHttpEngine, dict[str, str]]]:
    """Serve a simulator; yield what posts its notifications and events, and the variables that a service needs."""
    async with (
        served(fake, host=host, port=port) as base_url,
        contextlib.aclosing(AsyncHttpEngine(max_connections=_CONNECTIONS)) as engine,
    ):
        yield engine, {BASE_URL_VARIABLE: base_url, API_KEY_VARIABLE: fake.api_key, **variables}


@dataclass(kw_only=True)
class Rehearsal(ABC, Generic[R]):
    """A rehearsal of a service; made once, run once.

    Attributes:
        command: The command line that starts the service, with the settings it needs in its environment; it is stopped
            at the end. Empty for one that runs already, or is started separately.
        api_key: The key that the service has; None makes one.
        host: Where the simulator listens.
        port: Its port; 0 takes a free one.
        start_within: Seconds that the service may take to listen.
        on_ready: Called with the environment variables that the service needs, before it is waited for.
        on_note: Called with a sentence for the user.
        is_sample: Whether the service is the sample service of the demo.
    """

    command: Sequence[str] = ()
    api_key: str | None = field(default=None, repr=False)
    host: str = LOOPBACK
    port: int = 0
    start_within: float = START_SECONDS
    on_ready: Callable[[Mapping[str, str]], object] = lambda _: None
    on_note: Callable[[str], object] = lambda _: None
    is_sample: bool = False

    _fake: FakeOptimove = field(init=False, repr=False)
    _variables: dict[str, str] = field(init=False, repr=False)  # for the service, beside those of every rehearsal
    _target: str | None = field(init=False, repr=False)  # the URL, if it is known
    _what: str = field(init=False, repr=False)  # what the service must do, as in "to listen"
    _service: Service | None = field(init=False, repr=False, default=None)
    _further: list[Finding] = field(init=False, repr=False, default_factory=list)

    def run(self) -> R:
        """Rehearse, in an event loop of its own.

        Raises:
            ConfigurationError: The simulator cannot listen, or the service could not be started.
        """
        return asyncio.run(self.arun())

    async def arun(self) -> R:
        """Rehearse; when it is cancelled, `result` has the results so far.

        Raises:
            ConfigurationError: The simulator cannot listen, or the service could not be started.
        """
        async with contextlib.AsyncExitStack() as stack:
            simulator = simulated(self._fake, self._variables, host=self.host, port=self.port)
            engine, environment = await stack.enter_async_context(simulator)
            self.on_ready(environment)
            if self.command:
                service = self._service = await stack.enter_async_context(
                    started(self.command, environment, url=self._target, is_sample=self.is_sample)
                )
                url = await service.until(self._listening(), within=self.start_within, what=self._what)
                await self._play(url, engine)
                if service.ended:
                    self._further.append(Finding(service.ended))
                    self.on_note(f"{service.ended}.")
            elif (found := await self._found()) is not None:
                await self._play(found, engine)
        return self.result()

    @property
    def never_awaited(self) -> tuple[str, ...]:
        """Names of coroutines that a service which was started here did not await, as Python has warned so far."""
        return () if self._service is None else tuple(self._service.never_awaited)

    def _further_findings(self) -> list[Finding]:
        return [
            *self._further,
            *(Finding(f"The coroutine {name} was never awaited", _AWAIT) for name in self.never_awaited),
        ]

    @abstractmethod
    def result(self) -> R:
        """Return the result so far."""

    @abstractmethod
    async def _listening(self) -> str:
        """Wait until the service listens, and return its URL."""

    @abstractmethod
    async def _found(self) -> str | None:
        """Wait for a service that is started separately, and return its URL; None when it did not start."""

    @abstractmethod
    async def _play(self, url: str, engine: AsyncHttpEngine) -> None: ...
