"""Customers of campaigns: what a row becomes, that many rows become what each becomes, and silence about people."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from optimove_conditional_execution import CampaignCustomer, PayloadError
from optimove_conditional_execution.models.campaign import UnreadableRow, read_customer, read_customers

ROW = {"CustomerID": "007", "ActionID": 2, "ChannelID": 15, "TemplateID": 3, "PromoCode": "A, B,,C "}


def campaign_customers(rows: list[Any]) -> list[CampaignCustomer]:
    read = read_customers(json.dumps(rows).encode(), CampaignCustomer)
    for row in read:
        if isinstance(row, UnreadableRow):
            raise row.error
    return [row for row in read if isinstance(row, CampaignCustomer)]


def only(row: Any) -> CampaignCustomer:
    (customer,) = campaign_customers([row])
    return customer


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        (ROW, {"customer_id": "007", "action_id": 2, "channel_id": 15, "promo_codes": ("A", "B", "C")}),
        ({"customerid": 42}, {"customer_id": "42", "action_id": None, "promo_codes": (), "customer_attributes": ()}),
        ({"customer_id": "é-1", "ACTIONID": "0019"}, {"customer_id": "é-1", "action_id": 19}),
        ({"CustomerID": "C", "PromoCodes": ["A", 7, None, " "]}, {"promo_codes": ("A", "7")}),
        ({"CustomerID": "C", "PromoCode": None}, {"promo_codes": ()}),
        ({"CustomerID": "C", "PromoCode": {"odd": 1}}, {"promo_codes": {"odd": 1}}),
        ({"CustomerID": "C", "CustomerAttributes": "a;b;"}, {"customer_attributes": ("a", "b", "")}),
        ({"CustomerID": "C", "CustomerAttribute": ["a", 1]}, {"customer_attributes": ("a", 1)}),
        ({"CUSTOMERid": "C", "actionID": 2}, {"customer_id": "C", "action_id": 2}),
        ({"CustomerID": "C", "ACTIONid": 2, "x": 1}, {"customer_id": "C", "action_id": 2}),
        ({"CustomerID": "C", "customerattribute": ["a"]}, {"customer_attributes": ("a",)}),
        ({"CustomerID": "C", "ActionID": "VIP"}, {"action_id": "VIP"}),
        ({"CustomerID": "C", "ActionID": [1]}, {"action_id": [1]}),
    ],
)
def test_rows(row: dict[str, Any], fields: dict[str, Any]) -> None:
    customer = only(row)
    assert customer == CampaignCustomer.model_validate(row) == CampaignCustomer.from_json(json.dumps(row))
    assert {name: getattr(customer, name) for name in fields} == fields


def test_what_is_not_documented_is_kept() -> None:
    row = {"CustomerID": "C", "Tier": {"name": "gold"}, "tier2": [1]}
    assert only(row).model_extra == {"Tier": {"name": "gold"}, "tier2": [1]}
    assert only(row).model_dump(by_alias=True, exclude_unset=True) == row


def test_the_documented_spelling_wins() -> None:
    row = {"customerid": "second", "CustomerID": "first"}
    assert only(row).customer_id == "first"
    assert only(row).model_extra == {"customerid": "second"}


@pytest.mark.parametrize("action", [1, "1", " 01 "])
def test_the_control_group(action: object) -> None:
    assert only({"CustomerID": "C", "ActionID": action}).is_control
    assert not only({"CustomerID": "C", "ActionID": 11}).is_control


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"ActionID": 2},
        {"CustomerID": None},
        {"CustomerID": ""},
        {"CustomerID": " \t"},
        {"CustomerID": True},
        {"CustomerID": 1.5},
        {"CustomerID": ["C"]},
        {"CustomerID": "C" * 1_025},
        ["C"],
        "C",
        7,
        None,
    ],
    ids=repr,
)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_row_that_names_nobody_is_an_error_that_says_so_and_shows_nothing(row: Any, before: int) -> None:
    with pytest.raises(PayloadError) as caught:
        campaign_customers([{"CustomerID": "C77"}] * before + [row])
    assert caught.value.path == ("CustomerID" if isinstance(row, dict) else caught.value.path)
    assert "C77" not in str(caught.value)
    with pytest.raises(ValidationError):
        CampaignCustomer.model_validate(row)


def test_nothing_personal_is_shown() -> None:
    customer = only({**ROW, "CustomerAttributes": ["anna@example.com"], "Phone": "555"})
    assert repr(customer) == "CampaignCustomer(action_id=2, channel_id=15, template_id=3)"


def test_customers_are_values() -> None:
    first, second = campaign_customers([ROW, dict(ROW)])
    assert first == second
    assert pickle.loads(pickle.dumps(first)) == first
    assert first.model_copy(update={"action_id": 9}).action_id == 9
    for deep in (False, True):
        assert first.model_copy(update={"tier": "gold"}, deep=deep).model_extra == {"tier": "gold"}
    assert first.model_extra == {}
    with pytest.raises(ValidationError):
        first.action_id = 3
    assert json.loads(first.model_dump_json(by_alias=True))["PromoCode"] == ["A", "B", "C"]


def test_no_rows() -> None:
    assert campaign_customers([]) == []


def test_the_extras_of_one_row_are_not_those_of_the_next() -> None:
    first, second = campaign_customers([{"CustomerID": "A"}, {"CustomerID": "B"}])
    assert first.model_extra is not None
    first.model_extra["a"] = 1
    assert second.model_extra == {}


def test_one_row_that_names_nobody_fails_no_other() -> None:
    first, second, third = read_customers(
        b'[{"CustomerID":"A"},{"CustomerID":" "},{"CustomerID":"B"}]', CampaignCustomer
    )
    assert isinstance(first, CampaignCustomer)
    assert isinstance(second, UnreadableRow)
    assert isinstance(third, CampaignCustomer)
    assert second.error.path == "CustomerID"
    assert "row" not in repr(second)


SPELLINGS = ["CustomerID", "customerID", "CUSTOMERID", "CUSTOMERid", "customer_id"]
OTHERS = [
    "ActionID",
    "actionid",
    "ChannelID",
    "TemplateID",
    "PromoCode",
    "promoCodes",
    "CustomerAttributes",
    "Tier",
    "ß",
]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**25),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.sampled_from(["A,B", "1", " 12 ", "x;y", "\ud800", "\u2028", "İ"]),
    st.lists(st.one_of(st.integers(0, 3), st.text(max_size=3), st.none()), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)
IDS = st.one_of(
    st.text(min_size=1, max_size=6), st.sampled_from(["C1", "007", " x", "\u00a0", "\ud800"]), st.integers()
)


@st.composite
def rows(draw: st.DrawFn) -> list[Any]:
    shapes = draw(
        st.lists(
            st.tuples(st.sampled_from(SPELLINGS), st.lists(st.sampled_from(OTHERS), unique=True)),
            min_size=1,
            max_size=3,
        )
    )
    plain = draw(st.booleans())
    found: list[Any] = []
    for _ in range(draw(st.integers(0, 6))):
        name, others = draw(st.sampled_from(shapes))
        row = {name: f"C{len(found)}" if plain else draw(IDS)}
        found.append(row | {key: draw(ODD) for key in others})
    return found


def described(row: object) -> object:
    if isinstance(row, UnreadableRow):
        return str(row.error)
    assert isinstance(row, CampaignCustomer)
    types = [type(value) for value in row.__dict__.values()]
    return row.__dict__, row.model_extra, row.model_fields_set, types


@given(rows())
def test_many_rows_become_what_each_of_them_becomes(given_rows: list[Any]) -> None:
    text = json.dumps(given_rows).encode()
    try:
        read = read_customers(text, CampaignCustomer)
    except ValueError:
        assert b"\\ud8" in text  # half of a surrogate pair: the page is then read row by row
        return
    assert list(map(described, read)) == [described(read_customer(row, CampaignCustomer)) for row in given_rows]
