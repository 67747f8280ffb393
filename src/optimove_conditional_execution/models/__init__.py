"""Payload models, one module per family; every class can be imported from the package itself."""

from .approval import Approval
from .campaign import CampaignCustomer, CampaignDetails, CustomerExecution, CustomerPromotionStatus, CustomerRow
from .customer_batch import CustomerBatch
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
