"""Claim stores keep the protocol: in memory, in SQLite, and async."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from optimove_conditional_execution.stores import Claim, MemoryClaims, SqliteClaims
from tests.stores.claim_suite import ClaimStoreSuite, Steps


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def elapse(self, seconds: float) -> None:
        self.now += seconds


class AsyncClaims:
    """A store with coroutine methods, as over an async client of a database."""

    instant = False

    def __init__(self, claims: MemoryClaims) -> None:
        self._claims = claims

    async def acquire(self, question: str, owner: str, lease: float, ttl: float, /) -> Claim:
        await asyncio.sleep(0)
        return self._claims.acquire(question, owner, lease, ttl)

    async def renew(self, question: str, owner: str, lease: float, ttl: float, /) -> bool:
        await asyncio.sleep(0)
        return self._claims.renew(question, owner, lease, ttl)

    async def update(self, question: str, owner: str, claim: Claim, lease: float, ttl: float, /) -> bool:
        await asyncio.sleep(0)
        return self._claims.update(question, owner, claim, lease, ttl)

    async def release(self, question: str, owner: str, /) -> None:
        await asyncio.sleep(0)
        self._claims.release(question, owner)


class TestMemoryClaims(ClaimStoreSuite):
    @pytest.fixture
    def steps(self) -> Steps:
        clock = Clock()
        return Steps(MemoryClaims(clock=clock), elapse=clock.elapse)


class TestSqliteClaims(ClaimStoreSuite):
    @pytest.fixture
    def steps(self, tmp_path: Path) -> Iterator[Steps]:
        clock = Clock()
        with SqliteClaims(tmp_path / "claims.sqlite", wall_clock=clock, monotonic=clock) as store:
            yield Steps(store, elapse=clock.elapse)


class TestAsyncClaims(ClaimStoreSuite):
    @pytest.fixture
    def steps(self) -> Iterator[Steps]:
        clock = Clock()
        with asyncio.Runner() as runner:
            yield Steps(AsyncClaims(MemoryClaims(clock=clock)), runner=runner, elapse=clock.elapse)
