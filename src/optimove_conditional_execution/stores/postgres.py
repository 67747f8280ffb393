"""Claims in PostgreSQL, shared by replicas on any number of machines (extra `postgres`). Only it imports psycopg."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from typing import Any, Final, LiteralString, final

from ..deadline import Deadline
from ..errors import ConfigurationError, DeadlineExceeded, StoreError
from ..fork import detect_fork, reset_after_fork
from ..tracebacks import sensitive_variables
from ..transport.connection_pool import ConnectionPool, PoolPerLoop
from .postgres_schema import CLAIMS_SCHEMA
from .remote import (
    MAX_CONNECTIONS,
    STEP_SECONDS,
    AsyncRemoteClaims,
    RemoteClaims,
    Reply,
    ServerFacts,
    Step,
    async_only,
    busy,
)

try:
    import psycopg
    import psycopg_pool
    from psycopg import conninfo as libpq
    from psycopg import errors
    from psycopg.rows import tuple_row
except ImportError as error:
    # Without libpq, psycopg says itself how to get it.
    raise ImportError(
        'PostgresClaims needs psycopg: pip install "optimove-conditional-execution[postgres]", and if this machine has '
        f'no libpq, "psycopg[binary]" ({str(error).splitlines()[0]})',
        name="psycopg",
    ) from None

# `statement_timestamp` is one moment within a statement, which `clock_timestamp` is not, and is the moment of this
# statement also in a transaction, which `now` is not. Claims and answers must be on the disk before they count. What
# else a crash of the server loses is harmless: a settled claim is delivered again, with the same answer.
_WRITE: Final = """
INSERT INTO optimove_claims AS held (key, state, owner, lease, expires, approval)
VALUES (
    %(key)s, %(state)s, %(owner)s,
    statement_timestamp() + %(lease)s * interval '1 second', statement_timestamp() + %(ttl)s * interval '1 second',
    %(approval)s
)
ON CONFLICT (key) DO UPDATE SET
    owner = EXCLUDED.owner, lease = EXCLUDED.lease, expires = greatest(held.expires, EXCLUDED.expires),
"""
_KEEP: Final = """
    state = CASE WHEN held.expires <= statement_timestamp() THEN EXCLUDED.state ELSE held.state END,
    approval = CASE WHEN held.expires <= statement_timestamp() THEN EXCLUDED.approval ELSE held.approval END
WHERE held.expires <= statement_timestamp() OR held.state <> 'settled' AND held.owner = EXCLUDED.owner
"""
_SOON: Final = "set_config('synchronous_commit', 'off', true)"

_STATEMENTS: Final[dict[str, LiteralString]] = {
    "acquire": "WITH mine AS ("
    + _WRITE
    + _KEEP
    + " OR held.state <> 'settled' AND held.lease <= statement_timestamp()"
    + """
    RETURNING held.state, held.approval
)
SELECT state, true, approval, %(lease)s::float8 FROM mine
UNION ALL
SELECT state, false, NULL, greatest(0, extract(epoch FROM lease - statement_timestamp()))::float8
FROM optimove_claims WHERE key = %(key)s AND NOT EXISTS (SELECT FROM mine)
""",
    "renew": _WRITE + _KEEP + "RETURNING " + _SOON,
    "update": _WRITE
    + """
    state = EXCLUDED.state, approval = EXCLUDED.approval
WHERE held.expires <= statement_timestamp()
    OR held.owner = EXCLUDED.owner AND (held.state <> 'settled' OR EXCLUDED.state = 'settled')
RETURNING CASE held.state WHEN 'settled' THEN """
    + _SOON
    + " END",
    "release": """
DELETE FROM optimove_claims WHERE key = %(key)s AND owner = %(owner)s AND state = 'open' RETURNING true
""",
}
_FORGET: Final = """
DELETE FROM optimove_claims WHERE key IN (
    SELECT key FROM optimove_claims WHERE expires <= statement_timestamp() LIMIT 10000 FOR UPDATE SKIP LOCKED
)
"""
_FORGET_EVERY: Final = 60.0
_ABANDON_AFTER: Final = 5.0  # seconds; then the connection is closed
_CREATE: Final = "SELECT pg_advisory_xact_lock(hashtext('optimove_claims')); " + CLAIMS_SCHEMA
"""In one transaction: two that create a table at once would collide, IF NOT EXISTS or not."""

_BACKEND: Final = "SELECT pg_backend_pid()"

_DEFAULTS: Final[dict[str, Any]] = {
    "connect_timeout": 2,  # libpq knows no shorter one
    # A server that is gone does not end a connection; a step that waits for its reply would occupy it for two hours.
    "tcp_user_timeout": 2_000,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "application_name": "optimove-conditional-execution",
}


@final
class PostgresClaims(RemoteClaims):
    """A claim store in PostgreSQL: for `WebhookReceiver` and for `AsyncWebhookReceiver`.

    Each step is one statement on one row of the table `optimove_claims`; leases count on the server's clock. The table
    is created at first use, if the role may; otherwise run what `optimove-ce schema` prints. It holds the answers that
    Optimove has not accepted yet, `additional_data` included, until their deadline, and is cleared of expired rows once
    a minute. Safe for threads, any number of event loops, and forks. A pooler such as PgBouncer may stand in between:
    then no statement is prepared.

    Attributes:
        asynchronous: The same claims for an event loop; `AsyncWebhookReceiver` takes it by itself.
    """

    @sensitive_variables
    def __init__(self, conninfo_or_pool: str | psycopg_pool.ConnectionPool | psycopg_pool.AsyncConnectionPool) -> None:
        """Lazy: nothing is connected until first use.

        Args:
            conninfo_or_pool: `postgresql://user:password@host/database`, or `host=... user=...`, as libpq takes it,
                options for TLS included. Or a pool of your own: a `psycopg_pool.ConnectionPool`, or an
                `AsyncConnectionPool` for an `AsyncWebhookReceiver`. A pool of psycopg logs host, port and user when
                the server cannot be reached, once for each try; connections of a conninfo log nothing.

        Raises:
            ConfigurationError: Here, that the conninfo is invalid; at first use, that PostgreSQL refuses it: a wrong
                password, a database, a table or a permission that is missing, a read-only replica.
            StoreError: In all methods: PostgreSQL cannot be reached, or does not take the claim. It can be tried again.
        """
        self.asynchronous: PostgresClaims | AsyncPostgresClaims = self
        self._pool: ConnectionPool[_Session] | None = None
        self._inherited: list[object] = []
        if isinstance(conninfo_or_pool, psycopg_pool.ConnectionPool):
            given = conninfo_or_pool
            self._make = lambda: _Session(pool=given)
        elif isinstance(conninfo_or_pool, psycopg_pool.AsyncConnectionPool):
            given_async = conninfo_or_pool
            self.asynchronous = AsyncPostgresClaims(lambda: _AsyncSession(pool=given_async))
            return  # nothing for threads
        else:
            conninfo = _checked(conninfo_or_pool)
            self._make = lambda: _Session(conninfo)
            self.asynchronous = AsyncPostgresClaims(lambda: _AsyncSession(conninfo))
        self._pool = ConnectionPool(MAX_CONNECTIONS, self._make)
        self._forget = _Timer()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Leave the parent its connections."""
        self._pool = ConnectionPool(MAX_CONNECTIONS, self._make)

    def _acquire(self, step: Step) -> Reply:
        reply = self._run(step) or self._run(step)
        if self._forget.is_due():
            self._perform(_FORGET, {})
        return reply or _NOT_SEEN

    def _change(self, step: Step) -> bool:
        return self._run(step) is not None

    def _run(self, step: Step) -> Any:
        return self._perform(_STATEMENTS[step.name], _values(step))

    def _perform(self, statement: LiteralString, values: dict[str, Any]) -> Any:
        detect_fork()
        pool = self._pool
        if pool is None:
            raise async_only("An AsyncConnectionPool")
        try:
            session = pool.acquire(Deadline.after(STEP_SECONDS))
        except DeadlineExceeded:
            raise busy() from None
        try:
            return session.run(statement, values)
        except (psycopg.Error, OSError) as error:
            raise _translated(error) from None
        finally:
            pool.release(session)

    def close(self) -> None:
        """Close the connections of this process's threads; the next use opens new ones."""
        detect_fork()
        if self._pool is not None:
            pool, self._pool = self._pool, ConnectionPool(MAX_CONNECTIONS, self._make)
            for session in pool.clients():
                session.close()


_FACTS: Final = """
SELECT extract(epoch FROM clock_timestamp())::float8, current_setting('fsync'), current_setting('synchronous_commit'),
    set_config('optimove_ce.pooled', 'transaction', false)
"""


@sensitive_variables
def postgres_facts(conninfo: str) -> ServerFacts:
    """Return what `optimove-ce doctor` wants to know of a PostgreSQL; raises as a step does."""
    conninfo = _checked(conninfo)
    try:
        with psycopg.connect(conninfo, autocommit=True) as first, psycopg.connect(conninfo, autocommit=True) as second:
            clock, fsync, synchronous_commit, _ = first.execute(_FACTS, prepare=False).fetchone() or (0.0, "", "", "")
            settings = {"fsync": fsync, "synchronous_commit": synchronous_commit}
            if not _is_direct(first, first.execute(_BACKEND, prepare=False).fetchone()):
                # Of one client's session nothing is seen in another's, unless both share a connection of the server.
                seen = second.execute("SELECT current_setting('optimove_ce.pooled', true)", prepare=False).fetchone()
                settings["pooler"] = "transaction" if seen == ("transaction",) else "session"
            return ServerFacts(clock, settings)
    except (psycopg.Error, OSError) as error:
        raise _translated(error) from None


@final
class AsyncPostgresClaims(AsyncRemoteClaims):
    """The claims of a `PostgresClaims` for an event loop."""

    def __init__(self, make: Any) -> None:
        """As `PostgresClaims.asynchronous`."""
        self._pools: PoolPerLoop[_AsyncSession] = PoolPerLoop(
            make, _AsyncSession.aclose, max_connections=MAX_CONNECTIONS
        )
        self._forget = _Timer()

    async def _acquire(self, step: Step) -> Reply:
        reply = await self._run(step) or await self._run(step)
        if self._forget.is_due():
            await self._perform(_FORGET, {})
        return reply or _NOT_SEEN

    async def _change(self, step: Step) -> bool:
        return await self._run(step) is not None

    async def _run(self, step: Step) -> Any:
        return await self._perform(_STATEMENTS[step.name], _values(step))

    async def _perform(self, statement: LiteralString, values: dict[str, Any]) -> Any:
        pool = self._pools.current().requests
        try:
            session = await pool.aacquire(Deadline.after(STEP_SECONDS))
        except DeadlineExceeded:
            raise busy() from None
        # Not cancelled with the step: psycopg would connect once more to cancel it, and a slow server get ever slower.
        running = asyncio.create_task(self._finish(pool, session, statement, values))
        running.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # its step may have given up
        return await asyncio.shield(running)

    @staticmethod
    async def _finish(pool: Any, session: _AsyncSession, statement: LiteralString, values: dict[str, Any]) -> Any:
        try:
            async with asyncio.timeout(_ABANDON_AFTER):
                return await session.run(statement, values)
        except (psycopg.Error, OSError) as error:
            raise _translated(error) from None
        finally:
            pool.release(session)


# Another delivery has claimed it while this statement ran; two such statements in a row find nothing of it.
_NOT_SEEN: Final[Reply] = ("open", False, None, 0.0)


class _Timer:
    """Says once a minute that expired rows are to be deleted."""

    def __init__(self) -> None:
        self._due = time.monotonic() + _FORGET_EVERY

    def is_due(self) -> bool:
        now = time.monotonic()
        if now < self._due:
            return False
        self._due = now + _FORGET_EVERY
        return True


class _Session:
    """One connection, opened when it is needed and whenever it was lost; or a pool of the user's."""

    def __init__(self, conninfo: str = "", *, pool: psycopg_pool.ConnectionPool | None = None) -> None:
        self._conninfo = conninfo
        self._pool = pool
        self._connection: psycopg.Connection[Any] | None = None
        self._prepare: bool | None = None  # of the user's connections: as they are set up
        self._pid = os.getpid()

    def run(self, statement: LiteralString, values: dict[str, Any]) -> Any:
        """Execute a statement; return its first row, if there is one."""
        is_used = self._connection is not None
        try:
            return self._execute(statement, values)
        except errors.UndefinedTable:
            self._execute(_CREATE)
        except psycopg.OperationalError:
            # That the server has ended an idle connection says nothing about the server.
            if not is_used:
                raise
        return self._execute(statement, values)

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
            return self._pool.connection(timeout=STEP_SECONDS)
        if self._connection is None:
            # Held before it is used, so that it is closed if that fails.
            connection = self._connection = psycopg.connect(self._conninfo, autocommit=True)
            self._prepare = _is_direct(connection, connection.execute(_BACKEND).fetchone())
        return nullcontext(self._connection)

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        _leave(self._connection, self._pid)


class _AsyncSession:
    """A `_Session` for an event loop."""

    def __init__(self, conninfo: str = "", *, pool: psycopg_pool.AsyncConnectionPool | None = None) -> None:
        self._conninfo = conninfo
        self._pool = pool
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._prepare: bool | None = None
        self._pid = os.getpid()

    async def run(self, statement: LiteralString, values: dict[str, Any]) -> Any:
        """Execute a statement; see `_Session.run`."""
        is_used = self._connection is not None
        try:
            return await self._execute(statement, values)
        except errors.UndefinedTable:
            await self._execute(_CREATE)
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
            self._prepare = _is_direct(connection, await (await connection.execute(_BACKEND)).fetchone())
        return nullcontext(self._connection)

    async def aclose(self) -> None:
        """Close the connection, at the end of the event loop or when it is lost."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def __del__(self) -> None:
        _leave(self._connection, self._pid)


_INHERITED: Final[list[object]] = []
"""Connections of the parent, in a forked child: it must neither use nor close them."""


def _is_direct(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], backend: object) -> bool:
    """Return whether no pooler stands in between, so that a prepared statement is this connection's alone.

    A pooler gives each client a number of its own, and can give one connection of the server to several clients.
    """
    return backend == (connection.info.backend_pid,)


def _leave(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any] | None, pid: int) -> None:
    """Close the connection of a store that was not closed; psycopg would warn."""
    if connection is None:
        return
    if pid == os.getpid():
        connection.pgconn.finish()
    else:
        _INHERITED.append(connection)


def _checked(conninfo: object) -> str:
    """Return a conninfo with our defaults."""
    wanted = "postgresql://user:password@host/database, or host=... user=... dbname=..."
    if not isinstance(conninfo, str):
        raise ConfigurationError(f"PostgresClaims needs a conninfo, such as {wanted}, or a pool of psycopg_pool.")
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


def _values(step: Step) -> dict[str, Any]:
    return {
        # A question can be longer than an entry of an index.
        "key": hashlib.sha256(step.question.encode()).digest(),
        "owner": step.owner,
        "lease": step.lease,
        "ttl": step.ttl,
        "state": step.state,
        "approval": step.approval,
    }


_SCHEMA_REMEDY: Final = (
    "let a role that may create tables run what `optimove-ce schema` prints, in a schema of the gate's search_path, "
    "and GRANT SELECT, INSERT, UPDATE, DELETE on the table to the gate's role"
)
_REFUSED: Final[tuple[tuple[type[psycopg.Error], str], ...]] = (
    (
        errors.ReadOnlySqlTransaction,
        "This PostgreSQL takes no writes, as a replica: set the address of the primary, or several hosts and "
        "target_session_attrs=read-write.",
    ),
    (errors.InsufficientPrivilege, f"The role lacks a permission in PostgreSQL: {_SCHEMA_REMEDY}."),
    (errors.InvalidSchemaName, f"PostgreSQL has no schema to create the table in: {_SCHEMA_REMEDY}."),
    (errors.UndefinedTable, f"PostgreSQL has no table optimove_claims: {_SCHEMA_REMEDY}."),
    (
        errors.ProgrammingError,
        "The table optimove_claims in PostgreSQL is not the one that this version needs: compare it with what "
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


def _translated(error: Exception) -> ConfigurationError | StoreError:
    """Return our error for one of psycopg, whose text can hold host, port, user and values."""
    for kind, remedy in _REFUSED:
        if isinstance(error, kind):
            return ConfigurationError(remedy)
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return StoreError(f"PostgreSQL does not take the claim: {type(error).__name__}.")
    text = str(error)
    for words, remedy in _REFUSED_AT_CONNECTING:
        if words in text:
            return ConfigurationError(remedy)
    return StoreError("PostgreSQL cannot be reached.")
