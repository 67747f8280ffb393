"""Sets of rows of customers, each set as a small number: most customers of a campaign have one of a few.

A file of its own, since it is a data structure that knows nothing of reviews.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Final, cast

from ..models.campaign import CustomerRow

Row = tuple[Any, Any, Any, Any]
"""Channel, action, template and promo codes."""

row_of: Final = attrgetter("channel_id", "action_id", "template_id", "promo_codes")
"""Returns the `Row` of a customer."""

_USUAL: Final = frozenset({int, str, type(None), tuple})
"""Types of which no two values are equal unless they are the same; `True == 1` and `1.0 == 1` in Python."""

_MOST_SHARED: Final = 1 << 16
"""Sets that customers share. Where promo codes are personal, each customer has a set of its own from then on."""


class RowSets:
    """Numbers sets of rows; 0 is the empty set, and adding never changes one.

    A row adds something to a set when its channel, action and template together are new there, or one of its promo
    codes is new with them. So a promotion that was approved for one channel says nothing about another channel.

    A set is held as JSON text. Where every customer has another promo code, that takes about 30 bytes a customer.
    """

    def __init__(self) -> None:
        self._texts = bytearray(b"[]")
        self._ends = array("Q", [0, 2])
        self._shared: dict[bytes, int] = {b"[]": 0}
        self._added: dict[tuple[object, ...], int] = {}
        self._merged: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._ends) - 1

    def adder(self, rows: Sequence[Row]) -> Callable[[int, Row], int]:
        """Return `add`, or what does the same for these rows in less time."""
        return self._add_usual if _USUAL.issuperset(map(type, chain.from_iterable(rows))) else self.add

    def numbers_alone(self, rows: Sequence[Row]) -> list[int]:
        """Return for each row the number of the set that holds it alone."""
        add = self.adder(rows)
        if add == self.add:
            return [add(0, row) for row in rows]
        numbers = {row: add(0, row) for row in set(rows)}
        return list(map(numbers.__getitem__, rows)) if len(numbers) > 1 else [*numbers.values()] * len(rows)

    def add(self, number: int, row: Row) -> int:
        """Return the number of a set with a row; the same number when the row adds nothing."""
        key = number, row, tuple(map(type, row))  # which tells `True` from 1, which are equal
        try:
            known = self._added.get(key)
        except TypeError:  # a value of an undocumented type, such as a list
            return self._add(number, row)
        return self._add_as(key, number, row) if known is None else known

    def _add_usual(self, number: int, row: Row) -> int:
        known = self._added.get((number, row))
        return self._add_as((number, row), number, row) if known is None else known

    def _add_as(self, key: tuple[object, ...], number: int, row: Row) -> int:
        known = self._add(number, row)
        if len(self._added) >= _MOST_SHARED:
            self._added.clear()
        self._added[key] = known
        return known

    def merge(self, number: int, other: int) -> int:
        """Return the number of a set with all rows of two; that of the first when the second adds nothing."""
        if number == other or not other:
            return number
        if not number:
            return other
        known = self._merged.get((number, other))
        if known is None:
            known = number
            for row in self._rows(other):
                known = self._add(known, row)
            if len(self._merged) >= _MOST_SHARED:
                self._merged.clear()
            self._merged[number, other] = known
        return known

    def rows(self, number: int) -> tuple[CustomerRow, ...]:
        """Return the rows of a set, in the order in which they were added."""
        return tuple(
            [
                CustomerRow(channel, action, template, tuple(codes))
                for channel, action, template, codes in self._rows(number)
            ]
        )

    def text(self, number: int) -> str:
        """Return a set as JSON text in ASCII."""
        return self._text(number).decode("ascii")

    def number(self, text: str) -> int:
        """Return the number of a set from its JSON text."""
        return self._number(text.encode("ascii"))

    def _add(self, number: int, row: Row) -> int:
        rows = self._rows(number) if number else []
        codes: list[Any] = list(cast("Iterable[Any]", row[3])) if isinstance(row[3], list | tuple) else [row[3]]
        # As JSON, since a value can be of any type; and `True` is another channel than 1.
        kind = _json(row[:3]) if rows else ""
        known = [set(map(_json, other[3])) for other in rows if _json(other[:3]) == kind]
        if known and set(map(_json, codes)) <= set[str]().union(*known):
            return number
        return self._number(json.dumps([*rows, [*row[:3], codes]], separators=(",", ":"), default=repr).encode())

    def _rows(self, number: int) -> list[Row]:
        return list(map(tuple, json.loads(self._text(number))))

    def _text(self, number: int) -> bytes:
        return bytes(self._texts[self._ends[number] : self._ends[number + 1]])

    def _number(self, text: bytes) -> int:
        known = self._shared.get(text)
        if known is None:
            known = len(self)
            self._texts += text
            self._ends.append(len(self._texts))
            if len(self._shared) < _MOST_SHARED:
                self._shared[text] = known
        return known


def _json(value: object) -> str:
    return json.dumps(value, default=repr)
