"""Claims in Redis and in PostgreSQL: what every store does."""

from __future__ import annotations

import asyncio
import time
from functools import partial

import pytest

from tests.servers.claims import Claims, Server, elapse
from tests.servers.journals import until
from tests.stores.claim_suite import ClaimStoreSuite, Steps

UNIT = 60.0
"""Seconds, which no busy machine takes between two steps; a test waits for none of them."""


class TestInThreads(ClaimStoreSuite):
    @pytest.fixture
    def steps(self, server: Server, claims: Claims) -> Steps:
        return Steps(claims, elapse=partial(elapse, server), unit=UNIT)


class TestInAnEventLoop(ClaimStoreSuite):
    @pytest.fixture
    def steps(self, server: Server, claims: Claims, runner: asyncio.Runner) -> Steps:
        return Steps(claims.asynchronous, runner=runner, elapse=partial(elapse, server), unit=UNIT)


def test_leases_and_claims_run_out_by_the_clock_of_the_server(claims: Claims) -> None:
    begun = time.monotonic()
    assert claims.acquire("leased", "a", 0.3, 60.0).mine
    assert claims.acquire("kept", "a", 60.0, 0.3).mine
    for question in ("leased", "kept"):
        until(lambda question=question: claims.acquire(question, "b", 60.0, 60.0).mine)
        assert time.monotonic() - begun >= 0.29
