"""Connection pools with a FIFO wait queue, for threads and for each event loop.

A pool of httpx iterates over all of its connections, and over all queued requests, whenever a request starts or ends:
with a hundred of each that takes milliseconds. So each client of the library has one connection for one request at a
time, the wait queue is our own, and the most recently used client is used next, while its connection is warm.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, final

from ..deadline import Deadline
from ..errors import ConfigurationError, DeadlineExceeded
from ..fork import detect_fork, reset_after_fork
from .engine import CLOSED, FORKED

C = TypeVar("C")
W = TypeVar("W", bound="Future[Any] | asyncio.Future[Any]")

KEEPALIVE_SECONDS: Final = 30.0
"""Seconds that an idle connection is kept alive; a new TLS connection costs two round trips.

Intermediaries drop an idle connection, and do not always close it: AWS's load balancers after 60 s, Oracle's after 65
s, nginx after 75 s, Azure's after 4 minutes, AWS's NAT gateways after 350 s. Half of the shortest of them is safe.
Source: docs.aws.amazon.com/elasticloadbalancing, learn.microsoft.com/azure/load-balancer.
"""

MAX_CONNECTIONS: Final = 100
"""Concurrent requests of a client, unless `max_connections` says otherwise: as many as a receiver decides at a time."""


@final
class ConnectionPool(Generic[C]):
    """A connection pool for all threads, or for the tasks of one event loop."""

    def __init__(self, size: float, make: Callable[[], C]) -> None:
        """Lazy: no client is made until first use.

        Args:
            size: The maximum number of clients; `math.inf` for any number.
            make: Makes a client with one connection.
        """
        self._lock = threading.Lock()
        self._make = make
        self._unmade = size
        self._idle: list[C] = []
        self._waiters: deque[Future[C] | asyncio.Future[C]] = deque()
        self._clients: list[C] = []

    def acquire(self, deadline: Deadline) -> C:
        """Wait for a client in this thread, first in, first out.

        Raises:
            DeadlineExceeded: None was free before the deadline; nothing was sent.
        """
        make: Callable[[], Future[C]] = Future
        waiter = self._take(make)
        if not isinstance(waiter, Future):
            return waiter
        try:
            return waiter.result(min(deadline.remaining(), threading.TIMEOUT_MAX))
        except BaseException as error:
            self._withdraw(waiter)
            if isinstance(error, TimeoutError):
                raise _none_free() from None
            raise

    async def aacquire(self, deadline: Deadline) -> C:
        """Wait for a client in this task; see `acquire`."""
        make: Callable[[], asyncio.Future[C]] = asyncio.Future  # of the running loop
        waiter = self._take(make)
        if not isinstance(waiter, asyncio.Future):
            return waiter
        timer = waiter.get_loop().call_later(deadline.remaining(), _expire, waiter)  # cheaper than `asyncio.timeout`
        try:
            return await waiter
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise
        finally:
            timer.cancel()

    def release(self, client: C) -> None:
        """Pass a client to the caller that has waited longest."""
        with self._lock:
            while self._waiters:
                waiter = self._waiters.popleft()
                if not waiter.done():  # else its task was cancelled
                    waiter.set_result(client)
                    return
            self._idle.append(client)

    def replace(self, client: C) -> None:
        """Pass a new client to the caller that has waited longest, instead of one that may be unusable."""
        with self._lock:
            new = self._make()
            self._clients[self._clients.index(client)] = new
        self.release(new)

    def clients(self) -> list[C]:
        """Return all clients that were made."""
        with self._lock:
            return list(self._clients)

    def _take(self, waiter: Callable[[], W]) -> C | W:
        """Return a client, or a future of one."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._unmade:
                client = self._make()
                self._unmade -= 1
                self._clients.append(client)
                return client
            self._waiters.append(made := waiter())
            return made

    def _withdraw(self, waiter: Future[C] | asyncio.Future[C]) -> None:
        with self._lock:
            became_free = not waiter.cancel() and not waiter.cancelled()
        if became_free and waiter.exception() is None:
            self.release(waiter.result())


def _expire(waiter: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_exception(_none_free())


def _none_free() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The deadline passed while other requests of this client were in flight: see max_connections.",
        request_sent=False,
    )


def running_loop(who: str) -> asyncio.AbstractEventLoop:
    """Return asyncio's running event loop.

    Args:
        who: The name of the caller, for the message.

    Raises:
        ConfigurationError: No event loop of asyncio is running in this thread; it may be another library's, such as
            trio.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            f"{who} needs asyncio, and no event loop of asyncio is running here; trio is not supported. Under "
            'Hypercorn set the worker class to "asyncio" or "uvloop".'
        ) from None


@final
@dataclass(eq=False, frozen=True, slots=True)
class LoopPools(Generic[C]):
    """The pools of one event loop.

    Attributes:
        requests: For requests whose responses are read at once.
        streams: For streams, which may stay open for long; unlimited.
        finalizer: Closes all clients when it is closed.
    """

    requests: ConnectionPool[C]
    streams: ConnectionPool[C]
    finalizer: AsyncGenerator[None, None]


@final
class PoolPerLoop(Generic[C]):
    """Pools per event loop, made at first use. Thread-safe; empty in a forked child.

    Pools end with their loop: `asyncio.run`, servers and test runners call `shutdown_asyncgens` before they close a
    loop, and each loop's pools have an asynchronous generator as a finalizer hooked on that. Otherwise a client that is
    used in several `asyncio.run` calls would keep the connections of all of them.
    """

    def __init__(
        self,
        make: Callable[[], C],
        aclose: Callable[[C], Awaitable[None]],
        *,
        max_connections: int,
        is_given: bool = False,
        is_shared: bool = False,
    ) -> None:
        """Lazy: no pool is made until first use.

        Args:
            make: Makes a client of the library, in the event loop.
            aclose: Closes one, in its event loop.
            max_connections: Concurrent requests per event loop; streams are not counted.
            is_given: Whether `make` always returns the same client, the user's.
            is_shared: Whether all requests of a loop share one client, since the library's own pool is fast.
        """
        self._make = make
        self._aclose = aclose
        self._max_connections = max_connections
        self._is_given = is_given
        self._is_shared = is_shared
        self._closed_because = ""
        self._start()
        reset_after_fork(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._pools: dict[asyncio.AbstractEventLoop, LoopPools[C]] = {}

    def after_fork(self) -> None:
        """Drop the parent's connections: two processes on one would read each other's responses."""
        self._start()
        if self._is_given:
            self._closed_because = FORKED

    @property
    def is_open(self) -> bool:
        """Whether it has not been closed, by `aclose` or a fork."""
        detect_fork()
        return not self._closed_because

    def current(self) -> LoopPools[C]:
        """Return the pools of the running loop.

        Raises:
            ConfigurationError: It has been closed, or a given client was made before a fork.
        """
        detect_fork()
        if self._closed_because:
            raise ConfigurationError(self._closed_because)
        loop = running_loop("AsyncOptimoveClient")
        if (pools := self._pools.get(loop)) is None:
            with self._lock:
                for ended in [other for other in self._pools if other.is_closed()]:
                    del self._pools[ended]  # closed without `shutdown_asyncgens`
                pools = self._pools[loop] = self._made(loop)
        return pools

    async def aclose(self) -> None:
        """Close the running loop's pools; no new ones are made."""
        detect_fork()
        self._closed_because = self._closed_because or CLOSED
        pools = self._pools.get(asyncio.get_running_loop())
        if pools is not None:
            await pools.finalizer.aclose()

    def _made(self, loop: asyncio.AbstractEventLoop) -> LoopPools[C]:
        make = self._make
        if self._is_shared:
            shared = make()

            def make() -> C:
                return shared

        requests, streams = ConnectionPool(self._max_connections, make), ConnectionPool(math.inf, make)
        finalizer = self._finalizer(loop, requests, streams)
        with contextlib.suppress(StopIteration):  # it ends at once: the generator does not await before its `yield`
            finalizer.asend(None).send(None)
        return LoopPools(requests, streams, finalizer)

    async def _finalizer(
        self, loop: asyncio.AbstractEventLoop, *pools: ConnectionPool[C]
    ) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            # A forked child has dropped the loop, and must not close its parent's connections.
            detect_fork()
            if self._pools.pop(loop, None) is not None and not self._is_given:
                for client in {client for pool in pools for client in pool.clients()}:
                    await self._aclose(client)
