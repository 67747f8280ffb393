"""Rows of a decision log, each record chained to the one before by a hash: SHA-256.

The hash of a row covers every column, and of the personal part a commitment: a hash of it after a random salt. When
the personal part and its salt are deleted, the commitment says nothing about it, and the hash still fits. A file of its
own, since it knows no database.

A row is one entry, or a group: records of a review that have most in common. A row for each of them would take as long
as the review itself.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Final, NamedTuple, final

GENESIS: Final = hashlib.sha256(b"optimove-ce decision log, version 1").digest()
SALT_BYTES: Final = 32
"""As many as a commitment has: in a group it takes the place of the salt when a customer is erased."""

GROUP: Final = "group"

_hash: Final = hashlib.sha256
_CHECK_BYTES: Final = 8
"""Of the hash after each record of a group, so that the first one that was changed is found. All of them are in the
hash of the row."""

_ERASED: Final = "\\"
"""Stands in a group for a customer; no other is a single backslash, as JSON escapes it."""

_PERSONAL: Final = 9
"""Where the columns of the personal part begin in `Content`."""

_NULL: Final = "\x00"
"""Stands for NULL in what is hashed; JSON writes no control character as it is, so no column holds it."""


class Content(NamedTuple):
    """The columns of a row but for its number and hash; all texts are ASCII, as JSON escapes it.

    In a group `size` counts its records, `id` and `low` are the first one's, and the number of the row is the last
    one's. The first line of `entry` says in JSON which of the other lines how many records have; `customer` and
    `personal` have a line for each, and `salt` 32 bytes: of an erased customer the commitment. In `commitment`
    are the first bytes of the hash after each record; until the row is chained, the commitments themselves.
    """

    type: str
    size: int
    id: str | None
    completes: str | None
    at: str
    campaign: str | None
    low: int | None
    high: int | None
    entry: str
    customer: str | None = None
    personal: str | None = None
    salt: bytes | None = None
    commitment: bytes | None = None


class Row(NamedTuple):
    """A row of the log."""

    number: int
    hash: bytes
    content: Content

    @property
    def first(self) -> int:
        """The number of its first record."""
        return self.number - (self.content.size - 1 if self.content.type == GROUP else 0)


class Member(NamedTuple):
    """A record of a group. `entry` and `personal` are as those of a row, but that nothing personal is blank."""

    entry: str
    customer: str
    personal: str
    salt: bytes

    @property
    def is_erased(self) -> bool:
        """Whether its customer was erased."""
        return self.customer == _ERASED

    @property
    def commitment(self) -> bytes:
        """The commitment to its personal part."""
        return self.salt if self.is_erased else commitment(self.salt, self.customer, self.personal)

    def erased(self) -> Member:
        """Return it without its personal part."""
        return Member(self.entry, _ERASED, "", self.commitment)


@final
@dataclass(frozen=True, slots=True)
class ChainFault:
    """The first entry of a log that does not fit.

    Attributes:
        entry: Its number.
        problem: What is wrong, in words.
    """

    entry: int
    problem: str


def commitment(salt: bytes, customer: str | None, personal: str) -> bytes:
    """Return the commitment to the personal part of a record."""
    return _hash(salt + f"{_NULL if customer is None else customer}\n{personal}".encode()).digest()


def commitments(salts: bytes, customers: Sequence[str], personal: Sequence[str]) -> list[bytes]:
    """Return the commitments to the personal parts of a group's records, as `commitment` does for one."""
    texts = [f"{customer}\n{text}".encode() for customer, text in zip(customers, personal, strict=True)]
    return [_hash(salt + text).digest() for salt, text in zip(_pieces(salts, SALT_BYTES), texts, strict=True)]


def members(content: Content) -> list[Member]:
    """Return the records of a group, as far as all columns have them."""
    which, entries = _entries(content)
    customers, personal = str(content.customer).split("\n")[1:-1], str(content.personal).split("\n")
    columns = zip(which, customers, personal, _pieces(content.salt or b"", SALT_BYTES), strict=False)
    return [Member(entries[index], customer, text, salt) for index, customer, text, salt in columns]


def with_members(content: Content, given: Sequence[Member]) -> Content:
    """Return a group with the personal parts of these records."""
    return content._replace(
        customer="".join([f"\n{each.customer}" for each in given]) + "\n",
        personal="\n".join([each.personal for each in given]),
        salt=b"".join([each.salt for each in given]),
    )


def _entries(content: Content) -> tuple[Iterable[int], list[str]]:
    """Return for each record of a group which entry is its own, and the entries."""
    runs, *entries = content.entry.split("\n")
    return chain.from_iterable([repeat(index, count) for index, count in json.loads(runs)]), entries


def _pieces(value: bytes, size: int) -> list[bytes]:
    return [value[start : start + size] for start in range(0, len(value), size)]


def chained(previous: bytes, number: int, content: Content) -> bytes:
    """Return the hash of a row.

    Args:
        previous: The hash of the row before, or `GENESIS`.
        number: The row's number.
        content: The row's content, of which the personal part counts by its commitment alone.
    """
    values = [_NULL if value is None else value for value in content[:_PERSONAL]]
    committed = _NULL if content.commitment is None else content.commitment.hex()
    return _hash(previous + "\n".join(map(str, (number, *values, committed))).encode()).digest()


def _has_null(values: Iterable[object]) -> bool:
    return any(isinstance(value, str) and _NULL in value for value in values)


def _links(previous: bytes, first: int, content: Content, commitments: Sequence[bytes]) -> list[bytes]:
    """Return the hash after each record of a group, and at last that of the row."""
    digest = chained(previous, first, content._replace(entry="", commitment=None))
    which, entries = _entries(content)
    hashes = [_hash(entry.encode()).digest() for entry in entries]
    links: list[bytes] = []
    for committed, index in zip(commitments, which, strict=False):
        digest = _hash(digest + committed + hashes[index]).digest()
        links.append(digest)
    return [*links, _hash(digest + content.entry.encode()).digest()]


def linked(previous: bytes, number: int, content: Content) -> Row:
    """Return the row that follows another one.

    Args:
        previous: The hash of the row before, or `GENESIS`.
        number: Its number.
        content: The row's content.
    """
    if content.type != GROUP:
        return Row(number + 1, chained(previous, number + 1, content), content)
    *links, digest = _links(previous, number + 1, content, _pieces(content.commitment or b"", SALT_BYTES))
    checks = b"".join([link[:_CHECK_BYTES] for link in links])
    return Row(number + content.size, digest, content._replace(commitment=checks))


class Verifier:
    """Checks the rows of a log in their order."""

    def __init__(self, number: int, digest: bytes) -> None:
        """Start behind a row.

        Args:
            number: The number of the last row before; 0 for none.
            digest: Its hash, or `GENESIS`.
        """
        self.number = number
        self.digest = digest
        self._blank: set[int] = set()

    def check(self, row: Row) -> ChainFault | None:
        """Check the next row."""
        try:
            if row.first != self.number + 1:
                return ChainFault(self.number + 1, "was removed")
            misfit = self._misfit_of_group(row) if row.content.type == GROUP else self._misfit(row)
        # A column of another type than was written, or JSON of another shape.
        except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError):
            misfit = 0
        if misfit is not None:
            return ChainFault(self.number + 1 + misfit, "was changed, or moved, or replaced by another one")
        self.number, self.digest = row.number, row.hash
        return None

    def _misfit(self, row: Row) -> int | None:
        """Return 0 when the row does not fit."""
        content = row.content
        fits = hmac.compare_digest(chained(self.digest, row.number, content), row.hash)
        fits = fits and not _has_null(content)
        personal = (content.customer, content.personal, content.salt)
        if content.commitment is None or content.salt is None:
            fits = fits and personal == (None, None, None)
            if content.commitment is not None:
                self._blank.add(row.number)
        else:
            made = commitment(content.salt, content.customer, str(content.personal))
            fits = fits and hmac.compare_digest(made, content.commitment)
        if fits and content.type == "erasure":
            for low, high in json.loads(content.entry)["numbers"]:
                self._blank.difference_update(range(low, high))
        return None if fits else 0

    def _misfit_of_group(self, row: Row) -> int | None:
        """Return the place of the first record that does not fit."""
        content, found = row.content, members(row.content)
        *links, digest = _links(self.digest, row.first, content, [each.commitment for each in found])
        if _has_null(content[:_PERSONAL]):
            return 0
        checks = _pieces(content.commitment or b"", _CHECK_BYTES)
        for place, (link, check) in enumerate(zip(links, checks, strict=False)):
            if link[:_CHECK_BYTES] != check:
                return place
        # Nothing else may be in its columns.
        checked = b"".join([link[:_CHECK_BYTES] for link in links])
        whole = with_members(content, found)._replace(commitment=checked)
        if (whole, digest, len(found)) != (content, row.hash, content.size):
            return min(len(found), content.size - 1)
        self._blank.update(row.first + place for place, each in enumerate(found) if each.is_erased)
        return None

    def finish(self, last: int) -> ChainFault | None:
        """Check that the log ends where it should, and that what was erased was erased by `erase`.

        Args:
            last: The highest number that was ever given to a row.
        """
        if self._blank:
            return ChainFault(min(self._blank), "has lost its personal part, and no erasure says so")
        return ChainFault(self.number + 1, "was removed") if self.number < last else None
