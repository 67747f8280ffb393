"""Total deadlines for requests over httpx, and tracking of whether a request was sent.

httpx's timeouts are per read and write, so a server that sends a byte per second can delay a call without limit. Here
every wait gets the time that is left of the whole call, whatever the phase: name resolution, each connection attempt,
TLS, every write and read.

httpx has no public way to reach what opens its connections, and a transport of our own would switch the proxies of the
environment off. So `install_deadlines` puts a network backend between a client and its sockets, in the private
attributes where httpx 0.28 and httpx2 keep it; `remove_deadlines` takes it out again. This is the only module that
touches private attributes of theirs, and `test_the_deadlines_find_their_place` fails when a version moves them.
"""

from __future__ import annotations

import math
import time
from asyncio import CancelledError
from contextvars import ContextVar, Token
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, Final, final

from ...deadline import Deadline
from ...fork import ForkLock
from ..addresses import Addresses

_PIECE: Final = 16_384
"""Bytes per write: about what a writable socket accepts without blocking."""

_ASYNC_PIECE: Final = 65_536

_TO_PROXY: Final = b"CONNECT "


@final
class RequestProgress:
    """The progress of a request, as observed on its connection.

    Attributes:
        heard_since: A kept-alive connection is reused only if data was received on it since this time.
        seen: Whether anything was observed.
        sent: Whether the request was sent; None if that is not known.
    """

    __slots__ = ("_ends", "heard_since", "seen", "sent")

    def __init__(self, heard_since: float = -math.inf) -> None:
        self.heard_since = heard_since
        self.seen = False
        self.sent: bool | None = None
        self._ends: bool | None = True

    def connects(self) -> None:
        """Record that a connection is being opened, or TLS established on it."""
        self.seen = True
        self.sent = False
        self._ends = True

    def writes(self, piece: bytes) -> None:
        """Record that bytes are written: of the request, or of a CONNECT request to a proxy."""
        if not piece:
            return  # the end of a message without a body
        self.seen = True
        is_for_proxy = piece.startswith(_TO_PROXY)
        self.sent = False if is_for_proxy else None
        self._ends = not is_for_proxy

    def breaks(self) -> None:
        """Record that a write failed; the library still reads what the server may have sent before."""
        if self.sent is not False:
            self._ends = None

    def reads(self) -> None:
        """Record that a response is awaited: all bytes have been sent, or no more can be."""
        self.seen = True
        self.sent = self._ends


_NO_CALL: Final = RequestProgress()
_NO_DEADLINE: Final = Deadline.after(math.inf)
_PROGRESS: Final = ContextVar("optimove_conditional_execution_progress", default=_NO_CALL)
_DEADLINE: Final = ContextVar("optimove_conditional_execution_deadline", default=_NO_DEADLINE)


_INSTALLING: Final = ForkLock()


@final
class _Scope:
    """The deadline and progress of this thread or task. A class, as a generator would cost a third more per call."""

    __slots__ = ("_deadline", "_progress", "_tokens")

    def __init__(self, deadline: Deadline, progress: RequestProgress) -> None:
        self._deadline = deadline
        self._progress = progress

    def __enter__(self) -> None:
        self._tokens: tuple[Token[Deadline], Token[RequestProgress]] = (
            _DEADLINE.set(self._deadline),
            _PROGRESS.set(self._progress),
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        deadline, progress = self._tokens
        _DEADLINE.reset(deadline)
        _PROGRESS.reset(progress)


def deadline_scope(deadline: Deadline, progress: RequestProgress) -> _Scope:
    """Return a context manager in which all waits of this thread on connections end at a deadline."""
    return _Scope(deadline, progress)


def track_progress(progress: RequestProgress) -> _Scope:
    """Return a context manager in which connections record the progress of a request. asyncio has its own timeouts."""
    return _Scope(_NO_DEADLINE, progress)


def is_in_call() -> bool:
    """Whether this thread or task is in one of our calls."""
    return _PROGRESS.get() is not _NO_CALL


def install_deadlines(client: object, addresses: Addresses) -> bool:
    """Enforce deadlines on all connections that a client opens; outside of `deadline_scope` nothing changes.

    Args:
        client: A client of httpx or httpx2, sync or async.
        addresses: The resolver of hosts; several clients can share one.

    Returns:
        Whether that holds for all of them: not for those of other kinds of transports.
    """
    complete = True
    with _INSTALLING:
        for pool in _pools(client):
            backend = getattr(pool, "_network_backend", None)
            if backend is None:
                complete = False
                continue
            if not isinstance(backend, _Network | _AsyncNetwork):
                is_async = iscoroutinefunction(backend.connect_tcp)
                backend = _AsyncNetwork(backend, addresses) if is_async else _Network(backend, addresses)
                pool._network_backend = backend
            backend.users += 1
    return complete


def remove_deadlines(client: object) -> None:
    """Undo `install_deadlines`, when it has been called as often as that."""
    with _INSTALLING:
        for pool in _pools(client):
            backend = getattr(pool, "_network_backend", None)
            if isinstance(backend, _Network | _AsyncNetwork):
                backend.users -= 1
                if not backend.users:
                    pool._network_backend = backend.inner


def _pools(client: object) -> list[Any]:
    transports: list[object] = [getattr(client, "_transport", None), *getattr(client, "_mounts", {}).values()]
    return [getattr(transport, "_pool", None) for transport in transports if transport is not None]


def _remaining(timeout: float | None) -> float | None:
    """Return the timeout of the next wait.

    Raises:
        TimeoutError: There is no time left.
    """
    left = _DEADLINE.get().remaining()
    if left <= 0:
        raise TimeoutError
    if left == math.inf:
        return timeout
    return left if timeout is None else min(timeout, left)


@final
class _Network:
    """A network backend for threads: opens connections as httpcore's own does, with the deadline."""

    def __init__(self, inner: Any, addresses: Addresses) -> None:
        self.inner = inner
        self.users = 0
        self._addresses = addresses

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> _Stream:
        _PROGRESS.get().connects()

        def connect(address: str) -> _Stream:
            return _Stream(self.inner.connect_tcp(address, port, timeout=_remaining(timeout), **options))

        if _DEADLINE.get() is _NO_DEADLINE:
            return connect(host)
        return self._addresses.connect(host, port, connect, _remaining)

    def connect_unix_socket(self, path: str, timeout: float | None = None, **options: Any) -> _Stream:
        return _Stream(self.inner.connect_unix_socket(path, timeout=_remaining(timeout), **options))

    def sleep(self, seconds: float) -> None:
        self.inner.sleep(min(seconds, _remaining(seconds) or 0.0))


class _Connection:
    """Base class of the network streams."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._heard = time.monotonic()

    def get_extra_info(self, info: str) -> Any:
        # Before the library reuses a kept-alive connection, it checks whether it is readable: an idle connection that
        # is readable has been closed. So this is the way to say that it must not be reused.
        if info == "is_readable" and self._heard < _PROGRESS.get().heard_since:
            return True
        return self._inner.get_extra_info(info)


@final
class _Stream(_Connection):
    """A network stream with the deadline on every wait."""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        _PROGRESS.get().reads()
        data: bytes = self._inner.read(max_bytes, timeout=_remaining(timeout))
        self._heard = time.monotonic()
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        progress = _PROGRESS.get()
        progress.writes(buffer)
        try:
            for at in range(0, len(buffer), _PIECE):
                self._inner.write(buffer[at : at + _PIECE], timeout=_remaining(timeout))
        except BaseException:
            progress.breaks()
            raise

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> _Stream:
        _PROGRESS.get().connects()
        return _Stream(self._inner.start_tls(ssl_context, server_hostname=server_hostname, timeout=_remaining(timeout)))

    def close(self) -> None:
        self._inner.close()


@final
class _AsyncNetwork:
    """A network backend for asyncio: opens connections as httpcore's own does, and records their progress."""

    def __init__(self, inner: Any, addresses: Addresses) -> None:
        self.inner = inner
        self.users = 0
        self._addresses = addresses

    async def connect_tcp(self, host: str, port: int, **options: Any) -> _AsyncStream:
        async def connect(address: str) -> _AsyncStream:
            return _AsyncStream(await self.inner.connect_tcp(address, port, **options))

        _PROGRESS.get().connects()
        return await (self._addresses.aconnect(host, port, connect) if is_in_call() else connect(host))

    async def connect_unix_socket(self, *given: Any, **options: Any) -> _AsyncStream:
        return _AsyncStream(await self.inner.connect_unix_socket(*given, **options))

    async def sleep(self, seconds: float) -> None:
        await self.inner.sleep(seconds)


@final
class _AsyncStream(_Connection):
    """A network stream that records its progress."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        _PROGRESS.get().reads()
        data: bytes = await self._inner.read(max_bytes, timeout)
        self._heard = time.monotonic()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        progress = _PROGRESS.get()
        progress.writes(buffer)
        try:
            # asyncio raises for a lost connection at the next write, not at this one.
            for at in range(0, len(buffer), _ASYNC_PIECE):
                await self._inner.write(buffer[at : at + _ASYNC_PIECE], timeout)
        except BaseException:
            progress.breaks()
            raise

    async def start_tls(self, *given: Any, **options: Any) -> _AsyncStream:
        _PROGRESS.get().connects()
        try:
            return _AsyncStream(await self._inner.start_tls(*given, **options))
        except CancelledError:  # httpcore and httpcore2 close it only after an Exception
            await self._inner.aclose()
            raise

    async def aclose(self) -> None:
        await self._inner.aclose()
