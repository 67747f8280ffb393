"""Payload models, one module per family; every class can be imported from the package itself."""

from typing import TYPE_CHECKING, Final

from .._lazy import attach

if TYPE_CHECKING:
    from .approval import Approval
    from .campaign import (
        CampaignCustomer,
        CampaignDetails,
        CustomerBatch,
        CustomerExecution,
        CustomerPromotionStatus,
        CustomerRow,
    )
    from .events import CampaignReadyEvent, EventListener, ListenerEvent
    from .notification import (
        Action,
        Channel,
        Occurrence,
        Promotion,
        TargetGroup,
        Template,
        TriggerContext,
        TriggerEvent,
        User,
        WebhookNotification,
    )
    from .webhook import TenantSettings, Webhook

__all__ = [
    "Action",
    "Approval",
    "CampaignCustomer",
    "CampaignDetails",
    "CampaignReadyEvent",
    "Channel",
    "CustomerBatch",
    "CustomerExecution",
    "CustomerPromotionStatus",
    "CustomerRow",
    "EventListener",
    "ListenerEvent",
    "Occurrence",
    "Promotion",
    "TargetGroup",
    "Template",
    "TenantSettings",
    "TriggerContext",
    "TriggerEvent",
    "User",
    "Webhook",
    "WebhookNotification",
]

_PLACES: Final = {
    "approval": ("Approval",),
    "campaign": (
        "CampaignCustomer",
        "CampaignDetails",
        "CustomerBatch",
        "CustomerExecution",
        "CustomerPromotionStatus",
        "CustomerRow",
    ),
    "events": ("CampaignReadyEvent", "EventListener", "ListenerEvent"),
    "notification": (
        "Action",
        "Channel",
        "Occurrence",
        "Promotion",
        "TargetGroup",
        "Template",
        "TriggerContext",
        "TriggerEvent",
        "User",
        "WebhookNotification",
    ),
    "webhook": ("TenantSettings", "Webhook"),
}

if not TYPE_CHECKING:  # a __getattr__ would let type checkers accept every name
    __getattr__, __dir__, _MODULES = attach(__name__, _PLACES)
