"""The demo's second half: a scheduled campaign on hold, announced to a listener, reviewed and reconciled, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.cli.campaigning import announced
from optimove_conditional_execution.cli.postman import Postman
from optimove_conditional_execution.cli.servers import Simulator, served
from optimove_conditional_execution.client import AsyncOptimoveClient
from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.flows.report import Progress, ReviewReport
from optimove_conditional_execution.handlers import AsyncCampaignReviewer
from optimove_conditional_execution.models.campaign import CampaignCustomer
from optimove_conditional_execution.receivers import AsyncListenerReceiver
from optimove_conditional_execution.review import AsyncCampaignReview
from optimove_conditional_execution.stores import SqliteJournal
from optimove_conditional_execution.testing import Campaign, FakeOptimove
from optimove_conditional_execution.transport.http import AsyncHttpEngine

CUSTOMERS: Final = 25_000

SAFETY_MARGIN: Final = 5.0
"""Seconds before clearance at which the demo's reviewer is not asked any more."""

_LEAD_SECONDS: Final = 60.0
_BATCH: Final = 500
_LOOK_UP_SECONDS: Final = 0.1
_CONTROL_EVERY: Final = 100
_EXCLUDED_EVERY: Final = 7
_ZONE: Final = "Europe/London"
_SHOWN: Final = 3


@final
@dataclass(frozen=True, slots=True)
class CampaignOutcome:
    """What the review said, beside what the simulator has, beside what should have come out.

    Attributes:
        customers: How many the campaign has.
        control: How many of them are in the control group.
        report: The review's report; None when it wrote none.
        notifications: What the listener answered to each announcement; None where no answer came.
        expected: Who is not excluded, by a calculation of its own.
        recipients: Who gets the campaign, by the simulator's books.
        updates: Status updates that the simulator took.
        largest: Statuses of the largest of them.
        late: Statuses that came after clearance.
        contradictions: Customers about whom the simulator was told two things.
    """

    customers: int
    control: int
    report: ReviewReport | None
    notifications: tuple[int | None, ...]
    expected: frozenset[str]
    recipients: frozenset[str]
    updates: int
    largest: int
    late: int
    contradictions: int

    @property
    def unapproved(self) -> int:
        """Customers who get the campaign and must not."""
        return len(self.recipients - self.expected)

    @property
    def missing(self) -> int:
        """Customers who should get the campaign and do not."""
        return len(self.expected - self.recipients)

    @property
    def findings(self) -> tuple[str, ...]:
        """A sentence for each thing that does not add up."""
        report = self.report
        found = []
        if any(status != 200 for status in self.notifications):
            found.append(f"the listener answered {self.notifications} instead of 200 each time")
        if self.unapproved:
            some = ", ".join(sorted(self.recipients - self.expected)[:_SHOWN])
            found.append(f"{self.unapproved} would get the campaign and must not: {some} ...")
        if self.missing:
            found.append(f"{self.missing} were approved and would not get the campaign")
        if self.late:
            found.append(f"{self.late} statuses came after clearance")
        if self.contradictions:
            found.append(f"two answers were given about {self.contradictions} customers")
        if report is None:
            return (*found, "the review wrote no report")
        if not report.complete:
            why = [] if report.error is None else [str(report.error)]
            found.append(f"the review is incomplete: {' '.join([*why, *report.warnings])}")
        if report.acknowledged != len(self.recipients):
            found.append(f"the review says {report.acknowledged} acknowledged, the simulator {len(self.recipients)}")
        if report.reviewed + report.control_group_rows != self.customers:
            found.append(f"{report.reviewed} reviewed and {report.control_group_rows} of the control group are not all")
        return tuple(found)

    @property
    def ok(self) -> bool:
        """Whether everything adds up."""
        return not self.findings

    @property
    def verdict(self) -> str:
        """How it went, as a sentence."""
        if self.ok:
            return (
                "Everybody accounted for: nobody gets the campaign unapproved, and nobody who was approved is missing."
            )
        return "It does not add up."

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of `--json`."""
        report = self.report or ReviewReport(campaign_id=0)
        return {
            "ok": self.ok,
            "customers": self.customers,
            "control_group": self.control,
            "reviewed": report.reviewed,
            "approved": report.approved,
            "denied": report.denied,
            "acknowledged": report.acknowledged,
            "recipients": len(self.recipients),
            "unapproved": self.unapproved,
            "missing": self.missing,
            "late": self.late,
            "updates": self.updates,
            "largest_update": self.largest,
            "seconds": round(report.seconds, 3),
            "seconds_to_spare": round(report.seconds_to_spare, 3),
            "findings": list(self.findings),
        }

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, in the order in which they are shown."""
        numbers = self.as_json()
        return [
            ("customers", f"{self.customers:,}, {self.control:,} of them in the control group"),
            ("reviewed", f"{numbers['reviewed']:,} in {numbers['seconds']:.1f} s, once for two announcements"),
            ("approved", f"{numbers['approved']:,}"),
            ("denied", f"{numbers['denied']:,}"),
            ("updates", f"{self.updates}, of {self.largest:,} at most"),
            ("to spare", f"{numbers['seconds_to_spare']:.0f} s before clearance"),
            ("recipients", f"{len(self.recipients):,}, {self.unapproved} unapproved, {self.missing} missing"),
        ]


async def look_up(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    """Ask a pretended register of self-excluded players about a batch.

    Args:
        customers: The batch.
        deadline: When the answer is due.
    """
    await asyncio.sleep(_LOOK_UP_SECONDS)
    return [one.customer_id for one in customers if int(one.customer_id[1:]) % _EXCLUDED_EVERY]


async def rehearse_campaign(
    customers: int, *, on_progress: Callable[[Progress], None], reviewer: AsyncCampaignReviewer = look_up
) -> CampaignOutcome:
    """Put a campaign on hold, announce it twice, and let a listener's review clear it.

    Args:
        customers: How many the campaign has.
        on_progress: Told how far the review is.
        reviewer: Decides about batches.

    Raises:
        ConfigurationError: A server did not start.
        OptimoveError: The listener could not be registered.
    """
    fake = FakeOptimove(api_key=secrets.token_urlsafe(24), timezone=_ZONE)
    token = secrets.token_urlsafe(32)
    reports: list[ReviewReport] = []
    async with contextlib.AsyncExitStack() as stack:
        base_url = await stack.enter_async_context(served(ASGIApp(Simulator(fake))))
        client = await stack.enter_async_context(AsyncOptimoveClient(fake.api_key, base_url=base_url, timezone=_ZONE))
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        journal = stack.enter_context(SqliteJournal(Path(folder) / "reviews.db"))
        review = AsyncCampaignReview(
            reviewer,
            client=client,
            journal=journal,
            batch_size=_BATCH,
            safety_margin=SAFETY_MARGIN,
            control_group="skip",
            progress=on_progress,
            on_report=reports.append,
        )
        receiver = AsyncListenerReceiver(review.submit, token=token)
        listener = f"{await stack.enter_async_context(served(ASGIApp(receiver)))}/campaigns?token={token}"
        await client.ensure_event_listener(listener)
        engine = await stack.enter_async_context(contextlib.aclosing(AsyncHttpEngine()))
        campaign = fake.add_campaign(customers, lead_seconds=_LEAD_SECONDS, control_every=_CONTROL_EVERY)
        # Optimove may tell twice; it must not be reviewed twice.
        statuses = [await announced(Postman(engine), listener, campaign) for _ in range(2)]
        await review.aclose()
        return _outcome(campaign, customers, reports[0] if len(reports) == 1 else None, tuple(statuses))


def _outcome(
    campaign: Campaign, customers: int, report: ReviewReport | None, statuses: tuple[int | None, ...]
) -> CampaignOutcome:
    numbers = range(1, customers + 1)
    allowed = (number for number in numbers if number % _EXCLUDED_EVERY and number % _CONTROL_EVERY)
    return CampaignOutcome(
        customers=customers,
        control=sum(number % _CONTROL_EVERY == 0 for number in numbers),
        report=report,
        notifications=statuses,
        expected=frozenset(f"C{number:07d}" for number in allowed),
        recipients=frozenset(campaign.recipients()),
        updates=len(campaign.updates),
        largest=max(campaign.calls, default=0),
        late=len(campaign.late),
        contradictions=len(campaign.contradictions),
    )
