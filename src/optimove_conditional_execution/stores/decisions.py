"""A decision log in an SQLite file, for the processes of one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from typing import Final, Literal, TypeVar, final

from ..errors import ConfigurationError
from ..flows.decision_log import Completion
from ..fork import reset_after_fork
from ..tracebacks import sensitive_variables
from .chained_log import COLUMNS, Append, ChainedLog, Execute, Identify, completion_key, has_decision, unknown
from .hash_chain import GENESIS, Content, Row, linked
from .log_rows import completion_of
from .payloads import EncryptionKeys
from .sqlite_file import NO_FILE, Connection, SqliteFile, UniqueViolation

T = TypeVar("T")

_BUSY_SECONDS: Final = 10.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS decision_log (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- keeps the highest number, also of a row that was removed
    hash BLOB NOT NULL,
    type TEXT NOT NULL,
    size INTEGER NOT NULL,
    id TEXT,
    completes TEXT,
    at TEXT NOT NULL,
    campaign TEXT,
    low INTEGER,
    high INTEGER,
    entry TEXT NOT NULL,
    customer TEXT,
    personal TEXT,
    salt BLOB,
    commitment BLOB
);
CREATE UNIQUE INDEX IF NOT EXISTS decision_log_id ON decision_log (id) WHERE id IS NOT NULL;
CREATE INDEX IF NOT EXISTS decision_log_completes ON decision_log (completes, low) WHERE completes IS NOT NULL;
CREATE INDEX IF NOT EXISTS decision_log_pruning ON decision_log (number) WHERE type = 'pruning';
CREATE INDEX IF NOT EXISTS decision_log_customer ON decision_log (customer) WHERE type = 'decision';
CREATE INDEX IF NOT EXISTS decision_log_group ON decision_log (number) WHERE type = 'group';
"""
_VALUES: Final = f"({', '.join('?' * (len(Content._fields) + 2))})"
_ROWS_A_STATEMENT: Final = 64
"""Rows that one statement inserts; each statement lets another thread run. SQLite before 3.32 takes 999 values."""
_END: Final = """
SELECT (SELECT seq FROM sqlite_sequence WHERE name = 'decision_log'), number, hash
FROM (SELECT 1) LEFT JOIN (SELECT number, hash FROM decision_log ORDER BY number DESC LIMIT 1)
"""


@final
class SqliteDecisionLog(ChainedLog):
    """A decision log in an SQLite file, shared by all processes that open it; it survives a crash and a power failure.

    Entries are only ever appended, each with a hash over itself and the one before, so that `verify` finds the first
    one that was changed, removed or put elsewhere later. Whoever may write the file could compute all hashes anew: keep
    `head` somewhere else, from time to time, and `verify` compares with that too.

    Safe for threads, for asyncio and after a fork. The file holds personal data, so a new one is readable by its owner
    only, where the system has owners; the mode of an existing one is not changed.
    """

    _table = "decision_log"
    _place = "instr"

    @sensitive_variables
    def __init__(
        self,
        path: str | PathLike[str],
        *,
        identify: Identify | None = None,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
        keep_payloads: bool = False,
        encryption_keys: EncryptionKeys | None = None,
    ) -> None:
        """Open or create the file.

        Args:
            path: The path of the file; its directory must exist, on a local disk.
            identify: For those who must not keep customer ids: a secret, and the log holds an HMAC-SHA256 of each id
                under it, or a function that returns the text to keep. All methods take the id itself. With another
                secret, earlier records are not found any more.
            synchronous: SQLite's setting. With `"FULL"` a record is on the disk before its answer leaves, which takes
                the disk's time to flush. With `"NORMAL"` it survives the end of the process, however that ends, but the
                last ones may be lost when the machine loses power.
            keep_payloads: Whether to keep beside each record what was asked, for `optimove-ce replay`: the raw body of
                the notification, or the customer's rows. It is personal data, and goes with `erase` and `prune`.
            encryption_keys: A key of `cryptography.fernet.Fernet`, or several of which the first encrypts and all
                decrypt: payloads are encrypted. Needs the extra `encryption`.

        Raises:
            ConfigurationError: `path` is `:memory:` or empty; or `identify` is empty, blank or of another type; or
                `synchronous` is neither; or a key is invalid, or the extra `encryption` is missing; or payloads with
                the ids that `identify` keeps out would be kept without a key.
            sqlite3.Error: The file cannot be opened, or is not an SQLite database.
            StoreError: Here and in all methods: the file has been removed or replaced. Restart all processes.
        """
        if path in NO_FILE:
            raise ConfigurationError("SqliteDecisionLog needs a file: what is kept in memory is no evidence.")
        if synchronous not in ("FULL", "NORMAL"):
            raise ConfigurationError('synchronous must be "FULL" or "NORMAL".')
        super().__init__(identify, keep_payloads=keep_payloads, encryption_keys=encryption_keys)
        self._synchronous = synchronous
        self._is_soon = False  # a connection that is opened anew is flushed, which is no harm
        self._known_end: tuple[int, bytes] | None = None
        self._file = SqliteFile(
            fspath(path), _SCHEMA, synchronous=synchronous, busy_seconds=_BUSY_SECONDS, private=True
        )
        self.after_fork()
        reset_after_fork(self)

    def _write(self, contents: Sequence[Content]) -> None:
        try:
            self._transaction(contents)
        except UniqueViolation:  # it holds one of the records, since a reply was lost; which is rare
            self._transaction(contents, look=True)

    def _transaction(self, contents: Sequence[Content], *, look: bool = False) -> None:
        # Of a power failure: a completion that is lost leaves a record without one, which says what is known.
        is_soon = self._synchronous == "FULL" and not has_decision(contents)
        # Each statement may wait for other threads of this process, so there are few: one, where that is enough.
        with self._file.connection(check_first=False) as connection:
            execute = _executing(connection)
            self._flush_soon(connection, is_soon=is_soon)
            if not look and self._appended_at_once(connection, contents):
                return
            execute("BEGIN IMMEDIATE")
            if look:
                held = "SELECT 1 FROM decision_log WHERE id = ?"
                contents = unknown(contents, lambda ids: {ident for ident in ids if execute(held, (ident,))})
            self._append(execute, contents)

    def _appended_at_once(self, connection: Connection, contents: Sequence[Content]) -> bool:
        """Append rows by one statement, a transaction of its own; False when the log does not end where it did."""
        if self._known_end is None or not 0 < len(contents) <= _ROWS_A_STATEMENT:
            return False
        number, digest = self._known_end
        values, end = _chained_to(self._known_end, contents)
        done = connection.execute(
            f"INSERT INTO decision_log ({COLUMNS}) "  # noqa: S608 - our own names
            f"SELECT * FROM ({_values_of(contents)}) WHERE (?, ?, ?) = ({_END})",
            (*values, number, number, digest),
        )
        if done.rowcount != len(contents):  # another process has appended since
            return False
        self._known_end = end
        return True

    def _query(self, work: Callable[[Execute], T]) -> T:
        with self._file.connection() as connection:
            return work(_executing(connection))

    def _flush_soon(self, connection: Connection, *, is_soon: bool) -> None:
        """Say whether the next transaction may be flushed to the disk some time later."""
        if is_soon != self._is_soon:
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if is_soon else 'FULL'}")
            self._is_soon = is_soon

    def _change(self, work: Callable[[Execute, Append], T]) -> T:
        with self._file.connection() as connection:
            self._flush_soon(connection, is_soon=False)
            execute = _executing(connection)
            execute("BEGIN IMMEDIATE")
            done = work(execute, lambda content: self._append(execute, [content]))
        # What was deleted leaves SQLite's write-ahead log too; readers in other processes may delay that.
        with self._file.connection() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return done

    def _append(self, execute: Execute, contents: Sequence[Content]) -> None:
        """Append rows, in a write transaction."""
        end = self._end(execute)
        for start in range(0, len(contents), _ROWS_A_STATEMENT):
            some = contents[start : start + _ROWS_A_STATEMENT]
            values, end = _chained_to(end, some)
            execute(f"INSERT INTO decision_log ({COLUMNS}) {_values_of(some)}", values)
        self._known_end = end  # compared before it is used, so it is no harm if this is rolled back

    def _end(self, execute: Execute) -> tuple[int, bytes]:
        ((highest, number, digest),) = execute(_END)
        # Not the last row's number: if that row was removed, the gap must stay.
        return max(highest or 0, number or 0), digest or GENESIS

    def _highest(self, execute: Execute) -> int:
        found = execute("SELECT seq FROM sqlite_sequence WHERE name = 'decision_log'")
        return int(found[0][0]) if found else 0

    def _completions(self, execute: Execute, rows: Sequence[Row]) -> Mapping[int, Sequence[Completion]]:
        return {row.number: _completions_of(execute, row) for row in rows}

    def close(self) -> None:
        """Write what was submitted, and close the file; the next use opens it again."""
        self.flush()
        self._file.close()


def _chained_to(end: tuple[int, bytes], contents: Sequence[Content]) -> tuple[list[object], tuple[int, bytes]]:
    """Return the values of the rows that follow an entry, and number and hash of the last one."""
    number, digest = end
    values: list[object] = []
    for each in contents:
        number, digest, content = linked(digest, number, each)
        values += (number, digest, *content)
    return values, (number, digest)


def _values_of(contents: Sequence[Content]) -> str:
    return f"VALUES {', '.join([_VALUES] * len(contents))}"


def _executing(connection: Connection) -> Execute:
    return lambda statement, values=(): connection.execute(statement, values).fetchall()


def _completions_of(execute: Execute, row: Row) -> list[Completion]:
    completes, number = completion_key(row)
    # Not those before it: they are about another record with its number, or stand where no check of the chain looks.
    condition, values = "completes = ? AND number > ?", list[object]([completes, row.number])
    if number is not None:
        condition += " AND low <= ? AND high > ?"
        values += [number, number]
    # Without the name of the index SQLite may walk the whole table, since that is in the wanted order.
    found = execute(
        f"SELECT {COLUMNS} FROM decision_log INDEXED BY decision_log_completes"  # noqa: S608 - our own names
        f" WHERE {condition} ORDER BY number",
        values,
    )
    return [completion_of(Content(*each[2:])) for each in found]
