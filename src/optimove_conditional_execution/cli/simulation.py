"""The simulator that keeps running: notifications at a rate, to whatever webhooks are registered."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

from optimove_conditional_execution.cli.latencies import Latencies
from optimove_conditional_execution.cli.postman import Pace, Postman, until_over
from optimove_conditional_execution.cli.replies import Reply
from optimove_conditional_execution.testing import FakeOptimove

ResultKind = Literal["approved", "denied", "unanswered", "late"]

_LOOK_AGAIN: Final = 0.05
_KEPT: Final = 1_000
"""Questions and calls that the simulator remembers, and latencies that it counts: it may run for weeks."""


@final
@dataclass(frozen=True, slots=True)
class Result:
    """What became of one notification.

    Attributes:
        request_uid: Its name.
        user_id: Whose it was.
        kind: `late`: the only answer came after the deadline. `unanswered`: none came.
        replies: What each webhook answered over HTTP.
        latency_ms: Milliseconds from notification to answer; None without one in time.
        deadline_ms: Milliseconds that the answer might take.
    """

    request_uid: str
    user_id: str
    kind: ResultKind
    replies: tuple[Reply, ...]
    latency_ms: int | None
    deadline_ms: int

    def as_json(self) -> dict[str, Any]:
        """Return the JSON object of `--json`."""
        return {
            "event": "result",
            "request_uid": self.request_uid,
            "user_id": self.user_id,
            "result": self.kind,
            "statuses": [reply.status for reply in self.replies],
            "failures": [reply.failure for reply in self.replies],
            "latency_ms": self.latency_ms,
            "deadline_ms": self.deadline_ms,
        }

    def __str__(self) -> str:
        """Return it as a line."""
        statuses = ", ".join(str(reply) for reply in self.replies)
        against = "" if self.latency_ms is None else f"  {self.latency_ms} of {self.deadline_ms} ms"
        return f"{self.user_id:<14} HTTP {statuses:<9} {self.kind:<10}{against}"


@final
class Simulation:
    """Fires campaigns, and counts what becomes of them."""

    def __init__(
        self,
        fake: FakeOptimove,
        postman: Postman,
        *,
        users: Sequence[str],
        rate: float,
        count: int | None,
        on_result: Callable[[Result], None],
    ) -> None:
        """Fire nothing yet.

        Args:
            fake: The simulator, which must be served by the same event loop.
            postman: Posts its notifications.
            users: Ids of customers, taken in turn; none makes up new ones.
            rate: Notifications a second, above 0.
            count: How many in all; None goes on until it is cancelled.
            on_result: Called with each result.
        """
        self._fake = fake
        self._postman = postman
        self._users = itertools.cycle(users) if users else (f"C{number}" for number in itertools.count(100_001))
        self._rate = rate
        self._count = count
        self._on_result = on_result
        self._sent = 0
        self._kinds: Counter[str] = Counter()
        self._latencies: deque[int] = deque(maxlen=_KEPT)
        self._finished: deque[str] = deque()

    async def run(self) -> None:
        """Fire until the count is reached and the last one is over. It waits while no webhook is registered."""
        pace = Pace(self._rate)
        async with asyncio.TaskGroup() as group:
            while self._count is None or self._sent < self._count:
                if not self._fake.webhooks:
                    await asyncio.sleep(_LOOK_AGAIN)
                    continue
                self._sent += 1
                group.create_task(self._fire(next(self._users)))
                await pace.next()

    async def _fire(self, user_id: str) -> None:
        timeout_ms = self._fake.timeout_ms
        question, deliveries = self._fake.trigger(user_id)
        replies = await asyncio.gather(
            *(self._postman.post(delivery, timeout_ms=timeout_ms) for delivery in deliveries)
        )
        await until_over(question)
        kind: ResultKind = "late" if question.ignored else "unanswered"
        if question.answer is not None:
            kind = "approved" if question.answer.approved else "denied"
        result = Result(question.request_uid, user_id, kind, tuple(replies), question.latency_ms, timeout_ms)
        self._kinds[kind] += 1
        if result.latency_ms is not None:
            self._latencies.append(result.latency_ms)
        self._forget(question.request_uid)
        self._on_result(result)

    def _forget(self, finished: str) -> None:
        self._finished.append(finished)
        if len(self._finished) > _KEPT:
            self._fake.questions.pop(self._finished.popleft(), None)
        del self._fake.calls[:-_KEPT]

    def summary(self) -> dict[str, Any]:
        """Return the numbers so far; latencies are those of the last thousand answers."""
        return {
            "event": "summary",
            "sent": self._sent,
            **{kind: self._kinds[kind] for kind in ("approved", "denied", "unanswered", "late")},
            "pending": self._sent - self._kinds.total(),
            "latency_ms": Latencies.of(self._latencies).as_json(),
            "deadline_ms": self._fake.timeout_ms,
        }

    def __str__(self) -> str:
        """Return the numbers so far as two lines."""
        numbers = self.summary()
        counts = ", ".join(
            f"{numbers[name]} {name}" for name in ("approved", "denied", "unanswered", "late", "pending")
        )
        return f"{self._sent} sent: {counts}\nlatency: {Latencies.of(self._latencies)}, of {self._fake.timeout_ms} ms"
