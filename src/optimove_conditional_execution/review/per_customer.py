"""`per_customer`: a batch reviewer from a function of one customer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Final, cast, overload

from .. import validation
from ..deadline import Deadline
from ..drivers import contained
from ..flows.reviewer_answer import BatchResult, failure_of, parse_decisions
from ..fork import ForkLock
from ..handlers import AsyncCampaignReviewer, CampaignReviewer, Decision
from ..models.campaign import CampaignCustomer
from ..validation import is_async
from ..worker_pool import DaemonThreadPool

OneCustomer = Callable[[CampaignCustomer], Decision | bool]
AsyncOneCustomer = Callable[[CampaignCustomer], Awaitable[Decision | bool]]

_LOOK_SECONDS: Final = 0.1
"""Seconds between two looks at a deadline that may be brought forward."""


@overload
def per_customer(function: AsyncOneCustomer, *, concurrency: int = 16) -> AsyncCampaignReviewer: ...
@overload
def per_customer(function: OneCustomer, *, concurrency: int = 16) -> CampaignReviewer: ...
def per_customer(
    function: OneCustomer | AsyncOneCustomer, *, concurrency: int = 16
) -> CampaignReviewer | AsyncCampaignReviewer:
    """Turn a function that decides about one customer into a reviewer.

    A fixed number of workers process the customers, so that a campaign of a million does not need a million tasks. Only
    `True` and `Decision.approve()` approve. A customer for whom the function raises, or returns an invalid value,
    counts as failed, alone, and the report says how many there were and what was raised. No calls start after the
    deadline; what was decided by then stays decided.

    Args:
        function: Takes a customer; a plain function runs in threads, a coroutine function in the event loop.
        concurrency: Concurrent calls, over all batches.

    Raises:
        ConfigurationError: `concurrency` is not a whole number of 1 or more, or `function` cannot be called with a
            customer.
    """
    validation.integer("concurrency", concurrency)
    hint = "A function of a batch and a deadline is a reviewer already."
    validation.check_callable("per_customer's function", function, "customer", hint=hint)
    if is_async(function):
        return _InTasks(cast(AsyncOneCustomer, function), concurrency)
    return _InThreads(cast(OneCustomer, function), concurrency)


class _Work:
    """A batch shared by several workers. Setting an item of a dict and popping from a deque need no lock."""

    def __init__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> None:
        self._todo = deque(customers)
        self._deadline = deadline
        self._customers = customers
        self._answers: dict[str, object] = {}  # by customer
        self._asked: dict[str, None] = {}

    def next(self) -> CampaignCustomer | None:
        if self._deadline.expired:
            return None
        try:
            customer = self._todo.popleft()
        except IndexError:
            return None
        self._asked[customer.customer_id] = None
        return customer

    def add(self, customer: CampaignCustomer, answer: object) -> None:
        self._answers[customer.customer_id] = answer

    def answer(self) -> BatchResult:
        asked = self._asked.copy().keys()
        answers = self._answers.copy()
        ids = [customer.customer_id for customer in self._customers]
        result = parse_decisions(ids, answers, what="function returned a %s; it must return")
        left = frozenset(ids) - answers.keys()
        return dataclasses.replace(result, not_reached=left - asked, unanswered=left & asked)


class _InThreads:
    def __init__(self, function: OneCustomer, concurrency: int) -> None:
        self._function = function
        self._concurrency = concurrency
        self._lock = ForkLock()
        self._pool = self._new_pool()
        self._left_behind: list[Future[None]] = []

    def __call__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> BatchResult:
        work = _Work(customers, deadline)
        pool = self._free_pool()
        workers = [pool.submit(self._run, (work,)) for _ in range(min(self._concurrency, len(customers)))]
        while not deadline.expired and concurrent.futures.wait(workers, min(deadline.remaining(), _LOOK_SECONDS))[1]:
            pass  # a stop of the review brings the deadline forward
        still_at_it = [worker for worker in workers if not (worker.cancel() or worker.done())]
        if still_at_it:
            with self._lock:
                self._left_behind += still_at_it
        return work.answer()

    def _free_pool(self) -> DaemonThreadPool:
        """Return the pool, or a new one when calls of an earlier batch still occupy workers."""
        with self._lock:
            if not all(worker.done() for worker in self._left_behind):
                self._pool = self._new_pool()
            self._left_behind.clear()
            return self._pool

    def _new_pool(self) -> DaemonThreadPool:
        return DaemonThreadPool(self._concurrency, on_full="queue", name="optimove-customer")

    def _run(self, work: _Work) -> None:
        while (customer := work.next()) is not None:
            try:
                answer: object = self._function(customer)
            except BaseException as error:  # noqa: BLE001 - a failure counts for one customer alone, SystemExit too
                answer = failure_of(error, who="function")
            work.add(customer, answer)


class _InTasks:
    def __init__(self, function: AsyncOneCustomer, concurrency: int) -> None:
        self._function = function
        self._concurrency = concurrency
        self._places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )

    async def __call__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> BatchResult:
        work = _Work(customers, deadline)
        places = self._places.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._concurrency))
        workers = [
            asyncio.ensure_future(self._run(work, places)) for _ in range(min(self._concurrency, len(customers)))
        ]
        try:
            left = set(workers)
            while left and not deadline.expired:
                _, left = await asyncio.wait(left, timeout=min(deadline.remaining(), _LOOK_SECONDS))
        finally:
            for worker in workers:
                worker.cancel()
        return work.answer()

    async def _run(self, work: _Work, places: asyncio.Semaphore) -> None:
        async with places:
            while (customer := work.next()) is not None:
                try:
                    with contained():
                        answer: object = await self._function(customer)
                except Exception as error:  # noqa: BLE001 - a failure counts for one customer alone
                    answer = failure_of(error, who="function")
                work.add(customer, answer)
