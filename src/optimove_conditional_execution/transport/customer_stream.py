"""Streaming of a campaign's customers: page after page, with retries, and a timeout for each read."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from ..deadline import Deadline
from ..errors import APIError, DeadlineExceeded, NotFoundError, OptimoveError, TransportError
from ..observers import SafeLogger
from .retry import RetryPolicy, backoff
from .send import RequestCounter, Sender

if TYPE_CHECKING:
    from ..flows.paging import Pages
    from ..models.campaign import CampaignCustomer

C = TypeVar("C", bound="CampaignCustomer")

_LOGGER: Final = SafeLogger("client")


async def read_customers(
    sender: Sender, paging: Pages[C], deadline: Deadline | None, counter: RequestCounter | None = None
) -> AsyncGenerator[list[C], None]:
    """Yield the customers, some hundreds at a time.

    Raises:
        OptimoveError: See `OptimoveClient.get_processed_campaign_customers`.
    """
    retry = _StreamRetry(sender.config.retry, paging, deadline)
    while (operation := paging.next_page()) is not None:
        try:
            stream = await sender.open_stream(operation, deadline, counter)
            try:
                while block := await stream.read():
                    if customers := paging.feed(block):
                        yield customers
            finally:
                await stream.aclose()
            if customers := paging.close_page(is_framed=stream.is_framed):
                yield customers
        except OptimoveError as error:
            paging.pause = retry.pause_after(error)
        if paging.pause:
            await sender.sleep(paging.pause)


@final
class _StreamRetry:
    """Retry policy of a stream: which failures of a page are final, and how long to wait after the others.

    Opening a page has its own retries. This policy is about truncated pages, and, with a deadline, about servers that
    are down for longer: reading is retried until then.
    """

    def __init__(self, policy: RetryPolicy, paging: Pages[Any], deadline: Deadline | None) -> None:
        self._policy = policy
        self._paging = paging
        self._deadline = deadline
        self._rows = 0
        self._failures = 0

    def pause_after(self, error: OptimoveError) -> float:
        """Return the seconds to wait before the next page.

        Raises:
            OptimoveError: The error, when it is final.
        """
        from ..flows.paging import is_from_api

        is_foreign = isinstance(error, NotFoundError) and not is_from_api(error)
        if isinstance(error, NotFoundError) and not is_foreign:
            self._paging.missing(error)
            if self._deadline is not None and self._paging.pause >= self._deadline.remaining():
                raise error  # no time to request it again, so it is unknown whether it is the end
            return self._paging.pause
        is_transient = isinstance(error, APIError) and error.is_transient
        if not (is_foreign or is_transient or isinstance(error, TransportError | DeadlineExceeded)):
            raise error
        if self._paging.rows > self._rows:
            self._failures = 0
        self._rows = self._paging.rows
        self._failures += 1
        if self._failures == 1 and self._deadline is not None:
            _LOGGER.warning("the customers of a campaign cannot be read now, which is tried again: %s", error)
        policy = self._policy
        pause = backoff(self._failures, first=policy.first_pause, longest=policy.longest_pause)
        if self._deadline is None:
            # A truncated page is retried, and so is a 404 that a proxy has sent; any other page that could not be
            # opened has had its retries.
            broke_off = isinstance(error, TransportError) and error.request_sent is not False
            if not (broke_off or is_foreign) or self._failures >= policy.attempts:
                raise error
        elif policy.attempts == 1 or pause >= self._deadline.remaining():
            raise error
        return pause
