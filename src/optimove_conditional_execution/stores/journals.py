"""Journals in tables; those in SQLite: in a file, for the processes of one machine, or in memory, for one process."""
# ruff: noqa: S608 - the names of the tables are our own, and values are bound

from __future__ import annotations

import abc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from hashlib import blake2b
from os import PathLike, fspath
from typing import Any, Final, LiteralString, Protocol, TypeVar, cast, final

from ..errors import ConfigurationError, OptimoveError, SupersededError
from ..flows.journal import DecidedBatch, Entry, OpenReview, Ranges, ReviewState, StatusUpdate, dated, entry_of
from ..models.events import CampaignReadyEvent
from .sqlite_file import IN_MEMORY, NO_FILE, SqliteFile, SqliteLocks

T = TypeVar("T")
Execute = Callable[..., Any]
"""Executes a statement, with a `?` for each value, and returns the cursor, of which this uses what PEP 249 names."""

_BUSY_SECONDS: Final = 10.0
_BATCHES_AT_ONCE: Final = 16
_REMEMBERED_REVIEWS: Final = 8
"""Finished reviews whose customer ids a `MemoryJournal` keeps."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS reviews (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    event TEXT NOT NULL,
    clearance TEXT NOT NULL,
    decided INTEGER NOT NULL DEFAULT 0,
    approved INTEGER NOT NULL DEFAULT 0,
    finished INTEGER NOT NULL DEFAULT 0,
    report TEXT
);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY,
    review INTEGER NOT NULL,
    digest BLOB NOT NULL,
    batch TEXT NOT NULL,
    UNIQUE (review, digest)
);
CREATE INDEX IF NOT EXISTS batches_review ON batches (review);
CREATE TABLE IF NOT EXISTS acknowledged (
    review INTEGER NOT NULL,
    low INTEGER NOT NULL,
    high INTEGER NOT NULL,
    PRIMARY KEY (review, low)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
    run INTEGER PRIMARY KEY AUTOINCREMENT,
    key TEXT NOT NULL UNIQUE
);
"""


class Locks(Protocol):
    """Locks of reviews."""

    def take(self, name: str, /) -> bool: ...  # noqa: D102 - as of `SqliteLocks`
    def leave(self, name: str, /) -> None: ...  # noqa: D102 - as of `SqliteLocks`


class TableJournal(abc.ABC):
    """A journal in the tables of a database; see `Journal`. A subclass has what its database says in its own way."""

    _locks: Locks
    _reviews: LiteralString
    """The table of reviews."""
    _batches: LiteralString
    """The table of decided batches and status updates."""
    _runs: LiteralString
    """The table that has the number of the latest run by the key of the review."""
    _add_review: LiteralString
    _find: LiteralString
    """Finds the number of a review and of its latest run, before what writes to it."""
    _ranges: LiteralString
    """Finds the ranges that are acknowledged of a review."""
    _ranges_sum: LiteralString
    _prune: Sequence[LiteralString]
    """Deletes finished reviews, which the last of these statements counts."""

    @abc.abstractmethod
    def _transaction(self, work: Callable[[Execute], T], *, is_long: bool = False) -> T:
        """Call a function in a transaction; `is_long` if that may take minutes."""

    def _read(self, work: Callable[[Execute], T]) -> T:
        """Call a function that only reads."""
        return self._transaction(work)

    @abc.abstractmethod
    def _begin_run(self, execute: Execute, key: str) -> int:
        """Give a review a run with a number above those of all earlier ones."""

    @abc.abstractmethod
    def _add_ranges(self, execute: Execute, review: int, ranges: Ranges) -> None:
        """Add ranges to those that are acknowledged."""

    @abc.abstractmethod
    def _look_at_locks(self) -> None:
        """Called by a run before it writes, or reads what it has sent."""

    def add(self, event: CampaignReadyEvent, /) -> bool:
        """Add an announced campaign; see `Journal.add`."""
        return self._transaction(lambda execute: self._add(execute, event))

    def _add(self, execute: Execute, event: CampaignReadyEvent) -> bool:
        added = execute(self._add_review, (event.key, event.model_dump_json(by_alias=True), _clearance_of(event)))
        return bool(added.rowcount == 1)

    def open(self, event: CampaignReadyEvent, /) -> OpenReview | None:
        """Lock a review for one run; see `Journal.open`. What the locks raise is raised, too."""
        key = event.key
        if not self._locks.take(key):
            return None

        def work(execute: Execute) -> OpenReview:
            self._add(execute, event)
            run = self._begin_run(execute, key)
            reports = execute(f"SELECT report FROM {self._reviews} WHERE key = ? AND finished", (key,)).fetchall()
            others = execute(
                f"SELECT event FROM {self._reviews} WHERE clearance = ? AND key <> ?", (_clearance_of(event), key)
            ).fetchall()
            again = any(CampaignReadyEvent.from_json(text).campaign_id == event.campaign_id for (text,) in others)
            ranges = tuple(execute(self._ranges, (key,)).fetchall())
            return OpenReview(run, ranges, reports[0][0] if reports else None, again)

        try:
            return self._transaction(work)
        except BaseException:
            self._locks.leave(key)
            raise

    def unlock(self, key: str, /) -> None:
        """Release the lock of a review; see `Journal.unlock`."""
        self._locks.leave(key)

    def record(self, key: str, batches: Sequence[DecidedBatch], /, *, run: int | None = None) -> None:
        """Append decided batches; see `Journal.record`.

        Raises:
            OptimoveError: The journal has no such review.
            SupersededError: A later run has opened the review.
        """

        def work(execute: Execute, review: int) -> None:
            new = [batch for batch in batches if self._append(execute, review, batch)]
            decided, approved = sum(each.newly_decided for each in new), sum(each.newly_approved for each in new)
            execute(
                f"UPDATE {self._reviews} SET decided = decided + ?, approved = approved + ? WHERE id = ?",
                (decided, approved, review),
            )

        self._write(key, run, work)

    def batches(self, key: str, /) -> Iterator[DecidedBatch]:
        """Yield all batches, read in small portions; concurrent writes are allowed. See `Journal.batches`."""
        return (entry for entry in self.history(key) if isinstance(entry, DecidedBatch))

    def history(self, key: str, /) -> Iterator[Entry]:
        """Yield all batches and status updates, with their times; see `JournalHistory.history`."""
        # By key each time: if the review was pruned since, its number could be another one's.
        statement = (
            f"SELECT number, batch FROM {self._batches}"
            f" WHERE review = (SELECT id FROM {self._reviews} WHERE key = ?) AND number > ? ORDER BY number LIMIT ?"
        )

        def read(after: int) -> list[tuple[int, str]]:
            values = (key, after, _BATCHES_AT_ONCE)
            return self._read(lambda execute: execute(statement, values).fetchall())

        last = 0
        while True:
            rows = read(last)
            yield from (entry_of(text) for _, text in rows)
            if len(rows) < _BATCHES_AT_ONCE:
                return
            last = rows[-1][0]

    def acknowledge(self, key: str, ranges: Ranges, /, *, run: int | None = None) -> None:
        """Record which statuses Optimove has acknowledged; see `Journal.acknowledge`.

        Raises:
            OptimoveError: The journal has no such review, or a range is empty.
            SupersededError: A later run has opened the review.
        """
        for start, end in ranges:
            if not 0 <= start < end:
                raise OptimoveError(f"Statuses [{start}, {end}) are not a range.")

        def work(execute: Execute, review: int) -> None:
            if ranges:
                self._append(execute, review, StatusUpdate(tuple(ranges)))
            self._add_ranges(execute, review, ranges)

        self._write(key, run, work)

    def acknowledged(self, key: str, /, *, run: int | None = None) -> Ranges:
        """Return the ranges of statuses that Optimove has acknowledged; see `Journal.acknowledged`.

        Raises:
            SupersededError: A later run has opened the review.
        """

        def work(execute: Execute) -> Ranges:
            latest = execute(f"SELECT run FROM {self._runs} WHERE key = ?", (key,)).fetchall()
            _check_run(run, latest[0][0] if latest else None)
            ranges: Ranges = execute(self._ranges, (key,)).fetchall()
            return ranges

        if run is not None:
            self._look_at_locks()
        return self._read(work)

    def finish(self, key: str, report: str, /, *, run: int | None = None) -> None:
        """Record that the review is complete; see `Journal.finish`.

        Raises:
            OptimoveError: The journal has no such review.
            SupersededError: A later run has opened the review.
        """
        self._report(key, report, run, is_finished=True)

    def keep_report(self, key: str, report: str, /, *, run: int | None = None) -> None:
        """Keep the report of a run that leaves the review incomplete; see `Journal.keep_report`.

        Raises:
            OptimoveError: The journal has no such review.
            SupersededError: A later run has opened the review.
        """
        self._report(key, report, run, is_finished=False)

    def _report(self, key: str, report: str, run: int | None, *, is_finished: bool) -> None:
        statement = f"UPDATE {self._reviews} SET report = ?, finished = ? WHERE id = ? AND NOT finished"
        self._write(key, run, lambda execute, review: execute(statement, (report, is_finished, review)))

    def unfinished(self) -> list[CampaignReadyEvent]:
        """Return the events of unfinished reviews, in the order of `add`."""
        statement = f"SELECT event FROM {self._reviews} WHERE NOT finished ORDER BY id"
        rows = self._read(lambda execute: execute(statement).fetchall())
        return [CampaignReadyEvent.from_json(event) for (event,) in rows]

    def reviews(self) -> list[ReviewState]:
        """Return all reviews, in the order of `add`."""
        statement = (
            f"SELECT event, decided, approved, {self._ranges_sum}, finished, report FROM {self._reviews} ORDER BY id"
        )
        return [
            ReviewState(CampaignReadyEvent.from_json(event), decided, approved, acknowledged, bool(finished), report)
            for event, decided, approved, acknowledged, finished, report in self._read(
                lambda execute: execute(statement).fetchall()
            )
        ]

    def prune(self, before: datetime, /) -> int:
        """Delete old finished reviews; see `Journal.prune`.

        Raises:
            ConfigurationError: `before` has a zone.
        """
        if before.tzinfo is not None:
            raise ConfigurationError(
                "before must have no zone: it is compared with ClearanceRequiredBy, which has none."
            )
        values = (before.isoformat(),)

        def work(execute: Execute) -> list[int]:
            return [execute(statement, values).rowcount for statement in self._prune]

        return self._transaction(work, is_long=True)[-1]

    def _write(self, key: str, run: int | None, work: Callable[[Execute, int], object]) -> None:
        """Write to a review, one transaction after another, unless a later run has opened it."""

        def fenced(execute: Execute) -> None:
            found = execute(self._find, (key,)).fetchall()
            if not found:
                raise OptimoveError("No such review is in this journal.")
            review, latest, *_ = found[0]
            _check_run(run, latest)
            work(execute, review)

        if run is not None:
            self._look_at_locks()
        self._transaction(fenced)

    def _append(self, execute: Execute, review: int, entry: Entry) -> bool:
        """Append a batch or a status update with the time, which its digest leaves out."""
        text = entry.to_json()
        added = execute(
            f"INSERT INTO {self._batches} (review, digest, batch) VALUES (?, ?, ?)"
            " ON CONFLICT (review, digest) DO NOTHING",
            (review, blake2b(text.encode(), digest_size=16).digest(), dated(text, time.time())),
        )
        return bool(added.rowcount == 1)


def _clearance_of(event: CampaignReadyEvent) -> str:
    """Return the clearance as a text, without a zone; such texts sort chronologically."""
    return event.clearance_required_by.isoformat()


def _check_run(run: int | None, latest: int | None) -> None:
    if run is not None and run != latest:
        raise SupersededError("Another run has taken over this review, so this one records and sends nothing more.")


_OLD: Final = "FROM reviews WHERE finished AND clearance < ?"


class _SqliteTables(TableJournal):
    _file: SqliteFile
    _reviews = "reviews"
    _batches = "batches"
    _runs = "runs"
    _add_review = "INSERT INTO reviews (key, event, clearance) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING"
    _find = "SELECT id, run FROM reviews LEFT JOIN runs USING (key) WHERE key = ?"
    _ranges = "SELECT low, high FROM acknowledged WHERE review = (SELECT id FROM reviews WHERE key = ?) ORDER BY low"
    _ranges_sum = "(SELECT coalesce(sum(high - low), 0) FROM acknowledged WHERE review = reviews.id)"
    _prune = (
        f"DELETE FROM batches WHERE review IN (SELECT id {_OLD})",
        f"DELETE FROM acknowledged WHERE review IN (SELECT id {_OLD})",
        f"DELETE FROM runs WHERE key IN (SELECT key {_OLD})",
        f"DELETE {_OLD}",
    )

    def _transaction(self, work: Callable[[Execute], T], *, is_long: bool = False) -> T:
        with self._file.writing() as connection:
            return work(connection.execute)

    def _read(self, work: Callable[[Execute], T]) -> T:
        with self._file.connection() as connection:
            return work(connection.execute)

    def _look_at_locks(self) -> None:
        """Nothing tells that a lock file was removed."""

    def _begin_run(self, execute: Execute, key: str) -> int:
        # AUTOINCREMENT: each row gets a number above all earlier ones, also of deleted rows.
        return cast("int", execute("INSERT OR REPLACE INTO runs (key) VALUES (?)", (key,)).lastrowid)

    def _add_ranges(self, execute: Execute, review: int, ranges: Ranges) -> None:
        for start, end in ranges:
            touching = (review, end, start)
            low, high = execute(
                "SELECT min(low), max(high) FROM acknowledged WHERE review = ? AND low <= ? AND high >= ?", touching
            ).fetchone()
            if low is not None:
                start, end = min(low, start), max(high, end)
                execute("DELETE FROM acknowledged WHERE review = ? AND low <= ? AND high >= ?", touching)
            execute("INSERT INTO acknowledged VALUES (?, ?, ?)", (review, start, end))


@final
class SqliteJournal(_SqliteTables, AbstractContextManager["SqliteJournal"]):
    """A journal in an SQLite file, shared by all processes that open it; it survives a crash and a power failure.

    Safe for threads, for asyncio and after a fork. The file holds ids of customers until `prune`, so a new one is
    readable by its owner only, where the system has owners; the mode of an existing one is not changed. Next to it are
    SQLite's own `-wal` and `-shm` files, and an empty `.lock` file for each open review.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        """Open or create the file.

        Args:
            path: The path of the file; its directory must exist, on a local disk.

        Raises:
            ConfigurationError: `path` is `:memory:` or empty.
            ConfigurationError: It is the journal of another version of the SDK.
            sqlite3.Error: The file cannot be opened, or is not an SQLite database.
            StoreError: Here and in all methods: the file has been removed or replaced. Restart all processes.
        """
        if path in NO_FILE:
            raise ConfigurationError("SqliteJournal needs a file; in memory there is MemoryJournal.")
        place = fspath(path)
        self._file = SqliteFile(place, _SCHEMA, synchronous="FULL", busy_seconds=_BUSY_SECONDS, private=True)
        with self._file.connection() as connection:
            columns = {
                name
                for table in ("reviews", "batches")
                for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
            }
        if not {"finished", "batch"} <= columns:
            self._file.close()
            raise ConfigurationError(
                f"{place} was written by an earlier version of this SDK, which kept its batches in another form. "
                "None of its reviews was changed. Let that version finish them, or wait for their clearance; then use "
                "another file."
            )
        # The lock files must be the same for all paths to this file.
        self._locks = self._lock_files = SqliteLocks(os.path.realpath(place), guard=self._file.writing)

    def close(self) -> None:
        """Close the file and release the locks of all reviews; the next use opens it again."""
        self._lock_files.close()
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()


@final
class MemoryJournal(_SqliteTables):
    """A journal in memory, lost in a crash. Safe for threads and for asyncio; empty in a forked child.

    Finished reviews are kept until `prune`; customer ids only of the last eight.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._file = SqliteFile(IN_MEMORY, _SCHEMA, synchronous="NORMAL", busy_seconds=0)
        self._locks = _MemoryLocks()

    def finish(self, key: str, report: str, /, *, run: int | None = None) -> None:
        """Record that the review is complete; see `Journal.finish`.

        Raises:
            OptimoveError: The journal has no such review.
            SupersededError: A later run has opened the review.
        """
        super().finish(key, report, run=run)
        with self._file.connection() as connection:
            connection.execute(
                "DELETE FROM batches WHERE review IN (SELECT id FROM reviews WHERE finished"
                " ORDER BY id DESC LIMIT -1 OFFSET ?)",
                (_REMEMBERED_REVIEWS,),
            )


class _MemoryLocks:
    def __init__(self) -> None:
        self._held: dict[str, object] = {}

    def take(self, name: str) -> bool:
        mine = object()
        return self._held.setdefault(name, mine) is mine  # atomic

    def leave(self, name: str) -> None:
        self._held.pop(name, None)
