"""Customers over time: samples in flat memory, an axis that shows the work and clearance, numbers at any moment."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimove_conditional_execution import CampaignReview
from optimove_conditional_execution.cli.pictures import BurnUp, ProgressSamples, ReviewSamples
from optimove_conditional_execution.cli.pictures.samples import evenly
from optimove_conditional_execution.cli.pictures.time_axis import TimeAxis
from optimove_conditional_execution.flows.report import Progress
from optimove_conditional_execution.testing import FakeOptimove

unhurried = settings(deadline=None)  # the machine may be busy


def progress(seconds: float, decided: int, *, campaign_id: int = 7, left: float = 60.0) -> Progress:
    return Progress(
        campaign_id=campaign_id,
        rows=decided,
        reviewed=decided,
        approved=decided // 2,
        denied=decided - decided // 2,
        failed=0,
        acknowledged=decided // 4,
        all_read=False,
        rate=1.0,
        seconds=seconds,
        seconds_left=left,
        slack=None,
    )


@unhurried
@given(st.integers(0, 5_000), st.integers(4, 40))
def test_samples_are_few_even_and_hold_both_ends(count: int, most: int) -> None:
    samples = ProgressSamples(most)
    for moment in range(count):
        samples(progress(float(moment), moment))
    kept = [one.seconds for one in samples.all()]
    assert len(kept) <= most
    assert len(kept) >= min(count, most // 2)
    if count:
        assert (kept[0], kept[-1]) == (0, count - 1)
        steps = {after - before for before, after in pairwise(kept[:-1])}
        assert len(steps) <= 1, "evenly spread, but for the latest"
        assert not steps or kept[-1] - kept[-2] <= steps.pop()


@unhurried
@given(st.integers(0, 500), st.integers(2, 40))
def test_evenly_keeps_both_ends(count: int, most: int) -> None:
    given_samples = [(float(index), index) for index in range(count)]
    kept = evenly(given_samples, most)
    assert len(kept) == min(count, most)
    assert list(kept) == sorted(set(kept))
    assert not count or (kept[0], kept[-1]) == (given_samples[0], given_samples[-1])


def test_reviews_at_the_same_time_are_kept_apart() -> None:
    samples = ReviewSamples()
    for moment in range(3):
        samples(progress(moment, 10 * moment, campaign_id=7))
        samples(progress(moment, 20 * moment, campaign_id=8))
    assert [one.reviewed for one in samples.of(7)] == [0, 10, 20]
    assert [one.reviewed for one in samples.of(8)] == [0, 20, 40]
    assert samples.of(9) == ()


SECONDS = st.floats(0.001, 1e6)


@unhurried
@given(SECONDS, SECONDS, st.one_of(st.none(), SECONDS))
def test_the_axis_holds_the_work_and_clearance_in_order(last: float, clearance: float, margin: float | None) -> None:
    asking_ends = None if margin is None else clearance - min(margin, clearance / 2)
    axis = TimeAxis.of(last=last, clearance=clearance, asking_ends=asking_ends)
    assert axis.broken == (last * 4 < clearance)
    assert axis.position(0) == 0
    assert 0 < axis.position(last) <= 1
    assert axis.clearance_at <= 1
    assert (axis.position(last) <= axis.clearance_at) == (last <= clearance)
    if axis.broken:
        assert axis.break_at is not None
        assert axis.position(axis.end) < axis.break_at < axis.clearance_at
        assert axis.position(last) >= 0.2, "the work is not in a corner"
    if axis.asking_ends_at is not None:
        assert axis.asking_ends_at <= axis.clearance_at
    for labels in axis.labels():
        places = [place for place, _ in labels]
        assert places[0] == 0
        assert all(0 <= place <= 1 for place in places)


@pytest.mark.parametrize(
    ("end", "shown"), [(1.5, "0.2 s"), (100.0, "20 s"), (600.0, "2 min"), (7_200.0, "0.5 h"), (86_400.0, "5 h")]
)
def test_the_axis_counts_in_the_unit_that_suits_it(end: float, shown: str) -> None:
    axis = TimeAxis(end=end, clearance=end, asking_ends=None, broken=False)
    labels = next(axis.labels())
    assert labels[1][1] == shown


def test_numbers_between_samples_stand_on_the_line() -> None:
    (series,) = BurnUp.of({"reported": [(2.0, 100), (0.0, 0), (4.0, 100)]}, clearance=10).series
    assert [series.at(moment) for moment in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, -1.0)] == [0, 50, 100, 100, 100, None, None]
    assert series.last == 100


def test_a_review_is_drawn_from_what_it_tells() -> None:
    picture = BurnUp.of_review([progress(1.0, 0), progress(3.0, 100, left=0.0)], total=200, safety_margin=5)
    assert [(one.name, one.points) for one in picture.series] == [
        ("decided", ((1.0, 0), (3.0, 100))),
        ("acknowledged", ((1.0, 0), (3.0, 25))),
    ]
    assert (picture.clearance, picture.asking_ends, picture.safety_margin, picture.total) == (61.0, 56.0, 5.0, 200)
    assert list(picture.levels) == [0, 50, 100, 150, 200]
    assert (
        picture.sentence
        == "After 3 s: 100 decided and 25 acknowledged of 200 customers. That was 58 s before clearance."
    )


def test_the_safety_margin_is_half_of_the_time_at_most() -> None:
    picture = BurnUp.of({"reported": [(0, 0), (1, 1)]}, clearance=20, safety_margin=30)
    assert (picture.asking_ends, picture.safety_margin) == (10, 10)


@pytest.mark.parametrize(
    "picture",
    [
        BurnUp.of_review([], total=None, safety_margin=30),
        BurnUp.of_review([progress(1.0, 0)], total=None, safety_margin=30),
        BurnUp.of({"reported": [(0.0, 0), (5.0, 0)]}, clearance=60),
        BurnUp.of({"reported": [(0.0, 5)]}, clearance=60),
        BurnUp.of({}, clearance=60),
    ],
)
def test_what_did_nothing_is_not_drawn(picture: BurnUp) -> None:
    assert not picture.drawable
    assert picture.sentence == "Nothing was counted over time, so there is nothing to draw."


def test_work_after_clearance_is_told() -> None:
    picture = BurnUp.of({"reported": [(0, 0), (25, 1)]}, clearance=20)
    assert picture.sentence == "After 25 s: 1 reported. That was 5 s after clearance."
    assert "broken" not in picture.caption


def test_a_real_review_is_drawn() -> None:
    fake = FakeOptimove()
    samples = ProgressSamples()
    with fake.client() as client:
        review = CampaignReview(
            lambda customers, deadline: [one.customer_id for one in customers[::2]],
            client=client,
            progress=samples,
            safety_margin=20.0,
        )
        report = review.run(fake.add_campaign(3_000, lead_seconds=60).event())
    picture = BurnUp.of_review(samples.all(), total=report.reviewed + report.not_reached, safety_margin=20.0)
    assert picture.drawable
    assert [one.last for one in picture.series] == [3_000, 1_500]
    assert picture.total == 3_000
    assert 55 < picture.clearance < 62
    assert picture.safety_margin == pytest.approx(20)
    assert "broken" in picture.caption
