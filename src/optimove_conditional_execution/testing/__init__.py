"""Rehearse without Optimove: a stand-in that speaks HTTP as values, payloads, signed requests, and a pytest fixture.

Optimove has no sandbox for triggered campaigns, so this is part of the product: its names are as stable as the others.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

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
_PLACES: Final = {
    "campaigns": ("Campaign", "Update"),
    "fake": ("FakeOptimove",),
    "fault_server": ("FaultServer", "Met"),
    "faults": ("Fault",),
    "payloads": ("campaign_ready", "listener_request", "notification", "signed_request"),
    "records": ("Call", "Delivery", "Question"),
}
_MODULES: Final = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> object:
    if name == "faults":
        return importlib.import_module(f"{__name__}.faults")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
