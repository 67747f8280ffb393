"""A review of either colour, driven the same way."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from optimove_conditional_execution import (
    AsyncCampaignReview,
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    CustomerBatch,
    Deadline,
    ReviewReport,
)
from optimove_conditional_execution.flows import paging
from optimove_conditional_execution.review import asking, base, pipeline, timing
from optimove_conditional_execution.testing import FakeOptimove

Reviewer = Callable[[CustomerBatch, Deadline], Any]


def with_clearance_in(seconds: float, event: CampaignReadyEvent) -> Callable[[], float]:
    """Return a wall clock that shows an event's clearance so many seconds ahead; the event itself has whole seconds."""
    ahead = event.clearance_required_by.replace(tzinfo=dt.UTC).timestamp() - seconds - time.time()
    return lambda: time.time() + ahead


class Rig:
    """Runs a plain reviewer through one of the three ways to wire it.

    With `seconds`, clearance is so many seconds from now by the review's wall clock, whatever it is by Optimove's.
    """

    def __init__(self, colour: str, fake: FakeOptimove) -> None:
        self.colour = colour
        self.fake = fake

    def run(self, reviewer: Reviewer, event: CampaignReadyEvent, **options: Any) -> ReviewReport:
        client_options = options.pop("client_options", {})
        if "seconds" in options:
            options["wall_clock"] = with_clearance_in(options.pop("seconds"), event)
        if self.colour == "sync":
            with self.fake.client(**client_options) as client:
                plain: Any = reviewer
                return CampaignReview(plain, client=client, **options).run(event)

        async def coroutine(customers: CustomerBatch, deadline: Deadline) -> Any:
            return reviewer(customers, deadline)

        async def go() -> ReviewReport:
            async with self.fake.async_client(**client_options) as client:
                asked: Any = reviewer if self.colour == "async, plain reviewer" else coroutine
                return await AsyncCampaignReview(asked, client=client, **options).run(event)

        return asyncio.run(go())

    def resume(self, reviewer: Reviewer, **options: Any) -> list[ReviewReport]:
        """Run what the journal holds."""
        if self.colour == "sync":
            plain: Any = reviewer
            with self.fake.client() as client:
                return CampaignReview(plain, client=client, **options).resume()

        async def coroutine(customers: CustomerBatch, deadline: Deadline) -> Any:
            return reviewer(customers, deadline)

        async def go() -> list[ReviewReport]:
            async with self.fake.async_client() as client:
                asked: Any = reviewer if self.colour == "async, plain reviewer" else coroutine
                return await AsyncCampaignReview(asked, client=client, **options).resume()

        return asyncio.run(go())

    def submit(self, reviewer: Reviewer, event: CampaignReadyEvent, **options: Any) -> list[ReviewReport]:
        """Submit an event, wait until its review is over, and return what `on_report` was told."""
        told: list[ReviewReport] = []
        client_options = options.pop("client_options", {})
        if "seconds" in options:
            options["wall_clock"] = with_clearance_in(options.pop("seconds"), event)
        if self.colour == "sync":
            plain: Any = reviewer
            with (
                self.fake.client(**client_options) as client,
                CampaignReview(plain, client=client, on_report=told.append, **options) as review,
            ):
                review.submit(event)
            return told

        async def coroutine(customers: CustomerBatch, deadline: Deadline) -> Any:
            return reviewer(customers, deadline)

        async def go() -> None:
            asked: Any = reviewer if self.colour == "async, plain reviewer" else coroutine
            async with (
                self.fake.async_client(**client_options) as client,
                AsyncCampaignReview(asked, client=client, on_report=told.append, **options) as review,
            ):
                await review.submit(event)

        asyncio.run(go())
        return told


@pytest.fixture(autouse=True)
def short_pauses_before_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again about customers whose decision failed after hundredths of a second."""
    monkeypatch.setattr(asking, "_FIRST_PAUSE", 0.02)


@pytest.fixture(params=["sync", "async", "async, plain reviewer"])
def rig(request: pytest.FixtureRequest, fake_optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """Every way to run a review; what waits for a second otherwise does so for tenths of it."""
    monkeypatch.setattr(paging, "_NOT_FOUND_PAUSE", 0.2)
    monkeypatch.setattr(paging, "_FIRST_PAUSE", 0.1)
    monkeypatch.setattr(timing, "_FIRST_PAUSE", 0.2)
    monkeypatch.setattr(pipeline, "_IDLE_SECONDS", 0.2)
    return Rig(request.param, fake_optimove)


@pytest.fixture
def short_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a journal that fails or hangs have tenths of a second after clearance."""
    monkeypatch.setattr(base, "_LAST_WORDS_SECONDS", 0.2)
    monkeypatch.setattr(base, "_STOPPED_SECONDS", 0.2)


both_colours = pytest.mark.parametrize("rig", ["sync", "async"], indirect=True)
"""For what does not depend on how the reviewer is called, but on journals, pages and time."""


def odd(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    """Approve every second generated customer."""
    return [customer.customer_id for customer in customers if int(customer.customer_id[1:]) % 2]


def everybody(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    """Approve everybody."""
    return [customer.customer_id for customer in customers]
