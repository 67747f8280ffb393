"""Decide who may receive an Optimove campaign, before it goes out.

Start with `AsyncWebhookReceiver` or `WebhookReceiver` and a handler of your own; try it with
`optimove_conditional_execution.testing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from optimove_conditional_execution._lazy import attach
from optimove_conditional_execution._version import __version__

if TYPE_CHECKING:
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
    from optimove_conditional_execution.review import AsyncCampaignReview, CampaignReview
    from optimove_conditional_execution.review.per_customer import per_customer
    from optimove_conditional_execution.settings import webhook_secrets
    from optimove_conditional_execution.signature import UNSIGNED, sign, verify
    from optimove_conditional_execution.stores import ClaimStore, Journal
    from optimove_conditional_execution.transport.calls import CallObserver, CallRecord
    from optimove_conditional_execution.transport.rate_limit import RateLimit
    from optimove_conditional_execution.transport.retry import RetryPolicy
    from optimove_conditional_execution.transport.send import Tally

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
    "webhook_secrets",
]

# Each name is imported when it is first asked for. pytest imports this package at the start of every run in an
# environment that has it, for the fixture `fake_optimove`, and must not pay for httpx and pydantic there.
_PLACES: Final = {
    "client": ("AsyncOptimoveClient", "OptimoveClient"),
    "deadline": ("Deadline",),
    "errors": (
        "APIError",
        "AuthenticationError",
        "ConfigurationError",
        "DeadlineExceeded",
        "NotFoundError",
        "OptimoveError",
        "PayloadError",
        "RateLimitError",
        "ServerError",
        "SignatureError",
        "StoreError",
        "SupersededError",
        "TransportError",
        "UnexpectedResponseError",
    ),
    "flows.outcome": ("Outcome",),
    "flows.report": ("Progress", "ReviewReport"),
    "handlers": ("AsyncCampaignReviewer", "AsyncWebhookHandler", "CampaignReviewer", "Decision", "WebhookHandler"),
    "messages": ("Request", "Response"),
    "models": (
        "Approval",
        "CampaignCustomer",
        "CampaignReadyEvent",
        "CustomerPromotionStatus",
        "EventListener",
        "ListenerEvent",
        "TenantSettings",
        "Webhook",
        "WebhookNotification",
    ),
    "operations": ("Endpoint", "Endpoints", "Operation"),
    "receivers": ("AsyncListenerReceiver", "AsyncWebhookReceiver", "ListenerReceiver", "WebhookReceiver"),
    "review": ("AsyncCampaignReview", "CampaignReview"),
    "review.per_customer": ("per_customer",),
    "settings": ("webhook_secrets",),
    "signature": ("UNSIGNED", "sign", "verify"),
    "stores": ("ClaimStore", "Journal"),
    "transport.calls": ("CallObserver", "CallRecord"),
    "transport.rate_limit": ("RateLimit",),
    "transport.retry": ("RetryPolicy",),
    "transport.send": ("Tally",),
}

if not TYPE_CHECKING:  # a __getattr__ would let type checkers accept every name
    __getattr__, __dir__, _MODULES = attach(__name__, _PLACES)
