"""Bookkeeping of a review run: counters and queues of customers, decisions and status updates."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import attrgetter
from typing import Final

from ..models.campaign import CONTROL_GROUP, CampaignCustomer
from .id_set import IdSet
from .journal import FIRST_DENIAL, DecidedBatch
from .reviewer_answer import Batch, BatchResult

_action_of: Final = attrgetter("action_id")
_id_of: Final = attrgetter("customer_id")


@dataclass(frozen=True, slots=True)
class Chunk:
    """One status update.

    Attributes:
        ranges: The numbers of its statuses in the journal, as in `Journal.acknowledge`.
        statuses: The statuses.
    """

    ranges: tuple[tuple[int, int], ...]
    statuses: dict[str, bool]

    def halves(self) -> tuple[Chunk, Chunk]:
        """Split the update in two, each with its own ranges in the journal."""
        middle = len(self.statuses) // 2
        items = list(self.statuses.items())
        front: list[tuple[int, int]] = []
        back: list[tuple[int, int]] = []
        left = middle
        for start, end in self.ranges:
            cut = min(end, start + left)
            left -= cut - start
            front += [(start, cut)] if start < cut else []
            back += [(cut, end)] if cut < end else []
        return Chunk(tuple(front), dict(items[:middle])), Chunk(tuple(back), dict(items[middle:]))


class Ledger:
    """Counters and queues of one run of a review. Not thread-safe."""

    def __init__(
        self, *, chunk_size: int, report_denied: bool, skip_control_group: bool, taken: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Start with empty queues.

        Args:
            chunk_size: Statuses per update, at most.
            report_denied: Whether denied customers are reported too.
            skip_control_group: Whether rows of the control group are left out.
            taken: Ranges of statuses that Optimove acknowledged in earlier runs.
        """
        self._chunk_size = chunk_size
        self._skip_control_group = skip_control_group
        self._before = IdSet()
        self._seen = IdSet()
        self._customers: list[CampaignCustomer] = []
        self._ids: list[str] = []
        self._approvals = _Log(0, [each for each in taken if each[0] < FIRST_DENIAL], is_sent=True)
        self._denials = _Log(FIRST_DENIAL, [each for each in taken if each[0] >= FIRST_DENIAL], is_sent=report_denied)
        self.rows = self.repeated_rows = self.control_group_rows = 0
        self.admitted = self.answered = self.unknown_ids = 0
        self.approved = self.denied = self.failed = 0
        self.chunks = 0

    @property
    def waiting(self) -> int:
        """Customers read and not yet reviewed."""
        return self.admitted - self.answered

    @property
    def reviewed(self) -> int:
        """Customers whom the reviewer was asked about, in all runs."""
        return self.approved + self.denied + self.failed

    def counts(self) -> dict[str, int]:
        """Return the counts that `Progress` and `ReviewReport` have in common, by name."""
        names = ("rows", "reviewed", "approved", "denied", "failed", "acknowledged")
        return {name: getattr(self, name) for name in names}

    @property
    def unsent(self) -> int:
        """Statuses that are to be sent and are in no update yet."""
        return self._approvals.waiting + self._denials.waiting

    @property
    def acknowledged(self) -> int:
        """Statuses that Optimove has acknowledged, in all runs."""
        return self._approvals.acknowledged + self._denials.acknowledged

    @property
    def settled(self) -> bool:
        """Whether Optimove has acknowledged every status that is to be sent."""
        return self._approvals.settled and self._denials.settled

    def restore(self, batch: DecidedBatch) -> None:
        """Restore a batch that an earlier run decided."""
        self._before.add(batch.approved)
        self._before.add(batch.denied)
        self._enter(batch)

    def add_rows(self, customers: list[CampaignCustomer]) -> None:
        """Add rows; new customers are queued for a batch."""
        self.rows += len(customers)
        actions = list(map(_action_of, customers))
        if CONTROL_GROUP in actions:
            self.control_group_rows += actions.count(CONTROL_GROUP)
            if self._skip_control_group:
                customers = [one for one, action in zip(customers, actions, strict=True) if action != CONTROL_GROUP]
        ids = list(map(_id_of, customers))
        new = self._seen.add(ids)
        if not all(new):
            self.repeated_rows += len(new) - sum(new)
            customers = list(compress(customers, new))
            ids = list(compress(ids, new))
        if len(self._before):
            open_ = [name not in self._before for name in ids]
            customers = list(compress(customers, open_))
            ids = list(compress(ids, open_))
        self.admitted += len(ids)
        self._customers += customers
        self._ids += ids

    def next_batch(self, size: int, *, flush: bool = False) -> Batch | None:
        """Return the next batch for the reviewer: a full one, or with `flush` what there is."""
        if not self._ids or (len(self._ids) < size and not flush):
            return None
        batch = Batch(tuple(self._customers[:size]), self._ids[:size])
        del self._customers[:size], self._ids[:size]
        return batch

    def apply(self, batch: Batch, answer: BatchResult) -> DecidedBatch:
        """Apply a reviewer's answer, and return the batch to record."""
        self.unknown_ids += answer.unknown_ids
        approved, open_ids = answer.approved, answer.failed | answer.not_reached
        yes = tuple([name for name in batch.ids if name in approved])
        no = tuple([name for name in batch.ids if name not in approved and name not in open_ids])
        self.answered += len(answer.failed)
        self.failed += len(answer.failed)
        return DecidedBatch(yes, no)

    def mark_failed(self, batch: Batch) -> None:
        """Record that a batch failed."""
        self.answered += len(batch.ids)
        self.failed += len(batch.ids)

    def mark_recorded(self, batches: Iterable[DecidedBatch]) -> None:
        """Queue the statuses of batches that are in the journal, so that they can be sent."""
        for batch in batches:
            self.answered += len(batch.approved) + len(batch.denied)
            self._enter(batch)

    def next_chunk(self, *, flush: bool = False) -> Chunk | None:
        """Return the next status update: a full one, or with `flush` what there is; approvals go before denials."""
        if not self.unsent or (self.unsent < self._chunk_size and not flush):
            return None
        statuses: dict[str, bool] = {}
        ranges: list[tuple[int, int]] = []
        for log, status in ((self._approvals, True), (self._denials, False)):
            for start, ids in log.take(self._chunk_size - len(statuses)):
                statuses.update(dict.fromkeys(ids, status))
                goes_on = bool(ranges) and ranges[-1][1] == start
                ranges.append((ranges.pop()[0] if goes_on else start, start + len(ids)))
        return Chunk(tuple(ranges), statuses)

    def cut_smaller(self, size: int) -> None:
        """Limit further updates to this many statuses, after a larger one was rejected for its size."""
        self._chunk_size = min(self._chunk_size, size)

    def mark_acknowledged(self, chunk: Chunk) -> None:
        """Record that Optimove has acknowledged an update."""
        self.chunks += 1
        for start, end in chunk.ranges:
            log = self._approvals if start < FIRST_DENIAL else self._denials
            log.acknowledged += end - start

    def _enter(self, batch: DecidedBatch) -> None:
        self.approved += len(batch.approved)
        self.denied += len(batch.denied)
        self._approvals.add(batch.approved)
        self._denials.add(batch.denied)


class _Log:
    """Ids with one status, numbered in the order of the journal, and a queue of those still to be sent."""

    def __init__(self, first: int, taken: Iterable[tuple[int, int]], *, is_sent: bool) -> None:
        self._first = self._end = first
        self._taken = deque(taken)
        self._is_sent = is_sent
        self._waiting: deque[tuple[int, tuple[str, ...]]] = deque()
        self.waiting = 0
        self.acknowledged = 0

    @property
    def settled(self) -> bool:
        return not self._is_sent or self.acknowledged == self._end - self._first

    def add(self, ids: tuple[str, ...]) -> None:
        """Number ids, and queue those that were not acknowledged before."""
        first = at = self._end
        self._end = end = first + len(ids)
        while self._taken and self._taken[0][0] < end:
            start, stop = self._taken[0]
            start, stop = max(start, at), min(stop, end)
            self._wait(at, ids[at - first : start - first])
            self.acknowledged += stop - start
            at = stop
            if self._taken[0][1] > end:
                break
            self._taken.popleft()
        self._wait(at, ids[at - first :])

    def take(self, most: int) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield queued ids, each piece with the number of its first."""
        while self._waiting and most > 0:
            at, ids = self._waiting.popleft()
            if len(ids) > most:
                self._waiting.appendleft((at + most, ids[most:]))
                ids = ids[:most]
            most -= len(ids)
            self.waiting -= len(ids)
            yield at, ids

    def _wait(self, at: int, ids: tuple[str, ...]) -> None:
        if ids and self._is_sent:
            self._waiting.append((at, ids))
            self.waiting += len(ids)
