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
from optimove_conditional_execution.flows.budget import (
    LONGEST_BUDGET,
    Budget,
    BudgetEstimator,
    Reserve,
    default_lease,
    longest_repeatable_handler,
)


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def test_a_deadline_counts_down_and_stays_at_zero() -> None:
    clock = Clock()
    deadline = Deadline.after(5, clock=clock)
    assert (deadline.remaining(), deadline.expired, deadline.overdue) == (5.0, False, 0.0)
    clock.now += 4.75
    assert (deadline.remaining(), deadline.expired, deadline.overdue) == (0.25, False, 0.0)
    clock.now += 0.25
    assert (deadline.remaining(), deadline.expired, deadline.overdue) == (0.0, True, 0.0)
    clock.now += 99
    assert (deadline.remaining(), deadline.expired, deadline.overdue) == (0.0, True, 99.0)


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
    assert Deadline.after(math.inf).overdue == 0.0
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
    full = TransitEstimate()
    for _ in range(3):
        full.observe(received=0.0, sent=100.0)
    for turn in range(253):  # late by ever more, or they would be a step of the clock
        assert full.observe(received=1.0, sent=-0.5 * turn) == 100.0 + 1.0 + 0.5 * turn
    # One of the three is out of the window now, and with it the company.
    assert full.observe(received=1.0, sent=-1_000.0) == 1_000.0  # against the first of the others


def test_a_lone_message_stamped_ahead_is_no_measure() -> None:
    estimate = TransitEstimate()
    delays = []
    estimate.observe(received=0.0, sent=3_600.0)  # the first of all is stamped an hour ahead
    for turn in range(20):
        delays.append(estimate.observe(received=float(turn), sent=float(turn)))
    assert delays[:2] == [3_600.0] * 2  # until three agree, nobody can tell
    assert set(delays[2:]) == {0.0}
    for turn in range(20, 30):
        assert estimate.observe(received=float(turn), sent=turn + 3_600.0 if turn == 25 else turn) == 0.0


def late_by(estimate: TransitEstimate, delays: list[float], *, begin: float = 0.0) -> list[float]:
    """Let messages come a second after each other, late by so many seconds; return what the estimate says."""
    return [
        round(estimate.observe(received=begin + turn, sent=begin + turn - delay), 6)
        for turn, delay in enumerate(delays)
    ]


class TestAStepOfTheSendersClock:
    def test_three_late_by_the_same_amount_are_the_new_measure(self) -> None:
        assert late_by(TransitEstimate(), [0.0] * 20 + [6.0] * 5) == [0.0] * 20 + [6.0, 6.0] + [0.0] * 3

    def test_the_amount_may_vary_by_a_quarter_of_a_second(self) -> None:
        assert late_by(TransitEstimate(), [0.0] * 9 + [6.1, 6.25, 6.0, 6.3, 5.8])[9:] == [6.1, 6.25, 0.0, 0.3, 0.0]
        assert late_by(TransitEstimate(), [0.0] * 9 + [6.0, 6.3, 6.0, 6.3])[9:] == [6.0, 6.3, 6.0, 6.3]

    def test_one_of_two_servers_that_is_behind_is_measured_against_itself(self) -> None:
        assert late_by(TransitEstimate(), [0.0, 6.0] * 10)[6:] == [0.0] * 14

    def test_what_comes_later_than_the_step_is_late(self) -> None:
        assert late_by(TransitEstimate(), [0.0] * 9 + [6.0] * 4 + [8.0, 36.0, 0.0])[-3:] == [2.0, 30.0, 0.0]

    def test_three_in_a_row_that_are_unlike_it_end_it(self) -> None:
        delays = [0.0] * 9 + [6.0] * 3 + [8.0, 10.0, 12.0, 6.0]
        assert late_by(TransitEstimate(), delays)[9:] == [6.0, 6.0, 0.0, 2.0, 4.0, 12.0, 6.0]

    def test_ten_minutes_without_any_end_it(self) -> None:
        estimate = TransitEstimate()
        late_by(estimate, [0.0] * 9 + [6.0] * 3)
        late_by(estimate, [0.0] * 9, begin=400.0)
        assert late_by(estimate, [0.0, 6.0], begin=700.0) == [0.0, 6.0]

    def test_three_in_more_than_ten_minutes_are_none(self) -> None:
        estimate = TransitEstimate()
        for turn in range(400):
            expected = 6.0 if turn % 100 == 50 else 0.0
            assert late_by(estimate, [expected], begin=turn * 4.0) == [expected]

    def test_the_senders_clock_is_read_behind_the_step(self) -> None:
        estimate = TransitEstimate()
        late_by(estimate, [0.0] * 9 + [6.0] * 3)
        assert estimate.sender_now(now=100.0) == pytest.approx(94.0)


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
    received, unlike = 0.0, 0
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
        delay = estimate.observe(received=received, sent=received - offset)
        if delay != pytest.approx(expected):
            assert 0 <= delay < expected  # three that are late alike by chance
            unlike += 1
    assert unlike < 150


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


class TestReserve:
    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    def test_it_follows_the_round_trips(self, clock: Clock) -> None:
        reserve = Reserve(clock=clock)
        assert reserve.for_budget(5.0) == 0.5
        for took in (0.2, 0.2, 0.2, 0.2, 0.2):
            reserve.observe(took)
        assert reserve.for_budget(5.0) == pytest.approx(0.3)
        for _ in range(6):
            reserve.observe(0.4)
        assert reserve.for_budget(5.0) == pytest.approx(0.6)

    @pytest.mark.parametrize("before", [0, 1, 5, 50])
    def test_one_slow_delivery_does_not_count(self, before: int, clock: Clock) -> None:
        reserve = Reserve(clock=clock)
        for _ in range(before):
            reserve.observe(0.02)
        reserve.observe(1.8)
        assert reserve.for_budget(5.0) <= 0.5
        for _ in range(50):
            reserve.observe(0.02)
            assert reserve.for_budget(5.0) <= 0.5
        assert reserve.for_budget(5.0) == 0.05

    def test_one_in_twenty_that_is_slow_is_left_out_and_two_are_not(self, clock: Clock) -> None:
        reserve = Reserve(clock=clock)
        for turn in range(400):
            reserve.observe(1.0 if turn % 25 == 0 else 0.1)
        assert reserve.for_budget(5.0) == pytest.approx(0.15)
        for turn in range(400):
            reserve.observe(1.0 if turn % 10 == 0 else 0.1)
        assert reserve.for_budget(5.0) == pytest.approx(1.5)

    def test_what_is_older_than_five_minutes_is_forgotten(self, clock: Clock) -> None:
        reserve = Reserve(clock=clock)
        for _ in range(100):
            reserve.observe(1.0)
        clock.now += 200
        for _ in range(10):
            reserve.observe(0.1)
        assert reserve.for_budget(5.0) == pytest.approx(1.5)
        clock.now += 101
        assert reserve.for_budget(5.0) == pytest.approx(0.15)

    def test_the_last_five_count_however_old_they_are(self, clock: Clock) -> None:
        reserve = Reserve(clock=clock)
        for _ in range(5):
            reserve.observe(0.8)
            clock.now += 3_600
        assert reserve.for_budget(5.0) == pytest.approx(1.2)

    def test_a_crowd_costs_no_more_memory_than_1024_numbers(self, clock: Clock) -> None:
        reserve = Reserve(clock=clock)
        for _ in range(3_000):
            reserve.observe(1.0)
        for _ in range(1_024):
            reserve.observe(0.1)
        assert reserve.for_budget(5.0) == pytest.approx(0.15)

    @given(
        st.lists(st.tuples(st.floats(0, 60), st.floats(0, 400)), max_size=40),
        st.floats(0, 100),
        st.none() | st.floats(0, 100),
    )
    def test_it_is_never_more_than_a_third_and_a_fixed_one_never_more_than_half(
        self, round_trips: list[tuple[float, float]], seconds: float, fixed: float | None
    ) -> None:
        clock = Clock()
        reserve = Reserve(fixed, clock=clock)
        for round_trip, pause in round_trips:
            reserve.observe(round_trip)
            clock.now += pause
        if fixed is None:
            assert 0 <= reserve.for_budget(seconds) <= seconds / 3
        else:
            assert reserve.for_budget(seconds) == min(fixed, seconds / 2)

    @given(st.lists(st.tuples(st.floats(0, 60), st.floats(0, 100)), min_size=5, max_size=60))
    def test_it_is_what_sorting_everything_would_give(self, round_trips: list[tuple[float, float]]) -> None:
        clock = Clock()
        reserve = Reserve(clock=clock)
        seen = [(clock.now, 1 / 3)]
        for took, pause in round_trips:
            clock.now += pause
            seen.append((clock.now, took))
            reserve.observe(took)
            recent = [entry for entry in seen[:-5] if entry[0] >= clock.now - 300] + seen[-5:]
            ordered = sorted(took for _, took in recent)
            rank = min(math.ceil(0.95 * len(ordered)), len(ordered) - 1)
            assert reserve.for_budget(math.inf) == pytest.approx(max(0.05, 1.5 * ordered[rank - 1]))


SENT_MS = 1_800_000_000_000


class Arrivals:
    """Notifications of one sender, as one receiver sees them; both wall clocks are right until told otherwise."""

    def __init__(self, *, our_wall_is_off: float = 0.0, seconds: float = 5.0) -> None:
        self.clock = Clock(50.0)
        self.our_wall_is_off = our_wall_is_off
        self.seconds = seconds
        self.transit, self.reserve = TransitEstimate(), Reserve(clock=self.clock)

    @property
    def true_time(self) -> float:
        return SENT_MS / 1000 + self.clock.now

    def arrives(self, *, under_way: float = 0.0, sender_is_ahead: float = 0.0, host: Deadline | None = None) -> Budget:
        sent_ms = round((self.true_time - under_way + sender_is_ahead) * 1000)
        estimator = BudgetEstimator(
            transit=self.transit,
            reserve=self.reserve,
            clock=self.clock,
            wall_clock=lambda: self.true_time + self.our_wall_is_off,
        )
        return estimator.budget(
            sent_ms=sent_ms,
            deadline_ms=sent_ms + round(self.seconds * 1000),
            received=self.clock.now,
            host=host,
        )


def test_the_budget_is_optimoves_own_less_the_delay() -> None:
    arrivals = Arrivals()
    first = arrivals.arrives()
    assert (first.seconds, first.transit) == (5.0, 0.0)
    assert first.deadline.remaining() == 5.0
    assert first.handler_deadline.remaining() == 4.5
    second = arrivals.arrives(under_way=1.0)
    assert (second.seconds, second.transit) == pytest.approx((4.0, 1.0), abs=0.001)


def test_the_budget_counts_from_the_arrival() -> None:
    arrivals = Arrivals()
    received = arrivals.clock.now
    arrivals.clock.now += 0.5  # spent before it was looked at
    estimator = BudgetEstimator(
        transit=arrivals.transit,
        reserve=arrivals.reserve,
        clock=arrivals.clock,
        wall_clock=lambda: SENT_MS / 1000,
    )
    left = estimator.budget(sent_ms=SENT_MS, deadline_ms=SENT_MS + 5_000, received=received)
    assert (left.seconds, left.deadline.remaining()) == (5.0, 4.5)


@pytest.mark.parametrize("seconds", [0, -0.001, -1_000_000])
@pytest.mark.parametrize("off", [0.0, -10_000_000.0])
def test_a_budget_of_zero_or_less_is_a_value(seconds: float, off: float) -> None:
    time_left = Arrivals(seconds=seconds, our_wall_is_off=off).arrives()
    assert time_left.seconds == seconds
    assert time_left.deadline.expired


def test_every_wait_has_a_bound() -> None:
    time_left = Arrivals(seconds=250_000_000_000).arrives()
    assert time_left.seconds == LONGEST_BUDGET == 3_600.0


def test_a_host_that_ends_us_earlier_sets_the_deadline() -> None:
    arrivals = Arrivals()
    time_left = arrivals.arrives(host=Deadline.after(1.2, clock=arrivals.clock))
    assert time_left.seconds == 5.0  # Optimove's
    assert time_left.deadline.remaining() == pytest.approx(1.2)
    assert time_left.handler_deadline.remaining() == pytest.approx(0.8)  # less the reserve, a third here
    later = arrivals.arrives(host=Deadline.after(900.0, clock=arrivals.clock))
    assert later.deadline.remaining() == 5.0


class TestExpired:
    """An answer that comes late harms nobody, and a question that is not asked is lost."""

    def test_only_when_neighbours_and_wall_clock_both_say_so(self) -> None:
        for off, expired in ((0.0, True), (600.0, True), (-600.0, False)):
            arrivals = Arrivals(our_wall_is_off=off)
            assert not arrivals.arrives().deadline.expired  # however late the wall clock says that it is
            assert arrivals.arrives(under_way=7.0).deadline.expired == expired

    def test_the_transit_takes_half_of_the_budget_at_most(self) -> None:
        arrivals = Arrivals()
        arrivals.arrives()
        for under_way, taken in ((1.0, 1.0), (2.0, 2.0), (3.0, 2.5), (4.9, 2.5)):
            left = arrivals.arrives(under_way=under_way)
            assert (left.transit, left.seconds) == pytest.approx((taken, 5.0 - taken), abs=0.001)

    def test_a_sender_whose_clock_is_set_right_is_asked_about(self) -> None:
        arrivals = Arrivals()
        for _ in range(20):
            arrivals.arrives(sender_is_ahead=6.0)
        left = [arrivals.arrives().seconds for _ in range(5)]
        assert left == [2.5, 2.5, 5.0, 5.0, 5.0]

    def test_of_a_clock_that_is_set_behind_by_more_than_the_budget_two_are_lost_at_most(self) -> None:
        arrivals = Arrivals()
        for _ in range(20):
            arrivals.arrives()
        assert [arrivals.arrives(sender_is_ahead=-6.0).deadline.expired for _ in range(9)] == [True] * 2 + [False] * 7

    @given(
        st.lists(st.tuples(st.floats(-4.9, 1e6), st.integers(1, 8)), min_size=1, max_size=12),
        st.floats(0.1, 60),
        st.integers(0, 2**32),
    )
    def test_whatever_the_senders_clock_does_while_it_shows_time_left_the_handler_is_asked(
        self, steps: list[tuple[float, int]], pause: float, seed: int
    ) -> None:
        chance = random.Random(seed)
        arrivals = Arrivals()
        for ahead, messages in steps:
            for _ in range(messages):
                arrivals.clock.now += pause
                left = arrivals.arrives(under_way=chance.uniform(0, 0.05), sender_is_ahead=ahead)
                assert not left.deadline.expired
                assert 2.5 <= left.seconds <= 5.0

    @given(
        st.lists(st.tuples(st.integers(-30, 30), st.integers(1, 8)), min_size=1, max_size=12),
        st.floats(-1e6, 1e6),
        st.floats(0.1, 20),
    )
    def test_whatever_both_clocks_do_at_most_two_after_a_step_are_not_asked(
        self, steps: list[tuple[int, int]], off: float, pause: float
    ) -> None:
        arrivals = Arrivals(our_wall_is_off=off)
        for ahead, messages in steps:
            expired = []
            for _ in range(messages):
                arrivals.clock.now += pause
                left = arrivals.arrives(sender_is_ahead=ahead * 2.0)
                expired.append(left.deadline.expired)
                assert left.seconds <= 5.0
            assert not any(expired[2:])

    @given(
        # Three, since the fastest of so many must be confirmed by two others.
        st.lists(st.floats(0, 0.2), min_size=3, max_size=300),
        st.lists(st.integers(6, 4_000), min_size=1, max_size=9, unique=True),
    )
    def test_with_clocks_that_are_right_one_whose_deadline_has_passed_is_not_asked(
        self, fresh: list[float], late: list[int]
    ) -> None:
        arrivals = Arrivals()
        for under_way in fresh:
            arrivals.clock.now += 0.1
            assert not arrivals.arrives(under_way=under_way).deadline.expired
        for seconds in late:
            assert arrivals.arrives(under_way=float(seconds)).deadline.expired


def test_deadlines_use_a_monotonic_clock() -> None:
    assert Deadline.after(1)._clock is time.monotonic


@pytest.mark.parametrize("name", ["Europe/London", "Nowhere/Atall"])
def test_without_a_time_zone_database_the_remedy_is_to_install_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slim images and Windows have none, and there a right name is unknown too."""
    zoneinfo.ZoneInfo.clear_cache()
    zoneinfo.reset_tzpath(to=())
    for module in ["tzdata", *(name for name in sys.modules if name.startswith("tzdata."))]:
        monkeypatch.setitem(sys.modules, module, None)
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


@pytest.mark.parametrize(("budget", "lease"), [(0.1, 0.5), (2.0, 0.5), (3.0, 0.5), (5.0, 5 / 6), (60.0, 10.0)])
def test_a_lease_is_a_sixth_of_the_budget_or_half_a_second(budget: float, lease: float) -> None:
    assert default_lease(budget) == pytest.approx(lease)


def test_what_fits_twice_into_a_budget() -> None:
    longest = longest_repeatable_handler(5.0)
    assert 2 * longest + default_lease(5.0) + 0.5 == pytest.approx(5.0)
    assert longest_repeatable_handler(5.0, lease=2.0, reserve=1.0) == 1.0
    assert longest_repeatable_handler(0.8) == 0.0
