"""Simulator of Optimove: its state, its responses, and a record of all requests."""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from ..client import AsyncOptimoveClient, OptimoveClient
from ..errors import ConfigurationError
from ..messages import Response
from ..models.events import CAMPAIGN_READY
from ..receivers.base import Receiver
from ..signature import UNSIGNED, Unsigned
from ..transport.http import local_async_client, local_client
from ..validation import integer, is_async
from .campaigns import EMPTY_PAGES, Campaign, Customer, EmptyPage, Rows
from .payloads import Delivery, listener_request, signed_request
from .payloads import notification as make_notification
from .service import Result, SentNotification, Service


class FakeOptimove(Service):
    """Simulator of Optimove for triggered and scheduled campaigns, without IO.

    Its `handle` takes a `Request` and returns a `Response`, so it works with both clients without sockets (`client`,
    `async_client`) and behind any server. For triggered campaigns it stores webhooks and settings, signs notifications,
    checks the deadline of answers and keeps the first. For scheduled ones it stores listeners, serves the customers of
    campaigns in pages and takes their statuses until clearance. It checks the API key and records every call, without
    bodies of more than 64 KiB. Safe for threads.

    What Optimove does not document is the simulator's own choice:

    - An approval after the deadline gets 410, one for an unknown `request_uid` 404, a second answer 200 without effect.
    - A second listener for the same event type and channel replaces the first; unregistering one that is not there is a
      200.
    - Statuses after clearance get 200 and do not count. Of two statuses for one customer the last counts. Ids that the
      campaign does not have get 200 and do not count. An unknown campaign is a 404, an update without statuses a 400.
    """

    def __repr__(self) -> str:
        return (
            f"<FakeOptimove: {len(self.webhooks)} webhooks, {len(self.notifications)} notifications, "
            f"{len(self.listeners)} listeners, {len(self.campaigns)} campaigns>"
        )

    def client(self, **options: Any) -> OptimoveClient:
        """Return a client that calls this simulator without sockets, in its time zone.

        Args:
            options: Further arguments of `OptimoveClient`.
        """
        return OptimoveClient(**{"http_client": local_client(self.handle), **self._settings(), **options})

    def async_client(self, **options: Any) -> AsyncOptimoveClient:
        """Return an async client that calls this simulator without sockets, in its time zone.

        Args:
            options: Further arguments of `AsyncOptimoveClient`.
        """
        return AsyncOptimoveClient(**{"http_client": local_async_client(self.handle), **self._settings(), **options})

    def _settings(self) -> dict[str, Any]:
        return {
            "api_key": self.api_key,
            "base_url": self.base_url,
            "timezone": self.timezone,
            "endpoints": self._endpoints,
        }

    # ---- triggered campaigns

    @property
    def secrets(self) -> str | Literal[Unsigned.UNSIGNED]:
        """What a receiver takes as `secrets=` to accept this simulator's notifications."""
        return UNSIGNED if self.secret is None else self.secret

    def trigger(self, user_id: str | int = "C234638", **options: Any) -> tuple[SentNotification, list[Delivery]]:
        """Make a campaign fire for one customer.

        Args:
            user_id: The customer.
            options: Further arguments of `testing.notification`.

        Returns:
            The question, and a delivery for each registered webhook. Nothing is sent: post them, or use `notify`.
        """
        with self._lock:
            payload, question = self._made(user_id, options)
            return question, [self.delivery(url, payload) for url in self.webhooks.values()]

    def delivery(self, url: str, payload: Mapping[str, Any] | bytes) -> Delivery:
        """Return a notification for one URL, signed with the current secret.

        Args:
            url: Where to.
            payload: The notification, from `testing.notification`.
        """
        return Delivery(url, signed_request(payload, secret=self.secret, path=urlsplit(url).path or "/"))

    def expect(self, payload: Mapping[str, Any]) -> SentNotification:
        """Accept answers to a notification that you send yourself.

        Args:
            payload: The notification, from `testing.notification`.

        Returns:
            The question; the same one when the notification is sent again.
        """
        with self._lock:
            uid = str(payload["request_uid"])  # a number is as good
            if uid not in self.notifications:
                self.notifications[uid] = SentNotification(
                    uid,
                    str(payload["user"]["user_id"]),
                    int(payload["timestamp"]),  # recorded ones may have digits in a string
                    int(payload["conditional_execution_approval_deadline"]),
                )
            return self.notifications[uid]

    def notify(self, receiver: Receiver[Response], user_id: str | int = "C234638", **options: Any) -> SentNotification:
        """Send a notification to a webhook in this process and return its result.

        Args:
            receiver: Your `WebhookReceiver`.
            user_id: The customer.
            options: Further arguments of `testing.notification`.

        Raises:
            TypeError: The receiver is an async one.
        """
        _check_flavour(receiver, "WebhookReceiver", "notify", awaited=False)
        payload, question = self._made(user_id, options)
        question.responses.append(receiver.handle(signed_request(payload, secret=self.secret)))
        return question

    async def anotify(
        self, receiver: Receiver[Awaitable[Response]], user_id: str | int = "C234638", **options: Any
    ) -> SentNotification:
        """Same as `notify`, for an `AsyncWebhookReceiver`.

        Raises:
            TypeError: The receiver is not an async one.
        """
        _check_flavour(receiver, "WebhookReceiver", "notify", awaited=True)
        payload, question = self._made(user_id, options)
        question.responses.append(await receiver.handle(signed_request(payload, secret=self.secret)))
        return question

    def result(self, request_uid: str) -> Result:
        """Return the present result of a notification.

        Args:
            request_uid: Its name.

        Raises:
            KeyError: It was never sent.
        """
        with self._lock:
            question = self.notifications[request_uid]
            if question.answer is not None:
                return "approved" if question.answer.approved else "denied"
            return "pending" if self._now_ms() <= question.deadline_ms else "unanswered"

    def _made(self, user_id: str | int, options: Mapping[str, Any]) -> tuple[dict[str, Any], SentNotification]:
        with self._lock:
            now = {"timeout_ms": self.timeout_ms, "timestamp_ms": self._now_ms()}
            payload = make_notification(user_id, **{**now, **options})
            return payload, self.expect(payload)

    # ---- scheduled campaigns

    def add_campaign(
        self,
        customers: int | Iterable[Customer],
        *,
        campaign_id: int | None = None,
        lead_seconds: float = 1_800.0,
        duration: int = 7,
        page_cap: int | None = None,
        page_sizes: Sequence[int] = (),
        ignores_paging: bool = False,
        channels: int = 1,
        empty_as: EmptyPage = "[]",
        control_every: int | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Campaign:
        """Process a scheduled campaign, so that it is on hold until its clearance. No event is sent: see `announce`.

        Args:
            customers: How many, who are then called C0000001 and on and cost no memory; or their ids, of which numbers
                are served as numbers; or whole rows, which are served as they are. `CustomerAttributes` of such a row
                may be a mapping, from which those that are asked for are taken.
            campaign_id: Its number; None takes the next. The same number again replaces the campaign.
            lead_seconds: Seconds until clearance, rounded up to a whole second of the clock; 0 or less has passed.
            duration: Its `CampaignDuration`.
            page_cap: Rows that the server returns at most, even if `$top` is larger.
            page_sizes: Rows that the answers have at most, in turn and over again, such as `(100, 1)`.
            ignores_paging: Whether every response has all rows and `$top` and `$skip` have no effect.
            channels: In how many rows each customer stands: one a channel, all of the first channel first.
            empty_as: The response where no rows are left: a body `[]` or `null`, an empty one, a 204 or a 404.
            control_every: Every nth customer is in the control group (`ActionID` 1); None for none. Rows of your
                own stay as they are.
            details: Fields of GetCampaignDetails, such as `{"Notes": "vip"}`, in place of those of a usual campaign.

        Raises:
            ConfigurationError: An argument is invalid.
        """
        for name, given in (("page_cap", page_cap), *(("page_sizes", size) for size in page_sizes)):
            if given is not None:
                integer(name, given)
        if empty_as not in EMPTY_PAGES:
            raise ConfigurationError(f"empty_as must be one of {', '.join(EMPTY_PAGES)}.")
        with self._lock:
            now_ms = self._now_ms()
            campaign = Campaign(
                next(self._campaign_ids) if campaign_id is None else campaign_id,
                now_ms,
                # Its event tells whole seconds; rounded up, so that the time is never shorter than asked for.
                math.ceil((now_ms + lead_seconds * 1000) / 1000) * 1000,
                duration,
                self.timezone,
                Rows(customers, channels=channels, control_every=control_every),
                page_cap,
                itertools.cycle(tuple(page_sizes)) if page_sizes else None,
                ignores_paging,
                EMPTY_PAGES[empty_as],
                dict(details or {}),
            )
            self.campaigns[campaign.campaign_id] = campaign
            return campaign

    def execute(self, campaign: Campaign, *, unapproved: Iterable[str] = (), dropped: Iterable[str] = ()) -> None:
        """Send a campaign to its recipients, so that GetCustomerExecutionDetailsByCampaign lists them.

        Who was approved until now and is not in the control group gets it, but for the faults. No event is sent.

        Args:
            campaign: From `add_campaign`.
            unapproved: A fault: customers who get it although nobody approved them; they need not be of the campaign.
            dropped: A fault: approved customers who do not get it.
        """
        with self._lock:
            campaign.execute(unapproved=unapproved, dropped=dropped)

    def ready(self, campaign: Campaign, *, token: str | None = None) -> list[Delivery]:
        """Return the event of a campaign for each registered listener of EventTypeID 5, to be posted by you.

        Args:
            campaign: From `add_campaign`.
            token: Added to the URL's query; None where the registered URL has it already.
        """
        with self._lock:
            urls = [url for (event_type, _), url in self.listeners.items() if event_type == CAMPAIGN_READY]
        return [listener_delivery(url, campaign, token=token) for url in urls]

    def announce(self, receiver: Receiver[Response], campaign: Campaign, *, token: str | None = None) -> Response:
        """Post the event of a campaign to a listener in this process, and return its answer.

        Args:
            receiver: Your `ListenerReceiver`.
            campaign: From `add_campaign`.
            token: The listener's token.

        Raises:
            TypeError: The receiver is an async one.
        """
        _check_flavour(receiver, "ListenerReceiver", "announce", awaited=False)
        return receiver.handle(listener_request(campaign.payload, token=token))

    async def aannounce(
        self, receiver: Receiver[Awaitable[Response]], campaign: Campaign, *, token: str | None = None
    ) -> Response:
        """Same as `announce`, for an `AsyncListenerReceiver`.

        Raises:
            TypeError: The receiver is not an async one.
        """
        _check_flavour(receiver, "ListenerReceiver", "announce", awaited=True)
        return await receiver.handle(listener_request(campaign.payload, token=token))


def listener_delivery(url: str, campaign: Campaign, *, token: str | None = None) -> Delivery:
    """Return the event of a campaign for one URL.

    Args:
        url: Where to. One that was registered percent-encoded, as older programs do, is decoded.
        campaign: From `FakeOptimove.add_campaign`.
        token: Added to the URL's query.
    """
    if "://" not in url:
        url = unquote(url)
    parts = urlsplit(url)
    request = listener_request(campaign.payload, token=token, path=parts.path or "/", query=parts.query)
    return Delivery(parts._replace(path=request.path, query=request.query, fragment="").geturl(), request)


def _check_flavour(receiver: Receiver[Any], kind: str, method: str, *, awaited: bool) -> None:
    if awaited and not is_async(receiver.handle):
        raise TypeError(f"a{method} needs an Async{kind}; for {kind} use {method}(...).")
    if not awaited and is_async(receiver.handle):
        raise TypeError(f"{method} needs a {kind}; for Async{kind} use: await a{method}(...).")
