"""Posts the simulator's notifications to webhooks, and waits until a question is over."""

from __future__ import annotations

import asyncio
import time
from typing import Final, final

from optimove_conditional_execution.cli.replies import Reply
from optimove_conditional_execution.deadline import Clock, Deadline
from optimove_conditional_execution.errors import OptimoveError
from optimove_conditional_execution.testing import Delivery, SentNotification
from optimove_conditional_execution.transport.engine import OutgoingRequest, aread_all
from optimove_conditional_execution.transport.http import AsyncHttpEngine

GRACE_SECONDS: Final = 0.25
"""How long after its deadline a late answer is still looked for."""

_PATIENCE_SECONDS: Final = 5.0
"""How long after a notification's deadline its webhook may still answer over HTTP."""

_LOOK_AGAIN: Final = 0.025
_CATCH_UP_SECONDS: Final = 1.0


@final
class Postman:
    """Posts over one connection pool, from the event loop that also serves the simulator."""

    def __init__(self, engine: AsyncHttpEngine) -> None:
        self._engine = engine

    async def post(self, delivery: Delivery, *, timeout_ms: int) -> Reply:
        """Post a notification, and return what came back.

        Args:
            delivery: What, and where to.
            timeout_ms: Milliseconds until its deadline.
        """
        began = time.monotonic()
        seconds = max(0, timeout_ms) / 1000 + _PATIENCE_SECONDS
        request = delivery.request
        outgoing = OutgoingRequest(
            request.method, delivery.url, dict(request.headers), request.body, Deadline.after(seconds), seconds
        )
        try:
            response = await aread_all(await self._engine.open(outgoing))
        except OptimoveError as error:
            return Reply.none(error, url=delivery.url, seconds=time.monotonic() - began)
        return Reply.of(response, url=delivery.url, seconds=time.monotonic() - began)


@final
class Pace:
    """So many a second. What was missed, while nobody listened or the machine slept, is not made up for."""

    def __init__(self, rate: float) -> None:
        """Start now.

        Args:
            rate: How many a second, above 0.
        """
        self._pause = 1 / rate
        self._due = time.monotonic()

    async def next(self) -> None:
        """Wait for the next one's turn."""
        self._due = max(self._due + self._pause, time.monotonic() - _CATCH_UP_SECONDS)
        await asyncio.sleep(max(0.0, self._due - time.monotonic()))


async def until_over(question: SentNotification, *, clock: Clock = time.time) -> None:
    """Wait until a notification has its answer, or its deadline and a short grace have passed.

    Args:
        question: A question of a `FakeOptimove`.
        clock: What that lives by, in seconds since 1970.
    """
    end_ms = question.deadline_ms + GRACE_SECONDS * 1000
    while question.answer is None and (left := end_ms / 1000 - clock()) > 0:
        await asyncio.sleep(min(_LOOK_AGAIN, left))
