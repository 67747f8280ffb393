"""SQLite files that threads and processes share, and locks among them.

A file survives a fork, and notices when it is replaced.

A file that is removed while it is open goes on without a name: its processes still see each other, and who comes later
makes a new one. Then two processes decide about the same question. So each use compares what the path names with what
is open, by device and inode, and refuses when they differ. The `-wal` file and the `-shm` file hold what is written and
the locks, so the same goes for them.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final, Literal

from ..deadline import Deadline
from ..errors import StoreError

Connection = sqlite3.Connection
SqliteError = sqlite3.Error
Identity = tuple[int, int]

SQLITE_VERSION: Final = sqlite3.sqlite_version_info

_OWNER_ONLY: Final = 0o600
_OPENINGS: Final = 3
"""An overlay file system, a container's for example, gives a file another inode when it is first written to."""

_COMPANIONS: Final = ("-wal", "-shm")
IN_MEMORY: Final = ":memory:"
_NO_FILE: Final = (IN_MEMORY, "")


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
            StoreError: The file is removed or replaced while it is opened.
        """
        # Absolute, since the process may change its directory. Not resolved: when a symbolic link in it is pointed
        # elsewhere, others open another file by this path, and that must be noticed.
        self._path = path if path in _NO_FILE else str(Path(path).absolute())
        self._identity: Identity | None = None
        self._schema = schema
        self._synchronous = synchronous
        self._busy_seconds = busy_seconds
        self._private = private
        self._by_process: dict[int, _Open] = {}
        with self.connection():
            pass

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend the connection; a transaction begun on it is committed at the end, or undone by an exception.

        Raises:
            sqlite3.Error: The file cannot be opened.
            StoreError: The file has been removed or replaced since it was first opened.
        """
        mine = self._mine()
        with mine.lock:
            if mine.connection is None:
                mine.connection = self._connect()
                mine.files = self._files()
            self._check(mine)
            with mine.connection as connection:
                yield connection
            # Nobody else has seen what was committed to a file that had lost its name.
            self._check(mine)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Lend the connection with a transaction begun that nobody else can write during; raises as `connection`."""
        with self.connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._check(self._mine())  # that may have waited long for somebody else's transaction
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
        """Return what each file is that is in use now; a companion that is not there is not in use."""
        if self._path in _NO_FILE:
            return {}
        # SQLite names them after the file itself, not after a symbolic link to it.
        real = os.path.realpath(self._path)
        found = {real + suffix: identity_of(real + suffix) for suffix in _COMPANIONS}
        assert self._identity is not None  # noqa: S101 - the file has been opened
        return {self._path: self._identity} | {path: known for path, known in found.items() if known is not None}

    def _connect(self) -> Connection:
        for _ in range(_OPENINGS):
            before = identity_of(self._path)
            if self._identity is not None and before != self._identity:
                raise self._replaced(self._path)  # the path would be made anew, or names what others have made
            connection = self._opened()
            after = identity_of(self._path)
            if self._path in _NO_FILE or (after is not None and before in (None, after)):
                self._identity = after
                return connection
            connection.close()
        raise self._replaced(self._path)

    def _opened(self) -> Connection:
        if self._private:
            # SQLite would follow the umask. Its companion files take the mode of this one.
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
        self.files: dict[str, Identity] = {}
        self._pid = os.getpid()

    def __del__(self) -> None:
        # A store that nobody closed; Python 3.13 would warn of it. What a fork has inherited is its parent's to close.
        if self.connection is not None and self._pid == os.getpid():
            self.connection.close()


def connected(path: str, *, timeout: float) -> Connection:
    """Open a file for use by several threads.

    Args:
        path: Where.
        timeout: Seconds to wait for other processes.

    Raises:
        sqlite3.Error: It cannot be opened; the message names it.
    """
    try:
        return sqlite3.connect(path, timeout=timeout, check_same_thread=False, isolation_level=None)
    except sqlite3.OperationalError as error:
        raise _named(error, path) from None


def _named(error: sqlite3.OperationalError, path: str) -> sqlite3.OperationalError:
    """Return an error that says which file cannot be opened; SQLite's own does not."""
    if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CANTOPEN) & 0xFF != sqlite3.SQLITE_CANTOPEN:
        return error
    named = sqlite3.OperationalError(f"{error}: {path} (its folder must exist, and this process must be able to write)")
    for name in ("sqlite_errorcode", "sqlite_errorname"):
        if hasattr(error, name):
            setattr(named, name, getattr(error, name))
    return named


def identity_of(path: str) -> Identity | None:
    """Return what tells a file from all others, or None when it is not there."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    # A file system without inodes, FAT on Windows say, has 0 for all: there, only a missing file is noticed.
    return (status.st_dev, status.st_ino) if status.st_ino else (0, 0)


def is_busy(error: sqlite3.OperationalError) -> bool:
    """Return whether somebody else's lock is the reason."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


Guard = Callable[[], AbstractContextManager[object]]


class SqliteLocks:
    """Locks by name, as files beside another one; SQLite knows how to lock a file on every system.

    Each is an open transaction on an empty file, so the operating system frees it when the process ends, however it
    ends. They are not a forked child's. Whoever removes such a file lets a second holder in, so these locks spare work,
    and guarantee nothing.
    """

    def __init__(self, beside: str, *, guard: Guard) -> None:
        """Make no file yet.

        Args:
            beside: Path that the names of the lock files begin with.
            guard: Lets one thread of one process in at a time. Whoever took a lock file while its holder removes it
                would hold a file without a name, which excludes nobody.
        """
        self._beside = beside
        self._guard = guard
        self._held: dict[int, dict[str, tuple[Connection, Identity | None]]] = {}

    def take(self, name: str) -> bool:
        """Take a lock, without waiting.

        Returns:
            False when somebody has it: another process, another thread, or the caller.

        Raises:
            sqlite3.Error: Its file cannot be opened, or the guard lets nobody in.
        """
        held = self._mine()
        with self._guard():
            if name in held:  # its file may be gone
                return False
            path = self._path(name)
            connection = _locked(path)
            if connection is None:
                return False
            held[name] = connection, identity_of(path)
            return True

    def leave(self, name: str) -> None:
        """Free a lock and remove its file; without effect unless it was taken by this process through this object."""
        connection, identity = self._mine().pop(name, (None, None))
        if connection is None:
            return
        path = self._path(name)
        try:
            # A file that stays, because the guard lets nobody in, is taken over by the next holder. One that is not
            # ours is the lock of somebody who came after ours was removed.
            with suppress(sqlite3.Error, OSError, StoreError), self._guard():
                connection.close()
                if identity_of(path) == identity:
                    Path(path).unlink(missing_ok=True)
        finally:
            connection.close()

    def close(self) -> None:
        """Free all locks of this process."""
        for name in list(self._mine()):
            self.leave(name)

    def _mine(self) -> dict[str, tuple[Connection, Identity | None]]:
        pid = os.getpid()
        for parent in [other for other in list(self._held) if other != pid]:
            # A forked child has its parent's connections, but not the locks. As long as they are open, SQLite believes
            # that this process has the locks; it wrote nothing through them, so closing them touches no file.
            for connection, _ in self._held.pop(parent, {}).values():
                connection.close()
        return self._held.setdefault(pid, {})

    def _path(self, name: str) -> str:
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        return f"{self._beside}.{digest}.lock"


def _locked(path: str) -> Connection | None:
    """Return a connection that holds the lock of the file at `path`; None when somebody else does."""
    connection = connected(path, timeout=0)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except BaseException as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError) and is_busy(error):
            return None
        raise
    return connection
