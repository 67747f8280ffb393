"""The pytest fixture `fake_optimove`; installing the SDK is enough for pytest to find it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .fake import FakeOptimove


@pytest.fixture
def fake_optimove() -> Iterator[FakeOptimove]:
    """Yield a new simulator of Optimove, without webhooks and notifications.

    The test fails if a coroutine is never awaited in it; see `assert_awaited`.
    """
    # pytest loads this module at the start of every run in the environment, whether it uses the SDK or not.
    from .awaited import assert_awaited
    from .fake import FakeOptimove

    with assert_awaited():
        yield FakeOptimove()
