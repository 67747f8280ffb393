"""HTTP receivers, which integrators mount in their web framework: each calls their function for a request."""

from .listener import AsyncListenerReceiver, ListenerReceiver
from .webhook import AsyncWebhookReceiver, WebhookReceiver

__all__ = ["AsyncListenerReceiver", "AsyncWebhookReceiver", "ListenerReceiver", "WebhookReceiver"]
