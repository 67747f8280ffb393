"""Status updates that take long, or are lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from optimove_conditional_execution import (
    AsyncCampaignReview,
    CampaignReview,
    Deadline,
    Request,
    Response,
    RetryPolicy,
    ReviewReport,
)
from optimove_conditional_execution.testing import FaultServer, faults
from optimove_conditional_execution.testing.campaigns import Campaign
from optimove_conditional_execution.testing.faults import Connection, Fault
from tests.review.conftest import everybody
from tests.transport.engines import ENGINES, Caller

IMPATIENT = RetryPolicy(attempt_timeout=0.3)
ACCEPTED = faults.answer("accepted", Response(200))


def slow(seconds: float) -> Fault:
    """Return what handles a request, and answers 200 so many seconds later."""

    async def play(line: Connection) -> None:
        await asyncio.sleep(seconds)
        await ACCEPTED.play(line)

    return Fault("slow", play, handled=True)


def update(client: Any) -> Any:
    return client.update_customer_promotion_status(1, {"A": True}, deadline=Deadline.after(20))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_slow_update_is_sent_once(engine: str) -> None:
    with FaultServer([slow(0.8)]) as server:
        server.optimove.add_campaign(["A"], campaign_id=1)
        assert Caller(engine).call(server, update, retry=IMPATIENT) == [1]
        assert [met.fault for met in server.met] == ["slow"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_lost_update_leaves_time_to_be_sent_once_more(engine: str) -> None:
    def soon(client: Any) -> Any:
        return client.update_customer_promotion_status(1, {"A": True}, deadline=Deadline.after(2.4))

    with FaultServer([faults.HANG]) as server:
        server.optimove.add_campaign(["A"], campaign_id=1)
        assert Caller(engine).call(server, soon, retry=RetryPolicy(attempt_timeout=1.2)) == [1]
        assert [met.fault for met in server.met] == ["hang", None]


def test_other_calls_keep_their_attempt_timeout() -> None:
    def webhooks(client: Any) -> Any:
        return client.get_webhooks()

    with FaultServer([faults.HANG]) as server:
        begun = time.monotonic()
        assert Caller("sync httpx").call(server, webhooks, retry=IMPATIENT, timeout=30.0) == [[]]
        assert time.monotonic() - begun < 15


def reviewed(server: FaultServer, campaign: Campaign, colour: str, **options: Any) -> ReviewReport:
    if colour == "sync":
        with server.client(retry=IMPATIENT) as client:
            return CampaignReview(everybody, client=client, **options).run(campaign.event())

    async def go() -> ReviewReport:
        async with server.async_client(retry=IMPATIENT) as client:
            return await AsyncCampaignReview(everybody, client=client, **options).run(campaign.event())

    return asyncio.run(go())


def updates_meet(meet: Callable[[int], Fault | None]) -> Callable[[Request], Fault | None]:
    """Return what lets the updates, by their number, meet faults."""
    count = 0

    def choose(request: Request) -> Fault | None:
        nonlocal count
        if not request.path.endswith("UpdateCustomerPromotionStatus"):
            return None
        count += 1
        return meet(count)

    return choose


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_one_slow_update_does_not_hold_the_others(colour: str) -> None:
    campaign: Campaign

    async def when_the_others_are_through(line: Connection) -> None:
        end = time.monotonic() + 30
        while len(campaign.statuses) < 400 and time.monotonic() < end:
            await asyncio.sleep(0.02)
        through.append(len(campaign.statuses))
        await ACCEPTED.play(line)

    through: list[int] = []
    held = Fault("held", when_the_others_are_through, handled=True)
    with FaultServer(updates_meet(lambda number: held if number == 1 else None)) as server:
        campaign = server.optimove.add_campaign(400, lead_seconds=60)
        report = reviewed(server, campaign, colour, chunk_size=100, safety_margin=2)
    assert through == [400]
    assert (report.complete, report.acknowledged, report.retries) == (True, 400, 0)
    assert not campaign.twice


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_only_a_few_updates_are_under_way_at_once(colour: str) -> None:
    at_once, most = 0, 0

    async def play(line: Connection) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.2)
        at_once -= 1
        await ACCEPTED.play(line)

    counted = Fault("counted", play, handled=True)
    with FaultServer(updates_meet(lambda number: counted)) as server:
        campaign = server.optimove.add_campaign(1_200, lead_seconds=60)
        report = reviewed(server, campaign, colour, chunk_size=100)
    assert (report.complete, report.acknowledged) == (True, 1_200)
    assert 2 <= most <= 4


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_slow_updates_hold_neither_the_journal_nor_the_next_page(colour: str) -> None:
    """All updates wait until every customer is decided about, which needs both."""

    async def play(line: Connection) -> None:
        end = time.monotonic() + 30
        while pages() < 7 and time.monotonic() < end:
            await asyncio.sleep(0.02)
        seen.append(pages())
        await ACCEPTED.play(line)

    def pages() -> int:
        return sum(met.method == "GET" for met in server.met)

    seen: list[int] = []
    held = Fault("held", play, handled=True)
    with FaultServer(updates_meet(lambda number: held)) as server:
        campaign = server.optimove.add_campaign(600, lead_seconds=60)
        report = reviewed(server, campaign, colour, chunk_size=100, batch_size=100, page_size=100)
    assert min(seen) == 7
    assert (report.complete, report.acknowledged) == (True, 600)
