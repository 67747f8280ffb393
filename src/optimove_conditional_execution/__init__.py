"""Decide who may receive an Optimove campaign, before it goes out.

Start with `AsyncWebhookReceiver` or `WebhookReceiver` and a handler of your own; try it with
`optimove_conditional_execution.testing`.
"""

from optimove_conditional_execution._version import __version__
from optimove_conditional_execution.client import AsyncOptimoveClient, OptimoveClient
from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import (
    APIError,
    AuthenticationError,
    ConfigurationError,
    DeadlineExceeded,
    NotFoundError,
    OptimoveError,
    PayloadError,
    RateLimitError,
    ServerError,
    SignatureError,
    StoreError,
    SupersededError,
    TransportError,
    UnexpectedResponseError,
)
from optimove_conditional_execution.flows.outcome import Outcome
from optimove_conditional_execution.flows.report import Progress, ReviewReport
from optimove_conditional_execution.handlers import (
    AsyncCampaignReviewer,
    AsyncWebhookHandler,
    CampaignReviewer,
    Decision,
    WebhookHandler,
)
from optimove_conditional_execution.messages import Request, Response
from optimove_conditional_execution.models import (
    Approval,
    CampaignCustomer,
    CampaignReadyEvent,
    CustomerPromotionStatus,
    EventListener,
    ListenerEvent,
    TenantSettings,
    Webhook,
    WebhookNotification,
)
from optimove_conditional_execution.operations import Endpoint, Endpoints, Operation
from optimove_conditional_execution.receivers import (
    AsyncListenerReceiver,
    AsyncWebhookReceiver,
    ListenerReceiver,
    WebhookReceiver,
)
from optimove_conditional_execution.review import AsyncCampaignReview, CampaignReview, per_customer
from optimove_conditional_execution.signature import UNSIGNED, sign, verify
from optimove_conditional_execution.stores import ClaimStore, Journal
from optimove_conditional_execution.transport.calls import CallObserver, CallRecord
from optimove_conditional_execution.transport.limiter import RateLimit
from optimove_conditional_execution.transport.retry import RetryPolicy
from optimove_conditional_execution.transport.sending import Tally

__all__ = [
    "UNSIGNED",
    "APIError",
    "Approval",
    "AsyncCampaignReview",
    "AsyncCampaignReviewer",
    "AsyncListenerReceiver",
    "AsyncOptimoveClient",
    "AsyncWebhookHandler",
    "AsyncWebhookReceiver",
    "AuthenticationError",
    "CallObserver",
    "CallRecord",
    "CampaignCustomer",
    "CampaignReadyEvent",
    "CampaignReview",
    "CampaignReviewer",
    "ClaimStore",
    "ConfigurationError",
    "CustomerPromotionStatus",
    "Deadline",
    "DeadlineExceeded",
    "Decision",
    "Endpoint",
    "Endpoints",
    "EventListener",
    "Journal",
    "ListenerEvent",
    "ListenerReceiver",
    "NotFoundError",
    "Operation",
    "OptimoveClient",
    "OptimoveError",
    "Outcome",
    "PayloadError",
    "Progress",
    "RateLimit",
    "RateLimitError",
    "Request",
    "Response",
    "RetryPolicy",
    "ReviewReport",
    "ServerError",
    "SignatureError",
    "StoreError",
    "SupersededError",
    "Tally",
    "TenantSettings",
    "TransportError",
    "UnexpectedResponseError",
    "Webhook",
    "WebhookHandler",
    "WebhookNotification",
    "WebhookReceiver",
    "__version__",
    "per_customer",
    "sign",
    "verify",
]
