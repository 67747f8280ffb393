"""A reviewer of batches out of a function of one customer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, cast, final, overload

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.drivers import is_async
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.flows.verdicts import PartialAnswer
from optimove_conditional_execution.handlers import AsyncCampaignReviewer, CampaignReviewer, Decision
from optimove_conditional_execution.models.campaign import CampaignCustomer
from optimove_conditional_execution.pools import Pool
from optimove_conditional_execution.settings import whole_number

OneCustomer = Callable[[CampaignCustomer], Decision | bool]
AsyncOneCustomer = Callable[[CampaignCustomer], Awaitable[Decision | bool]]


@overload
def per_customer(function: AsyncOneCustomer, *, concurrency: int = 16) -> AsyncCampaignReviewer: ...
@overload
def per_customer(function: OneCustomer, *, concurrency: int = 16) -> CampaignReviewer: ...
def per_customer(
    function: OneCustomer | AsyncOneCustomer, *, concurrency: int = 16
) -> CampaignReviewer | AsyncCampaignReviewer:
    """Turn a function that decides about one customer into a reviewer.

    A fixed set of workers takes customer after customer, so that a campaign of a million costs no million tasks. Only
    `True` and `Decision.approve()` approve. A customer for whom the function raises, or returns something odd, counts
    as failed, alone; nobody is asked about after the deadline.

    Args:
        function: Takes a customer; a plain function runs in threads, a coroutine function in the event loop.
        concurrency: How many customers are asked about at once, over all batches.

    Raises:
        ConfigurationError: `concurrency` is not a whole number of 1 or more, or `function` cannot be called.
    """
    whole_number("concurrency", concurrency)
    if not callable(function):
        raise ConfigurationError("per_customer needs a function of one customer.")
    if is_async(function):
        return _InTasks(cast(AsyncOneCustomer, function), concurrency)
    return _InThreads(cast(OneCustomer, function), concurrency)


@final
class _Work:
    """A batch that several workers share. Appending to a list and taking from a deque need no lock."""

    def __init__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> None:
        self._todo = deque(customers)
        self._deadline = deadline
        self._customers = customers
        self._approved: list[str] = []
        self._denied: list[str] = []
        self._failed: list[str] = []

    def next(self) -> CampaignCustomer | None:
        if self._deadline.expired:
            return None
        try:
            return self._todo.popleft()
        except IndexError:
            return None

    def note(self, customer: CampaignCustomer, answer: object) -> None:
        if isinstance(answer, Decision):
            answer = answer.verdict == "approve"  # to abstain is to leave a status out, and that is a no
        if answer is True:
            self._approved.append(customer.customer_id)
        elif answer is False:
            self._denied.append(customer.customer_id)
        else:
            self._failed.append(customer.customer_id)

    def answer(self) -> PartialAnswer:
        approved, denied, failed = tuple(self._approved), tuple(self._denied), tuple(self._failed)
        known = {*approved, *denied, *failed}
        unreached = tuple(one.customer_id for one in self._customers if one.customer_id not in known)
        return PartialAnswer(approved, failed, unreached)


@final
class _InThreads:
    def __init__(self, function: OneCustomer, concurrency: int) -> None:
        self._function = function
        self._concurrency = concurrency
        self._pool = Pool(concurrency, when_full="queue", name="optimove-customer")

    def __call__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> PartialAnswer:
        work = _Work(customers, deadline)
        workers = [self._pool.submit(self._run, (work,)) for _ in range(min(self._concurrency, len(customers)))]
        concurrent.futures.wait(workers, timeout=min(deadline.remaining(), threading.TIMEOUT_MAX))
        for worker in workers:
            worker.cancel()
        return work.answer()

    def _run(self, work: _Work) -> None:
        while (customer := work.next()) is not None:
            try:
                answer: object = self._function(customer)
            except BaseException:  # noqa: BLE001 - one customer's failure is that customer's alone, SystemExit too
                answer = None
            work.note(customer, answer)


@final
class _InTasks:
    def __init__(self, function: AsyncOneCustomer, concurrency: int) -> None:
        self._function = function
        self._concurrency = concurrency
        self._places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )

    async def __call__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> PartialAnswer:
        work = _Work(customers, deadline)
        places = self._places.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._concurrency))
        workers = [
            asyncio.ensure_future(self._run(work, places)) for _ in range(min(self._concurrency, len(customers)))
        ]
        try:
            if workers:
                left = deadline.remaining()
                await asyncio.wait(workers, timeout=None if left == float("inf") else left)
        finally:
            for worker in workers:
                worker.cancel()
        return work.answer()

    async def _run(self, work: _Work, places: asyncio.Semaphore) -> None:
        async with places:
            while (customer := work.next()) is not None:
                try:
                    answer: Any = await self._function(customer)
                except asyncio.CancelledError:
                    if _is_cancelled():
                        raise
                    answer = None  # something that the function waited for was cancelled, not this worker
                except Exception:  # noqa: BLE001 - one customer's failure is that customer's alone
                    answer = None
                work.note(customer, answer)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
