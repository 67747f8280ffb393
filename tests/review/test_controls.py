"""The kill switch, a shadow and `observe=True` of reviews: nobody is told two things, and what is held back is said."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import (
    AsyncCampaignReview,
    CampaignCustomer,
    CampaignReview,
    ConfigurationError,
    CustomerBatch,
    Deadline,
    Decision,
    Response,
    RetryPolicy,
    ReviewReport,
)
from optimove_conditional_execution.flows import switch as flow
from optimove_conditional_execution.review import updates
from optimove_conditional_execution.shadow import Shadow, ShadowAnswer
from optimove_conditional_execution.stores import MemoryJournal, SqliteDecisionLog, SqliteJournal
from optimove_conditional_execution.switch import SwitchState, change_switch
from optimove_conditional_execution.testing import FakeOptimove
from tests.review.conftest import Rig, everybody, odd

pytestmark = pytest.mark.usefixtures("patient_switch")

PATIENCE = 20.0
ODD, EVEN = ("C0000001", "C0000003"), ("C0000002", "C0000004")


@pytest.fixture(autouse=True)
def looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LOOK_SECONDS", 0.0)


# ---- the switch


@pytest.mark.parametrize("report_denied", [False, True])
@pytest.mark.parametrize("says", ["deny", "abstain", "deny campaign {}", "abstain tag any"])
def test_it_answers_in_place_of_the_reviewer(
    rig: Rig, fake_optimove: FakeOptimove, tmp_path: Path, says: str, report_denied: bool
) -> None:
    campaign = fake_optimove.add_campaign(4)
    asked: list[int] = []

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> Any:
        asked.append(len(customers))
        return everybody(customers, deadline)

    said = says.format(campaign.campaign_id)
    journal = MemoryJournal()
    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        report = rig.run(
            reviewer,
            campaign.event(),
            switch=lambda: said,
            report_denied=report_denied,
            decision_log=log,
            journal=journal,
        )
        records = [each.record for each in log.decisions()]
    denies = said.startswith("deny")
    assert (asked, report.complete, report.approved, report.denied) == ([], True, 0, 4)
    assert (report.abstained, report.held_back) == (0 if denies else 4, 0)
    assert campaign.statuses == (dict.fromkeys((*ODD, *EVEN), False) if denies and report_denied else {})
    assert {(each.kind, each.verdict) for each in records} == {
        ("denied", "deny") if denies else ("abstained", "abstain")
    }
    assert {str(each.reason)[:17] for each in records} == {"The switch says: "}
    (batch,) = [each for each in journal.batches(campaign.event().key) if each.ids]
    assert len(batch.reasons) == 4


@pytest.mark.parametrize("says", ["ask", "deny campaign 1"])
def test_when_it_says_ask_all_is_as_usual(rig: Rig, fake_optimove: FakeOptimove, says: str) -> None:
    campaign = fake_optimove.add_campaign(4)
    report = rig.run(odd, campaign.event(), switch=lambda: says, report_denied=True)
    plain = fake_optimove.add_campaign(4)
    other = rig.run(odd, plain.event(), report_denied=True)
    assert campaign.statuses == plain.statuses
    ours, theirs = (each.to_json().split(", ") for each in (report, other))
    assert [a.split(":")[0] for a in ours] == [b.split(":")[0] for b in theirs]
    assert (report.complete, report.approved, report.held_back, report.warnings) == (True, 2, 0, other.warnings)


class Failing:
    """A switch that fails until it has been looked at a number of times."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    def __call__(self) -> str:
        self.left -= 1
        if self.left >= 0:
            raise ConnectionError("C0000001")
        return "ask"


def test_one_that_fails_approves_nobody_and_is_asked_again(rig: Rig, fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(4)
    report = rig.run(everybody, campaign.event(), switch=Failing(1_000))
    assert (report.complete, report.approved, report.failed, campaign.statuses) == (False, 0, 4, {})
    assert any("The switch failed: ConnectionError" in each for each in report.warnings)
    assert "C0000001" not in str(report)
    campaign = fake_optimove.add_campaign(4)
    report = rig.run(everybody, campaign.event(), switch=Failing(1))
    assert (report.complete, report.approved) == (True, 4)


def after_the_reviewer(path: Path, says: Any) -> Callable[[CustomerBatch, Deadline], Any]:
    """A reviewer that approves the odd, and after whose answer the switch is thrown."""

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> Any:
        change_switch(path, says) if says else path.unlink()
        return odd(customers, deadline)

    return reviewer


@pytest.mark.parametrize("report_denied", [False, True])
@pytest.mark.parametrize("says", ["deny", "abstain", None])
def test_thrown_in_the_middle_it_holds_back_what_was_not_sent(
    rig: Rig, fake_optimove: FakeOptimove, tmp_path: Path, says: str | None, report_denied: bool
) -> None:
    path = tmp_path / "switch"
    change_switch(path, "ask")
    campaign = fake_optimove.add_campaign(4)
    options: dict[str, Any] = {"switch": path, "report_denied": report_denied}
    with SqliteJournal(tmp_path / "journal.db") as journal, SqliteDecisionLog(tmp_path / "decisions.db") as log:
        options |= {"journal": journal, "decision_log": log}
        report = rig.run(after_the_reviewer(path, says), campaign.event(), **options)
        assert (report.complete, report.approved, report.held_back) == (False, 2, 2)
        assert str(report.error).startswith("Held back: The switch " + (f"says: {says}." if says else "failed: File"))
        told = dict.fromkeys(EVEN, False) if says == "deny" and report_denied else {}
        assert campaign.statuses == told
        held = [each for each in log.decisions() if each.record.kind == "approved"]
        assert {each.completion and each.completion.kind for each in held} == {"undelivered"}
        assert {each.completion and each.completion.taken for each in held} == {False}
        # It says ask again before clearance: nobody was told two things, and nobody is asked again.
        change_switch(path, "ask")
        again = rig.run(everybody, campaign.event(), **options)
        assert (again.complete, again.approved, again.held_back, again.error) == (True, 2, 0, None)
        assert campaign.statuses == dict.fromkeys(ODD, True) | (dict.fromkeys(EVEN, False) if report_denied else {})
        assert not campaign.contradictions
        held = [each for each in log.decisions() if each.record.kind == "approved"]
        assert {each.completion and each.completion.kind for each in held} == {"acknowledged"}


def test_thrown_between_two_updates_it_stops_the_second(
    fake_optimove: FakeOptimove, tmp_path: Path, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "UPDATES_AT_ONCE", 1)
    looks: list[int] = []
    campaign = fake_optimove.add_campaign(6)

    def switch() -> str:
        looks.append(1)
        return "ask" if len(campaign.updates) < 2 else "deny"

    report = rig.run(everybody, campaign.event(), switch=switch, chunk_size=1)
    assert len(campaign.statuses) == 2
    assert (report.approved, report.acknowledged, report.held_back, report.complete) == (6, 2, 4, False)


@pytest.mark.parametrize(("status", "held"), [(503, 0), (429, 6)])
def test_thrown_while_an_update_is_retried_it_stops_the_next_request(
    fake_optimove: FakeOptimove, tmp_path: Path, rig: Rig, status: int, held: int
) -> None:
    campaign = fake_optimove.add_campaign(6)
    update = "update_customer_promotion_status"

    def switch() -> str:
        return "deny" if fake_optimove.calls_of(update) else "ask"

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> Any:
        fake_optimove.answer_next(*[Response(status)] * 50)  # the last page has been read, so the next is the update
        return everybody(customers, deadline)

    journal = MemoryJournal()
    client_options = {"retry": RetryPolicy(attempts=50, first_pause=0.3, longest_pause=0.3)}
    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        report = rig.run(
            reviewer, campaign.event(), switch=switch, journal=journal, decision_log=log, client_options=client_options
        )
        sent = len(fake_optimove.calls_of(update))
        completions = {each.completion and (each.completion.kind, each.completion.taken) for each in log.decisions()}
    # A pause of ours is random and can be shorter than it takes to look; 50 requests would have taken 7 s.
    assert 1 <= sent < 20
    assert (report.approved, report.acknowledged, report.held_back, report.complete) == (6, 0, held, False)
    assert str(report.error).startswith("Held back: The switch says: deny. The journal keeps what was decided.")
    assert ("An earlier request may have reached Optimove: unknown." in str(report.error)) == (status == 503)
    assert completions == {("undelivered", None if status == 503 else False)}
    fake_optimove._planned.clear()
    again = rig.run(everybody, campaign.event(), journal=journal)
    assert (again.complete, again.acknowledged, campaign.contradictions) == (True, 6, set())


@pytest.mark.parametrize("is_odd_at_once", [True, False])
def test_a_state_that_was_changed_to_something_odd_approves_nobody(
    fake_optimove: FakeOptimove, rig: Rig, is_odd_at_once: bool
) -> None:
    campaign = fake_optimove.add_campaign(4)
    modes: dict[str, Any] = {}
    state = SwitchState(campaigns=modes)

    def switch() -> SwitchState:
        if is_odd_at_once or fake_optimove.calls_of("update_customer_promotion_status"):
            modes[str(campaign.campaign_id)] = "stop"
        return state

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> Any:
        fake_optimove.answer_next(*[Response(429)] * 50)
        return everybody(customers, deadline)

    client_options = {"retry": RetryPolicy(attempts=50, first_pause=0.3, longest_pause=0.3)}
    report = rig.run(reviewer, campaign.event(), switch=switch, client_options=client_options)
    assert (report.complete, report.acknowledged) == (False, 0)
    if is_odd_at_once:
        assert (report.approved, report.failed, campaign.statuses) == (0, 4, {})
        assert any("The switch failed: ConfigurationError" in each for each in report.warnings)
    else:
        assert (report.approved, report.held_back) == (4, 4)
        assert str(report.error).startswith("Held back: The switch failed: ConfigurationError: A switch says")


def test_thrown_while_approvals_are_retried_it_holds_back_no_denial(
    fake_optimove: FakeOptimove, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(updates, "UPDATES_AT_ONCE", 1)
    campaign = fake_optimove.add_campaign(4)
    stops: list[int] = []

    def switch() -> str:
        if not fake_optimove.calls_of("update_customer_promotion_status"):
            return "ask"
        stops.append(1)
        if len(stops) > 1:  # the review knows of the first one
            fake_optimove._planned.clear()
        return "deny"

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> Any:
        fake_optimove.answer_next(*[Response(429)] * 50)
        return odd(customers, deadline)

    client_options = {"retry": RetryPolicy(attempts=50, first_pause=0.2, longest_pause=0.2)}
    report = rig.run(reviewer, campaign.event(), switch=switch, report_denied=True, client_options=client_options)
    assert (report.complete, report.approved, report.acknowledged, report.held_back) == (False, 2, 2, 2)
    assert (report.chunks, fake_optimove.calls_of("update_customer_promotion_status")[-1].status) == (1, 200)


def test_a_submitted_review_goes_on_when_it_says_ask_again(
    rig: Rig, fake_optimove: FakeOptimove, tmp_path: Path
) -> None:
    path = tmp_path / "switch"
    change_switch(path, "ask")
    campaign = fake_optimove.add_campaign(4)
    timer = threading.Timer(0.8, change_switch, (path, "ask"))

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> Any:
        change_switch(path, "deny")
        timer.start()
        return odd(customers, deadline)

    (report,) = rig.submit(reviewer, campaign.event(), switch=path)
    timer.join()
    assert (report.complete, report.approved, report.held_back) == (True, 2, 0)
    assert campaign.statuses == dict.fromkeys(ODD, True)
    assert any("Held back: The switch says: deny." in each for each in report.warnings)


def test_a_coroutine_function(fake_optimove: FakeOptimove) -> None:
    async def switch() -> str:
        await asyncio.sleep(0)
        return "deny"

    async def go() -> ReviewReport:
        async with fake_optimove.async_client() as client:
            return await AsyncCampaignReview(everybody, client=client, switch=switch).run(campaign.event())

    campaign = fake_optimove.add_campaign(2)
    report = asyncio.run(go())
    assert (report.denied, campaign.statuses) == (2, {})
    with fake_optimove.client() as client, pytest.raises(ConfigurationError, match="switch must be a plain function"):
        CampaignReview(everybody, client=client, switch=switch)


# ---- observe


@pytest.mark.parametrize("report_denied", [False, True])
def test_observing_sends_nothing_and_records_what_it_would_have_said(
    rig: Rig, fake_optimove: FakeOptimove, tmp_path: Path, report_denied: bool
) -> None:
    campaign = fake_optimove.add_campaign(4)

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> Any:
        return {each: Decision.approve(reason="fine") for each in odd(customers, deadline)}

    with SqliteJournal(tmp_path / "journal.db") as journal, SqliteDecisionLog(tmp_path / "decisions.db") as log:
        options: dict[str, Any] = {"journal": journal, "decision_log": log, "report_denied": report_denied}
        report = rig.run(reviewer, campaign.event(), observe=True, **options)
        assert (campaign.statuses, fake_optimove.calls_of("update_customer_promotion_status")) == ({}, [])
        assert (report.complete, report.observed, report.would_approve) == (True, True, 2)
        assert (report.approved, report.denied, report.abstained, report.error) == (0, 4, 4, None)
        records = {each.record.subject.customer_id: each.record for each in log.decisions()}
        assert {each.kind for each in records.values()} == {"abstained"}
        assert {name: each.observed for name, each in records.items()} == {
            **dict.fromkeys(ODD, "approved"),
            **dict.fromkeys(EVEN, "denied"),
        }
        assert records[ODD[0]].reason == "observed, approved: fine"
        assert records[ODD[0]].differs
        assert ReviewReport.from_json(report.to_json()).observed
        # It is over.
        again = rig.run(reviewer, campaign.event(), **options)
        assert (again.would_approve, campaign.statuses) == (2, {})


def test_what_was_decided_before_it_observed_is_held_back(
    rig: Rig, fake_optimove: FakeOptimove, tmp_path: Path
) -> None:
    campaign = fake_optimove.add_campaign(4)
    path = tmp_path / "switch"
    journal = MemoryJournal()
    first = rig.run(after_the_reviewer(path, "deny"), campaign.event(), switch=lambda: "ask", journal=MemoryJournal())
    assert first.complete
    other = fake_optimove.add_campaign(4)
    change_switch(path, "ask")
    rig.run(after_the_reviewer(path, "deny"), other.event(), switch=path, journal=journal)
    report = rig.run(everybody, other.event(), observe=True, journal=journal)
    assert (report.complete, report.approved, report.held_back, other.statuses) == (False, 2, 2, {})
    assert str(report.error).startswith("Held back: observe=True")


# ---- a shadow


def test_a_shadow_is_asked_about_each_batch_and_never_counts(
    rig: Rig, fake_optimove: FakeOptimove, tmp_path: Path
) -> None:
    campaign = fake_optimove.add_campaign(10)
    told: list[ShadowAnswer] = []

    def rule(customers: Sequence[CampaignCustomer], deadline: Deadline) -> Any:
        answers: dict[str, Any] = {each.customer_id: Decision.deny("new rule") for each in customers}
        answers[customers[0].customer_id] = True
        answers[customers[1].customer_id] = "odd"
        return answers

    shadow = Shadow(rule, on_answer=told.append)
    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        report = rig.run(odd, campaign.event(), batch_size=5, concurrency=1, shadow=shadow, decision_log=log)
        assert shadow.wait(within=PATIENCE)
        records = [each.record for each in log.decisions() if each.record.kind == "shadow"]
        assert log.verify() is None
    assert (report.complete, report.approved, len(campaign.statuses)) == (True, 5, 5)
    counts = {
        ("approved", "approved"): 1,
        ("approved", "denied"): 3,
        ("approved", "failed"): 1,
        ("denied", "approved"): 1,
        ("denied", "denied"): 3,
        ("denied", "failed"): 1,
    }
    assert shadow.counts == counts
    assert sum(each.customers for each in told if each.differs) == 6
    # Of those about whom they agree there is the record of the review.
    assert len(records) == 6
    assert all(each.differs and each.verdict is None for each in records)
    assert {each.reason for each in records if each.observed == "denied"} == {"new rule"}
    assert all(each.error for each in records if each.observed == "failed")


@pytest.mark.parametrize("fault", [RuntimeError("C0000001"), 3, "hangs"])
def test_one_that_fails_or_hangs_delays_and_fails_nothing(rig: Rig, fake_optimove: FakeOptimove, fault: object) -> None:
    over = threading.Event()

    def rule(customers: Sequence[CampaignCustomer], deadline: Deadline) -> Any:
        if isinstance(fault, BaseException):
            raise fault
        if fault == "hangs":
            over.wait(PATIENCE)
        return fault

    campaign = fake_optimove.add_campaign(8)
    shadow = Shadow(rule, max_concurrency=1, timeout=0.6)  # a busy machine may begin it late
    began = time.monotonic()
    report = rig.run(odd, campaign.event(), batch_size=2, concurrency=1, shadow=shadow)
    assert time.monotonic() - began < PATIENCE / 2
    assert (report.complete, report.approved) == (True, 4)
    time.sleep(0.7 if fault == "hangs" else 0)
    over.set()
    assert shadow.wait(within=PATIENCE)
    if fault == "hangs":
        assert shadow.dropped == 6
        assert shadow.counts == {("reviewed", "dropped"): 6, ("approved", "late"): 1, ("denied", "late"): 1}
    else:
        assert sum(shadow.counts.values()) == 8
        assert {observed for _, observed in shadow.counts} <= {"failed", "dropped"}


def test_a_coroutine_function_as_shadow(fake_optimove: FakeOptimove) -> None:
    async def rule(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        await asyncio.sleep(0)
        return []

    shadow = Shadow(rule)

    async def go() -> ReviewReport:
        async with fake_optimove.async_client() as client:
            report = await AsyncCampaignReview(everybody, client=client, shadow=shadow).run(campaign.event())
            assert await asyncio.to_thread(shadow.wait)
            return report

    campaign = fake_optimove.add_campaign(3)
    assert asyncio.run(go()).approved == 3
    assert shadow.counts == {("approved", "denied"): 3}
    plain: Any = shadow
    with fake_optimove.client() as client, pytest.raises(ConfigurationError, match="An async shadow needs"):
        CampaignReview(everybody, client=client, shadow=plain)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"observe": 1}, "observe must be True or False"),
        ({"switch": 3}, "switch must be a function"),
        ({"switch": lambda campaign: "ask"}, "switch must take no argument"),
        ({"shadow": lambda: ()}, "shadow must take two arguments"),
    ],
)
def test_what_is_invalid_is_refused(rig: Rig, fake_optimove: FakeOptimove, options: Any, words: str) -> None:
    campaign = fake_optimove.add_campaign(1)
    with pytest.raises(ConfigurationError, match=words):
        rig.run(everybody, campaign.event(), **options)


def test_under_gevent_and_after_a_fork() -> None:
    program = Path(__file__).with_name("controls_program.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    counts = told.pop("counts")
    assert told == {"approved": 500, "kinds": [True] * 3, "idle": True, "child": 0}
    assert sum(counts.values()) == 500
    assert counts["denied"] > 0
