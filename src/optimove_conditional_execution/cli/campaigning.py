"""A scheduled campaign of the simulator: told to a listener, served until clearance, and counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final, final

from optimove_conditional_execution.cli.charts import BurnUp, Section, counted
from optimove_conditional_execution.cli.postman import Postman
from optimove_conditional_execution.models.listener import CAMPAIGN_READY
from optimove_conditional_execution.testing import Campaign, FakeOptimove
from optimove_conditional_execution.testing.fake import listener_delivery

_LOOK_AGAIN: Final = 0.1
_LISTENER_MS: Final = 10_000

_GRACE_SECONDS: Final = 1.0
"""How long after clearance late statuses are still counted, as late."""

_SHOWN: Final = 10


@final
@dataclass(frozen=True, slots=True)
class CampaignResult:
    """What became of a campaign.

    Attributes:
        campaign: With all that was reported.
        listener_status: What the listener answered over HTTP; None when no answer came.
    """

    campaign: Campaign
    listener_status: int | None

    @property
    def reported(self) -> int:
        """How many customers were reported in time, approved or not."""
        return len(self.campaign.statuses) + len(self.campaign.unknown)

    @property
    def chart(self) -> BurnUp:
        """Statuses that were reported over time, repeats and late ones too, against clearance."""
        campaign = self.campaign
        reported = accumulate(campaign.calls)
        moments = [(update.at_ms - campaign.added_ms) / 1000 for update in campaign.updates]
        return BurnUp(
            {"statuses reported": [(0.0, 0), *zip(moments, reported, strict=True)]},
            clearance=(campaign.clearance_ms - campaign.added_ms) / 1000,
            total=campaign.row_count,
        )

    def section(self) -> Section:
        """Return its part of a report."""
        numbers = self.as_json()
        names = (
            "rows",
            "updates",
            "largest_update",
            "approved",
            "denied",
            "unknown",
            "late",
            "twice",
            "contradictions",
        )
        status = "no answer" if self.listener_status is None else f"HTTP {self.listener_status}"
        return Section(
            title=f"Campaign {self.campaign.campaign_id}",
            ok=bool(self.reported),
            verdict=f"{counted(self.reported, 'customer')} reported in time.",
            facts=[("listener", status), *((name.replace("_", " "), f"{numbers[name]:,}") for name in names)],
            charts=[self.chart],
        )

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of `--json`."""
        campaign = self.campaign
        recipients = campaign.recipients()
        return {
            "event": "campaign",
            "campaign_id": campaign.campaign_id,
            "listener_status": self.listener_status,
            "rows": campaign.row_count,
            "updates": len(campaign.updates),
            "largest_update": max(campaign.calls, default=0),
            "approved": len(recipients),
            "denied": len(campaign.statuses) - len(recipients),
            "unknown": len(campaign.unknown),
            "late": len(campaign.late),
            "twice": len(campaign.twice),
            "contradictions": len(campaign.contradictions),
            "first_recipients": recipients[:_SHOWN],
        }

    def __str__(self) -> str:
        """Return it as lines."""
        numbers = self.as_json()
        status = "no answer" if self.listener_status is None else f"HTTP {self.listener_status}"
        names = ("approved", "denied", "unknown", "late", "twice", "contradictions")
        lines = [
            f"campaign {numbers['campaign_id']}: the listener gave {status}; {numbers['rows']} rows",
            f"{numbers['updates']} updates, of {numbers['largest_update']} at most: "
            + ", ".join(f"{numbers[name]} {name}" for name in names),
        ]
        first = ", ".join(numbers["first_recipients"])
        others = numbers["approved"] - len(numbers["first_recipients"])
        more = f" and {others} more" if others else ""
        lines.append(f"would get it: {first}{more}" if first else "Nobody would get it.")
        return "\n".join(lines)


async def announced(postman: Postman, url: str, campaign: Campaign) -> int | None:
    """Post a campaign's event to a listener, and return its HTTP status; None when no answer came.

    Args:
        postman: Posts it.
        url: The listener, with its token.
        campaign: A campaign of a simulator, which must be served already.
    """
    return (await postman.post(listener_delivery(url, campaign), timeout_ms=_LISTENER_MS)).status


async def until_cleared(campaign: Campaign, *, wait: float | None = None) -> None:
    """Wait until clearance and a short grace, or for as long as is given, whichever is shorter.

    Args:
        campaign: A campaign of a simulator that lives by the wall clock.
        wait: Seconds at most; None for no limit.
    """
    left = campaign.clearance_ms / 1000 + _GRACE_SECONDS - time.time()
    await asyncio.sleep(max(0.0, left if wait is None else min(left, wait)))


async def registered_listener(fake: FakeOptimove) -> str:
    """Wait until a listener for campaigns on hold is registered, and return its URL.

    Args:
        fake: The simulator.
    """
    while True:
        url = fake.listeners.get((CAMPAIGN_READY, None))
        if url is not None:
            return url
        await asyncio.sleep(_LOOK_AGAIN)


@final
class Campaigns:
    """Fires scheduled campaigns at whatever listener is registered."""

    def __init__(
        self,
        fake: FakeOptimove,
        postman: Postman,
        *,
        customers: int,
        lead_seconds: float,
        on_result: Callable[[CampaignResult], None],
    ) -> None:
        """Fire nothing yet.

        Args:
            fake: The simulator, which must be served by the same event loop.
            postman: Posts its events.
            customers: Customers of a campaign.
            lead_seconds: From a campaign's event to its clearance.
            on_result: Called with each result, after clearance.
        """
        self._fake = fake
        self._postman = postman
        self._customers = customers
        self._lead_seconds = lead_seconds
        self._on_result = on_result

    async def run(self, *, every: float) -> None:
        """Fire a campaign each so many seconds, until it is cancelled. It waits while no listener is registered.

        Args:
            every: Seconds.
        """
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(self._fire(await registered_listener(self._fake)))
                await asyncio.sleep(every)

    async def _fire(self, url: str) -> None:
        campaign = self._fake.add_campaign(self._customers, lead_seconds=self._lead_seconds)
        status = await announced(self._postman, url, campaign)
        await until_cleared(campaign)
        # It may run for weeks.
        del self._fake.campaigns[campaign.campaign_id]
        self._on_result(CampaignResult(campaign, status))
