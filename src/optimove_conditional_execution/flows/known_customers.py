"""What is known of each customer of a review, in a few bytes: open addressing over 64-bit hashes.

A file of its own, since it is a data structure that neither reads nor decides.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import compress, islice
from typing import Final, NamedTuple

from .row_sets import Row, RowSets

_SIZES: Final = (13, 16, 19, 21)
"""The first index has two to the power of this many slots; each further one is twice as large."""

_FULL: Final = 0.6
_WIDE: Final = 1 << 16
"""Row sets from which on their numbers no longer fit into two bytes."""


class Standing(IntEnum):
    """How a customer stands: by all answers about all rows that are known."""

    OPEN = 0
    APPROVED = 1
    DENIED = 2
    ABSTAINED = 3
    FAILED = 4
    SKIPPED = 5


_STANDING: Final = 0b0111
_READ: Final = 0b0000_1000
"""A row of the customer was read in this run."""

_QUEUED: Final = 0b0001_0000
"""The reviewer is asked, in this run, about all rows that are known."""

_ASKED: Final = _READ | _QUEUED | Standing.OPEN
"""All that is known of most customers when they are decided about; the other cases take the longer way."""

_ALL_ASKED: Final = bytes((_ASKED,))

_EVER_APPROVED: Final = 0b0010_0000
_FINAL: Final = 0b0100_0000
"""The approval may have been sent, so nothing can change it."""

_DECIDED: Final = frozenset({Standing.DENIED, Standing.ABSTAINED})
_ASKED_AGAIN: Final = frozenset({Standing.OPEN, Standing.FAILED, Standing.SKIPPED})

_RELEASABLE: Final = bytes(flag for flag in range(256) if flag & (_STANDING | _FINAL) == Standing.APPROVED)
_NOT_LOST: Final = bytes(
    flag for flag in range(256) if not flag & _EVER_APPROVED or flag & _STANDING == Standing.APPROVED
)
_RELEASED: Final = bytes(flag | _FINAL if flag & _STANDING == Standing.APPROVED else flag for flag in range(256))


@dataclass(frozen=True, slots=True, repr=False)
class Asked:
    """Customers whom the reviewer is asked about.

    Attributes:
        ids: Their ids.
        places: Their places in `KnownCustomers`, in that order.
        row_sets: The numbers of the row sets that it is asked about, in that order.
    """

    ids: tuple[str, ...]
    places: tuple[int, ...]
    row_sets: tuple[int, ...]

    def only(self, ids: Collection[str]) -> Asked:
        """Return those of the customers who are among these."""
        keep = list(map(ids.__contains__, self.ids)) if ids else ()
        return Asked(
            tuple(compress(self.ids, keep)), tuple(compress(self.places, keep)), tuple(compress(self.row_sets, keep))
        )


class Read(NamedTuple):
    """What rows brought.

    Attributes:
        places: The place of the customer of each row.
        asked: For each row the number of the row set to ask about, all rows that are known of the customer; 0 when the
            row brings nothing new.
        alone: For each row whether it certainly is the only one that is known.
        again: The number of rows of customers who had been read before.
    """

    places: Sequence[int]
    asked: Sequence[int]
    alone: Sequence[bool]
    again: int


class KnownCustomers:
    """Customers by the hash of their id, each with a set of rows, a standing and some flags.

    Customers stand in arrays in the order in which they came, 11 bytes each, 13 when there are many row sets; an index
    of four bytes a slot says where. That is about 20 bytes for each of a million customers. Those of one batch came
    together, so they are close to each other in memory.

    The hashes are Python's keyed 64-bit ones. The chance that two of a million customers share a hash is 1 in 37
    million; what is known of one then counts for the other too, which can only deny.

    Attributes:
        counts: Customers by their `Standing`.
        rows_too_late: Rows that would have been asked about, but for an approval that is final.
    """

    def __init__(self, row_sets: RowSets) -> None:
        """Start empty.

        Args:
            row_sets: The row sets of all customers.
        """
        self._row_sets = row_sets
        self._bits = _SIZES[0]
        self._slots = array("I", bytes(4)) * (1 << self._bits)  # places; 0 marks a free slot
        # The first place is nobody's.
        self._hashes = array("q", [0])
        self._sets = array("H", [0])
        self._flags = bytearray(1)
        self.counts = [0] * len(Standing)
        self.rows_too_late = 0

    def __len__(self) -> int:
        return len(self._hashes) - 1

    def read(self, ids: Sequence[str], rows: Sequence[Row]) -> Read:
        """Add rows, and say which the reviewer is to be asked about."""
        before = len(self)
        places = self.places(ids)
        if len(self) - before == len(ids):  # nothing is known of most customers
            asked = self._row_sets.numbers_alone(rows)
            self._widen_for(max(asked, default=0))
            self._sets[before + 1 :] = array(self._sets.typecode, asked)
            self._flags[before + 1 :] = bytes((_READ | _QUEUED,)) * len(ids)
            return Read(places, asked, [True] * len(ids), 0)
        add, flags, sets = self._row_sets.add, self._flags, self._sets
        asked = []
        alone: list[bool] = []
        again = 0
        for place, row in zip(places, rows, strict=True):
            flag, known = flags[place], sets[place]
            number = add(known, row)
            alone.append(not flag and not known)
            if flag & _READ:
                again += 1
            if number == known and (flag & _QUEUED or flag & _STANDING not in _ASKED_AGAIN):
                flags[place] = flag | _READ
                asked.append(0)
            elif flag & _FINAL:
                self.rows_too_late += 1
                flags[place] = flag | _READ
                asked.append(0)
            else:
                if number != known:
                    self._set(place, number)
                    sets = self._sets
                if flag & _STANDING not in _DECIDED:
                    flag = self._stand(flag, Standing.OPEN)
                flags[place] = flag | _READ | _QUEUED
                asked.append(number)
        return Read(places, asked, alone, again)

    def skip(self, ids: Sequence[str]) -> tuple[list[str], int]:
        """Add rows that are not to be asked about.

        Returns:
            The ids of customers of whom nothing else is known. And the number of rows of customers who had been read
            before.
        """
        skipped: list[str] = []
        again = 0
        for name, place in zip(ids, self.places(ids), strict=True):
            flag = self._flags[place]
            again += flag & _READ != 0
            if not flag and not self._sets[place]:
                flag = self._stand(flag, Standing.SKIPPED)
                skipped.append(name)
            self._flags[place] = flag | _READ
        return skipped, again

    def approve(self, asked: Asked) -> list[bool]:
        """Apply approvals, each of the rows that were asked about; return for each whether it is the customer's first.

        A customer whose other rows are known is approved only once an answer about all of them approves.
        """
        if self._settle_usual(asked, Standing.APPROVED, _EVER_APPROVED):
            return [True] * len(asked.ids)
        first: list[bool] = []
        flags = self._flags
        for place, number in zip(asked.places, asked.row_sets, strict=True):
            covers = self._covers(place, number)
            flag = flags[place]
            is_open = flag & _STANDING not in _DECIDED
            first.append(is_open and not flag & _EVER_APPROVED)
            if is_open:
                if covers:
                    flag = self._stand(flag, Standing.APPROVED)
                flags[place] = flag | _EVER_APPROVED
        return first

    def refuse(self, asked: Asked, standing: Standing) -> tuple[list[bool], list[bool]]:
        """Apply denials or abstentions; one of any row is one of the customer, unless an approval is final.

        Returns:
            For each whether it is the customer's first. And for each whether it revokes an approval.
        """
        if self._settle_usual(asked, standing):
            return [True] * len(asked.ids), [False] * len(asked.ids)
        first: list[bool] = []
        revoked: list[bool] = []
        flags = self._flags
        for place, number in zip(asked.places, asked.row_sets, strict=True):
            self._covers(place, number)
            flag = flags[place]
            is_new = flag & _STANDING not in _DECIDED and not flag & _FINAL
            first.append(is_new)
            revoked.append(is_new and flag & _EVER_APPROVED != 0)
            if is_new:
                flags[place] = self._stand(flag, standing)
        return first, revoked

    def _settle_usual(self, asked: Asked, standing: Standing, more: int = 0) -> bool:
        """Apply answers if they are all about customers of whom nothing else is known; return whether they are."""
        flags, places = self._flags, asked.places
        if bytes(map(flags.__getitem__, places)) != _ALL_ASKED * len(places):
            return False
        if self.sets_of(places) != asked.row_sets:
            return False
        for place in places:
            flags[place] = _ASKED | standing | more
        self._count(len(places), Standing.OPEN, standing)
        return True

    def leave_open(self, asked: Asked, standing: Standing) -> None:
        """Apply that there was no answer about rows: `Standing.FAILED` or `Standing.OPEN`.

        It changes nothing for a customer of whom the same rows are decided about by another answer.
        """
        for place, number in zip(asked.places, asked.row_sets, strict=True):
            known = self._sets[place]
            self._covers(place, number)
            flag = self._flags[place]
            kept = flag & _STANDING == Standing.APPROVED and self._sets[place] == known
            if not kept and flag & _STANDING not in _DECIDED and not flag & _FINAL:
                self._flags[place] = self._stand(flag, standing)

    def reopen(self, ids: Sequence[str], *standings: Standing) -> None:
        """Take back what may not be in the journal, of customers who stand in one of these ways."""
        for place in self.places(ids):
            flag = self._flags[place]
            if flag & _STANDING in standings and not flag & _FINAL:
                self._flags[place] = self._stand(flag, Standing.OPEN)

    def release(self) -> None:
        """Make all approvals final."""
        self._flags = self._flags.translate(_RELEASED)

    def count_unreleased(self) -> int:
        """Return how many approvals are not final."""
        return len(self._flags) - len(self._flags.translate(None, _RELEASABLE))

    def finish(self, ids: Sequence[str]) -> None:
        """Make approvals final that were acknowledged."""
        for place in self.places(ids):
            self._flags[place] = self._stand(self._flags[place], Standing.APPROVED) | _FINAL

    @property
    def none_lost(self) -> bool:
        """Whether nobody who was approved by some answer stands otherwise by now."""
        return not self._flags.translate(None, _NOT_LOST)

    def sets_of(self, places: Iterable[int]) -> tuple[int, ...]:
        """Return for each customer the number of the row set of all rows that are known."""
        return tuple(map(self._sets.__getitem__, places))

    def those_who(self, ids: Sequence[str], standing: Standing, *, only_final: bool = False) -> list[bool]:
        """Return for each customer whether they stand so; with `only_final` also whether an approval is final."""
        flags = self._flags
        wanted, bits = (standing | _FINAL, _STANDING | _FINAL) if only_final else (standing, _STANDING)
        return [flags[place] & bits == wanted for place in self.places(ids)]

    def _covers(self, place: int, asked: int) -> bool:
        """Add rows that were asked about, and return whether they are all that is known of the customer."""
        known = self._sets[place]
        if known == asked:
            return True
        merged = self._row_sets.merge(known, asked)
        if merged != known:
            self._set(place, merged)
        return self._row_sets.merge(asked, known) == asked

    def _set(self, place: int, number: int) -> None:
        self._widen_for(number)
        self._sets[place] = number

    def _widen_for(self, number: int) -> None:
        if number >= _WIDE and self._sets.typecode == "H":
            self._sets = array("I", self._sets)

    def _stand(self, flag: int, standing: Standing) -> int:
        self._count(1, flag & _STANDING, standing)
        return flag & ~_STANDING | standing

    def _count(self, many: int, before: int, standing: Standing) -> None:
        self.counts[before] -= many
        self.counts[standing] += many

    def places(self, ids: Sequence[str]) -> list[int]:
        """Return the place of each customer, which never changes; a new one is added, as open."""
        self._grow_for(len(ids))
        slots, hashes = self._slots, self._hashes
        mask, before = len(slots) - 1, len(hashes)
        places: list[int] = []
        end = before
        for value in map(hash, ids):
            slot = value & mask
            while place := slots[slot]:
                if hashes[place] == value:
                    break
                slot = slot + 1 & mask
            else:
                place = slots[slot] = end
                hashes.append(value)
                end += 1
            places.append(place)
        new = end - before
        self._flags += bytes(new)
        self._sets.frombytes(bytes(new * self._sets.itemsize))
        self.counts[Standing.OPEN] += new
        return places

    def _grow_for(self, more: int) -> None:
        bits = self._bits
        while len(self) + more > _FULL * (1 << bits):
            bits = next((size for size in _SIZES if size > bits), bits + 1)
        if bits == self._bits:
            return
        self._bits = bits
        self._slots = slots = array("I", bytes(4)) * (1 << bits)
        mask = len(slots) - 1
        for place, value in enumerate(islice(self._hashes, 1, None), 1):
            slot = value & mask
            while slots[slot]:
                slot = slot + 1 & mask
            slots[slot] = place
