"""Journals in SQLite: in a file, for the processes of one machine, or in memory, for one process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from hashlib import blake2b
from os import PathLike, fspath
from typing import Final, Literal, final

from ..errors import ConfigurationError, OptimoveError, SupersededError
from ..flows.journal import DecidedBatch, Entry, OpenReview, Ranges, ReviewState, StatusUpdate, dated, entry_of
from ..models.events import CampaignReadyEvent
from .sqlite_file import IN_MEMORY, Connection, SqliteFile, SqliteLocks

_BUSY_SECONDS: Final = 10.0
BATCHES_AT_ONCE: Final = 16
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


class _Tables:
    """A journal in the tables of an SQLite database; see `Journal`."""

    _file: SqliteFile
    _locks: SqliteLocks | _MemoryLocks

    def add(self, event: CampaignReadyEvent, /) -> bool:
        """Add an announced campaign; see `Journal.add`."""
        with self._file.writing() as connection:
            return _add(connection, event)

    def open(self, event: CampaignReadyEvent, /) -> OpenReview | None:
        """Lock a review for one run; see `Journal.open`.

        Raises:
            sqlite3.Error: The file cannot be written, or the lock file cannot be opened.
        """
        key = event.key
        if not self._locks.take(key):
            return None
        try:
            with self._file.writing() as connection:
                _add(connection, event)
                # AUTOINCREMENT: each row gets a number above all earlier ones, also of deleted rows.
                run = connection.execute("INSERT OR REPLACE INTO runs (key) VALUES (?)", (key,)).lastrowid
                assert run is not None  # noqa: S101 - a row was inserted
                (report,) = connection.execute(
                    "SELECT CASE WHEN finished THEN report END FROM reviews WHERE key = ?", (key,)
                ).fetchone()
                others = connection.execute(
                    "SELECT event FROM reviews WHERE clearance = ? AND key != ?", (clearance_text(event), key)
                ).fetchall()
                return OpenReview(run, tuple(_acknowledged(connection, key)), report, is_announced_in(others, event))
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
        with self._file.writing() as connection:
            review = _known(connection, key, run)
            decided = approved = 0
            for batch in batches:
                if _append(connection, review, batch):
                    decided += batch.newly_decided
                    approved += batch.newly_approved
            connection.execute(
                "UPDATE reviews SET decided = decided + ?, approved = approved + ? WHERE id = ?",
                (decided, approved, review),
            )

    def batches(self, key: str, /) -> Iterator[DecidedBatch]:
        """Yield all batches, read in small portions; concurrent writes are allowed. See `Journal.batches`."""
        return (entry for entry in self.history(key) if isinstance(entry, DecidedBatch))

    def history(self, key: str, /) -> Iterator[Entry]:
        """Yield all batches and status updates, with their times; see `JournalHistory.history`."""

        def read(last: int) -> list[tuple[int, str]]:
            with self._file.connection() as connection:
                # By key each time: if the review was pruned since, its number could be another one's.
                return connection.execute(
                    "SELECT number, batch FROM batches"
                    " WHERE review = (SELECT id FROM reviews WHERE key = ?) AND number > ? ORDER BY number LIMIT ?",
                    (key, last, BATCHES_AT_ONCE),
                ).fetchall()

        return in_portions(read)

    def acknowledge(self, key: str, ranges: Ranges, /, *, run: int | None = None) -> None:
        """Record which statuses Optimove has acknowledged; see `Journal.acknowledge`.

        Raises:
            OptimoveError: The journal has no such review, or a range is empty.
            SupersededError: A later run has opened the review.
        """
        check_ranges(ranges)
        with self._file.writing() as connection:
            review = _known(connection, key, run)
            if ranges:
                _append(connection, review, StatusUpdate(tuple(ranges)))
            for start, end in ranges:
                _add_range(connection, review, start, end)

    def acknowledged(self, key: str, /, *, run: int | None = None) -> Ranges:
        """Return the ranges of statuses that Optimove has acknowledged; see `Journal.acknowledged`.

        Raises:
            SupersededError: A later run has opened the review.
        """
        with self._file.connection() as connection:
            _check_run(connection, key, run)
            return _acknowledged(connection, key)

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
        statement = "UPDATE reviews SET report = ?, finished = ? WHERE id = ? AND NOT finished"
        with self._file.writing() as connection:
            connection.execute(statement, (report, is_finished, _known(connection, key, run)))

    def unfinished(self) -> list[CampaignReadyEvent]:
        """Return the events of unfinished reviews, in the order of `add`."""
        with self._file.connection() as connection:
            rows = connection.execute("SELECT event FROM reviews WHERE NOT finished ORDER BY id").fetchall()
        return [CampaignReadyEvent.from_json(event) for (event,) in rows]

    def reviews(self) -> list[ReviewState]:
        """Return all reviews, in the order of `add`."""
        with self._file.connection() as connection:
            rows = connection.execute(
                "SELECT event, decided, approved,"
                " (SELECT coalesce(sum(high - low), 0) FROM acknowledged WHERE review = reviews.id), finished, report"
                " FROM reviews ORDER BY id"
            ).fetchall()
        return [
            ReviewState(CampaignReadyEvent.from_json(event), decided, approved, acknowledged, bool(finished), report)
            for event, decided, approved, acknowledged, finished, report in rows
        ]

    def prune(self, before: datetime, /) -> int:
        """Delete old finished reviews; see `Journal.prune`.

        Raises:
            ConfigurationError: `before` has a zone.
        """
        check_naive(before)
        with self._file.writing() as connection:
            old = connection.execute(
                "SELECT id FROM reviews WHERE finished AND clearance < ?", (before.isoformat(),)
            ).fetchall()
            for statement in (
                "DELETE FROM batches WHERE review = ?",
                "DELETE FROM acknowledged WHERE review = ?",
                "DELETE FROM runs WHERE key = (SELECT key FROM reviews WHERE id = ?)",
                "DELETE FROM reviews WHERE id = ?",
            ):
                connection.executemany(statement, old)
            return len(old)


@final
class SqliteJournal(_Tables, AbstractContextManager["SqliteJournal"]):
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
            ConfigurationError: `path` is `:memory:`.
            ConfigurationError: It is the journal of another version of the SDK.
            sqlite3.Error: The file cannot be opened, or is not an SQLite database.
            StoreError: Here and in all methods: the file has been removed or replaced. Restart all processes.
        """
        if path == IN_MEMORY:
            raise ConfigurationError("SqliteJournal needs a file; in memory there is MemoryJournal.")
        place = fspath(path)
        self._file = SqliteFile(place, _SCHEMA, synchronous="FULL", busy_seconds=_BUSY_SECONDS, private=True)
        with self._file.connection() as connection:
            columns = {name for table in ("reviews", "batches") for name in _columns(connection, table)}
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
class MemoryJournal(_Tables):
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


def _add(connection: Connection, event: CampaignReadyEvent) -> bool:
    row = (event.key, event.model_dump_json(by_alias=True), clearance_text(event))
    added = connection.execute(
        "INSERT INTO reviews (key, event, clearance) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING", row
    )
    return added.rowcount == 1


def _append(connection: Connection, review: int, entry: Entry) -> bool:
    text, digest = text_and_digest(entry)
    added = connection.execute(
        "INSERT INTO batches (review, digest, batch) VALUES (?, ?, ?) ON CONFLICT (review, digest) DO NOTHING",
        (review, digest, text),
    )
    return added.rowcount == 1


def clearance_text(event: CampaignReadyEvent) -> str:
    """Return the clearance as a text, without a zone; such texts sort chronologically."""
    return event.clearance_required_by.isoformat()


def text_and_digest(entry: Entry) -> tuple[str, bytes]:
    """Return a batch or a status update as a journal stores it: with the time, which the digest leaves out."""
    text = entry.to_json()
    return dated(text, time.time()), blake2b(text.encode(), digest_size=16).digest()


def in_portions(read: Callable[[int], list[tuple[int, str]]]) -> Iterator[Entry]:
    """Yield the entries that a function reads, `BATCHES_AT_ONCE` after a number, as their numbers and texts."""
    last = 0
    while True:
        rows = read(last)
        for _, text in rows:
            yield entry_of(text)
        if len(rows) < BATCHES_AT_ONCE:
            return
        last = rows[-1][0]


def is_announced_in(others: Sequence[tuple[str]], event: CampaignReadyEvent) -> bool:
    """Return whether one of other events, as stored, announces the same campaign."""
    return any(CampaignReadyEvent.from_json(text).campaign_id == event.campaign_id for (text,) in others)


def check_ranges(ranges: Ranges) -> None:
    """Reject what is no range.

    Raises:
        OptimoveError: A range is empty.
    """
    for start, end in ranges:
        if not 0 <= start < end:
            raise OptimoveError(f"Statuses [{start}, {end}) are not a range.")


def check_naive(before: datetime) -> None:
    """Reject a moment with a zone.

    Raises:
        ConfigurationError: It has one.
    """
    if before.tzinfo is not None:
        raise ConfigurationError("before must have no zone: it is compared with ClearanceRequiredBy, which has none.")


def unknown_review() -> OptimoveError:
    """Return the error for a review that was never added."""
    return OptimoveError("No such review is in this journal.")


def superseded() -> SupersededError:
    """Return the error for a run that is not the latest one of its review."""
    return SupersededError("Another run has taken over this review, so this one records and sends nothing more.")


def _columns(connection: Connection, table: Literal["reviews", "batches"]) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))]


def _add_range(connection: Connection, review: int, start: int, end: int) -> None:
    touching = (review, end, start)
    low, high = connection.execute(
        "SELECT min(low), max(high) FROM acknowledged WHERE review = ? AND low <= ? AND high >= ?", touching
    ).fetchone()
    if low is not None:
        start, end = min(low, start), max(high, end)
        connection.execute("DELETE FROM acknowledged WHERE review = ? AND low <= ? AND high >= ?", touching)
    connection.execute("INSERT INTO acknowledged VALUES (?, ?, ?)", (review, start, end))


def _acknowledged(connection: Connection, key: str) -> Ranges:
    return connection.execute(
        "SELECT low, high FROM acknowledged WHERE review = (SELECT id FROM reviews WHERE key = ?) ORDER BY low", (key,)
    ).fetchall()


def _known(connection: Connection, key: str, run: int | None) -> int:
    rows: list[tuple[int]] = connection.execute("SELECT id FROM reviews WHERE key = ?", (key,)).fetchall()
    if not rows:
        raise unknown_review()
    _check_run(connection, key, run)
    return rows[0][0]


def _check_run(connection: Connection, key: str, run: int | None) -> None:
    """Reject a run that is not the latest one of its review."""
    latest: list[tuple[int]] = connection.execute("SELECT run FROM runs WHERE key = ?", (key,)).fetchall()
    if run is not None and latest != [(run,)]:
        raise superseded()
