"""The simulator as a server: notifications at a rate and campaigns, to all registered URLs.

A separate module, although only the command uses it: it checks nothing, and runs until it is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from ..operations import DEFAULT_TIMEOUT_MS
from ..settings import SECRET_VARIABLE, TIMEZONE_VARIABLE
from ..testing import FakeOptimove
from ..transport.http import AsyncHttpEngine
from .base import LOOPBACK, simulated
from .checks import Observation, post
from .plan import PlannedNotification
from .result import Latencies, ScheduledResult
from .scheduled import announced, registered_listener, until_cleared
from .triggered import LOOK_AGAIN_SECONDS, Posted, paced, until_over

_KEPT: Final = 1_000
"""Notifications and calls that are kept, and latencies that are counted: it may run for weeks."""


@final
@dataclass(kw_only=True)
class Simulation:
    """Notifications at a rate to each registered webhook, and campaigns to the registered listener.

    Attributes:
        host: Where the simulator listens.
        port: Its port; 0 takes a free one.
        rate: Notifications a second.
        count: How many in all; None continues until it is cancelled.
        timeout_ms: Milliseconds that an answer may take, until a service sets it.
        webhooks: URLs that are registered at the start.
        users: Ids of customers, taken in turn; none makes up new ones.
        campaign_every: Seconds between two campaigns; None fires none.
        customers: Customers of a campaign.
        lead_seconds: Seconds from a campaign's event to its clearance.
        timezone: The zone of the campaigns' times, an IANA name.
        on_ready: Called with the environment variables that a service needs.
        on_result: Called with each notification that is over.
        on_campaign: Called with each campaign, after clearance.
    """

    host: str = LOOPBACK
    port: int = 0
    rate: float = 1.0
    count: int | None = None
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    webhooks: Sequence[str] = ()
    users: Sequence[str] = ()
    campaign_every: float | None = None
    customers: int = 100
    lead_seconds: float = 30.0
    timezone: str = "UTC"
    on_ready: Callable[[Mapping[str, str]], object] = lambda _: None
    on_result: Callable[[Observation], object] = lambda _: None
    on_campaign: Callable[[ScheduledResult], object] = lambda _: None

    def __post_init__(self) -> None:
        self._fake = FakeOptimove(
            api_key=secrets.token_urlsafe(24),
            secret=secrets.token_urlsafe(32),
            timeout_ms=self.timeout_ms,
            timezone=self.timezone,
        )
        # Ids that differ from those that the simulator makes.
        for number, url in enumerate(dict.fromkeys(self.webhooks), start=1):
            self._fake.webhooks[f"given{number}"] = url
        self._sent = 0
        self._kinds: Counter[str] = Counter()
        self._latencies: deque[int] = deque(maxlen=_KEPT)
        self._finished: deque[str] = deque()

    async def run(self) -> None:
        """Serve, and post until the count is reached and the last one is over. It waits while nothing is registered.

        Raises:
            ConfigurationError: The simulator cannot listen.
        """
        variables = {SECRET_VARIABLE: str(self._fake.secret), TIMEZONE_VARIABLE: self._fake.timezone.key}
        simulator = simulated(self._fake, variables, host=self.host, port=self.port)
        async with simulator as (engine, environment), asyncio.TaskGroup() as group:
            self.on_ready(environment)
            campaigns = group.create_task(self._campaigns(engine))
            await self._notifications(engine)
            campaigns.cancel()

    @property
    def latencies(self) -> Latencies:
        """Of the last thousand answers, from notification to answer."""
        return Latencies.of(self._latencies)

    def as_json(self) -> dict[str, Any]:
        """Return the numbers so far, the summary of `simulate --json`."""
        return {
            "event": "summary",
            "sent": self._sent,
            **{kind: self._kinds[kind] for kind in ("approved", "denied", "unanswered", "late")},
            "pending": self._sent - self._kinds.total(),
            "latency_ms": self.latencies.as_json(),
            "deadline_ms": self._fake.timeout_ms,
        }

    async def _notifications(self, engine: AsyncHttpEngine) -> None:
        made_up = (f"C{number}" for number in itertools.count(100_001))
        users: Iterator[str] = itertools.cycle(self.users) if self.users else made_up
        async with asyncio.TaskGroup() as group, contextlib.aclosing(paced(self.rate)) as pace:
            while self.count is None or self._sent < self.count:
                if not self._fake.webhooks:
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)
                    continue
                await anext(pace)
                self._sent += 1
                group.create_task(self._ask(next(users), engine))

    async def _ask(self, user_id: str, engine: AsyncHttpEngine) -> None:
        timeout_ms = self._fake.timeout_ms
        question, deliveries = self._fake.trigger(user_id)
        replies = await asyncio.gather(*(post(engine, one, timeout_ms=timeout_ms) for one in deliveries))
        await until_over(question)
        result = Posted(PlannedNotification(user_id), question, timeout_ms, list(replies), over=True).observation()
        self._kinds[result.answered] += 1
        if result.latency_ms is not None:
            self._latencies.append(result.latency_ms)
        self._finished.append(question.request_uid)
        if len(self._finished) > _KEPT:
            self._fake.notifications.pop(self._finished.popleft(), None)
        del self._fake.calls[:-_KEPT]
        self.on_result(result)

    async def _campaigns(self, engine: AsyncHttpEngine) -> None:
        async with asyncio.TaskGroup() as group:
            while self.campaign_every is not None:
                group.create_task(self._clear(await registered_listener(self._fake), engine))
                await asyncio.sleep(self.campaign_every)

    async def _clear(self, url: str, engine: AsyncHttpEngine) -> None:
        campaign = self._fake.add_campaign(self.customers, lead_seconds=self.lead_seconds)
        status = await announced(engine, url, campaign)
        await until_cleared(campaign)
        del self._fake.campaigns[campaign.campaign_id]
        self.on_campaign(ScheduledResult.of(campaign, [status]))
