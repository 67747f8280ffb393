"""A reviewer of batches out of a function of one customer."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import weakref
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any, cast, final, overload

from optimove_conditional_execution import validation
from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.drivers import contained
from optimove_conditional_execution.flows.effects import name_of
from optimove_conditional_execution.flows.verdicts import PartialAnswer
from optimove_conditional_execution.handlers import AsyncCampaignReviewer, CampaignReviewer, Decision, kind_of
from optimove_conditional_execution.models.campaign import CampaignCustomer
from optimove_conditional_execution.pools import Pool
from optimove_conditional_execution.validation import is_async

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
    as failed, alone, and the report says how many there were and what was raised; nobody is asked about after the
    deadline, and who is decided by then stays decided.

    Args:
        function: Takes a customer; a plain function runs in threads, a coroutine function in the event loop.
        concurrency: How many customers are asked about at once, over all batches.

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


@final
class _Work:
    """A batch that several workers share. Appending to a list and taking from a deque need no lock."""

    def __init__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> None:
        self._todo = deque(customers)
        self._deadline = deadline
        self._customers = customers
        self._approved: list[str] = []
        self._denied: list[str] = []
        self._failed: list[tuple[str, str]] = []

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
            kind = kind_of(answer)
            self._fail(customer, f"The function returned a {kind}; it must return True, False or a Decision.")

    def raised(self, customer: CampaignCustomer, error: BaseException) -> None:
        # The message is the user's code's own and may hold personal data.
        self._fail(customer, f"The function raised {name_of(error)}.")

    def _fail(self, customer: CampaignCustomer, reason: str) -> None:
        self._failed.append((customer.customer_id, reason))

    def answer(self) -> PartialAnswer:
        approved, denied, failures = tuple(self._approved), tuple(self._denied), tuple(self._failed)
        failed = tuple(name for name, _ in failures)
        known = {*approved, *denied, *failed}
        unreached = tuple(one.customer_id for one in self._customers if one.customer_id not in known)
        return PartialAnswer(approved, failed, unreached, Counter(reason for _, reason in failures))


@final
class _InThreads:
    def __init__(self, function: OneCustomer, concurrency: int) -> None:
        self._function = function
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._pool = self._new_pool()
        self._left_behind: list[Future[None]] = []

    def __call__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> PartialAnswer:
        work = _Work(customers, deadline)
        pool = self._free_pool()
        workers = [pool.submit(self._run, (work,)) for _ in range(min(self._concurrency, len(customers)))]
        concurrent.futures.wait(workers, timeout=min(deadline.remaining(), threading.TIMEOUT_MAX))
        still_at_it = [worker for worker in workers if not (worker.cancel() or worker.done())]
        if still_at_it:
            with self._lock:
                self._left_behind += still_at_it
        return work.answer()

    def _free_pool(self) -> Pool:
        """Return the threads, or new ones when a function hangs in some since an earlier deadline."""
        with self._lock:
            if not all(worker.done() for worker in self._left_behind):
                self._pool = self._new_pool()
            self._left_behind.clear()
            return self._pool

    def _new_pool(self) -> Pool:
        return Pool(self._concurrency, when_full="queue", name="optimove-customer")

    def _run(self, work: _Work) -> None:
        while (customer := work.next()) is not None:
            try:
                answer: object = self._function(customer)
            except BaseException as error:  # noqa: BLE001 - one customer's failure is that one's alone, SystemExit too
                work.raised(customer, error)
            else:
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
                    with contained():
                        answer: Any = await self._function(customer)
                except Exception as error:  # noqa: BLE001 - one customer's failure is that customer's alone
                    work.raised(customer, error)
                else:
                    work.note(customer, answer)
