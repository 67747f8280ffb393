"""The pages of a campaign's customers: what to ask for next, when it is over, and what cannot be right."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final

from .. import operations
from ..deadline import Deadline
from ..errors import NotFoundError, PayloadError, TransportError, UnexpectedResponseError
from ..models.campaign import CampaignCustomer, UnreadableRow, read_customer, read_customers
from ..operations import Operation
from ..validation import integer
from .json_rows import JsonRowReader, TruncatedArray

Row = CampaignCustomer | UnreadableRow

_OK: Final = 200
_SAMPLE: Final = 100
"""Rows by which a page is recognised."""

_NOT_FOUND_PAUSE: Final = 1.0
"""Seconds before a page behind the first rows, answered with 404, is asked for again."""

_WAITING_SHARE: Final = 0.25
_WAITING_SECONDS: Final = 30.0

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
"""Seconds; the pauses before an empty first page is asked for again double from the first to the longest."""


class Paging:
    """Reads a campaign's customers page by page, without IO.

    Ask `next_page` for an operation, give the bytes of its answer to `feed` and then call `close_page`; until
    `next_page` says None. A page that breaks off needs no call: the next one begins behind the rows that came.

    How Optimove pages is not documented. So a page with fewer rows than asked for does not end it, since the server may
    cap pages; an empty one does, and a 404 behind the first rows that the API says twice. A page that comes again would
    come for ever, in pieces too, when it breaks off each time.

    The event of a campaign can come before its customers do. So an empty first page, or a 404 on it, is asked for again
    with growing pauses before it is believed.

    Attributes:
        rows: Rows that have come.
        pause: Seconds to wait before the next page is asked for.
    """

    def __init__(
        self,
        campaign_id: int,
        *,
        customer_attributes: Sequence[str] = (),
        page_size: int | None,
        waiting: Deadline | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        """Begin before the first row.

        Args:
            campaign_id: The campaign.
            customer_attributes: Names of attributes to ask for.
            page_size: Rows to ask for, 1 or more; None asks once, for everything.
            waiting: Until when an empty first page, or a 404 on it, is asked for again; None believes it at once.
            on_warning: Told, in plain words without personal data, when the end of the customers is doubtful.

        Raises:
            ConfigurationError: An argument makes no sense.
        """
        if page_size is not None:
            integer("page_size", page_size)
        self._campaign_id = campaign_id
        self._attributes = tuple(customer_attributes)
        self._page_size = page_size
        self._known: set[str] = set()  # how the pages began
        self._broken: list[Any] = []  # how the last one that broke off began
        self._over = False
        self._asked_twice = False
        self._has_customers = False
        self._unreadable = 0
        self._first_unreadable = ""
        self._waiting = waiting
        self._waited = 0.0
        self._not_found_at: int | None = None  # behind so many rows a 404 has come
        self._on_warning = on_warning
        self.rows = 0
        self.pause = 0.0
        self._operation = self._page()  # tells now what is wrong with the arguments
        self._begin()

    def _begin(self) -> None:
        self._reader: JsonRowReader[Row] = JsonRowReader(read_customers, read_customer)
        self._page_rows = 0
        self._sample: list[Any] = []

    def _page(self) -> Operation[list[CampaignCustomer]]:
        return operations.get_processed_campaign_customers(
            self._campaign_id, customer_attributes=self._attributes, top=self._page_size, skip=self.rows
        )

    def next_page(self) -> Operation[list[CampaignCustomer]] | None:
        """Return what to send next, or None when all rows have come.

        Raises:
            UnexpectedResponseError: They have, and there were some that name no customer; or the page that broke off
                had come before.
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

    def feed(self, block: bytes) -> list[CampaignCustomer]:
        """Take bytes of the page and return the customers that are complete.

        Raises:
            UnexpectedResponseError: The page is not a list of customers, or has come before.
        """
        try:
            return self._read(self._reader.feed(block))
        except PayloadError as error:
            raise self._unexpected(f"But {_sentence(error)}", block) from None

    def close_page(self, *, is_framed: bool = True) -> list[CampaignCustomer]:
        """Take the end of the page, and return its last customers.

        Args:
            is_framed: Whether the answer said where it ends. One that did not, and is empty, may be a server's last
                breath: the page is asked for once more.

        Raises:
            UnexpectedResponseError: The page is not a list of customers, or has come before.
            TransportError: The page broke off; the next one begins behind the rows that came.
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
        """Take a 404 that the API itself has sent (`is_from_api`): behind the first rows the second one is the end.

        Raises:
            NotFoundError: It is the end of the reading, and not of the customers.
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
                f"The customers ended with a 404 behind {self.rows} rows, twice, and not with an empty page. Compare "
                "the number with what Optimove shows for the campaign."
            )

    def _wait_for_customers(self) -> bool:
        """Set the pause before the first page is asked for again; False when there is no time left for that."""
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

    def _read(self, rows: Sequence[Row]) -> list[CampaignCustomer]:
        if len(self._sample) < _SAMPLE and rows:
            self._sample += map(_as_sent, rows[: _SAMPLE - len(self._sample)])
            if len(self._sample) == _SAMPLE and self._is_repeated_page():
                raise self._repeated()
        # One that is none must not keep the others waiting.
        customers = [row for row in rows if isinstance(row, CampaignCustomer)]
        if len(customers) < len(rows):
            self._skip_invalid(rows, any_read=bool(customers))
        self._has_customers = self._has_customers or bool(customers)
        self._page_rows += len(rows)
        self.rows += len(rows)
        return customers

    def _is_repeated_page(self) -> bool:
        # A page that broke off may have come to fewer rows, so what both have is compared.
        both = min(len(self._sample), len(self._broken))
        return _digest(self._sample) in self._known or (both > 0 and self._sample[:both] == self._broken[:both])

    def _skip_invalid(self, rows: Sequence[Row], *, any_read: bool) -> None:
        for number, row in enumerate(rows, self.rows + 1):
            if isinstance(row, UnreadableRow):
                if not any_read and not self._has_customers:
                    raise row.error  # it is a list of something else
                self._unreadable += 1
                self._first_unreadable = self._first_unreadable or f"row {number}: {row.error}"

    def _unread(self) -> UnexpectedResponseError:
        return self._unexpected(
            f"But {self._unreadable} of {self.rows} rows name no customer; the first is {self._first_unreadable} The "
            "others have all come. Nobody can be asked about these: tell Optimove."
        )

    def _repeated(self) -> UnexpectedResponseError:
        return self._unexpected(
            "But the page has come before: the server ignores $skip, so that rows may be missing. If it ignores paging "
            "altogether and sends all customers at once, use page_size=None."
        )

    def _unexpected(self, what: str, body: bytes = b"") -> UnexpectedResponseError:
        operation = self._operation
        return UnexpectedResponseError(
            f"{operation.name}: {operation.method} {operation.path} answered 200 OK. {what}",
            status=_OK,
            operation=operation.name,
            body=b"" if self.rows else body,
        )


def seconds_for_customers(left: float, *, until: float) -> float:
    """Return how long an empty first page is asked for again: a quarter of the time, 30 s where there is time for it.

    Args:
        left: Seconds until the statuses of the customers must have been sent.
        until: Seconds until the customers must have been read; half of it remains for that.
    """
    return min(max(left * _WAITING_SHARE, min(_WAITING_SECONDS, until / 2)), until)


def is_from_api(error: NotFoundError) -> bool:
    """Whether a 404 is one of Optimove's API: JSON, nothing, or `Not Found`; a proxy sends a page or words of its own.

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
