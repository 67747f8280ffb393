"""The client for threads: one method per API call, and `send` for any other operation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

from pydantic import SecretStr

from .. import models, operations  # the models of what is returned are loaded when they are needed
from ..deadline import Deadline
from ..drivers import run
from ..flows.registration import ensure_event_listener, ensure_webhook
from ..flows.status_updates import Statuses, update_statuses
from ..models.approval import Approval
from ..operations import Operation
from ..tracebacks import sensitive_variables
from ..transport.engine import Engine
from ..transport.send import RequestCounter
from ..transport.waiting import ThreadAlarm, iterate_blocking, run_blocking
from .base import Client, CustomerOptions, EngineName, ExecutionOptions, aiohttp_engine

T = TypeVar("T")
C = TypeVar("C", bound="models.CampaignCustomer")


class OptimoveClient(Client):
    """Optimove's Conditional Execution API, for threads.

    One object holds one connection pool and one TLS context: make one, use it from all threads, and close it, best with
    `with OptimoveClient() as client:`.
    """

    _alarm = ThreadAlarm

    def _engine(self, http_client: object | None, name: EngineName, max_connections: int) -> Engine:
        base_url = self._config.settings.base_url
        if name == "aiohttp":
            return aiohttp_engine(max_connections, base_url, in_thread=True)
        # Importing httpx takes as long as importing all the rest, so it is deferred until a client is made.
        from ..transport.http import HttpEngine

        return HttpEngine(http_client, library=name, max_connections=max_connections, base_url=base_url)

    @sensitive_variables
    def create_webhook(self, url: str) -> models.Webhook:
        """Register a URL for the notifications of triggered campaigns (CreateWebhook).

        It is not retried after an unknown outcome, since that could register the URL twice: see `ensure_webhook`.

        Args:
            url: Where Optimove posts notifications.

        Raises:
            OptimoveError: See `send`.
        """
        return self.send(operations.create_webhook(url))

    def get_webhooks(self) -> list[models.Webhook]:
        """List the registered webhooks (GetWebhooks).

        Raises:
            OptimoveError: See `send`.
        """
        return self.send(operations.get_webhooks())

    def get_webhook_by_id(self, webhook_id: str) -> models.Webhook:
        """Look up a webhook (GetWebhookById).

        Args:
            webhook_id: The `id` of a `Webhook`.

        Raises:
            NotFoundError: There is no webhook with this id.
            OptimoveError: See `send`.
        """
        return self.send(operations.get_webhook_by_id(webhook_id))

    def delete_webhook(self, webhook_id: str) -> None:
        """Stop notifications to a webhook (DeleteWebhook).

        Args:
            webhook_id: The `id` of a `Webhook`.

        Raises:
            NotFoundError: There is no webhook with this id.
            OptimoveError: See `send`.
        """
        self.send(operations.delete_webhook(webhook_id))

    @sensitive_variables
    def ensure_webhook(self, url: str) -> models.Webhook:
        """Return the webhook of a URL, creating it only when there is none.

        It can be called at every start of your service. When the outcome of creating is unknown, the list is read again
        before the error is raised.

        Args:
            url: Where Optimove posts notifications, absolute. URLs are compared in their normal form (RFC 3986): the
                case of scheme and host, a default port, needless percent-encoding and a slash at the end do not count.

        Raises:
            ConfigurationError: The URL is not absolute.
            OptimoveError: See `send`.
        """
        deadline = Deadline.after(self._config.timeout)
        return run(ensure_webhook(url), call=lambda operation: self.send(operation, deadline=deadline))

    @sensitive_variables
    def update_webhook_settings(
        self, *, timeout_ms: int = operations.DEFAULT_TIMEOUT_MS, secret: str | SecretStr | None = None
    ) -> models.TenantSettings:
        """Set how long Optimove waits for answers, and what it signs with (UpdateWebhookSettings).

        The settings hold for all webhooks of the tenant.

        Args:
            timeout_ms: Milliseconds. Give it even when you only change the secret: it is always sent.
            secret: The new secret; None leaves the field out of the request. Whether that clears or keeps the old one
                is not documented.

        Raises:
            OptimoveError: See `send`.
        """
        return self.send(operations.update_webhook_settings(timeout_ms=timeout_ms, secret=secret))

    def send_webhook_approval(self, approval: Approval, *, deadline: Deadline | None = None) -> None:
        """Answer a notification (SendWebhookApproval). The first answer counts.

        Args:
            approval: The answer.
            deadline: The end of the call; with one, failed tries are retried until then.

        Raises:
            OptimoveError: See `send`. When Optimove did not answer with a 2xx, the approval may be lost.
        """
        self.send(operations.send_webhook_approval(approval), deadline=deadline)

    @sensitive_variables
    def register_event_listener(
        self, listener_url: str, *, event_type_id: int = 5, channel_id: int | None = None
    ) -> None:
        """Have Optimove post events of a type to a URL (RegisterEventListener).

        Type 5: a scheduled campaign waits for clearance. See `ensure_event_listener` for calling it at every start.
        Listener events are not signed, so put a secret token into the URL.

        Args:
            listener_url: Where Optimove posts.
            event_type_id: The type of events.
            channel_id: Only those of one channel; never for type 5.

        Raises:
            ConfigurationError: The URL is blank, or a channel is given for type 5.
            OptimoveError: See `send`.
        """
        self.send(operations.register_event_listener(listener_url, event_type_id=event_type_id, channel_id=channel_id))

    def unregister_event_listener(self, *, event_type_id: int = 5, channel_id: int | None = None) -> None:
        """Stop events of a type (UnregisterEventListener).

        Args:
            event_type_id: The type of events.
            channel_id: The channel that was registered, if one was.

        Raises:
            OptimoveError: See `send`.
        """
        self.send(operations.unregister_event_listener(event_type_id=event_type_id, channel_id=channel_id))

    def get_registered_event_listeners(self) -> list[models.EventListener]:
        """List the registered listeners of all event types (GetRegisteredEventListeners).

        Raises:
            OptimoveError: See `send`.
        """
        return self.send(operations.get_registered_event_listeners())

    @sensitive_variables
    def ensure_event_listener(self, listener_url: str, *, event_type_id: int = 5) -> models.EventListener:
        """Return the listener of a URL and an event type, registering it only when it is missing or different.

        It can be called at every start of your service.

        Args:
            listener_url: Where Optimove posts, absolute; compared as `ensure_webhook` does.
            event_type_id: The type of events.

        Raises:
            ConfigurationError: The URL is not absolute.
            OptimoveError: See `send`.
        """
        deadline = Deadline.after(self._config.timeout)
        flow = ensure_event_listener(listener_url, event_type_id=event_type_id)
        return run(flow, call=lambda operation: self.send(operation, deadline=deadline))

    def get_campaign_details(self, campaign_id: int) -> models.CampaignDetails:
        """Look up a campaign (GetCampaignDetails), for rules per target group or channel, or by its notes.

        Args:
            campaign_id: The `campaign_id` of a `CampaignReadyEvent`.

        Raises:
            NotFoundError: There is no such campaign, or no such path.
            UnexpectedResponseError: The response has no details of a campaign.
            OptimoveError: See `send`.
        """
        return self.send(operations.get_campaign_details(campaign_id))

    def get_processed_campaign_customers(
        self,
        campaign_id: int,
        *,
        customer_attributes: Sequence[str] = (),
        page_size: int | None = operations.DEFAULT_PAGE_SIZE,
        deadline: Deadline | None = None,
        counter: RequestCounter | None = None,
        wait_for_customers: float | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> Generator[models.CampaignCustomer, None, None]:
        """Yield the customers of a campaign that waits for clearance (GetProcessedCampaignCustomers).

        Pages are read as a stream, so that a campaign of any size takes the memory of some hundred rows. After a lost
        connection, reading resumes after the rows received.

        Args:
            campaign_id: The `campaign_id` of a `CampaignReadyEvent`.
            customer_attributes: Names of customer attributes to ask for.
            page_size: Rows per page; the server may send fewer. None for an API without paging: one request.
            deadline: The end of reading; with one, a server that is down is retried until then. None: each wait for the
                next bytes may take `timeout` seconds.
            counter: Counts the requests.
            wait_for_customers: Seconds for which an empty first page, or a 404 for it, is requested again with growing
                pauses, since a campaign's event can arrive before its customers do. None: with a deadline a quarter of
                the time until it, at least 30 s where there is time; without one 0, so that it is final at once.
            on_warning: Called with a text, without personal data, when the end is doubtful: no customers at all, or a
                404 after the last page, which is final the second time. Unset, it is logged.

        Raises:
            NotFoundError: There is no such campaign, or no such path.
            UnexpectedResponseError: The response is not a list of customers, or a page was repeated.
            ConfigurationError: An argument is invalid.
            OptimoveError: See `send`.
        """
        return _each(
            self.get_processed_campaign_customers_in_blocks(
                campaign_id,
                customer_attributes=customer_attributes,
                page_size=page_size,
                deadline=deadline,
                counter=counter,
                wait_for_customers=wait_for_customers,
                on_warning=on_warning,
            )
        )

    def get_processed_campaign_customers_in_blocks(
        self, campaign_id: int, **options: Unpack[CustomerOptions]
    ) -> Generator[list[models.CampaignCustomer], None, None]:
        """Yield the same customers in lists, some hundreds at a time, as they arrive.

        Lists cost a program less than customers one by one. Arguments and errors are those of
        `get_processed_campaign_customers`; the customers yielded before an error are valid.
        """
        from ..flows.paging import Paging  # not loaded by programs that read no customers

        return iterate_blocking(self._customers(Paging, campaign_id, **options))

    def get_customer_execution_details_by_campaign(
        self,
        campaign_id: int,
        *,
        channel_id: int | None = None,
        customer_attributes: Sequence[str] = (),
        page_size: int | None = operations.DEFAULT_PAGE_SIZE,
        deadline: Deadline | None = None,
        counter: RequestCounter | None = None,
        wait_for_customers: float | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> Generator[models.CustomerExecution, None, None]:
        """Yield the customers whom a campaign was sent to (GetCustomerExecutionDetailsByCampaign), once for each row.

        Read as a stream, with the arguments and errors of `get_processed_campaign_customers`. `reconcile` compares them
        with what was approved.

        Args:
            campaign_id: The `campaign_id` of the event of EventTypeID 13.
            channel_id: Only what this channel has sent; None for all.
            customer_attributes: Names of customer attributes to ask for.
            page_size: Rows per page; None for one request.
            deadline: The end of reading.
            counter: Counts the requests.
            wait_for_customers: Seconds for which an empty first page, or a 404 for it, is requested again.
            on_warning: Called with a text, without personal data, when the end is doubtful. Unset, it is logged.

        Raises:
            OptimoveError: See `get_processed_campaign_customers`.
        """
        return _each(
            self.get_customer_execution_details_by_campaign_in_blocks(
                campaign_id,
                channel_id=channel_id,
                customer_attributes=customer_attributes,
                page_size=page_size,
                deadline=deadline,
                counter=counter,
                wait_for_customers=wait_for_customers,
                on_warning=on_warning,
            )
        )

    def get_customer_execution_details_by_campaign_in_blocks(
        self, campaign_id: int, **options: Unpack[ExecutionOptions]
    ) -> Generator[list[models.CustomerExecution], None, None]:
        """Yield the same rows in lists, some hundreds at a time, as they arrive.

        Arguments and errors are those of `get_customer_execution_details_by_campaign`.
        """
        from ..flows.paging import ExecutionPaging  # not loaded by programs that read no customers

        return iterate_blocking(self._customers(ExecutionPaging, campaign_id, **options))

    def update_customer_promotion_status(
        self, campaign_id: int, statuses: Statuses, *, deadline: Deadline | None = None
    ) -> int:
        """Say which customers may get a scheduled campaign (UpdateCustomerPromotionStatus).

        They are sent in parts of 10,000, one after the other, and read from `statuses` as they are sent. Sending the
        same again is safe.

        Args:
            campaign_id: The campaign.
            statuses: `CustomerPromotionStatus` objects, or a dict of customer ids and booleans.
            deadline: The end of the call; with one, failed tries are retried until then. None: `timeout` seconds from
                now, for all parts together.

        Returns:
            How many customers Optimove has acknowledged. Nothing is sent, and it is 0, when there are none.

        Raises:
            ConfigurationError: The client has no `timezone`.
            PayloadError: A status is not a boolean, or an id is blank. Parts before it have been sent.
            DeadlineExceeded: There was no time left; `acknowledged` says how many customers Optimove acknowledged.
            OptimoveError: See `send`.
        """
        until = Deadline.after(self._config.timeout) if deadline is None else deadline
        flow = update_statuses(
            campaign_id, statuses, now=self._wall_clock(), deadline=until, urgent=deadline is not None
        )
        return run(flow, call=lambda operation: self.send(operation, deadline=until))

    def send(
        self,
        operation: Operation[T],
        *,
        deadline: Deadline | None = None,
        counter: RequestCounter | None = None,
        before_send: Callable[[], object] | None = None,
    ) -> T:
        """Send an operation, retrying failed tries according to the retry policy.

        Args:
            operation: One from `optimove_conditional_execution.operations`, or your own.
            deadline: The end of the whole call: waiting for the rate limit, all tries, all pauses. None: `timeout`
                seconds from now.
            counter: Counts the requests.
            before_send: Called before each request, retries included; raises `HeldBackError` to
                end the call.

        Raises:
            APIError: Optimove responded with an error; its subclasses say which.
            TransportError: No response was received.
            DeadlineExceeded: There was no time left.
            HeldBackError: `before_send` raised it; `request_sent` then includes earlier requests.
            ConfigurationError: The client is closed, or an endpoint of `Endpoints` is invalid.
        """
        return run_blocking(self._sender.send(operation, deadline, counter, before_send))

    def close(self) -> None:
        """Close the connections; an `http_client` of yours stays open."""
        self._is_closed = True
        run_blocking(self._sender.engine.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _each(blocks: Generator[list[C], None, None]) -> Generator[C, None, None]:
    with contextlib.closing(blocks):
        for block in blocks:
            yield from block
