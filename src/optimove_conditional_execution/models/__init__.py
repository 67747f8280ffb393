"""One module a payload family; every class is importable from the package itself."""

from optimove_conditional_execution.models.approval import Approval
from optimove_conditional_execution.models.campaign import CampaignCustomer, CustomerPromotionStatus
from optimove_conditional_execution.models.listener import CampaignReadyEvent, EventListener, ListenerEvent
from optimove_conditional_execution.models.notification import (
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
from optimove_conditional_execution.models.webhook import TenantSettings, Webhook

__all__ = [
    "Action",
    "Approval",
    "CampaignCustomer",
    "CampaignReadyEvent",
    "Channel",
    "CustomerPromotionStatus",
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
