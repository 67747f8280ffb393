"""The journal in PostgreSQL, for reviews that go on on another machine, and its locks (extra `postgres`)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, LiteralString, TypeVar, final

from ..deadline import Deadline
from ..errors import ConfigurationError
from ..flows.journal import OpenReview, Ranges
from ..fork import detect_fork, reset_after_fork
from ..models.events import CampaignReadyEvent
from ..observers import SafeLogger
from ..tracebacks import sensitive_variables
from .journals import Execute, TableJournal
from .postgres_connection import (
    BACKEND,
    BUSY_SECONDS,
    INHERITED,
    WATCH,
    Cursor,
    Sessions,
    is_direct,
    leave,
    psycopg,
    psycopg_pool,
    translated,
    tuple_row,
)
from .postgres_schema import JOURNAL_SCHEMA

T = TypeVar("T")

# The server ends the session of a process that was frozen in the middle, whose row would stay locked for others.
_NOT_IDLE: Final = "set_config('idle_in_transaction_session_timeout', '60s', true)"
_BEGIN_RUN: Final = f"UPDATE optimove_reviews SET run = DEFAULT WHERE key = ? RETURNING run, {_NOT_IDLE}"  # noqa: S608 - our own


@final
class PostgresJournal(TableJournal, AbstractContextManager["PostgresJournal"]):
    """A journal in PostgreSQL, shared by processes on any number of machines: each can resume what another has left.

    It is kept in the tables `optimove_reviews` and `optimove_review_batches`, which are created at first use, if the
    role may; otherwise run what `optimove-ce schema` prints. They hold ids of customers until `prune`.

    The lock of a review is a session advisory lock, on one connection for all reviews that are open here. It is free as
    soon as the server sees that the connection has ended: at once when the process dies, within 25 s when its machine
    vanishes. A run whose lock is lost tries to lock the review again, within a second of its writing; when another run
    has opened the review since, it is superseded, and stops. Needs PostgreSQL 14, without a pooler in between. Safe for
    threads, for asyncio, and after a fork.
    """

    _reviews = "optimove_reviews"
    _batches = "optimove_review_batches"
    _runs = "optimove_reviews"
    _add_review = (
        "INSERT INTO optimove_reviews (key, event, clearance, run) VALUES (?, ?, ?, 0) ON CONFLICT (key) DO NOTHING"
    )
    _find = f"SELECT id, run, {_NOT_IDLE} FROM optimove_reviews WHERE key = ? FOR UPDATE"  # noqa: S608 - our own
    _ranges = "SELECT lower(r), upper(r) FROM optimove_reviews, unnest(acknowledged) AS r WHERE key = ? ORDER BY 1"
    _ranges_sum = "(SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM unnest(acknowledged) AS r)"
    _prune = ("DELETE FROM optimove_reviews WHERE finished AND clearance < ?",)

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
        if isinstance(conninfo_or_pool, psycopg_pool.ConnectionPool) and conninfo_or_pool.max_size == 1:
            raise ConfigurationError("The pool needs max_size=2 or more: one connection holds the locks of reviews.")
        self._sessions = Sessions(JOURNAL_SCHEMA, conninfo_or_pool)
        self._locks = self._advisory_locks = AdvisoryLocks(self._sessions.conninfo, self._sessions.pool)

    def open(self, event: CampaignReadyEvent, /) -> OpenReview | None:
        """Lock a review for one run; see `Journal.open`."""
        self.add(event)  # the lock needs the table
        return super().open(event)

    def close(self) -> None:
        """Close the connections, which releases the locks of all reviews; the next use opens new ones."""
        detect_fork()
        self._advisory_locks.close()
        self._sessions.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _transaction(self, work: Callable[[Execute], T], *, is_long: bool = False) -> T:
        return self._sessions.transact(lambda cursor: work(_executing(cursor)), is_long=is_long)

    def _look_at_locks(self) -> None:
        self._advisory_locks.look()

    def _begin_run(self, execute: Execute, key: str) -> int:
        found: list[tuple[int, str]] = execute(_BEGIN_RUN, (key,)).fetchall()
        return found[0][0] if found else 0  # it has just been pruned

    def _add_ranges(self, execute: Execute, review: int, ranges: Ranges) -> None:
        added = ",".join(f"[{start},{end})" for start, end in ranges)
        execute(
            "UPDATE optimove_reviews SET acknowledged = acknowledged + ?::int8multirange WHERE id = ?",
            (f"{{{added}}}", review),
        )


def _executing(cursor: Cursor) -> Execute:
    # The statements are our own, and hold no other `?`.
    return lambda statement, values=(): cursor.execute(statement.replace("?", "%s").encode(), values)


_LOGGER: Final = SafeLogger("review")

_LOOK_EVERY: Final = 1.0
"""Seconds between two looks at the connection that holds the locks, while a run writes."""

# The server ends the session of a machine that has vanished after 25 s, which by default takes it two hours; and after
# a minute that of a process that was frozen in the middle of a transaction, whose rows would stay locked.
_SETTINGS: Final = """
SELECT set_config('tcp_keepalives_idle', '10', false), set_config('tcp_keepalives_interval', '5', false),
    set_config('tcp_keepalives_count', '3', false), set_config('idle_in_transaction_session_timeout', '60s', false)
"""
_POOLER: Final = (
    "A pooler such as PgBouncer stands between the journal and PostgreSQL, and in transaction mode the lock of a "
    "review would be another client's. Give PostgresJournal a conninfo that leads to PostgreSQL itself, past the "
    "pooler: it needs few connections."
)

# The number of the table tells apart journals in several schemas of one database.
_NAME: Final = "hashtextextended(%s, 'optimove_reviews'::regclass::oid::bigint)"
_TRY_LOCK: Final = f"SELECT pg_try_advisory_lock({_NAME})"


class AdvisoryLocks:
    """The locks of the reviews that are open here, on one connection, which is opened with the first of them."""

    def __init__(self, conninfo: str, pool: psycopg_pool.ConnectionPool | None) -> None:
        """Connect when the first lock is acquired.

        Args:
            conninfo: From `checked_conninfo`.
            pool: A pool of the user's, instead.
        """
        self._conninfo = conninfo
        self._pool = pool
        self._connection: psycopg.Connection[Any] | None = None
        self._reset()
        reset_after_fork(self)

    def _reset(self) -> None:
        self._using = threading.Lock()
        self._held: set[str] = set()
        self._look_at = 0.0
        self._pid = os.getpid()

    def after_fork(self) -> None:
        """Leave the parent its locks."""
        connection, self._connection = self._connection, None
        if connection is not None:
            INHERITED.append(connection)
            if self._pool is None and not connection.closed:
                # Or the lock would outlive the parent, as long as this process holds its socket.
                with Path(os.devnull).open("rb") as nothing:
                    os.dup2(nothing.fileno(), connection.fileno())
        self._reset()

    def take(self, key: str) -> bool:
        """Acquire a lock; never waits for it."""
        detect_fork()
        with self._using:
            if key in self._held:
                return False
            try:
                if self._try_lock(key):
                    self._held.add(key)
            except (psycopg.Error, OSError) as error:
                raise translated(error, ConnectionError) from None
            finally:
                self._end_if_unused()
            return key in self._held

    def leave(self, key: str) -> None:
        """Release a lock, which the end of the connection does, too."""
        detect_fork()
        with self._using:
            if key not in self._held:
                return
            self._held.discard(key)
            self._unlock(key)
            self._end_if_unused()

    def look(self) -> None:
        """Acquire the locks again when their connection was lost; at most once a second."""
        detect_fork()
        if time.monotonic() < self._look_at or not self._using.acquire(blocking=False):
            return
        try:
            if not self._held:
                return
            self._look_at = time.monotonic() + _LOOK_EVERY
            with suppress(psycopg.Error, OSError, ConfigurationError):  # what is written next meets it, too
                if self._connection is not None:
                    with suppress(psycopg.OperationalError):
                        self._execute("SELECT %s::text", "")
                        return
                again = self._relock()
                _LOGGER.warning(
                    "the connection to PostgreSQL that held the locks of %d open reviews was lost; %d are locked again",
                    len(again),
                    sum(again),
                )
        finally:
            self._using.release()

    def close(self) -> None:
        """Release all."""
        with self._using:
            while self._held:
                self._unlock(self._held.pop())
            self._end_if_unused()

    def _unlock(self, key: str) -> None:
        if self._connection is not None:
            try:
                self._execute(f"SELECT pg_advisory_unlock({_NAME})", key)
            except (psycopg.Error, OSError):
                self._lose()

    def _try_lock(self, key: str) -> bool:
        if self._connection is not None:
            with suppress(psycopg.OperationalError):
                return self._execute(_TRY_LOCK, key)
        self._relock()
        return self._execute(_TRY_LOCK, key)

    def _relock(self) -> list[bool]:
        """Acquire all locks on a new connection, once each: twice acquired, they would have to be released twice."""
        self._lose()
        try:
            return [self._execute(_TRY_LOCK, key) for key in sorted(self._held)]
        except BaseException:
            self._lose()
            raise

    def _execute(self, statement: LiteralString, value: str) -> bool:
        if self._connection is None:
            if self._pool is None:
                self._connection = connect_directly(self._conninfo)
            else:
                self._connection = self._pool.getconn(BUSY_SECONDS)
                _check_direct(self._connection)
        with _transaction(self._connection) as cursor:
            cursor.execute(statement, (value,))
            return cursor.fetchone() == (True,)

    def _lose(self) -> None:
        """Close the connection, which may hold locks still; it must not come back to a pool with them."""
        if self._connection is not None:
            self._connection.close()
            self._end()

    def _end_if_unused(self) -> None:
        if not self._held:
            self._end()

    def _end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if self._pool is None:
                connection.close()
            else:
                self._pool.putconn(connection)

    def __del__(self) -> None:
        if self._pool is None:
            leave(self._connection, self._pid)


def connect_directly(conninfo: str) -> psycopg.Connection[Any]:
    """Open a connection.

    Raises:
        ConfigurationError: A pooler stands in between.
        psycopg.Error: It cannot be opened.
    """
    connection = psycopg.connect(conninfo, autocommit=True)
    try:
        _check_direct(connection)
        with _transaction(connection) as cursor:
            cursor.execute(_SETTINGS)
    except BaseException:
        connection.close()
        raise
    return connection


def _check_direct(connection: psycopg.Connection[Any]) -> None:
    with _transaction(connection) as cursor:
        if not is_direct(connection, cursor.execute(BACKEND).fetchone()):
            raise ConfigurationError(_POOLER)


@contextmanager
def _transaction(connection: psycopg.Connection[Any]) -> Iterator[psycopg.Cursor[Any]]:
    with WATCH.until(Deadline.after(BUSY_SECONDS), connection), connection.transaction():
        yield connection.cursor(row_factory=tuple_row)
