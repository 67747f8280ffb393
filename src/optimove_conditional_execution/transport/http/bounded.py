"""One wall-clock bound over everything that a thread does on a connection, and what becomes known there.

httpx bounds each wait for bytes, so a server that sends a byte a second holds a call for as long as it likes. Here
every wait gets the time that is left of the whole call, whatever the phase: looking up the name, each address, TLS,
every piece that is sent or read.
"""

from __future__ import annotations

import math
import time
from contextvars import ContextVar, Token
from inspect import iscoroutinefunction
from types import TracebackType
from typing import Any, Final, final

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.transport.addresses import Addresses

_UNTIL: Final[ContextVar[Deadline | None]] = ContextVar("optimove_conditional_execution_until", default=None)
_PROGRESS: Final[ContextVar[Progress | None]] = ContextVar("optimove_conditional_execution_progress", default=None)

_PIECE: Final = 16_384
"""Bytes written at once: about what a socket that can be written to takes without waiting again."""

_ASYNC_PIECE: Final = 65_536

_TO_PROXY: Final = b"CONNECT "


@final
class Progress:
    """How far a request got, as its connection tells.

    Attributes:
        heard_since: No kept connection is used for it on which the server was not heard since that moment.
        seen: Whether a connection told anything.
        sent: Whether the request was sent; None when nobody knows.
    """

    __slots__ = ("_ends", "heard_since", "seen", "sent")

    def __init__(self, heard_since: float = -math.inf) -> None:
        self.heard_since = heard_since
        self.seen = False
        self.sent: bool | None = None
        self._ends: bool | None = True

    def connects(self) -> None:
        """Take in that a connection is opened, or TLS is set up on it."""
        self.seen = True
        self.sent = False
        self._ends = True

    def writes(self, piece: bytes) -> None:
        """Take in that bytes leave: of the request, or of what asks a proxy for a way to Optimove."""
        if not piece:
            return  # the end of a message without a body
        self.seen = True
        is_for_proxy = piece.startswith(_TO_PROXY)
        self.sent = False if is_for_proxy else None
        self._ends = not is_for_proxy

    def breaks(self) -> None:
        """Take in that bytes did not leave; the library still reads what the server may have said meanwhile."""
        if self.sent is not False:
            self._ends = None

    def reads(self) -> None:
        """Take in that an answer is waited for, which happens when everything has left, or cannot leave any more."""
        self.seen = True
        self.sent = self._ends


@final
class until:  # noqa: N801 - reads as a preposition in a with statement
    """Bound what this thread does on connections of bounded clients. A class, since it is entered for every call."""

    def __init__(self, deadline: Deadline, progress: Progress) -> None:
        self._deadline = deadline
        self._progress = progress
        self._tokens: tuple[Token[Deadline | None], Token[Progress | None]] | None = None

    def __enter__(self) -> None:
        self._tokens = _UNTIL.set(self._deadline), _PROGRESS.set(self._progress)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._tokens is not None:
            _UNTIL.reset(self._tokens[0])
            _PROGRESS.reset(self._tokens[1])


@final
class noted:  # noqa: N801 - reads as a participle in a with statement
    """Note how far this task gets on connections of bounded clients; asyncio has bounds of its own."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._token: Token[Progress | None] | None = None

    def __enter__(self) -> None:
        self._token = _PROGRESS.set(self._progress)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._token is not None:
            _PROGRESS.reset(self._token)


def is_in_call() -> bool:
    """Whether this thread or task is in a call of ours."""
    return _PROGRESS.get() is not None


def bound(client: object, addresses: Addresses | None = None) -> bool:
    """Bound all connections that an httpx client will open; outside of `until` it goes on as before.

    httpx has no public way to reach what opens its connections, so this looks for it where httpx 0.28 and httpx2
    keep it. A test holds that it is there.

    Args:
        client: A client of httpx or httpx2, sync or async.
        addresses: What finds the addresses of hosts; several clients can share one.

    Returns:
        Whether it was found; it is not in a client with transports of another kind.
    """
    addresses = addresses or Addresses()
    transports: list[object] = [getattr(client, "_transport", None), *getattr(client, "_mounts", {}).values()]
    pools: list[Any] = [getattr(transport, "_pool", None) for transport in transports if transport is not None]
    for pool in pools:
        backend = getattr(pool, "_network_backend", None)
        if backend is None:
            return False
        if not isinstance(backend, _Network | _AsyncNetwork):
            is_async = iscoroutinefunction(backend.connect_tcp)
            pool._network_backend = _AsyncNetwork(backend, addresses) if is_async else _Network(backend, addresses)
    return True


def _cut(timeout: float | None) -> float | None:
    """Return how long the next wait may take.

    Raises:
        TimeoutError: There is no time left.
    """
    deadline = _UNTIL.get()
    if deadline is None:
        return timeout
    left = deadline.remaining()
    if left <= 0:
        raise TimeoutError
    if left == math.inf:
        return timeout
    return left if timeout is None else min(timeout, left)


@final
class _Network:
    """Opens connections as httpcore's own backend does, in bounded time."""

    def __init__(self, inner: Any, addresses: Addresses) -> None:
        self._inner = inner
        self._addresses = addresses

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> _Stream:
        if (progress := _PROGRESS.get()) is not None:
            progress.connects()

        def connect(address: str) -> _Stream:
            return _Stream(
                self._inner.connect_tcp(
                    address,
                    port,
                    timeout=_cut(timeout),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            )

        if _UNTIL.get() is None:
            return connect(host)
        return self._addresses.connect(host, port, connect, _cut)

    def connect_unix_socket(self, path: str, timeout: float | None = None, socket_options: Any = None) -> _Stream:
        return _Stream(self._inner.connect_unix_socket(path, timeout=_cut(timeout), socket_options=socket_options))

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(min(seconds, _cut(seconds) or 0.0))


@final
class _Stream:
    """A connection whose every wait is bounded."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._heard = time.monotonic()

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if (progress := _PROGRESS.get()) is not None:
            progress.reads()
        data: bytes = self._inner.read(max_bytes, timeout=_cut(timeout))
        self._heard = time.monotonic()
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        progress = _PROGRESS.get()
        if progress is not None:
            progress.writes(buffer)
        try:
            for at in range(0, len(buffer), _PIECE):
                self._inner.write(buffer[at : at + _PIECE], timeout=_cut(timeout))
        except BaseException:
            if progress is not None:
                progress.breaks()
            raise

    def close(self) -> None:
        self._inner.close()

    def start_tls(self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None) -> _Stream:
        if (progress := _PROGRESS.get()) is not None:
            progress.connects()
        return _Stream(self._inner.start_tls(ssl_context, server_hostname=server_hostname, timeout=_cut(timeout)))

    def get_extra_info(self, info: str) -> Any:
        return _is_given_up(info, self._heard) or self._inner.get_extra_info(info)


def _is_given_up(info: str, heard: float) -> bool:
    """Whether a kept connection shall not be used, when it is asked for that.

    Before the library takes a kept connection, it asks whether it can be read from: one on which nothing is expected
    and something comes is at its end. So this is how to say that it is.
    """
    progress = _PROGRESS.get()
    return info == "is_readable" and progress is not None and heard < progress.heard_since


@final
class _AsyncNetwork:
    """Opens connections as httpcore's own backend does, and notes what happens on them."""

    def __init__(self, inner: Any, addresses: Addresses) -> None:
        self._inner = inner
        self._addresses = addresses

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> _AsyncStream:
        async def connect(address: str) -> _AsyncStream:
            return _AsyncStream(
                await self._inner.connect_tcp(
                    address, port, timeout=timeout, local_address=local_address, socket_options=socket_options
                )
            )

        progress = _PROGRESS.get()
        if progress is None:
            return await connect(host)
        progress.connects()
        return await self._addresses.aconnect(host, port, connect)

    async def connect_unix_socket(self, *given: Any, **options: Any) -> _AsyncStream:
        return _AsyncStream(await self._inner.connect_unix_socket(*given, **options))

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)


@final
class _AsyncStream:
    """A connection that notes what happens on it."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._heard = time.monotonic()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if (progress := _PROGRESS.get()) is not None:
            progress.reads()
        data: bytes = await self._inner.read(max_bytes, timeout)
        self._heard = time.monotonic()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        progress = _PROGRESS.get()
        if progress is not None:
            progress.writes(buffer)
        try:
            # asyncio tells the next write, not this one, that the connection was lost meanwhile.
            for at in range(0, len(buffer), _ASYNC_PIECE):
                await self._inner.write(buffer[at : at + _ASYNC_PIECE], timeout)
        except BaseException:
            if progress is not None:
                progress.breaks()
            raise

    async def start_tls(self, *given: Any, **options: Any) -> _AsyncStream:
        if (progress := _PROGRESS.get()) is not None:
            progress.connects()
        return _AsyncStream(await self._inner.start_tls(*given, **options))

    async def aclose(self) -> None:
        await self._inner.aclose()

    def get_extra_info(self, info: str) -> Any:
        return _is_given_up(info, self._heard) or self._inner.get_extra_info(info)
