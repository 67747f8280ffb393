"""Which notifications of a rehearsal have a fault, and that a seed gives the same ones again; the demo's, too."""

from __future__ import annotations

from collections import Counter

import pytest

from optimove_conditional_execution import ConfigurationError
from optimove_conditional_execution.rehearsal.plan import ALL_SCENARIOS_COUNT, FaultKind, demo_plan, plan

FAULTS: dict[FaultKind, float] = {"duplicate": 20, "late": 10, "forged": 30, "oversize": 5}


def test_a_seed_gives_the_same_customers_and_faults() -> None:
    first = plan(200, faults=FAULTS, users=(), seed=5)
    assert plan(200, faults=FAULTS, users=(), seed=5) == first
    assert plan(200, faults=FAULTS, users=(), seed=6) != first
    assert len({planned.user_id for planned in first}) == 200


def test_other_faults_leave_the_customers_as_they_are() -> None:
    clean = plan(50, faults={}, users=(), seed=5)
    faulty = plan(50, faults={"forged": 50}, users=(), seed=5)
    assert {planned.fault for planned in clean} == {None}
    assert Counter(planned.user_id for planned in clean) == Counter(planned.user_id for planned in faulty)


def test_the_shares_are_met() -> None:
    planned = plan(200, faults=FAULTS, users=(), seed=1)
    counts = Counter(one.fault for one in planned)
    assert counts == {"duplicate": 40, "late": 20, "forged": 60, "oversize": 10, None: 70}
    forgeries = Counter(one.forgery for one in planned if one.fault == "forged")
    assert set(forgeries) == {"a wrong signature", "no signature", "a body changed after it was signed"}
    assert {one.forgery for one in planned if one.fault != "forged"} == {None}
    assert {one.at_once for one in planned if one.fault == "duplicate"} == {True, False}
    assert {one.at_once for one in planned if one.fault != "duplicate"} == {False}


def test_each_kind_comes_at_least_once() -> None:
    planned = plan(5, faults=dict.fromkeys(FAULTS, 1.0), users=(), seed=1)
    assert Counter(one.fault for one in planned) == {"duplicate": 1, "late": 1, "forged": 1, "oversize": 1, None: 1}


@pytest.mark.parametrize("seed", range(20))
def test_a_late_one_has_a_neighbour_before_it(seed: int) -> None:
    assert plan(4, faults={"late": 50, "forged": 25}, users=(), seed=seed)[0].fault is None
    assert plan(2, faults={"late": 50, "duplicate": 50}, users=(), seed=seed)[0].fault == "duplicate"


def test_given_customers_are_taken_in_turn() -> None:
    planned = plan(5, faults={}, users=("a", "b"), seed=1)
    assert [one.user_id for one in planned] == ["a", "b", "a", "b", "a"]


def test_too_many_faults_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="4 of 3 notifications would have a fault"):
        plan(3, faults=dict.fromkeys(FAULTS, 1.0), users=(), seed=1)
    with pytest.raises(ConfigurationError, match="needs one that is in time"):
        plan(3, faults={"late": 50, "forged": 34}, users=(), seed=1)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 40, 300])
def test_a_demo_has_as_many_posts_as_asked_for(count: int) -> None:
    planned = demo_plan(count, seed=count)
    assert sum(2 if one.fault == "duplicate" else 1 for one in planned) == count
    assert len({one.user_id for one in planned}) == len(planned)
    if count >= ALL_SCENARIOS_COUNT:
        assert {one.scenario for one in planned} == {
            "eligible", "self-excluded", "slow backend", "failing backend", "undecided", "forged", "duplicate",
        }  # fmt: skip


def test_a_seed_makes_the_same_demo_again() -> None:
    assert ALL_SCENARIOS_COUNT == 8
    assert demo_plan(40, seed=1) == demo_plan(40, seed=1)
    assert demo_plan(40, seed=1) != demo_plan(40, seed=2)
