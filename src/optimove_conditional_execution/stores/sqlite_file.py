"""An SQLite file that threads and processes share, and that survives a fork."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Literal, final

from optimove_conditional_execution.deadline import Deadline

Connection = sqlite3.Connection

SQLITE_VERSION: Final = sqlite3.sqlite_version_info

_OWNER_ONLY: Final = 0o600


@final
class SqliteFile:
    """One file with its tables. Each process has a connection of its own, lent to one thread at a time."""

    def __init__(
        self,
        path: str,
        schema: str,
        *,
        synchronous: Literal["NORMAL", "FULL"],
        busy_seconds: float,
        private: bool = False,
    ) -> None:
        """Open or create the file.

        Args:
            path: Where; its folder must exist.
            schema: Statements that make what is missing.
            synchronous: `FULL`: what is committed survives a power cut, too.
            busy_seconds: How long to wait for other processes.
            private: Whether a new file is its owner's only, and what is deleted is overwritten.

        Raises:
            sqlite3.Error: The file cannot be opened, or is no SQLite database.
        """
        self._path = path
        self._schema = schema
        self._synchronous = synchronous
        self._busy_seconds = busy_seconds
        self._private = private
        self._by_process: dict[int, _Open] = {}
        with self.connection():
            pass

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend the connection; a transaction begun on it is committed at the end, or undone by an exception."""
        mine = self._mine()
        with mine.lock:
            if mine.connection is None:
                mine.connection = self._connect()
            with mine.connection as connection:
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Lend the connection with a transaction begun that nobody else can write during."""
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        mine = self._mine()
        with mine.lock:
            if mine.connection is not None:
                mine.connection.close()
            mine.connection = None

    def _mine(self) -> _Open:
        # SQLite's connections must not be used, nor closed, by a forked child, and a lock may be held for ever in it:
        # both stay under the parent's number. `setdefault` lets one of a child's threads win.
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, _Open())

    def _connect(self) -> Connection:
        if self._private:
            # SQLite would follow the umask. Its companion files take the mode of this one.
            with suppress(OSError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _OWNER_ONLY))
        connection = sqlite3.connect(
            self._path, timeout=self._busy_seconds, check_same_thread=False, isolation_level=None
        )
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: Connection) -> None:
        """Prepare a file; SQLite does not wait by itself while another process switches it to WAL."""
        deadline = Deadline.after(self._busy_seconds)
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(f"PRAGMA synchronous = {self._synchronous}")
                connection.execute(f"PRAGMA secure_delete = {int(self._private)}")
                connection.executescript(self._schema)
                return
            except sqlite3.OperationalError as error:
                if not is_busy(error) or deadline.expired:
                    raise
                time.sleep(0.01)


class _Open:
    """What one process uses."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: Connection | None = None
        self._pid = os.getpid()

    def __del__(self) -> None:
        # A store that nobody closed; Python 3.13 would warn of it. What a fork has inherited is its parent's to close.
        if self.connection is not None and self._pid == os.getpid():
            self.connection.close()


def is_busy(error: sqlite3.OperationalError) -> bool:
    """Return whether somebody else's lock is the reason."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
