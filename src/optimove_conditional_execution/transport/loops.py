"""Connections for each event loop: one that another loop has opened cannot be used."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, final

from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.transport.places import AsyncPlaces

C = TypeVar("C")

CLOSED: Final = "This client has been closed; make a new one."


@final
@dataclass(frozen=True, slots=True)
class LoopPool(Generic[C]):
    """What one event loop uses.

    Attributes:
        places: For requests, each with a client.
        streaming: The client of streams, which may stay open for long and take no place.
    """

    places: AsyncPlaces[C]
    streaming: C


@final
class LoopPools(Generic[C]):
    """A pool for each event loop, made when it is first used there. Safe for threads; a fork starts afresh."""

    def __init__(
        self, make: Callable[[int | None], C], *, max_connections: int, is_given: bool = False, is_shared: bool = False
    ) -> None:
        """Make nothing yet.

        Args:
            make: Makes a client of the library's, in the event loop, for one connection or for any number.
            max_connections: Requests of an event loop on their way at once.
            is_given: Whether `make` returns the same client always, which is somebody else's.
            is_shared: Whether all requests of a loop use one client, since the library's own pool is quick.
        """
        self._make = make
        self._max_connections = max_connections
        self._is_given = is_given
        self._is_shared = is_given or is_shared
        self._closed = False
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopPool[C]] = weakref.WeakKeyDictionary()

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
        loop = asyncio.get_running_loop()
        with self._lock:
            pool = self._pools.get(loop)
            if pool is None:
                streaming = self._make(None)
                make = functools.partial(self._make, 1) if not self._is_shared else lambda: streaming
                pool = self._pools[loop] = LoopPool(AsyncPlaces(self._max_connections, make), streaming)
        return pool

    def close(self) -> list[C]:
        """Make no more pools, and return the clients of the running loop that are to be closed."""
        self._closed = not self._is_given
        with self._lock:
            pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is None or self._is_given:
            return []
        return [pool.streaming] if self._is_shared else [pool.streaming, *pool.places.clients()]
