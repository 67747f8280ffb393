"""Rows out of a JSON array in pieces, and customers out of pages that break, over real sockets and in process."""

from __future__ import annotations

import functools
import itertools
import json
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from optimove_conditional_execution import CampaignCustomer, PayloadError
from optimove_conditional_execution.flows.json_rows import LONGEST_ROW, MOST_JUNK, JsonRowReader, TruncatedArray
from optimove_conditional_execution.models.campaign import UnreadableRow, read_customer, read_customers
from optimove_conditional_execution.models.json_text import BYTE_ORDER_MARK

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(max_size=8)
    | st.sampled_from(["},{", "]", '"', "\\"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), max_size=12)


customers = functools.partial(read_customers, model=CampaignCustomer)
customer = functools.partial(read_customer, model=CampaignCustomer)


def plain(text: bytes) -> Any:
    return from_json(text, allow_inf_nan=False)


def read(
    text: bytes,
    size: int,
    read_array: Callable[[bytes], Any] = plain,
    read_row: Callable[[Any], Any] = lambda row: row,
) -> list[Any]:
    reader = JsonRowReader(read_array, read_row)
    return read_blocks(reader, (text[start : start + size] for start in range(0, len(text), size)))


def read_blocks(reader: JsonRowReader[Any], blocks: Iterable[bytes]) -> list[Any]:
    rows: list[Any] = []
    for block in blocks:
        rows += reader.feed(block)
    return [*rows, *reader.close()]


@given(rows=ROWS, size=st.integers(1, 64), indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_any_split_gives_what_json_gives(rows: list[Any], size: int, indent: int | None, ascii_only: bool) -> None:
    text = f" {json.dumps(rows, indent=indent, ensure_ascii=ascii_only)}\n".encode()
    assert read(text, size) == rows
    assert read(text, 10**6) == rows


@pytest.mark.parametrize("text", [b"", b" ", b"null", b" null\n", b"[]", b" [ ] "])
@pytest.mark.parametrize("size", [1, 100])
def test_every_way_to_say_nothing(text: bytes, size: int) -> None:
    assert read(text, size) == []


@pytest.mark.parametrize(
    "text", [b'"Unauthorized"', b"<html>", b"{}", b"nul", b"[1,2]x", b'[{"a":1}]x', b"[}]", b'[{"a":1},{"b":"\xff"}]']
)
@pytest.mark.parametrize("size", [1, 100])
def test_what_is_no_list_is_an_error(text: bytes, size: int) -> None:
    with pytest.raises(PayloadError):
        read(text, size)


@pytest.mark.parametrize("text", [b"[", b'[{"a":1}', b'[{"a":1},', b'[{"a":1},{"a"', b'[{"a":1},{"a":"x'])
@pytest.mark.parametrize("size", [1, 100])
def test_an_array_without_an_end_was_cut(text: bytes, size: int) -> None:
    with pytest.raises(TruncatedArray):
        read(text, size)


def test_a_row_without_an_end_is_not_collected_for_ever() -> None:
    with pytest.raises(PayloadError, match="longer than"):
        read(b'[{"a":"' + b"x" * 2 * LONGEST_ROW, 1_000)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
@pytest.mark.parametrize("text", [b"", b"null", b"[]", b'[{"a":1}]', b' [{"a":1},{"a":2}]'])
def test_a_byte_order_mark_is_skipped(text: bytes, size: int) -> None:
    assert read(BYTE_ORDER_MARK + text, size) == read(text, size)


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_half_a_surrogate_pair_costs_no_row(size: int) -> None:
    rows = [
        {"CustomerID": "C1", "Name": "Jo\ud83d", "\udc00": 1},
        {"CustomerID": "C2"},
        {"CustomerID": "C\ud83d"},
        {"CustomerID": 12, "CustomerAttributes": ["\ud83d"], "PromoCode": "A\ud83d,B", "ActionID": 1.0},
    ]
    came = read(json.dumps(rows).encode(), size, customers, customer)
    assert [getattr(row, "customer_id", None) for row in came] == ["C1", "C2", None, "12"]
    assert came[0].model_extra == {"Name": "Jo\ud83d", "\\udc00": 1}
    assert (came[3].customer_attributes, came[3].promo_codes) == (("\ud83d",), ("A\ud83d", "B"))
    assert came[3].is_control
    assert isinstance(came[2], UnreadableRow)
    assert "lone surrogate" in str(came[2].error)


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity"])
def test_nan_and_the_infinities_are_no_json_in_a_row(literal: bytes, size: int) -> None:
    with pytest.raises(PayloadError):
        read(b'[{"CustomerID":"C1","x":' + literal + b'},{"CustomerID":"C2"}]', size)


JUNK = {"blanks": b" \t\r\n", "commas": b" ,\n,"}
PLACES = {
    "before the list": (b"", b'[{"CustomerID":"C1"},{"CustomerID":"C2"}]'),
    "behind its bracket": (b"[", b'{"CustomerID":"C1"},{"CustomerID":"C2"}]'),
    "between rows": (b'[{"CustomerID":"C1"},', b'{"CustomerID":"C2"}]'),
    "before a comma": (b'[{"CustomerID":"C1"}', b',{"CustomerID":"C2"}]'),
    "before the end": (b'[{"CustomerID":"C1"},{"CustomerID":"C2"}', b"]"),
    "behind the list": (b'[{"CustomerID":"C1"},{"CustomerID":"C2"}]', b""),
    "behind null": (b"null", b""),
}


class Counting(JsonRowReader[Any]):
    """Counts the bytes that it looks at."""

    looked_at = 0

    def _read(self, text: bytes, *, is_last: bool = False) -> Any:
        self.looked_at += len(text)
        return super()._read(text, is_last=is_last)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("size", [1_000, 65_536])
def test_junk_between_rows_costs_linear_time_and_no_memory(place: str, junk: str, size: int) -> None:
    if junk == "commas" and place in ("before the list", "behind the list", "behind null"):
        return
    before, after = PLACES[place]
    reader = Counting(customers, customer)
    rows = [*reader.feed(before)]
    block = (JUNK[junk] * size)[:size]
    sent = 2 * LONGEST_ROW
    tracemalloc.start()
    for _ in range(sent // size):
        rows += reader.feed(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    rows += [*reader.feed(after), *reader.close()]
    names = [row.customer_id for row in rows if isinstance(row, CampaignCustomer)]
    assert names == ([] if place == "behind null" else ["C1", "C2"])
    assert peak < LONGEST_ROW
    assert reader.looked_at < 4 * sent


@pytest.mark.parametrize(
    "row", [b'{"a":', b'{"a":"', b'{"a":"\\', b'{"a":[', b"1.", b'{"a":1', b'{"a":{},', b'{"a":{"b":1},"c":"'], ids=repr
)
@pytest.mark.parametrize("filler", [b" ", b"1", b"x", b"[", b"{},", b"\\u00e9", "\u00e9".encode()], ids=repr)
@pytest.mark.parametrize("size", [1_000, 65_536])
def test_a_row_that_never_ends_costs_linear_time_and_bounded_memory(row: bytes, filler: bytes, size: int) -> None:
    reader = Counting(plain, lambda row: row)
    tracemalloc.start()
    blocks = itertools.chain([b"[" + row], itertools.repeat((filler * size)[:size], 4 * LONGEST_ROW // size))
    with pytest.raises((PayloadError, TruncatedArray)):
        read_blocks(reader, blocks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * LONGEST_ROW
    assert reader.looked_at < 8 * LONGEST_ROW


@pytest.mark.parametrize("before", [b"", b'[{"a":1},'])
def test_blanks_without_end_are_not_read_for_ever(before: bytes) -> None:
    reader = JsonRowReader[Any](plain, lambda row: row)
    blanks = itertools.repeat(b" " * 2**20, MOST_JUNK // 2**20 + 2)
    with pytest.raises(PayloadError, match="hold no row"):
        read_blocks(reader, itertools.chain([before], blanks))
