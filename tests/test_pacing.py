"""What a client does after a long Retry-After: it comes back in time, with one request first."""

from __future__ import annotations

import asyncio

import pytest

from optimove_conditional_execution import Deadline, DeadlineExceeded
from optimove_conditional_execution.transport.rate_limit import AdaptiveThrottle
from optimove_conditional_execution.transport.waiting import TaskAlarm, ThreadAlarm, run_blocking
from tests.test_limiter_and_retry import Clock


def test_nobody_is_let_through_before_the_bound() -> None:
    clock = Clock()
    throttle = AdaptiveThrottle(max_retry_after=60.0, clock=clock)
    throttle.on_rate_limited(clock.now, 3_600.0)
    clock.now += 59
    with pytest.raises(DeadlineExceeded):
        run_blocking(throttle.acquire(Deadline.after(0.9, clock=clock), ThreadAlarm))
    clock.now += 1.1
    assert run_blocking(throttle.acquire(Deadline.after(2, clock=clock), ThreadAlarm)) == clock.now


def test_a_shorter_one_is_waited_for_in_whole() -> None:
    clock = Clock()
    throttle = AdaptiveThrottle(max_retry_after=60.0, clock=clock)
    throttle.on_rate_limited(clock.now, 45.0)
    clock.now += 44
    with pytest.raises(DeadlineExceeded):
        run_blocking(throttle.acquire(Deadline.after(0.9, clock=clock), ThreadAlarm))


def test_one_request_goes_first_and_the_others_wait_for_its_answer() -> None:
    async def main() -> None:
        throttle = AdaptiveThrottle(max_retry_after=0.2)
        throttle.on_rate_limited(throttle._clock(), 3_600.0)
        waiting = [asyncio.ensure_future(throttle.acquire(Deadline.after(600), TaskAlarm)) for _ in range(20)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(0.3)
        assert sum(each.done() for each in waiting) == 1
        throttle.on_success()
        await asyncio.wait_for(asyncio.gather(*waiting), 20)

    asyncio.run(main())


def test_when_the_first_is_turned_away_again_the_others_are_not_sent() -> None:
    async def main() -> None:
        throttle = AdaptiveThrottle(max_retry_after=0.2)
        throttle.on_rate_limited(throttle._clock(), 3_600.0)
        waiting = {asyncio.ensure_future(throttle.acquire(Deadline.after(600), TaskAlarm)) for _ in range(20)}
        for _ in range(3):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            throttle.on_rate_limited(done.pop().result(), 3_600.0)
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(main())


def test_who_has_little_time_does_not_wait_for_the_first() -> None:
    clock = Clock()
    throttle = AdaptiveThrottle(max_retry_after=60.0, clock=clock)
    throttle.on_unavailable(3_600.0)
    clock.now += 61
    first = run_blocking(throttle.acquire(Deadline.after(30, clock=clock), ThreadAlarm))
    assert run_blocking(throttle.acquire(Deadline.after(0.4, clock=clock), ThreadAlarm)) == first == clock.now


def test_a_wave_that_is_turned_away_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    throttle = AdaptiveThrottle(max_retry_after=60.0, clock=clock)
    for _ in range(50):
        clock.now += 0.01
        throttle.on_rate_limited(clock.now, 3_600.0)
    assert len(caplog.records) == 1
