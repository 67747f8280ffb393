"""The engine for asyncio, on httpx or httpx2."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any, Final, final

from ...deadline import Deadline
from ..connection_pool import MAX_CONNECTIONS, PoolPerLoop
from ..engine import AsyncStream, OutgoingRequest
from .httpx_adapter import Clients, HttpxErrors, HttpxStream, LibraryName, build, refuse_closed
from .httpx_deadline import RequestProgress, track_progress

_GRACE_SECONDS: Final = 0.015
"""Seconds by which our timeout exceeds the library's own: it closes connections that time out, but not those that are
cancelled during the TLS handshake."""


@final
class AsyncHttpEngine:
    """Sends requests over async clients of httpx or httpx2: one TLS context, and pools for each event loop."""

    def __init__(
        self,
        http_client: object | None = None,
        *,
        library: LibraryName = "httpx",
        max_connections: int = MAX_CONNECTIONS,
        base_url: str | None = None,
    ) -> None:
        """Prepare a TLS context, or use the user's client.

        Args:
            http_client: The user's client.
            library: The library to make clients with, when none is given.
            max_connections: Concurrent requests per event loop; streams are not counted.
            base_url: The server, for which the environment may name a proxy; None for any.

        Raises:
            ConfigurationError: `http_client` is not an `httpx.AsyncClient`, the library is not installed, or the
                machine's settings for proxies or TLS are invalid.
        """
        self._clients = Clients("AsyncClient", http_client, library, base_url)
        self._pools: PoolPerLoop[Any] = PoolPerLoop(
            self._clients.make, _aclose, max_connections=max_connections, is_given=http_client is not None
        )

    async def open(self, request: OutgoingRequest) -> AsyncStream:
        """Send a request and return the response, its body still to be read.

        Raises:
            TransportError: No response came.
            DeadlineExceeded: The deadline passed first.
            ConfigurationError: The engine is closed.
        """
        pools = self._pools.current()
        pool = pools.requests if request.read_until is None else pools.streams
        client = await pool.aacquire(request.deadline)
        try:
            errors = HttpxErrors(self._clients, request)
            with errors, track_progress(errors.progress):
                seconds = request.timeout()
                end = Deadline.after(seconds + _GRACE_SECONDS)
                refuse_closed(client)
                outgoing = build(client, request, seconds)
                async with asyncio.timeout(seconds + _GRACE_SECONDS):
                    try:
                        response = await client.send(outgoing, stream=True, follow_redirects=False)
                    except self._clients.module.HTTPStatusError as error:
                        response = error.response  # an event hook raised for a status, which `parse_response` handles
                return _HttpStream(response, errors, end, lambda: pool.release(client))
        except BaseException:
            pool.release(client)
            raise

    async def aclose(self) -> None:
        """Close this event loop's connections; the user's client stays open, and is restored."""
        if self._pools.is_open:
            self._clients.restore()
        await self._pools.aclose()


async def _aclose(client: Any) -> None:
    with track_progress(RequestProgress()):
        await client.aclose()


@final
class _HttpStream(HttpxStream):
    async def read(self) -> bytes:
        if self._already is not None:
            return self._already.pop() if self._already else b""
        with self._errors as errors, track_progress(errors.progress):
            async with asyncio.timeout(self._next_wait().remaining()):
                return await anext(self._blocks, b"")

    @functools.cached_property
    def _blocks(self) -> AsyncIterator[bytes]:
        blocks: AsyncIterator[bytes] = self._source.aiter_raw()
        return blocks

    async def aclose(self) -> None:
        if (release := self._take_release()) is not None:
            try:
                with self._errors as errors, track_progress(errors.progress):
                    await self._source.aclose()
            finally:
                self._let_go()
                release()
