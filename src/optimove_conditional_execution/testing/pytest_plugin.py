"""The pytest fixture `fake_optimove`; installing the SDK is enough for pytest to find it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .fake import FakeOptimove


@pytest.fixture
def fake_optimove() -> FakeOptimove:
    """Return a new simulator of Optimove, without webhooks and notifications."""
    # pytest loads this module at the start of every run in the environment, whether it uses the SDK or not.
    from .fake import FakeOptimove

    return FakeOptimove()
