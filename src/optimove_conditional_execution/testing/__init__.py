"""Rehearse without Optimove: a stand-in that speaks HTTP as values, payloads, signed requests, and a pytest fixture.

Optimove has no sandbox for triggered campaigns, so this is part of the product: its names are as stable as the others.
"""

from optimove_conditional_execution.testing.fake import FakeOptimove
from optimove_conditional_execution.testing.payloads import notification, signed_request
from optimove_conditional_execution.testing.records import Call, Delivery, Question

__all__ = ["Call", "Delivery", "FakeOptimove", "Question", "notification", "signed_request"]
