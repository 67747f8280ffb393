"""The public review classes, for threads and for asyncio.

A file of its own, since all that both do alike is in `review.base`.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, Final, Self, TypeVar

from ..client import AsyncOptimoveClient, OptimoveClient
from ..errors import ConfigurationError, OptimoveError
from ..flows.effects import Overloaded
from ..flows.report import ReviewReport
from ..handlers import AsyncCampaignReviewer, CampaignReviewer
from ..models.events import CampaignReadyEvent
from ..transport.connection_pool import running_loop
from ..validation import is_async
from ..worker_pool import DaemonThreadPool
from .base import Review, check_event, publish
from .native_threads import run_in_loop
from .runtime import AsyncRuntime, Runtime, ThreadRuntime
from .timing import longest_wait

T = TypeVar("T")

_REVIEWS_AT_ONCE: Final = 128
"""Threads for submitted reviews; an incomplete one keeps its thread while it waits for the next pass."""


class CampaignReview(Review[CampaignReviewer, OptimoveClient]):
    """Reviews the customers of scheduled campaigns, in threads.

    Reading, reviewing, recording and sending are concurrent, so that the slowest sets the pace; memory stays constant
    however large the campaign is. Nobody is approved unless the reviewer returned their id in time and the journal
    holds it.
    """

    def _check_flavour(self, reviewer: CampaignReviewer, client: OptimoveClient) -> None:
        if is_async(reviewer):
            raise ConfigurationError("An async reviewer needs AsyncCampaignReview; CampaignReview calls a function.")
        if isinstance(client, type) or is_async(getattr(client, "send", None)):
            raise ConfigurationError("CampaignReview needs an OptimoveClient; AsyncCampaignReview takes the async one.")
        self._workers = DaemonThreadPool(_REVIEWS_AT_ONCE, on_full="queue", name="optimove-campaign")
        self._at_work: set[Future[ReviewReport | None]] = set()

    def _runtime(self) -> Runtime:
        return ThreadRuntime(self._client, self._reviewer, self._config.reviewer_threads)

    async def _publish(self, report: ReviewReport) -> None:
        await self._journal.call(publish, self._config, report)  # in a thread

    def run(self, event: CampaignReadyEvent, *, expected_customers: int | None = None) -> ReviewReport:
        """Review a campaign once; blocks until everything has been tried, or clearance comes.

        An interrupted review goes on where it stopped; for a complete one the report is returned again. An incomplete
        one returns, too: check the report and run it again, or use `submit`, which does so.

        Args:
            event: The event that Optimove sent to the listener.
            expected_customers: The number of customers, if you know it: then the warning that time does not suffice is
                given early. Optimove does not say it before the last page.

        Raises:
            ConfigurationError: Called in an event loop, or `event` is not a `CampaignReadyEvent`.
            Exception: What the journal raised before anything was decided.
        """
        return _in_a_loop(self._run_event(event, expected_customers))

    def submit(self, event: CampaignReadyEvent) -> None:
        """Store an event in the journal and return; a thread of this object reviews it. Pass it as `on_ready`.

        An incomplete review is retried, with pauses of up to a minute, while there is time before clearance.

        Args:
            event: The event that Optimove sent to the listener.

        Raises:
            OptimoveError: No thread can be started; the journal holds the event.
            Exception: What the journal raised: the event is not stored.
        """
        check_event(event)
        self._journal.journal.add(event)
        try:
            work = self._workers.submit(lambda: _in_a_loop(self._run_until_complete(event, fresh=True)), ())
        except Overloaded:
            raise OptimoveError(
                "The machine has no thread left for this review. The journal holds the event: resume() runs it."
            ) from None
        self._at_work.add(work)
        work.add_done_callback(self._at_work.discard)

    def resume(self) -> list[ReviewReport]:
        """Run the reviews that a crash left unfinished, and return their reports; blocks until all are done.

        A review that another thread or process runs is skipped. An incomplete one is retried, with pauses of up to a
        minute, while there is time before clearance.

        Raises:
            ConfigurationError: Called in an event loop.
            Exception: What `Journal.unfinished` raised. What the journal raises for one review is in that one's report.
        """
        return _in_a_loop(self._resume_all())

    def close(self, *, within: float | None = None) -> None:
        """Wait until the submitted reviews are done: complete, at clearance, or stopped.

        Args:
            within: Seconds after which they must be done, so they are stopped now: see `stop`. None lets them run.

        Raises:
            ConfigurationError: `within` is not a number of seconds, 0 or more.
        """
        if within is not None:
            self.stop(within=within)
        concurrent.futures.wait(list(self._at_work), longest_wait(within))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncCampaignReview(Review[AsyncCampaignReviewer | CampaignReviewer, AsyncOptimoveClient]):
    """Reviews the customers of scheduled campaigns, in an event loop; see `CampaignReview`.

    A plain reviewer runs in threads, a coroutine function in the event loop.
    """

    def _check_flavour(self, reviewer: AsyncCampaignReviewer | CampaignReviewer, client: AsyncOptimoveClient) -> None:
        if isinstance(client, type) or not is_async(getattr(client, "send", None)):
            raise ConfigurationError(
                "AsyncCampaignReview needs an AsyncOptimoveClient; CampaignReview takes the other."
            )
        self._tasks: set[asyncio.Task[ReviewReport | None]] = set()

    def _runtime(self) -> Runtime:
        return AsyncRuntime(self._client, self._reviewer, self._config.reviewer_threads)

    async def _publish(self, report: ReviewReport) -> None:
        publish(self._config, report)

    async def run(self, event: CampaignReadyEvent, *, expected_customers: int | None = None) -> ReviewReport:
        """Review a campaign once; returns when everything has been tried, or clearance comes.

        An interrupted review goes on where it stopped; for a complete one the report is returned again. An incomplete
        one returns, too: check the report and run it again, or use `submit`, which does so.

        Args:
            event: The event that Optimove sent to the listener.
            expected_customers: The number of customers, if you know it: then the warning that time does not suffice is
                given early. Optimove does not say it before the last page.

        Raises:
            ConfigurationError: `event` is not a `CampaignReadyEvent`, or no event loop of asyncio is running.
            Exception: What the journal raised before anything was decided.
        """
        running_loop("AsyncCampaignReview")
        return await self._run_event(event, expected_customers)

    async def submit(self, event: CampaignReadyEvent) -> None:
        """Store an event in the journal and return; a task of this object reviews it. Pass it as `on_ready`.

        An incomplete review is retried; see `CampaignReview.submit`.

        Args:
            event: The event that Optimove sent to the listener.

        Raises:
            ConfigurationError: `event` is not a `CampaignReadyEvent`, or no event loop of asyncio is running.
            Exception: What the journal raised: the event is not stored.
        """
        running_loop("AsyncCampaignReview")
        check_event(event)
        await self._journal.call(self._journal.journal.add, event)
        task = asyncio.get_running_loop().create_task(self._run_until_complete(event, fresh=True))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def resume(self) -> list[ReviewReport]:
        """Run the reviews that a crash left unfinished, and return their reports.

        A review that another task or process runs is skipped. An incomplete one is retried; see
        `CampaignReview.resume`.

        Raises:
            ConfigurationError: No event loop of asyncio is running.
            Exception: What `Journal.unfinished` raised. What the journal raises for one review is in that one's report.
        """
        running_loop("AsyncCampaignReview")
        return await self._resume_all()

    async def aclose(self, *, within: float | None = None) -> None:
        """Wait until the submitted reviews are done; see `CampaignReview.close`.

        Args:
            within: Seconds after which they must be done, so they are stopped now: see `stop`. None lets them run.

        Raises:
            ConfigurationError: `within` is not a number of seconds, 0 or more.
        """
        if within is not None:
            self.stop(within=within)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=longest_wait(within))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _in_a_loop(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return run_in_loop(coroutine)
    coroutine.close()
    raise ConfigurationError("CampaignReview blocks, so it must not run in an event loop: use AsyncCampaignReview.")
