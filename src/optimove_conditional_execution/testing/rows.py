"""Customers of a campaign as rows of JSON text, generated in blocks, so that a million need little memory and time."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ..errors import ConfigurationError
from ..validation import integer

_NONE: Final[Mapping[str, Any]] = {}

Customer = str | int | Mapping[str, Any]
"""An id, which is served as text or as a number, or a whole row."""

CHANNELS: Final = (504, 505, 506, 510, 511, 502)
"""Source: the channel ids of Optimove's sandbox."""

_CONTROL_ACTION: Final = 1
_ACTION: Final = 19

_GENERATED: Final = re.compile(r"C([0-9]{7,})")


class GeneratedRows:
    """Customers C0000001 and on."""

    def __init__(self, customers: int, *, channels: int, control_every: int | None) -> None:
        self._customers = customers
        self._channels = _channel_ids(channels)
        self._control_every = control_every

    def __len__(self) -> int:
        return self._customers * len(self._channels)

    def text(self, start: int, stop: int, attributes: Sequence[str], more: Mapping[str, Any] = _NONE) -> bytes:
        """Return the rows from `start` to `stop` as the elements of a JSON array, without its brackets.

        Args:
            start: The first row.
            stop: The row after the last.
            attributes: Names of the attributes that the rows shall have.
            more: Further fields of each row.
        """
        blocks = []
        while start < stop:
            channel, first = divmod(start, self._customers)
            end = min(self._customers, first + stop - start)
            blocks.append(self._block(first + 1, end + 1, self._channels[channel], attributes, more))
            start += end - first
        return ",".join(blocks).encode()

    def about(self, index: int) -> tuple[str, Any, bool]:
        """Return the customer and the channel of a row, and whether it is one of the control group."""
        channel, number = divmod(index, self._customers)
        return f"C{number + 1:07d}", self._channels[channel], is_nth(number, self._control_every)

    def _block(self, first: int, end: int, channel: int, attributes: Sequence[str], more: Mapping[str, Any]) -> str:
        numbers = range(first, end)
        customer = _template(_ACTION, channel, attributes, more)
        rows = [customer] * len(numbers)
        if self._control_every:
            control = _template(_CONTROL_ACTION, channel, attributes, more)
            rows = [control if number % self._control_every == 0 else customer for number in numbers]
        # One formatting of the whole block: ten times as fast as one a row.
        places = 1 + len(attributes)
        filled = numbers if places == 1 else [number for number in numbers for _ in range(places)]
        return ",".join(rows) % tuple(filled)

    def knows(self, customer_id: str) -> bool:
        """Whether a customer belongs to the campaign."""
        found = _GENERATED.fullmatch(customer_id)
        if found is None:
            return False
        number = int(found[1])
        return 1 <= number <= self._customers and customer_id == f"C{number:07d}"


class GivenRows:
    """Customers that a test has named."""

    def __init__(self, customers: Iterable[Customer], *, channels: int, control_every: int | None) -> None:
        self._customers = tuple(customers)
        self._channels = _channel_ids(channels)
        self._control_every = control_every
        self._ids = {_id_of(customer) for customer in self._customers}

    def __len__(self) -> int:
        return len(self._customers) * len(self._channels)

    def text(self, start: int, stop: int, attributes: Sequence[str], more: Mapping[str, Any] = _NONE) -> bytes:
        """Return the rows from `start` to `stop` as the elements of a JSON array; see `GeneratedRows.text`."""
        rows = (self._row(*divmod(index, len(self._customers)), attributes) for index in range(start, stop))
        return ",".join([json.dumps({**row, **more}, separators=(",", ":")) for row in rows]).encode()

    def about(self, index: int) -> tuple[str, Any, bool]:
        """Return the customer and the channel of a row, and whether it is one of the control group."""
        row = {name.lower(): value for name, value in self._row(*divmod(index, len(self._customers)), ()).items()}
        return str(row.get("customerid", "")), row.get("channelid"), row.get("actionid") == _CONTROL_ACTION

    def _row(self, channel: int, index: int, attributes: Sequence[str]) -> Mapping[str, Any]:
        customer = self._customers[index]
        if isinstance(customer, str | int):
            is_control = is_nth(index, self._control_every)
            row = _row(customer, _CONTROL_ACTION if is_control else _ACTION, self._channels[channel])
            if attributes:
                row["CustomerAttributes"] = [f"{name} of {customer}" for name in attributes]
            return row
        row = dict(customer)
        if len(self._channels) > 1:
            row["ChannelID"] = self._channels[channel]
        known = row.get("CustomerAttributes")
        if isinstance(known, Mapping):
            row["CustomerAttributes"] = [known.get(name, "") for name in attributes]
            if not attributes:
                del row["CustomerAttributes"]
        return row

    def knows(self, customer_id: str) -> bool:
        """Whether a customer belongs to the campaign."""
        return customer_id in self._ids


Rows = GeneratedRows | GivenRows
"""The customers of a campaign, each in one row a channel; the channels come one after the other."""


def make_rows(customers: int | Iterable[Customer], *, channels: int, control_every: int | None) -> Rows:
    """Return the rows of a campaign; the arguments are those of `FakeOptimove.add_campaign`.

    Raises:
        ConfigurationError: An argument is invalid.
    """
    integer("channels", channels)
    if control_every is not None:
        integer("control_every", control_every)
    if isinstance(customers, int):
        integer("customers", customers, minimum=0)
        return GeneratedRows(customers, channels=channels, control_every=control_every)
    if isinstance(customers, str | bytes | Mapping):
        raise ConfigurationError("customers must be a number, 0 or more, or a list of ids or rows.")
    return GivenRows(customers, channels=channels, control_every=control_every)


def _channel_ids(count: int) -> tuple[int, ...]:
    return tuple(CHANNELS[index] if index < len(CHANNELS) else 600 + index for index in range(count))


def _row(customer_id: str | int, action: int, channel: int) -> dict[str, Any]:
    return {
        "CustomerID": customer_id,
        "ActionID": action,
        "ChannelID": channel,
        "TemplateID": 7,
        "PromoCode": "WB23",
    }


def stray_row(customer_id: str, more: Mapping[str, Any]) -> bytes:
    """Return the row of a customer who is not of the campaign, on the first channel, as JSON."""
    return json.dumps({**_row(customer_id, _ACTION, CHANNELS[0]), **more}, separators=(",", ":")).encode()


def is_nth(index: int, every: int | None) -> bool:
    """Return whether a customer, counted from 0, is one of every so many."""
    return every is not None and (index + 1) % every == 0


def _template(action: int, channel: int, attributes: Sequence[str], more: Mapping[str, Any]) -> str:
    row = {**_row("C%07d", action, channel), **more}
    if attributes:
        row["CustomerAttributes"] = [f"{name.replace('%', '%%')} of C%07d" for name in attributes]
    return json.dumps(row, separators=(",", ":"))


def _id_of(customer: Customer) -> str:
    if isinstance(customer, str | int):
        return str(customer)
    return next((str(value) for name, value in customer.items() if name.lower() == "customerid"), "")
