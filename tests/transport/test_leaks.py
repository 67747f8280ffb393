"""Hundreds of calls that fail in every way leave no thread, no descriptor and no task behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from optimove_conditional_execution import (
    AsyncOptimoveClient,
    Deadline,
    OptimoveClient,
    OptimoveError,
    RetryPolicy,
    operations,
)
from tests.transport.fault_process import CYCLE, fault_process

CALLS = 400
OPTIONS: dict[str, Any] = {"api_key": "fake-api-key", "rate_limit": None, "retry": RetryPolicy(attempts=1)}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that fails, in another process, since its descriptors are not ours."""
    with fault_process() as where:
        yield where


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def settled(count: Callable[[], int], at_most: int) -> int:
    """Return a count when it has come down, or after half a minute what it is."""
    end = time.monotonic() + 30
    while count() > at_most and time.monotonic() < end:
        time.sleep(0.02)
    return count()


def deadline(seconds: float = 0.03) -> Deadline:
    return Deadline.after(seconds)


@pytest.mark.parametrize("library", [httpx, httpx2])
def test_no_request_waits_for_the_garbage_collector(optimove_url: str, library: ModuleType) -> None:
    """A million statuses are 40 MB of bodies."""
    engine: Any = library.__name__
    client = OptimoveClient(base_url=optimove_url, engine=engine, **OPTIONS)
    async_client = AsyncOptimoveClient(base_url=optimove_url, engine=engine, **OPTIONS)

    async def go() -> None:
        async with async_client:
            await async_client.get_webhooks()

    def known() -> list[Any]:
        return [each for each in gc.get_objects() if type(each) in (library.Request, library.Response)]

    gc.collect()
    gc.disable()
    try:
        before = known()  # what another test has kept
        with client:
            client.get_webhooks()
        asyncio.run(go())
        left = [each for each in known() if not any(each is other for other in before)]
    finally:
        gc.enable()
    assert left == []


@pytest.mark.parametrize(("engine", "calls"), [("httpx", CALLS), ("httpx2", 200)])
def test_in_threads(url: str, engine: Any, calls: int) -> None:
    with OptimoveClient(base_url=url, engine=engine, **OPTIONS) as client:

        def call() -> bool:
            try:
                client.send(operations.get_webhooks(), deadline=deadline())
            except OptimoveError:
                return False
            return True

        for _ in CYCLE:
            call()
        before, threads = descriptors(), threading.active_count()
        succeeded = sum(call() for _ in range(calls))
        assert settled(descriptors, before + 1) <= before + 1
        assert settled(threading.active_count, threads) <= threads
    assert 0 < succeeded < calls / 2
    assert settled(descriptors, before) <= before


@pytest.mark.parametrize(("engine", "calls"), [("httpx", CALLS), ("httpx2", 200), ("aiohttp", 200)])
def test_in_tasks(url: str, engine: Any, calls: int) -> None:
    async def go() -> None:
        async with AsyncOptimoveClient(base_url=url, engine=engine, **OPTIONS) as client:

            async def call(seconds: float = 0.03) -> bool:
                try:
                    await client.send(operations.get_webhooks(), deadline=deadline(seconds))
                except OptimoveError:
                    return False
                return True

            for _ in CYCLE:
                await call()
            before, threads, tasks = descriptors(), threading.active_count(), len(asyncio.all_tasks())
            succeeded = 0
            for left in reversed(range(calls // 10)):
                # The last have time to succeed on a busy machine, too.
                succeeded += sum(await asyncio.gather(*(call(0.03 if left else 2.0) for _ in range(10))))
            await asyncio.sleep(0.1)
            # Ten at a time may keep ten connections open.
            assert descriptors() <= before + 10
            assert threading.active_count() <= threads
            assert len(asyncio.all_tasks()) <= tasks
        assert 0 < succeeded < calls / 2

    outside = descriptors()
    asyncio.run(go())
    assert settled(descriptors, outside) <= outside
