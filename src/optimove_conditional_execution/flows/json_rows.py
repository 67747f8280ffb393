"""Incremental parser of JSON arrays: yields rows while the bytes arrive, in constant memory.

A file of its own, since it is a parser that knows nothing of campaigns.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from ..errors import PayloadError
from ..models.json_text import BYTE_ORDER_MARK, no_constant, pairs

T = TypeVar("T")

LONGEST_ROW: Final = 1_048_576
"""Bytes; more without a complete row is not a list of customers."""

MOST_JUNK: Final = 134_217_728
"""Bytes without a row, usually white space, after which reading fails."""

_LONGEST_BLOCK: Final = 131_072
"""Bytes without `},` after which rows may be separated in another way, such as `} ,`."""

_LONGEST_WORD: Final = 16
_BLANK: Final = b" \t\r\n"
_SEPARATORS: Final = re.compile(r"[ \t\r\n,]*")


class TruncatedArray(Exception):  # noqa: N818 - a signal to the paging, never raised to users
    """The text ended inside the array: the connection was cut."""


class JsonRowReader(Generic[T]):
    """Parses one response: `[` rows `]`, or one of the forms of "none": `[]`, `null`, an empty body.

    A block is parsed up to its last `},`. When that parses as a list, it is one: a cut inside a string or inside a
    nested value leaves something open. When it does not, this response is parsed row by row from there on, which takes
    twice the time and handles every case.

    White space between rows is dropped on arrival, and an incomplete row is parsed again when twice as many of its
    bytes are there. So the time is linear in the bytes, and no more than a few `LONGEST_ROW` of them are held.
    """

    def __init__(self, read_array: Callable[[bytes], Sequence[T]], read_row: Callable[[Any], T]) -> None:
        """Start before the first byte.

        Args:
            read_array: Parses a JSON array of complete rows; raises `ValueError` when it is not JSON.
            read_row: Converts one parsed row.
        """
        self._read_array = read_array
        self._read_row = read_row
        self._held: list[bytes] = []
        self._size = 0
        self._enough = 0
        self._since_a_row = 0
        self._has_begun = False
        self._has_ended = False
        self._is_slow = False

    def feed(self, block: bytes) -> Sequence[T]:
        """Feed the next bytes and return the rows that are complete.

        Raises:
            PayloadError: It is not a JSON array.
        """
        self._held.append(block)
        self._size += len(block)
        self._since_a_row += len(block)
        if self._since_a_row > MOST_JUNK:
            raise PayloadError(f"{MOST_JUNK} bytes of the answer hold no row")
        return self._read(b"".join(self._held)) if self._size >= self._enough else []

    def close(self) -> Sequence[T]:
        """Return the last rows.

        Raises:
            PayloadError: It is not a JSON array.
            TruncatedArray: The array is not complete.
        """
        rows = self._read(b"".join(self._held), is_last=True)
        if self._has_begun and not self._has_ended:
            raise TruncatedArray
        return rows

    def _read(self, text: bytes, *, is_last: bool = False) -> Sequence[T]:
        rows: Sequence[T] = []
        if not self._has_begun:
            text = self._begin(text, is_last=is_last)
        if self._has_begun and not self._is_slow:
            rows, text = self._whole_rows(text, is_last=is_last)
        if self._is_slow:  # there are no rows before it then
            rows, text = self._row_by_row(text, is_last=is_last)
        if len(text) > LONGEST_ROW:
            raise PayloadError(f"a row of the answer is longer than {LONGEST_ROW} bytes")
        self._held, self._size = [text], len(text)
        self._since_a_row = 0 if rows else self._since_a_row
        self._enough = 0 if rows else min(2 * len(text), LONGEST_ROW + 1)
        return rows

    def _begin(self, text: bytes, *, is_last: bool) -> bytes:
        if BYTE_ORDER_MARK.startswith(text) and not is_last:  # perhaps a part of the mark
            return text
        start = text.removeprefix(BYTE_ORDER_MARK).lstrip(_BLANK)
        if start.startswith(b"["):
            self._has_begun = True
            return start[1:]
        word = start.rstrip(_BLANK)
        if word not in (b"", b"null") and (is_last or not b"null".startswith(start)):
            raise PayloadError("the answer is not a list")
        return start[: len(word) + 1]

    def _whole_rows(self, text: bytes, *, is_last: bool) -> tuple[Sequence[T], bytes]:
        cut = len(text) if is_last else text.rfind(b"},") + 1
        if not cut:
            self._is_slow = len(text) > _LONGEST_BLOCK
            return [], text.lstrip(_BLANK)
        try:
            rows = self._read_array(b"[" + text if is_last else b"[%b]" % text[:cut])
        except ValueError:
            self._is_slow = True
            return [], text
        self._has_ended = is_last
        return rows, text[cut + 1 :].lstrip(_BLANK)

    def _row_by_row(self, text: bytes, *, is_last: bool) -> tuple[list[T], bytes]:
        # Here is what pydantic's parser rejects, such as a lone surrogate.
        parse = json.JSONDecoder(object_pairs_hook=pairs, parse_constant=no_constant).raw_decode
        utf8 = codecs.getincrementaldecoder("utf-8")()
        try:
            letters = utf8.decode(text, is_last)
        except ValueError:
            raise PayloadError("the answer is not UTF-8") from None
        rows: list[T] = []
        at, end = 0, len(letters)
        while not self._has_ended and (at := _after_separators(letters, at)) < end:
            if letters[at] == "]":
                self._has_ended = True
                at += 1
                break
            try:
                row, behind = parse(letters, at)
            except (ValueError, RecursionError) as error:
                _check_incomplete(letters, at, error)
                break
            if behind == end:  # a number could continue in the next block
                break
            rows.append(self._read_row(row))
            at = behind
        rest = letters[at:]
        if self._has_ended and (rest := rest.strip()):
            raise PayloadError("the answer goes on after its list")
        return rows, rest.encode() + utf8.getstate()[0]


def _after_separators(letters: str, at: int) -> int:
    found = _SEPARATORS.match(letters, at)
    return found.end() if found else at


def _check_incomplete(letters: str, at: int, error: Exception) -> None:
    """Distinguish a truncated row from an invalid one.

    Raises:
        PayloadError: It is invalid.
    """
    wrong = letters[at] != "{" or not isinstance(error, json.JSONDecodeError)
    if isinstance(error, json.JSONDecodeError) and not error.msg.startswith("Unterminated string"):
        # Truncated text fails at its end: in the middle of a word or of an escape at the earliest.
        wrong = wrong or len(letters) - error.pos > _LONGEST_WORD
    if wrong:
        raise PayloadError("a row of the answer is not a JSON object")
