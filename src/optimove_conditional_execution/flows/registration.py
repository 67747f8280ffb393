"""Idempotent registration of webhooks and event listeners."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from .. import operations, validation
from ..errors import APIError, DeadlineExceeded, OptimoveError, TransportError, UnexpectedResponseError
from ..urls import normalized
from .effects import Call, Flow

if TYPE_CHECKING:
    from ..models.events import EventListener
    from ..models.webhook import Webhook


def ensure_webhook(url: str) -> Flow[Webhook]:
    """Return the webhook of a URL, creating it only when Optimove has none; URLs are compared in their normal form.

    CreateWebhook must not be retried blindly: when its outcome is unknown, the list is read once more.
    """
    creation = operations.create_webhook(validation.absolute_url("url", url))
    webhook = yield from _registered(url)
    if webhook is not None:
        return webhook
    try:
        created: Webhook = yield Call(creation)
    except (TransportError, APIError, DeadlineExceeded) as error:
        if isinstance(error, APIError):
            if not (error.is_transient or isinstance(error, UnexpectedResponseError)):
                raise
        elif error.request_sent is False:
            raise
        try:
            webhook = yield from _registered(url)
        except OptimoveError:
            webhook = None
        if webhook is None:
            raise error from None
        return webhook
    return created


def ensure_event_listener(listener_url: str, *, event_type_id: int) -> Flow[EventListener]:
    """Return the listener of a URL and an event type, registering it only when Optimove has none.

    Only a listener registered for all channels counts. URLs in the list may be percent-encoded as a whole.
    """
    from ..models.events import EventListener

    registration = operations.register_event_listener(
        validation.absolute_url("listener_url", listener_url), event_type_id=event_type_id
    )
    wanted = normalized(listener_url)
    listeners: list[EventListener] = yield Call(operations.get_registered_event_listeners())
    for listener in listeners:
        urls = (normalized(listener.listener_url), normalized(unquote(listener.listener_url)))
        if listener.event_type_id == event_type_id and not listener.channel_id and wanted in urls:
            return listener
    yield Call(registration)
    return EventListener(event_type_id=event_type_id, listener_url=listener_url)


def _registered(url: str) -> Flow[Webhook | None]:
    webhooks: list[Webhook] = yield Call(operations.get_webhooks())
    wanted = normalized(url)
    return next((webhook for webhook in webhooks if normalized(webhook.url) == wanted), None)
