"""Connections to PostgreSQL for the stores (extra `postgres`): one at a time, or from a pool of the user's.

What psycopg raises can hold host, port, user and values, so it is told in words of our own.
"""

from __future__ import annotations

import functools
import os
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, LiteralString, TypeVar

from ..deadline import Deadline
from ..errors import ConfigurationError, DeadlineExceeded, StoreError
from ..flows.effects import Overloaded
from ..fork import detect_fork, reset_after_fork
from ..transport.connection_pool import ConnectionPool
from ..worker_pool import DaemonThreadPool
from .remote import ALL_IN_USE, MAX_CONNECTIONS, STEP_SECONDS

try:
    import psycopg
    import psycopg_pool
    from psycopg import conninfo as libpq
    from psycopg import errors
    from psycopg.rows import tuple_row
except ImportError as error:
    # Without libpq, psycopg says itself how to get it.
    from ..installation import install_hint

    raise ImportError(
        f"The stores in PostgreSQL need psycopg: {install_hint('postgres')}, and if "
        f'this machine has no libpq, "psycopg[binary]" ({str(error).splitlines()[0]})',
        name="psycopg",
    ) from None

__all__ = ["errors", "psycopg", "psycopg_pool", "tuple_row"]  # for the other modules, which do not import psycopg

T = TypeVar("T")
Outage = type[StoreError] | type[ConnectionError]

BACKEND: Final = "SELECT pg_backend_pid()"

BUSY_SECONDS: Final = 10.0
"""Seconds for which a log or a journal waits for a free connection, and for the replies to one transaction."""

_LONG_SECONDS: Final = 300.0
"""The same for a transaction that may have to search or change a whole table."""

_STATEMENT_SECONDS: Final = 5.0
"""Seconds for the reply to a step of a claim, whose caller gives up before."""

_ONE_AT_A_TIME: Final = "SELECT pg_advisory_xact_lock(hashtext('optimove_claims')); "
"""Before what creates tables, in one transaction: two at once would collide, IF NOT EXISTS or not."""

_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 2,  # libpq knows no shorter one
    # A server that is gone does not end a connection; a step that waits for its reply would occupy it for two hours.
    "tcp_user_timeout": 2_000,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "application_name": "optimove-conditional-execution",
}


Cursor = psycopg.Cursor[Any]
Connection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]


class _Watch:
    """Breaks connections that are in use at a deadline, in a thread that ends when there are none.

    psycopg waits for a reply for ever. TCP tells that the other end has vanished, see `_DEFAULTS`; but a server that is
    frozen keeps its connections, and so does a pooler whose server has vanished.
    """

    def __init__(self) -> None:
        self._pool = DaemonThreadPool(1, on_full="queue", name="optimove-postgres-watch")
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Leave the parent its connections."""
        self._lock = threading.Lock()
        self._used: dict[object, tuple[Connection, Deadline]] = {}
        self._is_watching = False

    @contextmanager
    def until(self, deadline: Deadline, connection: Connection) -> Iterator[None]:
        """Let a connection be used until a deadline.

        Raises:
            TimeoutError: A reply had not come by then.
        """
        use = object()
        try:
            with self._lock:
                self._used[use] = connection, deadline
                if not self._is_watching:
                    with suppress(Overloaded):  # no thread can be started, as at the end of the process
                        self._pool.submit(self._work, ())
                        self._is_watching = True
            yield
        except psycopg.OperationalError:
            if deadline.expired:
                raise TimeoutError from None
            raise
        finally:
            with self._lock:
                self._used.pop(use, None)

    def _work(self) -> None:
        while True:
            with self._lock:  # so that nobody closes one meanwhile, and another has its number
                for connection, deadline in self._used.values():
                    if deadline.expired:
                        _break(connection)
                if not self._used:
                    self._is_watching = False
                    return
            time.sleep(_WATCH_EVERY)


WATCH: Final = _Watch()
_WATCH_EVERY: Final = 0.5


def _break(connection: Connection) -> None:
    """End a connection's socket, so that whoever waits for a reply gets an error; it is still to be closed."""
    with suppress(Exception):  # whatever it is, the others are watched on
        used = socket.socket(fileno=connection.fileno())
        try:
            used.shutdown(socket.SHUT_RDWR)
        finally:
            used.detach()


class _Connections:
    """One connection, opened when it is needed and whenever it was lost; or a pool of the user's."""

    def __init__(self, schema: LiteralString, conninfo: str = "", *, pool: Any = None) -> None:
        """Lazy. The schema is what creates the tables, if there are none; a pool is the user's, and in place of one."""
        self._create: LiteralString = _ONE_AT_A_TIME + schema
        self._conninfo = conninfo
        self._pool = pool
        self._connection: Any = None
        self._prepare: bool | None = None  # of the user's connections: as they are set up
        self._held: list[Connection] = []
        # Not by `__del__`: in a cycle of references the connection can be finalized before, and psycopg would warn.
        weakref.finalize(self, _leave_all, self._held, os.getpid()).atexit = False


def _leave_all(held: list[Connection], pid: int) -> None:
    for connection in held:
        leave(connection, pid)


class Session(_Connections):
    """For threads."""

    _pool: psycopg_pool.ConnectionPool | None
    _connection: psycopg.Connection[Any] | None

    def run(self, statement: LiteralString, values: dict[str, Any]) -> Any:
        """Execute a statement; return its first row, if there is one.

        Raises:
            TimeoutError: The server has not replied within a few seconds.
        """
        is_used = self._connection is not None
        deadline = Deadline.after(_STATEMENT_SECONDS)
        try:
            return self._execute(deadline, statement, values)
        except errors.UndefinedTable:
            self._execute(deadline, self._create)
        except psycopg.OperationalError:
            # That the server has ended an idle connection says nothing about the server.
            if not is_used:
                raise
        return self._execute(deadline, statement, values)

    def transaction(self, work: Callable[[Cursor], T], deadline: Deadline) -> T:
        """Call a function with a cursor, in a transaction; from the start again when its tables were missing.

        Raises:
            TimeoutError: The server has not replied by the deadline.
        """
        try:
            return self._transact(work, deadline)
        except errors.UndefinedTable:
            self._transact(lambda cursor: cursor.execute(self._create, prepare=False), deadline)
        return self._transact(work, deadline)

    def _transact(self, work: Callable[[Cursor], T], deadline: Deadline) -> T:
        is_used = self._connection is not None or self._pool is not None
        while True:
            begun = False
            try:
                with self._connected(deadline, BUSY_SECONDS) as connection, connection.transaction():
                    begun = True
                    with connection.cursor(row_factory=tuple_row) as cursor:
                        return work(cursor)
            except (psycopg.OperationalError, TimeoutError) as error:
                # As above; and what has begun may have been committed.
                self.close()
                if begun or not is_used or isinstance(error, psycopg_pool.PoolTimeout | TimeoutError):
                    raise
            is_used = False

    def _execute(self, deadline: Deadline, statement: LiteralString, values: dict[str, Any] | None = None) -> Any:
        try:
            with self._connected(deadline) as connection, connection.cursor(row_factory=tuple_row) as cursor:
                cursor.execute(statement, values, prepare=self._prepare if values else False)
                return cursor.fetchone() if cursor.description else None
        except psycopg.ProgrammingError:
            raise
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _connected(self, deadline: Deadline, patience: float = STEP_SECONDS) -> Iterator[psycopg.Connection[Any]]:
        if self._pool is not None:
            connection = self._pool.getconn(patience)
            try:
                with WATCH.until(deadline, connection), connection:  # which ends with a commit
                    yield connection
            finally:
                self._pool.putconn(connection)
            return
        if self._connection is None or self._connection.closed:
            # Held before it is used, so that it is closed if that fails.
            self._connection, self._prepare = psycopg.connect(self._conninfo, autocommit=True), None
            self._held[:] = [self._connection]
        with WATCH.until(deadline, self._connection):
            if self._prepare is None:
                self._prepare = is_direct(self._connection, self._connection.execute(BACKEND).fetchone())
            yield self._connection

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Sessions:
    """The sessions of one store, for threads: as many as it needs, up to a number. None are left in a forked child.

    Attributes:
        conninfo: From `checked_conninfo`; empty with a pool.
        pool: The pool of the user's, or None.
    """

    def __init__(self, schema: LiteralString, conninfo_or_pool: str | psycopg_pool.ConnectionPool) -> None:
        """Lazy: nothing is connected until first use.

        Args:
            schema: What creates the tables, if there are none.
            conninfo_or_pool: As the user gave it; an invalid conninfo, or asyncio's pool, is a `ConfigurationError`.
        """
        if isinstance(conninfo_or_pool, psycopg_pool.AsyncConnectionPool):
            raise ConfigurationError(
                "This store is called in threads: give it a conninfo, or a psycopg_pool.ConnectionPool."
            )
        self.pool = conninfo_or_pool if isinstance(conninfo_or_pool, psycopg_pool.ConnectionPool) else None
        self.conninfo: Final = checked_conninfo(conninfo_or_pool) if self.pool is None else ""
        # Without a cycle of references, in which a connection could be finalized before its session closes it.
        self._make: Final = functools.partial(Session, schema, self.conninfo, pool=self.pool)
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Leave the parent its connections."""
        self._free = ConnectionPool(MAX_CONNECTIONS, self._make)

    def run(self, statement: LiteralString, values: dict[str, Any]) -> Any:
        """Execute a statement; return its first row, if there is one.

        Raises:
            ConfigurationError: PostgreSQL refuses it, and will.
            StoreError: No session is free for `STEP_SECONDS`, or PostgreSQL cannot do it now.
        """
        with self._session(STEP_SECONDS, StoreError) as session:
            return session.run(statement, values)

    def transact(
        self, work: Callable[[Cursor], T], *, is_long: bool = False, passing: tuple[type[Exception], ...] = ()
    ) -> T:
        """Call a function with a cursor, in a transaction.

        Args:
            work: The function.
            is_long: Whether it may have to search or change a whole table.
            passing: What is not translated.

        Raises:
            ConfigurationError: PostgreSQL refuses it, and will.
            ConnectionError: No session is free for `BUSY_SECONDS`, or PostgreSQL cannot do it now.
        """
        with self._session(BUSY_SECONDS, ConnectionError, passing) as session:
            return session.transaction(work, Deadline.after(_LONG_SECONDS if is_long else BUSY_SECONDS))

    @contextmanager
    def _session(self, within: float, outage: Outage, passing: tuple[type[Exception], ...] = ()) -> Iterator[Session]:
        detect_fork()
        free = self._free
        try:
            session = free.acquire(Deadline.after(within))
        except DeadlineExceeded:
            raise outage(ALL_IN_USE) from None
        try:
            yield session
        except passing:
            raise
        except (psycopg.Error, OSError) as error:
            raise translated(error, outage) from None
        finally:
            free.release(session)

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        detect_fork()
        free = self._free
        self.after_fork()
        for session in free.clients():
            session.close()


class AsyncSession(_Connections):
    """For an event loop."""

    _pool: psycopg_pool.AsyncConnectionPool | None
    _connection: psycopg.AsyncConnection[Any] | None

    async def run(self, statement: LiteralString, values: dict[str, Any]) -> Any:
        """Execute a statement; see `Session.run`."""
        is_used = self._connection is not None
        deadline = Deadline.after(_STATEMENT_SECONDS)
        try:
            return await self._execute(deadline, statement, values)
        except errors.UndefinedTable:
            await self._execute(deadline, self._create)
        except psycopg.OperationalError:
            if not is_used:
                raise
        return await self._execute(deadline, statement, values)

    async def _execute(self, deadline: Deadline, statement: LiteralString, values: dict[str, Any] | None = None) -> Any:
        try:
            async with self._connected(deadline) as connection, connection.cursor(row_factory=tuple_row) as cursor:
                await cursor.execute(statement, values, prepare=self._prepare if values else False)
                return await cursor.fetchone() if cursor.description else None
        except psycopg.ProgrammingError:
            raise
        except BaseException:
            await self.aclose()
            raise

    @asynccontextmanager
    async def _connected(self, deadline: Deadline) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        if self._pool is not None:
            connection = await self._pool.getconn(STEP_SECONDS)
            try:
                with WATCH.until(deadline, connection):
                    async with connection:
                        yield connection
            finally:
                await self._pool.putconn(connection)
            return
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
            self._held[:] = [self._connection]
            self._prepare = None
        with WATCH.until(deadline, self._connection):
            if self._prepare is None:
                self._prepare = is_direct(self._connection, await (await self._connection.execute(BACKEND)).fetchone())
            yield self._connection

    async def aclose(self) -> None:
        """Close the connection, at the end of the event loop or when it is lost."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


INHERITED: Final[list[object]] = []
"""Connections of the parent, in a forked child: it must neither use nor close them."""


def is_direct(connection: Connection, backend: object) -> bool:
    """Return whether no pooler stands in between, so that a prepared statement is this connection's alone.

    A pooler gives each client a number of its own, and can give one connection of the server to several clients.
    """
    return backend == (connection.info.backend_pid,)


def leave(connection: Connection | None, pid: int) -> None:
    """Close the connection of a store that was not closed; psycopg would warn."""
    if connection is None:
        return
    if pid == os.getpid():
        connection.pgconn.finish()
    else:
        INHERITED.append(connection)


def checked_conninfo(conninfo: object) -> str:
    """Return a conninfo with our defaults.

    Raises:
        ConfigurationError: It is invalid.
    """
    wanted = "postgresql://user:password@host/database, or host=... user=... dbname=..."
    if not isinstance(conninfo, str):
        raise ConfigurationError(
            f"A store in PostgreSQL needs a conninfo, such as {wanted}, or a pool of psycopg_pool."
        )
    try:
        given = libpq.conninfo_to_dict(conninfo)
        if not given:
            raise ConfigurationError(f"The conninfo of PostgreSQL is empty: it must be such as {wanted}.")
        return libpq.make_conninfo(conninfo, **{name: value for name, value in _DEFAULTS.items() if name not in given})
    except psycopg.Error:
        raise ConfigurationError(
            f"The conninfo of PostgreSQL is invalid: it must be such as {wanted}. In a URL, percent-encode what stands "
            "in user and password other than letters and digits."
        ) from None


_SCHEMA_REMEDY: Final = (
    "let a role that may create tables run what `optimove-ce schema` prints, in a schema of the gate's search_path, "
    "and GRANT SELECT, INSERT, UPDATE, DELETE on the tables to the gate's role"
)
_REFUSED: Final[tuple[tuple[type[psycopg.Error], str], ...]] = (
    (
        errors.ReadOnlySqlTransaction,
        "This PostgreSQL takes no writes, as a replica: set the address of the primary, or several hosts and "
        "target_session_attrs=read-write.",
    ),
    (errors.InsufficientPrivilege, f"The role lacks a permission in PostgreSQL: {_SCHEMA_REMEDY}."),
    (errors.InvalidSchemaName, f"PostgreSQL has no schema to create the tables in: {_SCHEMA_REMEDY}."),
    (errors.UndefinedTable, f"PostgreSQL lacks the tables of this store: {_SCHEMA_REMEDY}."),
    (
        errors.ProgrammingError,
        "A table of this store in PostgreSQL is not the one that this version needs: compare it with what "
        "`optimove-ce schema` prints.",
    ),
    (
        psycopg.InterfaceError,
        "psycopg cannot use this event loop: on Windows take asyncio.SelectorEventLoop, or give the store a "
        "psycopg_pool.ConnectionPool, which is used in threads.",
    ),
)
"""What another try cannot change."""

_LOGIN: Final = "PostgreSQL refuses the user or the password: check them in the conninfo; a URL percent-encodes them."
_TLS: Final = "PostgreSQL and this client agree on no TLS: check sslmode and sslrootcert in the conninfo."
_REFUSED_AT_CONNECTING: Final = (
    ("password authentication failed", _LOGIN),
    ("no password supplied", _LOGIN),
    ('role "', _LOGIN),
    ("pg_hba.conf", "PostgreSQL lets this user, database or machine not in: see its pg_hba.conf."),
    ('database "', "PostgreSQL has no such database: check its name in the conninfo."),
    ("does not support SSL", _TLS),
    ("certificate verify failed", _TLS),
    ("root certificate file", _TLS),
    ("server certificate for", _TLS),
    ("session is read-only", _REFUSED[0][1]),
    ("is in hot standby", _REFUSED[0][1]),
)
"""The same, by the text of libpq: it tells no code while it connects."""


def translated(error: Exception, outage: Outage) -> ConfigurationError | StoreError | ConnectionError:
    """Return our error for one of psycopg, without its text.

    Args:
        error: What was raised.
        outage: What another try may find over: a `StoreError`, or what a review tries again, a `ConnectionError`.
    """
    for kind, remedy in _REFUSED:
        if isinstance(error, kind):
            return ConfigurationError(remedy)
    if isinstance(error, TimeoutError):
        return outage("PostgreSQL does not answer in time.")
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return outage(f"PostgreSQL cannot do it now: {type(error).__name__}.")
    text = str(error)
    for words, remedy in _REFUSED_AT_CONNECTING:
        if words in text:
            return ConfigurationError(remedy)
    return outage("PostgreSQL cannot be reached.")
