"""The edges of a review: how the client, the reviewer and the journal are called, by threads or by await.

The review itself is one piece of asyncio; `Threads` lets it call plain functions, `Tasks` coroutine functions.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeVar, final

from optimove_conditional_execution.client import AsyncOptimoveClient, OptimoveClient
from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.drivers import contained, is_async
from optimove_conditional_execution.flows.effects import harmless
from optimove_conditional_execution.flows.verdicts import Batch, Verdicts, verdicts
from optimove_conditional_execution.models.campaign import CampaignCustomer
from optimove_conditional_execution.operations import Operation
from optimove_conditional_execution.review.native_threads import workers
from optimove_conditional_execution.transport.send import Tally

R = TypeVar("R")

UPDATES_AT_ONCE: Final = 4
"""Status updates on their way at the same time, so that a slow one does not hold the others."""

_IO_PLACES: Final = 4
"""Threads for the page that is read; and as many for the journal, which may be locked."""

_ENOUGH: Final = 4_000
"""Customers that a thread reads before it hands them over."""

_LONG: Final = 0.01
"""Seconds after which it hands over what it has."""

_STALL: Final = 0.05
"""Seconds after which what it has is taken from it, while it waits for the network."""


class Side(Protocol):
    """What a review needs of its surroundings."""

    def customers(self, request: PageRequest) -> AsyncGenerator[list[CampaignCustomer], None]:
        """Yield the campaign's customers in lists of any length."""
        ...

    async def ask(self, batch: Batch, deadline: Deadline, *, at_last: Deadline) -> Verdicts:
        """Ask the reviewer. Whatever it raises comes out; `TimeoutError` when it is late, and it is left behind.

        Args:
            batch: Whom it is asked about.
            deadline: What it is told.
            at_last: When it is left behind: a little later, so that what it returns at its deadline counts.
        """
        ...

    async def send(self, operation: Operation[R], deadline: Deadline, tally: Tally) -> R:
        """Send an operation."""
        ...

    async def call(self, function: Callable[..., R], *arguments: object) -> R:
        """Call the journal, which may wait for a disk."""
        ...

    async def tell(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function of the user's that observes the review."""
        ...


@final
class PageRequest:
    """What the customers are asked for with."""

    def __init__(
        self,
        campaign_id: int,
        *,
        attributes: Sequence[str],
        page_size: int | None,
        deadline: Deadline,
        tally: Tally,
        wait_for_customers: float,
        on_warning: Callable[[str], None],
    ) -> None:
        self.campaign_id = campaign_id
        self.options: dict[str, Any] = {
            "customer_attributes": attributes,
            "page_size": page_size,
            "deadline": deadline,
            "tally": tally,
            "wait_for_customers": wait_for_customers,
            "on_warning": on_warning,
        }


class _Side:
    def __init__(self, reviewer: Callable[..., Any], concurrency: int) -> None:
        self._reviewer = reviewer
        # Of this run alone: a reviewer that hangs keeps its thread, and must not keep those of later runs.
        self._reviewers = workers(concurrency, "optimove-reviewer")
        self._io = workers(_IO_PLACES, "optimove-review")
        self._journal = workers(_IO_PLACES, "optimove-journal")

    async def call(self, function: Callable[..., R], *arguments: object) -> R:
        result: R = await asyncio.wrap_future(self._journal.submit(function, arguments))
        return result

    async def ask(self, batch: Batch, deadline: Deadline, *, at_last: Deadline) -> Verdicts:
        if is_async(self._reviewer):
            return await _in_time(asyncio.ensure_future(self._awaited(batch, deadline, at_last)), at_last)
        asked = self._reviewers.submit(self._asked, (batch, deadline, at_last))
        return await _in_time(asyncio.wrap_future(asked), at_last)

    def _asked(self, batch: Batch, deadline: Deadline, at_last: Deadline) -> Verdicts:
        # The answer can be a generator, so that reading it is the reviewer's work too.
        return verdicts(batch, self._reviewer(batch.customers, deadline), at_last)

    async def _awaited(self, batch: Batch, deadline: Deadline, at_last: Deadline) -> Verdicts:
        with contained():
            return verdicts(batch, await self._reviewer(batch.customers, deadline), at_last)


@final
class Threads(_Side):
    """The side of `OptimoveClient` and plain functions."""

    def __init__(self, client: OptimoveClient, reviewer: Callable[..., Any], concurrency: int) -> None:
        super().__init__(reviewer, concurrency)
        self._client = client
        # Of their own, so that slow updates hold neither the journal nor the next page.
        self._updates = workers(UPDATES_AT_ONCE, "optimove-update")

    async def tell(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function of the user's that observes the review, in a thread."""
        await self.call(function, *arguments)

    async def customers(self, request: PageRequest) -> AsyncGenerator[list[CampaignCustomer], None]:
        """Yield the campaign's customers in lists of any length."""
        blocks = self._client.get_processed_campaign_customers_in_blocks(request.campaign_id, **request.options)
        came: deque[list[CampaignCustomer]] = deque()
        reading = None
        try:
            while True:
                reading = self._io.submit(_fill, (came, blocks))
                waiting = asyncio.wrap_future(reading)
                waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody asks
                while True:
                    # A server that stalls must not hold back what has come.
                    await asyncio.wait((waiting,), timeout=_STALL)
                    some: list[CampaignCustomer] = []
                    over = waiting.done()
                    while came:
                        some += came.popleft()
                    if some:
                        yield some
                    if over:
                        break
                if not waiting.result():
                    return
        finally:
            if reading is not None:
                # A read that nobody waits for any more ends by itself, and then gives its connection back.
                reading.add_done_callback(lambda _: self._io.submit(blocks.close, ()))

    async def send(self, operation: Operation[R], deadline: Deadline, tally: Tally) -> R:
        """Send an operation."""
        sending = self._updates.submit(lambda: self._client.send(operation, deadline=deadline, tally=tally), ())
        result: R = await asyncio.wrap_future(sending)
        return result


@final
class Tasks(_Side):
    """The side of `AsyncOptimoveClient`."""

    def __init__(self, client: AsyncOptimoveClient, reviewer: Callable[..., Any], concurrency: int) -> None:
        super().__init__(reviewer, concurrency)
        self._client = client

    async def tell(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function of the user's that observes the review, in the event loop."""
        function(*arguments)

    def customers(self, request: PageRequest) -> AsyncGenerator[list[CampaignCustomer], None]:
        """Yield the campaign's customers in lists of any length."""
        return self._client.get_processed_campaign_customers_in_blocks(request.campaign_id, **request.options)

    async def send(self, operation: Operation[R], deadline: Deadline, tally: Tally) -> R:
        """Send an operation."""
        return await self._client.send(operation, deadline=deadline, tally=tally)


def _fill(came: deque[list[CampaignCustomer]], blocks: Iterator[list[CampaignCustomer]]) -> bool:
    """Read on until the change of threads pays, or the network makes us wait; tell whether there may be more."""
    begun = time.monotonic()
    read = 0
    for block in blocks:
        read += len(block)
        came.append(block)
        if read >= _ENOUGH or time.monotonic() - begun > _LONG:
            return True
    return False


async def _in_time(asked: asyncio.Future[Verdicts], deadline: Deadline) -> Verdicts:
    try:
        # Not wait_for: that would wait for one who ignores being cancelled.
        await asyncio.wait((asked,), timeout=deadline.remaining())
        late = not asked.done()
    finally:
        if not asked.done():
            asked.cancel()
            asked.add_done_callback(lambda done: done.cancelled() or done.exception())
    if late:
        raise TimeoutError
    raised = asyncio.CancelledError() if asked.cancelled() else asked.exception()
    if raised is not None:
        raise harmless(raised)
    return asked.result()
