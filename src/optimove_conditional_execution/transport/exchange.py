"""One request on its way out, and the engines that can carry it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, final

from pydantic import SecretStr

from optimove_conditional_execution.credentials import revealed
from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import DeadlineExceeded
from optimove_conditional_execution.messages import Response

MAX_RESPONSE_BODY: Final = 8 * 1024 * 1024
"""Bytes of an answer that are read; a longer one is cut one byte after."""


@final
@dataclass(frozen=True, slots=True)
class Exchange:
    """A request on its way out.

    Attributes:
        method: The HTTP method.
        url: Absolute, with the query.
        headers: Names and values; the API key is a `SecretStr`, which `plain_headers` reveals.
        body: The bytes, or None.
        deadline: The end of the whole call.
        longest: Seconds that this one try may take.
        first_try: Seconds that it may take as a first try, which leaves time for another; `math.inf` for any number.
        heard_since: A kept connection is used only if the server was heard on it since that moment of
            `time.monotonic`.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str | SecretStr] = field(repr=False)
    body: bytes | None = field(repr=False)
    deadline: Deadline
    longest: float
    first_try: float = math.inf
    heard_since: float = -math.inf

    @property
    def bound(self) -> float:
        """Seconds that the try may take, if the deadline is not before that."""
        return min(self.longest, self.first_try)

    def reading(self, deadline: Deadline) -> Exchange:
        """Return what bounds each wait for the next bytes, once the head of a stream has come."""
        return replace(self, deadline=deadline, first_try=math.inf)

    def plain_headers(self) -> dict[str, str]:
        """Return the headers for an HTTP library, which must be called in the same expression.

        Error trackers record local variables, so the API key must not become one before it is the library's.
        """
        return {name: str(revealed(value)) for name, value in self.headers.items()}

    def seconds(self) -> float:
        """Return how long the try may take from now on.

        Raises:
            DeadlineExceeded: There is no time left; nothing was sent.
        """
        seconds = min(self.bound, self.deadline.remaining())
        if seconds <= 0:
            raise DeadlineExceeded("The deadline had passed before the request was sent.", request_sent=False)
        return seconds


class Stream(Protocol):
    """An answer whose body is still coming.

    Attributes:
        response: The head; the body as well, unless the status is a 2xx.
        is_framed: Whether the head says where the body ends; else the end of the connection does, or a crash.
    """

    response: Response
    is_framed: bool

    def read(self) -> bytes:
        """Return the next bytes, some 64 kB at most; none at the end. A wait for them is bounded as a try is."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...


class AsyncStream(Protocol):
    """An answer whose body is still coming; see `Stream`."""

    response: Response
    is_framed: bool

    async def read(self) -> bytes:
        """Return the next bytes."""
        ...

    async def aclose(self) -> None:
        """Give the connection back."""
        ...


class Engine(Protocol):
    """Carries requests in threads. Whatever it raises is a `TransportError` or a `DeadlineExceeded`."""

    def exchange(self, exchange: Exchange, /) -> Response:
        """Send a request and return the answer, whatever its status."""
        ...

    def stream(self, exchange: Exchange, until: Deadline, /) -> Stream:
        """Send a request and return the answer's head; reading goes on until a deadline of its own."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class AsyncEngine(Protocol):
    """Carries requests in an event loop; see `Engine`."""

    async def exchange(self, exchange: Exchange, /) -> Response:
        """Send a request and return the answer, whatever its status."""
        ...

    async def stream(self, exchange: Exchange, until: Deadline, /) -> AsyncStream:
        """Send a request and return the answer's head; reading goes on until a deadline of its own."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
