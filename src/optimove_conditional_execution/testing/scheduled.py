"""The half of the stand-in for scheduled campaigns: listeners, customers in pages, statuses until clearance."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from optimove_conditional_execution.messages import Request, Response
from optimove_conditional_execution.models.listener import CAMPAIGN_READY
from optimove_conditional_execution.operations import Endpoint
from optimove_conditional_execution.testing.campaigns import Campaign, EmptyPage, make_campaign
from optimove_conditional_execution.testing.payloads import listener_request
from optimove_conditional_execution.testing.records import Delivery
from optimove_conditional_execution.testing.service import AsyncReceiver, Receiver, Route, Service, Setup
from optimove_conditional_execution.testing.wire import (
    decoded,
    error_response,
    is_number,
    is_timestamp,
    json_response,
    number,
    query_parameters,
)
from optimove_conditional_execution.validation import is_async

_MAX_STATUSES: Final = 10_000
_FIRST_CAMPAIGN: Final = 1_359


class ScheduledHalf(Service):
    """Keeps listeners, serves the customers of campaigns, and takes their statuses until clearance."""

    def __init__(self, setup: Setup) -> None:
        """Start without listeners and campaigns."""
        super().__init__(setup)
        self.listeners: dict[tuple[int, int | None], str] = {}
        self.campaigns: dict[int, Campaign] = {}
        self._campaign_ids = itertools.count(_FIRST_CAMPAIGN)
        endpoints = self._endpoints
        for name, answer in (
            ("register_event_listener", self._register_event_listener),
            ("unregister_event_listener", self._unregister_event_listener),
            ("get_registered_event_listeners", self._get_registered_event_listeners),
            ("get_processed_campaign_customers", self._get_processed_campaign_customers),
            ("update_customer_promotion_status", self._update_customer_promotion_status),
        ):
            endpoint: Endpoint = getattr(endpoints, name)
            prefixed = Endpoint(endpoint.method, endpoints.path_prefix + endpoint.path)
            # Optimove's documentation writes these paths in more than one case.
            self._routes.append(Route(name, prefixed, answer, any_case=True))

    # ---- the side of Optimove

    def add_campaign(
        self,
        customers: int | Iterable[str | Mapping[str, Any]],
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
    ) -> Campaign:
        """Process a scheduled campaign, so that it is on hold until its clearance. Nobody is told yet: see `announce`.

        Args:
            customers: How many, who are then called C0000001 and on and cost no memory; or their ids; or whole rows,
                which are served as they are. `CustomerAttributes` of such a row may be a mapping, from which those that
                are asked for are taken.
            campaign_id: Its number; None takes the next. The same number again replaces the campaign.
            lead_seconds: Seconds until clearance, rounded up to a whole second of the clock; 0 or less has passed.
            duration: Its `CampaignDuration`.
            page_cap: Rows that the server gives at most, whatever `$top` says.
            page_sizes: Rows that the answers have at most, in turn and over again, such as `(100, 1)`.
            ignores_paging: Whether every answer has all rows, whatever `$top` and `$skip` say.
            channels: In how many rows each customer stands: one a channel, all of the first channel first.
            empty_as: What stands where no rows are left: a body `[]` or `null`, an empty one, a 204 or a 404.
            control_every: Each so manieth customer is in the control group (`ActionID` 1); None for none. Rows of your
                own stay as they are.

        Raises:
            ConfigurationError: An argument makes no sense.
        """
        with self._lock:
            made = next(self._campaign_ids) if campaign_id is None else campaign_id
            campaign = make_campaign(
                made,
                customers,
                now_ms=self._now_ms(),
                lead_seconds=lead_seconds,
                duration=duration,
                timezone=self.timezone,
                page_cap=page_cap,
                page_sizes=page_sizes,
                ignores_paging=ignores_paging,
                channels=channels,
                empty_as=empty_as,
                control_every=control_every,
            )
            self.campaigns[made] = campaign
            return campaign

    def ready(self, campaign: Campaign, *, token: str | None = None) -> list[Delivery]:
        """Return the event of a campaign for each registered listener of EventTypeID 5, to be posted by you.

        Args:
            campaign: From `add_campaign`.
            token: Added to the URL's query; None where the registered URL holds it already.
        """
        with self._lock:
            urls = [url for (event_type, _), url in self.listeners.items() if event_type == CAMPAIGN_READY]
        return [listener_delivery(url, campaign, token=token) for url in urls]

    def announce(self, receiver: Receiver, campaign: Campaign, *, token: str | None = None) -> Response:
        """Post the event of a campaign to a listener in this process, and return its answer.

        Args:
            receiver: Your `ListenerReceiver`.
            campaign: From `add_campaign`.
            token: The listener's token.

        Raises:
            TypeError: The receiver is an async one.
        """
        if is_async(receiver.handle):
            raise TypeError("announce needs a ListenerReceiver; for AsyncListenerReceiver use: await aannounce(...).")
        return receiver.handle(listener_request(campaign.payload, token=token))

    async def aannounce(self, receiver: AsyncReceiver, campaign: Campaign, *, token: str | None = None) -> Response:
        """Do what `announce` does, for an `AsyncListenerReceiver`.

        Raises:
            TypeError: The receiver is not an async one.
        """
        if not is_async(receiver.handle):
            raise TypeError("aannounce needs an AsyncListenerReceiver; for ListenerReceiver use announce(...).")
        return await receiver.handle(listener_request(campaign.payload, token=token))

    # ---- the API

    def _register_event_listener(self, request: Request, _: str) -> Response:
        body = decoded(request)
        url, key = body.get("ListenerURL"), _listener_key(body)
        if key is None or not isinstance(url, str) or not url:
            return error_response(400, "Bad Request", "EventTypeID must be a number, ListenerURL a string.")
        if key[0] == CAMPAIGN_READY and key[1] is not None:
            return error_response(400, "Bad Request", "EventTypeID 5 takes no ChannelID.")
        self.listeners[key] = url
        return Response(200)

    def _unregister_event_listener(self, request: Request, _: str) -> Response:
        key = _listener_key(decoded(request))
        if key is None:
            return error_response(400, "Bad Request", "EventTypeID must be a number.")
        self.listeners.pop(key, None)
        return Response(200)

    def _get_registered_event_listeners(self, _request: Request, _: str) -> Response:
        listed = []
        for (event_type, channel), url in self.listeners.items():
            listener: dict[str, Any] = {"EventTypeID": event_type, "ListenerURL": url}
            listed.append(listener if channel is None else {**listener, "ChannelID": channel})
        return json_response(200, listed)

    def _get_processed_campaign_customers(self, request: Request, _: str) -> Response:
        query = query_parameters(request)
        try:
            campaign_id, top = number(query.get("campaignid")), number(query.get("$top"))
            skip = number(query.get("$skip")) or 0
        except ValueError:
            return error_response(400, "Bad Request", "CampaignID, $top and $skip must be numbers.")
        if campaign_id is None or top == 0:
            return error_response(400, "Bad Request", "CampaignID is missing, or $top is 0.")
        campaign = self.campaigns.get(campaign_id)
        if campaign is None:
            return error_response(404, "Not Found", "There is no such campaign.")
        attributes = [name for name in query.get("customerattributes", "").split(";") if name]
        return campaign.page(skip=skip, top=top, attributes=attributes)

    def _update_customer_promotion_status(self, request: Request, _: str) -> Response:
        body = decoded(request)
        campaign_id, timestamp = body.get("CampaignID"), body.get("TimeStamp")
        statuses = _statuses(body.get("PromosUpdated"))
        if not is_number(campaign_id) or not is_timestamp(timestamp) or not statuses:
            return error_response(400, "Bad Request", "The update is not of the documented shape.")
        if len(statuses) > _MAX_STATUSES:
            return error_response(400, "Bad Request", f"At most {_MAX_STATUSES} customers in a call.")
        campaign = self.campaigns.get(campaign_id)
        if campaign is None:
            return error_response(404, "Not Found", "There is no such campaign.")
        campaign.take(statuses, timestamp=timestamp, at_ms=self._now_ms())
        return Response(200)


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


def _listener_key(body: Mapping[str, Any]) -> tuple[int, int | None] | None:
    event_type, channel = body.get("EventTypeID"), body.get("ChannelID")
    if not is_number(event_type) or not (channel is None or is_number(channel)):
        return None
    return event_type, channel


def _statuses(given: object) -> list[tuple[str, bool]]:
    """Return the statuses of an update; none at all when one of them is not of the documented shape."""
    statuses: list[tuple[str, bool]] = []
    for each in given if isinstance(given, list) else ():
        customer_id = each.get("CustomerID") if isinstance(each, dict) else None
        status = each.get("Status") if isinstance(each, dict) else None
        if not isinstance(customer_id, str) or not customer_id.strip() or not isinstance(status, bool):
            return []
        statuses.append((customer_id, status))
    return statuses
