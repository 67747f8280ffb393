"""Simulated scheduled campaigns: customers, clearance, and the reported statuses."""

from __future__ import annotations

import datetime as dt
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from ..flows.journal import ranges_of
from ..messages import Response
from ..models.events import CampaignReadyEvent
from .payloads import TIMESTAMP, campaign_ready
from .rows import CHANNELS, Rows, stray_row

EmptyPage = Literal["[]", "null", "empty", "204", "404"]

_JSON: Final = {"content-type": "application/json"}
EMPTY_PAGES: Final[dict[str, Response]] = {
    "[]": Response(200, {**_JSON, "content-length": "2"}, b"[]"),
    "null": Response(200, {**_JSON, "content-length": "4"}, b"null"),
    "empty": Response(200, {"content-length": "0"}),
    "204": Response(204),
    "404": Response(404, {"content-type": "text/plain", "content-length": "9"}, b"Not Found"),
}

_BLOCK: Final = 10_000
"""Rows of a stream that are formatted at a time."""


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
        strays = self._strays if channel in (None, CHANNELS[0]) else ()
        stop = len(sent) + len(strays) if top is None else skip + top
        found = [self._rows.text(start, end, attributes, self._more) for start, end in ranges_of(sent[skip:stop])]
        found += [stray_row(each, self._more) for each in strays[max(skip - len(sent), 0) : max(stop - len(sent), 0)]]
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
        start, stop = self._bounds(skip, top)
        return self._response(b"[" + self._rows.text(start, stop, attributes) + b"]" if start < stop else None)

    def stream(self, *, skip: int = 0, top: int | None = None, attributes: Sequence[str] = ()) -> Iterator[bytes]:
        """Yield the same body in blocks of ten thousand rows, for servers that send a page too long for memory.

        Args:
            skip: Rows to leave out.
            top: Rows at most; None for all.
            attributes: Names of the attributes that the rows shall have.
        """
        start, stop = self._bounds(skip, top)
        yield b"["
        for block in range(start, stop, _BLOCK):
            rows = self._rows.text(block, min(stop, block + _BLOCK), attributes)
            yield rows if block == start else b"," + rows
        yield b"]"

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

    def _bounds(self, skip: int, top: int | None) -> tuple[int, int]:
        rows = len(self._rows)
        if self._ignores_paging:
            return 0, rows
        sizes = (top, self._page_cap, None if self._sizes is None else next(self._sizes))
        return min(skip, rows), min([rows, *(skip + size for size in sizes if size is not None)])

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
