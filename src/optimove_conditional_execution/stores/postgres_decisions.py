"""The decision log in PostgreSQL, for receivers and reviews on any number of machines (extra `postgres`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, final

from ..errors import ConfigurationError
from ..flows.decision_log import Completion
from ..fork import detect_fork, reset_after_fork
from ..tracebacks import sensitive_variables
from .chained_log import Append, ChainedLog, Execute, Identify, completion_key, has_decision, unknown
from .hash_chain import Content, Row, linked
from .log_rows import completion_of
from .payloads import EncryptionKeys
from .postgres_connection import (
    BUSY_SECONDS,
    Cursor,
    Sessions,
    errors,
    psycopg_pool,
)
from .postgres_schema import DECISIONS_SCHEMA

T = TypeVar("T")

# A row lock, not an advisory one: the row holds what the next entry needs, so that one statement locks and reads it,
# it is apart for logs in several schemas, and a pooler may stand in between.
# A process that is frozen while it holds the lock would stop all others. Of a crash of the server: a completion that is
# lost leaves a record without one, which says what is known.
_LOCK: Final = """
SELECT number, hash, set_config('idle_in_transaction_session_timeout', '5s', true),
    set_config('synchronous_commit', CASE WHEN %s THEN 'off' ELSE current_setting('synchronous_commit') END, true)
FROM optimove_decision_log_head WHERE id = 1 FOR UPDATE
"""
_WRITE: Final = """
WITH added AS (
    INSERT INTO optimove_decision_log
    SELECT * FROM unnest(
        %s::bigint[], %s::bytea[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[],
        %s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::bytea[], %s::bytea[]
    )
)
UPDATE optimove_decision_log_head SET number = %s, hash = %s WHERE id = 1
"""
_KNOWN: Final = "SELECT id FROM optimove_decision_log WHERE id = ANY(%s)"
_COMPLETIONS: Final = """
SELECT asked.row, type, size, id, completes, at, campaign, low, high, entry
FROM unnest(%s::bigint[], %s::text[], %s::bigint[]) AS asked (row, key, status)
JOIN optimove_decision_log ON completes = asked.key AND number > asked.row
    AND (asked.status IS NULL OR low <= asked.status AND high > asked.status)
ORDER BY number
"""


@final
class PostgresDecisionLog(ChainedLog):
    """A decision log in PostgreSQL, shared by all processes that use it, on any number of machines.

    It is what `SqliteDecisionLog` is, in the tables `optimove_decision_log` and `optimove_decision_log_head`. They are
    created at first use, if the role may; otherwise run what `optimove-ce schema` prints. The chain stays one chain
    however many append: each transaction locks the one row of the second table, which holds the number and the hash of
    the last entry, until it is committed. What is appended at the same time shares a transaction.

    For a log that not even the gate can change, grant its role SELECT and INSERT on the first table, SELECT and UPDATE
    on the second, and prune and erase under another role. Records are as safe as `synchronous_commit` of the server
    says; completions are committed with `off`. Safe for threads, for asyncio and after a fork. A pooler such as
    PgBouncer may stand in between. Needs PostgreSQL 11.
    """

    _table = "optimove_decision_log"
    _place = "strpos"

    @sensitive_variables
    def __init__(
        self,
        conninfo_or_pool: str | psycopg_pool.ConnectionPool,
        *,
        identify: Identify | None = None,
        create_tables: bool = True,
        keep_payloads: bool = False,
        encryption_keys: EncryptionKeys | None = None,
    ) -> None:
        """Lazy: nothing is connected until first use.

        Args:
            conninfo_or_pool: `postgresql://user:password@host/database`, or `host=... user=...`, as libpq takes it,
                options for TLS included; or a `psycopg_pool.ConnectionPool` of your own. A pool of psycopg logs host,
                port and user when the server cannot be reached.
            identify: For those who must not keep customer ids: a secret, and the log holds an HMAC-SHA256 of each id
                under it, or a function that returns the text to keep. All methods take the id itself. With another
                secret, earlier records are not found any more.
            create_tables: Whether to create the tables when they are missing. With False that is an error.
            keep_payloads: Whether to keep beside each record what was asked, for `optimove-ce replay`: the raw body of
                the notification, or the customer's rows. It is personal data, and goes with `erase` and `prune`.
            encryption_keys: A key of `cryptography.fernet.Fernet`, or several of which the first encrypts and all
                decrypt: payloads are encrypted. Needs the extra `encryption`.

        Raises:
            ConfigurationError: Here, that the conninfo is invalid, or the pool an `AsyncConnectionPool`, or `identify`
                empty, blank or of another type, or a key invalid, or the extra `encryption` missing, or that payloads
                with the ids that `identify` keeps out would be kept without a key; at first use, that PostgreSQL
                refuses it: a wrong password, a database, a table or a permission that is missing, a read-only replica.
            ConnectionError: In all methods: PostgreSQL cannot be reached, cannot do it now, or has not replied for 10 s
                (5 minutes to what reads or deletes). It can be tried again.
        """
        super().__init__(identify, keep_payloads=keep_payloads, encryption_keys=encryption_keys)
        schema = DECISIONS_SCHEMA if create_tables else ""
        self._sessions = Sessions(schema, conninfo_or_pool)
        self.after_fork()
        reset_after_fork(self)

    def _write(self, contents: Sequence[Content]) -> None:
        is_soon = not has_decision(contents)
        try:
            self._sessions.transact(
                lambda cursor: _append(cursor, contents, is_soon=is_soon), passing=(errors.UniqueViolation,)
            )
        except errors.UniqueViolation:  # it holds one of the records, since a reply was lost; which is rare
            self._sessions.transact(lambda cursor: _append(cursor, _unknown(cursor, contents)))

    def _query(self, work: Callable[[Execute], T]) -> T:
        return self._sessions.transact(lambda cursor: work(_executing(cursor)), is_long=True)

    def _change(self, work: Callable[[Execute, Append], T]) -> T:
        def alone(cursor: Cursor) -> T:
            _lock(cursor)
            return work(_executing(cursor), lambda content: _append(cursor, [content]))

        return self._sessions.transact(alone, is_long=True)

    def _highest(self, execute: Execute) -> int:
        found = execute("SELECT number FROM optimove_decision_log_head WHERE id = 1")
        return int(found[0][0]) if found else 0

    def _kept_head(self, execute: Execute) -> tuple[int, bytes | None]:
        found = execute("SELECT number, hash FROM optimove_decision_log_head WHERE id = 1")
        return (found[0][0], found[0][1]) if found else (-1, None)  # no log is without the row

    def _completions(self, execute: Execute, rows: Sequence[Row]) -> Mapping[int, Sequence[Completion]]:
        keys = [completion_key(row) for row in rows]
        found: dict[int, list[Completion]] = {}
        if keys:
            asked = ([row.number for row in rows], *map(list, zip(*keys, strict=True)))
            for number, *content in execute(_COMPLETIONS, asked):
                found.setdefault(number, []).append(completion_of(Content(*content)))
        return found

    def close(self) -> None:
        """Write what was submitted, and close the connections; the next use opens new ones.

        A server that does not answer is waited for ten seconds at most; what it was given then counts as not written.
        """
        detect_fork()
        self._group.wait(BUSY_SECONDS)
        self._sessions.close()


def _executing(cursor: Cursor) -> Execute:
    def execute(statement: str, values: Sequence[object] = (), /) -> list[Any]:
        # Never prepared: a pooler may stand in between. The statements are our own, and hold no other `?`.
        cursor.execute(statement.replace("?", "%s").encode(), values, prepare=False)
        return cursor.fetchall() if cursor.description else []

    return execute


def _lock(cursor: Cursor, *, is_soon: bool = False) -> tuple[int, bytes]:
    """Let no other transaction append until this one ends; return number and hash of the last entry.

    Args:
        cursor: In a transaction.
        is_soon: Whether a crash of the server may lose what it appends.
    """
    head = cursor.execute(_LOCK, (is_soon,), prepare=False).fetchone()
    if head is None:
        raise ConfigurationError(
            "The table optimove_decision_log_head in PostgreSQL has lost its row: restore it together with "
            "optimove_decision_log, or for a new log run what `optimove-ce schema` prints."
        )
    return head[0], head[1]


def _append(cursor: Cursor, contents: Sequence[Content], *, is_soon: bool = False) -> None:
    number, digest = _lock(cursor, is_soon=is_soon)
    rows: list[tuple[object, ...]] = []
    for content in contents:
        number, digest, chained = linked(digest, number, content)
        rows.append((number, digest, *chained))
    if rows:
        cursor.execute(_WRITE, (*map(list, zip(*rows, strict=True)), number, digest), prepare=False)


def _unknown(cursor: Cursor, contents: Sequence[Content]) -> list[Content]:
    """Return the entries without records that the log holds; lets no other transaction append."""
    _lock(cursor)
    return unknown(contents, lambda ids: {ident for (ident,) in cursor.execute(_KNOWN, (ids,), prepare=False)})
