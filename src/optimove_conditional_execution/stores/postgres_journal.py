"""The journal in PostgreSQL, for reviews that go on on another machine (extra `postgres`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Final, TypeVar, final

from ..errors import ConfigurationError
from ..flows.journal import DecidedBatch, Entry, OpenReview, Ranges, ReviewState, StatusUpdate
from ..fork import detect_fork, reset_after_fork
from ..models.events import CampaignReadyEvent
from ..tracebacks import sensitive_variables
from ..transport.connection_pool import ConnectionPool
from .journals import (
    BATCHES_AT_ONCE,
    check_naive,
    check_ranges,
    clearance_text,
    in_portions,
    is_announced_in,
    superseded,
    text_and_digest,
    unknown_review,
)
from .postgres_connection import (
    BUSY_SECONDS,
    Session,
    checked_conninfo,
    psycopg,
    psycopg_pool,
    transact,
)
from .postgres_locks import AdvisoryLocks, connect_directly
from .postgres_schema import JOURNAL_SCHEMA
from .remote import MAX_CONNECTIONS

T = TypeVar("T")
Cursor = psycopg.Cursor[Any]

# The server ends the session of a process that was frozen in the middle, whose row would stay locked for others.
_NOT_IDLE: Final = "set_config('idle_in_transaction_session_timeout', '60s', true)"
_LOCK: Final = f"SELECT id, run, {_NOT_IDLE} FROM optimove_reviews WHERE key = %s FOR UPDATE"  # noqa: S608 - our own
_START: Final = f"""
UPDATE optimove_reviews SET run = DEFAULT WHERE key = %s RETURNING run, CASE WHEN finished THEN report END, {_NOT_IDLE}
"""  # noqa: S608 - our own


@final
class PostgresJournal(AbstractContextManager["PostgresJournal"]):
    """A journal in PostgreSQL, shared by processes on any number of machines: each can resume what another has left.

    It is kept in the tables `optimove_reviews` and `optimove_review_batches`, which are created at first use, if the
    role may; otherwise run what `optimove-ce schema` prints. They hold ids of customers until `prune`.

    The lock of a review is a session advisory lock, on one connection for all reviews that are open here. It is free as
    soon as the server sees that the connection has ended: at once when the process dies, within 25 s when its machine
    vanishes. A run whose lock is lost tries to lock the review again, within a second of its writing; when another run
    has opened the review since, it is superseded, and stops. Needs PostgreSQL 14, without a pooler in between. Safe for
    threads, for asyncio, and after a fork.
    """

    @sensitive_variables
    def __init__(self, conninfo_or_pool: str | psycopg_pool.ConnectionPool) -> None:
        """Lazy: nothing is connected until first use.

        Args:
            conninfo_or_pool: `postgresql://user:password@host/database`, or `host=... user=...`, as libpq takes it,
                options for TLS included. Or a `psycopg_pool.ConnectionPool` of your own, of two connections or more:
                while reviews are open, the journal keeps one of them. A pool of psycopg logs host, port and user when
                the server cannot be reached; and TCP keepalives are then yours to set.

        Raises:
            ConfigurationError: Here, that the conninfo is invalid, or the pool too small or an `AsyncConnectionPool`;
                at first use, that PostgreSQL refuses it: a wrong password, a database, a table or a permission that is
                missing, a read-only replica, a pooler in between.
            ConnectionError: In all methods: PostgreSQL cannot be reached, cannot do it now, or has not replied for 10 s
                (5 minutes to what prunes). It can be tried again.
        """
        if isinstance(conninfo_or_pool, psycopg_pool.AsyncConnectionPool):
            raise ConfigurationError(
                "PostgresJournal is called in threads: give it a conninfo, or a psycopg_pool.ConnectionPool."
            )
        if isinstance(conninfo_or_pool, psycopg_pool.ConnectionPool):
            given = conninfo_or_pool
            if given.max_size == 1:
                raise ConfigurationError(
                    "The pool needs max_size=2 or more: one connection holds the locks of reviews."
                )
            self._make = lambda: Session(JOURNAL_SCHEMA, pool=given, timeout=BUSY_SECONDS)
            self._locks = AdvisoryLocks(lambda: given.getconn(BUSY_SECONDS), given.putconn)
        else:
            conninfo = checked_conninfo(conninfo_or_pool)
            self._make = lambda: Session(JOURNAL_SCHEMA, conninfo)
            self._locks = AdvisoryLocks(lambda: connect_directly(conninfo), psycopg.Connection[Any].close, is_ours=True)
        self._pool: ConnectionPool[Session] = ConnectionPool(MAX_CONNECTIONS, self._make)
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Leave the parent its connections, and its locks."""
        self._pool = ConnectionPool(MAX_CONNECTIONS, self._make)
        self._locks.after_fork()

    def add(self, event: CampaignReadyEvent, /) -> bool:
        """Add an announced campaign; see `Journal.add`."""
        return self._transaction(lambda cursor: _add(cursor, event))

    def open(self, event: CampaignReadyEvent, /) -> OpenReview | None:
        """Lock a review for one run; see `Journal.open`."""
        key = event.key
        self.add(event)  # before the lock, which needs the table
        if not self._locks.take(key):
            return None

        def work(cursor: Cursor) -> OpenReview:
            _add(cursor, event)
            run, report, _ = cursor.execute(_START, (key,)).fetchone() or (0, None, "")
            others = cursor.execute(
                "SELECT event FROM optimove_reviews WHERE clearance = %s AND key <> %s", (clearance_text(event), key)
            ).fetchall()
            return OpenReview(run, tuple(_acknowledged(cursor, key)), report, is_announced_in(others, event))

        try:
            return self._transaction(work)
        except BaseException:
            self._locks.leave(key)
            raise

    def unlock(self, key: str, /) -> None:
        """Release the lock of a review; see `Journal.unlock`."""
        self._locks.leave(key)

    def record(self, key: str, batches: Sequence[DecidedBatch], /, *, run: int | None = None) -> None:
        """Append decided batches; see `Journal.record`.

        Raises:
            OptimoveError: The journal has no such review.
            SupersededError: A later run has opened the review.
        """

        def work(cursor: Cursor, review: int) -> None:
            decided = approved = 0
            for batch in batches:
                if _append(cursor, review, batch):
                    decided += batch.newly_decided
                    approved += batch.newly_approved
            cursor.execute(
                "UPDATE optimove_reviews SET decided = decided + %s, approved = approved + %s WHERE id = %s",
                (decided, approved, review),
            )

        self._write(key, run, work)

    def batches(self, key: str, /) -> Iterator[DecidedBatch]:
        """Yield all batches, read in small portions; concurrent writes are allowed. See `Journal.batches`."""
        return (entry for entry in self.history(key) if isinstance(entry, DecidedBatch))

    def history(self, key: str, /) -> Iterator[Entry]:
        """Yield all batches and status updates, with their times; see `JournalHistory.history`."""
        statement = (
            "SELECT number, batch FROM optimove_review_batches"
            " WHERE review = (SELECT id FROM optimove_reviews WHERE key = %s) AND number > %s ORDER BY number LIMIT %s"
        )

        def read(last: int) -> list[tuple[int, str]]:
            values = (key, last, BATCHES_AT_ONCE)
            return self._transaction(lambda cursor: cursor.execute(statement, values).fetchall())

        return in_portions(read)

    def acknowledge(self, key: str, ranges: Ranges, /, *, run: int | None = None) -> None:
        """Record which statuses Optimove has acknowledged; see `Journal.acknowledge`.

        Raises:
            OptimoveError: The journal has no such review, or a range is empty.
            SupersededError: A later run has opened the review.
        """
        check_ranges(ranges)
        added = ",".join(f"[{start},{end})" for start, end in ranges)
        statement = "UPDATE optimove_reviews SET acknowledged = acknowledged + %s::int8multirange WHERE id = %s"

        def work(cursor: Cursor, review: int) -> None:
            if ranges:
                _append(cursor, review, StatusUpdate(tuple(ranges)))
            cursor.execute(statement, (f"{{{added}}}", review))

        self._write(key, run, work)

    def acknowledged(self, key: str, /, *, run: int | None = None) -> Ranges:
        """Return the ranges of statuses that Optimove has acknowledged; see `Journal.acknowledged`.

        Raises:
            SupersededError: A later run has opened the review.
        """

        def work(cursor: Cursor) -> Ranges:
            latest = cursor.execute("SELECT run FROM optimove_reviews WHERE key = %s", (key,)).fetchone()
            if run is not None and latest != (run,):
                raise superseded()
            return _acknowledged(cursor, key)

        self._look(run)
        return self._transaction(work)

    def finish(self, key: str, report: str, /, *, run: int | None = None) -> None:
        """Record that the review is complete; see `Journal.finish`.

        Raises:
            OptimoveError: The journal has no such review.
            SupersededError: A later run has opened the review.
        """
        statement = "UPDATE optimove_reviews SET report = %s, finished = true WHERE id = %s AND NOT finished"
        self._write(key, run, lambda cursor, review: cursor.execute(statement, (report, review)))

    def keep_report(self, key: str, report: str, /, *, run: int | None = None) -> None:
        """Keep the report of a run that leaves the review incomplete; see `Journal.keep_report`.

        Raises:
            OptimoveError: The journal has no such review.
            SupersededError: A later run has opened the review.
        """
        statement = "UPDATE optimove_reviews SET report = %s WHERE id = %s AND NOT finished"
        self._write(key, run, lambda cursor, review: cursor.execute(statement, (report, review)))

    def unfinished(self) -> list[CampaignReadyEvent]:
        """Return the events of unfinished reviews, in the order of `add`."""
        rows = self._transaction(
            lambda cursor: cursor.execute(
                "SELECT event FROM optimove_reviews WHERE NOT finished ORDER BY id"
            ).fetchall()
        )
        return [CampaignReadyEvent.from_json(event) for (event,) in rows]

    def reviews(self) -> list[ReviewState]:
        """Return all reviews, in the order of `add`."""
        rows = self._transaction(
            lambda cursor: cursor.execute(
                "SELECT event, decided, approved, (SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint"
                " FROM unnest(acknowledged) AS r), finished, report FROM optimove_reviews ORDER BY id"
            ).fetchall()
        )
        return [ReviewState(CampaignReadyEvent.from_json(event), *state) for event, *state in rows]

    def prune(self, before: datetime, /) -> int:
        """Delete old finished reviews; see `Journal.prune`.

        Raises:
            ConfigurationError: `before` has a zone.
        """
        check_naive(before)
        return self._transaction(
            lambda cursor: (
                cursor.execute(
                    "DELETE FROM optimove_reviews WHERE finished AND clearance < %s", (before.isoformat(),)
                ).rowcount
            ),
            is_long=True,
        )

    def close(self) -> None:
        """Close the connections, which releases the locks of all reviews; the next use opens new ones."""
        detect_fork()
        self._locks.close()
        pool, self._pool = self._pool, ConnectionPool(MAX_CONNECTIONS, self._make)
        for session in pool.clients():
            session.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, key: str, run: int | None, work: Callable[[Cursor, int], object]) -> None:
        """Write to a review, one transaction after another, unless a later run has opened it."""

        def fenced(cursor: Cursor) -> None:
            row = cursor.execute(_LOCK, (key,)).fetchone()
            if row is None:
                raise unknown_review()
            review, latest, _ = row
            if run is not None and latest != run:
                raise superseded()
            work(cursor, review)

        self._look(run)
        self._transaction(fenced)

    def _look(self, run: int | None) -> None:
        if run is not None:
            self._locks.look()

    def _transaction(self, work: Callable[[Cursor], T], *, is_long: bool = False) -> T:
        detect_fork()
        return transact(self._pool, work, is_long=is_long)


def _add(cursor: Cursor, event: CampaignReadyEvent) -> bool:
    cursor.execute(
        "INSERT INTO optimove_reviews (key, event, clearance, run) VALUES (%s, %s, %s, 0) ON CONFLICT (key) DO NOTHING",
        (event.key, event.model_dump_json(by_alias=True), clearance_text(event)),
    )
    return cursor.rowcount == 1


def _append(cursor: Cursor, review: int, entry: Entry) -> bool:
    text, digest = text_and_digest(entry)
    cursor.execute(
        "INSERT INTO optimove_review_batches (review, digest, batch) VALUES (%s, %s, %s)"
        " ON CONFLICT (review, digest) DO NOTHING",
        (review, digest, text),
    )
    return cursor.rowcount == 1


def _acknowledged(cursor: Cursor, key: str) -> list[tuple[int, int]]:
    return cursor.execute(
        "SELECT lower(r), upper(r) FROM optimove_reviews, unnest(acknowledged) AS r WHERE key = %s ORDER BY 1", (key,)
    ).fetchall()
