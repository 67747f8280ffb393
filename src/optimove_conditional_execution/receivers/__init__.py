"""What integrators mount: requests in, responses out, their function in between."""

from optimove_conditional_execution.receivers.listener import AsyncListenerReceiver, ListenerReceiver
from optimove_conditional_execution.receivers.webhook import AsyncWebhookReceiver, WebhookReceiver

__all__ = ["AsyncListenerReceiver", "AsyncWebhookReceiver", "ListenerReceiver", "WebhookReceiver"]
