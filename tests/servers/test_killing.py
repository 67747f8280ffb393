"""The killing test over Redis and PostgreSQL, and a restart of the server instead of the replicas."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.replicas.killing import Scenario, check, scenarios
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis

RUNNING = Scenario(replicas=4, deadline=5.0, sorts=())


@pytest.mark.parametrize("scenario", scenarios(), ids=str)
def test_nothing_is_lost_over_redis(scenario: Scenario, redis: Redis, tmp_path: Path) -> None:
    check(scenario, redis.url, tmp_path)


@pytest.mark.parametrize("scenario", scenarios(), ids=str)
def test_nothing_is_lost_over_postgresql(scenario: Scenario, postgres: Postgres, tmp_path: Path) -> None:
    check(scenario, postgres.url, tmp_path)


def test_nothing_is_lost_when_redis_is_killed_and_started(redis: Redis, tmp_path: Path) -> None:
    check(RUNNING, redis.url, tmp_path, meanwhile=redis.restart)


def test_nothing_is_lost_when_postgresql_is_killed_and_started(postgres: Postgres, tmp_path: Path) -> None:
    check(RUNNING, postgres.url, tmp_path, meanwhile=postgres.restart)
