"""Claims in Redis and in PostgreSQL: what every store does, and what these do when their server misbehaves."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from typing import Any

import psycopg
import psycopg_pool
import pytest
import redis as redis_py

from optimove_conditional_execution import ConfigurationError, OptimoveError, StoreError, WebhookReceiver
from optimove_conditional_execution import AsyncWebhookReceiver
from optimove_conditional_execution.stores.postgres import PostgresClaims
from optimove_conditional_execution.stores.redis import RedisClaims
from optimove_conditional_execution.testing import FakeOptimove
from tests.conftest import forked, forked_in_c
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.stores.claim_suite import ClaimStoreSuite, Steps


@pytest.fixture
def claims(request: pytest.FixtureRequest) -> Iterator[RedisClaims | PostgresClaims]:
    """An empty store: its server is the class's `server`, or the parameter."""
    server = getattr(request, "param", None) or request.cls.server
    store = empty(request.getfixturevalue(server))
    yield store
    store.close()


def empty(server: Redis | Postgres) -> RedisClaims | PostgresClaims:
    if isinstance(server, Redis):
        with redis_py.Redis.from_url(server.url) as client:
            client.flushall()
        return RedisClaims(server.url)
    with psycopg.connect(server.conninfo) as connection:
        connection.execute("DROP TABLE IF EXISTS optimove_claims")
    return PostgresClaims(server.conninfo)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


class InThreads(ClaimStoreSuite):
    @pytest.fixture
    def steps(self, claims: RedisClaims | PostgresClaims) -> Steps:
        return Steps(claims)


class InAnEventLoop(ClaimStoreSuite):
    @pytest.fixture
    def steps(self, claims: RedisClaims | PostgresClaims, runner: asyncio.Runner) -> Steps:
        return Steps(claims.asynchronous, runner=runner)


class TestRedisInThreads(InThreads):
    server = "redis"


class TestRedisInAnEventLoop(InAnEventLoop):
    server = "redis"


class TestPostgresqlInThreads(InThreads):
    server = "postgres"


class TestPostgresqlInAnEventLoop(InAnEventLoop):
    server = "postgres"
