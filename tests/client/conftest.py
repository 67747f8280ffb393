"""One test body for both clients: `caller` makes a client whose methods can be called without await."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any

import pytest

from optimove_conditional_execution import AsyncOptimoveClient, OptimoveClient, RetryPolicy

BASE_URL = "https://api5.optimove.test"
KEY = "the-api-key"

QUICK = RetryPolicy(first_pause=0.001, longest_pause=0.002)


class Caller:
    """A client of either colour whose methods return results."""

    def __init__(self, client: OptimoveClient | AsyncOptimoveClient, runner: asyncio.Runner) -> None:
        self.client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            result = method(*arguments, **options)
            if inspect.isasyncgen(result):
                return self._runner.run(_collected(result))
            return self._runner.run(_awaited(result)) if inspect.isawaitable(result) else result

        return call

    def shut(self) -> None:
        if isinstance(self.client, AsyncOptimoveClient):
            self._runner.run(self.client.aclose())
        else:
            self.client.close()


async def _collected(rows: AsyncIterable[Any]) -> list[Any]:
    return [row async for row in rows]


async def _awaited(result: Any) -> Any:
    return await result


Make = Callable[..., Caller]


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(kind: str) -> Iterator[Make]:
    """Make a client; what is not given is quick to retry."""
    callers: list[Caller] = []
    with asyncio.Runner() as runner:

        def made(**options: Any) -> Caller:
            settings = {"api_key": KEY, "base_url": BASE_URL, "retry": QUICK, **options}
            client = OptimoveClient(**settings) if kind == "sync" else AsyncOptimoveClient(**settings)
            callers.append(Caller(client, runner))
            return callers[-1]

        yield made
        for caller in callers:
            caller.shut()


@pytest.fixture
def caller(make: Make) -> Caller:
    return make()
