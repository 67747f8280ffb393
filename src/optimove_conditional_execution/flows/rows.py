"""Rows out of a JSON array while its bytes arrive, so that an array of any length costs no more than a block."""

from __future__ import annotations

import codecs
import json
from typing import Any, Final, final

from pydantic_core import from_json

from optimove_conditional_execution.errors import PayloadError
from optimove_conditional_execution.models.json_text import BYTE_ORDER_MARK, no_constant, pairs

LONGEST_ROW: Final = 1_048_576
"""Bytes; what is longer without a complete row in it is no list of customers."""

_PATIENCE: Final = 131_072
"""Bytes without `},` after which rows may be separated in another way, `} ,` say."""

_LONGEST_WORD: Final = 16
_BLANK: Final = b" \t\r\n"
_SEPARATORS: Final = " \t\r\n,"


class Truncated(Exception):  # noqa: N818 - a signal to the paging, never raised to users
    """The text ended inside the array: the connection was cut."""


@final
class RowReader:
    """Reads one answer: `[` rows `]`, or one of the ways to say "none": `[]`, `null`, nothing at all.

    A block is parsed up to its last `},`. When that parses as a list, it is one: a cut inside a string or inside
    a nested value leaves something open. When it does not, this answer is read row by row from there on, which takes
    twice the time and copes with everything.
    """

    def __init__(self) -> None:
        self._waiting = b""
        self._begun = False
        self._slow: _OneByOne | None = None

    def feed(self, block: bytes) -> list[Any]:
        """Take the next bytes and return the rows that are complete.

        Raises:
            PayloadError: It is no JSON array.
        """
        if self._slow is not None:
            return self._slow.feed(block)
        self._waiting += block
        if not self._begun and not self._begin():
            return []
        cut = self._waiting.rfind(b"},")
        if cut < 0:
            return self._go_slow() if len(self._waiting) > _PATIENCE else []
        part, rest = self._waiting[: cut + 1], self._waiting[cut + 2 :]
        try:
            rows: list[Any] = from_json(b"[%b]" % part, cache_strings="keys", allow_inf_nan=False)
        except ValueError:
            return self._go_slow()
        self._waiting = rest
        return rows

    def close(self) -> list[Any]:
        """Return the last rows.

        Raises:
            PayloadError: It is no JSON array.
            Truncated: The array has no end.
        """
        if self._slow is not None:
            return self._slow.close()
        if not self._begun:
            if self._waiting.removeprefix(BYTE_ORDER_MARK).strip(_BLANK) not in (b"", b"null"):
                raise PayloadError("the answer is not a list")
            return []
        try:
            rows: list[Any] = from_json(b"[" + self._waiting, cache_strings="keys", allow_inf_nan=False)
        except ValueError:
            slow = _OneByOne()
            return [*slow.feed(self._waiting), *slow.close()]
        return rows

    def _go_slow(self) -> list[Any]:
        self._slow = _OneByOne()
        waiting, self._waiting = self._waiting, b""
        return self._slow.feed(waiting)

    def _begin(self) -> bool:
        if BYTE_ORDER_MARK.startswith(self._waiting):  # a part of the mark, perhaps
            return False
        start = self._waiting.removeprefix(BYTE_ORDER_MARK).lstrip(_BLANK)
        if not start or b"null".startswith(start.rstrip(_BLANK)):
            return False
        if not start.startswith(b"["):
            raise PayloadError("the answer is not a list")
        self._waiting = start[1:]
        self._begun = True
        return True


@final
class _OneByOne:
    """Reads the inside of an array row by row."""

    def __init__(self) -> None:
        # What pydantic's reader refuses is here: half of a surrogate pair, say.
        self._scan = json.JSONDecoder(object_pairs_hook=pairs, parse_constant=no_constant).raw_decode
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._ended = False
        self._look_again = 0

    def feed(self, block: bytes, *, final: bool = False) -> list[Any]:
        try:
            self._text += self._decode.decode(block, final)
        except ValueError:
            raise PayloadError("the answer is not UTF-8") from None
        # A row that is longer than a block is tried again when twice as much is there, not with every block.
        if len(self._text) < self._look_again and not final:
            return []
        rows: list[Any] = []
        at = 0
        while not self._ended:
            at = self._next(at)
            if at >= len(self._text):
                break
            if self._text[at] == "]":
                self._ended = True
                at += 1
                break
            try:
                row, end = self._scan(self._text, at)
            except (ValueError, RecursionError) as error:
                self._judge(at, error)
                break
            if end >= len(self._text):  # a number could go on in the next block
                break
            rows.append(row)
            at = end
        self._text = self._text[at:]
        self._look_again = 2 * len(self._text)
        if self._ended and self._text.strip():
            raise PayloadError("the answer goes on after its list")
        return rows

    def close(self) -> list[Any]:
        rows = self.feed(b"", final=True)
        if not self._ended:
            raise Truncated
        return rows

    def _next(self, at: int) -> int:
        while at < len(self._text) and self._text[at] in _SEPARATORS:
            at += 1
        return at

    def _judge(self, at: int, error: Exception) -> None:
        """Tell a row that is incomplete from one that is wrong."""
        if len(self._text) - at > LONGEST_ROW:
            raise PayloadError(f"a row of the answer is longer than {LONGEST_ROW} bytes")
        wrong = self._text[at] != "{" or not isinstance(error, json.JSONDecodeError)
        if isinstance(error, json.JSONDecodeError) and not error.msg.startswith("Unterminated string"):
            # What is only incomplete fails at its end: in the middle of a word or of an escape at the earliest.
            wrong = wrong or len(self._text) - error.pos > _LONGEST_WORD
        if wrong:
            raise PayloadError("a row of the answer is not a JSON object")
