"""Server on loopback that fails on purpose, for tests of code that calls Optimove."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Self
from urllib.parse import unquote

from ..client import AsyncOptimoveClient, OptimoveClient
from ..messages import Request, Response
from .fake import FakeOptimove
from .faults import GARBAGE, Connection, Fault, written

Faults = Iterable[Fault | None] | Callable[[Request], Fault | None]
"""The faults of the requests, in order or by a function of the request; None is a good answer."""

_TLS_HANDSHAKE: Final = b"\x16"
_MAX_HEAD: Final = 65_536
_SECONDS_TO_STOP: Final = 5.0


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request, and its fault.

    Attributes:
        method: The HTTP method; "TLS" when a client tried to speak TLS.
        path: The path, without the query.
        fault: The fault's name; None for a good answer.
    """

    method: str
    path: str
    fault: str | None


class FaultServer:
    """A server on 127.0.0.1, in a thread of its own, that fails, or answers as a `FakeOptimove`.

    Each request gets the next fault; when there are none left, `FakeOptimove` answers. Use it in a `with` statement.
    Safe for threads.

    Attributes:
        optimove: Answers the requests without a fault.
        met: Every request so far, with its fault.
        connections: How many connections have been opened.
    """

    def __init__(self, faults: Faults = (), *, optimove: FakeOptimove | None = None) -> None:
        """Lazy: the server starts when the context is entered.

        Args:
            faults: The faults of the requests, in order: `[faults.HANG]`, `[faults.unavailable()] * 3`,
                `itertools.repeat(faults.HANG)`, `itertools.cycle([faults.rate_limited(), None])`. Or a function that
                is given each request (its body is still empty) and returns a fault or None.
            optimove: Answers the others; None for a new one.
        """
        self.optimove = FakeOptimove() if optimove is None else optimove
        self.met: list[ReceivedRequest] = []
        self.connections = 0
        self._choose = _chooser(faults)
        self._lock = threading.Lock()
        self._port = 0
        self._running = threading.Event()
        self._stop: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, name="fault-server", daemon=True)

    @property
    def url(self) -> str:
        """The base URL for a client."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def https_url(self) -> str:
        """The base URL for a client that is to fail at TLS: this server speaks none."""
        return f"https://127.0.0.1:{self._port}"

    def client(self, **options: Any) -> OptimoveClient:
        """Return a client of this server, with the key and the time zone of its `FakeOptimove`.

        Args:
            options: Further arguments of `OptimoveClient`.
        """
        return OptimoveClient(**{**self._settings(), **options})

    def async_client(self, **options: Any) -> AsyncOptimoveClient:
        """Return an async client of this server; see `client`.

        Args:
            options: Further arguments of `AsyncOptimoveClient`.
        """
        return AsyncOptimoveClient(**{**self._settings(), **options})

    def play(self, faults: Faults) -> None:
        """Replace the faults of the next requests; those that were left are dropped.

        Args:
            faults: An iterable of them, `None` for a good answer; or a function of the request.
        """
        with self._lock:
            self._choose = _chooser(faults)

    def close(self) -> None:
        """Reset all connections and end the thread."""
        self._stop()
        self._thread.join(_SECONDS_TO_STOP)

    def __enter__(self) -> Self:
        self._thread.start()
        self._running.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _settings(self) -> dict[str, Any]:
        return {"api_key": self.optimove.api_key, "base_url": self.url, "timezone": self.optimove.timezone}

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop = lambda: loop.is_closed() or loop.call_soon_threadsafe(stopped.set)
        talks: dict[asyncio.Task[None], asyncio.WriteTransport] = {}

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            talk = loop.create_task(self._talk(reader, writer))
            talks[talk] = writer.transport
            talk.add_done_callback(talks.pop)

        server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=_MAX_HEAD)
        self._port = server.sockets[0].getsockname()[1]
        self._running.set()
        await stopped.wait()
        # A talk that is cancelled before it begins closes nothing. The other tasks are asyncio's: a connection that one
        # of them accepts while the server is closed is never closed.
        while pending := asyncio.all_tasks() - {asyncio.current_task()}:
            for talk, transport in talks.items():
                transport.abort()
                talk.cancel()
            await asyncio.wait(pending)
        server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            try:
                while await self._answer(reader, writer):
                    pass
            finally:
                if not writer.transport.is_closing():
                    writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether another may follow."""
        line = Connection(reader, writer)
        first = await reader.readexactly(1)
        if first == _TLS_HANDSHAKE:
            fault = self._meet(Request("TLS"))
            await (fault or GARBAGE).play(line)
            return False
        request, length = _parsed(first + await reader.readuntil(b"\r\n\r\n"))
        fault = self._meet(request)
        if fault is not None and not fault.reads_body:
            await fault.play(line)
            return False
        body = await reader.readexactly(length)
        response = Response(HTTPStatus.OK)
        if fault is None or fault.handled:
            whole = Request(request.method, request.path, request.query, request.headers, body)
            response = self.optimove.handle(whole)
        if fault is not None:
            await fault.play(line)
            return not fault.closes
        await line.send(written(response))
        return True

    def _meet(self, request: Request) -> Fault | None:
        with self._lock:
            fault = self._choose(request)
            self.met.append(ReceivedRequest(request.method, request.path, None if fault is None else fault.name))
            return fault


def _chooser(faults: Faults) -> Callable[[Request], Fault | None]:
    if callable(faults):
        return faults
    each: Iterator[Fault | None] = iter(faults)
    return lambda _: next(each, None)


def _parsed(head: bytes) -> tuple[Request, int]:
    """Return a request without its body, and the body's length."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    path, _, query = target.partition("?")
    pairs = (line.partition(":") for line in lines if line)
    headers = [(name, value.strip()) for name, _, value in pairs]
    request = Request(method, unquote(path), query, headers)
    length = request.header_values("content-length")
    return request, int(length[0]) if length else 0
