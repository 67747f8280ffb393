"""A server of each kind for the tests of this folder, which `nox -s stores` runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from optimove_conditional_execution.stores.postgres import PostgresJournal
from tests.servers.claims import Claims, Server, claims_of, clear
from tests.servers.journals import TABLES
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
def journal_server(postgres: Postgres) -> Postgres:
    """A PostgreSQL without the journal's tables."""
    with psycopg.connect(postgres.conninfo) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLES}")
    return postgres


@pytest.fixture
def journal(journal_server: Postgres) -> Iterator[PostgresJournal]:
    """A journal in it."""
    with PostgresJournal(journal_server.url) as journal:
        yield journal


@pytest.fixture
def other(journal_server: Postgres) -> Iterator[PostgresJournal]:
    """The same journal, as another process has it."""
    with PostgresJournal(journal_server.conninfo) as journal:
        yield journal


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop of its own."""
    with asyncio.Runner() as runner:
        yield runner
