"""Rows out of a JSON array in pieces, and customers out of pages that break, over real sockets and in process."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimove_conditional_execution import PayloadError
from optimove_conditional_execution.flows.rows import LONGEST_ROW, RowReader, Truncated
from optimove_conditional_execution.models.campaign_rows import campaign_customers
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


def read(text: bytes, size: int) -> list[Any]:
    reader = RowReader()
    rows: list[Any] = []
    for start in range(0, len(text), size):
        rows += reader.feed(text[start : start + size])
    return rows + reader.close()


@settings(max_examples=300, deadline=None)
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
    with pytest.raises(Truncated):
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
    came = read(json.dumps(rows).encode(), size)
    good = campaign_customers([row for row in came if row["CustomerID"] != "C\ud83d"])
    assert [customer.customer_id for customer in good] == ["C1", "C2", "12"]
    assert good[0].model_extra == {"Name": "Jo\ud83d", "\\udc00": 1}
    assert (good[2].customer_attributes, good[2].promo_codes) == (("\ud83d",), ("A\ud83d", "B"))
    assert good[2].is_control
    with pytest.raises(PayloadError, match="surrogate pair"):
        campaign_customers([row for row in came if row["CustomerID"] == "C\ud83d"])


@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize("literal", [b"NaN", b"Infinity", b"-Infinity"])
def test_nan_and_the_infinities_are_no_json_in_a_row(literal: bytes, size: int) -> None:
    with pytest.raises(PayloadError):
        read(b'[{"CustomerID":"C1","x":' + literal + b'},{"CustomerID":"C2"}]', size)
