"""Bookkeeping of a review run: counters and queues of customers, decisions and status updates."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import chain, compress, count, islice, repeat
from operator import attrgetter, itemgetter, not_, or_
from typing import Any, Final

from ..models.campaign import CONTROL_GROUP, CampaignCustomer, CustomerBatch
from ..models.events import CampaignReadyEvent
from .journal import FIRST_DENIAL, DecidedBatch, Ranges, ranges_of
from .known_customers import Asked, KnownCustomers, Standing
from .reviewer_answer import Batch, BatchResult
from .row_sets import Row, RowSets, row_of

_action_of: Final[Callable[[Row], Any]] = itemgetter(1)
_id_of: Final = attrgetter("customer_id")


@dataclass(frozen=True, slots=True, repr=False)
class Chunk:
    """One status update: approvals, or denials.

    Attributes:
        ranges: The numbers of its statuses in the journal, as in `Journal.acknowledge`.
        ids: The customers.
    """

    ranges: tuple[tuple[int, int], ...]
    ids: Sequence[str]

    @property
    def approves(self) -> bool:
        """Whether these are approvals."""
        return self.ranges[0][0] < FIRST_DENIAL

    def halves(self) -> tuple[Chunk, Chunk]:
        """Split the update in two, each with its own ranges in the journal."""
        middle = len(self.ids) // 2
        front: list[tuple[int, int]] = []
        back: list[tuple[int, int]] = []
        left = middle
        for start, end in self.ranges:
            cut = min(end, start + left)
            left -= cut - start
            front += [(start, cut)] if start < cut else []
            back += [(cut, end)] if cut < end else []
        return Chunk(tuple(front), self.ids[:middle]), Chunk(tuple(back), self.ids[middle:])


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a batch, or to what was left of it after earlier attempts.

    Attributes:
        asked: The customers.
        result: The answer.
    """

    asked: Asked
    result: BatchResult


class Ledger:
    """Counters and queues of one run of a review. Not thread-safe.

    Approvals and denials wait here as compressed text until they are released; a million cost some megabytes.
    """

    def __init__(
        self,
        *,
        event: CampaignReadyEvent,
        chunk_size: int,
        report_denied: bool,
        skip_control_group: bool,
        taken: Ranges = (),
    ) -> None:
        """Start with empty queues.

        Args:
            event: The campaign.
            chunk_size: Statuses per update, at most.
            report_denied: Whether denied customers are reported too.
            skip_control_group: Whether rows of the control group are left out.
            taken: Ranges of statuses that Optimove acknowledged in earlier runs.
        """
        self._event = event
        self.acknowledged_before = taken
        self._chunk_size = chunk_size
        self._report_denied = report_denied
        self._skip_control_group = skip_control_group
        self._row_sets = RowSets()
        self._known = KnownCustomers(self._row_sets)
        self._queue: dict[int, CampaignCustomer] = {}  # by their places
        self._approvals = _Log(0, [each for each in taken if each[0] < FIRST_DENIAL])
        self._denials = _Log(FIRST_DENIAL, [each for each in taken if each[0] >= FIRST_DENIAL], keeps_ids=report_denied)
        self._emission: Iterator[tuple[int, Sequence[str]]] = iter(())
        self._rest: tuple[int, Sequence[str]] | None = None  # of what it has yielded
        self._has_revoked = self._has_restored = False
        self.rows = self.repeated_rows = self.control_group_rows = 0
        self.batches = self.answered = self.chunks = self.unanswered = 0

    @property
    def waiting(self) -> int:
        """Customers read and not yet decided about."""
        return self._known.counts[Standing.OPEN]

    @property
    def approved(self) -> int:
        """Customers approved by every answer, about all rows that are known, in all runs."""
        return self._known.counts[Standing.APPROVED]

    @property
    def abstained(self) -> int:
        """Customers whom the reviewer abstained about, in all runs."""
        return self._known.counts[Standing.ABSTAINED]

    @property
    def denied(self) -> int:
        """Customers not approved, in all runs; those included whom the reviewer abstained about."""
        return self._known.counts[Standing.DENIED] + self.abstained

    @property
    def failed(self) -> int:
        """Customers whose decision failed, in all runs."""
        return self._known.counts[Standing.FAILED]

    @property
    def reviewed(self) -> int:
        """Customers whom the reviewer was asked about, in all runs."""
        return self.approved + self.denied + self.failed

    @property
    def acknowledged(self) -> int:
        """Statuses that Optimove has acknowledged, in all runs."""
        return self._approvals.acknowledged + self._denials.acknowledged

    @property
    def unsent(self) -> int:
        """Statuses decided and to be sent, but not acknowledged yet."""
        denials = self._known.counts[Standing.DENIED] - self._denials.acknowledged if self._report_denied else 0
        return self.approved - self._approvals.acknowledged + denials

    @property
    def unreleased(self) -> int:
        """Approvals that are to be sent once they are released."""
        return self._known.count_unreleased()

    def warnings(self) -> Iterator[str]:
        """Yield what the report warns about."""
        if self.unanswered:
            yield (
                f"{self.unanswered} customers were asked about, and no answer came before time was up: what the "
                "reviewer did for them may have happened. The journal names them (optimove-ce review unanswered)."
            )
        if self.rows_too_late:
            yield (
                f"{self.rows_too_late} rows were read too late to ask about them: their customers' approval may have "
                "been sent before."
            )

    @property
    def rows_too_late(self) -> int:
        """Rows that were read when an approval of their customer was final already."""
        return self._known.rows_too_late

    @property
    def next_numbers(self) -> tuple[int, int]:
        """The numbers in the journal that the next approval and the next denial get."""
        return self._approvals.end, self._denials.end

    def counts(self) -> dict[str, int]:
        """Return the counts that `Progress` and `ReviewReport` have in common, by name."""
        names = ("rows", "reviewed", "approved", "denied", "failed", "acknowledged")
        return {name: getattr(self, name) for name in names}

    def restore(self, batch: DecidedBatch) -> None:
        """Restore a batch that an earlier run recorded."""
        self._has_restored = True
        known, numbers = self._known, [self._row_sets.number(text) for text in batch.row_sets] or [0]
        places = iter(known.places(batch.ids))
        row_sets = iter([numbers[index] for index in batch.row_set_of] or repeat(numbers[0]))

        def asked(ids: tuple[str, ...]) -> Asked:
            return Asked(ids, tuple(islice(places, len(ids))), tuple(islice(row_sets, len(ids))))

        known.approve(asked(batch.approved))
        known.refuse(asked(batch.denied), Standing.DENIED)
        known.refuse(asked(batch.abstained), Standing.ABSTAINED)
        known.approve(asked(batch.confirmed))
        for ids in batch.failed.values():
            known.leave_open(asked(ids), Standing.FAILED)
        known.leave_open(asked(batch.unanswered), Standing.OPEN)
        known.leave_open(asked(batch.not_reached), Standing.OPEN)
        known.finish(self._approvals.add(batch.approved))
        self._denials.add(batch.denied)
        self._has_revoked |= bool(batch.revoked)
        if batch.released is not None:
            known.release()

    def add_rows(self, customers: list[CampaignCustomer]) -> DecidedBatch | None:
        """Add rows; customers with a row that brings something new are queued for a batch.

        Returns:
            Customers of the control group to record as skipped, if there are new ones.
        """
        self.rows += len(customers)
        skipped: list[str] = []
        rows = list(map(row_of, customers))
        actions = list(map(_action_of, rows))
        if CONTROL_GROUP in actions:
            self.control_group_rows += actions.count(CONTROL_GROUP)
            if self._skip_control_group:
                control = [action == CONTROL_GROUP for action in actions]
                skipped, again = self._known.skip([*map(_id_of, compress(customers, control))])
                self.repeated_rows += again
                others = list(map(not_, control))
                customers, rows = list(compress(customers, others)), list(compress(rows, others))
        places, asked, alone, again = self._known.read(list(map(_id_of, customers)), rows)
        self.repeated_rows += again
        if not all(alone):
            customers = [
                customer if is_alone else customer.with_rows(self._row_sets.rows(number))
                for customer, number, is_alone in zip(customers, asked, alone, strict=True)
                if number
            ]
            places = list(compress(places, asked))
        self._queue.update(zip(places, customers, strict=True))
        return DecidedBatch(skipped=tuple(skipped)) if skipped else None

    def next_batch(self, size: int, *, flush: bool = False) -> Batch | None:
        """Return the next batch for the reviewer: a full one, or with `flush` what there is."""
        queue = self._queue
        if not queue or (len(queue) < size and not flush):
            return None
        places = tuple(islice(queue, size))
        customers = tuple(map(queue.pop, places))
        self.batches += 1
        shown = CustomerBatch(customers, event=self._event, number=self.batches)
        return Batch(shown, Asked(tuple(map(_id_of, customers)), places, self._known.sets_of(places)))

    def decide(self, answered: Answered) -> DecidedBatch:
        """Apply an answer, in the order in which answers are recorded, and return what to record."""
        asked, result, known = answered.asked, answered.result, self._known
        kinds: defaultdict[str, set[str]] = defaultdict(set)
        for name, failure in result.failed.items():
            kinds[failure.kind].add(name)
        refused = frozenset(asked.ids).difference(
            result.approved, result.abstained, result.failed, result.not_reached, result.unanswered
        )
        yes, no, withheld = asked.only(result.approved), asked.only(refused), asked.only(result.abstained)
        is_first = known.approve(yes)
        is_denied, is_revoked = known.refuse(no, Standing.DENIED)
        is_withheld, is_withdrawn = known.refuse(withheld, Standing.ABSTAINED)
        failed = {kind: asked.only(names) for kind, names in kinds.items()}
        for each in failed.values():
            known.leave_open(each, Standing.FAILED)
        not_reached, unanswered = asked.only(result.not_reached), asked.only(result.unanswered)
        known.leave_open(not_reached, Standing.OPEN)
        known.leave_open(unanswered, Standing.OPEN)
        self.unanswered += len(unanswered.ids)
        self.answered += len(asked.ids) - len(not_reached.ids) - len(unanswered.ids)
        settled = ((yes.ids, is_first), (no.ids, is_denied), (withheld.ids, is_withheld))
        approved, denied, abstained = (tuple(compress(ids, is_new)) for ids, is_new in settled)
        batch = DecidedBatch(
            approved=approved,
            denied=denied,
            abstained=abstained,
            confirmed=tuple([name for ids, is_new in settled for name in compress(ids, map(not_, is_new))]),
            revoked=(*compress(no.ids, is_revoked), *compress(withheld.ids, is_withdrawn)),
            failed={kind: each.ids for kind, each in failed.items() if each.ids},
            unanswered=unanswered.ids,
            not_reached=not_reached.ids,
            reasons=dict(result.reasons),
        )
        numbers: Sequence[int] = asked.row_sets
        if len(set(numbers)) > 1:
            asked_about = dict(zip(asked.ids, numbers, strict=True))
            numbers = [asked_about[name] for name in batch.ids]
        distinct = {number: index for index, number in enumerate(dict.fromkeys(numbers))}
        return dataclasses.replace(
            batch,
            row_sets=tuple(map(self._row_sets.text, distinct)),
            row_set_of=tuple([distinct[number] for number in numbers]) if len(distinct) > 1 else (),
        )

    def mark_recorded(self, batches: Iterable[DecidedBatch]) -> None:
        """Number the statuses of batches that are in the journal, so that they can be sent once they are released."""
        for batch in batches:
            self._approvals.add(batch.approved)
            self._denials.add(batch.denied)
            self._has_revoked |= bool(batch.revoked)
            if batch.released is not None:
                self._known.release()

    def take_back(self, batches: Iterable[DecidedBatch]) -> None:
        """Take back what may not be in the journal: none of these customers is approved."""
        for batch in batches:
            self._known.reopen(batch.ids, Standing.APPROVED, Standing.FAILED)
            self._known.reopen((*batch.denied, *batch.abstained), Standing.DENIED, Standing.ABSTAINED)

    def send_released(self) -> None:
        """Let `next_chunk` return what an earlier run released, and Optimove has not acknowledged."""
        self._emission = self._approvals.emit(self._known, Standing.APPROVED, only_final=True)

    def send_all(self) -> None:
        """Let `next_chunk` return every status that is to be sent, and was not returned before."""
        # What an earlier run approved could stand otherwise here, if two customers share a hash.
        everybody = not self._has_restored and self._known.none_lost
        # After what `send_released` has not yielded yet.
        approvals = self._approvals.emit(self._known, Standing.APPROVED, everybody=everybody)
        self._emission = chain(self._emission, approvals)
        if self._report_denied:
            self._emission = chain(self._emission, self._denials.emit(self._known, Standing.DENIED))

    def next_chunk(self) -> Chunk | None:
        """Return the next status update; approvals go before denials, which nothing that stops approvals holds back."""
        ids: list[str] = []
        ranges: list[tuple[int, int]] = []
        while (room := self._chunk_size - len(ids)) > 0:
            run, self._rest = self._rest or next(self._emission, None), None
            if run is None:
                break
            start, more = run
            if ids and (start < FIRST_DENIAL) != (ranges[0][0] < FIRST_DENIAL):
                self._rest = run
                break
            if len(more) > room:
                self._rest, more = (start + room, more[room:]), more[:room]
            ids += more
            goes_on = bool(ranges) and ranges[-1][1] == start
            ranges.append((ranges.pop()[0] if goes_on else start, start + len(more)))
        return Chunk(tuple(ranges), ids) if ids else None

    def revoked(self) -> Iterator[Ranges]:
        """Yield the numbers of approvals that a later answer has revoked, some ranges at a time."""
        return self._approvals.revoked(self._known) if self._has_revoked else iter(())

    def cut_smaller(self, size: int) -> None:
        """Limit further updates to this many statuses, after a larger one was rejected for its size."""
        self._chunk_size = min(self._chunk_size, size)

    def mark_acknowledged(self, chunk: Chunk) -> None:
        """Record that Optimove has acknowledged an update."""
        self.chunks += 1
        for start, end in chunk.ranges:
            log = self._approvals if start < FIRST_DENIAL else self._denials
            log.acknowledged += end - start

    @property
    def settled(self) -> bool:
        """Whether Optimove has acknowledged every status that is to be sent."""
        return self.unsent == 0


class _Log:
    """Ids with one status, numbered in the order of the journal, until they are sent."""

    def __init__(self, first: int, taken: Ranges, *, keeps_ids: bool = True) -> None:
        self.end = first
        self._taken = list(taken)
        self._next_taken = 0
        self._keeps_ids = keeps_ids
        self._blocks: list[tuple[int, bytes]] = []
        self.acknowledged = 0

    def add(self, ids: tuple[str, ...]) -> list[str]:
        """Number ids, and return those that were acknowledged before."""
        if not ids:
            return []
        start, end = self.end, self.end + len(ids)
        self.end = end
        taken: list[str] = []
        while self._next_taken < len(self._taken) and self._taken[self._next_taken][0] < end:
            low, high = self._taken[self._next_taken]
            # What `emit` has yielded before is in `_taken` too, and can be of earlier blocks.
            taken += ids[max(low, start) - start : max(min(high, end) - start, 0)]
            if high > end:
                break
            self._next_taken += 1
        self.acknowledged += len(taken)
        if self._keeps_ids and len(taken) < len(ids):
            self._blocks.append((start, zlib.compress(json.dumps(ids).encode(), 1)))
        return taken

    def emit(
        self, known: KnownCustomers, standing: Standing, *, only_final: bool = False, everybody: bool = False
    ) -> Iterator[tuple[int, Sequence[str]]]:
        """Yield the ids of those who stand so, and were neither acknowledged nor yielded before.

        Args:
            known: The customers.
            standing: How they must stand.
            only_final: Whether their approval must be final.
            everybody: Whether it is known that they all stand so.

        Yields:
            Ids with successive numbers, and the number of the first.
        """
        taken, emitted, at_taken = self._taken, list[tuple[int, int]](), 0
        for start, ids in self._unpacked():
            wanted = [True] * len(ids) if everybody else known.those_who(ids, standing, only_final=only_final)
            end = start + len(ids)
            while at_taken < len(taken) and taken[at_taken][0] < end:
                low, high = taken[at_taken]
                gone = slice(max(low - start, 0), max(high - start, 0))
                wanted[gone] = [False] * len(wanted[gone])
                if high > end:
                    break
                at_taken += 1
            for low, high in [(start, end)] if all(wanted) else ranges_of(compress(count(start), wanted)):
                yield low, ids[low - start : high - start]
                if only_final:
                    emitted.append((low, high))
        if emitted:
            self._taken = list(merge(taken, emitted))

    def revoked(self, known: KnownCustomers) -> Iterator[Ranges]:
        """Yield ranges of the numbers of those who are not approved any more."""
        for start, ids in self._unpacked():
            denied, abstained = known.those_who(ids, Standing.DENIED), known.those_who(ids, Standing.ABSTAINED)
            yield ranges_of(compress(count(start), map(or_, denied, abstained)))

    def _unpacked(self) -> Iterator[tuple[int, list[str]]]:
        for start, packed in self._blocks:
            yield start, json.loads(zlib.decompress(packed))
