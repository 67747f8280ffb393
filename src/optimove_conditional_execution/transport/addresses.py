"""Name resolution in threads of the SDK's own, and connecting to addresses as Happy Eyeballs does (RFC 8305).

`getaddrinfo` has no timeout and cannot be cancelled. In the default executor of an event loop, which asyncio uses, a
look-up that hangs delays the end of `asyncio.run`; here it occupies a daemon thread, and nothing else.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import socket
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import FIRST_COMPLETED, Future
from typing import Any, Final, Protocol, TypeVar, final

from ..urls import address_of
from ..worker_pool import DaemonThreadPool

_LOOKUPS_AT_ONCE: Final = 128
_CONNECTS_AT_ONCE: Final = 512
"""An address that swallows packets occupies a thread until its time is up. Each request of a burst, of which there are
`MAX_CONNECTIONS`, must find further threads for the next addresses meanwhile."""

_HEAD_START: Final = 0.25
"""Seconds before the next address is tried concurrently. Source: RFC 8305, section 5."""

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
"""An entry of the result of `socket.getaddrinfo`."""


class _Closable(Protocol):
    def close(self) -> None: ...


class _AsyncClosable(Protocol):
    async def aclose(self) -> None: ...


S = TypeVar("S", bound=_Closable)
A = TypeVar("A", bound=_AsyncClosable)


@final
class Addresses:
    """Resolves hosts, and remembers which address accepted a connection. Thread-safe; one per engine."""

    def __init__(self) -> None:
        self._lookups = DaemonThreadPool(_LOOKUPS_AT_ONCE, on_full="queue", name="optimove-lookup")
        self._connects = DaemonThreadPool(_CONNECTS_AT_ONCE, on_full="queue", name="optimove-connect")
        self._used: dict[str, str] = {}

    def look_up(self, host: str, port: int, family: int = 0) -> Future[list[AddressInfo]]:
        """Start `socket.getaddrinfo` for a host in a daemon thread."""
        return self._lookups.submit(socket.getaddrinfo, (host, port, family, socket.SOCK_STREAM))

    def connect(
        self, host: str, port: int, connect: Callable[[str], S], seconds: Callable[[float | None], float | None]
    ) -> S:
        """Return the first connection that is established to one of a host's addresses, in this thread.

        Args:
            host: A name, or an address.
            port: Its port.
            connect: Connects to an address, in bounded time.
            seconds: Returns the timeout of the next wait, given a maximum in seconds; raises when there is no time.

        Raises:
            TimeoutError: No connection was established in time.
            OSError: The host cannot be resolved; or what `connect` raises.
        """
        if address_of(host):
            return connect(host)
        looking = self.look_up(host, port)
        try:
            waiting = self._in_order(host, looking.result(seconds(None)))
        except concurrent.futures.CancelledError:
            raise TimeoutError from None
        finally:
            looking.cancel()
        if len(waiting) == 1:
            return connect(waiting[0])
        running: dict[Future[S], str] = {}
        try:
            while True:
                if waiting:
                    address = waiting.popleft()
                    running[self._connects.submit(connect, (address,))] = address
                longest = seconds(_HEAD_START if waiting else None)
                done, _ = concurrent.futures.wait(running, longest, FIRST_COMPLETED)
                for future in done:
                    address = running.pop(future)
                    if future.exception() is None or not (running or waiting):
                        connection = future.result()
                        self._used[host] = address
                        return connection
        finally:
            for future in running:
                future.cancel()
                future.add_done_callback(_close)

    async def aconnect(self, host: str, port: int, connect: Callable[[str], Coroutine[Any, Any, A]]) -> A:
        """Return the first connection that is established to one of a host's addresses, in this task; see `connect`."""
        if address_of(host):
            return await connect(host)
        waiting = self._in_order(host, await asyncio.wrap_future(self.look_up(host, port)))
        if len(waiting) == 1:
            return await connect(waiting[0])
        running: dict[asyncio.Task[A], str] = {}
        try:
            while True:
                if waiting:
                    address = waiting.popleft()
                    running[asyncio.create_task(connect(address))] = address
                longest = _HEAD_START if waiting else None
                done, _ = await asyncio.wait(running, timeout=longest, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    address = running.pop(task)
                    if task.exception() is None or not (running or waiting):
                        connection = task.result()
                        self._used[host] = address
                        return connection
        finally:
            for task in running:
                task.cancel()
            for late in await asyncio.gather(*running, return_exceptions=True):
                if not isinstance(late, BaseException):
                    await late.aclose()

    def _in_order(self, host: str, found: list[AddressInfo]) -> deque[str]:
        """Return addresses in the order to try them: the last successful one, then the families alternately."""
        families: dict[int, list[str]] = {}
        for family, *_, address in found:
            families.setdefault(family, []).append(str(address[0]))
        in_turn = itertools.chain.from_iterable(itertools.zip_longest(*families.values()))
        addresses = dict.fromkeys(address for address in in_turn if address is not None)
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "No address is known")
        used = self._used.get(host)
        return deque(sorted(addresses, key=lambda address: address != used))


def _close(future: Future[Any]) -> None:
    """Close a connection that was established too late."""
    if not future.cancelled() and future.exception() is None:
        future.result().close()
