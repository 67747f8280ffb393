"""A triggered campaign of the simulator: posted to one webhook, faults included, and watched until all is over."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, final
from urllib.parse import urlsplit

from optimove_conditional_execution.cli.postman import GRACE_SECONDS, Pace, Postman, until_over
from optimove_conditional_execution.cli.replies import Reply
from optimove_conditional_execution.cli.trigger_judgement import Seen
from optimove_conditional_execution.cli.trigger_plan import Planned
from optimove_conditional_execution.deadline import Clock
from optimove_conditional_execution.receivers.webhook import MAX_BODY
from optimove_conditional_execution.testing import (
    Delivery,
    FakeOptimove,
    SentNotification,
    notification,
    signed_request,
)

OVERDUE_SECONDS: Final = 10.0
"""How long after its deadline a late notification arrives, by Optimove's clock and by ours. Receivers tell that by
comparing it with its neighbours, whose own transit times are some milliseconds, or half a second on a busy machine, and
by their wall clock."""


@final
@dataclass(slots=True)
class Posted:
    """A notification that is under way.

    Attributes:
        planned: What it is.
        question: What the simulator knows of it.
        timeout_ms: Milliseconds that an answer may take.
        replies: What the webhook has answered so far, a repeat's answer last.
        over: Whether nothing more is waited for.
    """

    planned: Planned
    question: SentNotification
    timeout_ms: int
    replies: list[Reply] = field(default_factory=list)
    over: bool = False

    def seen(self) -> Seen:
        """Return what has been seen so far."""
        answer = self.question.answer
        return Seen(
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
class Triggering:
    """Posts the notifications of a plan, and keeps what becomes of them."""

    def __init__(
        self,
        fake: FakeOptimove,
        postman: Postman,
        *,
        url: str,
        clock: Clock,
        wall_clock: Clock = time.time,
        on_over: Callable[[Seen], None],
    ) -> None:
        """Post nothing yet.

        Args:
            fake: The simulator, which must be served by the same event loop.
            postman: Posts its notifications.
            url: The webhook.
            clock: What the simulator lives by, in seconds since 1970; it may differ from ours.
            wall_clock: Ours, in seconds since 1970.
            on_over: Called with each notification that is over.
        """
        self._fake = fake
        self._postman = postman
        self._url = url
        self._clock = clock
        self._wall_clock = wall_clock
        self._on_over = on_over
        self._posted: list[Posted] = []
        self._neighbour_answered = asyncio.Event()

    def seen(self) -> list[Seen]:
        """Return what has been seen so far of each notification, in the order in which they went out."""
        return [posted.seen() for posted in self._posted]

    async def run(self, plan: Sequence[Planned], *, rate: float) -> None:
        """Post all, and wait until the last one is over.

        Args:
            plan: From `trigger_plan.plan`.
            rate: Notifications a second.
        """
        pace = Pace(rate)
        async with asyncio.TaskGroup() as group:
            for number, planned in enumerate(plan):
                if number:
                    await pace.next()
                group.create_task(self._play(planned))

    async def _play(self, planned: Planned) -> None:
        if planned.fault == "late":
            await self._neighbour_answered.wait()
        posted, delivery = self._prepared(planned)
        self._posted.append(posted)
        if planned.at_once:
            await asyncio.gather(self._post(posted, delivery), self._post(posted, delivery))
        else:
            await self._post(posted, delivery)
            if planned.fault == "duplicate":
                await self._post(posted, delivery)
        await self._settled(posted)
        posted.over = True
        self._on_over(posted.seen())

    def _prepared(self, planned: Planned) -> tuple[Posted, Delivery]:
        timeout_ms = self._fake.timeout_ms
        sent_ms = round(self._clock() * 1000)
        if planned.fault == "late":
            sent_ms = min(sent_ms, round(self._wall_clock() * 1000)) - round(OVERDUE_SECONDS * 1000) - timeout_ms
        # Its name is new each time, whatever the seed: a service that ran before would take it for a repeat.
        payload = notification(
            planned.user_id,
            timeout_ms=timeout_ms,
            timestamp_ms=sent_ms,
            personalization=planned.personalization,
            changes={"padding": "x" * MAX_BODY} if planned.fault == "oversize" else None,
        )
        delivery = self._fake.delivery(self._url, payload)
        if planned.forgery is not None:
            delivery = _forged(delivery, planned)
        return Posted(planned, self._fake.expect(payload), timeout_ms), delivery

    async def _post(self, posted: Posted, delivery: Delivery) -> None:
        posted.replies.append(await self._postman.post(delivery, timeout_ms=posted.timeout_ms))
        if posted.planned.fault in (None, "duplicate"):
            self._neighbour_answered.set()

    async def _settled(self, posted: Posted) -> None:
        if all(reply.failure in ("refused", "unknown-host") for reply in posted.replies):
            return  # nobody has got it
        if posted.planned.fault in (None, "duplicate") and any(reply.is_success for reply in posted.replies):
            # It may be answered after the webhook has said that it took it.
            await until_over(posted.question, clock=self._clock)
            if posted.planned.fault is None:
                return
        # An answer that must not come would come about now; one that comes later still is judged at the end.
        await asyncio.sleep(GRACE_SECONDS)


def _forged(delivery: Delivery, planned: Planned) -> Delivery:
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
