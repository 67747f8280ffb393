"""A decision log in an SQLite file, for the processes of one machine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Final, Literal, TypeVar, final

from ..errors import ConfigurationError, OptimoveError
from ..flows.decision_log import Completion, DecisionRecord
from ..fork import detect_fork, reset_after_fork
from ..tracebacks import sensitive_variables
from . import hash_chain
from .chained_log import COLUMNS, Append, ChainedLog, Execute, Identify, completion_key
from .hash_chain import GENESIS, SALT_BYTES, Content, Row
from .sqlite_file import IN_MEMORY, Connection, SqliteFile

T = TypeVar("T")

_BUSY_SECONDS: Final = 10.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS decision_log (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- keeps the highest number, also of a row that was removed
    type TEXT NOT NULL,
    id TEXT,
    completes TEXT,
    at TEXT NOT NULL,
    campaign TEXT,
    low INTEGER,
    high INTEGER,
    entry TEXT NOT NULL,
    commitment BLOB,
    customer TEXT,
    personal TEXT,
    salt BLOB,
    hash BLOB NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS decision_log_id ON decision_log (id) WHERE id IS NOT NULL;
CREATE INDEX IF NOT EXISTS decision_log_completes ON decision_log (completes, low) WHERE completes IS NOT NULL;
CREATE INDEX IF NOT EXISTS decision_log_customer ON decision_log (customer) WHERE customer IS NOT NULL;
"""
_INSERT: Final = f"INSERT INTO decision_log ({COLUMNS}) VALUES ({', '.join('?' * (len(Content._fields) + 2))})"  # noqa: S608 - our own names
_KNOWN: Final = "SELECT 1 FROM decision_log WHERE id = ?"


@dataclass(slots=True, eq=False)
class _Pending:
    """What one thread appends."""

    contents: Sequence[Content]
    done: bool = False
    error: Exception | None = None


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

    @sensitive_variables
    def __init__(
        self,
        path: str | PathLike[str],
        *,
        identify: Identify | None = None,
        synchronous: Literal["FULL", "NORMAL"] = "FULL",
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

        Raises:
            ConfigurationError: `path` is `:memory:`; or `identify` is empty, blank or of another type; or
                `synchronous` is neither.
            sqlite3.Error: The file cannot be opened, or is not an SQLite database.
            StoreError: Here and in all methods: the file has been removed or replaced. Restart all processes.
        """
        if path == IN_MEMORY:
            raise ConfigurationError("SqliteDecisionLog needs a file: what is kept in memory is no evidence.")
        if synchronous not in ("FULL", "NORMAL"):
            raise ConfigurationError('synchronous must be "FULL" or "NORMAL".')
        super().__init__(identify)
        self._synchronous = synchronous
        self._file = SqliteFile(
            fspath(path), _SCHEMA, synchronous=synchronous, busy_seconds=_BUSY_SECONDS, private=True
        )
        self._waiting: list[_Pending] = []
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Drop what the parent's threads are appending; a child has other threads."""
        self._waiting = []
        self._queue, self._writer = threading.Lock(), threading.Lock()

    def append(self, entries: Sequence[DecisionRecord | Completion], /) -> None:
        """Append entries; see `DecisionLog.append`.

        Raises:
            PayloadError: One cannot be written as JSON.
            ConfigurationError: The time of one has no zone.
            sqlite3.Error: The file cannot be written.
        """
        salts = os.urandom(SALT_BYTES * len(entries))
        contents = [
            hash_chain.of_record(each, self._identify, salts[SALT_BYTES * index : SALT_BYTES * (index + 1)])
            if isinstance(each, DecisionRecord)
            else hash_chain.of_completion(each)
            for index, each in enumerate(entries)
        ]
        detect_fork()
        # Threads that append at the same time share one transaction, since flushing the disk takes most of the time.
        mine = _Pending(contents)
        with self._queue:
            self._waiting.append(mine)
        with self._writer:
            if not mine.done:
                with self._queue:
                    group, self._waiting = self._waiting, []
                self._write(group)
        if mine.error is not None:
            raise mine.error

    def _write(self, group: Sequence[_Pending]) -> None:
        # A completion that is lost in a power failure leaves a record without one, which says what is known.
        is_decided = any(content.type == "decision" for each in group for content in each.contents)
        try:
            with self._file.connection() as connection:
                connection.execute(f"PRAGMA synchronous = {self._synchronous if is_decided else 'NORMAL'}")
                connection.execute("BEGIN IMMEDIATE")
                for each in group:
                    _append(connection, each.contents)
        except BaseException as error:  # the writer of this group raises it in all of its threads
            for each in group:
                each.error = error if isinstance(error, Exception) else OptimoveError("Appending was interrupted.")
            if not isinstance(error, Exception):
                raise
        finally:
            for each in group:
                each.done = True

    def _query(self, work: Callable[[Execute], T]) -> T:
        with self._file.connection() as connection:
            return work(lambda statement, values=(): connection.execute(statement, values).fetchall())

    def _change(self, work: Callable[[Execute, Append], T]) -> T:
        with self._file.writing() as connection:
            done = work(
                lambda statement, values=(): connection.execute(statement, values).fetchall(),
                lambda content: _append(connection, [content]),
            )
        # What was deleted leaves SQLite's write-ahead log too; readers in other processes may delay that.
        with self._file.connection() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return done

    def _highest(self, execute: Execute) -> int:
        found = execute("SELECT seq FROM sqlite_sequence WHERE name = 'decision_log'")
        return int(found[0][0]) if found else 0

    def _completions(self, execute: Execute, rows: Sequence[Row]) -> Mapping[int, Sequence[Completion]]:
        return {row.number: _completions_of(execute, row) for row in rows}

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()


def _append(connection: Connection, contents: Iterable[Content]) -> None:
    """Append rows, in a write transaction."""
    number, digest = _last(connection)
    # Not the last row's number: if that row was removed, the gap must stay.
    number = max(number, _highest(connection))
    for content in contents:
        # Not ON CONFLICT: SQLite counts the number as given then, too.
        if content.id is not None and connection.execute(_KNOWN, (content.id,)).fetchone() is not None:
            continue
        number, digest = number + 1, hash_chain.chained(digest, number + 1, content)
        connection.execute(_INSERT, (number, *content, digest))


def _last(connection: Connection) -> tuple[int, bytes]:
    row = connection.execute("SELECT number, hash FROM decision_log ORDER BY number DESC LIMIT 1").fetchone()
    return (0, GENESIS) if row is None else (row[0], row[1])


def _highest(connection: Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'decision_log'").fetchone()
    return 0 if row is None else int(row[0])


def _completions_of(execute: Execute, row: Row) -> list[Completion]:
    completes, number = completion_key(row)
    condition, values = "completes = ?", list[object]([completes])
    if number is not None:  # not those before it, which are about another record with its number
        condition += " AND low <= ? AND high > ? AND number > ?"
        values += [number, number, row.number]
    # Without the name of the index SQLite may walk the whole table, since that is in the wanted order.
    found = execute(
        f"SELECT {COLUMNS} FROM decision_log INDEXED BY decision_log_completes"  # noqa: S608 - our own names
        f" WHERE {condition} ORDER BY number",
        values,
    )
    return [hash_chain.completion_of(Content(*each[1:-1])) for each in found]
