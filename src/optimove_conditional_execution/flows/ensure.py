"""Create what is missing, and never twice."""

from __future__ import annotations

from optimove_conditional_execution import operations
from optimove_conditional_execution.errors import DeadlineExceeded, ServerError, TransportError
from optimove_conditional_execution.flows.effects import Call, Flow
from optimove_conditional_execution.models.webhook import Webhook


def ensure_webhook(url: str) -> Flow[Webhook]:
    """Return the webhook of a URL, creating it only when Optimove has none.

    CreateWebhook must not be repeated blindly: when its outcome is unknown, the list is asked once more.
    """
    creation = operations.create_webhook(url)
    webhook = yield from _registered(url)
    if webhook is not None:
        return webhook
    try:
        created: Webhook = yield Call(creation)
    except (TransportError, ServerError, DeadlineExceeded) as error:
        if not isinstance(error, ServerError) and error.request_sent is False:
            raise
        webhook = yield from _registered(url)
        if webhook is None:
            raise
        return webhook
    return created


def _registered(url: str) -> Flow[Webhook | None]:
    webhooks: list[Webhook] = yield Call(operations.get_webhooks())
    return next((webhook for webhook in webhooks if webhook.url == url), None)
