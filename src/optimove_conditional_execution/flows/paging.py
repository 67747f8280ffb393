"""Paging through a campaign's customers: the next request, the end, and the detection of invalid pages."""

from __future__ import annotations

import abc
import codecs
import functools
import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final, Generic, TypeVar, cast

from .. import operations
from ..deadline import Deadline
from ..errors import NotFoundError, PayloadError, TransportError, UnexpectedResponseError
from ..models.campaign import CampaignCustomer, CustomerExecution, UnreadableRow, read_customer, read_customers
from ..operations import Operation
from ..validation import integer
from .json_rows import JsonRowReader, TruncatedArray

C = TypeVar("C", bound=CampaignCustomer)
Row = CampaignCustomer | UnreadableRow

_OK: Final = 200
_SAMPLE: Final = 100
"""Rows that identify a page."""

_NOT_FOUND_PAUSE: Final = 1.0
"""Seconds before a page after the first rows that was a 404 is requested again."""

_WAITING_SHARE: Final = 0.25
_WAITING_SECONDS: Final = 30.0

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
"""Seconds; the pauses before an empty first page is requested again double from the first to the longest."""


class UnreadableRows(UnexpectedResponseError):  # noqa: N818 - a kind of it, told apart by reviews
    """All rows were received, and some of them name no customer."""


class Pages(abc.ABC, Generic[C]):
    """Reads the rows of a campaign page by page, without IO.

    Get an operation from `next_page`, pass the bytes of its response to `feed` and then call `close_page`, until
    `next_page` returns None. A truncated page needs no call: the next one begins after the rows received.

    How Optimove pages is not documented. So a page with fewer rows than requested does not end it, since the server may
    cap pages; an empty one does, and a 404 after the first rows that the API returns twice. A repeated page would be
    repeated for ever, also in parts, when it is truncated each time.

    The event of a campaign can arrive before its customers do. So an empty first page, or a 404 for it, is requested
    again with growing pauses before it is accepted.

    Attributes:
        rows: Rows received.
        pause: Seconds to wait before the next page is requested.
    """

    _model: type[C]

    def __init__(
        self,
        campaign_id: int,
        *,
        channel_id: int | None = None,
        customer_attributes: Sequence[str] = (),
        page_size: int | None,
        waiting: Deadline | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        """Start before the first row.

        Args:
            campaign_id: The campaign.
            channel_id: Only what this channel has sent; None for all.
            customer_attributes: Names of attributes to ask for.
            page_size: Rows per page, 1 or more; None sends one request, for everything.
            waiting: Until when an empty first page, or a 404 for it, is requested again; None accepts it at once.
            on_warning: Called with a text, without personal data, when the end of the customers is doubtful.

        Raises:
            ConfigurationError: An argument is invalid.
        """
        if page_size is not None:
            integer("page_size", page_size)
        self._campaign_id = campaign_id
        self._channel_id = channel_id
        self._attributes = customer_attributes  # unchanged: a single string is rejected, not split into letters
        self._page_size = page_size
        self._known: set[str] = set()  # the first rows of the pages
        self._broken: list[Any] = []  # the first rows of the last truncated page
        self._over = False
        self._asked_twice = False
        self._has_customers = False
        self._unreadable = 0
        self._first_unreadable = ""
        self._waiting = waiting
        self._waited = 0.0
        self._not_found_at: int | None = None  # the number of rows before a 404
        self._on_warning = on_warning
        self.rows = 0
        self.pause = 0.0
        self._operation = self._page()  # raises now if an argument is invalid
        self._begin()

    def _begin(self) -> None:
        self._reader: JsonRowReader[C | UnreadableRow] = JsonRowReader(
            functools.partial(read_customers, model=self._model), functools.partial(read_customer, model=self._model)
        )
        self._page_rows = 0
        self._sample: list[Any] = []

    @abc.abstractmethod
    def _page(self) -> Operation[list[C]]:
        """Return the operation for the page after the rows received."""

    def next_page(self) -> Operation[list[C]] | None:
        """Return the next operation to send, or None when all rows have been received.

        Raises:
            UnexpectedResponseError: All rows have been received, and some of them name no customer; or the truncated
                page was a repeated one.
        """
        if self._over:
            if self._unreadable:
                raise self._unread()
            return None
        self.pause = 0.0
        if self._sample:
            if self._is_repeated_page():
                raise self._repeated()
            self._broken = self._sample
        self._begin()
        self._operation = self._page()
        return self._operation

    def feed(self, block: bytes) -> list[C]:
        """Feed bytes of the page and return the customers that are complete.

        Raises:
            UnexpectedResponseError: The page is not a list of customers, or is a repeated one.
        """
        try:
            return self._read(self._reader.feed(block))
        except PayloadError as error:
            raise self._unexpected(f"But {_sentence(error)}", block) from None

    def close_page(self, *, is_framed: bool = True) -> list[C]:
        """End the page, and return its last customers.

        Args:
            is_framed: Whether the response said where it ends. If not, and it is empty, it may be a connection that
                closed before the body: the page is requested once more.

        Raises:
            UnexpectedResponseError: The page is not a list of customers, or is a repeated one.
            TransportError: The page was truncated; the next one begins after the rows received.
        """
        try:
            customers = self._read(self._reader.close())
        except PayloadError as error:
            raise self._unexpected(f"But {_sentence(error)}") from None
        except TruncatedArray:
            raise TransportError(
                f"{self._operation.name}: the answer ended in the middle of a page.", request_sent=True
            ) from None
        if self._sample:
            if self._is_repeated_page():
                raise self._repeated()
            self._known.add(_digest(self._sample))
            self._sample = []
        self._over = self._page_size is None or not self._page_rows
        if self._over and not self._page_rows and not is_framed and not self._asked_twice:
            self._asked_twice = True
            self._over = False
        if self._over and not self.rows:
            if self._wait_for_customers():
                self._over = False
            else:
                self._warn(
                    f"The campaign has no customers: its first page was empty{self._how_long()}. If you expected some, "
                    "they may have come later than the event."
                )
        return customers

    def missing(self, error: NotFoundError) -> None:
        """Handle a 404 that the API itself has sent (`is_from_api`): after the first rows the second one is the end.

        Raises:
            NotFoundError: There is no such campaign, so reading fails.
        """
        if not self.rows:
            if not self._wait_for_customers():
                raise error
        elif self._not_found_at != self.rows:
            self._not_found_at = self.rows
            self.pause = _NOT_FOUND_PAUSE
        else:
            self._over = True
            self._warn(
                f"The customers ended with a 404 after {self.rows} rows, twice, and not with an empty page. Compare "
                "the number with what Optimove shows for the campaign."
            )

    def _wait_for_customers(self) -> bool:
        """Set the pause before the first page is requested again; False when there is no time left for that."""
        left = 0.0 if self._waiting is None else self._waiting.remaining()
        if left <= 0:
            return False
        self.pause = min(left, max(_FIRST_PAUSE, min(self._waited, _LONGEST_PAUSE)))
        self._waited += self.pause
        return True

    def _how_long(self) -> str:
        return f" for {self._waited:.0f} s" if self._waited else ""

    def _warn(self, text: str) -> None:
        if self._on_warning is not None:
            self._on_warning(text)

    def _read(self, rows: Sequence[C | UnreadableRow]) -> list[C]:
        if len(self._sample) < _SAMPLE and rows:
            self._sample += map(_as_sent, rows[: _SAMPLE - len(self._sample)])
            if len(self._sample) == _SAMPLE and self._is_repeated_page():
                raise self._repeated()
        # An invalid row must not delay the others.
        if UnreadableRow in set(map(type, rows)):
            customers = [row for row in rows if not isinstance(row, UnreadableRow)]
            self._skip_invalid(rows, any_read=bool(customers))
        else:
            customers = cast("list[C]", rows)
        self._has_customers = self._has_customers or bool(customers)
        self._page_rows += len(rows)
        self.rows += len(rows)
        return customers

    def _is_repeated_page(self) -> bool:
        # A truncated page may have fewer rows, so the rows that both have are compared.
        both = min(len(self._sample), len(self._broken))
        return _digest(self._sample) in self._known or (both > 0 and self._sample[:both] == self._broken[:both])

    def _skip_invalid(self, rows: Sequence[Row], *, any_read: bool) -> None:
        for number, row in enumerate(rows, self.rows + 1):
            if isinstance(row, UnreadableRow):
                if not any_read and not self._has_customers:
                    raise row.error  # it is a list of something else than customers
                self._unreadable += 1
                self._first_unreadable = self._first_unreadable or f"row {number}: {row.error}"

    def _unread(self) -> UnexpectedResponseError:
        return self._unexpected(
            f"But {self._unreadable} of {self.rows} rows name no customer; the first is {self._first_unreadable} The "
            "others were all received. These cannot be reviewed: report them to Optimove.",
            kind=UnreadableRows,
        )

    def _repeated(self) -> UnexpectedResponseError:
        return self._unexpected(
            "But the page has come before: the server ignores $skip, so that rows may be missing. If it ignores paging "
            "altogether and sends all customers at once, use page_size=None."
        )

    def _unexpected(
        self, what: str, body: bytes = b"", *, kind: type[UnexpectedResponseError] = UnexpectedResponseError
    ) -> UnexpectedResponseError:
        operation = self._operation
        return kind(
            f"{operation.name}: {operation.method} {operation.path} answered 200 OK. {what}",
            status=_OK,
            operation=operation.name,
            body=b"" if self.rows else body,
        )


class Paging(Pages[CampaignCustomer]):
    """Reads a campaign's customers, before it is sent."""

    _model = CampaignCustomer

    def _page(self) -> Operation[list[CampaignCustomer]]:
        return operations.get_processed_campaign_customers(
            self._campaign_id, customer_attributes=self._attributes, top=self._page_size, skip=self.rows
        )


class ExecutionPaging(Pages[CustomerExecution]):
    """Reads whom a campaign was sent to."""

    _model = CustomerExecution

    def _page(self) -> Operation[list[CustomerExecution]]:
        return operations.get_customer_execution_details_by_campaign(
            self._campaign_id,
            channel_id=self._channel_id,
            customer_attributes=self._attributes,
            top=self._page_size,
            skip=self.rows,
        )


def seconds_for_customers(left: float, *, until: float) -> float:
    """Return how long an empty first page is requested again: a quarter of the time, 30 s where there is time for it.

    Args:
        left: Seconds until the statuses of the customers must have been sent.
        until: Seconds until the customers must have been read; half of it remains for that.
    """
    return min(max(left * _WAITING_SHARE, min(_WAITING_SECONDS, until / 2)), until)


def is_from_api(error: NotFoundError) -> bool:
    """Whether a 404 is from Optimove's API: JSON, an empty body, or `Not Found`; a proxy sends a page or another text.

    Source: `docs/explanation/optimove-api.md`; `Not Found` as plain text is what an unknown campaign gets.
    """
    body = error.body.removeprefix(codecs.BOM_UTF8).strip()
    return not body or body[:1] in b'{["' or body.lower() in (b"null", b"not found")


def _as_sent(row: Row) -> object:
    return row.model_dump(mode="json") if isinstance(row, CampaignCustomer) else row.row


def _digest(rows: list[Any]) -> str:
    return blake2b(json.dumps(rows).encode(), digest_size=8).hexdigest()


def _sentence(error: PayloadError) -> str:
    text = str(error)
    return f"{text}{'' if text.endswith('.') else '.'} Check base_url and Endpoints: another server may have answered."
