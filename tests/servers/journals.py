"""What the tests of the journal in PostgreSQL do to its server."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg

from tests.servers.postgres import Postgres
from tests.servers.processes import PATIENCE

TABLES = "optimove_reviews, optimove_review_batches"


def until(condition: Callable[[], object]) -> None:
    """Wait for what the server does in a moment."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def locks(server: Postgres) -> list[int]:
    """Return the backends that hold a lock of a review."""
    with psycopg.connect(server.conninfo) as connection:
        query = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted"
        return [pid for (pid,) in connection.execute(query).fetchall()]


def terminate(server: Postgres) -> None:
    """End the connection that holds the locks, until they are free: a review may have locked its own again."""

    def are_free() -> bool:
        holders = locks(server)
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            for pid in holders:
                connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
        return not holders

    until(are_free)
