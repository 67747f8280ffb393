"""Rehearse without Optimove: a stand-in that speaks HTTP as values, payloads, signed requests, and a pytest fixture.

Optimove has no sandbox for triggered campaigns, so this is part of the product: its names are as stable as the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from optimove_conditional_execution._lazy import attach

if TYPE_CHECKING:
    from optimove_conditional_execution.testing import faults
    from optimove_conditional_execution.testing.campaigns import Campaign, Update
    from optimove_conditional_execution.testing.fake import FakeOptimove
    from optimove_conditional_execution.testing.fault_server import FaultServer, Met
    from optimove_conditional_execution.testing.faults import Fault
    from optimove_conditional_execution.testing.payloads import (
        campaign_ready,
        listener_request,
        notification,
        signed_request,
    )
    from optimove_conditional_execution.testing.records import Call, Delivery, Question

__all__ = [
    "Call",
    "Campaign",
    "Delivery",
    "FakeOptimove",
    "Fault",
    "FaultServer",
    "Met",
    "Question",
    "Update",
    "campaign_ready",
    "faults",
    "listener_request",
    "notification",
    "signed_request",
]

# Imported when first asked for, like the names of the package above, so that pytest's plugin stays light.
_PLACES: Final[dict[str, tuple[str, ...]]] = {
    "campaigns": ("Campaign", "Update"),
    "fake": ("FakeOptimove",),
    "fault_server": ("FaultServer", "Met"),
    "faults": ("Fault", "faults"),
    "payloads": ("campaign_ready", "listener_request", "notification", "signed_request"),
    "records": ("Call", "Delivery", "Question"),
}

if not TYPE_CHECKING:  # a __getattr__ would let type checkers accept every name
    __getattr__, __dir__, _MODULES = attach(__name__, _PLACES)
