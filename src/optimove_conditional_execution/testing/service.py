"""The simulator's API: key, routes, the calls, and a record of the requests.

Separate from `FakeOptimove`: this is the server that clients call, that is what tests call.
"""

from __future__ import annotations

import datetime as dt
import hmac
import itertools
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, unquote
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, ValidationError

from ..deadline import Clock, zone_of
from ..errors import PayloadError
from ..fork import ForkLock
from ..messages import Request, Response
from ..models.approval import Approval
from ..models.events import CAMPAIGN_READY
from ..operations import DEFAULT_TIMEOUT_MS, ENDPOINTS, MAX_STATUSES, Endpoint, Endpoints
from ..operations.endpoints import PREFIXED
from .campaigns import Campaign
from .payloads import TIMESTAMP

Result = Literal["pending", "approved", "denied", "unanswered"]

_MAX_BODY: Final = 8_388_608
"""Bytes: ten thousand statuses with the longest ids that are likely."""

_KEPT_BODY: Final = 65_536
"""Bytes of a body that is remembered: a hundred full updates would take 40 MB."""

_FIRST_CAMPAIGN: Final = 1_359
_NUMBER: Final = re.compile("[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Call:
    """A request that the simulator has answered.

    Attributes:
        operation: The call's name, such as `create_webhook`; empty for an unknown path.
        request: The request.
        status: The status of the response.
        at_ms: When, in milliseconds since 1970.
    """

    operation: str
    request: Request
    status: int
    at_ms: int


@dataclass(slots=True)
class SentNotification:
    """A notification that the simulator has sent, and the answers to it.

    Attributes:
        request_uid: Its name.
        user_id: The customer.
        sent_ms: When it was made, in milliseconds since 1970.
        deadline_ms: Until when an answer counts.
        answer: The first answer that came in time; None when none did.
        answered_ms: When it came.
        ignored: Answers that did not count: later ones, and late ones.
        responses: What the webhooks answered over HTTP, in order.
    """

    request_uid: str
    user_id: str
    sent_ms: int
    deadline_ms: int
    answer: Approval | None = None
    answered_ms: int | None = None
    ignored: list[Approval] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)

    @property
    def approved(self) -> bool:
        """Whether the customer gets the campaign; false without an answer."""
        return self.answer is not None and self.answer.approved

    @property
    def latency_ms(self) -> int | None:
        """Milliseconds from notification to answer; None without one."""
        return None if self.answered_ms is None else self.answered_ms - self.sent_ms


# The bodies of requests, as Optimove documents them.


def _check_timestamp(value: str) -> str:
    dt.datetime.strptime(value, TIMESTAMP)
    return value


_Text = Annotated[str, StringConstraints(min_length=1)]


class _Body(BaseModel):
    model_config = ConfigDict(strict=True)


class _WebhookBody(_Body):
    url: _Text


class _SettingsBody(_Body):
    timeout: int = Field(ge=1)
    secret: str | None = None


class _ListenerBody(_Body):
    EventTypeID: int
    ChannelID: int | None = None


class _RegisterBody(_ListenerBody):
    ListenerURL: _Text


class _Status(_Body):
    CustomerID: str = Field(pattern=r"\S")
    Status: bool


class _UpdateBody(_Body):
    CampaignID: int
    TimeStamp: Annotated[str, AfterValidator(_check_timestamp)]
    PromosUpdated: list[_Status] = Field(min_length=1, max_length=MAX_STATUSES)


class Service:
    """An API without IO: `Request -> Response`, with a record of what was called. Safe for threads.

    A call is answered by the method of its name.

    Attributes:
        api_key: The only key that is accepted.
        secret: What notifications are signed with; None signs nothing.
        timeout_ms: How long an answer may take.
        base_url: The base URL of its clients.
        timezone: The zone of time stamps that have none.
        calls: Every request so far.
        webhooks: URLs by id.
        notifications: Those that were sent, by `request_uid`.
        listeners: URLs by event type and channel.
        campaigns: Campaigns by number.
    """

    def __init__(
        self,
        *,
        api_key: str | SecretStr = "fake-api-key",
        secret: str | SecretStr | None = "fake-secret",  # noqa: S107 - a simulator's secret protects nothing
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        base_url: str = "https://optimove.test",
        endpoints: Endpoints = ENDPOINTS,
        wall_clock: Clock = time.time,
        timezone: ZoneInfo | str = "UTC",
        numeric_ids: bool = False,
    ) -> None:
        """Start without webhooks, listeners and campaigns.

        Args:
            api_key: The only key that is accepted.
            secret: What notifications are signed with, until UpdateWebhookSettings changes it; None signs nothing.
            timeout_ms: How long an answer may take, until UpdateWebhookSettings changes it.
            base_url: The base URL of the clients that `client` and `async_client` return.
            endpoints: Methods and paths, as your tenant has them.
            wall_clock: Seconds since 1970.
            timezone: The zone of the time stamps that have none: those of listener events and status updates. An IANA
                name.
            numeric_ids: Whether the ids of webhooks are whole numbers; Optimove's type is not documented.
        """
        self.api_key = _plain(api_key)
        self.secret = None if secret is None else _plain(secret)
        self.timeout_ms = timeout_ms
        self.base_url = base_url
        self.timezone = zone_of(timezone)
        self.calls: list[Call] = []
        self.webhooks: dict[str, str] = {}
        self.notifications: dict[str, SentNotification] = {}
        self.listeners: dict[tuple[int, int | None], str] = {}
        self.campaigns: dict[int, Campaign] = {}
        self._endpoints = endpoints
        self._wall_clock = wall_clock
        self._lock = ForkLock(threading.RLock)
        self._planned: deque[Response] = deque()
        self._numeric_ids = numeric_ids
        self._made_ids = 0
        self._campaign_ids = itertools.count(_FIRST_CAMPAIGN)
        self._routes: list[tuple[str, str, re.Pattern[str]]] = []
        for name, endpoint in endpoints.table().items():
            self._add_route(name, endpoint)

    @property
    def max_body(self) -> int:
        """Bytes of a request at most, for the adapters."""
        return _MAX_BODY

    def too_large(self) -> Response:
        """Return the answer to a longer body."""
        return _error(413, "The body is too large.")

    def handle(self, request: Request) -> Response:
        """Answer a call to Optimove's API."""
        with self._lock:
            name, response = self._routed(request)
            if self._planned:
                response = self._planned.popleft()
            if len(request.body) > _KEPT_BODY:
                request = Request(request.method, request.path, request.query, request.headers)
            self.calls.append(Call(name, request, response.status, self._now_ms()))
            return response

    def answer_next(self, *responses: Response) -> None:
        """Answer the next calls with these responses instead; the calls still change the simulator's state.

        Args:
            responses: One for each of the next calls, such as `Response(503)`.
        """
        with self._lock:
            self._planned.extend(responses)

    def calls_of(self, operation: str) -> list[Call]:
        """Return the recorded calls of one kind, such as `send_webhook_approval`."""
        with self._lock:
            return [call for call in self.calls if call.operation == operation]

    def _add_route(self, name: str, endpoint: Endpoint) -> None:
        """Answer a call with the method of its name, which gets the request and the path's parameter."""
        path = re.sub(r"\\\{\w+\\\}", "([^/]+)", re.escape(endpoint.path))
        # Optimove's documentation writes the paths of scheduled campaigns in more than one case.
        flags = re.IGNORECASE if name in PREFIXED else 0
        self._routes.append((name, endpoint.method, re.compile(path, flags)))

    def _now_ms(self) -> int:
        return round(self._wall_clock() * 1000)

    def _routed(self, request: Request) -> tuple[str, Response]:
        keys = request.header_values("x-api-key")
        if len(keys) != 1 or not hmac.compare_digest(keys[0].encode(), self.api_key.encode()):
            return "", _error(401, "The API key is missing or wrong.")
        fitting = [
            (name, method, found) for name, method, path in self._routes if (found := path.fullmatch(request.path))
        ]
        for name, method, found in fitting:
            if method == request.method:
                answer: Callable[[Request, str], Response] = getattr(self, f"_{name}")
                try:
                    return name, answer(request, unquote("".join(found.groups())))
                except ValidationError as error:
                    first = error.errors(include_url=False, include_input=False)[0]
                    field = ".".join(map(str, first["loc"])) or "The body"
                    return name, _error(400, f"{field}: {first['msg']}.")
        if fitting:
            allowed = sorted({method for _, method, _ in fitting})
            return "", _error(405, f"Allowed: {', '.join(allowed)}.")
        return "", _error(404, "There is no such path.")

    # ---- triggered campaigns

    def _webhook(self, webhook_id: str) -> dict[str, str | int]:
        return {"url": self.webhooks[webhook_id], "id": int(webhook_id) if self._numeric_ids else webhook_id}

    def _create_webhook(self, request: Request, _: str) -> Response:
        url = _WebhookBody.model_validate_json(request.body).url
        self._made_ids += 1
        webhook_id = str(self._made_ids) if self._numeric_ids else f"webhook{self._made_ids}"
        self.webhooks[webhook_id] = url
        return _json(201, self._webhook(webhook_id))

    def _get_webhooks(self, _request: Request, _: str) -> Response:
        return _json(200, [self._webhook(webhook_id) for webhook_id in self.webhooks])

    def _get_webhook_by_id(self, _: Request, webhook_id: str) -> Response:
        if webhook_id not in self.webhooks:
            return _error(404, "There is no such webhook.")
        return _json(200, self._webhook(webhook_id))

    def _delete_webhook(self, _: Request, webhook_id: str) -> Response:
        if self.webhooks.pop(webhook_id, None) is None:
            return _error(404, "There is no such webhook.")
        return Response(204)

    def _update_webhook_settings(self, request: Request, _: str) -> Response:
        settings = _SettingsBody.model_validate_json(request.body)
        if "secret" in settings.model_fields_set:
            self.secret = settings.secret or None
        self.timeout_ms = settings.timeout
        return _json(200, {"timeout": settings.timeout, "secret": self.secret})

    def _send_webhook_approval(self, request: Request, _: str) -> Response:
        try:
            approval = Approval.from_json(request.body)  # as a notification: half of an emoji in it comes back
        except PayloadError as error:
            return _error(400, str(error))
        question = self.notifications.get(approval.request_uid)
        if question is None:
            return _error(404, "No such request_uid was sent.")
        now = self._now_ms()
        if question.answer is None and now <= question.deadline_ms:
            question.answer, question.answered_ms = approval, now
            return Response(200)
        question.ignored.append(approval)
        return _error(410, "The deadline of this request has passed.") if question.answer is None else Response(200)

    # ---- scheduled campaigns

    def _register_event_listener(self, request: Request, _: str) -> Response:
        body = _RegisterBody.model_validate_json(request.body)
        if body.EventTypeID == CAMPAIGN_READY and body.ChannelID is not None:
            return _error(400, "EventTypeID 5 takes no ChannelID.")
        self.listeners[body.EventTypeID, body.ChannelID] = body.ListenerURL
        return Response(200)

    def _unregister_event_listener(self, request: Request, _: str) -> Response:
        body = _ListenerBody.model_validate_json(request.body)
        self.listeners.pop((body.EventTypeID, body.ChannelID), None)
        return Response(200)

    def _get_registered_event_listeners(self, _request: Request, _: str) -> Response:
        listed = []
        for (event_type, channel), url in self.listeners.items():
            listener: dict[str, Any] = {"EventTypeID": event_type, "ListenerURL": url}
            listed.append(listener if channel is None else {**listener, "ChannelID": channel})
        return _json(200, listed)

    def _get_campaign_details(self, request: Request, _: str) -> Response:
        return self._of_campaign(request, lambda campaign, **_: _json(200, campaign.details))

    def _get_processed_campaign_customers(self, request: Request, _: str) -> Response:
        return self._of_campaign(request, lambda campaign, channel, **page: campaign.page(**page))

    def _get_customer_execution_details_by_campaign(self, request: Request, _: str) -> Response:
        return self._of_campaign(request, Campaign.executed)

    def _of_campaign(self, request: Request, answer: Callable[..., Response]) -> Response:
        given = {name.lower(): value for name, value in parse_qsl(request.query, keep_blank_values=True)}
        numbers = [given.get(name) for name in ("campaignid", "$top", "$skip", "channelid")]
        if not all(text is None or _NUMBER.fullmatch(text) for text in numbers):
            return _error(400, "CampaignID, ChannelID, $top and $skip must be numbers.")
        campaign_id, top, skip, channel = (None if text is None else int(text) for text in numbers)
        if campaign_id is None or top == 0:
            return _error(400, "CampaignID is missing, or $top is 0.")
        campaign = self.campaigns.get(campaign_id)
        if campaign is None:
            return _error(404, "There is no such campaign.")
        attributes = [name for name in given.get("customerattributes", "").split(";") if name]
        # 0 is all channels. Source: developer.optimove.com/reference/get_customers-getcustomeronetimeactionsbycampaign.
        return answer(campaign, channel=channel or None, skip=skip or 0, top=top, attributes=attributes)

    def _update_customer_promotion_status(self, request: Request, _: str) -> Response:
        body = _UpdateBody.model_validate_json(request.body)
        campaign = self.campaigns.get(body.CampaignID)
        if campaign is None:
            return _error(404, "There is no such campaign.")
        statuses = [(each.CustomerID, each.Status) for each in body.PromosUpdated]
        campaign.take(statuses, timestamp=body.TimeStamp, at_ms=self._now_ms())
        return Response(200)


def _plain(secret: str | SecretStr) -> str:
    return secret if isinstance(secret, str) else secret.get_secret_value()


def _json(status: int, value: object) -> Response:
    body = json.dumps(value).encode()
    return Response(status, {"content-type": "application/json", "content-length": str(len(body))}, body)


def _error(status: int, message: str) -> Response:
    """Return an error in the shape of Optimove's documented 429."""
    return _json(status, {"status": status, "error": HTTPStatus(status).phrase, "message": message})
