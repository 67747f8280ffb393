"""Asks the reviewer about batches: some at the same time, and again about customers whose decision failed."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Literal

from ..deadline import Deadline
from ..flows.known_customers import Asked
from ..flows.ledger import Answered
from ..flows.reviewer_answer import Batch, BatchResult, Failure, failure_of
from .config import LOGGER, ReviewConfig
from .runtime import Runtime
from .timing import earliest

Unit = Literal["batches", "customers"]

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
"""Seconds before customers are asked about again; the pause doubles."""

_MOST_WAITING: Final = 20_000
"""Customers who wait for such a pause; with more, no new batch begins, so that memory stays bounded."""

HANDING_OVER_SECONDS: Final = 0.5
"""Seconds of grace: a result returned at the deadline still has to reach the event loop, perhaps from a thread."""

_TIMED_OUT: Final = Failure("The reviewer did not return within batch_timeout.", "TimeoutError")


class Asking:
    """The batches of one pass that are queued, asked about, or wait to be asked about again."""

    def __init__(
        self,
        config: ReviewConfig,
        runtime: Runtime,
        *,
        campaign_id: int,
        answer_until: Deadline,
        ask_until: Deadline,
        on_answer: Callable[[Answered], Awaitable[None]],
        on_asked: Callable[[], None],
        keep_payloads: bool = False,
    ) -> None:
        """Prepare a pass.

        Args:
            config: The review's settings.
            runtime: Calls the reviewer.
            campaign_id: The campaign.
            answer_until: The reviewer's deadline; no call begins after it.
            ask_until: When a call is abandoned.
            on_answer: Takes each answer.
            on_asked: Called before each call of the reviewer.
            keep_payloads: Whether results hold the customers as the reviewer got them.
        """
        self._config = config
        self._runtime = runtime
        self._campaign_id = campaign_id
        self._answer_until = answer_until
        self._ask_until = ask_until
        self._on_answer = on_answer
        self._on_asked = on_asked
        self._keep_payloads = keep_payloads
        self._queue: asyncio.Queue[Batch | None] = asyncio.Queue(config.concurrency)
        self._places = asyncio.Semaphore(config.concurrency)
        self._open: dict[Batch, None] = {}
        self._asked: set[Batch] = set()  # without an answer yet
        self._failures: dict[Batch, dict[tuple[Unit, str], int]] = {}  # of the last attempt
        self._waiting = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._stopped = asyncio.Event()
        self._logged: set[tuple[Unit, str]] = set()
        self.failed: Counter[tuple[Unit, str]] = Counter()
        self.unknown_ids = 0

    @property
    def is_full(self) -> bool:
        """Whether `put` would wait."""
        return self._queue.full()

    async def put(self, batch: Batch) -> None:
        """Queue a batch."""
        self._open[batch] = None
        await self._queue.put(batch)

    def stop(self) -> None:
        """Begin no further call; those that run go on until their deadline."""
        self._stopped.set()

    async def end(self) -> None:
        """Let the workers end after the last batch."""
        for _ in range(self._config.concurrency):
            await self._queue.put(None)

    async def work(self, group: asyncio.TaskGroup) -> None:
        """Ask about batches until there are no more; whatever is to be asked again becomes a task of the group."""
        while (batch := await self._queue.get()) is not None:
            await self._ask(batch, group)
            del batch  # so that it is not kept alive while waiting for the next one
            await self._has_room.wait()

    def unanswered(self) -> list[Answered]:
        """Return, when asking is over, those without an answer; a failure of the last attempt is one."""
        left: list[Answered] = []
        for batch in self._open:
            ids = frozenset(batch.asked.ids)
            if batch in self._asked:
                left.append(Answered(batch.asked, BatchResult(frozenset(), unanswered=ids)))
            elif batch not in self._failures:
                left.append(Answered(batch.asked, BatchResult(frozenset(), not_reached=ids)))
        return left

    def close(self) -> None:
        """Ignore what comes later: the pass is over."""
        self._open.clear()

    def count_failures(self) -> None:
        """Count, when asking is over, the failures of those who were to be asked about again."""
        for batch in list(self._failures):
            self._give_up(batch)

    async def _ask(self, batch: Batch, group: asyncio.TaskGroup) -> None:
        async with self._places:
            if self._stopped.is_set() or self._answer_until.expired or batch not in self._open:
                return
            self._on_asked()
            self._asked.add(batch)
            if not await self._attempt(batch, group):
                return
        attempt = batch.customers.attempt
        pause = min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)
        has_time = pause < self._answer_until.remaining() and not self._stopped.is_set()
        if attempt < self._config.batch_attempts and has_time:
            batch.shrink_to(frozenset(batch.asked.ids), attempt=attempt + 1)
            group.create_task(self._ask_again(batch, pause, group))
        else:
            self._open.pop(batch, None)
            self._give_up(batch)

    async def _ask_again(self, batch: Batch, pause: float, group: asyncio.TaskGroup) -> None:
        size = len(batch.asked.ids)
        self._waiting += size
        if self._waiting >= _MOST_WAITING:
            self._has_room.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._stopped.wait()
        self._waiting -= size
        if self._waiting < _MOST_WAITING:
            self._has_room.set()
        await self._ask(batch, group)

    async def _attempt(self, batch: Batch, group: asyncio.TaskGroup) -> bool:
        """Call the reviewer once, and return whether it is to be asked again about what is left of the batch."""
        asked = batch.asked
        customers = {each.customer_id: each for each in batch.customers} if self._keep_payloads else {}
        deadline, at_last = self._deadlines()
        is_bounded = deadline is not self._answer_until

        def on_late(result: BatchResult) -> None:
            # It is still the first answer when the next attempt has none, and may never have one.
            if batch in self._open and not self._answer_until.expired:
                first = asked.only(frozenset(asked.ids) - result.not_reached - result.unanswered)
                result = dataclasses.replace(result, customers=customers)
                group.create_task(self._settle(batch, first, result))

        unit: Unit = "customers"
        try:
            result = await self._runtime.ask(batch, deadline, at_last=at_last, on_late=on_late if is_bounded else None)
        except Exception as error:  # noqa: BLE001 - a reviewer may raise anything
            is_late = isinstance(error, TimeoutError) and deadline.expired
            if is_late and self._answer_until.expired:
                return False  # no customer of the batch counts as reached
            unit = "batches"
            failure = _TIMED_OUT if is_late else failure_of(error)
            result = BatchResult(frozenset(), failed=dict.fromkeys(asked.ids, failure))
        self._asked.discard(batch)
        if (late := result.not_reached | result.unanswered) and not self._answer_until.expired:
            failed = {**result.failed, **dict.fromkeys(late, _TIMED_OUT)}
            result = dataclasses.replace(result, failed=failed, not_reached=frozenset(), unanswered=frozenset())
        self._log(unit, result.failed.values())
        await self._settle(batch, asked, dataclasses.replace(result, customers=customers), unit)
        return batch in self._open

    async def _settle(self, batch: Batch, asked: Asked, result: BatchResult, unit: Unit = "customers") -> None:
        """Hand an answer on, about those of its customers who have none yet; the batch keeps those who failed."""
        if batch not in self._open:
            return
        needed = frozenset(batch.asked.ids)
        if asked is not batch.asked:  # some have an answer by now
            asked = asked.only(needed)
        if not asked.ids:
            return
        if result.unknown_ids:
            if not self.unknown_ids:  # logged once; the report has the total
                LOGGER.warning(
                    "campaign %d: the reviewer returned %d ids that are not in its batch of %d; not sent",
                    self._campaign_id,
                    result.unknown_ids,
                    len(asked.ids),
                )
            self.unknown_ids += result.unknown_ids
        left = needed.difference(asked.ids) | needed.intersection(result.failed)
        if left:
            batch.shrink_to(left, attempt=batch.customers.attempt)
            texts = Counter(failure.text for name, failure in result.failed.items() if name in needed)
            self._failures[batch] = {(unit, text): 1 if unit == "batches" else texts[text] for text in texts}
        else:
            del self._open[batch]
            self._failures.pop(batch, None)
        await self._on_answer(Answered(asked, result))

    def _deadlines(self) -> tuple[Deadline, Deadline]:
        """Return when the reviewer is to return, and when it is abandoned."""
        timeout = self._config.batch_timeout
        if timeout is None or timeout >= self._answer_until.remaining():
            return self._answer_until, self._ask_until
        at_last = Deadline.after(timeout + min(HANDING_OVER_SECONDS, timeout / 10))
        return earliest(Deadline.after(timeout), self._answer_until), earliest(at_last, self._ask_until)

    def _log(self, unit: Unit, failures: Iterable[Failure]) -> None:
        """Log each reason once; it quotes no customer's data."""
        for text in {failure.text for failure in failures}:
            if (unit, text) not in self._logged:
                self._logged.add((unit, text))
                LOGGER.error("campaign %d: %s failed: %s", self._campaign_id, unit, text)

    def _give_up(self, batch: Batch) -> None:
        self.failed.update(self._failures.pop(batch, {}))
