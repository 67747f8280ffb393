"""The limiter's window and the retry strategy as pure functions of what they are told."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from optimove_conditional_execution import Approval, Deadline, DeadlineExceeded, RateLimit, RetryPolicy, ServerError
from optimove_conditional_execution.operations import send_webhook_approval
from optimove_conditional_execution.transport.rate_limit import RateLimiter
from optimove_conditional_execution.transport.retry import Retries
from optimove_conditional_execution.transport.waiting import TaskAlarm, ThreadAlarm, run_blocking


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reserve(limiter: RateLimiter, seconds: float = 1e9, clock: Any = time.monotonic) -> float:
    """Reserve a turn for a request that is answered at once, and return how far it is."""
    turn = limiter._reserve(Deadline.after(seconds, clock=clock))
    turn.end = turn.at
    return max(0.0, turn.at - float(clock()))


def test_the_window_slides() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(3, per=10.0), clock=clock)
    assert [reserve(limiter, clock=clock) for _ in range(4)] == pytest.approx([0.0, 0.0, 0.0, 10.05])
    clock.now += 4
    assert reserve(limiter, clock=clock) == pytest.approx(6.05)
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
            run_blocking(limiter.acquire(Deadline.after(9.9, clock=clock), ThreadAlarm))
        assert caught.value.request_sent is False
    assert reserve(limiter, clock=clock) == pytest.approx(10.05)


def test_a_place_is_free_a_window_after_the_answer() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(2, per=10.0), clock=clock)
    slow, quick = (
        run_blocking(limiter.acquire(Deadline.after(1, clock=clock), ThreadAlarm)),
        run_blocking(limiter.acquire(Deadline.after(1, clock=clock), ThreadAlarm)),
    )
    clock.now += 0.1
    limiter.complete(quick)
    waiting = limiter._reserve(Deadline.after(60, clock=clock))
    clock.now += 0.9
    limiter.complete(slow)  # so it may have arrived a second after it was begun
    clock.now = waiting.at
    assert limiter._begin(waiting, Deadline.after(60, clock=clock)) == pytest.approx(111.05 - clock.now)
    clock.now = waiting.at
    assert limiter._begin(waiting, Deadline.after(60, clock=clock)) == 0


def test_a_request_that_takes_long_holds_its_place_for_little_more_than_a_window() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(1, per=10.0), clock=clock)
    run_blocking(limiter.acquire(Deadline.after(1, clock=clock), ThreadAlarm))
    clock.now += 9  # and no answer yet
    assert reserve(limiter, clock=clock) == pytest.approx(12.05 - 9)


def test_a_turn_that_moves_past_its_deadline_is_given_back() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(1, per=10.0), clock=clock)
    first = run_blocking(limiter.acquire(Deadline.after(1, clock=clock), ThreadAlarm))
    deadline = Deadline.after(10.1, clock=clock)
    waiting = limiter._reserve(deadline)
    clock.now = waiting.at
    first.end = 101.0
    with pytest.raises(DeadlineExceeded) as caught:
        limiter._begin(waiting, deadline)
    assert caught.value.request_sent is False


def test_a_million_customers_take_no_more_than_a_twentieth_longer_than_the_limit() -> None:
    requests, round_trip = 201, 0.3  # a hundred pages and the empty one, a hundred updates
    clock = Clock()
    limiter = RateLimiter(RateLimit(50, per=10.0), clock=clock)
    for _ in range(requests):
        deadline = Deadline.after(1e9, clock=clock)
        turn = limiter._reserve(deadline)
        while not turn.has_begun:
            clock.now = turn.at
            limiter._begin(turn, deadline)
        turn.end = clock.now + round_trip
    assert clock.now - 100.0 <= 1.05 * 40


def test_a_cancelled_turn_is_given_back() -> None:
    async def main() -> None:
        limiter = RateLimiter(RateLimit(1, per=30.0))
        await limiter.acquire(Deadline.after(1), TaskAlarm)
        waiting = asyncio.ensure_future(limiter.acquire(Deadline.after(60), TaskAlarm))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert 10 < reserve(limiter) <= 31

    asyncio.run(main())


def test_many_cancelled_queue_are_given_back() -> None:
    async def main() -> None:
        limiter = RateLimiter(RateLimit(5, per=1.0))
        for _ in range(5):
            await limiter.acquire(Deadline.after(60), TaskAlarm)
        waiting = [asyncio.ensure_future(limiter.acquire(Deadline.after(600), TaskAlarm)) for _ in range(50)]
        await asyncio.sleep(0.02)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert reserve(limiter) <= 1.3

    asyncio.run(main())


def test_a_gap_that_was_given_back_lets_nobody_jump_the_queue() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(2, per=10.0), clock=clock)
    turns = [limiter._reserve(Deadline.after(1e9, clock=clock)) for _ in range(6)]
    limiter.give_back(turns[3])
    assert reserve(limiter, clock=clock) >= turns[5].at - clock.now


def test_those_behind_a_turn_that_was_given_back_move_up() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(2, per=10.0), clock=clock)
    turns = [limiter._reserve(Deadline.after(1e9, clock=clock)) for _ in range(8)]
    assert [round(turn.at - clock.now) for turn in turns] == [0, 0, 10, 10, 20, 20, 30, 30]
    for given_back in (turns[2], turns[3], turns[5]):
        limiter.give_back(given_back)
    assert [round(turns[place].at - clock.now) for place in (4, 6, 7)] == [10, 10, 20]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_those_who_wait_are_told_that_they_move_up(colour: str) -> None:
    limiter = RateLimiter(RateLimit(1, per=30.0))
    run_blocking(limiter.acquire(Deadline.after(1), ThreadAlarm))

    async def main() -> None:
        gone = asyncio.ensure_future(limiter.acquire(Deadline.after(600), TaskAlarm))
        await asyncio.sleep(0.02)
        late = Deadline.after(600)
        behind = asyncio.ensure_future(
            limiter.acquire(late, TaskAlarm)
            if colour == "async"
            else asyncio.to_thread(lambda: run_blocking(limiter.acquire(late, ThreadAlarm)))
        )
        while len(limiter._queue) < 3 or limiter._queue[2].on_change is None:
            await asyncio.sleep(0.01)
        limiter._limit = RateLimit(1, per=0.05)  # else the test would take half a minute
        gone.cancel()
        await asyncio.wait_for(behind, 10)

    asyncio.run(main())


@pytest.mark.parametrize("first_pause", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("left", [0.01, 0.2, 3.0])
def test_a_pause_of_our_own_never_costs_the_call(first_pause: float, left: float) -> None:
    policy = RetryPolicy(attempts=9, first_pause=first_pause)
    deadline = Deadline.after(left, clock=Clock())
    approval = send_webhook_approval(Approval(timestamp=1, request_uid="u", approved=True))
    retries = Retries(policy, approval, deadline, has_deadline=True)
    for _ in range(40):
        pause = retries.pause_after(ServerError("", status=503, operation="x"))
        assert pause is not None
        assert pause <= max(0.005, left / 2)


def test_threads_share_one_window() -> None:
    limiter = RateLimiter(RateLimit(10, per=0.3))
    ends: list[float] = []
    began = time.monotonic()

    def work() -> None:
        run_blocking(limiter.acquire(Deadline.after(60), ThreadAlarm))
        ends.append(time.monotonic() - began)

    threads = [threading.Thread(target=work) for _ in range(25)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    ends.sort()
    assert ends[10] >= 0.3
    assert ends[20] >= 0.6
