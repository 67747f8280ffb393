"""API calls as values: the request, the parser of its response, and whether it may be retried.

One function per endpoint, named like the client's method. To add a call, add its endpoint to `Endpoints` and a function
here; sending, retries, limits and errors come with `client.send(operation)`.

Paths, methods and bodies: `docs/explanation/optimove-api.md`, with the source of each. What is not documented is a
default in `Endpoints` that a tenant can override.
"""

from typing import TYPE_CHECKING, Final

from .._lazy import attach

if TYPE_CHECKING:
    from ..defaults import DEFAULT_PAGE_SIZE, DEFAULT_TIMEOUT_MS
    from .endpoints import ENDPOINTS, NO_ROUTE, Endpoints
    from .operation import Endpoint, Operation, with_slash
    from .scheduled import (
        MAX_STATUSES,
        get_campaign_details,
        get_customer_execution_details_by_campaign,
        get_processed_campaign_customers,
        get_registered_event_listeners,
        register_event_listener,
        unregister_event_listener,
        update_customer_promotion_status,
    )
    from .triggered import (
        create_webhook,
        delete_webhook,
        get_webhook_by_id,
        get_webhooks,
        send_webhook_approval,
        update_webhook_settings,
    )

__all__ = [
    "DEFAULT_PAGE_SIZE",
    "DEFAULT_TIMEOUT_MS",
    "ENDPOINTS",
    "MAX_STATUSES",
    "NO_ROUTE",
    "Endpoint",
    "Endpoints",
    "Operation",
    "create_webhook",
    "delete_webhook",
    "get_campaign_details",
    "get_customer_execution_details_by_campaign",
    "get_processed_campaign_customers",
    "get_registered_event_listeners",
    "get_webhook_by_id",
    "get_webhooks",
    "register_event_listener",
    "send_webhook_approval",
    "unregister_event_listener",
    "update_customer_promotion_status",
    "update_webhook_settings",
    "with_slash",
]

_PLACES: Final = {
    ".defaults": ("DEFAULT_PAGE_SIZE", "DEFAULT_TIMEOUT_MS"),
    "endpoints": ("ENDPOINTS", "NO_ROUTE", "Endpoints"),
    "operation": ("Endpoint", "Operation", "with_slash"),
    "scheduled": (
        "MAX_STATUSES",
        "get_campaign_details",
        "get_customer_execution_details_by_campaign",
        "get_processed_campaign_customers",
        "get_registered_event_listeners",
        "register_event_listener",
        "unregister_event_listener",
        "update_customer_promotion_status",
    ),
    "triggered": (
        "create_webhook",
        "delete_webhook",
        "get_webhook_by_id",
        "get_webhooks",
        "send_webhook_approval",
        "update_webhook_settings",
    ),
}

if not TYPE_CHECKING:  # a __getattr__ would let type checkers accept every name
    __getattr__, __dir__, _MODULES = attach(__name__, _PLACES)
