"""One module a payload family; every class is importable from the package itself."""

from optimove_conditional_execution.models.approval import Approval
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
    "Channel",
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
