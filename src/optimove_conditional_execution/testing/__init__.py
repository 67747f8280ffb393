"""Testing without Optimove: the simulator `FakeOptimove`, payloads, signed requests, faults, a pytest fixture.

Optimove has no sandbox for triggered campaigns, so this package is public: its names are as stable as the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._lazy import attach

if TYPE_CHECKING:
    from . import faults
    from .awaited import assert_awaited
    from .campaigns import Campaign, Update
    from .fake import FakeOptimove
    from .fault_server import FaultServer, ReceivedRequest
    from .faults import Connection, Fault
    from .payloads import Delivery, campaign_ready, listener_request, notification, signed_request
    from .service import Call, SentNotification

__all__ = [
    "Call",
    "Campaign",
    "Connection",
    "Delivery",
    "FakeOptimove",
    "Fault",
    "FaultServer",
    "ReceivedRequest",
    "SentNotification",
    "Update",
    "assert_awaited",
    "campaign_ready",
    "faults",
    "listener_request",
    "notification",
    "signed_request",
]

# Imported at first use, like the names of the package above, so that pytest's plugin stays light.
_PLACES: Final[dict[str, tuple[str, ...]]] = {
    "awaited": ("assert_awaited",),
    "campaigns": ("Campaign", "Update"),
    "fake": ("FakeOptimove",),
    "fault_server": ("FaultServer", "ReceivedRequest"),
    "faults": ("Connection", "Fault", "faults"),
    "payloads": ("Delivery", "campaign_ready", "listener_request", "notification", "signed_request"),
    "service": ("Call", "SentNotification"),
}

if not TYPE_CHECKING:  # a __getattr__ would let type checkers accept every name
    __getattr__, __dir__, _MODULES = attach(__name__, _PLACES)
