"""The journal in PostgreSQL when the server is not the right one, or is given in an odd way."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import psycopg
import psycopg_pool
import pytest
from click.testing import CliRunner
from psycopg.rows import dict_row

from optimove_conditional_execution import (
    ConfigurationError,
)
from optimove_conditional_execution.cli.tools import schema
from optimove_conditional_execution.stores.postgres import PostgresJournal
from tests.servers.claims import IN_URL, SECRET, guarded
from tests.servers.journals import TABLES, locks, terminate
from tests.servers.pgbouncer import running_pgbouncer
from tests.servers.postgres import GUARDED, Postgres
from tests.stores.journal_suite import (
    ANOTHER,
    EVENT,
    KEY,
    batch,
    in_threads,
    opened,
)


@pytest.fixture
def server(journal_server: Postgres) -> Postgres:
    """A PostgreSQL without the journal's tables."""
    return journal_server


# ---- what is wrong with the server, or with what was given


def shown(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    assert not any(secret in text for secret in (SECRET, IN_URL, GUARDED, "127.0.0.1", "localhost")), text
    return str(error)


def refusal(journal: PostgresJournal) -> str:
    """Return why an event is refused, and will be."""
    with journal, pytest.raises(ConfigurationError) as caught:
        journal.open(EVENT)
    return shown(caught.value)


def test_a_server_that_is_away_is_worth_another_try(server: Postgres, journal: PostgresJournal) -> None:
    run = opened(journal)
    server.stop()
    try:
        uses: list[Callable[[], object]] = [
            lambda: journal.open(ANOTHER),
            lambda: journal.record(KEY, [batch(1)], run=run),
            lambda: journal.acknowledged(KEY, run=run),
            journal.reviews,
        ]
        for use in uses:
            with pytest.raises(ConnectionError, match="cannot be reached") as caught:
                use()
            shown(caught.value)
    finally:
        server.start()
    journal.record(KEY, [batch(1)], run=run)
    assert journal.open(ANOTHER), "not locked by the try that failed"


def test_a_wrong_password(server: Postgres) -> None:
    with guarded(server) as url:
        assert "refuses the user or the password" in refusal(PostgresJournal(url("wrong")))


def test_tables_that_another_role_has_created(server: Postgres) -> None:
    printed = CliRunner().invoke(schema)
    assert printed.exit_code == 0
    with guarded(server) as url:
        assert "optimove-ce schema" in refusal(PostgresJournal(url(IN_URL)))
        with psycopg.connect(server.conninfo) as connection:
            connection.execute(printed.output)
        assert "GRANT SELECT, INSERT, UPDATE, DELETE" in refusal(PostgresJournal(url(IN_URL)))
        with psycopg.connect(server.conninfo) as connection:
            connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {TABLES} TO {GUARDED}")
        with PostgresJournal(url(IN_URL)) as journal:
            run = opened(journal)
            journal.record(KEY, [batch(1)], run=run)
            journal.finish(KEY, "{}", run=run)
            assert journal.prune(EVENT.clearance_required_by.replace(year=2100)) == 1
            assert list(journal.batches(KEY)) == []


def test_tables_of_another_version(server: Postgres) -> None:
    with psycopg.connect(server.conninfo) as connection:
        connection.execute("CREATE TABLE optimove_reviews (key text PRIMARY KEY)")
    assert "compare it with what `optimove-ce schema` prints" in refusal(PostgresJournal(server.url))


def test_a_read_only_server(server: Postgres, journal: PostgresJournal) -> None:
    journal.add(EVENT)
    read_only = PostgresJournal(f"{server.conninfo} options='-c default_transaction_read_only=on'")
    assert "takes no writes, as a replica" in refusal(read_only)


def test_a_database_that_does_not_exist(server: Postgres) -> None:
    assert "no such database" in refusal(PostgresJournal(server.url.rpartition("/")[0] + "/99"))


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_a_pooler_is_refused(server: Postgres, mode: str) -> None:
    with running_pgbouncer(server, mode, size=2) as url:
        assert "a conninfo that leads to PostgreSQL itself" in refusal(PostgresJournal(url))
        with psycopg_pool.ConnectionPool(url, min_size=2, open=True) as pool:
            assert "a conninfo that leads to PostgreSQL itself" in refusal(PostgresJournal(pool))
    assert not locks(server)


@pytest.mark.parametrize("autocommit", [False, True])
def test_pools_of_psycopg(server: Postgres, other: PostgresJournal, autocommit: bool) -> None:
    given: dict[str, Any] = {"row_factory": dict_row, "autocommit": autocommit}
    with psycopg_pool.ConnectionPool(server.conninfo, kwargs=given, min_size=2, max_size=2, open=True) as pool:
        journal = PostgresJournal(pool)
        run = opened(journal)
        assert other.open(EVENT) is None
        in_threads(4, lambda: journal.record(KEY, [batch(1)], run=run))
        journal.acknowledge(KEY, [(0, 2)], run=run)
        assert list(journal.batches(KEY)) == [batch(1)]
        journal.unlock(KEY)
        assert other.open(EVENT)
        assert pool.get_stats()["pool_available"] == 2, "all are given back"
        assert journal.open(ANOTHER)
        terminate(server)
        journal.unlock(ANOTHER.key)
        assert journal.open(ANOTHER)
        journal.close()
        assert other.open(ANOTHER)
        assert not pool.closed


def test_what_cannot_be_a_journal(server: Postgres) -> None:
    with pytest.raises(ConfigurationError, match="called in threads"):
        PostgresJournal(psycopg_pool.AsyncConnectionPool(server.conninfo, open=False))  # type: ignore[arg-type]
    with (
        psycopg_pool.ConnectionPool(server.conninfo, min_size=1, max_size=1, open=False) as pool,
        pytest.raises(ConfigurationError, match="max_size=2"),
    ):
        PostgresJournal(pool)
    for invalid in ("", "postgresql://[", 5):
        with pytest.raises(ConfigurationError, match="conninfo"):
            PostgresJournal(invalid)  # type: ignore[arg-type]
