"""Notifications of triggered campaigns: a rehearsal, faults included, with checks of the results; and a simulation.

The simulation checks nothing, and runs until it is stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, final
from urllib.parse import urlsplit

from ..deadline import Clock
from ..defaults import LOOPBACK
from ..errors import ConfigurationError
from ..operations import DEFAULT_TIMEOUT_MS
from ..receivers.webhook import MAX_BODY
from ..settings import API_KEY_VARIABLE, SECRET_VARIABLE, TIMEZONE_VARIABLE
from ..testing import Delivery, FakeOptimove, SentNotification, notification, signed_request
from ..transport.http import AsyncHttpEngine
from ..urls import origin
from ..validation import number_of
from .base import Rehearsal, simulated
from .checks import Observation, Reply, post
from .plan import Expectation, FaultKind, PlannedNotification, Recorded, plan, read_payloads
from .result import Finding, Latencies, ScheduledResult, TriggeredResult
from .scheduled import announced, registered_listener, until_cleared
from .service import is_reachable, until_reachable

_OVERDUE_SECONDS: Final = 10.0
"""How long after its deadline a late notification arrives, by Optimove's clock and by ours. Receivers tell that by
comparing it with its neighbours, whose own transit times are some milliseconds, or half a second on a busy machine, and
by their wall clock."""

_GRACE_SECONDS: Final = 0.25
"""Seconds after its deadline for which a late answer is still recorded."""

_LOOK_AGAIN: Final = 0.025
_CATCH_UP_SECONDS: Final = 1.0

_KEPT: Final = 1_000
"""Notifications and calls that are kept, and latencies that are counted: it may run for weeks."""


@dataclass(slots=True)
class _Posted:
    """A notification that was posted."""

    planned: PlannedNotification
    question: SentNotification
    timeout_ms: int
    replies: list[Reply] = field(default_factory=list)
    over: bool = False

    def observation(self) -> Observation:
        """Return what has been observed so far."""
        answer = self.question.answer
        return Observation(
            planned=self.planned,
            request_uid=self.question.request_uid,
            replies=tuple(self.replies),
            answer=None if answer is None else answer.approved,
            ignored=tuple(approval.approved for approval in self.question.ignored),
            latency_ms=self.question.latency_ms,
            deadline_ms=self.timeout_ms,
            over=self.over,
        )


@final
@dataclass(kw_only=True)
class TriggeredRehearsal(Rehearsal[TriggeredResult]):
    """One triggered campaign of a simulated Optimove, for a webhook in any language.

        result = TriggeredRehearsal(url="http://127.0.0.1:8000/optimove", command=["node", "gate.js"]).run()
        assert result.ok, result

    A good notification must be approved, denied or left undecided with HTTP 200 before its deadline; a forged one must
    get 401, one over 262,144 bytes 413, and neither an approval; a late one must not be answered; and a repeat must
    change nothing. The service gets `OPTIMOVE_BASE_URL`, `OPTIMOVE_API_KEY` and `OPTIMOVE_WEBHOOK_SECRET`. It needs the
    extra `cli`.

    Attributes:
        url: The webhook; None for the one that the service registers.
        count: How many customers are asked about.
        rate: Notifications a second. Missed ones are not caught up.
        deadline_ms: Milliseconds that an answer may take, unless the service sets it.
        faults: How many of a hundred have which fault; at least one of each kind that is named.
        users: Ids of customers, taken in turn; none makes up new ones.
        seed: Gives the same customers and faults again; None for a new one, which the result has.
        skew_seconds: How far Optimove's clock is ahead of the local one, for the whole run; no result may change.
        payloads: Recorded or hand-made notifications, as JSON objects or a file of them (JSON or JSON lines). Each is
            posted once, in order, instead of `count` notifications about `users`, with new time stamps, a new deadline
            and a new `request_uid`, and signed.
        as_is: Whether the payloads keep their time stamps, deadline and `request_uid`.
        expect: The right decision about customers: approved, denied or abstained. Those who are neither in `users` nor
            in `payloads` are asked about once each, in place of others.
        undecided: How many of a hundred may stay without a decision, of those whose decision is not in `expect`. None
            for a third, if ten or more are asked about.
        notifications: What is posted, instead of a plan from `count`, `faults`, `users`, `payloads`, `expect` and
            `seed`.
        secret: The webhook secret that the service has; None makes one.
        on_change: Called with each notification when it is posted, at each HTTP answer, and when it is `over`.

    Raises:
        ConfigurationError: The plan has too many faults, a payload cannot be read, or a customer of `expect` would not
            be asked about.
    """

    url: str | None = field(default=None, repr=False)
    count: int = 20
    rate: float = 10.0
    deadline_ms: int = DEFAULT_TIMEOUT_MS
    faults: Mapping[FaultKind, float] = field(default_factory=dict)
    users: Sequence[str] = field(default=(), repr=False)
    seed: int | None = None
    skew_seconds: float = 0.0
    payloads: Recorded | None = field(default=None, repr=False)
    as_is: bool = False
    expect: Mapping[str, Expectation] = field(default_factory=dict, repr=False)
    undecided: float | None = None
    notifications: Sequence[PlannedNotification] = field(default=(), repr=False)
    secret: str | None = field(default=None, repr=False)
    on_change: Callable[[Observation], object] = lambda _: None

    def __post_init__(self) -> None:
        if self.seed is None:
            self.seed = secrets.randbelow(1_000_000)  # short, so that people can type it again
        if not self.notifications:
            self.notifications = self._plan(self.seed)
        self._fake = FakeOptimove(
            api_key=self.api_key or secrets.token_urlsafe(24),
            secret=self.secret or secrets.token_urlsafe(32),
            timeout_ms=self.deadline_ms,
            wall_clock=self._optimove_time,
        )
        self._variables = {SECRET_VARIABLE: str(self._fake.secret)}
        self._target = self.url
        self._what = "register a webhook" if self.url is None else f"listen at {origin(self.url)}"
        if self.url is not None:
            # An id that differs from those that the simulator makes: a service that registers the URL itself finds it.
            self._fake.webhooks["given1"] = self.url
        self._posted: list[_Posted] = []

    def _plan(self, seed: int) -> list[PlannedNotification]:
        if self.payloads is None:
            planned = plan(self.count, faults=self.faults, users=self.users, seed=seed)
            good = (index for index, one in enumerate(planned) if one.must_be_decided)
            # Once each: a gate may allow a customer one campaign a day.
            for user_id, index in zip((one for one in self.expect if one not in self.users), good, strict=False):
                planned[index] = replace(planned[index], user_id=user_id)
        else:
            if self.users:
                raise ConfigurationError("Give payloads, or users to be asked about: not both.")
            read = read_payloads(self.payloads, stamps={} if self.as_is else _stamps(0, 0))
            ids = [parsed.user.user_id for parsed, _ in read]
            planned = [
                replace(one, payload=payload, as_is=self.as_is)
                for one, (_, payload) in zip(
                    plan(len(ids), faults=self.faults, users=ids, seed=seed), read, strict=True
                )
            ]
        planned = [replace(one, expected=self.expect.get(one.user_id)) for one in planned]
        if left := self.expect.keys() - {one.user_id for one in planned if one.must_be_decided}:
            raise ConfigurationError(
                f"{number_of(len(left), 'customer')} with an expected decision would not be asked about, {min(left)} "
                "among them: raise --count, or lower some --fault, or correct the id."
            )
        return planned

    def result(self) -> TriggeredResult:
        """Return the result so far."""
        return TriggeredResult.of(
            [posted.observation() for posted in self._posted],
            calls=self._fake.calls,
            further=self._further_findings(),
            deadline_ms=self._fake.timeout_ms,
            seed=self.seed or 0,
            skew_seconds=self.skew_seconds,
            undecided=self.undecided,
        )

    def _optimove_time(self) -> float:
        return time.time() + self.skew_seconds

    async def _listening(self) -> str:
        while not self._fake.webhooks:
            await asyncio.sleep(_LOOK_AGAIN)
        return await until_reachable(next(iter(self._fake.webhooks.values())))

    async def _found(self) -> str | None:
        """Wait for a service that is started separately, and return its webhook; None when it did not start."""
        if self.url is not None and await is_reachable(self.url):
            if self.secret is None:
                self.on_note(
                    f"What listens at {origin(self.url)} cannot know the new secret of this run: set "
                    f"{SECRET_VARIABLE} and {API_KEY_VARIABLE} here to those of your service."
                )
            return self.url
        if self.start_within:
            self.on_note(f"Waiting {self.start_within:g} s for your service: start it with these settings.")
        try:
            async with asyncio.timeout(self.start_within):
                return await self._listening()
        except TimeoutError:
            if self.url is None:
                finding = Finding("No webhook was registered", "your service calls client.ensure_webhook(url)")
            else:
                cause = f"Nothing listens at {origin(self.url)} (connection refused)"
                finding = Finding(cause, "start your service there, or correct the URL")
            self._further.append(finding)
            return None

    async def _play(self, url: str, engine: AsyncHttpEngine) -> None:
        neighbour_answered = asyncio.Event()

        async def play(planned: PlannedNotification) -> None:
            if planned.fault == "late":
                await neighbour_answered.wait()
            posted, delivery = self._prepared(planned, url)
            self._posted.append(posted)
            self.on_change(posted.observation())

            async def post_once() -> None:
                posted.replies.append(await post(engine, delivery, timeout_ms=posted.timeout_ms))
                if planned.must_be_decided:
                    neighbour_answered.set()
                self.on_change(posted.observation())

            if planned.at_once:
                await asyncio.gather(post_once(), post_once())
            else:
                await post_once()
                if planned.fault == "duplicate":
                    await post_once()
            await self._settled(posted)
            posted.over = True
            self.on_change(posted.observation())

        async with asyncio.TaskGroup() as group, contextlib.aclosing(_paced(self.rate)) as pace:
            for planned in self.notifications:
                await anext(pace)
                group.create_task(play(planned))

    def _prepared(self, planned: PlannedNotification, url: str) -> tuple[_Posted, Delivery]:
        timeout_ms = self._fake.timeout_ms
        sent_ms = round(self._optimove_time() * 1000)
        if planned.fault == "late":
            sent_ms = min(sent_ms, round(time.time() * 1000)) - round(_OVERDUE_SECONDS * 1000) - timeout_ms
        # A new request_uid each time, even with a seed: a service that ran before would take it for a repeat.
        if planned.payload is None:
            payload = notification(
                planned.user_id, timeout_ms=timeout_ms, timestamp_ms=sent_ms, personalization=planned.personalization
            )
        elif planned.as_is and planned.fault != "late":
            payload = {**planned.payload}
        else:
            payload = {**planned.payload, **_stamps(sent_ms, timeout_ms)}
        if planned.fault == "oversize":
            payload["padding"] = "x" * MAX_BODY
        delivery = self._fake.delivery(url, payload)
        if planned.fault == "forged":
            delivery = _forged(delivery, planned)
        return _Posted(planned, self._fake.expect(payload), timeout_ms), delivery

    async def _settled(self, posted: _Posted) -> None:
        if all(reply.failure in ("refused", "unknown-host") for reply in posted.replies):
            return  # it was not received
        if posted.planned.must_be_decided and any(reply.is_success for reply in posted.replies):
            # It may be answered after the webhook's response.
            with contextlib.suppress(TimeoutError):  # a payload that stays as it is can have a far deadline
                async with asyncio.timeout(posted.timeout_ms / 1000 + _GRACE_SECONDS):
                    await _until_over(posted.question, clock=self._optimove_time)
            if posted.planned.fault is None:
                return
        # An answer that must not come would come about now; one that comes later still is checked at the end.
        await asyncio.sleep(_GRACE_SECONDS)


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
        async with asyncio.TaskGroup() as group, contextlib.aclosing(_paced(self.rate)) as pace:
            while self.count is None or self._sent < self.count:
                if not self._fake.webhooks:
                    await asyncio.sleep(_LOOK_AGAIN)
                    continue
                await anext(pace)
                self._sent += 1
                group.create_task(self._ask(next(users), engine))

    async def _ask(self, user_id: str, engine: AsyncHttpEngine) -> None:
        timeout_ms = self._fake.timeout_ms
        question, deliveries = self._fake.trigger(user_id)
        replies = await asyncio.gather(*(post(engine, one, timeout_ms=timeout_ms) for one in deliveries))
        await _until_over(question)
        result = _Posted(PlannedNotification(user_id), question, timeout_ms, list(replies), over=True).observation()
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


def _stamps(sent_ms: int, timeout_ms: int) -> dict[str, Any]:
    fields = ("timestamp", "conditional_execution_approval_deadline", "request_uid")
    new = notification(timestamp_ms=sent_ms, timeout_ms=timeout_ms)
    return {name: new[name] for name in fields}


def _forged(delivery: Delivery, planned: PlannedNotification) -> Delivery:
    request = delivery.request
    path = urlsplit(delivery.url).path or "/"
    match planned.forgery:
        case "no signature":
            return replace(delivery, request=signed_request(request.body, secret=None, path=path))
        case "a body changed after it was signed":
            # The same length, and still a notification.
            body = request.body.replace(b'"is_hashed": false', b'"is_hashed":false ', 1)
            return replace(delivery, request=replace(request, body=body))
        case _:
            forger = secrets.token_urlsafe(32)
            return replace(delivery, request=signed_request(request.body, secret=forger, path=path))


async def _paced(rate: float) -> AsyncGenerator[None, None]:
    """Yield at a rate per second; what was missed, while the machine slept, is not caught up."""
    due = time.monotonic()
    while True:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        yield
        due = max(due + 1 / rate, time.monotonic() - _CATCH_UP_SECONDS)


async def _until_over(question: SentNotification, *, clock: Clock = time.time) -> None:
    """Wait until a notification has its answer, or its deadline and a short grace have passed."""
    end_ms = question.deadline_ms + _GRACE_SECONDS * 1000
    while question.answer is None and (left := end_ms / 1000 - clock()) > 0:
        await asyncio.sleep(min(_LOOK_AGAIN, left))
