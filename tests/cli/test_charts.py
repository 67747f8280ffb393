"""Charts: no answer is lost, none is on the wrong side of the deadline, and a page is whole, escaped and silent."""

from __future__ import annotations

import gc
import io
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from optimove_conditional_execution.cli.charts import (
    MAX_SAMPLES,
    BurnUp,
    Histogram,
    ReviewSamples,
    Section,
    duration,
    number,
    page,
    show,
)
from optimove_conditional_execution.flows.report import Progress

LATENCY = st.one_of(st.integers(0, 10_000_000), st.floats(0, 1e7))
DEADLINE = st.one_of(st.integers(1, 3_600_000), st.floats(0.5, 3.6e6))
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>\" ' & [bold]\x00\x1b[31m\u202e\ud800 http://evil.example/"
)
BAR = r"(?: to [\d,.]+| s)  ([#.]*) ([\d,]+)$"
MADE = datetime(2026, 11, 24, 20, 31, 5, tzinfo=UTC)
REVIEW = BurnUp(
    {"decided": [(0, 0), (1, 400), (2, 1_000)], "acknowledged": [(0, 0), (1, 0), (2, 800)]},
    clearance=60, safety_margin=5, total=1_000,
)  # fmt: skip


def lines(chart: Histogram | BurnUp, *, width: int = 76) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(chart)
    file = console.file
    assert isinstance(file, io.StringIO)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def bars(chart: Histogram | BurnUp, *, width: int = 76) -> list[tuple[str, str]]:
    """Return each row's bar and number."""
    return [(found[1], found[2]) for line in lines(chart, width=width) if (found := re.search(BAR, line))]


@given(st.lists(LATENCY, min_size=1, max_size=60), DEADLINE)
def test_every_answer_is_in_the_bin_where_it_belongs(latencies: list[float], deadline_ms: float) -> None:
    bins = Histogram(latencies, deadline_ms=deadline_ms).bins
    assert sum(count for _, _, count in bins) == len(latencies)
    for index, (low, high, count) in enumerate(bins):
        assert count == sum((low < latency or not index) and latency <= high for latency in latencies)
    late = sum(latency > deadline_ms for latency in latencies)
    assert late == sum(count for low, _, count in bins if low >= deadline_ms)


@given(st.lists(LATENCY, min_size=1, max_size=60), DEADLINE)
def test_bins_are_in_order_few_and_end_at_the_deadline(latencies: list[float], deadline_ms: float) -> None:
    bins = Histogram(latencies, deadline_ms=deadline_ms).bins
    assert all(before[1] == after[0] for before, after in pairwise(bins))
    assert deadline_ms in {high for _, high, _ in bins}
    assert len(bins) <= 2 * len(latencies) + 2, "empty neighbours are one"


@pytest.mark.parametrize("width", [40, 76, 120])
@pytest.mark.parametrize(
    "chart",
    [
        Histogram([5] * 100_000 + [2_500], deadline_ms=2_000),
        Histogram([0], deadline_ms=1),
        REVIEW,
        BurnUp({"statuses reported": [(0, 0), (90, 7)]}, clearance=60),
    ],
)
def test_a_chart_fits_its_place_and_shows_even_one_of_many(chart: Histogram | BurnUp, width: int) -> None:
    assert max(map(len, lines(chart, width=width))) <= width
    assert bars(chart, width=width)
    for bar, count in bars(chart, width=width):
        assert bool(bar) == (count != "0")


def test_a_histogram_says_what_it_shows() -> None:
    chart = Histogram([31, 35, 34, 73, 2_500], deadline_ms=2_000, untimed_late=1)
    assert lines(chart)[0] == "Answers by latency, in ms"
    assert " ".join(lines(chart)).endswith(
        "5 answers. Half of them within 35 ms, the slowest took 2,500 ms. 1 came after the deadline of 2,000 ms. "
        "1 more came after it and could not be timed."
    )
    deadline = next(index for index, line in enumerate(lines(chart)) if "--- deadline 2,000 ms ---" in line)
    assert lines(chart)[deadline + 1].startswith("2,000 to 3,000  #")


def test_a_burn_up_says_what_it_shows() -> None:
    assert lines(REVIEW)[:2] == ["Customers over time, against clearance", ". decided   # acknowledged"]
    assert bars(REVIEW)[-1][1] == "1,000"
    assert set(bars(REVIEW)[-1][0]) == {"#", "."}
    assert " ".join(lines(REVIEW)).endswith(
        "After 2 s: 1,000 decided and 800 acknowledged of 1,000 customers. That was 58 s before clearance. "
        "The safety margin is 5 s."
    )
    late = BurnUp({"reported": [(0, 0), (65, 300)]}, clearance=60)
    assert late.sentence == "After 65 s: 300 reported. That was 5 s after clearance."


def test_a_quick_review_has_no_two_rows_of_the_same_time() -> None:
    quick = BurnUp({"decided": [(0, 0), (0.03, 5)]}, clearance=60)
    assert [line.split() for line in lines(quick)[2:-1]] == [["0.0", "s", "#" * 66, "5"]]
    seconds = [line.split(" s")[0] for line in lines(BurnUp({"decided": [(0, 0), (0.9, 5)]}, clearance=60))[2:-1]]
    assert len(seconds) == len(set(seconds)) == 9


def test_what_came_late_has_another_colour() -> None:
    def colours(chart: Histogram | BurnUp) -> list[str]:
        console = Console(file=io.StringIO(), width=76, force_terminal=True, color_system="standard")
        console.print(chart)
        file = console.file
        assert isinstance(file, io.StringIO)
        return [line for line in file.getvalue().splitlines() if "\x1b[1;31m█" in line]

    (late,) = colours(Histogram([10, 2_500], deadline_ms=2_000))
    assert "2,000 to 3,000" in late
    assert colours(Histogram([10, 2_000], deadline_ms=2_000)) == []
    after_clearance = colours(BurnUp({"reported": [(0, 0), (30, 100), (90, 300)]}, clearance=60))
    assert [line.split(" s")[0].strip() for line in after_clearance] == ["67.5", "75.0", "82.5", "90.0"]


@pytest.mark.parametrize(
    ("chart", "sentence"),
    [
        (Histogram([], deadline_ms=2_000), "No answer was timed that could be compared with the deadline of 2,000 ms."),
        (
            BurnUp.of_review([], total=None, safety_margin=5),
            "Nothing was counted over time, so there is nothing to draw.",
        ),
    ],
)
def test_without_data_a_chart_is_a_sentence(chart: Histogram | BurnUp, sentence: str) -> None:
    assert not chart.drawable
    assert " ".join(lines(chart)) == sentence


def test_in_a_pipe_it_is_plain_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    show(Histogram([1, 2, 5_000], deadline_ms=200))
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert "\x1b" not in printed


def test_numbers_and_times_as_people_read_them() -> None:
    assert [number(value) for value in (0, 0.15, 7, 1_500, 123.4)] == ["0", "0.15", "7", "1,500", "123"]
    assert [duration(value) for value in (1.44, 59, 200, 10_800, -5)] == ["1.4 s", "59 s", "3.3 min", "3 h", "-5 s"]


def progress(seconds: float, decided: int, campaign_id: int = 7) -> Progress:
    return Progress(
        campaign_id=campaign_id, rows=decided, reviewed=decided, approved=decided, denied=0, failed=0, acknowledged=0,
        all_read=True, rate=1.0, seconds=seconds, seconds_left=60.0, slack=None,
    )  # fmt: skip


@pytest.mark.parametrize("count", [1, MAX_SAMPLES, 10_001])
def test_samples_are_few_even_and_hold_both_ends(count: int) -> None:
    samples = ReviewSamples()
    for moment in range(count):
        samples(progress(moment, moment))
        samples(progress(moment, moment, campaign_id=8))
    kept = [sample.seconds for sample in samples.of(7)]
    assert (kept[0], kept[-1]) == (0, count - 1)
    assert len(kept) <= MAX_SAMPLES + 1
    assert len({after - before for before, after in pairwise(kept[:-1])}) <= 1
    assert samples.of(9) == []
    held = sum(isinstance(each, Progress) for each in gc.get_objects())
    assert held <= 2 * (MAX_SAMPLES + 2)


class Reader(HTMLParser):
    """Collects tags, attributes and text, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_has_everything_escaped_and_loads_nothing() -> None:
    hostile = Section(
        title=HOSTILE, ok=False, verdict=HOSTILE, facts=[(HOSTILE, HOSTILE)], findings=[HOSTILE], warnings=[HOSTILE],
        charts=[Histogram([1, 5_000], deadline_ms=200), BurnUp({HOSTILE: [(0, 0), (9, 5)]}, clearance=10)],
    )  # fmt: skip
    written = page(HOSTILE, [hostile], made=MADE)
    written.encode("utf-8")
    read = Reader(written)
    assert {tag for tag, _ in read.tags} == {
        *("html", "head", "meta", "title", "style", "body", "main", "pre", "span"),
    }, "nothing hostile became a tag"
    assert all(
        set(attributes) <= {"class", "charset", "content", "http-equiv", "name", "lang"} for _, attributes in read.tags
    )
    assert read.text.count("<script>alert(1)</script>") >= 6
    assert "[bold]" in read.text, "no markup of the terminal's either"
    assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800]", written)
    policy = next(attributes["content"] for _, attributes in read.tags if attributes.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert not re.search(r"url\(|@import", written)


def test_a_page_says_what_the_sections_say() -> None:
    section = Section(
        title="A triggered campaign", ok=True, verdict="Nothing lost.", facts=[("sent", "40")], charts=[REVIEW],
        warnings=["Look at this."],
    )  # fmt: skip
    written = page("A rehearsal", [section], made=MADE)
    text = " ".join(Reader(written).text.split())
    for part in (
        *(
            "A rehearsal",
            "24 November 2026, 20:31:05 UTC",
            "A triggered campaign",
            "✓ Nothing lost.",
            "? Look at this.",
        ),
        *("sent 40", "Customers over time, against clearance", "That was 58 s before clearance."),
    ):
        assert part in text
    assert len(written) < 6_000
