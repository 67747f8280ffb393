"""The pytest fixture `fake_optimove`; installing the SDK is enough for pytest to find it."""

from __future__ import annotations

import pytest

from optimove_conditional_execution.testing.fake import FakeOptimove


@pytest.fixture
def fake_optimove() -> FakeOptimove:
    """Return a fresh stand-in for Optimove, without webhooks and notifications."""
    return FakeOptimove()
