"""Rehearsal of a scheduled campaign: put it on hold, post its event to a listener, and check the reported statuses."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from ..errors import ConfigurationError
from ..models.events import CAMPAIGN_READY
from ..settings import TIMEZONE_VARIABLE, TOKEN_VARIABLE
from ..testing import Campaign, FakeOptimove
from ..testing.campaigns import Rows
from ..testing.fake import listener_delivery
from ..transport.http import AsyncHttpEngine
from .base import Rehearsal
from .checks import post
from .plan import Expectation, Recorded, read_rows
from .result import Finding, ScheduledResult
from .service import until_reachable

_GRACE_SECONDS: Final = 1.0
"""Seconds after clearance for which late statuses are still counted, as late."""

_LOOK_AGAIN: Final = 0.1
_LISTENER_MS: Final = 10_000


@final
@dataclass(kw_only=True)
class ScheduledRehearsal(Rehearsal[ScheduledResult]):
    """One scheduled campaign of a simulated Optimove, for a listener in any language.

        result = ScheduledRehearsal(listener="http://127.0.0.1:8000/campaigns?token=t", lead_seconds=10).run()
        assert result.ok, result

    The customers `C0000001` and on are served, and their statuses taken, until clearance. The service gets
    `OPTIMOVE_BASE_URL`, `OPTIMOVE_API_KEY`, `OPTIMOVE_TIMEZONE` and `OPTIMOVE_LISTENER_TOKEN`. Without a command it is
    waited for without limit. It needs the extra `cli`.

    Raises:
        ConfigurationError: The time zone, a row or a decision of `expect` is invalid, or names a customer who is not
            in the campaign.

    Attributes:
        listener: The listener, with its token; None for the one that the service registers.
        campaign_id: The CampaignID.
        customers: How many customers are on hold.
        rows: Their rows, in the shape of GetProcessedCampaignCustomers, instead: JSON objects, or a file of them (JSON,
            JSON lines or CSV).
        control_every: Every nth customer is in the control group; None for none.
        lead_seconds: Seconds from the event to clearance.
        timezone: The zone of the event's times, an IANA name.
        announcements: How often the event is posted. Optimove may post it twice; it must be reviewed once.
        expected: Ids of exactly the customers who must get the campaign; None accepts all who are reported.
        expect: The right decision about single customers: approved, or denied, who must not get the campaign.
        wait: End this many seconds after the event, when clearance is later; None for no limit.
        token: The listener's token, for the service; None makes one.
        on_announced: Called with the listener's HTTP status, None when no answer came.
    """

    listener: str | None = field(default=None, repr=False)
    campaign_id: int = 1359
    customers: int = 100
    rows: Recorded | None = field(default=None, repr=False)
    control_every: int | None = None
    lead_seconds: float = 60.0
    timezone: str = "UTC"
    announcements: int = 1
    expected: Collection[str] | None = field(default=None, repr=False)
    expect: Mapping[str, Expectation] = field(default_factory=dict, repr=False)
    wait: float | None = None
    token: str | None = field(default=None, repr=False)
    on_announced: Callable[[int | None], object] = lambda _: None

    def __post_init__(self) -> None:
        self._served: int | Sequence[Mapping[str, Any]] = self.customers if self.rows is None else read_rows(self.rows)
        if wrong := sorted({*self.expect.values()} - {"approved", "denied", "not approved"}):
            raise ConfigurationError(f"A campaign's customers are approved or denied, not {wrong[0]}.")
        known = Rows(self._served)
        self._row_count = len(known)
        if unknown := [customer_id for customer_id in self.expect if not known.knows(customer_id)]:
            raise ConfigurationError(
                f"The campaign has no customer {unknown[0]}: correct the id of the expected decision."
            )
        self.token = self.token or secrets.token_urlsafe(24)
        self._fake = FakeOptimove(
            api_key=self.api_key or secrets.token_urlsafe(24), secret=None, timezone=self.timezone
        )
        self._variables = {TIMEZONE_VARIABLE: self._fake.timezone.key, TOKEN_VARIABLE: self.token}
        self._target, self._what = self.listener, "listen for campaigns"
        self._campaign: Campaign | None = None
        self._statuses: list[int | None] = []

    def result(self) -> ScheduledResult:
        """Return the result so far."""
        if self._campaign is None:
            finding = Finding("The event was posted to no listener")
            return ScheduledResult(campaign_id=self.campaign_id, rows=self._row_count, findings=(finding,))
        return ScheduledResult.of(
            self._campaign,
            self._statuses,
            expected=self.expected,
            expect=self.expect,
            never_awaited=self.never_awaited,
            further=self._further_findings(),
        )

    async def _listening(self) -> str:
        return await until_reachable(self.listener or await registered_listener(self._fake))

    _found = _listening

    async def _play(self, url: str, engine: AsyncHttpEngine) -> None:
        self._campaign = self._fake.add_campaign(
            self._served,
            campaign_id=self.campaign_id,
            lead_seconds=self.lead_seconds,
            control_every=self.control_every,
        )
        for _ in range(self.announcements):
            self._statuses.append(await announced(engine, url, self._campaign))
            self.on_announced(self._statuses[-1])
        await until_cleared(self._campaign, wait=self.wait)


async def announced(engine: AsyncHttpEngine, url: str, campaign: Campaign) -> int | None:
    """Post the event of a campaign to a listener, and return its HTTP status; None when no answer came."""
    return (await post(engine, listener_delivery(url, campaign), timeout_ms=_LISTENER_MS)).status


async def until_cleared(campaign: Campaign, *, wait: float | None = None) -> None:
    """Wait until clearance and a short grace, or for as long as is given, whichever is shorter."""
    left = campaign.clearance_ms / 1000 + _GRACE_SECONDS - time.time()
    await asyncio.sleep(max(0.0, left if wait is None else min(left, wait)))


async def registered_listener(fake: FakeOptimove) -> str:
    """Wait until a listener for campaigns on hold is registered, and return its URL."""
    while True:
        url = fake.listeners.get((CAMPAIGN_READY, None))
        if url is not None:
            return url
        await asyncio.sleep(_LOOK_AGAIN)
