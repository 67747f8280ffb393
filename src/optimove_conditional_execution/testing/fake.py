"""A stand-in for Optimove: keeps what Optimove keeps, answers what Optimove answers, and remembers everything."""

from __future__ import annotations

import time
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from optimove_conditional_execution.deadline import Clock
from optimove_conditional_execution.operations import DEFAULT_TIMEOUT_MS, ENDPOINTS, Endpoints
from optimove_conditional_execution.testing.scheduled import ScheduledHalf
from optimove_conditional_execution.testing.service import Setup
from optimove_conditional_execution.testing.triggered import TriggeredHalf


class FakeOptimove(TriggeredHalf, ScheduledHalf):
    """Optimove's side of triggered and scheduled campaigns, without IO.

    It speaks `Request -> Response` (`handle`), so it fits into both clients without sockets (`client`, `async_client`)
    and behind any server. For triggered campaigns it keeps webhooks and settings, signs notifications, holds answers
    against their deadline and keeps the first. For scheduled ones it keeps listeners, serves the customers of campaigns
    in pages and takes their statuses until clearance. It checks the API key and records every call; of a call with more
    than 64 KiB it leaves the body out. Safe for threads.

    What Optimove does not document is this fake's own choice:

    - An approval after the deadline gets 410, one for an unknown `request_uid` 404, a second answer 200 without effect.
    - A second listener for the same event type and channel replaces the first; unregistering one that is not there is a
      200.
    - Statuses after clearance get 200 and do not count. Of two statuses for one customer the last counts. Ids that the
      campaign does not have get 200 and do not count. An unknown campaign is a 404, an update without statuses a 400.
    """

    def __init__(
        self,
        *,
        api_key: str | SecretStr = "fake-api-key",
        secret: str | SecretStr | None = "fake-secret",  # noqa: S107 - a stand-in's secret protects nothing
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        base_url: str = "https://optimove.test",
        endpoints: Endpoints = ENDPOINTS,
        wall_clock: Clock = time.time,
        timezone: ZoneInfo | str = "UTC",
    ) -> None:
        """Start without webhooks, listeners and campaigns.

        Args:
            api_key: The only key that is let in.
            secret: What notifications are signed with, until UpdateWebhookSettings says otherwise; None signs nothing.
            timeout_ms: How long an answer may take, until UpdateWebhookSettings says otherwise.
            base_url: What the clients of `client` and `async_client` are told.
            endpoints: Methods and paths, as your tenant has them.
            wall_clock: Seconds since 1970.
            timezone: The zone of the time stamps that have none: those of listener events and status updates. An IANA
                name.
        """
        setup = Setup(_plain(api_key), base_url, endpoints, wall_clock, timezone)
        super().__init__(setup, secret=None if secret is None else _plain(secret), timeout_ms=timeout_ms)

    def __repr__(self) -> str:
        return (
            f"<FakeOptimove: {len(self.webhooks)} webhooks, {len(self.questions)} notifications, "
            f"{len(self.listeners)} listeners, {len(self.campaigns)} campaigns>"
        )


def _plain(secret: str | SecretStr) -> str:
    return secret if isinstance(secret, str) else secret.get_secret_value()
