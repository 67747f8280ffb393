"""The killing test over Redis and PostgreSQL, and a restart of the server instead of the replicas."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.replicas.killing import Scenario, run, scenarios
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis

RUNNING = Scenario(replicas=4, deadline=5.0, sorts=())


@pytest.mark.parametrize("scenario", scenarios(), ids=str)
def test_nothing_is_lost_over_redis(scenario: Scenario, redis: Redis, tmp_path: Path) -> None:
    report = run(scenario, redis.url, tmp_path)
    print(report)
    report.check()


@pytest.mark.parametrize("scenario", scenarios(), ids=str)
def test_nothing_is_lost_over_postgresql(scenario: Scenario, postgres: Postgres, tmp_path: Path) -> None:
    report = run(scenario, postgres.url, tmp_path)
    print(report)
    report.check()


def test_nothing_is_lost_when_redis_is_killed_and_started(redis: Redis, tmp_path: Path) -> None:
    report = run(RUNNING, redis.url, tmp_path, meanwhile=redis.restart)
    print(report)
    report.check()


def test_nothing_is_lost_when_postgresql_is_killed_and_started(postgres: Postgres, tmp_path: Path) -> None:
    report = run(RUNNING, postgres.url, tmp_path, meanwhile=postgres.restart)
    print(report)
    report.check()
