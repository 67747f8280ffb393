"""What a scheduled rehearsal finds in the books of the stand-in for Optimove, and rehearsals that nobody answers."""

from __future__ import annotations

import pytest

from optimove_conditional_execution import ConfigurationError
from optimove_conditional_execution.rehearsal import ScheduledRehearsal, ScheduledResult, TriggeredRehearsal
from optimove_conditional_execution.rehearsal.result import sentences
from optimove_conditional_execution.testing import Campaign, FakeOptimove


def campaign(*ids: str, late: bool = False) -> Campaign:
    held = FakeOptimove().add_campaign(5)
    held.take([(one, True) for one in ids], timestamp="", at_ms=held.clearance_ms + late)
    return held


def test_who_is_expected_and_who_is_not() -> None:
    result = ScheduledResult.of(campaign("C0000001", "C0000002"), [200], expected=["C0000002", "C0000003"])
    assert (result.ok, result.unapproved, result.missing, result.approved, result.reported) == (False, 1, 1, 2, 2)
    assert sentences(result.findings) == [
        "1 would get the campaign and must not: C0000001.",
        "1 should get the campaign and would not.",
    ]
    assert result.findings[1].user_ids == ("C0000003",)
    assert "! 1 would get the campaign" in str(result)
    assert ScheduledResult.of(campaign("C0000002"), [200], expected=["C0000002"]).ok
    assert ScheduledResult.of(campaign("C0000002"), [200]).ok


def test_what_else_is_wrong() -> None:
    held = campaign("C0000001", "C0000009")
    held.take([("C0000001", False)], timestamp="", at_ms=held.added_ms)
    held.take([("C0000002", True)], timestamp="", at_ms=held.clearance_ms + 1)
    result = ScheduledResult.of(held, [401])
    assert sentences(result.findings) == [
        "The listener gave HTTP 401 instead of HTTP 200: its token is not the one in the URL; set "
        "OPTIMOVE_LISTENER_TOKEN alike.",
        "1 came after clearance: what is late does not count.",
        "1 got two different answers.",
        "1 were reported, and are not in the campaign.",
    ]
    nobody = ScheduledResult.of(campaign("C0000001", late=True), [None])
    assert [finding.cause for finding in nobody.findings] == [
        "The listener gave no answer instead of HTTP 200",
        "1 came after clearance",
        "No customer was reported in time",
    ]


def test_a_rehearsal_without_anybody() -> None:
    result = TriggeredRehearsal(start_within=0.05).run()
    assert (result.ok, result.sent) == (False, 0)
    assert str(result.findings[0]) == ("No webhook was registered: your service calls client.ensure_webhook(url).")
    assert not ScheduledRehearsal().result().ok


def test_what_makes_no_sense_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="2 of 1 notification would have a fault"):
        TriggeredRehearsal(count=1, faults={"forged": 50, "late": 50})
    with pytest.raises(ConfigurationError, match="IANA name"):
        ScheduledRehearsal(timezone="Mars/Olympus")
