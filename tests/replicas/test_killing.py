"""The killing test over what needs no server: an SQLite file; and that it would see what it looks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.replicas.killing import Scenario, check, run, scenarios


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
