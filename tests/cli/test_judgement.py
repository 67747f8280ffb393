"""What counts as lost, what as late, and that each post is counted once."""

from __future__ import annotations

import pytest

from optimove_conditional_execution.cli.judgement import Observation, Summary, VerdictKind, judge
from optimove_conditional_execution.cli.latencies import Latencies
from optimove_conditional_execution.cli.scenarios import (
    ALL_SCENARIOS_COUNT,
    DUPLICATE,
    ELIGIBLE,
    FAILING,
    FORGED,
    SELF_EXCLUDED,
    SLOW,
    UNDECIDED,
    Scenario,
    cast,
)


@pytest.mark.parametrize(
    ("scenario", "statuses", "answer", "ignored", "verdicts"),
    [
        (ELIGIBLE, (200,), True, (), ["approved"]),
        (ELIGIBLE, (503,), True, (), ["approved"]),
        (ELIGIBLE, (200,), None, (), ["lost"]),
        (ELIGIBLE, (None,), None, (), ["lost"]),
        (ELIGIBLE, (200,), False, (), ["lost"]),
        (ELIGIBLE, (503,), None, (True,), ["late"]),
        (SELF_EXCLUDED, (200,), False, (), ["denied"]),
        (SELF_EXCLUDED, (200,), None, (), ["lost"]),
        (SELF_EXCLUDED, (200,), True, (), ["lost"]),
        (SLOW, (200,), None, (), ["abstained"]),
        (SLOW, (200,), True, (), ["lost"]),
        (SLOW, (200,), False, (), ["denied"]),
        (SLOW, (200,), None, (True,), ["late"]),
        (FAILING, (200,), None, (), ["abstained"]),
        (FAILING, (500,), None, (), ["lost"]),
        (UNDECIDED, (200,), None, (), ["abstained"]),
        (UNDECIDED, (200,), True, (), ["lost"]),
        (FORGED, (401,), None, (), ["forged"]),
        (FORGED, (200,), None, (), ["lost"]),
        (FORGED, (None,), None, (), ["lost"]),
        (FORGED, (401,), True, (), ["lost"]),
        (FORGED, (401,), False, (), ["lost"]),
        (FORGED, (401,), None, (True,), ["lost"]),
        (DUPLICATE, (200, 200), True, (), ["approved", "duplicate"]),
        (DUPLICATE, (200, 200), True, (True,), ["approved", "duplicate"]),
        (DUPLICATE, (200, 200), True, (False,), ["approved", "lost"]),
        (DUPLICATE, (200, 409), True, (), ["approved", "lost"]),
        (DUPLICATE, (200, None), True, (), ["approved", "lost"]),
        (DUPLICATE, (200, 200), None, (), ["lost", "duplicate"]),
    ],
)
def test_verdicts(
    scenario: Scenario,
    statuses: tuple[int | None, ...],
    answer: bool | None,
    ignored: tuple[bool, ...],
    verdicts: list[VerdictKind],
) -> None:
    seen = Observation(scenario, "C1", statuses, answer, ignored)
    found = judge(seen)
    assert [verdict.kind for verdict in found] == verdicts
    for verdict in found:
        assert (verdict.finding is not None) == (verdict.kind in ("lost", "late"))

    summary = Summary.of([seen], deadline_ms=1000)
    assert summary.ok == (not {"lost", "late"} & set(verdicts))
    assert summary.sent == summary.decided + summary.forged + summary.duplicates + summary.lost + summary.late


def test_a_summary_adds_up() -> None:
    seen = [
        Observation(ELIGIBLE, "eligible-1", (200,), True, latency_ms=10),
        Observation(ELIGIBLE, "eligible-2", (200,), None),
        Observation(SELF_EXCLUDED, "excluded-3", (200,), False, latency_ms=30),
        Observation(SLOW, "slow-4", (503,), None, (True,)),
        Observation(FORGED, "eligible-5", (401,)),
        Observation(DUPLICATE, "eligible-6", (200, 200), True, latency_ms=20),
    ]
    summary = Summary.of(seen, deadline_ms=1000)
    assert summary.as_json() == {
        "ok": False,
        "sent": 7,
        "decided": 3,
        "approved": 2,
        "denied": 1,
        "abstained": 0,
        "forged": 1,
        "duplicates": 1,
        "lost": 1,
        "late": 1,
        "latency_ms": {"p50": 20, "p95": 30, "p99": 30, "max": 30},
        "deadline_ms": 1000,
        "findings": [
            "eligible-2 (eligible): it should have been approved, and no answer came",
            "slow-4 (slow backend): the answer came after the deadline",
        ],
    }


def test_percentiles_are_latencies_that_were_seen() -> None:
    assert Latencies.of(range(1, 101)) == Latencies(50, 95, 99, 100)
    assert Latencies.of([7]) == Latencies(7, 7, 7, 7)
    assert Latencies.of([]) == Latencies(None, None, None, None)
    assert str(Latencies.of([])) == "no answers"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 40, 300])
def test_a_cast_has_as_many_posts_as_asked_for(count: int) -> None:
    parts = cast(count, seed=count)
    assert sum(part.scenario.copies for part in parts) == count
    assert len({part.user_id for part in parts}) == len(parts)
    if count >= ALL_SCENARIOS_COUNT:
        assert {part.scenario for part in parts} == {
            ELIGIBLE, SELF_EXCLUDED, SLOW, FAILING, UNDECIDED, FORGED, DUPLICATE,
        }  # fmt: skip


def test_a_seed_makes_the_same_cast_again() -> None:
    assert cast(40, seed=1) == cast(40, seed=1)
    assert cast(40, seed=1) != cast(40, seed=2)
