"""A status update that is refused for its size goes out in smaller ones, and the books stay right."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from pathlib import Path

import pytest

from optimove_conditional_execution import APIError, CustomerBatch, Deadline, Request, Response
from optimove_conditional_execution.flows.journal import FIRST_DENIAL
from optimove_conditional_execution.flows.ledger import Chunk
from optimove_conditional_execution.review.pipeline import Pipeline
from optimove_conditional_execution.stores import MemoryJournal, SqliteDecisionLog
from optimove_conditional_execution.testing import FakeOptimove
from tests.review.conftest import Rig, everybody, odd

PAGE = b"<html><head><title>413 Request Entity Too Large</title></head></html>"


class Narrow(FakeOptimove):
    """An Optimove behind a proxy that lets only small updates through."""

    def __init__(self, most: int, *, broken_after: int | None = None) -> None:
        super().__init__()
        self.most = most
        self.broken_after = broken_after
        self.sizes: list[int] = []

    def handle(self, request: Request) -> Response:
        if "UpdateCustomer" in request.path:
            self.sizes.append(len(json.loads(request.body)["PromosUpdated"]))
            if self.sizes[-1] > self.most:
                return Response(413, {"content-type": "text/html"}, PAGE)
            if self.broken_after is not None and sum(size <= self.most for size in self.sizes) > self.broken_after:
                return Response(400)
        return super().handle(request)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_a_review_sends_halves(colour: str) -> None:
    fake = Narrow(300)
    campaign = fake.add_campaign(2_500)
    journal = MemoryJournal()
    report = Rig(colour, fake).run(odd, campaign.event(), journal=journal, report_denied=True, chunk_size=1_000)
    assert report.complete, report
    assert report.acknowledged == len(campaign.statuses) == 2_500
    assert not campaign.contradictions
    # The second chunk may be cut before the first one is known to be too large.
    assert sum(size > 300 for size in fake.sizes) <= 8
    (kept,) = journal.reviews()
    assert journal.acknowledged(kept.event.key) == [(0, 1_250), (FIRST_DENIAL, FIRST_DENIAL + 1_250)]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_what_was_taken_of_a_halved_update_is_not_sent_again(colour: str) -> None:
    fake = Narrow(1_000, broken_after=1)
    campaign = fake.add_campaign(1_600)
    journal = MemoryJournal()
    rig = Rig(colour, fake)
    first = rig.run(everybody, campaign.event(), journal=journal)
    assert (first.acknowledged, first.complete) == (800, False)
    (kept,) = journal.reviews()
    assert journal.acknowledged(kept.event.key) == [(0, 800)]
    fake.broken_after = None
    fake.sizes.clear()
    second = rig.run(everybody, campaign.event(), journal=journal)
    assert (second.acknowledged, second.complete) == (1_600, True)
    assert fake.sizes == [800]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_who_refuses_a_hundred_is_not_asked_with_fewer(colour: str) -> None:
    fake = Narrow(0)
    campaign = fake.add_campaign(1_600)
    report = Rig(colour, fake).run(everybody, campaign.event())
    assert fake.sizes == [1_600, 800, 400, 200, 100]
    assert isinstance(report.error, APIError)
    assert report.error.status == 413
    assert (report.acknowledged, report.complete) == (0, False)


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_the_clients_own_method_sends_halves(colour: str) -> None:
    fake = Narrow(3_000)
    campaign = fake.add_campaign(12_500)
    statuses = {f"C{number:07d}": True for number in range(1, 12_501)}

    async def go() -> int:
        async with fake.async_client() as client:
            return await client.update_customer_promotion_status(campaign.campaign_id, statuses)

    if colour == "sync":
        with fake.client() as client:
            told = client.update_customer_promotion_status(campaign.campaign_id, statuses)
    else:
        told = asyncio.run(go())
    assert told == len(campaign.statuses) == 12_500
    assert sum(size > 3_000 for size in fake.sizes) <= 3


def test_the_client_says_what_was_acknowledged_before_it_gave_up() -> None:
    fake = Narrow(1_000, broken_after=1)
    campaign = fake.add_campaign(1_600)
    with fake.client() as client, pytest.raises(APIError) as caught:
        client.update_customer_promotion_status(
            campaign.campaign_id, {f"C{number:07d}": True for number in range(1, 1_601)}
        )
    assert caught.value.__notes__ == ["Optimove had acknowledged 800 customers before."]


def test_each_half_has_its_own_part_of_the_journal() -> None:
    first, second = Chunk(((5, 7), (9, 10), (12, 14)), "abcde").halves()
    assert first == Chunk(((5, 7),), "ab")
    assert second == Chunk(((9, 10), (12, 14)), "cde")
    assert second.halves()[1] == Chunk(((12, 14),), "de")
    assert first.approves
    assert not Chunk(((FIRST_DENIAL, FIRST_DENIAL + 2),), "de").approves


def test_a_half_that_is_refused_may_have_been_taken_with_the_whole(tmp_path: Path) -> None:
    fake = FakeOptimove()
    campaign = fake.add_campaign(200)

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        # Of the whole, once lost and then too large, and of its halves.
        fake.answer_next(Response(503), Response(413), Response(400), Response(400))
        return [customer.customer_id for customer in customers]

    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        report = Rig("sync", fake).run(reviewer, campaign.event(), decision_log=log)
        completions = [logged.completion for logged in log.decisions()]
    assert not report.complete
    assert len(campaign.statuses) == 200
    assert {done and (done.kind, done.taken) for done in completions} == {("undelivered", None)}


def test_clearance_that_comes_between_the_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeOptimove()
    campaign = fake.add_campaign(200, lead_seconds=2)
    clearance = time.monotonic() + 3.1  # the event names it in whole seconds, rounded up

    def wait_for_clearance(self: Pipeline) -> None:
        if len(fake.calls_of("update_customer_promotion_status")) == 3:  # the whole twice, and the first half
            time.sleep(max(0.0, clearance - time.monotonic()))

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        fake.answer_next(Response(503), Response(413))  # of the whole, which may have been taken before
        return [customer.customer_id for customer in customers]

    monkeypatch.setattr(Pipeline, "_look_at_clock", wait_for_clearance)
    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        report = Rig("sync", fake).run(reviewer, campaign.event(), decision_log=log, safety_margin=0.5)
        completions = [logged.completion for logged in log.decisions()]
    assert [(report.acknowledged, report.complete)] == [(100, False)]
    told = Counter((done.kind, done.taken) for done in completions if done is not None)
    assert told == {("acknowledged", True): 100, ("undelivered", None): 100}
