"""HTTP receivers, which integrators mount in their web framework: each calls their function for a request."""

from typing import TYPE_CHECKING, Final

from .._lazy import attach

if TYPE_CHECKING:
    from .listener import AsyncListenerReceiver, ListenerReceiver
    from .webhook import AsyncWebhookReceiver, WebhookReceiver

__all__ = ["AsyncListenerReceiver", "AsyncWebhookReceiver", "ListenerReceiver", "WebhookReceiver"]

_PLACES: Final = {
    "listener": ("AsyncListenerReceiver", "ListenerReceiver"),
    "webhook": ("AsyncWebhookReceiver", "WebhookReceiver"),
}

if not TYPE_CHECKING:  # a __getattr__ would let type checkers accept every name
    __getattr__, __dir__, _MODULES = attach(__name__, _PLACES)
