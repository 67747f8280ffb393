"""The pytest fixture `fake_optimove`; installing the SDK is enough for pytest to find it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .. import testing


@pytest.fixture
def fake_optimove() -> Iterator[testing.FakeOptimove]:
    """Yield a new simulator of Optimove, without webhooks and notifications.

    The test fails if a coroutine is never awaited in it; see `assert_awaited`.
    """
    # pytest loads this module at the start of every run in the environment, whether it uses the SDK or not; `testing`
    # loads what it holds when it is asked for it.
    with testing.assert_awaited():
        yield testing.FakeOptimove()
