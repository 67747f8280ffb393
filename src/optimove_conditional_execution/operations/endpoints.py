"""The table of endpoints: the method and path of every call."""

# ruff: noqa: RUF009 - an Endpoint is frozen

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, TypeVar

from ..errors import ConfigurationError
from .operation import Endpoint, Operation

T = TypeVar("T")

_WEBHOOKS: Final = "/conditional-execution/v2/triggered/webhooks"

PREFIXED: Final = frozenset(
    {
        "register_event_listener",
        "unregister_event_listener",
        "get_registered_event_listeners",
        "get_campaign_details",
        "get_processed_campaign_customers",
        "get_customer_execution_details_by_campaign",
        "update_customer_promotion_status",
    }
)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The method and path of every call; replace the ones that differ for your tenant.

    Of the webhooks' calls only the path of `create_webhook` is documented by Optimove, trailing slash included.
    `send_webhook_approval` is known from another program's summary; the others are guesses from the usual REST pattern.
    The calls for scheduled campaigns are in Optimove's reference. Ask your Customer Success Manager, and override what
    differs: `Endpoints(get_webhooks=Endpoint("GET", "/..."))`.

    Attributes:
        path_prefix: The prefix of the paths of the calls for scheduled campaigns: empty, or `/current`, as in
            Optimove's older samples.

    Raises:
        ConfigurationError: The prefix does not begin with a slash, or ends with one.
    """

    create_webhook: Endpoint = Endpoint("POST", f"{_WEBHOOKS}/")
    get_webhooks: Endpoint = Endpoint("GET", _WEBHOOKS)
    get_webhook_by_id: Endpoint = Endpoint("GET", f"{_WEBHOOKS}/{{webhook_id}}")
    delete_webhook: Endpoint = Endpoint("DELETE", f"{_WEBHOOKS}/{{webhook_id}}")
    update_webhook_settings: Endpoint = Endpoint("PUT", "/conditional-execution/v2/triggered/settings")
    send_webhook_approval: Endpoint = Endpoint("POST", "/conditional-execution/v2/triggered/approval")
    register_event_listener: Endpoint = Endpoint("POST", "/General/RegisterEventListener")
    unregister_event_listener: Endpoint = Endpoint("POST", "/General/UnregisterEventListener")
    get_registered_event_listeners: Endpoint = Endpoint("GET", "/General/GetRegisteredEventListeners")
    get_campaign_details: Endpoint = Endpoint("GET", "/Actions/GetCampaignDetails")
    get_processed_campaign_customers: Endpoint = Endpoint("GET", "/Customers/GetProcessedCampaignCustomers")
    get_customer_execution_details_by_campaign: Endpoint = Endpoint(
        "GET", "/Customers/GetCustomerExecutionDetailsByCampaign"
    )
    update_customer_promotion_status: Endpoint = Endpoint("POST", "/Integrations/UpdateCustomerPromotionStatus")
    path_prefix: str = ""

    def __post_init__(self) -> None:
        """Reject values that would send the API key to another server."""
        prefix: object = self.path_prefix
        if not isinstance(prefix, str) or (prefix and not prefix.startswith("/")) or prefix.endswith("/"):
            raise ConfigurationError(
                'path_prefix must be empty, or begin with a slash and not end with one: "/current".'
            )

    def bind(self, operation: Operation[T]) -> Operation[T]:
        """Return the operation with this table's endpoint; unknown operations are returned unchanged.

        Args:
            operation: Any operation; it is identified by its `name`.
        """
        name = operation.name
        mine: object = getattr(self, name, None)
        if not isinstance(mine, Endpoint):
            return operation
        if self.path_prefix and name in PREFIXED:
            mine = Endpoint(mine.method, self.path_prefix + mine.path)
        if mine is operation.endpoint or mine == operation.endpoint:
            return operation
        return dataclasses.replace(operation, endpoint=mine)

    def table(self) -> dict[str, Endpoint]:
        """Return every call's name and endpoint, with the prefix where it applies."""
        names = (field.name for field in dataclasses.fields(self) if field.name != "path_prefix")
        return {
            name: Endpoint(mine.method, self.path_prefix + mine.path) if name in PREFIXED else mine
            for name in names
            if (mine := getattr(self, name))
        }


ENDPOINTS: Final = Endpoints()

NO_ROUTE: Final = frozenset({301, 308, 404, 405})
"""Statuses for a path that does not exist, or not with that method."""
