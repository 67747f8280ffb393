"""Every engine, driven in one way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import httpx
import httpx2

from optimove_conditional_execution import AsyncOptimoveClient, OptimoveClient
from optimove_conditional_execution.testing import FaultServer

ENGINES: Final = (
    "sync httpx",
    "sync httpx2",
    "sync aiohttp",
    "sync, an httpx.Client",
    "sync, an httpx2.Client",
    "async httpx",
    "async httpx2",
    "async aiohttp",
    "async, an httpx.AsyncClient",
    "async, an httpx2.AsyncClient",
)

FEW: Final = (
    "sync httpx",
    "sync aiohttp",
    "sync, an httpx2.Client",
    "async httpx2",
    "async aiohttp",
    "async, an httpx.AsyncClient",
)
"""Each library, each kind of client, clients of ours and given ones: for tests that take seconds."""

GIVEN: Final[dict[str, Callable[[], Any]]] = {
    "an httpx.Client": httpx.Client,
    "an httpx2.Client": httpx2.Client,
    "an httpx.AsyncClient": httpx.AsyncClient,
    "an httpx2.AsyncClient": httpx2.AsyncClient,
}

Call = Callable[[Any], Any]
"""What to do with a client: a function that returns a value, or something to await."""


class Caller:
    """Calls a server over one engine."""

    def __init__(self, engine: str) -> None:
        self.is_sync = engine.startswith("sync")
        self._given = engine.partition(", ")[2]
        self._engine = {} if self._given else {"engine": engine.rpartition(" ")[2]}

    def call(self, server: FaultServer, *calls: Call, **options: Any) -> list[Any]:
        """Make calls one after the other on one client; what a call raises stands in the place of its result."""
        if self.is_sync:
            with self._sync(server, options) as client:
                return [_result(call, client) for call in calls]

        async def go() -> list[Any]:
            async with self._async(server, options) as client:
                return [await _awaited(call, client) for call in calls]

        return asyncio.run(go())

    def together(self, server: FaultServer, calls: Sequence[Call], **options: Any) -> list[Any]:
        """Make calls at the same time."""
        if self.is_sync:
            with self._sync(server, options) as client, ThreadPoolExecutor(len(calls)) as pool:
                return list(pool.map(lambda call: _result(call, client), calls))

        async def go() -> list[Any]:
            async with self._async(server, options) as client:
                return await asyncio.gather(*(_awaited(call, client) for call in calls))

        return asyncio.run(go())

    @contextlib.contextmanager
    def _sync(self, server: FaultServer, options: dict[str, Any]) -> Iterator[OptimoveClient]:
        with contextlib.ExitStack() as stack:
            mine = {"http_client": stack.enter_context(GIVEN[self._given]())} if self._given else self._engine
            yield stack.enter_context(server.client(**{**mine, **options}))

    @contextlib.asynccontextmanager
    async def _async(self, server: FaultServer, options: dict[str, Any]) -> AsyncIterator[AsyncOptimoveClient]:
        async with contextlib.AsyncExitStack() as stack:
            mine = self._engine
            if self._given:
                mine = {"http_client": await stack.enter_async_context(GIVEN[self._given]())}
            yield await stack.enter_async_context(server.async_client(**{**mine, **options}))


def _result(call: Call, client: OptimoveClient) -> Any:
    try:
        return call(client)
    except Exception as error:  # noqa: BLE001 - it is the result
        return error


async def _awaited(call: Call, client: AsyncOptimoveClient) -> Any:
    try:
        return await call(client)
    except Exception as error:  # noqa: BLE001 - it is the result
        return error
