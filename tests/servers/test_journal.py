"""The journal in PostgreSQL: what every journal does, and what the server and its connections do to it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from optimove_conditional_execution.stores import Journal
from optimove_conditional_execution.stores.postgres import PostgresJournal
from tests.servers.postgres import Postgres
from tests.stores.journal_suite import JournalSuite


@pytest.fixture
def server(postgres: Postgres) -> Postgres:
    """A PostgreSQL without the journal's tables."""
    with psycopg.connect(postgres.conninfo) as connection:
        connection.execute("DROP TABLE IF EXISTS optimove_reviews, optimove_review_batches")
    return postgres


class TestInPostgres(JournalSuite):
    @pytest.fixture
    def journal(self, server: Postgres) -> Iterator[Journal]:
        with PostgresJournal(server.conninfo) as journal:
            yield journal
