"""Locks of reviews in PostgreSQL, held by a connection; apart from the journal, which is long enough."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, LiteralString

from ..deadline import Deadline
from ..errors import ConfigurationError
from ..fork import detect_fork
from ..observers import SafeLogger
from .postgres_connection import (
    BACKEND,
    BUSY_SECONDS,
    INHERITED,
    WATCH,
    as_journal_error,
    is_direct,
    leave,
    psycopg,
    tuple_row,
)

LOGGER: Final = SafeLogger("review")

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

    def __init__(
        self,
        connect: Callable[[], psycopg.Connection[Any]],
        disconnect: Callable[[psycopg.Connection[Any]], None],
        *,
        is_ours: bool = False,
    ) -> None:
        """Connect when the first lock is acquired.

        Args:
            connect: Opens a connection.
            disconnect: Closes it, or gives it back.
            is_ours: Whether no pool of the user's knows it; `connect` then refuses a pooler itself.
        """
        self._make_connection = connect
        self._disconnect = disconnect
        self._is_ours = is_ours
        self._connection: psycopg.Connection[Any] | None = None
        self._reset()

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
            if self._is_ours and not connection.closed:
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
                raise as_journal_error(error) from None
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
                LOGGER.warning(
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
        if self._connection is None:
            self._relock()
        else:
            try:
                return self._execute(_TRY_LOCK, key)
            except psycopg.OperationalError:
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
            connection = self._make_connection()
            self._connection = connection
            if not self._is_ours:
                _check_direct(connection)
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
            self._disconnect(connection)

    def __del__(self) -> None:
        if self._is_ours:
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
