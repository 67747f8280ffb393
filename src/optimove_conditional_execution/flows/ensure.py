"""Create what is missing, and never twice."""

from __future__ import annotations

from urllib.parse import urlsplit

from optimove_conditional_execution import operations
from optimove_conditional_execution.errors import (
    ConfigurationError,
    DeadlineExceeded,
    OptimoveError,
    ServerError,
    TransportError,
    UnexpectedResponseError,
)
from optimove_conditional_execution.flows.effects import Call, Flow
from optimove_conditional_execution.models.webhook import Webhook


def ensure_webhook(url: str) -> Flow[Webhook]:
    """Return the webhook of a URL, creating it only when Optimove has none.

    CreateWebhook must not be repeated blindly: when its outcome is unknown, the list is asked once more.
    """
    creation = operations.create_webhook(_absolute(url))
    webhook = yield from _registered(url)
    if webhook is not None:
        return webhook
    try:
        created: Webhook = yield Call(creation)
    except (TransportError, ServerError, UnexpectedResponseError, DeadlineExceeded) as error:
        if isinstance(error, TransportError | DeadlineExceeded) and error.request_sent is False:
            raise
        try:
            webhook = yield from _registered(url)
        except OptimoveError:
            webhook = None
        if webhook is None:
            raise error from None
        return webhook
    return created


def _absolute(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except (ValueError, TypeError, AttributeError):
        usable = False
    if not usable:
        raise ConfigurationError("url must be absolute, such as https://gate.example.com/optimove.")
    return url


def _registered(url: str) -> Flow[Webhook | None]:
    webhooks: list[Webhook] = yield Call(operations.get_webhooks())
    return next((webhook for webhook in webhooks if webhook.url == url), None)
