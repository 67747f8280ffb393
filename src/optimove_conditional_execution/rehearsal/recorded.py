"""Recorded or hand-made payloads and customers' rows: checked, and read from JSON, JSON lines or CSV."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..errors import ConfigurationError, PayloadError
from ..models import WebhookNotification
from ..models.notification import read_notification

Recorded = Path | Sequence[Mapping[str, Any]]
"""JSON objects, or a file of them: JSON (an object or an array), JSON lines, or CSV if it is called so."""

_ATTRIBUTES: Final = "CustomerAttributes"
_COLUMNS: Final = ("CustomerID", "ActionID", "ChannelID", "TemplateID", "PromoCode", _ATTRIBUTES)
_NUMBERS: Final = ("ActionID", "ChannelID", "TemplateID")


def read_payloads(given: Recorded, *, stamps: Mapping[str, Any]) -> list[tuple[WebhookNotification, Mapping[str, Any]]]:
    """Return notifications, parsed and as they were given.

    Args:
        given: The notifications.
        stamps: Fields that will replace those of each.

    Raises:
        ConfigurationError: The file cannot be read, or one of them cannot be understood. The message quotes none.
    """
    payloads = []
    for number, payload in enumerate(_objects(given, "notification"), start=1):
        try:
            payloads.append((read_notification(json.dumps({**payload, **stamps}).encode()), payload))
        except PayloadError as error:
            raise ConfigurationError(f"Notification {number}{_of(given)} cannot be understood: {error}") from None
    return payloads


def read_rows(given: Recorded) -> list[Mapping[str, Any]]:
    """Return rows of customers, in the shape of GetProcessedCampaignCustomers.

    Columns of a CSV file that such a row does not have are attributes: a service gets those that it asks for.

    Args:
        given: The rows.

    Raises:
        ConfigurationError: The file cannot be read, or a row has no CustomerID that is text or a whole number. The
            message quotes none.
    """
    rows = _objects(given, "row")
    for number, row in enumerate(rows, start=1):
        if not any(name.lower() == "customerid" and _is_id(value) for name, value in row.items()):
            raise ConfigurationError(f"Row {number}{_of(given)} has no CustomerID.")
    return rows


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""


def _objects(given: Recorded, what: str) -> list[Mapping[str, Any]]:
    objects: Iterable[Any] = _read(given) if isinstance(given, Path) else given
    checked = []
    for number, one in enumerate(objects, start=1):
        if not isinstance(one, Mapping):
            raise ConfigurationError(f"{what.capitalize()} {number}{_of(given)} is not a JSON object.")
        checked.append(one)
    if not checked:
        raise ConfigurationError(f"There is no {what}{_of(given) or ' given'}.")
    return checked


def _of(given: Recorded) -> str:
    return f" of {given}" if isinstance(given, Path) else ""


def _read(path: Path) -> Iterable[Any]:
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} cannot be read: it is not UTF-8 text.") from None
    if path.suffix.lower() == ".csv":
        return _csv(path, text)
    number = 0
    try:
        with contextlib.suppress(ValueError):
            whole = json.loads(text)
            return whole if isinstance(whole, list) else [whole]
        found = []
        # Not `splitlines`: a JSON string may hold U+2028 as it is.
        for number, line in enumerate(text.split("\n"), start=1):  # noqa: B007 - the error has the number
            if line.strip():
                found.append(json.loads(line))
    except RecursionError:
        raise ConfigurationError(f"{path} cannot be read: its JSON is nested too deeply.") from None
    except ValueError:
        raise ConfigurationError(f"{path} is neither JSON nor JSON lines: see line {number}.") from None
    return found


def _csv(path: Path, text: str) -> list[dict[str, Any]]:
    known = {name.lower(): name for name in _COLUMNS}
    rows = []
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True)
        columns = [column.strip().lower() for column in reader.fieldnames or ()]
        if len(set(columns)) < len(columns):
            raise ConfigurationError(f"The first line of {path} names a column twice.")
        for number, cells in enumerate(reader, start=1):
            if None in cells:
                raise ConfigurationError(f"Row {number} of {path} has more cells than the first line has names.")
            row: dict[str, Any] = {}
            attributes: dict[str, str] = {}
            for column, value in cells.items():
                name = known.get(column.strip().lower())
                if name is None:
                    attributes[column.strip()] = value or ""
                elif value:
                    row[name] = int(value) if name in _NUMBERS and value.isdecimal() and len(value) < 19 else value
            rows.append({_ATTRIBUTES: attributes, **row} if attributes else row)
    except csv.Error as error:
        raise ConfigurationError(f"{path} is not CSV: {error}.") from None
    return rows
