"""Claims in Redis and in PostgreSQL: what every store does."""

from __future__ import annotations

import asyncio

import pytest

from tests.servers.claims import Claims
from tests.stores.claim_suite import ClaimStoreSuite, Steps


class TestInThreads(ClaimStoreSuite):
    @pytest.fixture
    def steps(self, claims: Claims) -> Steps:
        return Steps(claims)


class TestInAnEventLoop(ClaimStoreSuite):
    @pytest.fixture
    def steps(self, claims: Claims, runner: asyncio.Runner) -> Steps:
        return Steps(claims.asynchronous, runner=runner)
