"""Latencies in bins: none is lost, and none is on the wrong side of the deadline."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimove_conditional_execution.cli.pictures import Histogram

unhurried = settings(deadline=None)  # the machine may be busy

LATENCY = st.one_of(st.integers(0, 10_000_000), st.floats(0, 1e7))
DEADLINE = st.one_of(st.integers(1, 3_600_000), st.floats(0.5, 3.6e6))


@unhurried
@given(st.lists(LATENCY, min_size=1, max_size=60), DEADLINE)
def test_every_answer_is_in_the_bin_where_it_belongs(latencies: list[float], deadline_ms: float) -> None:
    picture = Histogram.of(latencies, deadline_ms=deadline_ms)
    assert sum(one.count for one in picture.bins) == len(latencies) == picture.total
    for index, one in enumerate(picture.bins):
        inside = [
            latency for latency in latencies if one.low < latency <= one.high or (not index and latency == one.low)
        ]
        assert one.count == len(inside)
    late = sum(latency > deadline_ms for latency in latencies)
    assert picture.late == late == sum(one.count for one in picture.bins if one.late)


@unhurried
@given(st.lists(LATENCY, min_size=1, max_size=60), DEADLINE)
def test_bins_are_in_order_bounded_and_end_at_the_deadline(latencies: list[float], deadline_ms: float) -> None:
    picture = Histogram.of(latencies, deadline_ms=deadline_ms)
    assert all(before.high == after.low for before, after in pairwise(picture.bins))
    assert all(one.low < one.high for one in picture.bins)
    assert 1 <= len(picture.bins) <= 60
    assert deadline_ms in {one.high for one in picture.bins}
    assert [one.late for one in picture.bins] == sorted(one.late for one in picture.bins)
    assert picture.before_deadline >= 1


@unhurried
@given(st.lists(LATENCY, min_size=1, max_size=60), DEADLINE)
def test_a_coarser_one_tells_the_same_with_fewer_bins(latencies: list[float], deadline_ms: float) -> None:
    picture = Histogram.of(latencies, deadline_ms=deadline_ms)
    for _ in range(8):
        coarser = picture.coarser()
        assert sum(one.count for one in coarser.bins) == len(latencies)
        assert sum(one.count for one in coarser.bins if one.late) == picture.late
        assert deadline_ms in {one.high for one in coarser.bins}
        assert len(coarser.bins) < len(picture.bins) or len(picture.bins) <= 2
        picture = coarser
    assert len(picture.bins) <= 2


@pytest.mark.parametrize(
    ("latencies", "deadline_ms", "scale"),
    [
        ([5] * 10, 5_000, "log"),
        ([499] * 10, 5_000, "log"),
        ([500] * 10, 5_000, "linear"),
        ([4_000, 6_000], 5_000, "linear"),
        ([100] * 10 + [90_000], 200, "log"),
    ],
)
def test_the_axis_is_logarithmic_when_a_linear_one_would_hide_the_answers(
    latencies: list[float], deadline_ms: float, scale: str
) -> None:
    picture = Histogram.of(latencies, deadline_ms=deadline_ms)
    assert picture.scale == scale
    assert ("(log scale)" in picture.title) == (scale == "log") == ("logarithmic" in picture.caption)


def test_fast_answers_against_a_long_deadline_have_bins_of_their_own() -> None:
    picture = Histogram.of([4, 5, 6, 8, 10, 5_000], deadline_ms=5_000)
    assert [(str(one), one.count) for one in picture.bins if one.count] == [
        ("3 to 4 ms", 1), ("4 to 5 ms", 1), ("5 to 6 ms", 1), ("6 to 8 ms", 1), ("8 to 10 ms", 1),
        ("4,000 to 5,000 ms", 1),
    ]  # fmt: skip


def test_an_answer_at_the_deadline_is_in_time() -> None:
    picture = Histogram.of([2_000, 2_000.5], deadline_ms=2_000)
    assert picture.late == 1


def test_whole_milliseconds_make_no_empty_bins_between_neighbours() -> None:
    picture = Histogram.of([1, 2, 3, 4, 5, 6], deadline_ms=500)
    filled = [index for index, one in enumerate(picture.bins) if one.count]
    assert filled == list(range(filled[0], filled[-1] + 1))


def test_equal_latencies_stand_in_one_bin() -> None:
    picture = Histogram.of([35] * 1_000, deadline_ms=2_000)
    assert [one.count for one in picture.bins if one.count] == [1_000]
    assert picture.most == 1_000


def test_no_answers() -> None:
    picture = Histogram.of([], deadline_ms=2_000, untimed_late=3)
    assert (picture.bins, picture.total, picture.median_ms) == ((), 0, None)
    assert picture.sentence == (
        "No answer was timed that could be held against the deadline of 2,000 ms. 3 more came after it and could not "
        "be timed."
    )


@pytest.mark.parametrize(
    ("latencies", "sentence"),
    [
        ([7], "1 answer. It took 7 ms. None came after the deadline of 2,000 ms."),
        (
            [31, 34, 35, 2_500],
            "4 answers. Half of them within 34 ms, the slowest took 2,500 ms. 1 came after the deadline of 2,000 ms.",
        ),
    ],
)
def test_the_sentence(latencies: list[float], sentence: str) -> None:
    assert Histogram.of(latencies, deadline_ms=2_000).sentence == sentence


@pytest.mark.parametrize("latency", [-1, math.nan, math.inf])
def test_a_latency_that_is_none_is_refused(latency: float) -> None:
    with pytest.raises(ValueError, match="latencies_ms must be finite and not negative"):
        Histogram.of([1, latency], deadline_ms=1)


@pytest.mark.parametrize("deadline_ms", [0, -1, math.nan, math.inf])
def test_a_deadline_that_is_none_is_refused(deadline_ms: float) -> None:
    with pytest.raises(ValueError, match="deadline_ms must be above 0"):
        Histogram.of([1], deadline_ms=deadline_ms)
