"""Simulated scheduled campaigns: their rows, clearance, and the reported statuses."""

from __future__ import annotations

import datetime as dt
import json
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from ..errors import ConfigurationError
from ..flows.journal import ranges_of
from ..messages import Response
from ..models.events import CampaignReadyEvent
from ..validation import integer
from .payloads import TIMESTAMP, campaign_ready

Customer = str | int | Mapping[str, Any]
"""An id, which is served as text or as a number, or a whole row."""

EmptyPage = Literal["[]", "null", "empty", "204", "404"]

_JSON: Final = {"content-type": "application/json"}
EMPTY_PAGES: Final[dict[str, Response]] = {
    "[]": Response(200, {**_JSON, "content-length": "2"}, b"[]"),
    "null": Response(200, {**_JSON, "content-length": "4"}, b"null"),
    "empty": Response(200, {"content-length": "0"}),
    "204": Response(204),
    "404": Response(404, {"content-type": "text/plain", "content-length": "9"}, b"Not Found"),
}

_CHANNELS: Final = (504, 505, 506, 510, 511, 502)
"""Source: the channel ids of Optimove's sandbox."""

_CONTROL_ACTION: Final = 1
_ACTION: Final = 19
_ATTRIBUTES: Final = "CustomerAttributes"
_GENERATED: Final = re.compile(r"C([0-9]{7,})")
_NOTHING: Final[Mapping[str, Any]] = {}


class Rows:
    """The customers of a campaign, each in one row a channel; the channels come one after the other.

    A number of customers are called C0000001 and on, and their rows are formatted in blocks, so that a million need
    little memory and time.
    """

    def __init__(
        self, customers: int | Iterable[Customer], *, channels: int = 1, control_every: int | None = None
    ) -> None:
        """Check the arguments; they are those of `FakeOptimove.add_campaign`.

        Raises:
            ConfigurationError: An argument is invalid.
        """
        integer("channels", channels)
        if control_every is not None:
            integer("control_every", control_every)
        if isinstance(customers, str | bytes | Mapping):
            raise ConfigurationError("customers must be a number, 0 or more, or a list of ids or rows.")
        self._given: tuple[Customer, ...] | None = None
        if isinstance(customers, int):
            self._count = integer("customers", customers, minimum=0)
        else:
            self._given = tuple(customers)
            self._count = len(self._given)
            self._ids = {_id_of(customer) for customer in self._given}
        self._channels = [*_CHANNELS, *range(600 + len(_CHANNELS), 600 + channels)][:channels]
        self._control_every = control_every

    def __len__(self) -> int:
        return self._count * len(self._channels)

    def text(self, start: int, stop: int, attributes: Sequence[str], more: Mapping[str, Any] = _NOTHING) -> bytes:
        """Return the rows from `start` to `stop` as the elements of a JSON array, without its brackets.

        Args:
            start: The first row.
            stop: The row after the last.
            attributes: Names of the attributes that the rows shall have.
            more: Further fields of each row.
        """
        blocks = []
        while start < stop:
            channel, first = divmod(start, self._count)
            end = min(self._count, first + stop - start)
            if self._given is None:
                blocks.append(self._block(range(first + 1, end + 1), self._channels[channel], attributes, more))
            else:
                blocks += [_json({**self._row(channel, index, attributes), **more}) for index in range(first, end)]
            start += end - first
        return ",".join(blocks).encode()

    def about(self, index: int) -> tuple[str, Any, bool]:
        """Return the customer and the channel of a row, and whether it is one of the control group."""
        channel, number = divmod(index, self._count)
        if self._given is None:
            return f"C{number + 1:07d}", self._channels[channel], self._is_control(number)
        row = {name.lower(): value for name, value in self._row(channel, number, ()).items()}
        return str(row.get("customerid", "")), row.get("channelid"), row.get("actionid") == _CONTROL_ACTION

    def knows(self, customer_id: str) -> bool:
        """Whether a customer belongs to the campaign."""
        if self._given is not None:
            return customer_id in self._ids
        found = _GENERATED.fullmatch(customer_id)
        return found is not None and 1 <= int(found[1]) <= self._count and customer_id == f"C{int(found[1]):07d}"

    def _is_control(self, number: int) -> bool:
        """Whether a customer, counted from 0, is one of every so many."""
        return self._control_every is not None and (number + 1) % self._control_every == 0

    def _block(self, numbers: range, channel: int, attributes: Sequence[str], more: Mapping[str, Any]) -> str:
        customer, control = (_template(action, channel, attributes, more) for action in (_ACTION, _CONTROL_ACTION))
        rows = [customer] * len(numbers)
        if self._control_every:
            rows = [control if number % self._control_every == 0 else customer for number in numbers]
        # One formatting of the whole block: ten times as fast as one a row.
        places = 1 + len(attributes)
        filled = numbers if places == 1 else [number for number in numbers for _ in range(places)]
        return ",".join(rows) % tuple(filled)

    def _row(self, channel: int, index: int, attributes: Sequence[str]) -> dict[str, Any]:
        customer = (self._given or ())[index]
        if isinstance(customer, str | int):
            action = _CONTROL_ACTION if self._is_control(index) else _ACTION
            row = _row(customer, action, self._channels[channel])
            return row | ({_ATTRIBUTES: [f"{name} of {customer}" for name in attributes]} if attributes else {})
        row = dict(customer)
        if len(self._channels) > 1:
            row["ChannelID"] = self._channels[channel]
        if isinstance(known := row.get(_ATTRIBUTES), Mapping):
            row[_ATTRIBUTES] = [known.get(name, "") for name in attributes]
            if not attributes:
                del row[_ATTRIBUTES]
        return row


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps(row, separators=(",", ":"))


def _row(customer_id: str | int, action: int, channel: int) -> dict[str, Any]:
    return {"CustomerID": customer_id, "ActionID": action, "ChannelID": channel, "TemplateID": 7, "PromoCode": "WB23"}


def _template(action: int, channel: int, attributes: Sequence[str], more: Mapping[str, Any]) -> str:
    row = {**_row("C%07d", action, channel), **more}
    if attributes:
        row[_ATTRIBUTES] = [f"{name.replace('%', '%%')} of C%07d" for name in attributes]
    return _json(row)


def _id_of(customer: Customer) -> str:
    if isinstance(customer, str | int):
        return str(customer)
    return next((str(value) for name, value in customer.items() if name.lower() == "customerid"), "")


@dataclass(frozen=True, slots=True)
class Update:
    """An UpdateCustomerPromotionStatus that the simulator has answered with 200.

    Attributes:
        size: How many statuses it had.
        at_ms: When it came, in milliseconds since 1970.
        timestamp: Its `TimeStamp`.
        in_time: Whether it came by clearance, so that it counts.
    """

    size: int
    at_ms: int
    timestamp: str
    in_time: bool


class Execution:
    """Whom a campaign was sent to: the rows of its recipients, in eight bytes each, and strays."""

    def __init__(self, rows: Rows, is_sent: Callable[[str], bool], strays: Sequence[str], more: dict[str, Any]) -> None:
        """Find the rows.

        Args:
            rows: The customers of the campaign.
            is_sent: Whether a customer of the campaign gets it.
            strays: Customers who are not of the campaign and get it all the same.
            more: Further fields of each row.
        """
        self._rows = rows
        self._strays = tuple(strays)
        self._more = more
        self._sent: dict[str | None, array[int]] = {None: array("Q")}
        for index in range(len(rows)):
            customer_id, channel, is_control = rows.about(index)
            if not is_control and is_sent(customer_id):
                self._sent[None].append(index)
                self._sent.setdefault(str(channel), array("Q")).append(index)

    def page(self, *, channel: int | None, skip: int, top: int | None, attributes: Sequence[str]) -> bytes | None:
        """Return a page of the rows, of one channel or of all; None when none are left."""
        sent = self._sent.get(None if channel is None else str(channel), array("Q"))
        strays = self._strays if channel in (None, _CHANNELS[0]) else ()
        stop = len(sent) + len(strays) if top is None else skip + top
        found = [self._rows.text(start, end, attributes, self._more) for start, end in ranges_of(sent[skip:stop])]
        for each in strays[max(skip - len(sent), 0) : max(stop - len(sent), 0)]:
            found.append(_json({**_row(each, _ACTION, _CHANNELS[0]), **self._more}).encode())
        return b"[" + b",".join(found) + b"]" if found else None


@dataclass(slots=True)
class Campaign:
    """A scheduled campaign on hold; `FakeOptimove.add_campaign` makes them.

    Attributes:
        campaign_id: Its number.
        added_ms: When it was processed, in milliseconds since 1970: the `TimeStamp` of its event.
        clearance_ms: Until when statuses count, in milliseconds since 1970.
        duration: Its `CampaignDuration`.
        details: What GetCampaignDetails answers; yours to change.
        timezone: The zone of its event's time stamps.
        statuses: What was reported in time, by customer. The last one counts; that is the simulator's choice.
        updates: The updates, in order, late ones too.
        late: Customers and statuses that came after clearance, in order. They do not count.
        twice: Ids that were reported more than once in time, repeated calls included.
        contradictions: Ids that were reported in time with two different answers.
        unknown: Ids that were reported in time and do not belong to the campaign. They do not count.
    """

    campaign_id: int
    added_ms: int
    clearance_ms: int
    duration: int
    timezone: ZoneInfo
    _rows: Rows = field(repr=False)
    _page_cap: int | None = field(default=None, repr=False)
    _sizes: Iterator[int] | None = field(default=None, repr=False)
    _ignores_paging: bool = field(default=False, repr=False)
    _empty_page: Response = field(default=EMPTY_PAGES["[]"], repr=False)
    details: dict[str, Any] = field(default_factory=dict, repr=False)
    statuses: dict[str, bool] = field(default_factory=dict, repr=False)
    updates: list[Update] = field(default_factory=list, repr=False)
    late: list[tuple[str, bool]] = field(default_factory=list, repr=False)
    twice: set[str] = field(default_factory=set, repr=False)
    contradictions: set[str] = field(default_factory=set, repr=False)
    unknown: set[str] = field(default_factory=set, repr=False)
    _execution: Execution | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Fill in the details of a usual campaign."""
        self.details = {
            "TargetGroupID": 15,
            "CampaignType": "Test/Control",
            "Duration": self.duration,
            "LeadTime": 3,
            "Notes": "",
            "IsMultiChannel": False,
            "IsRecurrence": False,
            "Status": "Successful",
            "Error": "",
            **self.details,
        }

    @property
    def payload(self) -> dict[str, Any]:
        """The JSON object that a listener gets. It is the same each time."""
        return campaign_ready(
            self.campaign_id,
            timestamp=_local(self.added_ms, self.timezone),
            clearance_required_by=_local(self.clearance_ms, self.timezone),
            duration=self.duration,
        )

    def event(self) -> CampaignReadyEvent:
        """Return the event as a `ListenerReceiver` passes it on, for a review that is run without one."""
        return CampaignReadyEvent.model_validate(self.payload)

    @property
    def calls(self) -> list[int]:
        """The sizes of the updates, late ones too."""
        return [update.size for update in self.updates]

    @property
    def row_count(self) -> int:
        """How many rows its pages have in all."""
        return len(self._rows)

    def recipients(self) -> list[str]:
        """Return the recipients: customers of the campaign who were approved in time."""
        statuses = self.statuses.copy()  # an update may come in another thread
        return [customer_id for customer_id, status in statuses.items() if status]

    def page(self, *, skip: int, top: int | None, attributes: Sequence[str] = ()) -> Response:
        """Answer GetProcessedCampaignCustomers.

        Args:
            skip: Rows to leave out, `$skip`.
            top: Rows at most, `$top`; None for all.
            attributes: Names of the attributes that the rows shall have.
        """
        start, stop = 0, len(self._rows)
        if not self._ignores_paging:
            sizes = (top, self._page_cap, None if self._sizes is None else next(self._sizes))
            start, stop = min(skip, stop), min([stop, *(skip + size for size in sizes if size is not None)])
        return self._response(b"[" + self._rows.text(start, stop, attributes) + b"]" if start < stop else None)

    def execute(self, *, unapproved: Iterable[str], dropped: Iterable[str]) -> None:
        """Send the campaign; see `FakeOptimove.execute`."""
        approved, added, left_out = self.statuses.copy(), set(unapproved), set(dropped)
        self._execution = Execution(
            self._rows,
            lambda name: (approved.get(name, False) or name in added) and name not in left_out,
            [name for name in sorted(added) if not self._rows.knows(name)],
            {
                "TemplateName": "Welcome back",
                "ScheduledTime": _local(self.clearance_ms, self.timezone).strftime(TIMESTAMP),
            },
        )

    def executed(self, *, channel: int | None, skip: int, top: int | None, attributes: Sequence[str] = ()) -> Response:
        """Answer GetCustomerExecutionDetailsByCampaign: no rows before the campaign is sent.

        Args:
            channel: Only rows of this channel; None for all.
            skip: Rows to leave out, `$skip`.
            top: Rows at most, `$top`; None for all.
            attributes: Names of the attributes that the rows shall have.
        """
        size = min((each for each in (top, self._page_cap) if each is not None), default=None)
        body = None
        if self._execution is not None:
            body = self._execution.page(channel=channel, skip=skip, top=size, attributes=attributes)
        return self._response(body)

    def _response(self, body: bytes | None) -> Response:
        if body is None:
            return self._empty_page
        return Response(200, {**_JSON, "content-length": str(len(body))}, body)

    def take(self, statuses: Iterable[tuple[str, bool]], *, timestamp: str, at_ms: int) -> None:
        """Record an update.

        Args:
            statuses: Customers and whether they are approved.
            timestamp: Its `TimeStamp`.
            at_ms: When it came, in milliseconds since 1970.
        """
        given = list(statuses)
        in_time = at_ms <= self.clearance_ms
        self.updates.append(Update(len(given), at_ms, timestamp, in_time))
        if not in_time:
            self.late += given
            return
        for customer_id, status in given:
            if not self._rows.knows(customer_id):
                self.unknown.add(customer_id)
                continue
            before = self.statuses.get(customer_id)
            if before is not None:
                self.twice.add(customer_id)
                if before is not status:
                    self.contradictions.add(customer_id)
            self.statuses[customer_id] = status


def _local(ms: int, zone: ZoneInfo) -> dt.datetime:
    return dt.datetime.fromtimestamp(ms // 1000, zone).replace(tzinfo=None)
