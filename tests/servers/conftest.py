"""A server of each kind for the tests of this folder, which `nox -s servers` runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

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
