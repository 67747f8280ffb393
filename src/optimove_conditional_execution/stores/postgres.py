"""Claims in PostgreSQL, shared by replicas on any number of machines; the other stores there (extra `postgres`)."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, Final, LiteralString, final

from ..deadline import Deadline
from ..errors import DeadlineExceeded, StoreError
from ..tracebacks import sensitive_variables
from ..transport.connection_pool import PoolPerLoop
from .postgres_connection import (
    BACKEND,
    BUSY_SECONDS,
    WATCH,
    AsyncSession,
    Sessions,
    checked_conninfo,
    is_direct,
    psycopg,
    psycopg_pool,
    translated,
)
from .postgres_decisions import PostgresDecisionLog
from .postgres_journal import PostgresJournal
from .postgres_schema import CLAIMS_SCHEMA
from .remote import (
    ALL_IN_USE,
    MAX_CONNECTIONS,
    STEP_SECONDS,
    AsyncRemoteClaims,
    RemoteClaims,
    ServerFacts,
    Step,
    async_only,
)

__all__ = ["AsyncPostgresClaims", "PostgresClaims", "PostgresDecisionLog", "PostgresJournal", "postgres_facts"]

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
SELECT state, true, approval, 1000 * %(lease)s::float8 FROM mine
UNION ALL
SELECT state, false, NULL, 1000 * greatest(0, extract(epoch FROM lease - statement_timestamp()))::float8
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
"""Seconds between two times that expired rows are deleted."""


@final
class PostgresClaims(RemoteClaims):
    """A claim store in PostgreSQL: for `WebhookReceiver` and for `AsyncWebhookReceiver`.

    Each step is one statement on one row of the table `optimove_claims`; leases count on the server's clock. The table
    is created at first use, if the role may; otherwise run what `optimove-ce schema` prints. It holds the answers that
    Optimove has not accepted yet, `additional_data` included, until half a minute after their deadline, and is cleared
    of expired rows once a minute. Safe for threads, any number of event loops, and forks. A pooler such as PgBouncer
    may stand in between: then no statement is prepared.

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
        self._sessions: Sessions | None = None
        self._forget_at = Deadline.after(_FORGET_EVERY)
        if isinstance(conninfo_or_pool, psycopg_pool.AsyncConnectionPool):
            given = conninfo_or_pool
            self.asynchronous = AsyncPostgresClaims(lambda: AsyncSession(CLAIMS_SCHEMA, pool=given))
            return  # nothing for threads
        self._sessions = sessions = Sessions(CLAIMS_SCHEMA, conninfo_or_pool)
        if sessions.pool is None:
            self.asynchronous = AsyncPostgresClaims(lambda: AsyncSession(CLAIMS_SCHEMA, sessions.conninfo))

    def _perform(self, step: Step) -> Any:
        row = self._run(_STATEMENTS[step.name], _values(step))
        if step.name == "acquire":
            row = row or self._run(_STATEMENTS[step.name], _values(step)) or _NOT_SEEN
            if self._forget_at.expired:
                self._forget_at = Deadline.after(_FORGET_EVERY)
                self._run(_FORGET, {})
        return row

    def _run(self, statement: LiteralString, values: dict[str, Any]) -> Any:
        if self._sessions is None:
            raise async_only("An AsyncConnectionPool")
        return self._sessions.run(statement, values)

    def close(self) -> None:
        """Close the connections of this process's threads; the next use opens new ones."""
        if self._sessions is not None:
            self._sessions.close()


_FACTS: Final = """
SELECT extract(epoch FROM clock_timestamp())::float8, current_setting('fsync'), current_setting('synchronous_commit'),
    set_config('optimove_ce.pooled', 'transaction', false)
"""


@sensitive_variables
def postgres_facts(conninfo: str) -> ServerFacts:
    """Return what `optimove-ce doctor` wants to know of a PostgreSQL; raises as a step does."""
    conninfo = checked_conninfo(conninfo)
    try:
        deadline = Deadline.after(BUSY_SECONDS)
        with (
            psycopg.connect(conninfo, autocommit=True) as first,
            psycopg.connect(conninfo, autocommit=True) as second,
            WATCH.until(deadline, first),
            WATCH.until(deadline, second),
        ):
            clock, fsync, synchronous_commit, _ = first.execute(_FACTS, prepare=False).fetchone() or (0.0, "", "", "")
            settings = {"fsync": fsync, "synchronous_commit": synchronous_commit}
            if not is_direct(first, first.execute(BACKEND, prepare=False).fetchone()):
                # Of one client's session nothing is seen in another's, unless both share a connection of the server.
                seen = second.execute("SELECT current_setting('optimove_ce.pooled', true)", prepare=False).fetchone()
                settings["pooler"] = "transaction" if seen == ("transaction",) else "session"
            return ServerFacts(clock, settings)
    except (psycopg.Error, OSError) as error:
        raise translated(error, StoreError) from None


@final
class AsyncPostgresClaims(AsyncRemoteClaims):
    """The claims of a `PostgresClaims` for an event loop."""

    def __init__(self, make: Any) -> None:
        """As `PostgresClaims.asynchronous`."""
        self._pools: PoolPerLoop[AsyncSession] = PoolPerLoop(make, AsyncSession.aclose, max_connections=MAX_CONNECTIONS)
        self._forget_at = Deadline.after(_FORGET_EVERY)

    async def _perform(self, step: Step) -> Any:
        row = await self._run(_STATEMENTS[step.name], _values(step))
        if step.name == "acquire":
            row = row or await self._run(_STATEMENTS[step.name], _values(step)) or _NOT_SEEN
            if self._forget_at.expired:
                self._forget_at = Deadline.after(_FORGET_EVERY)
                await self._run(_FORGET, {})
        return row

    async def _run(self, statement: LiteralString, values: dict[str, Any]) -> Any:
        pool = self._pools.current().requests
        try:
            session = await pool.aacquire(Deadline.after(STEP_SECONDS))
        except DeadlineExceeded:
            raise StoreError(ALL_IN_USE) from None
        # Not cancelled with the step: psycopg would connect once more to cancel it, and a slow server get ever slower.
        running = asyncio.create_task(self._finish(pool, session, statement, values))
        running.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # its step may have given up
        return await asyncio.shield(running)

    @staticmethod
    async def _finish(pool: Any, session: AsyncSession, statement: LiteralString, values: dict[str, Any]) -> Any:
        try:
            return await session.run(statement, values)
        except (psycopg.Error, OSError) as error:
            raise translated(error, StoreError) from None
        finally:
            pool.release(session)


# Another delivery has claimed it while this statement ran; two such statements in a row find nothing of it.
_NOT_SEEN: Final = ("open", False, None, 0.0)


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
