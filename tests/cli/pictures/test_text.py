"""Pictures of characters: readable at any width, in ASCII for pipes, from one value to a hundred thousand."""

from __future__ import annotations

import io
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from optimove_conditional_execution.cli.pictures import BurnUp, Histogram, show
from optimove_conditional_execution.cli.pictures.canvas import Canvas
from optimove_conditional_execution.cli.pictures.text import drawn

FAST = """\
Answers by latency, in ms (log scale)
                                               deadline 5,000 ms |
4 |      ##                                                      |
  |      ##                                                      |
3 |      ##                                                      |
  |      ##                                                      |
2 |##    ##                                                      |
  |##    ##                                                      |
1 |##    ##        ##                                            |
  |##    ##        ##                                            |
0 +-+-----+-----+-------+-----+-----+-------+-----+-----+--------|
    5    10    20      50    100   200     500  1,000 2,000    5,000"""

LATE = """\
Answers by latency, in ms
                           deadline 200 ms |
2 |        ##                              |
  |        ##                              |
  |        ##                              |
  |        ##                              |
1 |        ##  ##                      ##  |!!              !!
  |        ##  ##                      ##  |!!              !!
  |        ##  ##                      ##  |!!              !!
  |        ##  ##                      ##  |!!              !!
0 +---------+---------+---------+----------|---------+--------
  0        50        100       150        200       250"""

REVIEW = """\
Customers over time, against clearance
. 80 decided   # 40 acknowledged   - of 100 customers
                                                    clearance after 100 s |
                                      safety margin of 20 s :             |
100 |-------------------------------------------------------:-------------|
    |                                        ..             :             |
    |                                  ........             :             |
    |                           ...............             :             |
 50 |                     .....................             :             |
    |              ........................####             :             |
    |        ...........................#######             :             |
    | ...............................##########             :             |
  0 ++------------+-------------+-------------+-------------+-------------+--
    0 s         20 s          40 s          60 s          80 s          100 s"""


def text(picture: Histogram | BurnUp, width: int = 80) -> str:
    return "\n".join(drawn(picture, width=width).lines())


def review(clearance: float = 100.0) -> BurnUp:
    decided = [(float(second), second * 80 // 60) for second in range(61)]
    acknowledged = [(float(second), max(0, second - 45) * 40 // 15) for second in range(61)]
    return BurnUp.of(
        {"decided": decided, "acknowledged": acknowledged}, clearance=clearance, safety_margin=20.0, total=100
    )


def test_a_few_fast_answers() -> None:
    assert text(Histogram.of([5, 5, 10, 10, 10, 10, 31], deadline_ms=5_000)) == FAST


def test_answers_past_the_deadline_look_different() -> None:
    assert text(Histogram.of([45, 50, 70, 190, 210, 290], deadline_ms=200)) == LATE


def test_a_review() -> None:
    assert text(review()) == REVIEW


def test_a_clearance_that_is_far_stands_behind_a_break() -> None:
    lines = text(review(clearance=7_200)).splitlines()
    assert lines[2].endswith("clearance after 2 h |")
    assert re.fullmatch(r" +0 [+-]+-//-+:-+\|-+", lines[-2])
    assert lines[-1].endswith("60 s")


@pytest.mark.parametrize("count", [1, 100, 100_000])
@pytest.mark.parametrize("width", [32, 80])
def test_any_number_of_answers(count: int, width: int) -> None:
    chance = random.Random(5)
    latencies = [chance.lognormvariate(4, 1.5) for _ in range(count - 1)] + [9_000]
    lines = text(Histogram.of(latencies, deadline_ms=5_000), width).splitlines()
    assert max(map(len, lines)) <= width
    assert "deadline 5,000 ms" in lines[1]
    # The one answer that came late is seen, however many others there are.
    assert any(set(line.rpartition("|")[2]) & set(".:!") for line in lines[2:10])


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(0, 1e6), max_size=50),
    st.floats(0.5, 1e6),
    st.integers(20, 120),
    st.booleans(),
)
def test_no_histogram_is_wider_than_allowed(
    latencies: list[float], deadline_ms: float, width: int, ascii_only: bool
) -> None:
    picture = Histogram.of(latencies, deadline_ms=deadline_ms)
    lines = drawn(picture, width=width, ascii_only=ascii_only).lines()
    if picture.bins:
        assert len(lines) == 12
        assert max(map(len, lines)) <= max(32, width)
        assert "|" in lines[-2] or "┃" in lines[-2]
    assert not ascii_only or "\n".join(lines).isascii()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 10_000_000)), max_size=30),
    st.floats(0.1, 1e6),
    st.one_of(st.none(), st.floats(0, 100)),
    st.one_of(st.none(), st.integers(0, 10_000_000)),
    st.integers(20, 120),
)
def test_no_burn_up_is_wider_than_allowed(
    points: list[tuple[float, int]], clearance: float, margin: float | None, total: int | None, width: int
) -> None:
    picture = BurnUp.of({"reported": points}, clearance=clearance, safety_margin=margin, total=total)
    lines = drawn(picture, width=width).lines()
    if picture.drawable:
        assert max(map(len, lines)) <= max(32, width)
        assert "clearance" in "\n".join(lines)
        assert "# " in "\n".join(lines), "the legend"
    assert "\n".join(lines).isascii()


def test_what_has_no_data_is_a_sentence() -> None:
    assert (
        text(Histogram.of([], deadline_ms=5_000))
        == "No answer was timed that could be held against the deadline of 5,000 ms."
    )
    assert text(BurnUp.of({}, clearance=60)) == "Nothing was counted over time, so there is nothing to draw."


def test_a_pipe_gets_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    show(review())
    assert capsys.readouterr().out == f"{REVIEW}\n"


def terminal(width: int, encoding: str = "utf-8") -> tuple[Console, io.TextIOWrapper]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="")
    return Console(file=stream, width=width, force_terminal=True, color_system="standard", legacy_windows=False), stream


def shown(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


def test_a_terminal_gets_colours_and_blocks() -> None:
    console, stream = terminal(60)
    show(Histogram.of([45, 50, 70, 190, 210, 290], deadline_ms=200), console)
    printed = shown(stream)
    assert "\x1b[32m█" in printed
    assert "\x1b[1;31m█" in printed
    assert "┃" in printed
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in printed.splitlines()) <= 60


def test_a_terminal_without_unicode_gets_ascii() -> None:
    console, stream = terminal(80, "latin-1")
    show(review(), console)
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown(stream)) == f"{REVIEW}\n"


def test_what_does_not_fit_is_cut_off() -> None:
    canvas = Canvas(4, 1)
    canvas.put(0, -1, "abcdefg", "red")
    assert canvas.lines() == ["bcde"]
    assert canvas.rich().plain == "bcde"
