"""A PostgreSQL that keeps its connections and answers nothing: nobody waits for it for ever."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import psycopg_pool
import pytest

from optimove_conditional_execution import StoreError
from optimove_conditional_execution.stores import postgres_connection, postgres_journal
from optimove_conditional_execution.stores.postgres import PostgresClaims, PostgresDecisionLog, PostgresJournal
from tests.servers.journals import TABLES
from tests.servers.pgbouncer import running_pgbouncer
from tests.servers.postgres import Postgres
from tests.stores.claim_suite import Steps
from tests.stores.decision_log_suite import record
from tests.stores.journal_suite import EVENT, KEY, batch, opened

Given = Callable[[int], Any]


@pytest.fixture
def server(postgres: Postgres) -> Postgres:
    """A PostgreSQL without tables."""
    with psycopg.connect(postgres.conninfo) as connection:
        connection.execute(
            f"DROP TABLE IF EXISTS optimove_claims, {TABLES}, optimove_decision_log, optimove_decision_log_head"
        )
    return postgres


@pytest.fixture(params=["conninfo", "pool"])
def given(request: pytest.FixtureRequest, server: Postgres) -> Iterator[Given]:
    """What a store is given: a conninfo, or a pool of the user's, of so many connections at most."""
    with contextlib.ExitStack() as stack:

        def pool(size: int) -> psycopg_pool.ConnectionPool:
            return stack.enter_context(psycopg_pool.ConnectionPool(server.conninfo, min_size=1, max_size=size))

        yield pool if request.param == "pool" else lambda _: server.conninfo


@contextlib.contextmanager
def frozen(server: Postgres) -> Iterator[None]:
    """Freeze all connections that there are; their kernel still takes, and acknowledges, whatever they are sent."""
    with psycopg.connect(server.conninfo) as connection:
        query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        pids = [pid for (pid,) in connection.execute(query).fetchall()]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def unanswered(error: type[Exception] = ConnectionError) -> Iterator[None]:
    """Expect what goes wrong without a reply, which is waited for for a moment only."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("BUSY_SECONDS", "_LONG_SECONDS", "_STATEMENT_SECONDS"):
            patch.setattr(postgres_connection, name, 0.2)
        patch.setattr(postgres_journal, "BUSY_SECONDS", 0.2)
        with pytest.raises(error, match="does not answer in time"):
            yield


def test_a_decision_log(server: Postgres, given: Given) -> None:
    with PostgresDecisionLog(given(1)) as log:
        log.append([record(1)])
        with frozen(server):
            with unanswered():
                log.append([record(2)])
            log.append([record(3)])  # on another connection, while those are still frozen
        with frozen(server), unanswered():
            log.verify()
        assert log.verify() is None
        assert [each.record.request_uid for each in log.decisions()] == ["r-1", "r-3"]


def test_a_pooler_answers_for_a_server_that_does_not(server: Postgres) -> None:
    with running_pgbouncer(server, "transaction") as url, PostgresDecisionLog(url) as log:
        log.append([record(1)])
        with frozen(server):
            with unanswered():
                log.append([record(2)])
            log.append([record(3)])
        assert log.verify() is None
        assert [each.record.request_uid for each in log.decisions()] == ["r-1", "r-3"]


def test_claims_in_threads(server: Postgres, given: Given) -> None:
    with contextlib.closing(PostgresClaims(given(1))) as claims:
        steps = Steps(claims)
        assert steps.acquire().mine
        with frozen(server):
            with unanswered(StoreError):
                steps.acquire(question="another")
            assert steps.acquire(question="a third").mine


@pytest.mark.parametrize("is_pooled", [False, True])
def test_claims_in_an_event_loop(server: Postgres, is_pooled: bool) -> None:
    async def check(claims: PostgresClaims) -> None:
        store: Any = claims.asynchronous
        assert (await store.acquire("q", "a", 5.0, 5.0)).mine
        with frozen(server):
            with unanswered(StoreError):
                await store.acquire("another", "a", 5.0, 5.0)
            assert (await store.acquire("a third", "a", 5.0, 5.0)).mine

    async def run() -> None:
        if not is_pooled:
            await check(PostgresClaims(server.conninfo))
            return
        async with psycopg_pool.AsyncConnectionPool(server.conninfo, min_size=1, max_size=1) as pool:
            await check(PostgresClaims(pool))

    asyncio.run(run())


def test_a_journal_and_its_locks(server: Postgres, given: Given) -> None:
    with PostgresJournal(given(2)) as journal:
        run = opened(journal)
        journal.record(KEY, [batch(1)], run=run)
        with frozen(server):
            with unanswered():
                list(journal.batches(KEY))
            journal.add(another := EVENT.model_copy(update={"campaign_id": 4_711}))
            with unanswered():
                journal.open(another)  # the connection that holds the locks
        journal.record(KEY, [batch(2)], run=run)
        assert list(journal.batches(KEY)) == [batch(1), batch(2)]
