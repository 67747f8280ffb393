"""The demo: a triggered rehearsal of the sample service, and a scheduled one of a review in this process.

It returns plain values; the tables that show them, with their columns, are in `cli.console`.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from ..adapters.asgi import ASGIApp
from ..client import AsyncOptimoveClient
from ..deadline import Deadline
from ..flows.report import Progress, ReviewReport
from ..handlers import AsyncCampaignReviewer
from ..models.campaign import CampaignCustomer
from ..receivers import AsyncListenerReceiver
from ..review import AsyncCampaignReview
from ..settings import BASE_URL_VARIABLE
from ..stores import SqliteJournal
from ..testing import FakeOptimove
from . import sample_service
from .base import served, simulated
from .checks import Observation
from .plan import demo_plan
from .result import ScheduledResult, TriggeredResult, sentences
from .scheduled import announced, registered_listener
from .triggered import TriggeredRehearsal

DEMO_CUSTOMERS: Final = 25_000

SAFETY_MARGIN: Final = 5.0
"""Seconds before clearance from which on the demo's reviewer gets no new batches."""

_SPREAD_SECONDS: Final = 3.0
_RATES: Final = (10.0, 50.0)
_BATCH: Final = 500
_LOOK_UP_SECONDS: Final = 0.1
_CONTROL_EVERY: Final = 100
_EXCLUDED_EVERY: Final = 7
_ANNOUNCEMENTS: Final = 2
"""Optimove may post an event twice; it must be reviewed once."""


@final
@dataclass(frozen=True, slots=True)
class DemoTriggered:
    """The first part of the demo, the triggered campaign; `sent = decided + forged + duplicates + lost + late`.

    Attributes:
        result: Of the rehearsal.
    """

    result: TriggeredResult

    @property
    def ok(self) -> bool:
        """Whether nothing was lost and nothing was late."""
        return self.result.ok

    @property
    def findings(self) -> list[str]:
        """A sentence for each error."""
        return [*sentences(self.result.findings), *self.result.hints]

    @property
    def verdict(self) -> str:
        """The result as a sentence."""
        counts = self.counts()
        went = "Nothing lost, nothing late" if self.ok else f"{counts['lost']} lost, {counts['late']} late"
        return f"{went} (--seed {self.result.seed} plays it again)."

    def counts(self) -> dict[str, int]:
        """Return the numbers with their names, in the order in which they are shown."""
        result = self.result
        decided = {name: getattr(result, name) for name in ("approved", "denied", "abstained")}
        refused, repeated = (result.faults.get(kind, (0, 0))[1] for kind in ("forged", "duplicate"))
        lost = result.wrong - result.late
        shown = {**decided, "forged": refused, "duplicates": repeated, "lost": lost, "late": result.late}
        return {"sent": result.sent, "decided": sum(decided.values()), **shown}

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, in the order in which they are shown."""
        numbers = [(name, str(value)) for name, value in self.counts().items()]
        return [*numbers, ("latency", str(self.result.latencies)), ("deadline", f"{self.result.deadline_ms} ms")]

    def as_json(self) -> dict[str, Any]:
        """Return its part of the JSON object of `demo --json`."""
        return {
            "ok": self.ok,
            **self.counts(),
            "latency_ms": self.result.latencies.as_json(),
            "deadline_ms": self.result.deadline_ms,
            "findings": self.findings,
            "seed": self.result.seed,
        }


@final
@dataclass(frozen=True, slots=True)
class DemoScheduled:
    """The second part of the demo: the review's report, compared with what the simulator has recorded.

    Attributes:
        result: Of the rehearsal.
        control: How many customers are in the control group.
        report: The review's report; None when it did not write just one.
    """

    result: ScheduledResult
    control: int
    report: ReviewReport | None

    @property
    def findings(self) -> list[str]:
        """A sentence for each difference."""
        found, report, result = sentences(self.result.findings), self.report, self.result
        if report is None:
            return [*found, "The review did not write one report."]
        if not report.complete:
            why = [] if report.error is None else [str(report.error)]
            found.append(f"The review is incomplete: {' '.join([*why, *report.warnings])}")
        if report.acknowledged != result.approved:
            found.append(f"The review says {report.acknowledged} acknowledged, the simulator {result.approved}.")
        if report.reviewed + report.control_group_rows != result.rows:
            found.append(
                f"{report.reviewed} reviewed and {report.control_group_rows} of the control group are not all."
            )
        return found

    @property
    def ok(self) -> bool:
        """Whether there is no difference."""
        return not self.findings

    @property
    def verdict(self) -> str:
        """The result as a sentence."""
        if self.ok:
            return (
                "All customers accounted for: no unapproved customer gets the campaign, and no approved one is missing."
            )
        return "The review and the simulator differ."

    def as_json(self) -> dict[str, Any]:
        """Return its part of the JSON object of `demo --json`."""
        report = self.report or ReviewReport(campaign_id=0)
        return {
            "ok": self.ok,
            "customers": self.result.rows,
            "control_group": self.control,
            **{name: getattr(report, name) for name in ("reviewed", "approved", "denied", "acknowledged")},
            "recipients": self.result.approved,
            **{name: getattr(self.result, name) for name in ("unapproved", "missing", "late")},
            "updates": len(self.result.updates),
            "largest_update": self.result.largest_update,
            "seconds": round(report.seconds, 3),
            "seconds_to_spare": round(report.seconds_to_spare, 3),
            "findings": self.findings,
        }

    def lines(self) -> list[tuple[str, str]]:
        """Return names and values, in the order in which they are shown."""
        numbers, result = self.as_json(), self.result
        return [
            ("customers", f"{result.rows:,}, {self.control:,} of them in the control group"),
            ("reviewed", f"{numbers['reviewed']:,} in {numbers['seconds']:.1f} s, once for two announcements"),
            ("approved", f"{numbers['approved']:,}"),
            ("denied", f"{numbers['denied']:,}"),
            ("updates", f"{numbers['updates']}, of {result.largest_update:,} at most"),
            ("to spare", f"{numbers['seconds_to_spare']:.0f} s before clearance"),
            ("recipients", f"{result.approved:,}, {result.unapproved} unapproved, {result.missing} missing"),
        ]


async def demo_triggered(
    posts: int,
    *,
    seed: int,
    timeout_ms: int,
    on_change: Callable[[Observation], object],
    command: Sequence[str] = sample_service.COMMAND,
) -> DemoTriggered:
    """Rehearse the sample service.

    Args:
        posts: Notifications to post, repeats included.
        seed: Repeats a run with the same customers in the same order.
        timeout_ms: Milliseconds that an answer may take.
        on_change: Called with what was observed so far of a notification.
        command: Starts the service, which registers its webhook.

    Raises:
        ConfigurationError: A server or the service did not start.
    """
    notifications = demo_plan(posts, seed=seed)
    slowest, fastest = _RATES
    rehearsal = TriggeredRehearsal(
        command=command,
        notifications=notifications,
        rate=min(max(len(notifications) / _SPREAD_SECONDS, slowest), fastest),
        deadline_ms=timeout_ms,
        seed=seed,
        on_change=on_change,
        is_sample=True,
    )
    return DemoTriggered(await rehearsal.arun())


async def look_up(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    """Look a batch up in a simulated register of self-excluded players.

    Args:
        customers: The batch.
        deadline: When the answer is due.
    """
    await asyncio.sleep(_LOOK_UP_SECONDS)
    return [one.customer_id for one in customers if int(one.customer_id[1:]) % _EXCLUDED_EVERY]


async def demo_scheduled(
    customers: int,
    *,
    on_progress: Callable[[Progress], None],
    reviewer: AsyncCampaignReviewer = look_up,
    lead_seconds: float = 60.0,
) -> DemoScheduled:
    """Put a campaign on hold, announce it twice, and let a review clear it.

    Args:
        customers: How many the campaign has.
        on_progress: Called with the progress of the review.
        reviewer: Decides about batches.
        lead_seconds: Seconds from the event to clearance.

    Raises:
        ConfigurationError: A server did not start.
        OptimoveError: The listener could not be registered.
    """
    fake = FakeOptimove(timezone="Europe/London")
    token = secrets.token_urlsafe(32)
    reports: list[ReviewReport] = []
    async with contextlib.AsyncExitStack() as stack:
        engine, settings = await stack.enter_async_context(simulated(fake, {}))
        client = await stack.enter_async_context(
            AsyncOptimoveClient(fake.api_key, base_url=settings[BASE_URL_VARIABLE], timezone=fake.timezone)
        )
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        review = AsyncCampaignReview(
            reviewer,
            client=client,
            journal=stack.enter_context(SqliteJournal(Path(folder) / "reviews.db")),
            batch_size=_BATCH,
            safety_margin=SAFETY_MARGIN,
            control_group="skip",
            progress=on_progress,
            on_report=reports.append,
        )
        url = await stack.enter_async_context(served(ASGIApp(AsyncListenerReceiver(review.submit, token=token))))
        await client.ensure_event_listener(f"{url}/campaigns?token={token}")
        campaign = fake.add_campaign(customers, lead_seconds=lead_seconds, control_every=_CONTROL_EVERY)
        listener = await registered_listener(fake)
        statuses = [await announced(engine, listener, campaign) for _ in range(_ANNOUNCEMENTS)]
        await review.aclose()
    numbers = range(1, customers + 1)
    allowed = [f"C{number:07d}" for number in numbers if number % _EXCLUDED_EVERY and number % _CONTROL_EVERY]
    result = ScheduledResult.of(campaign, statuses, expected=allowed)
    return DemoScheduled(result, customers // _CONTROL_EVERY, reports[0] if len(reports) == 1 else None)
