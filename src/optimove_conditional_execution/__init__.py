"""Decide who may receive an Optimove campaign, before it goes out.

Start with `AsyncWebhookReceiver` or `WebhookReceiver` and a handler of your own; try it with
`optimove_conditional_execution.testing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ._lazy import attach
from ._version import __version__

if TYPE_CHECKING:
    from . import adapters as adapters
    from . import errors as errors
    from . import integrations as integrations
    from . import models as models
    from . import operations as operations
    from . import policy as policy
    from . import rehearsal as rehearsal
    from . import replay as replay
    from . import shadow as shadow
    from . import stores as stores
    from . import switch as switch
    from . import telemetry as telemetry
    from . import testing as testing
    from .client import AsyncOptimoveClient, OptimoveClient
    from .deadline import Deadline
    from .errors import (
        APIError,
        AuthenticationError,
        ConfigurationError,
        DeadlineExceeded,
        HeldBackError,
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
    from .flows.listener import EventOutcome
    from .flows.outcome import Outcome
    from .flows.report import Progress, ReviewReport
    from .handlers import AsyncCampaignReviewer, AsyncWebhookHandler, CampaignReviewer, Decision, WebhookHandler
    from .messages import Request, Response
    from .models import (
        Approval,
        CampaignCustomer,
        CampaignDetails,
        CampaignReadyEvent,
        CustomerBatch,
        CustomerExecution,
        CustomerPromotionStatus,
        CustomerRow,
        EventListener,
        ListenerEvent,
        TenantSettings,
        Webhook,
        WebhookNotification,
    )
    from .operations import Endpoint, Endpoints, Operation
    from .receivers import AsyncListenerReceiver, AsyncWebhookReceiver, ListenerReceiver, WebhookReceiver
    from .receivers.health import AsyncHealth, Health
    from .reconciliation import Reconciliation, areconcile, reconcile
    from .review import AsyncCampaignReview, CampaignReview
    from .review.per_customer import per_customer
    from .settings import webhook_secrets
    from .signature import UNSIGNED, sign, verify
    from .stores import ClaimStore, Journal
    from .transport.instrumentation import CallObserver, CallRecord
    from .transport.rate_limit import RateLimit
    from .transport.retry import RetryPolicy
    from .transport.send import RequestCounter

__all__ = [
    "UNSIGNED",
    "APIError",
    "Approval",
    "AsyncCampaignReview",
    "AsyncCampaignReviewer",
    "AsyncHealth",
    "AsyncListenerReceiver",
    "AsyncOptimoveClient",
    "AsyncWebhookHandler",
    "AsyncWebhookReceiver",
    "AuthenticationError",
    "CallObserver",
    "CallRecord",
    "CampaignCustomer",
    "CampaignDetails",
    "CampaignReadyEvent",
    "CampaignReview",
    "CampaignReviewer",
    "ClaimStore",
    "ConfigurationError",
    "CustomerBatch",
    "CustomerExecution",
    "CustomerPromotionStatus",
    "CustomerRow",
    "Deadline",
    "DeadlineExceeded",
    "Decision",
    "Endpoint",
    "Endpoints",
    "EventListener",
    "EventOutcome",
    "Health",
    "HeldBackError",
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
    "Reconciliation",
    "Request",
    "RequestCounter",
    "Response",
    "RetryPolicy",
    "ReviewReport",
    "ServerError",
    "SignatureError",
    "StoreError",
    "SupersededError",
    "TenantSettings",
    "TransportError",
    "UnexpectedResponseError",
    "Webhook",
    "WebhookHandler",
    "WebhookNotification",
    "WebhookReceiver",
    "__version__",
    "areconcile",
    "per_customer",
    "reconcile",
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
        "HeldBackError",
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
    "flows.listener": ("EventOutcome",),
    "flows.outcome": ("Outcome",),
    "flows.report": ("Progress", "ReviewReport"),
    "handlers": ("AsyncCampaignReviewer", "AsyncWebhookHandler", "CampaignReviewer", "Decision", "WebhookHandler"),
    "messages": ("Request", "Response"),
    "models": (
        "Approval",
        "CampaignCustomer",
        "CampaignDetails",
        "CampaignReadyEvent",
        "CustomerBatch",
        "CustomerExecution",
        "CustomerPromotionStatus",
        "CustomerRow",
        "EventListener",
        "ListenerEvent",
        "TenantSettings",
        "Webhook",
        "WebhookNotification",
    ),
    "operations": ("Endpoint", "Endpoints", "Operation"),
    "receivers": ("AsyncListenerReceiver", "AsyncWebhookReceiver", "ListenerReceiver", "WebhookReceiver"),
    "receivers.health": ("AsyncHealth", "Health"),
    "reconciliation": ("Reconciliation", "areconcile", "reconcile"),
    "review": ("AsyncCampaignReview", "CampaignReview"),
    "review.per_customer": ("per_customer",),
    "settings": ("webhook_secrets",),
    "signature": ("UNSIGNED", "sign", "verify"),
    "stores": ("ClaimStore", "Journal"),
    "transport.instrumentation": ("CallObserver", "CallRecord"),
    "transport.rate_limit": ("RateLimit",),
    "transport.retry": ("RetryPolicy",),
    "transport.send": ("RequestCounter",),
}

if not TYPE_CHECKING:  # a __getattr__ would let type checkers accept every name
    __getattr__, __dir__, _MODULES = attach(__name__, _PLACES)
