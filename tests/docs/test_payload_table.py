"""The table of the payloads in the documentation, cell by cell against the models."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

import pytest
from pydantic import BaseModel, SecretStr

from optimove_conditional_execution import PayloadError, models
from tests.docs.pages import DOCS

PAGE: Final = DOCS / "reference" / "models.md"
MISSING: Final = object()
SAMPLES: Final[dict[str, Any]] = {
    "text": "x",
    "digits": "12",
    "number": 12,
    "integral float": 12.0,
    "bool": True,
    "null": None,
    "missing": MISSING,
    "list": [],
    "object": {"user_id": "C1"},
}
MOMENT: Final = {"text": "2026-11-23 09:30:00"}
FIVE: Final = {"digits": "5", "number": 5, "integral float": 5.0}
FITTING: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("ListenerEvent", "timestamp"): MOMENT,
    ("CampaignReadyEvent", "timestamp"): MOMENT,
    ("CampaignReadyEvent", "clearance_required_by"): MOMENT,
    ("CampaignReadyEvent", "event_type_id"): FIVE,
}
"""Samples of fields that not every text or number fits."""

MINIMAL: Final[dict[str, dict[str, Any]]] = {
    "WebhookNotification": {
        "timestamp": 1,
        "conditional_execution_approval_deadline": 2,
        "request_uid": "r",
        "user": {"user_id": "C1"},
    },
    "User": {"user_id": "C1"},
    "Approval": {"timestamp": 1, "request_uid": "r", "approved": True},
    "Webhook": {"id": "w", "url": "https://example.com"},
    "TenantSettings": {"timeout": 1},
    "ListenerEvent": {"EventTypeID": 7},
    "CampaignReadyEvent": {
        "EventTypeID": 5,
        "TimeStamp": "2026-11-23 08:30:00",
        "CampaignID": 7,
        "ClearanceRequiredBy": "2026-11-23 09:30:00",
    },
    "EventListener": {"EventTypeID": 5, "ListenerURL": "https://example.com"},
    "CampaignCustomer": {"CustomerID": "C1"},
    "CustomerExecution": {"CustomerID": "C1"},
    "CustomerPromotionStatus": {"CustomerID": "C1", "Status": True},
}
DERIVED: Final = {"timestamp_offset", "clearance_offset"}
"""Fields that are read out of another one."""


def table() -> list[tuple[str, str, str, str]]:
    """Return each cell: model, field, column and what it says."""
    lines = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")]
    head = [cell.strip() for cell in lines[0].strip("|").split("|")]
    cells = []
    for line in lines[2:]:
        model, field, *says = [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        cells += [(model, field, column, said) for column, said in zip(head[2:], says, strict=True)]
    return cells


def became(model: str, field: str, column: str) -> str:
    """Return what a model makes of a sample, in the words of the table."""
    kind: Any = getattr(models, model)
    wire = kind.model_fields[field].alias or field
    given = FITTING.get((model, field), {}).get(column, SAMPLES[column])
    payload = {**MINIMAL.get(model, {}), wire: given}
    if given is MISSING:
        del payload[wire]
    try:
        value: object = getattr(kind.from_json(json.dumps(payload)), field)
    except PayloadError:
        return "unreadable"
    if value is None:
        return "None"
    if isinstance(value, tuple | dict) and not value:
        return "empty"
    if value == given and type(value) is type(given):
        return "kept"
    if isinstance(value, str) and value == str(given):
        return "text"
    if type(value) is int and value == int(given):
        return "number"
    assert isinstance(value, tuple | datetime | SecretStr | BaseModel)
    return "read"


CELLS: Final = table()


@pytest.mark.parametrize(("model", "field"), dict.fromkeys((model, field) for model, field, _, _ in CELLS))
def test_each_cell_says_what_the_model_does(model: str, field: str) -> None:
    row = {column: said for *name, column, said in CELLS if name == [model, field]}
    assert {column: became(model, field, column) for column in row} == row


def test_every_field_of_every_payload_stands_in_the_table() -> None:
    documented = {(model, field) for model, field, _, _ in CELLS}
    payloads: dict[str, type[object]] = {name: getattr(models, name) for name in models.__all__}
    fields = {
        (name, field)
        for name, model in payloads.items()
        if issubclass(model, BaseModel)
        for field in model.model_fields
        if field not in DERIVED
    }
    assert documented == fields
    assert {column for _, _, column, _ in CELLS} == set(SAMPLES)
