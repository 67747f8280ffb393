"""SQLite files shared by threads and processes, and locks in files.

A `SqliteFile` survives a fork, and detects that its file was replaced.

A file that is removed while it is open still exists without a name: its processes share it, and a later process creates
a new one. Then two processes decide about the same question. So each use compares the file at the path with the open
one, by device and inode, and raises when they differ. The `-wal` and `-shm` files hold data and locks, so they are
checked too.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

from ..deadline import Deadline
from ..errors import StoreError
from ..fork import rest_during_fork

Connection = sqlite3.Connection
SqliteError = sqlite3.Error
UniqueViolation = sqlite3.IntegrityError
Identity = tuple[int, int]

SQLITE_VERSION: Final = sqlite3.sqlite_version_info

_OWNER_ONLY: Final = 0o600
_OPENINGS: Final = 3
"""On an overlay file system, such as a container's, a file gets another inode when it is first written to."""

_COMPANIONS: Final = ("-wal", "-shm")
IN_MEMORY: Final = ":memory:"
NO_FILE: Final = (IN_MEMORY, "")


class SqliteFile:
    """An SQLite file with its tables. Each process has one connection, used by one thread at a time."""

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
            path: The path of the file; its directory must exist.
            schema: Statements that create missing tables.
            synchronous: With `FULL`, commits survive a power failure too.
            busy_seconds: Seconds to wait for locks of other processes.
            private: Whether a new file is accessible to its owner only, and deleted data is overwritten.

        Raises:
            sqlite3.Error: The file cannot be opened, or is not an SQLite database.
            StoreError: The file is removed or replaced while it is opened.
        """
        # Absolute, since the process may change its directory. Not resolved: when a symbolic link in it is changed,
        # other processes open another file by this path, and that must be detected.
        self._path = path if path in NO_FILE else str(Path(path).absolute())
        self._identity: Identity | None = None
        self._schema = schema
        self._synchronous = synchronous
        self._busy_seconds = busy_seconds
        self._private = private
        self._by_process: dict[int, _Open] = {}
        rest_during_fork(self)  # also while it is opened: SQLite has locks of its own
        with self.connection():
            pass

    def rest(self, seconds: float) -> Callable[[], object] | None:
        """Wait until no thread uses the connection; see `fork.Resting`.

        A child inherits SQLite's table of the locks that this process has. It would hold those of a transaction for
        ever, and whatever the child writes would fail with `database is locked`.
        """
        mine = self._mine()
        if mine.user == threading.get_ident():  # it forks while it uses the file
            return None
        return mine.lock.release if mine.lock.acquire(timeout=seconds) else None

    @contextmanager
    def connection(self, *, check_first: bool = True) -> Iterator[Connection]:
        """Return the connection in a context manager; a transaction is committed at the end, or rolled back.

        Args:
            check_first: Whether to check the file before too, for those who read, or decide by what they have read.

        Raises:
            sqlite3.Error: The file cannot be opened.
            StoreError: The file has been removed or replaced since it was first opened.
        """
        mine = self._mine()
        with mine.lock:
            mine.user = threading.get_ident()
            try:
                connection = mine.connection
                if connection is None:
                    connection = mine.hold(self._connect())
                    mine.files = self._files()
                if check_first:
                    self._check(mine)
                with connection:
                    yield connection
                # Other processes do not see commits to a file that had lost its name.
                self._check(mine)
            finally:
                mine.user = None

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Return the connection with an exclusive write transaction; raises as `connection` does."""
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._check(self._mine())  # beginning may have waited long for another transaction
            yield connection

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        mine = self._mine()
        with mine.lock:
            if mine.connection is not None:
                mine.connection.close()
            mine.connection = None

    def _mine(self) -> _Open:
        # SQLite's connections must not be used or closed by a forked child, and a lock may be held for ever in it: both
        # stay under the parent's process id. `setdefault` lets one of a child's threads win.
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, _Open())

    def _check(self, mine: _Open) -> None:
        for path, identity in mine.files.items():
            if identity_of(path) != identity:
                raise self._replaced(path)

    def _replaced(self, path: str) -> StoreError:
        return StoreError(
            f"{path} was removed or replaced while it was in use, so processes may not see what others have written, "
            "and nothing is decided or sent. Stop whatever removes it (a cleaner, a deployment that makes the folder "
            "anew, a backup that is restored), then restart all processes that use it."
        )

    def _files(self) -> dict[str, Identity]:
        """Return the identity of each file in use; a missing `-wal` or `-shm` file is not in use."""
        if self._path in NO_FILE:
            return {}
        # SQLite derives their names from the file itself, not from a symbolic link to it.
        real = os.path.realpath(self._path)
        found = {real + suffix: identity_of(real + suffix) for suffix in _COMPANIONS}
        assert self._identity is not None  # noqa: S101 - the file has been opened
        return {self._path: self._identity} | {path: known for path, known in found.items() if known is not None}

    def _connect(self) -> Connection:
        for _ in range(_OPENINGS):
            before = identity_of(self._path)
            if self._identity is not None and before != self._identity:
                raise self._replaced(self._path)  # connecting would create the file anew, or open another one
            connection = self._opened()
            after = identity_of(self._path)
            if self._path in NO_FILE or (after is not None and before in (None, after)):
                self._identity = after
                return connection
            connection.close()
        raise self._replaced(self._path)

    def _opened(self) -> Connection:
        if self._private:
            # SQLite would apply the umask. Its `-wal` and `-shm` files get the mode of this one.
            with suppress(OSError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _OWNER_ONLY))
        connection = connected(self._path, timeout=self._busy_seconds)
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_up(self, connection: Connection) -> None:
        """Set the pragmas and create tables; SQLite itself does not wait while another process switches to WAL."""
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
    """The connection and lock of one process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.user: int | None = None
        """The thread that holds the lock."""
        self.connection: Connection | None = None
        self.files: dict[str, Identity] = {}

    def hold(self, connection: Connection) -> Connection:
        """Keep and return a connection, and close it when the store is collected without having been closed.

        Python 3.13 would warn. Not by `__del__`: in a cycle of references the connection can be finalized before.
        """
        self.connection = connection
        weakref.finalize(self, _close, connection, os.getpid()).atexit = False
        return connection


def _close(connection: Connection, pid: int) -> None:
    if pid == os.getpid():  # an inherited connection is for the parent to close
        connection.close()


def connected(path: str, *, timeout: float) -> Connection:
    """Open a connection for use by several threads.

    Args:
        path: The path of the file.
        timeout: Seconds to wait for locks of other processes.

    Raises:
        sqlite3.Error: It cannot be opened; the message names it.
    """
    try:
        return sqlite3.connect(path, timeout=timeout, check_same_thread=False, isolation_level=None)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN) & 0xFF == sqlite3.SQLITE_CANTOPEN:
            # SQLite's own message names no file.
            error.args = (f"{error}: {path} (its folder must exist, and this process must be able to write)",)
        raise


def identity_of(path: str) -> Identity | None:
    """Return device and inode of a file, or None when it does not exist."""
    try:
        status = os.stat(path)  # noqa: PTH116 - asked six times an access, and a Path costs twice as much as the answer
    except OSError:
        return None
    # A file system without inodes, such as FAT on Windows, has 0 for all: there, only a missing file is detected.
    return (status.st_dev, status.st_ino) if status.st_ino else (0, 0)


def is_busy(error: sqlite3.OperationalError) -> bool:
    """Return whether the error is a lock of another connection."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


Guard = Callable[[], AbstractContextManager[object]]

_Held = dict[int, dict[str, tuple[Connection, Identity | None]]]
"""The locks that a process holds, by its id and their names."""


def _close_held(held: _Held) -> None:
    for connection, _ in held.get(os.getpid(), {}).values():
        connection.close()


class SqliteLocks:
    """Named locks, as files next to another file; SQLite provides file locks on every system.

    Each is an open transaction on an empty file, so the operating system releases it when the process ends, however it
    ends. A forked child does not hold them. If such a file is removed, a second holder is possible, so these locks save
    work, and guarantee nothing.
    """

    def __init__(self, beside: str, *, guard: Guard) -> None:
        """Lazy: no file is created until first use.

        Args:
            beside: The prefix of the paths of the lock files.
            guard: A critical section for one thread of one process at a time. Acquiring a lock file while its holder
                removes it would lock a file without a name, which excludes no other process.
        """
        self._beside = beside
        self._guard = guard
        self._held: _Held = {}
        # As for the connection of a store; see `_Open.hold`.
        weakref.finalize(self, _close_held, self._held).atexit = False

    def take(self, name: str) -> bool:
        """Acquire a lock, without waiting.

        Returns:
            False when it is held: by another process, another thread, or the caller.

        Raises:
            sqlite3.Error: Its file cannot be opened, or the guard cannot be entered.
        """
        held = self._mine()
        with self._guard():
            if name in held:  # its file may have been removed
                return False
            path = self._path(name)
            connection = _locked(path)
            if connection is None:
                return False
            held[name] = connection, identity_of(path)
            return True

    def leave(self, name: str) -> None:
        """Release a lock and remove its file; without effect unless it was acquired in this process by this object."""
        connection, identity = self._mine().pop(name, (None, None))
        if connection is None:
            return
        path = self._path(name)
        try:
            # A file that remains, because the guard cannot be entered, is reused by the next holder. One that is not
            # ours is the lock of a later holder, after ours was removed.
            with suppress(sqlite3.Error, OSError, StoreError), self._guard():
                connection.close()
                if identity_of(path) == identity:
                    Path(path).unlink(missing_ok=True)
        finally:
            connection.close()

    def close(self) -> None:
        """Release all locks of this process."""
        for name in list(self._mine()):
            self.leave(name)

    def _mine(self) -> dict[str, tuple[Connection, Identity | None]]:
        pid = os.getpid()
        for parent in [other for other in list(self._held) if other != pid]:
            # A forked child inherits its parent's connections, but not the locks. As long as they are open, SQLite
            # assumes that this process has the locks; it wrote nothing through them, so closing them changes no file.
            for connection, _ in self._held.pop(parent, {}).values():
                connection.close()
        return self._held.setdefault(pid, {})

    def _path(self, name: str) -> str:
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        return f"{self._beside}.{digest}.lock"


def _locked(path: str) -> Connection | None:
    """Return a connection that holds the lock of the file at `path`; None when it is held already."""
    connection = connected(path, timeout=0)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError) and is_busy(error):
            return None
        raise
    return connection
