"""Round numbers on axes, and numbers as people read them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimove_conditional_execution.cli.pictures.scales import (
    STEPS,
    TENTHS,
    TWENTIETHS,
    first_that_fits,
    preferred,
    ticks,
)
from optimove_conditional_execution.cli.pictures.wording import counted, duration, milliseconds, number

unhurried = settings(deadline=None)  # the machine may be busy

POSITIVE = st.floats(1e-6, 1e9)


@unhurried
@given(POSITIVE, st.integers(1, 50))
def test_ticks_are_round_reach_the_top_and_are_few(top: float, most: int) -> None:
    found = ticks(top, most)
    assert found[0] == 0
    assert len(found) <= most + 1
    assert found[-1] >= top * (1 - 1e-8)
    assert len(found) == 2 or found[-2] < top
    step = found[1]
    assert step / 10 ** math.floor(math.log10(step * 1.0000001)) == pytest.approx(1) or any(
        step == pytest.approx(float(f"{head:g}e{math.floor(math.log10(step * 1.0000001))}")) for head in STEPS
    )
    assert all(after - before == pytest.approx(step) for before, after in pairwise(found))


@pytest.mark.parametrize(
    ("top", "most", "least", "expected"),
    [
        (0, 4, 1, (0, 1)),
        (1, 4, 1, (0, 1)),
        (3, 4, 1, (0, 1, 2, 3)),
        (24_750, 4, 1, (0, 10_000, 20_000, 30_000)),
        (0.3, 3, 0, (0, 0.1, 0.2, 0.3)),
        (100_000, 4, 1, (0, 50_000, 100_000)),
    ],
)
def test_ticks(top: float, most: int, least: float, expected: tuple[float, ...]) -> None:
    assert ticks(top, most, least=least) == expected


@unhurried
@given(POSITIVE, POSITIVE, st.sampled_from([STEPS, TENTHS, TWENTIETHS]))
def test_preferred_numbers_enclose_what_they_are_for(one: float, other: float, numbers: tuple[float, ...]) -> None:
    low, high = min(one, other), max(one, other)
    found = preferred(low, high, numbers)
    assert found[0] <= low
    assert found[-1] >= high
    assert all(before < after for before, after in pairwise(found))
    assert len(found) < 2 or (found[1] > low and found[-2] < high)


def test_preferred_numbers_are_read_as_they_are_written() -> None:
    assert preferred(0.2, 30) == [0.2, 0.5, 1, 2, 5, 10, 20, 50]


def test_the_first_labels_that_do_not_collide_are_taken() -> None:
    many = [(float(at), "1,000") for at in range(0, 20, 4)]
    few = [(0.0, "0"), (16.0, "1,000")]
    assert first_that_fits([many, few], gap=1) == few
    assert first_that_fits([few, many], gap=1) == few
    assert first_that_fits([many], gap=1) == ()
    assert first_that_fits([many], gap=1, width_of_character=0.5) == many


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (-0.0, "0"), (5, "5"), (0.25, "0.25"), (35.5, "35.5"), (1234.5, "1,234"), (1_000_000, "1,000,000")],
)
def test_numbers(value: float, expected: str) -> None:
    assert number(value) == expected
    assert milliseconds(value) == f"{expected} ms"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0, "0 s"), (1.44, "1.4 s"), (58.6, "59 s"), (600, "10 min"), (9_000, "2.5 h"), (86_400, "24 h"), (-5, "-5 s")],
)
def test_durations(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_nouns() -> None:
    assert (counted(0, "answer"), counted(1, "answer"), counted(2_000, "answer")) == (
        "0 answers", "1 answer", "2,000 answers",
    )  # fmt: skip
    assert counted(2, "child", "children") == "2 children"
