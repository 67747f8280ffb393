"""A database that is restarted while a gate runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request
from tests.adapters.servers import gunicorn_command, running
from tests.servers.postgres import Postgres


@pytest.mark.parametrize(
    ("options", "lost"),
    [
        ({"CONN_MAX_AGE": 0}, 0),
        ({"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}, 0),
        ({"CONN_MAX_AGE": 60}, 1),  # the first to meet the broken connection, as in any view of Django
    ],
    ids=["a connection a call", "kept and checked", "kept"],
)
def test_a_gate_in_django_recovers_when_its_database_was_restarted(
    options: dict[str, Any],
    lost: int,
    postgres: Postgres,
    fake_optimove: FakeOptimove,
    optimove_url: str,
    tmp_path: Path,
) -> None:
    environment = {
        "OPTIMOVE_API_KEY": fake_optimove.api_key,
        "OPTIMOVE_BASE_URL": optimove_url,
        "OPTIMOVE_WEBHOOK_SECRET": str(fake_optimove.secret),
        "POSTGRES_PORT": str(postgres.port),
        "DATABASE_OPTIONS": json.dumps(options),
    }

    def ask() -> bool:
        payload = notification("C1", timeout_ms=30_000)
        question = fake_optimove.expect(payload)
        request = signed_request(payload, secret=fake_optimove.secret, path="/optimove")
        answer = httpx.post(f"{gate.url}/optimove", content=request.body, headers=list(request.headers), timeout=60)
        assert answer.status_code == 200
        return question.approved

    command = gunicorn_command("tests.servers.apps:django_gate()")
    with running(command, log=tmp_path / "log", environment=environment) as gate:
        assert httpx.get(f"{gate.url}/optimove", timeout=60).status_code == 405  # it is up
        assert [ask() for _ in range(3)] == [True] * 3, gate.printed()
        postgres.restart()
        assert [ask() for _ in range(6)] == [False] * lost + [True] * (6 - lost), gate.printed()
        with psycopg.connect(postgres.conninfo) as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE client_port IS NOT NULL AND pid <> pg_backend_pid()"
            (count,) = connection.execute(query).fetchone() or (None,)
        assert count == (0 if options["CONN_MAX_AGE"] == 0 else 1)
