"""The killing test over what needs no server: an SQLite file; and that it would see what it looks for."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from optimove_conditional_execution.testing import FakeOptimove
from tests.replicas.killing import Fault, Scenario, Traffic, check, judged, run, scenarios


@pytest.mark.parametrize("scenario", scenarios(), ids=str)
def test_nothing_is_lost_over_sqlite(scenario: Scenario, tmp_path: Path) -> None:
    check(scenario, f"sqlite:{tmp_path / 'claims.db'}", tmp_path)


def test_replicas_that_share_nothing_ask_twice_and_contradict_each_other(tmp_path: Path) -> None:
    report = run(Scenario(replicas=2, deadline=4.0, sorts=(), seconds=1.0), "none", tmp_path)
    assert not report.unanswered, report.story(report.unanswered)
    # Where the machine stood still for a moment, there is a reason to ask again.
    assert len(report.asked_twice) > len(report.questions) / 2
    assert report.contradicted
    with pytest.raises(AssertionError):
        report.check()


@pytest.mark.parametrize(
    ("second", "outage", "frozen", "is_twice", "is_early"),
    [
        (9.0, None, None, True, False),  # the lease ran out, though its owner could have renewed it
        (9.0, (8.2, 8.7), None, False, False),
        (9.0, (1.0, 7.9), None, True, False),
        (8.3, (8.1, 8.2), None, False, True),  # taken over while it ran
        (8.5, (8.2, 8.4), None, False, False),  # the end of the server undid the renewal
        (8.5, (7.8, 7.9), None, True, True),  # it did not
        (9.2, None, (8.1, 9.1), False, False),  # a third one was frozen, and nobody got a lease until it went on
        (9.2, None, (8.7, 9.1), True, False),  # not for that long
        (9.2, None, (7.1, 8.1), True, False),  # they did
    ],
)
def test_the_reason_for_asking_again_is_looked_for(
    second: float,
    outage: tuple[float, float] | None,
    frozen: tuple[float, float] | None,
    is_twice: bool,
    is_early: bool,
    tmp_path: Path,
) -> None:
    traffic = Traffic(Scenario(replicas=3, deadline=5.0, sorts=()), FakeOptimove(), [], tmp_path, random.Random(0))
    traffic.sent["r"] = 7.5
    if frozen is not None:
        traffic.faults[2] = Fault("frozen", 0.0, 0.0, 0.0, *frozen)
    traffic.outages = [] if outage is None else [outage]
    (diary := tmp_path / "diary").write_text(
        "\n".join(
            json.dumps({"uid": "r", **line})
            for line in (
                {"what": "leased", "replica": 0, "since": 7.6, "at": 7.6, "lease": 0.8},
                {"what": "asked", "replica": 0, "at": 7.7},
                {"what": "leased", "replica": 0, "since": 8.0, "at": 8.0, "lease": 0.8},
                {"what": "asked", "replica": 1, "at": second},
            )
        )
    )
    report = judged(0, traffic, diary)
    assert (report.asked_twice, report.asked_early) == (["r"] * is_twice, ["r"] * is_early)
