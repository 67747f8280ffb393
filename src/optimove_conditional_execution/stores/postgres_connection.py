"""Connections to PostgreSQL for the stores (extra `postgres`): one at a time, or from a pool of the user's.

What psycopg raises can hold host, port, user and values, so it is told in words of our own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final, LiteralString, TypeVar

from ..deadline import Deadline
from ..errors import ConfigurationError, DeadlineExceeded
from ..transport.connection_pool import ConnectionPool
from .remote import STEP_SECONDS

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

__all__ = [
    "BACKEND",
    "INHERITED",
    "AsyncSession",
    "Session",
    "borrowed",
    "checked_conninfo",
    "errors",
    "is_direct",
    "leave",
    "outage",
    "psycopg",
    "psycopg_pool",
    "refusal",
    "tuple_row",
]

T = TypeVar("T")

BACKEND: Final = "SELECT pg_backend_pid()"

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


class Session:
    """One connection, opened when it is needed and whenever it was lost; or a pool of the user's."""

    def __init__(
        self,
        schema: LiteralString,
        conninfo: str = "",
        *,
        pool: psycopg_pool.ConnectionPool | None = None,
        timeout: float = STEP_SECONDS,
    ) -> None:
        """Lazy.

        Args:
            schema: What creates the tables, if there are none.
            conninfo: From `checked_conninfo`.
            pool: A pool of the user's, instead.
            timeout: Seconds to wait for a connection of that pool.
        """
        self._create: LiteralString = _ONE_AT_A_TIME + schema
        self._conninfo = conninfo
        self._pool = pool
        self._timeout = timeout
        self._connection: psycopg.Connection[Any] | None = None
        self._prepare: bool | None = None  # of the user's connections: as they are set up
        self._pid = os.getpid()

    def run(self, statement: LiteralString, values: dict[str, Any]) -> Any:
        """Execute a statement; return its first row, if there is one."""
        is_used = self._connection is not None
        try:
            return self._execute(statement, values)
        except errors.UndefinedTable:
            self._execute(self._create)
        except psycopg.OperationalError:
            # That the server has ended an idle connection says nothing about the server.
            if not is_used:
                raise
        return self._execute(statement, values)

    def transaction(self, work: Callable[[psycopg.Cursor[Any]], T]) -> T:
        """Call a function with a cursor, in a transaction; from the start again when its tables were missing."""
        try:
            return self._transact(work)
        except errors.UndefinedTable:
            self._transact(lambda cursor: cursor.execute(self._create, prepare=False))
        return self._transact(work)

    def _transact(self, work: Callable[[psycopg.Cursor[Any]], T]) -> T:
        is_used = self._connection is not None or self._pool is not None
        while True:
            begun = False
            try:
                with self._connected() as connection, connection.transaction():
                    begun = True
                    with connection.cursor(row_factory=tuple_row) as cursor:
                        return work(cursor)
            except psycopg.OperationalError as error:
                # As above; and what has begun may have been committed.
                self.close()
                if begun or not is_used or isinstance(error, psycopg_pool.PoolTimeout):
                    raise
            is_used = False

    def _execute(self, statement: LiteralString, values: dict[str, Any] | None = None) -> Any:
        try:
            with self._connected() as connection, connection.cursor(row_factory=tuple_row) as cursor:
                cursor.execute(statement, values, prepare=self._prepare if values else False)
                return cursor.fetchone() if cursor.description else None
        except psycopg.ProgrammingError:
            raise
        except BaseException:
            self.close()
            raise

    def _connected(self) -> AbstractContextManager[psycopg.Connection[Any]]:
        if self._pool is not None:
            return self._pool.connection(timeout=self._timeout)
        if self._connection is None or self._connection.closed:
            # Held before it is used, so that it is closed if that fails.
            connection = self._connection = psycopg.connect(self._conninfo, autocommit=True)
            self._prepare = is_direct(connection, connection.execute(BACKEND).fetchone())
        return nullcontext(self._connection)

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        leave(self._connection, self._pid)


@contextmanager
def borrowed(pool: ConnectionPool[Session], seconds: float) -> Iterator[Session]:
    """Return a session of a store's pool in a context manager.

    Raises:
        ConnectionError: None is free for that many seconds.
    """
    try:
        session = pool.acquire(Deadline.after(seconds))
    except DeadlineExceeded:
        raise ConnectionError("All connections of this store are in use.") from None
    try:
        yield session
    finally:
        pool.release(session)


class AsyncSession:
    """A `Session` for an event loop."""

    def __init__(
        self, schema: LiteralString, conninfo: str = "", *, pool: psycopg_pool.AsyncConnectionPool | None = None
    ) -> None:
        """Lazy; see `Session`."""
        self._create: LiteralString = _ONE_AT_A_TIME + schema
        self._conninfo = conninfo
        self._pool = pool
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._prepare: bool | None = None
        self._pid = os.getpid()

    async def run(self, statement: LiteralString, values: dict[str, Any]) -> Any:
        """Execute a statement; see `Session.run`."""
        is_used = self._connection is not None
        try:
            return await self._execute(statement, values)
        except errors.UndefinedTable:
            await self._execute(self._create)
        except psycopg.OperationalError:
            if not is_used:
                raise
        return await self._execute(statement, values)

    async def _execute(self, statement: LiteralString, values: dict[str, Any] | None = None) -> Any:
        try:
            async with await self._connected() as connection, connection.cursor(row_factory=tuple_row) as cursor:
                await cursor.execute(statement, values, prepare=self._prepare if values else False)
                return await cursor.fetchone() if cursor.description else None
        except psycopg.ProgrammingError:
            raise
        except BaseException:
            await self.aclose()
            raise

    async def _connected(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]:
        if self._pool is not None:
            return self._pool.connection(timeout=STEP_SECONDS)
        if self._connection is None:
            connection = self._connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
            self._prepare = is_direct(connection, await (await connection.execute(BACKEND)).fetchone())
        return nullcontext(self._connection)

    async def aclose(self) -> None:
        """Close the connection, at the end of the event loop or when it is lost."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def __del__(self) -> None:
        leave(self._connection, self._pid)


INHERITED: Final[list[object]] = []
"""Connections of the parent, in a forked child: it must neither use nor close them."""


def is_direct(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], backend: object) -> bool:
    """Return whether no pooler stands in between, so that a prepared statement is this connection's alone.

    A pooler gives each client a number of its own, and can give one connection of the server to several clients.
    """
    return backend == (connection.info.backend_pid,)


def leave(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any] | None, pid: int) -> None:
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


def refusal(error: Exception) -> ConfigurationError | None:
    """Return our error for what PostgreSQL or psycopg will refuse again; None for what another try may find over."""
    for kind, remedy in _REFUSED:
        if isinstance(error, kind):
            return ConfigurationError(remedy)
    if not (isinstance(error, psycopg.Error) and error.sqlstate):
        text = str(error)
        for words, remedy in _REFUSED_AT_CONNECTING:
            if words in text:
                return ConfigurationError(remedy)
    return None


def outage(error: Exception) -> str:
    """Say what went wrong otherwise, without the error's own text."""
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return f"PostgreSQL cannot do it now: {type(error).__name__}."
    return "PostgreSQL cannot be reached."
