"""Connection pools with a FIFO wait queue, for threads and for each event loop.

A pool of httpx looks at all of its connections, and at all requests that wait, whenever a request comes or goes:
with a hundred of each that takes milliseconds. So each client of the library holds one connection and carries one
request at a time, the queue in front of them is ours, and the client that was used last is used next, while its
connection is warm.
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
"""How long a connection without a request is kept; opening one for TLS costs two round trips.

What stands between drops a connection that has been idle, and does not always say so: AWS's load balancers after 60 s,
Oracle's after 65 s, nginx after 75 s, Azure's after 4 minutes, AWS's NAT gateways after 350 s. Half of the shortest of
them is safe. Source: docs.aws.amazon.com/elasticloadbalancing, learn.microsoft.com/azure/load-balancer.
"""

MAX_CONNECTIONS: Final = 64
"""Concurrent requests of a client, unless `max_connections` says otherwise."""


@final
class ConnectionPool(Generic[C]):
    """A pool for all threads, or for the tasks of one event loop."""

    def __init__(self, size: float, make: Callable[[], C]) -> None:
        """Make no client until one is needed.

        Args:
            size: How many clients at most; `math.inf` for any number.
            make: Makes a client, which holds one connection.
        """
        self._lock = threading.Lock()
        self._make = make
        self._unmade = size
        self._idle: list[C] = []
        self._waiters: deque[Future[C] | asyncio.Future[C]] = deque()
        self._clients: list[C] = []

    def acquire(self, deadline: Deadline) -> C:
        """Wait in this thread for a client, in the order of arrival.

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
        """Wait in this task for a client; see `acquire`."""
        make: Callable[[], asyncio.Future[C]] = asyncio.get_running_loop().create_future
        waiter = self._take(make)
        if not isinstance(waiter, asyncio.Future):
            return waiter
        try:
            async with asyncio.timeout(deadline.remaining()):
                return await waiter
        except BaseException as error:
            self._withdraw(waiter)
            if isinstance(error, TimeoutError):
                raise _none_free() from None
            raise

    def release(self, client: C) -> None:
        """Give a client to the caller that has waited longest."""
        with self._lock:
            while self._waiters:
                waiter = self._waiters.popleft()
                if not waiter.done():  # else its task was cancelled
                    waiter.set_result(client)
                    return
            self._idle.append(client)

    def clients(self) -> list[C]:
        """Return all clients that were made."""
        with self._lock:
            return list(self._clients)

    def _take(self, waiter: Callable[[], W]) -> C | W:
        """Return a client, or what one will be the result of."""
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
        if became_free:
            self.release(waiter.result())


def _none_free() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The deadline passed while other requests of this client were on their way: see max_connections.",
        request_sent=False,
    )


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
class LoopPools(Generic[C]):
    """What one event loop uses.

    Attributes:
        requests: For requests that are answered in whole.
        streams: For streams, which may stay open for long: any number.
        finalizer: Closes all clients when it is closed.
    """

    requests: ConnectionPool[C]
    streams: ConnectionPool[C]
    finalizer: AsyncGenerator[None, None]


@final
class PoolPerLoop(Generic[C]):
    """Pools for each event loop, made when first used there. Safe for threads; a forked child starts with none.

    Pools end with their loop: `asyncio.run`, servers and test runners close what is left of a loop's asynchronous
    generators before they close the loop, and each loop's pools have such a generator as their finalizer. Else a
    client that is used in one `asyncio.run` after the other would keep the connections of all of them.
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
        """Make no pool until one is needed.

        Args:
            make: Makes a client of the library's, in the event loop.
            aclose: Closes one, in its event loop.
            max_connections: Concurrent requests of an event loop; streams are not counted.
            is_given: Whether `make` returns the same client always, which is the user's.
            is_shared: Whether all requests of a loop use one client, since the library's own pool is quick.
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
        """Leave the connections to the parent: two processes on one would read each other's responses."""
        self._start()
        if self._is_given:
            self._closed_because = FORKED

    @property
    def is_open(self) -> bool:
        """Whether it has been closed by neither `aclose` nor a fork."""
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
        with self._lock:
            pools = self._pools.get(loop)
            if pools is None:
                for ended in [other for other in self._pools if other.is_closed()]:
                    del self._pools[ended]  # closed without shutting its asynchronous generators down
                pools = self._pools[loop] = self._made(loop)
        return pools

    async def aclose(self) -> None:
        """Make no more pools, and close the running loop's."""
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
        with contextlib.suppress(StopIteration):  # what a coroutine ends with: it does not wait before its `yield`
            finalizer.asend(None).send(None)
        return LoopPools(requests, streams, finalizer)

    async def _finalizer(
        self, loop: asyncio.AbstractEventLoop, *pools: ConnectionPool[C]
    ) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            # A forked child does not know the loop any more, and closes nothing of its parent's.
            detect_fork()
            if self._pools.pop(loop, None) is not None and not self._is_given:
                for client in {client for pool in pools for client in pool.clients()}:
                    await self._aclose(client)
