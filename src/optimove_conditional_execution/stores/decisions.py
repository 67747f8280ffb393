"""A decision log in an SQLite file, for the processes of one machine."""

from __future__ import annotations

import hmac
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike, fspath
from typing import Any, Final, Literal, cast, final

from pydantic import SecretBytes, SecretStr

from ..credentials import revealed
from ..errors import ConfigurationError, OptimoveError
from ..flows.decision_log import Completion, DecisionRecord, LoggedDecision
from ..flows.journal import ranges_of
from ..fork import detect_fork, reset_after_fork
from ..tracebacks import sensitive_variables
from . import hash_chain
from .hash_chain import GENESIS, ChainFault, Content, Row
from .sqlite_file import IN_MEMORY, Connection, SqliteFile

Identify = str | bytes | SecretStr | SecretBytes | Callable[[str], str]

_BUSY_SECONDS: Final = 10.0
_ROWS_AT_ONCE: Final = 500

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
_COLUMNS: Final = ", ".join(("number", *Content._fields, "hash"))
_VALUES: Final = f"({', '.join('?' * (len(Content._fields) + 2))})"
_ROWS_A_STATEMENT: Final = 64
"""Rows that one statement inserts; each statement lets another thread run. SQLite before 3.32 takes 999 values."""
_BETWEEN: Final = "SELECT 1 FROM decision_log WHERE id >= ? AND id <= ? LIMIT 1"
_HEAD: Final = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


@dataclass(slots=True, eq=False)
class _Pending:
    """What one thread appends."""

    contents: Sequence[Content]
    done: bool = False
    error: Exception | None = None


@final
class SqliteDecisionLog(AbstractContextManager["SqliteDecisionLog"]):
    """A decision log in an SQLite file, shared by all processes that open it; it survives a crash and a power failure.

    Entries are only ever appended, each with a hash over itself and the one before, so that `verify` finds the first
    one that was changed, removed or put elsewhere later. Whoever may write the file could compute all hashes anew: keep
    `head` somewhere else, from time to time, and `verify` compares with that too.

    Safe for threads, for asyncio and after a fork. The file holds personal data, so a new one is readable by its owner
    only, where the system has owners; the mode of an existing one is not changed.
    """

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
        self._identify = _identifier(identify)
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
        contents = hash_chain.contents_of(entries, self._identify)
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

    def decisions(
        self,
        *,
        customer_id: str | None = None,
        campaign: str | int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[LoggedDecision]:
        """Yield the decisions in the order of the log, read in small portions.

        Args:
            customer_id: Only those about this customer.
            campaign: Only those of this campaign; see `Subject.campaign`.
            since: Only those at this moment or later.
            until: Only those before this moment.

        Raises:
            ConfigurationError: `since` or `until` has no zone.
        """
        condition, values = "type = 'decision'", list[str]()
        for column, wanted in (
            ("customer =", None if customer_id is None else self._key(customer_id)),
            ("campaign =", None if campaign is None else hash_chain.ascii_text(str(campaign))),
            ("at >=", None if since is None else hash_chain.stamp(since, "since")),
            ("at <", None if until is None else hash_chain.stamp(until, "until")),
        ):
            if wanted is not None:
                condition += f" AND {column} ?"
                values.append(wanted)
        return self._decisions(condition, values)

    def _decisions(self, condition: str, values: list[str]) -> Iterator[LoggedDecision]:
        last = 0
        while True:
            with self._file.connection() as connection:
                rows = _rows(connection, f"{condition} AND number > ?", (*values, last))
                found = [_logged(connection, row) for row in rows]
            yield from found
            if len(found) < _ROWS_AT_ONCE:
                return
            last = found[-1].entry

    def verify(self, *, head: str | None = None) -> ChainFault | None:
        """Check the whole chain, and return the first entry that was changed, removed or reordered; None when all fit.

        Args:
            head: What `head` returned earlier: the log must hold that very entry. Without it, nothing can tell a log
                whose hashes were all computed anew from an untouched one.

        Raises:
            ConfigurationError: `head` is not what `head` returns, or that entry has been pruned.
        """
        expected = None if head is None else _parsed(head)
        while True:
            with self._file.connection() as connection:
                number, digest = start = _start(connection)
            verifier = hash_chain.Verifier(number, digest)
            if expected is not None and expected[0] < number:
                raise ConfigurationError(f"The entry of this head was pruned: the log begins with {number + 1}.")
            fault = self._verified(verifier, expected)
            with self._file.connection() as connection:
                if fault is None or start == _start(connection):
                    return fault
            # It was pruned while it was read.

    def _verified(self, verifier: hash_chain.Verifier, expected: tuple[int, bytes] | None) -> ChainFault | None:
        last = 0
        while True:
            with self._file.connection() as connection:
                rows = _rows(connection, "number > ?", (last,))
                highest = _highest(connection)
            for row in rows:
                if fault := verifier.check(row):
                    return fault
                if expected is not None and row.number == expected[0] and row.hash != expected[1]:
                    return ChainFault(row.number, "is not the one whose head was kept")
            if len(rows) < _ROWS_AT_ONCE:
                return verifier.finish(max(highest, 0 if expected is None else expected[0]))
            last = rows[-1].number

    def head(self) -> str:
        """Return number and hash of the last entry, to be kept where those who can write the file cannot."""
        with self._file.connection() as connection:
            number, digest = _last(connection)
        return f"{number}:{digest.hex()}"

    def prune(self, before: datetime, /) -> int:
        """Delete the oldest entries, up to the first that is not from before a moment; the rest stays verifiable.

        That it was pruned, and up to which entry, becomes an entry of its own.

        Args:
            before: The moment.

        Returns:
            How many decisions were deleted.

        Raises:
            ConfigurationError: `before` has no zone.
        """
        moment = hash_chain.stamp(before, "before")
        with self._file.writing() as connection:
            (kept,) = connection.execute("SELECT min(number) FROM decision_log WHERE at >= ?", (moment,)).fetchone()
            newest = connection.execute(
                "SELECT number, hash FROM decision_log WHERE number < ? ORDER BY number DESC LIMIT 1",
                (_highest(connection) + 1 if kept is None else kept,),
            ).fetchone()
            if newest is None:
                return 0
            through, digest = newest
            (count,) = connection.execute(
                "SELECT count(*) FROM decision_log WHERE number <= ? AND type = 'decision'", (through,)
            ).fetchone()
            details = {"through": through, "hash": digest.hex(), "before": moment}
            _append(connection, [hash_chain.of_maintenance("pruning", datetime.now(UTC), details)])
            connection.execute("DELETE FROM decision_log WHERE number <= ?", (through,))
        self._overwrite()
        return int(count)

    def erase(self, customer_id: str, /) -> int:
        """Delete what the log knows of a customer, and keep that decisions were made; the chain stays verifiable.

        Deleted are the id, the reason, the evidence and the additional data, with the salt of the commitment to them.
        What stays says when which campaign was approved or not, to somebody whom the log does not know any more; with
        the `request_uid` Optimove may know. Which entries were erased, and when, becomes an entry of its own, without
        the id. Later decisions about the customer are recorded as before.

        Args:
            customer_id: The customer.

        Returns:
            How many decisions were erased.
        """
        with self._file.writing() as connection:
            numbers = [
                number
                for (number,) in connection.execute(
                    "SELECT number FROM decision_log WHERE customer = ? ORDER BY number", (self._key(customer_id),)
                )
            ]
            if not numbers:
                return 0
            connection.executemany(
                "UPDATE decision_log SET customer = NULL, personal = NULL, salt = NULL WHERE number = ?",
                [(number,) for number in numbers],
            )
            details = {"numbers": ranges_of(numbers)}
            _append(connection, [hash_chain.of_maintenance("erasure", datetime.now(UTC), details)])
        self._overwrite()
        return len(numbers)

    def _overwrite(self) -> None:
        """Move what was deleted out of SQLite's write-ahead log too; readers in other processes may delay that."""
        with self._file.connection() as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _key(self, customer_id: str) -> str:
        return hash_chain.ascii_text(customer_id if self._identify is None else self._identify(customer_id))

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def _identifier(identify: Identify | None) -> Callable[[str], str] | None:
    given: Any = revealed(identify)
    if given is None:
        return None
    if isinstance(given, str):
        given = given.encode("utf-8", "surrogateescape")
    if isinstance(given, bytes) and given.strip():
        key: bytes = given

        def pseudonym(customer_id: str) -> str:
            return hmac.digest(key, customer_id.encode("utf-8", "surrogatepass"), "sha256").hex()

        return pseudonym
    if not callable(given):
        raise ConfigurationError("identify must be a secret that is not blank, or a function of a customer id.")
    return cast("Callable[[str], str]", given)


def _parsed(head: str) -> tuple[int, bytes]:
    found = _HEAD.fullmatch(head.strip())
    if found is None:
        raise ConfigurationError(
            "head must be what `SqliteDecisionLog.head` returned: a number, a colon, 64 hexadecimal digits."
        )
    return int(found[1]), bytes.fromhex(found[2])


def _append(connection: Connection, contents: Sequence[Content]) -> None:
    """Append rows, in a write transaction."""
    number, digest = _last(connection)
    # Not the last row's number: if that row was removed, the gap must stay.
    number = max(number, _highest(connection))
    for start in range(0, len(contents), _ROWS_A_STATEMENT):
        some = contents[start : start + _ROWS_A_STATEMENT]
        # Not ON CONFLICT: SQLite counts the number as given then, too.
        known = _known(connection, [content.id for content in some if content.id is not None])
        values: list[object] = []
        for content in some:
            if content.id is not None:
                if content.id in known:
                    continue
                known.add(content.id)
            number, digest = number + 1, hash_chain.chained(digest, number + 1, content)
            values += (number, *content, digest)
        if values:
            rows = ", ".join([_VALUES] * (len(values) // _VALUES.count("?")))
            connection.execute(f"INSERT INTO decision_log ({_COLUMNS}) VALUES {rows}", values)  # noqa: S608 - our own names


def _known(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Return those of the ids that records of the log have."""
    if not ids or connection.execute(_BETWEEN, (min(ids), max(ids))).fetchone() is None:  # as it usually is
        return set()
    places = ", ".join("?" * len(ids))
    found = connection.execute(f"SELECT id FROM decision_log WHERE id IN ({places})", ids)  # noqa: S608 - our own
    return {name for (name,) in found}


def _last(connection: Connection) -> tuple[int, bytes]:
    row = connection.execute("SELECT number, hash FROM decision_log ORDER BY number DESC LIMIT 1").fetchone()
    return (0, GENESIS) if row is None else (row[0], row[1])


def _highest(connection: Connection) -> int:
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'decision_log'").fetchone()
    return 0 if row is None else int(row[0])


def _start(connection: Connection) -> tuple[int, bytes]:
    """Return number and hash of the entry before the first one."""
    row = connection.execute(
        "SELECT entry FROM decision_log WHERE type = 'pruning' ORDER BY number DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return 0, GENESIS
    try:
        details = json.loads(row[0])
        return int(details["through"]), bytes.fromhex(details["hash"])
    except (ValueError, TypeError, KeyError):  # it was changed; then the chain does not fit from its beginning
        return 0, GENESIS


def _rows(connection: Connection, condition: str, values: Sequence[object]) -> list[Row]:
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM decision_log WHERE {condition} ORDER BY number LIMIT {_ROWS_AT_ONCE}",  # noqa: S608 - our own
        values,
    ).fetchall()
    return [Row(row[0], Content(*row[1:-1]), row[-1]) for row in found]


def _logged(connection: Connection, row: Row) -> LoggedDecision:
    record = hash_chain.record_of(row.content)
    scheduled = record.event_key is not None and record.number is not None
    completes = record.event_key if scheduled else record.id
    condition, values = "completes = ?", list[object]([hash_chain.ascii_text(str(completes))])
    if scheduled:  # not those before it, which are about another record with its number
        condition += " AND low <= ? AND high > ? AND number > ?"
        values += [record.number, record.number, row.number]
    # Without the name of the index SQLite may walk the whole table, since that is in the wanted order.
    found = connection.execute(
        f"SELECT {_COLUMNS} FROM decision_log INDEXED BY decision_log_completes"  # noqa: S608 - our own names
        f" WHERE {condition} ORDER BY number",
        values,
    ).fetchall()
    completions = [hash_chain.completion_of(Content(*each[1:-1])) for each in found]
    return LoggedDecision(
        entry=row.number,
        record=record,
        completion=hash_chain.final_completion(completions),
        erased=row.content.commitment is not None and row.content.salt is None,
    )
