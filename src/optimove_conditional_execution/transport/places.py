"""Places for requests on their way: a bounded number, in the order of arrival, each with a client of its own.

A pool of httpx looks at all of its connections, and at all requests that wait, whenever a request comes or goes:
with a hundred of each that takes milliseconds. So each client here holds one connection and carries one request at a
time, the queue in front of them is ours, and the client that was used last is used next, while its connection is warm.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar, final

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import DeadlineExceeded

C = TypeVar("C")

KEEPALIVE_SECONDS: Final = 30.0
"""How long a connection without a request is kept; opening one for TLS costs two round trips.

What stands between drops a connection that has been idle, and does not always say so: AWS's load balancers after 60 s,
Oracle's after 65 s, nginx after 75 s, Azure's after 4 minutes, AWS's NAT gateways after 350 s. Half of the shortest of
them is safe. Source: docs.aws.amazon.com/elasticloadbalancing, learn.microsoft.com/azure/load-balancer.
"""

MAX_CONNECTIONS: Final = 64
"""Requests on their way at once, unless told otherwise."""


@final
class Places(Generic[C]):
    """Places for threads."""

    def __init__(self, count: int, make: Callable[[], C]) -> None:
        """Make no client yet.

        Args:
            count: How many places.
            make: Makes the client of a place.
        """
        self._lock = threading.Lock()
        self._make = make
        self._unmade = count
        self._idle: list[C] = []
        self._waiting: deque[_Turn[C]] = deque()
        self._clients: list[C] = []

    def take(self, deadline: Deadline) -> C:
        """Wait for a place, and return its client.

        Raises:
            DeadlineExceeded: There was none before the deadline; nothing was sent.
        """
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._unmade:
                self._unmade -= 1
                return self._made()
            turn: _Turn[C] = _Turn()
            self._waiting.append(turn)
        try:
            turn.came.wait(min(deadline.remaining(), threading.TIMEOUT_MAX))
        except BaseException:
            if (client := self._withdrawn(turn)) is not None:
                self.leave(client)
            raise
        client = self._withdrawn(turn)
        if client is None:
            raise _no_place()
        return client

    def leave(self, client: C) -> None:
        """Give a place to the one who has waited longest."""
        with self._lock:
            if self._waiting:
                turn = self._waiting.popleft()
                turn.client = client
                turn.came.set()
            else:
                self._idle.append(client)

    def clients(self) -> list[C]:
        """Return all clients that were made."""
        with self._lock:
            return list(self._clients)

    def _made(self) -> C:
        try:
            client = self._make()
        except BaseException:
            self._unmade += 1
            raise
        self._clients.append(client)
        return client

    def _withdrawn(self, turn: _Turn[C]) -> C | None:
        with self._lock:
            if turn.client is None:
                self._waiting.remove(turn)
            return turn.client


@final
class _Turn(Generic[C]):
    def __init__(self) -> None:
        self.came = threading.Event()
        self.client: C | None = None


@final
class AsyncPlaces(Generic[C]):
    """Places for the tasks of one event loop."""

    def __init__(self, count: int, make: Callable[[], C]) -> None:
        """Make no client yet; see `Places`."""
        self._make = make
        self._unmade = count
        self._idle: list[C] = []
        self._waiting: deque[asyncio.Future[C]] = deque()
        self._clients: list[C] = []

    async def take(self, deadline: Deadline) -> C:
        """Wait for a place, and return its client; see `Places.take`."""
        if self._idle:
            return self._idle.pop()
        if self._unmade:
            client = self._make()
            self._unmade -= 1
            self._clients.append(client)
            return client
        turn: asyncio.Future[C] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(deadline.remaining()):
                return await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave(turn.result())  # it came in the same moment
            if isinstance(error, TimeoutError):
                raise _no_place() from None
            raise

    def leave(self, client: C) -> None:
        """Give a place to the one who has waited longest."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # else its task has given up
                turn.set_result(client)
                return
        self._idle.append(client)

    def clients(self) -> list[C]:
        """Return all clients that were made."""
        return list(self._clients)


def _no_place() -> DeadlineExceeded:
    return DeadlineExceeded(
        "The deadline passed while other requests of this client were on their way: see max_connections.",
        request_sent=False,
    )
