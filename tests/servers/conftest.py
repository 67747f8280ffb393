"""A server of each kind for the tests of this folder, which `nox -s stores` runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.servers.claims import Claims, Server, claims_of, clear
from tests.servers.postgres import Postgres, running_postgres
from tests.servers.redis import Redis, running_redis


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL that runs; a test that stops it starts it again."""
    with running_postgres() as running:
        yield running


@pytest.fixture(scope="session")
def redis() -> Iterator[Redis]:
    """A Redis that runs; a test that stops it starts it again."""
    with running_redis() as running:
        yield running


@pytest.fixture(params=["redis", "postgres"])
def server(request: pytest.FixtureRequest) -> Server:
    """A server of each kind without claims."""
    running: Server = request.getfixturevalue(request.param)
    clear(running)
    return running


@pytest.fixture
def claims(server: Server) -> Iterator[Claims]:
    """A store on it."""
    store = claims_of(server.url)
    yield store
    store.close()


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop of its own."""
    with asyncio.Runner() as runner:
        yield runner
