"""Runtime adapters of a review: call client and reviewer from threads or tasks.

The review itself runs on asyncio; `ThreadRuntime` lets it use the sync client, `AsyncRuntime` the async one.
"""

from __future__ import annotations

import abc
import asyncio
import functools
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ..client import AsyncOptimoveClient, OptimoveClient
from ..deadline import Deadline
from ..drivers import contained
from ..flows.effects import as_exception
from ..flows.reviewer_answer import Batch, BatchResult, parse_answer
from ..models.campaign import CampaignCustomer, CustomerBatch
from ..operations import Operation
from ..transport.send import RequestCounter
from ..validation import is_async
from ..worker_pool import DaemonThreadPool
from .native_threads import workers

UPDATES_AT_ONCE: Final = 4
"""Concurrent status updates, so that a slow one does not delay the others."""

_PAGE_THREADS: Final = 4
"""Threads: one reads, the others close abandoned streams."""

_ROWS_AT_ONCE: Final = 500
"""Customers that a thread reads before it passes them to the event loop."""

_READ_SECONDS: Final = 0.01
"""Seconds after which it passes on what it has."""

_LOOK_SECONDS: Final = 0.1
"""Seconds between two looks at a deadline that may be brought forward."""

_STALL_SECONDS: Final = 0.05
"""Seconds after which the event loop takes what the thread has, while that waits for the network."""


@dataclass(frozen=True, slots=True)
class Update:
    """A status update that is to be sent.

    Attributes:
        operation: The call.
        deadline: Its deadline.
        counter: Counts its requests.
        approvals: How many customers it approves.
        before_send: Called before each request, in its thread; see `OptimoveClient.send`.
    """

    operation: Operation[int]
    deadline: Deadline
    counter: RequestCounter
    approvals: int
    before_send: Callable[[], None] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of the client's `send`; `before_send`, which not every client has to know, only if it is set."""
        names = ("deadline", "counter") if self.before_send is None else ("deadline", "counter", "before_send")
        return {name: getattr(self, name) for name in names}


class Runtime(abc.ABC):
    """Calls the client and the reviewer for one run of a review."""

    def __init__(self, reviewer: Callable[..., Any], threads: int) -> None:
        self._reviewer = reviewer
        # Of this run alone: a hanging reviewer occupies its worker, and must not occupy those of later runs.
        self._reviewers = workers(DaemonThreadPool(threads, on_full="queue", name="optimove-reviewer"))

    @abc.abstractmethod
    def customers(self, campaign_id: int, **options: Any) -> AsyncGenerator[list[CampaignCustomer], None]:
        """Yield the campaign's customers in lists of any length.

        Args:
            campaign_id: The campaign.
            options: Those of the client's method.
        """

    @abc.abstractmethod
    async def send(self, update: Update) -> None:
        """Send a status update."""

    def findings(self) -> dict[str, Any]:
        """Return what the report says of the review's controls, by field."""
        return {}

    async def ask(
        self,
        batch: Batch,
        deadline: Deadline,
        *,
        at_last: Deadline,
        on_late: Callable[[BatchResult], None] | None = None,
    ) -> BatchResult:
        """Call the reviewer. Its exceptions propagate; `TimeoutError` when it is late and abandoned.

        Args:
            batch: The customers.
            deadline: The deadline that is passed to it.
            at_last: When it is abandoned: a little later, so that what it returns at its deadline counts.
            on_late: Called with what an abandoned thread returns in the end.
        """
        customers, ids = batch.customers, batch.asked.ids
        if is_async(self._reviewer):
            return await _in_time(asyncio.ensure_future(self._awaited(customers, ids, deadline, at_last)), at_last)
        asked = self._reviewers.submit(self._asked, (customers, ids, deadline, at_last if on_late is None else None))
        try:
            return await _in_time(asyncio.wrap_future(asked), at_last, on_late)
        except TimeoutError:
            asked.cancel()  # without effect on a call that has begun; one that has not must not begin any more
            raise

    def _asked(
        self, customers: CustomerBatch, ids: Sequence[str], deadline: Deadline, at_last: Deadline | None
    ) -> BatchResult:
        # The return value can be a generator, so it is iterated in the reviewer's thread.
        return parse_answer(ids, self._reviewer(customers, deadline), at_last)

    async def _awaited(
        self, customers: CustomerBatch, ids: Sequence[str], deadline: Deadline, at_last: Deadline
    ) -> BatchResult:
        with contained():
            return parse_answer(ids, await self._reviewer(customers, deadline), at_last)


class ThreadRuntime(Runtime):
    """For `OptimoveClient`, in threads."""

    def __init__(self, client: OptimoveClient, reviewer: Callable[..., Any], threads: int) -> None:
        super().__init__(reviewer, threads)
        self._client = client
        # Separate pools, so that slow updates do not delay the next page.
        self._pages = workers(DaemonThreadPool(_PAGE_THREADS, on_full="queue", name="optimove-review"))
        self._updates = workers(DaemonThreadPool(UPDATES_AT_ONCE, on_full="queue", name="optimove-update"))

    async def customers(self, campaign_id: int, **options: Any) -> AsyncGenerator[list[CampaignCustomer], None]:
        """Yield the campaign's customers in lists of any length."""
        blocks = self._client.get_processed_campaign_customers_in_blocks(campaign_id, **options)
        came: deque[list[CampaignCustomer]] = deque()
        reading = None
        try:
            while True:
                reading = self._pages.submit(_fill, (came, blocks))
                waiting = asyncio.wrap_future(reading)
                waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # in case it is abandoned
                while True:
                    # A server that stalls must not delay the customers already read.
                    await asyncio.wait((waiting,), timeout=_STALL_SECONDS)
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
                # An abandoned read ends by itself, and then its connection is released.
                reading.add_done_callback(lambda _: self._pages.submit(blocks.close, ()))

    async def send(self, update: Update) -> None:
        """Send a status update."""
        send = functools.partial(self._client.send, **update.options)
        await asyncio.wrap_future(self._updates.submit(send, (update.operation,)))


class AsyncRuntime(Runtime):
    """For `AsyncOptimoveClient`, in the event loop."""

    def __init__(self, client: AsyncOptimoveClient, reviewer: Callable[..., Any], threads: int) -> None:
        super().__init__(reviewer, threads)
        self._client = client

    def customers(self, campaign_id: int, **options: Any) -> AsyncGenerator[list[CampaignCustomer], None]:
        """Yield the campaign's customers in lists of any length."""
        return self._client.get_processed_campaign_customers_in_blocks(campaign_id, **options)

    async def send(self, update: Update) -> None:
        """Send a status update."""
        await self._client.send(update.operation, **update.options)


def _fill(came: deque[list[CampaignCustomer]], blocks: Iterator[list[CampaignCustomer]]) -> bool:
    """Read until a batch is worth a thread switch; return whether there may be more."""
    begun = time.monotonic()
    read = 0
    for block in blocks:
        read += len(block)
        came.append(block)
        if read >= _ROWS_AT_ONCE or time.monotonic() - begun > _READ_SECONDS:
            return True
    return False


async def _in_time(
    asked: asyncio.Future[BatchResult], deadline: Deadline, on_late: Callable[[BatchResult], None] | None = None
) -> BatchResult:
    try:
        # Not wait_for, which waits for a coroutine that ignores its cancellation. Polling, since a stop brings the
        # deadline forward.
        while not asked.done() and not deadline.expired:
            await asyncio.wait((asked,), timeout=min(deadline.remaining(), _LOOK_SECONDS))
        late = not asked.done()
    except asyncio.CancelledError:
        on_late = None  # the pass ends
        raise
    finally:
        if not asked.done():
            if on_late is None:
                asked.cancel()
                asked.add_done_callback(lambda done: done.cancelled() or done.exception())
            else:
                tell = on_late
                asked.add_done_callback(lambda done: done.cancelled() or done.exception() or tell(done.result()))
    if late:
        raise TimeoutError
    raised = asyncio.CancelledError() if asked.cancelled() else asked.exception()
    if raised is not None:
        raise as_exception(raised)
    return asked.result()
