"""The limiter's window and the retry strategy as pure functions of what they are told."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from optimove_conditional_execution import Deadline, DeadlineExceeded, RateLimit, RetryPolicy, ServerError
from optimove_conditional_execution.operations import get_webhooks
from optimove_conditional_execution.transport.limiter import RateLimiter
from optimove_conditional_execution.transport.retry import strategy


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def reserve(limiter: RateLimiter, seconds: float = 1e9, clock: Any = time.monotonic) -> float:
    """Reserve a turn for a request that is answered at once, and return how far it is."""
    turn = limiter._reserve(Deadline.after(seconds, clock=clock))
    turn.end = turn.start
    return max(0.0, turn.start - float(clock()))


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
            limiter.wait(Deadline.after(9.9, clock=clock))
        assert caught.value.request_sent is False
    assert reserve(limiter, clock=clock) == pytest.approx(10.05)


def test_a_place_is_free_a_window_after_the_answer() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(2, per=10.0), clock=clock)
    slow, quick = limiter.wait(Deadline.after(1, clock=clock)), limiter.wait(Deadline.after(1, clock=clock))
    clock.now += 0.1
    limiter.answered(quick)
    waiting = limiter._reserve(Deadline.after(60, clock=clock))
    clock.now += 0.9
    limiter.answered(slow)  # so it may have arrived a second after it was begun
    clock.now = waiting.start
    assert limiter._begin(waiting, Deadline.after(60, clock=clock)) == pytest.approx(111.05 - clock.now)
    clock.now = waiting.start
    assert limiter._begin(waiting, Deadline.after(60, clock=clock)) == 0


def test_a_request_that_takes_long_holds_its_place_for_little_more_than_a_window() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(1, per=10.0), clock=clock)
    limiter.wait(Deadline.after(1, clock=clock))
    clock.now += 9  # and no answer yet
    assert reserve(limiter, clock=clock) == pytest.approx(12.05 - 9)


def test_a_turn_that_moves_past_its_deadline_is_given_back() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(1, per=10.0), clock=clock)
    first = limiter.wait(Deadline.after(1, clock=clock))
    deadline = Deadline.after(10.1, clock=clock)
    waiting = limiter._reserve(deadline)
    clock.now = waiting.start
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
            clock.now = turn.start
            limiter._begin(turn, deadline)
        turn.end = clock.now + round_trip
    assert clock.now - 100.0 <= 1.05 * 40


def test_a_cancelled_turn_is_given_back() -> None:
    async def main() -> None:
        limiter = RateLimiter(RateLimit(1, per=30.0))
        await limiter.wait_async(Deadline.after(1))
        waiting = asyncio.ensure_future(limiter.wait_async(Deadline.after(60)))
        await asyncio.sleep(0.02)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert 29 < reserve(limiter) <= 30.2

    asyncio.run(main())


def test_many_cancelled_turns_are_given_back() -> None:
    async def main() -> None:
        limiter = RateLimiter(RateLimit(5, per=1.0))
        for _ in range(5):
            await limiter.wait_async(Deadline.after(1))
        waiting = [asyncio.ensure_future(limiter.wait_async(Deadline.after(600))) for _ in range(50)]
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
    limiter._give_back(turns[3])
    assert reserve(limiter, clock=clock) >= turns[5].start - clock.now


def test_those_behind_a_turn_that_was_given_back_move_up() -> None:
    clock = Clock()
    limiter = RateLimiter(RateLimit(2, per=10.0), clock=clock)
    turns = [limiter._reserve(Deadline.after(1e9, clock=clock)) for _ in range(8)]
    assert [round(turn.start - clock.now) for turn in turns] == [0, 0, 10, 10, 20, 20, 30, 30]
    limiter._give_back(turns[0])  # has begun, so it counts
    for given_back in (turns[2], turns[3], turns[5]):
        limiter._give_back(given_back)
    assert [round(turns[place].start - clock.now) for place in (4, 6, 7)] == [10, 10, 20]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_those_who_wait_are_told_that_they_move_up(colour: str) -> None:
    limiter = RateLimiter(RateLimit(1, per=30.0))
    limiter.wait(Deadline.after(1))

    async def main() -> None:
        gone = asyncio.ensure_future(limiter.wait_async(Deadline.after(600)))
        await asyncio.sleep(0.02)
        late = Deadline.after(600)
        behind = asyncio.ensure_future(
            limiter.wait_async(late) if colour == "async" else asyncio.to_thread(limiter.wait, late)
        )
        while len(limiter._turns) < 3 or limiter._turns[2].moved is None:
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
    options = strategy(policy, get_webhooks(), deadline, persistent=True, has_deadline=True, is_over=lambda: False)
    for attempt in range(1, 40):
        state: Any = SimpleNamespace(attempt_number=attempt, outcome=Failed(ServerError("", status=503, operation="x")))
        assert options["retry"](state)
        state.upcoming_sleep = options["wait"](state)
        assert state.upcoming_sleep <= max(0.005, left / 2)
        assert not options["stop"](state)


class Failed:
    def __init__(self, error: Exception) -> None:
        self._error = error

    def exception(self) -> Exception:
        return self._error


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
