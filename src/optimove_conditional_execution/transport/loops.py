"""Connections for each event loop: one that another loop has opened cannot be used."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, final

from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.transport.places import AsyncPlaces

C = TypeVar("C")

CLOSED: Final = "This client has been closed; make a new one."


def running_loop(who: str) -> asyncio.AbstractEventLoop:
    """Return asyncio's running event loop.

    Args:
        who: What needs it, for the message.

    Raises:
        ConfigurationError: None runs in this thread: it is another library's, such as trio's.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            f"{who} needs asyncio, and no event loop of asyncio is running here; trio is not supported. Under "
            'Hypercorn set the worker class to "asyncio" or "uvloop".'
        ) from None


@final
@dataclass(frozen=True, slots=True)
class LoopPool(Generic[C]):
    """What one event loop uses.

    Attributes:
        places: For requests, each with a client.
        streaming: The client of streams, which may stay open for long and take no place.
        ending: Closes them all when it is closed.
    """

    places: AsyncPlaces[C]
    streaming: C
    ending: AsyncGenerator[None, None]


@final
class LoopPools(Generic[C]):
    """A pool for each event loop, made when it is first used there. Safe for threads; a fork starts afresh.

    A pool ends with its loop: `asyncio.run`, servers and test runners close what is left of a loop's asynchronous
    generators before they close the loop, and each pool hangs on one. Else a client that is used in one `asyncio.run`
    after the other would keep the connections of all of them.
    """

    def __init__(
        self,
        make: Callable[[int | None], C],
        aclose: Callable[[C], Awaitable[None]],
        *,
        max_connections: int,
        is_given: bool = False,
        is_shared: bool = False,
    ) -> None:
        """Make nothing yet.

        Args:
            make: Makes a client of the library's, in the event loop, for one connection or for any number.
            aclose: Closes one, in its event loop.
            max_connections: Requests of an event loop on their way at once.
            is_given: Whether `make` returns the same client always, which is somebody else's.
            is_shared: Whether all requests of a loop use one client, since the library's own pool is quick.
        """
        self._make = make
        self._aclose = aclose
        self._max_connections = max_connections
        self._is_given = is_given
        self._is_shared = is_given or is_shared
        self._closed = False
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._pools: dict[asyncio.AbstractEventLoop, LoopPool[C]] = {}
        self._process = os.getpid()  # last: whoever sees it sees the rest

    def get(self) -> LoopPool[C]:
        """Return the pool of the running loop.

        Raises:
            ConfigurationError: It has been closed, or a given client was made before a fork.
        """
        if self._process != os.getpid():
            # Two processes on one connection read each other's answers. What was inherited is left to its owner.
            if self._is_given:
                raise ConfigurationError("The http_client was made before a fork: make it, and the client, after it.")
            self._start_afresh()
        if self._closed:
            raise ConfigurationError(CLOSED)
        loop = running_loop("AsyncOptimoveClient")
        with self._lock:
            pool = self._pools.get(loop)
            if pool is None:
                for ended in [other for other in self._pools if other.is_closed()]:
                    del self._pools[ended]  # by somebody who did not let the loop finish
                pool = self._pools[loop] = self._made(loop)
        return pool

    async def aclose(self) -> None:
        """Make no more pools, and close the running loop's."""
        self._closed = not self._is_given
        with self._lock:
            pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.ending.aclose()

    def _made(self, loop: asyncio.AbstractEventLoop) -> LoopPool[C]:
        streaming = self._make(None)
        make = functools.partial(self._make, 1) if not self._is_shared else lambda: streaming
        places = AsyncPlaces(self._max_connections, make)
        ending = self._ending(loop, places, streaming)
        with contextlib.suppress(StopIteration):  # what a coroutine ends with: it does not wait before its `yield`
            ending.asend(None).send(None)
        return LoopPool(places, streaming, ending)

    async def _ending(
        self, loop: asyncio.AbstractEventLoop, places: AsyncPlaces[C], streaming: C
    ) -> AsyncGenerator[None, None]:
        process = os.getpid()
        try:
            yield
        finally:
            if process == os.getpid() and not self._is_given:
                self._pools.pop(loop, None)
                for client in [streaming] if self._is_shared else [streaming, *places.clients()]:
                    await self._aclose(client)
