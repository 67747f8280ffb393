"""Time: deadlines, how late a message is, and how the rest is divided."""

from __future__ import annotations

import math
import random
import sys
import threading
import time
import zoneinfo
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimove_conditional_execution import ConfigurationError, Deadline, OptimoveClient
from optimove_conditional_execution.deadline import TransitEstimate, zone_of
from optimove_conditional_execution.flows.budget import LONGEST_BUDGET, Reserve, budget


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_a_deadline_counts_down_and_stays_at_zero() -> None:
    clock = Clock()
    deadline = Deadline.after(5, clock=clock)
    assert (deadline.remaining(), deadline.expired) == (5.0, False)
    clock.now += 4.75
    assert (deadline.remaining(), deadline.expired) == (0.25, False)
    clock.now += 0.25
    assert (deadline.remaining(), deadline.expired) == (0.0, True)
    clock.now += 99
    assert (deadline.remaining(), deadline.expired) == (0.0, True)


def test_deadlines_earlier_than_others() -> None:
    clock = Clock()
    deadline = Deadline.after(5, clock=clock)
    assert deadline.earlier_by(2).remaining() == 3.0
    assert deadline.earlier_by(9).expired
    assert Deadline.after(5, clock=clock) == deadline
    assert repr(deadline) == "<Deadline in 5.000 s>"


def test_deadlines_at_the_edges() -> None:
    assert Deadline.after(0).expired
    assert Deadline.after(-3).expired
    assert Deadline.after(math.inf).remaining() == math.inf
    assert not Deadline.after(math.inf).earlier_by(1e9).expired
    nonsense: list[Any] = [math.nan, "5", None, 10**400]
    for wrong in nonsense:
        with pytest.raises(ConfigurationError):
            Deadline.after(wrong)
        with pytest.raises(ConfigurationError):
            Deadline.after(1).earlier_by(wrong)
    assert 0 < Deadline.after(60).remaining() <= 60


def test_the_first_message_has_no_delay() -> None:
    assert TransitEstimate().observe(received=5.0, sent=99_999.0) == 0.0


def test_a_message_is_late_by_what_it_has_above_the_fastest() -> None:
    estimate = TransitEstimate()
    assert estimate.observe(received=100.0, sent=1_000.0) == 0.0
    assert estimate.observe(received=101.5, sent=1_001.0) == 0.5
    assert estimate.observe(received=102.0, sent=1_002.1) == 0.0  # a faster one sets the measure
    assert estimate.observe(received=103.0, sent=1_003.0) == pytest.approx(0.1)
    assert estimate.observe(received=104.0, sent=1_004.0 - 3_600) == pytest.approx(3_600.1)


def test_the_sender_clock_is_read_from_the_fastest_message() -> None:
    estimate = TransitEstimate()
    assert estimate.sender_now(now=1.0) is None
    estimate.observe(received=100.0, sent=1_000.0)
    assert estimate.sender_now(now=130.0) == 1_030.0


def test_the_window_forgets_after_ten_minutes_and_256_messages() -> None:
    estimate = TransitEstimate()
    estimate.observe(received=0.0, sent=1_000.0)
    assert estimate.observe(received=599.0, sent=1_000.0) == 599.0
    assert estimate.observe(received=601.0, sent=1_000.0) == 2.0
    crowded = TransitEstimate()
    crowded.observe(received=0.0, sent=100.0)
    for _ in range(4):
        assert crowded.observe(received=1.0, sent=1.0) == 100.0
    full = TransitEstimate()
    for _ in range(3):
        full.observe(received=0.0, sent=100.0)
    for _ in range(253):
        assert full.observe(received=1.0, sent=1.0) == 100.0
    assert full.observe(received=1.0, sent=1.0) == 0.0  # one of the three is out of the window, and with it the company


def test_a_lone_message_stamped_ahead_is_no_measure() -> None:
    estimate = TransitEstimate()
    delays = []
    estimate.observe(received=0.0, sent=3_600.0)  # the first of all is stamped an hour ahead
    for turn in range(20):
        delays.append(estimate.observe(received=float(turn), sent=float(turn)))
    assert delays[:4] == [3_600.0] * 4  # until six are known, nobody can tell
    assert set(delays[4:]) == {0.0}
    for turn in range(20, 30):
        assert estimate.observe(received=float(turn), sent=turn + 3_600.0 if turn == 25 else turn) == 0.0


def test_hours_old_among_fresh_ones_is_late_however_many_are_known() -> None:
    for fresh in (1, 2, 5, 6, 9, 100):
        estimate = TransitEstimate()
        for turn in range(fresh):
            estimate.observe(received=float(turn), sent=float(turn))
        assert estimate.observe(received=float(fresh), sent=fresh - 3_600.0) == 3_600.0


def test_the_fastest_that_has_company_is_the_measure() -> None:
    chance = random.Random(7)
    estimate = TransitEstimate()
    seen: list[tuple[float, float]] = []
    received = 0.0
    for _ in range(3_000):
        received += chance.expovariate(0.5)
        offset = chance.gauss(0, 2)
        seen.append((received, offset))
        window = [value for at, value in seen[-256:] if at >= received - 600]
        company = min(3, len(window) // 3) or 1
        measure = next(
            (low for low in sorted(window) if sum(low <= other <= low + 1 for other in window) >= company), min(window)
        )
        expected = max(0.0, offset - measure)
        assert estimate.observe(received=received, sent=received - offset) == pytest.approx(expected)


def test_the_estimate_is_safe_for_threads() -> None:
    estimate = TransitEstimate()
    failures: list[BaseException] = []

    def observe() -> None:
        try:
            for turn in range(2_000):
                assert estimate.observe(received=turn, sent=turn) >= 0
        except BaseException as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=observe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_the_reserve_follows_the_round_trips() -> None:
    reserve = Reserve()
    assert reserve.of(5.0) == 0.5
    reserve.observe(0.2)
    assert reserve.of(5.0) == pytest.approx(0.3)
    for _ in range(99):
        reserve.observe(0.01)
    assert reserve.of(5.0) == 0.05  # one in a hundred may be slow: the 99th percentile is not the maximum
    reserve.observe(0.4)
    assert reserve.of(5.0) == pytest.approx(0.3)
    for _ in range(256):
        reserve.observe(0.01)
    assert reserve.of(5.0) == 0.05


@given(st.lists(st.floats(0, 60), max_size=40), st.floats(0, 100), st.none() | st.floats(0, 100))
def test_the_reserve_is_never_more_than_half(round_trips: list[float], seconds: float, fixed: float | None) -> None:
    reserve = Reserve(fixed)
    for round_trip in round_trips:
        reserve.observe(round_trip)
    assert 0 <= reserve.of(seconds) <= seconds / 2
    if fixed is not None:
        assert reserve.of(seconds) == min(fixed, seconds / 2)


def test_the_budget_is_optimoves_own_less_the_delay() -> None:
    clock = Clock(50.0)
    estimate, reserve = TransitEstimate(), Reserve()
    common = {"transit": estimate, "reserve": reserve, "clock": clock}
    first = budget(sent_ms=1_000_000, deadline_ms=1_005_000, received=50.0, **common)  # type: ignore[arg-type]
    assert (first.seconds, first.transit) == (5.0, 0.0)
    assert first.deadline.remaining() == 5.0
    assert first.thinking.remaining() == 4.5
    clock.now = 52.0  # a second after it arrived: half a second was spent before it was looked at
    second = budget(sent_ms=1_000_500, deadline_ms=1_005_500, received=51.5, **common)  # type: ignore[arg-type]
    assert (second.seconds, second.transit) == (4.0, 1.0)
    assert second.deadline.remaining() == 3.5


@pytest.mark.parametrize("deadline_ms", [1_000_000, 999_999, 0])
def test_a_budget_of_zero_or_less_is_a_value(deadline_ms: int) -> None:
    clock = Clock()
    time_left = budget(
        sent_ms=1_000_000,
        deadline_ms=deadline_ms,
        received=clock.now,
        transit=TransitEstimate(),
        reserve=Reserve(),
        clock=clock,
    )
    assert time_left.seconds <= 0
    assert time_left.deadline.expired


def test_every_wait_has_a_bound() -> None:
    clock = Clock()
    time_left = budget(
        sent_ms=0,
        deadline_ms=253_402_300_799_999,
        received=clock.now,
        transit=TransitEstimate(),
        reserve=Reserve(),
        clock=clock,
    )
    assert time_left.seconds == LONGEST_BUDGET == 3_600.0


def test_deadlines_use_a_monotonic_clock() -> None:
    assert Deadline.after(1)._clock is time.monotonic


@pytest.mark.parametrize("name", ["Europe/London", "Nowhere/Atall"])
def test_without_a_time_zone_database_the_remedy_is_to_install_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slim images and Windows have none, and there a right name is unknown too."""
    zoneinfo.ZoneInfo.clear_cache()
    zoneinfo.reset_tzpath(to=())
    monkeypatch.setitem(sys.modules, "tzdata", None)
    try:
        with pytest.raises(ConfigurationError, match="pip install tzdata"):
            zone_of(name)
        with pytest.raises(ConfigurationError, match="pip install tzdata"):
            OptimoveClient("key", base_url="https://optimove.test", timezone=name)
    finally:
        zoneinfo.reset_tzpath()


def test_a_wrong_name_is_told_where_there_is_a_database() -> None:
    with pytest.raises(ConfigurationError, match="not known") as caught:
        zone_of("Nowhere/Atall")
    assert "tzdata" not in str(caught.value)
