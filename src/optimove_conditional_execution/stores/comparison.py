"""A table of customers for one comparison, in a temporary SQLite file, so that a million take no memory.

A file of its own, since it knows neither a journal nor Optimove: `reconciliation` does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from enum import IntFlag
from typing import Final, final

from ..errors import ConfigurationError
from .sqlite_file import SqliteFile

_TEMPORARY: Final = ""
"""SQLite's name for a private file that is deleted when it is closed, or when the process ends."""

_AT_ONCE: Final = 1_000

_SCHEMA: Final = """
PRAGMA cache_size = -16384;
CREATE TABLE IF NOT EXISTS customers (key BLOB PRIMARY KEY, id BLOB, marks INTEGER NOT NULL) WITHOUT ROWID;
"""

_ADD: Final = """
INSERT INTO customers (key, id, marks) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE SET
    marks = CASE WHEN marks & 16 THEN marks ELSE marks & ~?4 END | ?3, id = coalesce(id, ?2)
"""


class Mark(IntFlag):
    """What is known of a customer."""

    JOURNAL = 1  # approved by the journal
    TOLD = 2  # the journal holds that Optimove acknowledged it
    LOG = 4  # approved by the decision log
    SENT = 8
    LOGGED_TOLD = 16  # the log holds that Optimove acknowledged it, so that no later record withdraws it
    HELD = 32  # the log holds that the kill switch held it back
    MAYBE_HELD = 64  # the switch held approvals of the review back, and Optimove did not acknowledge this one


_ALL: Final = [Mark(value) for value in range(128)]


@final
class Comparison:
    """Customers by their id, each with marks."""

    def __init__(self, key_of: Callable[[str], str] | None) -> None:
        """Open the temporary file.

        Args:
            key_of: Returns what stands for an id where the id itself is not known; None when ids are.
        """
        self._key_of = key_of
        self._file = SqliteFile(_TEMPORARY, _SCHEMA, synchronous="NORMAL", busy_seconds=0)
        self._is_closed = False

    def add(self, ids: Iterable[str], mark: Mark) -> None:
        """Add a mark to customers."""
        key_of = self._key_of
        if key_of is None:
            self._write([(_encoded(name), None, mark, 0) for name in ids])
        else:
            self._write([(_encoded(key_of(name)), _encoded(name), mark, 0) for name in ids])

    def add_keys(self, entries: Iterable[tuple[str, Mark, Mark]]) -> None:
        """Add marks to customers by what stands for their ids, and remove others; in order.

        Args:
            entries: For each what stands for the id, the marks to add, and those to remove.
        """
        self._write([(_encoded(key), None, added, removed) for key, added, removed in entries])

    def _write(self, rows: Collection[tuple[bytes, bytes | None, int, int]]) -> None:
        self._check()
        with self._file.writing() as connection:
            connection.executemany(_ADD, rows)

    def counts(self) -> Mapping[Mark, int]:
        """Return how many customers have exactly these marks."""
        self._check()
        with self._file.connection() as connection:
            rows = connection.execute("SELECT marks, count(*) FROM customers GROUP BY marks").fetchall()
        return {Mark(marks): count for marks, count in rows}

    def ids(self, is_wanted: Callable[[Mark], bool]) -> Iterator[str]:
        """Yield customers by their marks, a few in memory at a time: their ids, or what stands for an unknown one."""
        wanted = ",".join([str(int(marks)) for marks in _ALL if is_wanted(marks)])
        statement = (
            f"SELECT key, coalesce(id, key) FROM customers WHERE marks IN ({wanted}) AND key > ?"  # noqa: S608 - numbers
            " ORDER BY key LIMIT ?"
        )
        last = b""
        while True:
            self._check()
            with self._file.connection() as connection:
                rows: list[tuple[bytes, bytes]] = connection.execute(statement, (last, _AT_ONCE)).fetchall()
            for _, name in rows:
                yield name.decode("utf-8", "surrogatepass")
            if len(rows) < _AT_ONCE:
                return
            last = rows[-1][0]

    def _check(self) -> None:
        if self._is_closed:
            raise ConfigurationError("The reconciliation is closed: its ids can be read only before that.")

    def close(self) -> None:
        """Delete the file."""
        self._is_closed = True
        self._file.close()


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogatepass")
