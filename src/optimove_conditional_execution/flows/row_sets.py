"""Sets of rows of customers, each set as a small number: most customers of a campaign have one of a few.

A file of its own, since it is a data structure that knows nothing of reviews.
"""

from __future__ import annotations

import functools
import json
from array import array
from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

from ..models.campaign import CustomerRow

Row = tuple[Any, Any, Any, Any]
"""Channel, action, template and promo codes."""

row_of: Final = attrgetter("channel_id", "action_id", "template_id", "promo_codes")
"""Returns the `Row` of a customer."""

_MOST_CACHED: Final = 1 << 13
"""Sets that customers share. Where promo codes are personal, most customers have a set of their own."""

_encoded: Final = json.JSONEncoder(separators=(",", ":"), default=repr).encode


class RowSets:
    """Numbers sets of rows; 0 is the empty set, and adding never changes one.

    A row adds something to a set when its channel, action and template together are new there, or one of its promo
    codes is new with them. So a promotion that was approved for one channel says nothing about another channel.

    A set is held as another one and the JSON text of a row. Where every customer has another promo code, that takes
    about 40 bytes a row.
    """

    def __init__(self) -> None:
        self._texts = bytearray()
        self._ends = array("Q", [0])
        self._others = array("I", [0])
        # Typed, since `True` is another channel than 1, and equal to it.
        self._cached = functools.lru_cache(_MOST_CACHED, typed=True)(self._add)
        self.merge = functools.lru_cache(_MOST_CACHED)(self._merge)
        self.rows = functools.lru_cache(_MOST_CACHED)(self._rows)

    def __len__(self) -> int:
        return len(self._ends)

    def numbers_alone(self, rows: Sequence[Row]) -> list[int]:
        """Return for each row the number of the set that holds it alone."""
        try:
            return [self._cached(0, *row) for row in rows]
        except TypeError:
            return [self.add(0, row) for row in rows]

    def add(self, number: int, row: Row) -> int:
        """Return the number of a set with a row; the same number when the row adds nothing."""
        try:
            return self._cached(number, *row)
        except TypeError:  # a value of an undocumented type, such as a list, which no cache takes
            return self._add(number, *row)

    def _merge(self, number: int, other: int) -> int:
        """Return the number of a set with all rows of two; that of the first when the second adds nothing."""
        if not number:
            return other
        for row in json.loads(self.text(other)):
            number = self._add(number, *row)
        return number

    def _rows(self, number: int) -> tuple[CustomerRow, ...]:
        """Return the rows of a set, in the order in which they were added."""
        rows: list[Row] = json.loads(self.text(number))
        return tuple(
            [CustomerRow(channel, action, template, tuple(codes)) for channel, action, template, codes in rows]
        )

    def text(self, number: int) -> str:
        """Return a set as JSON text in ASCII."""
        return f"[{','.join(self._row_texts(number))}]"

    def number(self, text: str) -> int:
        """Return the number of a set from its JSON text."""
        number = 0
        for *kind, codes in json.loads(text):
            number = self.add(number, (*kind, tuple(codes)))
        return number

    def _add(self, number: int, channel: Any, action: Any, template: Any, promo_codes: Any) -> int:
        codes: Sequence[Any] = promo_codes if isinstance(promo_codes, list | tuple) else [promo_codes]
        if number:  # compared as text, since a value can be of any type
            kind = f"{_encoded((channel, action, template))[:-1]},"
            same = [json.loads(text)[3] for text in self._row_texts(number) if text.startswith(kind)]
            if same and {_encoded(code) for known in same for code in known}.issuperset(map(_encoded, codes)):
                return number
        self._texts += _encoded((channel, action, template, codes)).encode("ascii")
        self._ends.append(len(self._texts))
        self._others.append(number)
        return len(self) - 1

    def _row_texts(self, number: int) -> list[str]:
        texts: list[str] = []
        while number:
            texts.append(self._texts[self._ends[number - 1] : self._ends[number]].decode("ascii"))
            number = self._others[number]
        return texts[::-1]
