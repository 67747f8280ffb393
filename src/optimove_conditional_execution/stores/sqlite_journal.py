"""A journal in an SQLite file, for the processes of one machine."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from hashlib import blake2b
from os import PathLike, fspath
from types import TracebackType
from typing import Final, Self, final

from optimove_conditional_execution.errors import ConfigurationError, OptimoveError
from optimove_conditional_execution.flows.journal import UNKNOWN, Decided, Kept, check_moment, check_range, check_run
from optimove_conditional_execution.models.listener import CampaignReadyEvent
from optimove_conditional_execution.stores.sqlite_file import Connection, SqliteFile
from optimove_conditional_execution.stores.sqlite_locks import SqliteLocks

_BUSY_SECONDS: Final = 10.0
_BATCHES_AT_ONCE: Final = 16

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS reviews (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    event TEXT NOT NULL,
    clearance TEXT NOT NULL,
    decided INTEGER NOT NULL DEFAULT 0,
    approved INTEGER NOT NULL DEFAULT 0,
    report TEXT
);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY,
    review INTEGER NOT NULL,
    digest BLOB NOT NULL,
    approved TEXT NOT NULL,
    denied TEXT NOT NULL,
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


@final
class SqliteJournal:
    """A journal that all processes share which open the same file, and that survives a crash and a power cut.

    Safe for threads, for asyncio and after a fork. The file holds ids of customers until `forget`, so a new one can be
    read by its owner only, where the system knows owners; the mode of one that exists is left alone. Beside it stand
    SQLite's own `-wal` and `-shm`, and an empty `.lock` file for each review that is taken.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        """Open or create the file.

        Args:
            path: Where; its folder must exist, on a local disk.

        Raises:
            ConfigurationError: `path` is `:memory:`.
            sqlite3.Error: The file cannot be opened, or is no SQLite database.
            StoreError: Here and in all methods: the file has been removed or replaced. Restart all processes.
        """
        if path == ":memory:":
            raise ConfigurationError("SqliteJournal needs a file; in memory there is MemoryJournal.")
        place = fspath(path)
        self._file = SqliteFile(place, _SCHEMA, synchronous="FULL", busy_seconds=_BUSY_SECONDS, private=True)
        # The lock files must be the same ones for all who mean this file, whatever they call it.
        self._locks = SqliteLocks(os.path.realpath(place), guard=self._file.writing)

    def keep(self, event: CampaignReadyEvent, /) -> bool:
        """Write an announced campaign down; see `Journal.keep`."""
        row = (event.key, event.model_dump_json(by_alias=True), event.clearance_required_by.isoformat())
        with self._file.writing() as connection:
            added = connection.execute(
                "INSERT INTO reviews (key, event, clearance) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING", row
            )
            return added.rowcount == 1

    def take(self, key: str, /) -> int | None:
        """Become the only one who runs a review; see `Journal.take`.

        Raises:
            sqlite3.Error: The file cannot be written, or the lock file cannot be opened.
        """
        if not self._locks.take(key):
            return None
        try:
            with self._file.writing() as connection:
                # Each row gets a number above all that there have been, also of rows that are deleted since.
                return connection.execute("INSERT OR REPLACE INTO runs (key) VALUES (?)", (key,)).lastrowid
        except BaseException:
            self._locks.leave(key)
            raise

    def leave(self, key: str, /) -> None:
        """Let somebody else run the review; see `Journal.leave`."""
        self._locks.leave(key)

    def record(self, key: str, batches: Sequence[Decided], /, *, run: int | None = None) -> None:
        """Append decided batches; see `Journal.record`.

        Raises:
            OptimoveError: No such review is kept.
            SupersededError: A later run has taken the review.
        """
        with self._file.writing() as connection:
            review = _known(connection, key, run)
            decided = approved = 0
            for batch in batches:
                # As ASCII: an id may hold half a surrogate pair, which SQLite does not take as text.
                texts = (json.dumps(batch.approved), json.dumps(batch.denied))
                digest = blake2b("\n".join(texts).encode(), digest_size=16).digest()
                added = connection.execute(
                    "INSERT INTO batches (review, digest, approved, denied) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT (review, digest) DO NOTHING",
                    (review, digest, *texts),
                )
                if added.rowcount == 1:
                    decided += len(batch.approved) + len(batch.denied)
                    approved += len(batch.approved)
            connection.execute(
                "UPDATE reviews SET decided = decided + ?, approved = approved + ? WHERE id = ?",
                (decided, approved, review),
            )

    def decided(self, key: str, /) -> Iterator[Decided]:
        """Yield all batches, read in small portions; others may write meanwhile. See `Journal.decided`."""
        last = -1
        while True:
            with self._file.connection() as connection:
                # By key each time: were the review forgotten meanwhile, its number could be another one's.
                rows = connection.execute(
                    "SELECT number, approved, denied FROM batches"
                    " WHERE review = (SELECT id FROM reviews WHERE key = ?) AND number > ? ORDER BY number LIMIT ?",
                    (key, last, _BATCHES_AT_ONCE),
                ).fetchall()
            for _, approved, denied in rows:
                yield Decided(tuple(json.loads(approved)), tuple(json.loads(denied)))
            if len(rows) < _BATCHES_AT_ONCE:
                return
            last = rows[-1][0]

    def acknowledge(self, key: str, start: int, end: int, /, *, run: int | None = None) -> None:
        """Write down which statuses Optimove has taken; see `Journal.acknowledge`.

        Raises:
            OptimoveError: No such review is kept, or the range is none.
            SupersededError: A later run has taken the review.
        """
        check_range(start, end)
        with self._file.writing() as connection:
            review = _known(connection, key, run)
            touching = (review, end, start)
            low, high = connection.execute(
                "SELECT min(low), max(high) FROM acknowledged WHERE review = ? AND low <= ? AND high >= ?", touching
            ).fetchone()
            if low is not None:
                start, end = min(low, start), max(high, end)
                connection.execute("DELETE FROM acknowledged WHERE review = ? AND low <= ? AND high >= ?", touching)
            connection.execute("INSERT INTO acknowledged VALUES (?, ?, ?)", (review, start, end))

    def acknowledged(self, key: str, /, *, run: int | None = None) -> list[tuple[int, int]]:
        """Return the ranges that Optimove has taken; see `Journal.acknowledged`.

        Raises:
            SupersededError: A later run has taken the review.
        """
        with self._file.connection() as connection:
            check_run(run, _latest_run(connection, key))
            return connection.execute(
                "SELECT low, high FROM acknowledged WHERE review = (SELECT id FROM reviews WHERE key = ?) ORDER BY low",
                (key,),
            ).fetchall()

    def finish(self, key: str, report: str, /, *, run: int | None = None) -> None:
        """Write down that nothing is left to do; see `Journal.finish`.

        Raises:
            OptimoveError: No such review is kept.
            SupersededError: A later run has taken the review.
        """
        with self._file.writing() as connection:
            review = _known(connection, key, run)
            connection.execute("UPDATE reviews SET report = ? WHERE id = ? AND report IS NULL", (report, review))

    def report(self, key: str, /) -> str | None:
        """Return the text given to `finish`; see `Journal.report`."""
        with self._file.connection() as connection:
            rows: list[tuple[str | None]] = connection.execute(
                "SELECT report FROM reviews WHERE key = ?", (key,)
            ).fetchall()
            return rows[0][0] if rows else None

    def unfinished(self) -> list[CampaignReadyEvent]:
        """Return what is left to do, in the order of `keep`."""
        with self._file.connection() as connection:
            rows = connection.execute("SELECT event FROM reviews WHERE report IS NULL ORDER BY id").fetchall()
        return [CampaignReadyEvent.from_json(event) for (event,) in rows]

    def reviews(self) -> list[Kept]:
        """Return all reviews, in the order of `keep`."""
        with self._file.connection() as connection:
            rows = connection.execute(
                "SELECT event, decided, approved,"
                " (SELECT coalesce(sum(high - low), 0) FROM acknowledged WHERE review = reviews.id), report"
                " FROM reviews ORDER BY id"
            ).fetchall()
        return [
            Kept(CampaignReadyEvent.from_json(event), decided, approved, acknowledged, report is not None, report)
            for event, decided, approved, acknowledged, report in rows
        ]

    def forget(self, before: datetime, /) -> int:
        """Delete old finished reviews; see `Journal.forget`.

        Raises:
            ConfigurationError: `before` has a zone.
        """
        check_moment(before)
        with self._file.writing() as connection:
            # The text of a date and time sorts as it does.
            old = connection.execute(
                "SELECT id FROM reviews WHERE report IS NOT NULL AND clearance < ?", (before.isoformat(),)
            ).fetchall()
            for statement in (
                "DELETE FROM batches WHERE review = ?",
                "DELETE FROM acknowledged WHERE review = ?",
                "DELETE FROM runs WHERE key = (SELECT key FROM reviews WHERE id = ?)",
                "DELETE FROM reviews WHERE id = ?",
            ):
                connection.executemany(statement, old)
            return len(old)

    def close(self) -> None:
        """Close the file and leave all reviews; the next use opens it again."""
        self._locks.close()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _known(connection: Connection, key: str, run: int | None) -> int:
    rows: list[tuple[int]] = connection.execute("SELECT id FROM reviews WHERE key = ?", (key,)).fetchall()
    if not rows:
        raise OptimoveError(UNKNOWN)
    check_run(run, _latest_run(connection, key))
    return rows[0][0]


def _latest_run(connection: Connection, key: str) -> int | None:
    rows: list[tuple[int]] = connection.execute("SELECT run FROM runs WHERE key = ?", (key,)).fetchall()
    return rows[0][0] if rows else None
