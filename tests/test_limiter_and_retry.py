"""The limiter's window and the retry strategy as pure functions of what they are told."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from optimove_conditional_execution import Deadline, DeadlineExceeded, RateLimit
from optimove_conditional_execution.transport.limiter import RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reserve(limiter: RateLimiter, seconds: float = 1e9, clock: Any = time.monotonic) -> float:
    return limiter._reserve(Deadline.after(seconds, clock=clock))[1]


def test_the_window_slides() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(3, per=10.0), clock=clock)
    assert [reserve(limiter, clock=clock) for _ in range(4)] == [0.0, 0.0, 0.0, 10.0]
    clock.now += 4
    assert reserve(limiter, clock=clock) == 6.0
    clock.now += 30
    assert reserve(limiter, clock=clock) == 0.0


def test_no_window_ever_holds_more_than_the_limit() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(5, per=10.0), clock=clock)
    starts = []
    for turn in range(200):
        clock.now += (turn * 7 % 13) / 10
        starts.append(clock.now + reserve(limiter, clock=clock))
    assert starts == sorted(starts)  # first come, first served
    assert all(later - earlier >= 10.0 - 1e-9 for earlier, later in zip(starts, starts[5:], strict=False))


def test_a_turn_after_the_deadline_is_refused_and_costs_nothing() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(1, per=10.0), clock=clock)
    reserve(limiter, clock=clock)
    for _ in range(5):
        with pytest.raises(DeadlineExceeded) as caught:
            limiter.wait(Deadline.after(9.9, clock=clock))
        assert caught.value.request_sent is False
    assert reserve(limiter, clock=clock) == 10.0


def test_a_cancelled_turn_is_given_back() -> None:
    async def main() -> None:
        limiter = RateLimiter(RateLimit(1, per=30.0))
        await limiter.wait_async(Deadline.after(1))
        waiting = asyncio.ensure_future(limiter.wait_async(Deadline.after(60)))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert 29 < reserve(limiter) <= 30

    asyncio.run(main())


def test_threads_share_one_window() -> None:
    limiter = RateLimiter(RateLimit(10, per=0.3))
    ends: list[float] = []
    began = time.monotonic()

    def work() -> None:
        limiter.wait(Deadline.after(60))
        ends.append(time.monotonic() - began)

    threads = [threading.Thread(target=work) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    ends.sort()
    assert ends[10] >= 0.3
    assert ends[20] >= 0.6
