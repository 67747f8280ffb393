"""Simulated scheduled campaigns: customers, clearance, and the reported statuses."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

from ..messages import Response
from ..models.events import CampaignReadyEvent
from .payloads import campaign_ready
from .rows import Rows

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
        if start >= stop:
            return self._empty_page
        body = b"[" + self._rows.text(start, stop, attributes) + b"]"
        return Response(200, {**_JSON, "content-length": str(len(body))}, body)

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

    def _bounds(self, skip: int, top: int | None) -> tuple[int, int]:
        rows = len(self._rows)
        if self._ignores_paging:
            return 0, rows
        sizes = [rows if top is None else top]
        if self._page_cap is not None:
            sizes.append(self._page_cap)
        if self._sizes is not None:
            sizes.append(next(self._sizes))
        return min(skip, rows), min(rows, skip + min(sizes))

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
