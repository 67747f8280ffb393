"""A journal in the memory of one process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, final

from optimove_conditional_execution.errors import OptimoveError
from optimove_conditional_execution.flows.journal import UNKNOWN, Decided, Kept, check_moment, check_range, check_run
from optimove_conditional_execution.models.listener import CampaignReadyEvent

_KEEP_IDS: Final = 8
"""Finished reviews whose customers are still remembered."""


@final
class MemoryJournal:
    """A journal for one process, which a crash loses. Safe for threads and for asyncio.

    Finished reviews are remembered until `forget`; the ids of customers only of the last eight.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._reviews: dict[str, _Review] = {}
        self._taken: set[str] = set()
        self._runs: dict[str, int] = {}
        self._last_run = 0
        self._finished: deque[_Review] = deque()

    def keep(self, event: CampaignReadyEvent, /) -> bool:
        """Write an announced campaign down; see `Journal.keep`."""
        with self._lock:
            if event.key in self._reviews:
                return False
            self._reviews[event.key] = _Review(event)
            return True

    def take(self, key: str, /) -> int | None:
        """Become the only one who runs a review; see `Journal.take`."""
        with self._lock:
            if key in self._taken:
                return None
            self._taken.add(key)
            self._last_run += 1
            self._runs[key] = self._last_run
            return self._last_run

    def leave(self, key: str, /) -> None:
        """Let somebody else run the review; see `Journal.leave`."""
        with self._lock:
            self._taken.discard(key)

    def record(self, key: str, batches: Sequence[Decided], /, *, run: int | None = None) -> None:
        """Append decided batches; see `Journal.record`.

        Raises:
            OptimoveError: No such review is kept.
            SupersededError: A later run has taken the review.
        """
        with self._lock:
            review = self._known(key, run)
            for batch in batches:
                if batch not in review.seen:
                    review.seen.add(batch)
                    review.batches.append(batch)
                    review.approved += len(batch.approved)
                    review.decided += len(batch.approved) + len(batch.denied)

    def decided(self, key: str, /) -> Iterator[Decided]:
        """Yield all batches in the order of `record`; see `Journal.decided`."""
        with self._lock:
            review = self._reviews.get(key)
            batches = [] if review is None else list(review.batches)
        yield from batches

    def acknowledge(self, key: str, start: int, end: int, /, *, run: int | None = None) -> None:
        """Write down which statuses Optimove has taken; see `Journal.acknowledge`.

        Raises:
            OptimoveError: No such review is kept, or the range is none.
            SupersededError: A later run has taken the review.
        """
        check_range(start, end)
        with self._lock:
            review = self._known(key, run)
            apart = []
            for low, high in review.taken:
                if high < start or low > end:
                    apart.append((low, high))
                else:
                    start, end = min(low, start), max(high, end)
            review.taken = sorted([*apart, (start, end)])

    def acknowledged(self, key: str, /, *, run: int | None = None) -> list[tuple[int, int]]:
        """Return the ranges that Optimove has taken; see `Journal.acknowledged`.

        Raises:
            SupersededError: A later run has taken the review.
        """
        with self._lock:
            check_run(run, self._runs.get(key))
            review = self._reviews.get(key)
            return [] if review is None else list(review.taken)

    def finish(self, key: str, report: str, /, *, run: int | None = None) -> None:
        """Write down that nothing is left to do; see `Journal.finish`.

        Raises:
            OptimoveError: No such review is kept.
            SupersededError: A later run has taken the review.
        """
        with self._lock:
            review = self._known(key, run)
            if review.report is not None:
                return
            review.report = report
            self._finished.append(review)
            if len(self._finished) > _KEEP_IDS:
                oldest = self._finished.popleft()
                oldest.batches.clear()
                oldest.seen.clear()

    def report(self, key: str, /) -> str | None:
        """Return the text given to `finish`; see `Journal.report`."""
        with self._lock:
            review = self._reviews.get(key)
            return None if review is None else review.report

    def unfinished(self) -> list[CampaignReadyEvent]:
        """Return what is left to do, in the order of `keep`."""
        with self._lock:
            return [review.event for review in self._reviews.values() if review.report is None]

    def reviews(self) -> list[Kept]:
        """Return all reviews, in the order of `keep`."""
        with self._lock:
            return [review.kept() for review in self._reviews.values()]

    def forget(self, before: datetime, /) -> int:
        """Delete old finished reviews; see `Journal.forget`.

        Raises:
            ConfigurationError: `before` has a zone.
        """
        check_moment(before)
        with self._lock:
            old = [key for key, review in self._reviews.items() if review.is_over(before)]
            for key in old:
                del self._reviews[key]
                self._runs.pop(key, None)
            self._finished = deque(review for review in self._finished if not review.is_over(before))
            return len(old)

    def _known(self, key: str, run: int | None) -> _Review:
        review = self._reviews.get(key)
        if review is None:
            raise OptimoveError(UNKNOWN)
        check_run(run, self._runs.get(key))
        return review


class _Review:
    def __init__(self, event: CampaignReadyEvent) -> None:
        self.event = event
        self.batches: list[Decided] = []
        self.seen: set[Decided] = set()
        self.decided = 0
        self.approved = 0
        self.taken: list[tuple[int, int]] = []
        self.report: str | None = None

    def is_over(self, before: datetime) -> bool:
        return self.report is not None and self.event.clearance_required_by < before

    def kept(self) -> Kept:
        return Kept(
            event=self.event,
            decided=self.decided,
            approved=self.approved,
            acknowledged=sum(high - low for low, high in self.taken),
            finished=self.report is not None,
            report=self.report,
        )
