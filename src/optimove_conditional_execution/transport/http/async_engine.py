"""Requests and answers over httpx, for asyncio."""

from __future__ import annotations

import asyncio
from typing import Any, Final, final

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.messages import Response
from optimove_conditional_execution.transport.addresses import Addresses
from optimove_conditional_execution.transport.exchange import MAX_RESPONSE_BODY, AsyncStream, Exchange
from optimove_conditional_execution.transport.http.bounded import Progress, bound, noted
from optimove_conditional_execution.transport.http.library import Library, LibraryName, named, of_client
from optimove_conditional_execution.transport.http.wire import (
    answer,
    build,
    is_framed,
    judged,
    limits,
    proxied,
    read_already,
    refuse_closed,
    set_up,
    translated,
)
from optimove_conditional_execution.transport.loops import LoopPools
from optimove_conditional_execution.transport.places import MAX_CONNECTIONS

_GRACE_SECONDS: Final = 0.015
"""So much longer than the library's own bounds is ours: it closes what it gives up by itself, but not what is cancelled
while TLS is being set up."""


class AsyncHttpEngine:
    """Sends requests over async clients of httpx or httpx2: one TLS context, and a pool for each event loop."""

    def __init__(
        self,
        http_client: object | None = None,
        *,
        library: LibraryName = "httpx",
        max_connections: int = MAX_CONNECTIONS,
        base_url: str | None = None,
    ) -> None:
        """Prepare a TLS context, or take somebody else's client.

        Args:
            http_client: Somebody else's client.
            library: What to make clients of, when none is given.
            max_connections: Requests of an event loop on their way at once; streams are not counted.
            base_url: The server that is asked, whose proxy the environment may name; None for any.

        Raises:
            ConfigurationError: `http_client` is no `httpx.AsyncClient`, the library is not installed, or the machine's
                settings for proxies or TLS make no sense.
        """
        self._library = named(library) if http_client is None else of_client(http_client, "AsyncClient")
        addresses = Addresses()
        if http_client is None:
            through = proxied(base_url)
            module = self._library.module
            context = set_up(module.create_ssl_context)

            def make(connections: int | None) -> Any:
                client = module.AsyncClient(verify=context, limits=limits(module, connections), **through)
                bound(client, addresses)
                return client

            set_up(lambda: make(1))  # tells now what is wrong with the proxies of the environment
        else:
            bound(http_client, addresses)

            def make(connections: int | None) -> Any:
                return http_client

        self._pools: LoopPools[Any] = LoopPools(
            make, _aclose, max_connections=max_connections, is_given=http_client is not None
        )

    async def exchange(self, exchange: Exchange) -> Response:
        """Send a request and return the answer, whatever its status; the whole of it ends by the deadline.

        Raises:
            TransportError: No answer came.
            DeadlineExceeded: The deadline passed first.
        """
        places = self._pools.get().places
        client = await places.take(exchange.deadline)
        try:
            progress = Progress(exchange.heard_since)
            with translated(self._library, exchange, progress), noted(progress):
                seconds = exchange.seconds()
                refuse_closed(client)
                request = build(client, exchange, seconds)
                async with asyncio.timeout(seconds + _GRACE_SECONDS):
                    try:
                        response = await client.send(request, stream=True, follow_redirects=False)
                    except self._library.module.HTTPStatusError as error:
                        return judged(error.response)
                    try:
                        body = await _body(response)
                    finally:
                        await response.aclose()
            return answer(response, body)
        finally:
            places.leave(client)

    async def stream(self, exchange: Exchange, reading_ends: Deadline) -> AsyncStream:
        """Send a request and return the answer's head, with its body still to be read.

        Args:
            exchange: The request; it bounds the wait for the head.
            reading_ends: The end of reading.

        Raises:
            TransportError: No answer came.
            DeadlineExceeded: The deadline passed first.
        """
        client = self._pools.get().streaming
        progress = Progress(exchange.heard_since)
        with translated(self._library, exchange, progress), noted(progress):
            seconds = exchange.seconds()
            refuse_closed(client)
            request = build(client, exchange, seconds, read=exchange.longest)
            async with asyncio.timeout(seconds + _GRACE_SECONDS):
                try:
                    response = await client.send(request, stream=True, follow_redirects=False)
                except self._library.module.HTTPStatusError as error:
                    return _Read(judged(error.response))
                if response.is_success:
                    reading = exchange.reading(reading_ends)
                    return _Stream(self._library, response, reading, progress)
                try:
                    return _Read(answer(response, await _body(response)))
                finally:
                    await response.aclose()

    async def aclose(self) -> None:
        """Close this event loop's connections, unless the httpx client is somebody else's."""
        await self._pools.aclose()


async def _aclose(client: Any) -> None:
    with noted(Progress()):
        await client.aclose()


async def _body(response: Any) -> bytearray:
    body = bytearray()
    read = read_already(response)
    if read is not None:
        body += b"".join(read)
        return body
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_RESPONSE_BODY:
            break
    return body


@final
class _Stream:
    """A 2xx whose body is read as it comes."""

    def __init__(self, library: Library, response: Any, exchange: Exchange, progress: Progress) -> None:
        self.response = answer(response, bytearray())
        self.is_framed = is_framed(response)
        self._source = response
        self._already = read_already(response)
        self._blocks = response.aiter_raw() if self._already is None else None
        self._library = library
        self._exchange = exchange
        self._progress = progress

    async def read(self) -> bytes:
        if self._blocks is None:
            return self._already.pop() if self._already else b""
        with translated(self._library, self._exchange, self._progress):
            if self._exchange.deadline.expired:
                raise TimeoutError
            async with asyncio.timeout(self._exchange.seconds()):
                return await anext(self._blocks, b"")

    async def aclose(self) -> None:
        await self._source.aclose()


@final
class _Read:
    """An answer that has been read to its end."""

    is_framed = True

    def __init__(self, response: Response) -> None:
        self.response = response

    async def read(self) -> bytes:
        return b""

    async def aclose(self) -> None:
        """Nothing is open."""
