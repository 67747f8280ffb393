"""The demo: a triggered rehearsal of the sample service, and a scheduled one of a review in this process.

Its parts are plain values; the tables that show them, with their columns, are in `cli.console`. Run as a program, this
module is the sample service: a small compliance gate, configured like any other by `OPTIMOVE_API_KEY`,
`OPTIMOVE_BASE_URL` and `OPTIMOVE_WEBHOOK_SECRET`. It registers its webhook, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Generic

from ..adapters.asgi import ASGIApp
from ..client import AsyncOptimoveClient
from ..deadline import Deadline
from ..errors import OptimoveError
from ..flows.report import Progress, ReviewReport
from ..handlers import AsyncCampaignReviewer, Decision
from ..models.campaign import CampaignCustomer
from ..models.notification import WebhookNotification
from ..receivers import AsyncListenerReceiver, AsyncWebhookReceiver
from ..review import AsyncCampaignReview
from ..settings import BASE_URL_VARIABLE, SECRET_VARIABLE
from ..stores import SqliteJournal
from ..testing import FakeOptimove
from .base import R, served, simulated
from .checks import Observation
from .plan import demo_plan
from .result import ScheduledResult, TriggeredResult, sentences
from .scheduled import announced, registered_listener
from .triggered import TriggeredRehearsal

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


# ---- the sample service

# -P: a file of the working directory must not stand in for a module of ours.
COMMAND: Final = (sys.executable, "-P", "-m", "optimove_conditional_execution.rehearsal.demo")

_REGISTER_SECONDS: Final = 0.03


async def decide(notification: WebhookNotification, deadline: Deadline) -> Decision | bool:
    """Look a customer up in a simulated player register, which answers by the prefix of the id.

    Args:
        notification: Who would get which campaign.
        deadline: When the answer is due.

    Raises:
        ConnectionError: The register is down for this customer.
    """
    await asyncio.sleep(_REGISTER_SECONDS)
    match notification.user.user_id.partition("-")[0]:
        case "eligible":
            return Decision.approve({"rule": "active player"})
        case "excluded":
            return Decision.deny("self-excluded", {"rule": "self-exclusion"})
        case "slow":
            await asyncio.sleep(deadline.remaining() + 1.0)
            return True  # far too late: the SDK must not send it
        case "failing":
            raise ConnectionError("the player register is down")
        case _:
            return Decision.abstain("not our player")


async def serve() -> None:
    """Serve the gate until standard input ends."""
    async with AsyncOptimoveClient() as client:
        receiver = AsyncWebhookReceiver(decide, client=client, secrets=os.environ[SECRET_VARIABLE])
        async with served(ASGIApp(receiver)) as url:
            await client.ensure_webhook(f"{url}/optimove")
            await asyncio.to_thread(_read_to_the_end)


def _read_to_the_end() -> None:
    """Return when standard input ends, as it does with the demo, even if that is killed."""
    while os.read(0, 1024):
        pass


# ---- the two parts


@dataclass(frozen=True, slots=True)
class DemoPart(Generic[R]):
    """A part of the demo, as it is shown.

    Attributes:
        result: Of the rehearsal.
        numbers: Its part of the JSON object of `demo --json`.
        lines: Names and values, in the order in which they are shown.
        verdict: The result as a sentence.
        findings: A sentence for each error.
        ok: Whether there is none.
    """

    result: R
    numbers: dict[str, Any]
    lines: list[tuple[str, str]]
    verdict: str
    findings: list[str]
    ok: bool


def triggered_part(result: TriggeredResult) -> DemoPart[TriggeredResult]:
    """Return the first part, the triggered campaign; `sent = decided + forged + duplicates + lost + late`."""
    decided = {name: getattr(result, name) for name in ("approved", "denied", "abstained")}
    forged, duplicates = (result.faults.get(kind, (0, 0))[1] for kind in ("forged", "duplicate"))
    lost, late = result.wrong - result.late, result.late
    rest = {"forged": forged, "duplicates": duplicates, "lost": lost, "late": late}
    counts = {"sent": result.sent, "decided": sum(decided.values()), **decided, **rest}
    findings = [*sentences(result.findings), *result.hints]
    numbers = {
        "ok": result.ok,
        **counts,
        "latency_ms": result.latencies.as_json(),
        "deadline_ms": result.deadline_ms,
        "findings": findings,
        "seed": result.seed,
    }
    lines = [*((name, str(count)) for name, count in counts.items()), ("latency", str(result.latencies))]
    went = "Nothing lost, nothing late" if result.ok else f"{lost} lost, {late} late"
    verdict = f"{went} (--seed {result.seed} plays it again)."
    return DemoPart(result, numbers, [*lines, ("deadline", f"{result.deadline_ms} ms")], verdict, findings, result.ok)


def scheduled_part(
    result: ScheduledResult, *, control: int, reports: Sequence[ReviewReport]
) -> DemoPart[ScheduledResult]:
    """Return the second part: the review's report, compared with what the simulator has recorded.

    Args:
        result: Of the rehearsal.
        control: How many customers are in the control group.
        reports: The review's, of which there must be one.
    """
    report = reports[0] if len(reports) == 1 else ReviewReport(campaign_id=0)
    findings = sentences(result.findings)
    if len(reports) != 1:
        findings.append("The review did not write one report.")
    else:
        if not report.complete:
            why = [] if report.error is None else [str(report.error)]
            findings.append(f"The review is incomplete: {' '.join([*why, *report.warnings])}")
        if report.acknowledged != result.approved:
            findings.append(f"The review says {report.acknowledged} acknowledged, the simulator {result.approved}.")
        if report.reviewed + report.control_group_rows != result.rows:
            findings.append(
                f"{report.reviewed} reviewed and {report.control_group_rows} of the control group are not all."
            )
    numbers = {
        "ok": not findings,
        "customers": result.rows,
        "control_group": control,
        **{name: getattr(report, name) for name in ("reviewed", "approved", "denied", "acknowledged")},
        "recipients": result.approved,
        **{name: getattr(result, name) for name in ("unapproved", "missing", "late")},
        "updates": len(result.updates),
        "largest_update": result.largest_update,
        "seconds": round(report.seconds, 3),
        "seconds_to_spare": round(report.seconds_to_spare, 3),
        "findings": findings,
    }
    lines = [
        ("customers", f"{result.rows:,}, {control:,} of them in the control group"),
        ("reviewed", f"{report.reviewed:,} in {report.seconds:.1f} s, once for two announcements"),
        ("approved", f"{report.approved:,}"),
        ("denied", f"{report.denied:,}"),
        ("updates", f"{len(result.updates)}, of {result.largest_update:,} at most"),
        ("to spare", f"{report.seconds_to_spare:.0f} s before clearance"),
        ("recipients", f"{result.approved:,}, {result.unapproved} unapproved, {result.missing} missing"),
    ]
    verdict = (
        "The review and the simulator differ."
        if findings
        else "All customers accounted for: no unapproved customer gets the campaign, and no approved one is missing."
    )
    return DemoPart(result, numbers, lines, verdict, findings, not findings)


async def demo_triggered(
    posts: int,
    *,
    seed: int,
    timeout_ms: int,
    on_change: Callable[[Observation], object],
    command: Sequence[str] = COMMAND,
) -> DemoPart[TriggeredResult]:
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
    return triggered_part(await rehearsal.arun())


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
) -> DemoPart[ScheduledResult]:
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
    return scheduled_part(result, control=customers // _CONTROL_EVERY, reports=reports)


if __name__ == "__main__":
    try:
        asyncio.run(serve())
    except OptimoveError as error:
        sys.exit(str(error))
