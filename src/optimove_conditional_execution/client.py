"""The clients: one method a call to Optimove, and `send` for any other operation."""

from __future__ import annotations

import abc
import os
from types import TracebackType
from typing import Self, TypeVar
from zoneinfo import ZoneInfo

from optimove_conditional_execution import operations
from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.drivers import arun, run
from optimove_conditional_execution.flows.ensure import ensure_webhook
from optimove_conditional_execution.models.approval import Approval
from optimove_conditional_execution.models.webhook import TenantSettings, Webhook
from optimove_conditional_execution.operations import Endpoints, Operation
from optimove_conditional_execution.settings import ClientSettings
from optimove_conditional_execution.transport.exchange import AsyncEngine, Engine
from optimove_conditional_execution.transport.limiter import RateLimit
from optimove_conditional_execution.transport.retry import RetryPolicy, load
from optimove_conditional_execution.transport.sending import Rules, asend, send

T = TypeVar("T")


class _Client(abc.ABC):
    """What both clients are built from."""

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timezone: str | ZoneInfo | None = None,
        timeout: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),
        rate_limit: RateLimit | None = RateLimit(50, per=10.0),
        approval_rate_limit: RateLimit | None = None,
        endpoints: Endpoints = Endpoints(),
        http_client: object | None = None,
    ) -> None:
        """Check the settings and open a connection pool; nothing is sent.

        Args:
            api_key: The tenant's key; unset, the environment variable `OPTIMOVE_API_KEY`.
            base_url: The tenant's API server, such as `https://api5.optimove.net`; unset, `OPTIMOVE_BASE_URL`.
            timezone: The zone of Optimove's time stamps that have none, as an IANA name; unset, `OPTIMOVE_TIMEZONE`.
                Triggered campaigns have none of those.
            timeout: Seconds for a whole call: waiting for the rate limit, all tries, all pauses. A `deadline=` replaces
                it.
            retry: Which failed tries are repeated, and how long a single one may take.
            rate_limit: For every call but approvals; None for no limit.
            approval_rate_limit: For approvals. None by default, since Optimove does not say whether they are limited.
            endpoints: Methods and paths, for tenants where they differ.
            http_client: Your own httpx client (proxies, CA bundles, event hooks). It stays yours to close.

        Raises:
            ConfigurationError: A setting is missing or makes no sense; the message names it.
        """
        settings = ClientSettings.of(api_key=api_key, base_url=base_url, timezone=timezone, environment=os.environ)
        self._rules = Rules(
            settings,
            endpoints=endpoints,
            timeout=timeout,
            retry=retry,
            rate_limit=rate_limit,
            approval_rate_limit=approval_rate_limit,
        )
        load()
        self._connect(http_client)

    @abc.abstractmethod
    def _connect(self, http_client: object | None) -> None:
        """Set up the HTTP engine."""

    @property
    def timezone(self) -> ZoneInfo | None:
        """The zone of Optimove's time stamps that have none, or None when it was not given."""
        return self._rules.settings.timezone

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._rules.settings.base_url}>"


class OptimoveClient(_Client):
    """Optimove's Conditional Execution API, for threads.

    One object holds one connection pool and one TLS context: make one, use it from all threads, and close it, best with
    `with OptimoveClient() as client:`.
    """

    def _connect(self, http_client: object | None) -> None:
        # Importing httpx takes as long as importing all the rest, and pays only once a client is made.
        from optimove_conditional_execution.transport.http import HttpEngine

        self._engine: Engine = HttpEngine(http_client)

    def create_webhook(self, url: str) -> Webhook:
        """Register a URL for the notifications of triggered campaigns (CreateWebhook).

        It is not repeated after an unknown outcome, since that could register the URL twice: see `ensure_webhook`.

        Args:
            url: Where Optimove shall post notifications.

        Raises:
            OptimoveError: See `send`.
        """
        return self.send(operations.create_webhook(url))

    def get_webhooks(self) -> list[Webhook]:
        """List the registered webhooks (GetWebhooks).

        Raises:
            OptimoveError: See `send`.
        """
        return self.send(operations.get_webhooks())

    def get_webhook_by_id(self, webhook_id: str) -> Webhook:
        """Look up a webhook (GetWebhookById).

        Args:
            webhook_id: The `id` of a `Webhook`.

        Raises:
            NotFoundError: There is none of that id.
            OptimoveError: See `send`.
        """
        return self.send(operations.get_webhook_by_id(webhook_id))

    def delete_webhook(self, webhook_id: str) -> None:
        """Stop notifications to a webhook (DeleteWebhook).

        Args:
            webhook_id: The `id` of a `Webhook`.

        Raises:
            NotFoundError: There is none of that id.
            OptimoveError: See `send`.
        """
        self.send(operations.delete_webhook(webhook_id))

    def ensure_webhook(self, url: str) -> Webhook:
        """Return the webhook of a URL, creating it only when there is none.

        It can be called at every start of your service. When the outcome of creating is unknown, the list is asked
        again before the error is raised.

        Args:
            url: Where Optimove shall post notifications, absolute; compared to the letter.

        Raises:
            ConfigurationError: The URL is not absolute.
            OptimoveError: See `send`.
        """
        deadline = Deadline.after(self._rules.timeout)
        return run(ensure_webhook(url), call=lambda operation: self.send(operation, deadline=deadline))

    def update_webhook_settings(self, *, timeout_ms: int = 5_000, secret: str | None = None) -> TenantSettings:
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
            deadline: Until when it may take; with one, failed tries are repeated until then.

        Raises:
            OptimoveError: See `send`. When Optimove did not answer with a 2xx, the approval may be lost.
        """
        self.send(operations.send_webhook_approval(approval), deadline=deadline)

    def send(self, operation: Operation[T], *, deadline: Deadline | None = None) -> T:
        """Send an operation, repeating failed tries as the retry policy says.

        Args:
            operation: One from `optimove_conditional_execution.operations`, or your own.
            deadline: The end of the whole call: waiting for the rate limit, all tries, all pauses. None: `timeout`
                seconds from now.

        Raises:
            APIError: Optimove answered with an error; its subclasses tell which.
            TransportError: No answer came.
            DeadlineExceeded: There was no time left.
            ConfigurationError: The client is closed, or an endpoint of `Endpoints` makes no sense.
        """
        return send(self._rules, self._engine, operation, deadline)

    def close(self) -> None:
        """Close the connections; an `http_client` of yours stays open."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncOptimoveClient(_Client):
    """Optimove's Conditional Execution API, for asyncio.

    One object holds one connection pool and one TLS context: make one, use it from all tasks of one event loop, and
    close it, best with `async with AsyncOptimoveClient() as client:`.
    """

    def _connect(self, http_client: object | None) -> None:
        # Importing httpx takes as long as importing all the rest, and pays only once a client is made.
        from optimove_conditional_execution.transport.http import AsyncHttpEngine

        self._engine: AsyncEngine = AsyncHttpEngine(http_client)

    async def create_webhook(self, url: str) -> Webhook:
        """Register a URL for the notifications of triggered campaigns (CreateWebhook).

        It is not repeated after an unknown outcome, since that could register the URL twice: see `ensure_webhook`.

        Args:
            url: Where Optimove shall post notifications.

        Raises:
            OptimoveError: See `send`.
        """
        return await self.send(operations.create_webhook(url))

    async def get_webhooks(self) -> list[Webhook]:
        """List the registered webhooks (GetWebhooks).

        Raises:
            OptimoveError: See `send`.
        """
        return await self.send(operations.get_webhooks())

    async def get_webhook_by_id(self, webhook_id: str) -> Webhook:
        """Look up a webhook (GetWebhookById).

        Args:
            webhook_id: The `id` of a `Webhook`.

        Raises:
            NotFoundError: There is none of that id.
            OptimoveError: See `send`.
        """
        return await self.send(operations.get_webhook_by_id(webhook_id))

    async def delete_webhook(self, webhook_id: str) -> None:
        """Stop notifications to a webhook (DeleteWebhook).

        Args:
            webhook_id: The `id` of a `Webhook`.

        Raises:
            NotFoundError: There is none of that id.
            OptimoveError: See `send`.
        """
        await self.send(operations.delete_webhook(webhook_id))

    async def ensure_webhook(self, url: str) -> Webhook:
        """Return the webhook of a URL, creating it only when there is none.

        It can be called at every start of your service. When the outcome of creating is unknown, the list is asked
        again before the error is raised.

        Args:
            url: Where Optimove shall post notifications, absolute; compared to the letter.

        Raises:
            ConfigurationError: The URL is not absolute.
            OptimoveError: See `send`.
        """
        deadline = Deadline.after(self._rules.timeout)
        return await arun(ensure_webhook(url), call=lambda operation: self.send(operation, deadline=deadline))

    async def update_webhook_settings(self, *, timeout_ms: int = 5_000, secret: str | None = None) -> TenantSettings:
        """Set how long Optimove waits for answers, and what it signs with (UpdateWebhookSettings).

        The settings hold for all webhooks of the tenant.

        Args:
            timeout_ms: Milliseconds. Give it even when you only change the secret: it is always sent.
            secret: The new secret; None leaves the field out of the request. Whether that clears or keeps the old one
                is not documented.

        Raises:
            OptimoveError: See `send`.
        """
        return await self.send(operations.update_webhook_settings(timeout_ms=timeout_ms, secret=secret))

    async def send_webhook_approval(self, approval: Approval, *, deadline: Deadline | None = None) -> None:
        """Answer a notification (SendWebhookApproval). The first answer counts.

        Args:
            approval: The answer.
            deadline: Until when it may take; with one, failed tries are repeated until then.

        Raises:
            OptimoveError: See `send`. When Optimove did not answer with a 2xx, the approval may be lost.
        """
        await self.send(operations.send_webhook_approval(approval), deadline=deadline)

    async def send(self, operation: Operation[T], *, deadline: Deadline | None = None) -> T:
        """Send an operation, repeating failed tries as the retry policy says.

        Args:
            operation: One from `optimove_conditional_execution.operations`, or your own.
            deadline: The end of the whole call: waiting for the rate limit, all tries, all pauses. None: `timeout`
                seconds from now.

        Raises:
            APIError: Optimove answered with an error; its subclasses tell which.
            TransportError: No answer came.
            DeadlineExceeded: There was no time left.
            ConfigurationError: The client is closed, or an endpoint of `Endpoints` makes no sense.
        """
        return await asend(self._rules, self._engine, operation, deadline)

    async def aclose(self) -> None:
        """Close the connections; an `http_client` of yours stays open."""
        await self._engine.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
