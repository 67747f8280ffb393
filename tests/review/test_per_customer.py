"""A function of one customer: its failures are told, and neither a deadline nor a call that hangs costs the others."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
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
    ReviewReport,
    per_customer,
)
from optimove_conditional_execution.review import asking, pipeline
from optimove_conditional_execution.testing import FakeOptimove
from tests.review.conftest import Rig
from tests.review.test_clocks import SteppingClock

CUSTOMERS = 5_000


def check_last_moment(report: ReviewReport) -> None:
    assert 0 < report.approved == report.acknowledged < CUSTOMERS
    assert report.not_reached == CUSTOMERS - report.approved
    assert not report.failed


@pytest.fixture
def much_time_to_hand_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave half a minute from the reviewer's deadline on, for a busy machine."""
    monkeypatch.setattr(pipeline, "HANDING_OVER_SECONDS", 60 * asking.HANDING_OVER_SECONDS)


class UntilTheDeadline:
    """Approves, and lets the wall clock pass the deadline of the batch at the hundredth customer."""

    def __init__(self) -> None:
        self.wall = SteppingClock()
        self.deadline = Deadline.after(600)
        self._asked = 0

    def one(self, customer: CampaignCustomer) -> bool:
        self._asked += 1
        if self._asked == 100:
            self.wall.step = self.deadline.remaining() + 1.0
        return True


@pytest.mark.usefixtures("much_time_to_hand_over")
def test_what_is_decided_by_the_deadline_goes_out(rig: Rig) -> None:
    until = UntilTheDeadline()
    one_by_one = per_customer(until.one, concurrency=2)

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> Any:
        until.deadline = deadline
        answer = one_by_one(customers, deadline)
        time.sleep(0.5)  # longer than the review takes to see that the deadline has passed
        return answer

    campaign = rig.fake.add_campaign(CUSTOMERS, lead_seconds=600)
    report = rig.run(reviewer, campaign.event(), batch_size=CUSTOMERS, wall_clock=until.wall)
    check_last_moment(report)
    assert len(campaign.recipients()) == report.approved


@pytest.mark.usefixtures("much_time_to_hand_over")
def test_what_coroutines_have_decided_by_the_deadline_goes_out() -> None:
    until = UntilTheDeadline()

    async def one(customer: CampaignCustomer) -> bool:
        await asyncio.sleep(0)
        return until.one(customer)

    one_by_one = per_customer(one, concurrency=2)

    async def reviewer(customers: CustomerBatch, deadline: Deadline) -> Any:
        until.deadline = deadline
        answer = await one_by_one(customers, deadline)
        await asyncio.sleep(0.5)
        return answer

    fake = FakeOptimove()
    campaign = fake.add_campaign(CUSTOMERS, lead_seconds=600)
    review = AsyncCampaignReview(reviewer, client=fake.async_client(), batch_size=CUSTOMERS, wall_clock=until.wall)
    check_last_moment(asyncio.run(review.run(campaign.event())))
    assert 0 < len(campaign.recipients()) < CUSTOMERS


ODD = "The function returned a NoneType; it must return True, False or a Decision."


def answer(customer: CampaignCustomer) -> Any:
    number = int(customer.customer_id[1:])
    if number % 10 == 0:
        raise KeyError(customer.customer_id)
    if number % 10 == 5:
        return None
    return Decision.approve() if number % 2 else False


async def answer_async(customer: CampaignCustomer) -> Any:
    return answer(customer)


@pytest.mark.parametrize("is_async", [False, True])
def test_the_report_says_why_customers_failed(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
    fake = FakeOptimove()
    event = fake.add_campaign(100).event()
    with caplog.at_level(logging.ERROR):
        if is_async:
            reviewer = per_customer(answer_async)
            report = asyncio.run(AsyncCampaignReview(reviewer, client=fake.async_client(), batch_size=20).run(event))
        else:
            report = CampaignReview(per_customer(answer), client=fake.client(), batch_size=20).run(event)
    assert (report.approved, report.denied, report.failed) == (40, 40, 20)
    assert sorted(report.warnings) == [
        "10 customers failed: The function raised KeyError.",
        f"10 customers failed: {ODD}",
    ]
    assert caplog.text.count("The function raised KeyError.") == 1
    assert "C0000010" not in caplog.text


def test_a_function_of_something_else_is_refused_at_once() -> None:
    def reviewer(customers: Any, deadline: Any) -> Any:
        return []

    odd: Any = reviewer
    with pytest.raises(ConfigurationError, match="one argument, the customer; reviewer"):
        per_customer(odd)


def test_functions_that_hang_do_not_keep_the_threads_of_the_next_campaign() -> None:
    fake, let_go = FakeOptimove(), threading.Event()

    def one(customer: CampaignCustomer) -> bool:
        if not let_go.is_set() and customer.promo_codes == ("HANG",):
            let_go.wait(60)
        return True

    rows = [{"CustomerID": f"A{number}", "PromoCode": "HANG"} for number in range(2)]
    review = CampaignReview(per_customer(one, concurrency=2), client=fake.client())
    try:
        first = review.run(fake.add_campaign(rows, lead_seconds=2).event())
        assert (first.approved, first.not_reached) == (0, 2)
        second = review.run(fake.add_campaign(100, lead_seconds=60).event())
        assert (second.approved, second.complete) == (100, True)
    finally:
        let_go.set()
