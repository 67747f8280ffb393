"""Claims in Redis and in PostgreSQL: what every store does."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest

from tests.servers.claims import Claims, Server, elapse
from tests.servers.journals import until
from tests.stores.claim_suite import ClaimStoreSuite, Steps


class TestInThreads(ClaimStoreSuite):
    @pytest.fixture
    def steps(self, server: Server, claims: Claims) -> Steps:
        return Steps(claims, elapse=partial(elapse, server))


class TestInAnEventLoop(ClaimStoreSuite):
    @pytest.fixture
    def steps(self, server: Server, claims: Claims, runner: asyncio.Runner) -> Steps:
        return Steps(claims.asynchronous, runner=runner, elapse=partial(elapse, server))


def test_leases_and_claims_run_out_by_the_clock_of_the_server(claims: Claims) -> None:
    begun = time.monotonic()
    assert claims.acquire("leased", "a", 0.3, 60.0).mine
    assert claims.acquire("kept", "a", 60.0, 0.3).mine
    until(lambda: claims.acquire("leased", "b", 60.0, 60.0).mine)
    assert time.monotonic() - begun >= 0.29
    until(lambda: claims.acquire("kept", "b", 60.0, 60.0).mine)
    assert time.monotonic() - begun >= 0.29
