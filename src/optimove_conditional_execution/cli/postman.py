"""Posts the simulator's notifications to webhooks, and waits until a question is over."""

from __future__ import annotations

import asyncio
import time
from typing import Final, final

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import OptimoveError
from optimove_conditional_execution.testing import Delivery, Question
from optimove_conditional_execution.transport.exchange import Exchange
from optimove_conditional_execution.transport.http import AsyncHttpEngine

_GRACE_SECONDS: Final = 0.25
"""How long after its deadline a late answer is still looked for."""

_PATIENCE_SECONDS: Final = 5.0
"""How long after a notification's deadline its webhook may still answer over HTTP."""

_LOOK_AGAIN: Final = 0.025


@final
class Postman:
    """Posts over one connection pool, from the event loop that also serves the simulator."""

    def __init__(self, engine: AsyncHttpEngine) -> None:
        self._engine = engine

    async def post(self, delivery: Delivery, *, timeout_ms: int) -> int | None:
        """Post a notification.

        Args:
            delivery: What, and where to.
            timeout_ms: Milliseconds until its deadline.

        Returns:
            The HTTP status; None when no answer came.
        """
        seconds = max(0, timeout_ms) / 1000 + _PATIENCE_SECONDS
        request = delivery.request
        exchange = Exchange(
            request.method, delivery.url, dict(request.headers), request.body, Deadline.after(seconds), seconds
        )
        try:
            return (await self._engine.exchange(exchange)).status
        except OptimoveError:
            return None


async def until_over(question: Question) -> None:
    """Wait until a notification has its answer, or its deadline and a short grace have passed.

    Args:
        question: A question of a `FakeOptimove` that lives by the wall clock.
    """
    end_ms = question.deadline_ms + _GRACE_SECONDS * 1000
    while question.answer is None and (left := end_ms / 1000 - time.time()) > 0:
        await asyncio.sleep(min(_LOOK_AGAIN, left))
