"""What integrators mount: requests in, responses out, their function in between."""

from .listener import AsyncListenerReceiver, ListenerReceiver
from .webhook import AsyncWebhookReceiver, WebhookReceiver

__all__ = ["AsyncListenerReceiver", "AsyncWebhookReceiver", "ListenerReceiver", "WebhookReceiver"]
