"""Operations for scheduled campaigns: event listeners, a campaign's details and customers, their statuses.

Paths: developer.optimove.com/reference. Request and response bodies: `docs/explanation/optimove-api.md`, with what is a
    guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeVar

from pydantic import SecretStr
from pydantic_core import PydanticSerializationError, to_json

from ..errors import ConfigurationError, PayloadError
from ..messages import Response
from ..models.campaign import CampaignCustomer, CampaignDetails, CustomerExecution, CustomerPromotionStatus
from ..models.events import CAMPAIGN_READY, EventListener
from ..tracebacks import sensitive_variables
from ..validation import integer
from .codec import decoded, json_body, json_object, many, model_of, nothing, refuse_error, required
from .endpoints import ENDPOINTS
from .operation import Operation

C = TypeVar("C", bound=CampaignCustomer)

MAX_STATUSES: Final = 10_000
"""Customers per call. Source: developer.optimove.com/reference/post_integrations-updatecustomerpromotionstatus."""


@sensitive_variables  # the URL can hold the listener's token
def register_event_listener(
    listener_url: str, *, event_type_id: int = CAMPAIGN_READY, channel_id: int | None = None
) -> Operation[None]:
    """RegisterEventListener: have events of a type posted to a URL.

    Source: developer.optimove.com/reference/post_general-registereventlistener. Whether a second registration replaces
    the first is not documented.

    Args:
        listener_url: Where Optimove posts. It is sent unchanged; whether it must be percent-encoded is not documented.
        event_type_id: The type of events, 1 or more; 5 is a scheduled campaign that waits for clearance.
        channel_id: Only those of one channel, 0 or more; None for all.

    Raises:
        ConfigurationError: The URL is blank, a number is invalid, or a channel is given for type 5, which is registered
            for all channels.
    """
    if event_type_id == CAMPAIGN_READY and channel_id is not None:
        raise ConfigurationError("channel_id must be left out for events of type 5: they are of all channels.")
    body = {
        "EventTypeID": integer("event_type_id", event_type_id, minimum=1),
        "ListenerURL": required("listener_url", listener_url),
        **_channel(channel_id),
    }
    return Operation(
        "register_event_listener",
        ENDPOINTS.register_event_listener,
        nothing,
        body=json_body(body),
        idempotent=True,
        # The URL can hold the listener's token.
        private=True,
        redact=(SecretStr(listener_url),),
    )


def unregister_event_listener(*, event_type_id: int = CAMPAIGN_READY, channel_id: int | None = None) -> Operation[None]:
    """UnregisterEventListener: stop events of a type.

    Source: docs.optimove.com/api-usage-guide (name); the body is known from another program.

    Args:
        event_type_id: The type of events, 1 or more.
        channel_id: The channel that was registered, if one was.

    Raises:
        ConfigurationError: A number is invalid.
    """
    body = {"EventTypeID": integer("event_type_id", event_type_id, minimum=1), **_channel(channel_id)}
    return Operation(
        "unregister_event_listener",
        ENDPOINTS.unregister_event_listener,
        nothing,
        body=json_body(body),
        idempotent=True,
        gone_means_done=True,
    )


def get_registered_event_listeners() -> Operation[list[EventListener]]:
    """GetRegisteredEventListeners: list the registered listeners.

    Source: docs.optimove.com/api-usage-guide (name); the response is a guess. A list, an object that wraps one, `null`
    and an empty body are accepted.
    """
    return Operation(
        "get_registered_event_listeners",
        ENDPOINTS.get_registered_event_listeners,
        many(EventListener),
        idempotent=True,
        private=True,
    )


def get_campaign_details(campaign_id: int) -> Operation[CampaignDetails]:
    """GetCampaignDetails: look up a campaign, for rules per target group or channel, or by its notes.

    Source: other programs (path and response), written from an older reference of Optimove's. Which fields there are is
    not sure, so each may be missing; a response without any is an error.

    Args:
        campaign_id: The campaign.

    Raises:
        ConfigurationError: The number is invalid.
    """
    return Operation(
        "get_campaign_details",
        ENDPOINTS.get_campaign_details,
        _details,
        query=(("CampaignID", str(integer("campaign_id", campaign_id, minimum=1))),),
        idempotent=True,
        # Marketers pass parameters in a campaign's notes.
        private=True,
    )


def get_processed_campaign_customers(
    campaign_id: int, *, customer_attributes: Sequence[str] = (), top: int | None = None, skip: int = 0
) -> Operation[list[CampaignCustomer]]:
    """GetProcessedCampaignCustomers: a page of the customers of a campaign that waits for clearance.

    Source: Optimove's Conditional Execution article (name), developer.optimove.com/docs/flow-1 (path); parameters and
    response like those of similar calls. `[]`, `null`, an empty body and 204 are an empty page. The response is read at
    once here; `client.get_processed_campaign_customers` reads all pages as a stream.

    Args:
        campaign_id: The campaign.
        customer_attributes: Names of the attributes to include in each row.
        top: The maximum number of rows; None requests no page size. A server may send fewer than there are.
        skip: The number of rows to skip.

    Raises:
        ConfigurationError: A number is invalid, or a name is blank or has a semicolon in it.
    """
    return Operation(
        "get_processed_campaign_customers",
        ENDPOINTS.get_processed_campaign_customers,
        _customers(CampaignCustomer),
        query=_page(campaign_id, {}, customer_attributes, top, skip),
        idempotent=True,
        private=True,
    )


def get_customer_execution_details_by_campaign(
    campaign_id: int,
    *,
    channel_id: int | None = None,
    customer_attributes: Sequence[str] = (),
    top: int | None = None,
    skip: int = 0,
) -> Operation[list[CustomerExecution]]:
    """GetCustomerExecutionDetailsByCampaign: a page of the customers whom a campaign was sent to.

    Source: Optimove's list of calls and its flows after EventTypeID 13 (name), other programs (path, parameters and
    fields). An empty page is as that of `get_processed_campaign_customers`; the client's method of this name reads all
    pages as a stream.

    Args:
        campaign_id: The campaign.
        channel_id: Only what this channel has sent, 0 or more; None for all.
        customer_attributes: Names of the attributes to include in each row.
        top: The maximum number of rows; None requests no page size. A server may send fewer than there are.
        skip: The number of rows to skip.

    Raises:
        ConfigurationError: A number is invalid, or a name is blank or has a semicolon in it.
    """
    return Operation(
        "get_customer_execution_details_by_campaign",
        ENDPOINTS.get_customer_execution_details_by_campaign,
        _customers(CustomerExecution),
        query=_page(campaign_id, _channel(channel_id), customer_attributes, top, skip),
        idempotent=True,
        private=True,
    )


def update_customer_promotion_status(
    campaign_id: int, statuses: Sequence[CustomerPromotionStatus] | Mapping[str, bool], *, timestamp: datetime
) -> Operation[int]:
    """UpdateCustomerPromotionStatus: say which customers may get a campaign. The result is their number.

    Source: Optimove's Conditional Execution article (body),
    developer.optimove.com/reference/post_integrations-updatecustomerpromotionstatus (at most 10,000 customers a call).
    Customers who are never named do not get it. `client.update_customer_promotion_status` splits longer lists.

    Args:
        campaign_id: The campaign.
        statuses: From 1 to 10,000 statuses, or a mapping of ids to booleans.
        timestamp: The current time, as a naive datetime in Optimove's time zone for the tenant.

    Raises:
        ConfigurationError: There are none or too many, or a number or the time is invalid.
        PayloadError: One of them is not a `CustomerPromotionStatus`.
    """
    if not 1 <= len(statuses) <= MAX_STATUSES:
        raise ConfigurationError(f"statuses must be 1 to {MAX_STATUSES} in one call; the client's method splits them.")
    now: object = timestamp
    if not isinstance(now, datetime) or now.tzinfo is not None:
        raise ConfigurationError("timestamp must be a datetime without a zone.")
    head = {
        "TimeStamp": now.replace(microsecond=0).isoformat(sep=" "),
        "CampaignID": integer("campaign_id", campaign_id, minimum=1),
    }
    try:
        body = to_json({**head, "PromosUpdated": _updates(statuses)})
    except PydanticSerializationError:
        raise PayloadError("The statuses cannot be written as JSON.", path="statuses") from None
    told = len(statuses)

    def parse(response: Response) -> int:
        nothing(response)
        return told

    return Operation(
        "update_customer_promotion_status",
        ENDPOINTS.update_customer_promotion_status,
        parse,
        body=body,
        idempotent=True,
        urgent=True,
        first_try_share=1.0,  # 10,000 statuses can take the server half a minute
        long_running=True,
        private=True,
    )


def _page(
    campaign_id: int, more: Mapping[str, int], customer_attributes: Sequence[str], top: int | None, skip: int
) -> tuple[tuple[str, str], ...]:
    query = [("CampaignID", str(integer("campaign_id", campaign_id, minimum=1)))]
    query += [(name, str(value)) for name, value in more.items()]
    names: object = customer_attributes
    if isinstance(names, str):
        raise ConfigurationError("customer_attributes must be a list of names, not one string.")
    for name in customer_attributes:
        if ";" in required("A name in customer_attributes", name):
            raise ConfigurationError("A name in customer_attributes cannot have a semicolon: list names one by one.")
    if customer_attributes:
        query.append(("CustomerAttributes", ";".join(customer_attributes)))
    if top is not None:
        query.append(("$top", str(integer("top", top, minimum=1))))
    if integer("skip", skip, minimum=0) or top is not None:
        query.append(("$skip", str(skip)))
    return tuple(query)


def _channel(channel_id: int | None) -> dict[str, int]:
    return {} if channel_id is None else {"ChannelID": integer("channel_id", channel_id, minimum=0)}


def _updates(statuses: Sequence[Any] | Mapping[Any, Any]) -> Iterator[dict[str, Any]]:
    if isinstance(statuses, Mapping):
        named: Iterable[tuple[Any, Any]] = statuses.items()
        try:
            is_valid = all(map(str.strip, statuses)) and {bool}.issuperset(map(type, statuses.values()))
        except TypeError:  # an id is no string
            is_valid = False
        if not is_valid:
            raise PayloadError("statuses must be ids that are not blank, each with True or False.", path="statuses")
    else:
        if not all(isinstance(status, CustomerPromotionStatus) for status in statuses):
            raise PayloadError("statuses must be CustomerPromotionStatus objects.", path="statuses")
        named = [(status.customer_id, status.status) for status in statuses]
    return ({"CustomerID": name, "Status": status} for name, status in named)  # one at a time


def _details(response: Response) -> CampaignDetails:
    value = json_object(response)
    details = model_of(CampaignDetails, value)
    # A failed campaign has an error of its own, so only an error alone tells of a failed call.
    if not details.model_fields_set & CampaignDetails.model_fields.keys() - {"status", "error"}:
        refuse_error(value)
        raise PayloadError("the answer has no details of a campaign")
    return details


def _customers(model: type[C]) -> Callable[[Response], list[C]]:
    def parse(response: Response) -> list[C]:
        rows = decoded(response)
        if rows is None:
            return []
        if not isinstance(rows, list):
            raise PayloadError("the answer is not a list")
        return [model_of(model, row) for row in rows]

    return parse
