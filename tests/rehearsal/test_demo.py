"""What counts as lost, what as late, that each post is counted once, and that the campaign is reconciled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from optimove_conditional_execution import CampaignCustomer, ConfigurationError, Deadline
from optimove_conditional_execution.handlers import AsyncCampaignReviewer
from optimove_conditional_execution.rehearsal import (
    Latencies,
    Observation,
    PlannedNotification,
    Reply,
    TriggeredResult,
)
from optimove_conditional_execution.rehearsal.demo import COMMAND, demo_scheduled, triggered_part
from optimove_conditional_execution.rehearsal.plan import demo_plan
from optimove_conditional_execution.rehearsal.service import started

SCENARIOS = {one.scenario: one for one in demo_plan(8, seed=1)}


def seen(
    scenario: str,
    statuses: tuple[int | None, ...],
    answer: bool | None = None,
    ignored: tuple[bool, ...] = (),
    latency_ms: int | None = None,
    user_id: str = "C1",
) -> Observation:
    planned = SCENARIOS[scenario]
    planned = PlannedNotification(user_id, fault=planned.fault, expected=planned.expected, scenario=planned.scenario)
    replies = tuple(
        Reply("http://127.0.0.1:9/x", 0.1, status=status, failure=None if status else "broken") for status in statuses
    )
    return Observation(planned, "uid", replies, answer, ignored, latency_ms)


@pytest.mark.parametrize(
    ("one", "counted"),
    [
        (seen("eligible", (200,), True), ["approved"]),
        (seen("eligible", (503,), True), ["lost"]),
        (seen("eligible", (200,), None), ["lost"]),
        (seen("eligible", (None,), None), ["lost"]),
        (seen("eligible", (200,), False), ["lost"]),
        (seen("eligible", (503,), None, (True,)), ["late"]),
        (seen("self-excluded", (200,), False), ["denied"]),
        (seen("self-excluded", (200,), None), ["lost"]),
        (seen("self-excluded", (200,), True), ["lost"]),
        (seen("slow backend", (200,), None), ["abstained"]),
        (seen("slow backend", (200,), True), ["lost"]),
        (seen("slow backend", (200,), False), ["denied"]),
        (seen("slow backend", (200,), None, (True,)), ["late"]),
        (seen("failing backend", (200,), None), ["abstained"]),
        (seen("failing backend", (500,), None), ["lost"]),
        (seen("undecided", (200,), None), ["abstained"]),
        (seen("undecided", (200,), True), ["lost"]),
        (seen("forged", (401,), None), ["forged"]),
        (seen("forged", (200,), None), ["lost"]),
        (seen("forged", (None,), None), ["lost"]),
        (seen("forged", (401,), True), ["lost"]),
        (seen("forged", (401,), False), ["lost"]),
        (seen("forged", (401,), None, (True,)), ["lost"]),
        (seen("duplicate", (200, 200), True), ["approved", "duplicates"]),
        (seen("duplicate", (200, 200), True, (True,)), ["approved", "lost"]),
        (seen("duplicate", (200, 200), True, (False,)), ["approved", "lost"]),
        (seen("duplicate", (200, 409), True), ["approved", "lost"]),
        (seen("duplicate", (200, None), True), ["approved", "lost"]),
        (seen("duplicate", (200, 200), None), ["lost", "duplicates"]),
    ],
)
def test_each_post_is_counted_once(one: Observation, counted: list[str]) -> None:
    result = TriggeredResult.of([one], deadline_ms=1_000)
    counts = triggered_part(result).numbers
    names = ("approved", "denied", "abstained", "forged", "duplicates", "lost", "late")
    assert {name: counts[name] for name in names if counts[name]} == dict.fromkeys(counted, 1)
    assert counts["sent"] == sum(counts[name] for name in ("decided", "forged", "duplicates", "lost", "late"))
    assert bool(result.findings) == bool({"lost", "late"} & set(counted))


def test_the_numbers_add_up() -> None:
    result = TriggeredResult.of(
        [
            seen("eligible", (200,), True, latency_ms=10, user_id="eligible-1"),
            seen("eligible", (200,), user_id="eligible-2"),
            seen("self-excluded", (200,), False, latency_ms=30),
            seen("slow backend", (200,), None, (True,), user_id="slow-4"),
            seen("forged", (401,)),
            seen("duplicate", (200, 200), True, latency_ms=20),
        ],
        deadline_ms=1_000,
        seed=5,
    )
    assert triggered_part(result).numbers == {
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
            "eligible-2 (eligible) should have been approved, and no answer came: the handler abstained, raised or was "
            "too slow, which the log of the service shows.",
            "slow-4 (slow backend) was approved after its deadline, too late to count: "
            "decide sooner, or abstain when time is up.",
        ],
        "seed": 5,
    }
    assert triggered_part(result).verdict == "1 lost, 1 late (--seed 5 plays it again)."


def test_percentiles_are_latencies_that_were_seen() -> None:
    assert Latencies.of(range(1, 101)) == Latencies(50, 95, 99, 100)
    assert Latencies.of([7]) == Latencies(7, 7, 7, 7)
    assert Latencies.of([]) == Latencies(None, None, None, None)
    assert str(Latencies.of([])) == "no answers"


async def everybody(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return [one.customer_id for one in customers]


async def nobody(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return []


async def broken(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    raise LookupError("C0000001")


@pytest.mark.parametrize(
    ("reviewer", "finding"),
    [
        (everybody, "42 would get the campaign and must not: C0000007, C0000014, C0000021 and others."),
        (nobody, "255 should get the campaign and would not."),
        (broken, "The review is incomplete: 1 batches failed: The reviewer raised LookupError."),
    ],
)
def test_what_does_not_add_up_is_a_finding(reviewer: AsyncCampaignReviewer, finding: str) -> None:
    # A reviewer that fails is asked again while there is time.
    scheduled = asyncio.run(demo_scheduled(300, on_progress=lambda _: None, reviewer=reviewer, lead_seconds=7.0))
    assert not scheduled.ok
    assert [each for each in scheduled.findings if each.startswith(finding)], scheduled.findings
    assert scheduled.verdict == "The review and the simulator differ."
    assert scheduled.numbers["findings"] == scheduled.findings


def test_the_campaign_is_reconciled_with_the_books() -> None:
    scheduled = asyncio.run(demo_scheduled(701, on_progress=lambda _: None))
    numbers = scheduled.numbers
    # Every seventh is excluded, every hundredth is in the control group, and the 700th is both.
    assert (numbers["customers"], numbers["control_group"], numbers["reviewed"]) == (701, 7, 694)
    assert (numbers["approved"], numbers["denied"]) == (701 - 100 - 7 + 1, 99)
    assert numbers["recipients"] == numbers["acknowledged"] == numbers["approved"] == numbers["largest_update"]
    assert (numbers["unapproved"], numbers["missing"], numbers["late"], numbers["updates"]) == (0, 0, 0, 1)
    assert (numbers["ok"], numbers["findings"]) == (True, [])
    assert scheduled.result.listener_statuses == (200, 200)


def test_the_sample_service_needs_its_settings() -> None:
    settings = {"OPTIMOVE_API_KEY": "k", "OPTIMOVE_BASE_URL": "not a url", "OPTIMOVE_WEBHOOK_SECRET": "s"}

    async def run() -> None:
        async with started(COMMAND, settings, is_sample=True) as service:
            await service.until(asyncio.sleep(60), within=60, what="start")

    with pytest.raises(ConfigurationError, match=r"The sample service ended.*OPTIMOVE_BASE_URL"):
        asyncio.run(run())
