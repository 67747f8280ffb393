"""A thousand calls that fail in every way leave no thread, no descriptor and no task behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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

CALLS = 1_000
OPTIONS: dict[str, Any] = {"api_key": "fake-api-key", "rate_limit": None, "retry": RetryPolicy(attempts=1)}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server that fails, in another process, since its descriptors are not ours."""
    with fault_process() as where:
        yield where


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def settled(count: Callable[[], int], at_most: int) -> int:
    """Return a count when it has come down, or after two seconds what it is."""
    end = time.monotonic() + 2
    while count() > at_most and time.monotonic() < end:
        time.sleep(0.02)
    return count()


def deadline(seconds: float = 0.03) -> Deadline:
    return Deadline.after(seconds)


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
    assert settled(descriptors, before - 1) <= before


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
