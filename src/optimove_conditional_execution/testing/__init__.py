"""Rehearse without Optimove: a stand-in that speaks HTTP as values, payloads, signed requests, and a pytest fixture.

Optimove has no sandbox for triggered campaigns, so this is part of the product: its names are as stable as the others.
"""

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
