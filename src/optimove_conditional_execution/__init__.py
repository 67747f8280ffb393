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
    TransportError,
    UnexpectedResponseError,
)
from optimove_conditional_execution.flows.outcome import Outcome
from optimove_conditional_execution.handlers import AsyncWebhookHandler, Decision, WebhookHandler
from optimove_conditional_execution.messages import Request, Response
from optimove_conditional_execution.models import Approval, TenantSettings, Webhook, WebhookNotification
from optimove_conditional_execution.operations import Endpoint, Endpoints, Operation
from optimove_conditional_execution.receivers import AsyncWebhookReceiver, WebhookReceiver
from optimove_conditional_execution.signature import UNSIGNED, sign, verify
from optimove_conditional_execution.stores import ClaimStore
from optimove_conditional_execution.transport.limiter import RateLimit
from optimove_conditional_execution.transport.retry import RetryPolicy

__all__ = [
    "UNSIGNED",
    "APIError",
    "Approval",
    "AsyncOptimoveClient",
    "AsyncWebhookHandler",
    "AsyncWebhookReceiver",
    "AuthenticationError",
    "ClaimStore",
    "ConfigurationError",
    "Deadline",
    "DeadlineExceeded",
    "Decision",
    "Endpoint",
    "Endpoints",
    "NotFoundError",
    "Operation",
    "OptimoveClient",
    "OptimoveError",
    "Outcome",
    "PayloadError",
    "RateLimit",
    "RateLimitError",
    "Request",
    "Response",
    "RetryPolicy",
    "ServerError",
    "SignatureError",
    "TenantSettings",
    "TransportError",
    "UnexpectedResponseError",
    "Webhook",
    "WebhookHandler",
    "WebhookNotification",
    "WebhookReceiver",
    "__version__",
    "sign",
    "verify",
]
