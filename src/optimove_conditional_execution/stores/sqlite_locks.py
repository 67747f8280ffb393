"""Locks among threads and processes that vanish with their holder: each is an open transaction on an empty file.

Somebody who removes such a file lets a second holder in. So these locks spare work, and guarantee nothing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import final

from optimove_conditional_execution.errors import StoreError
from optimove_conditional_execution.stores.sqlite_file import Connection, Identity, connected, identity_of, is_busy

Guard = Callable[[], AbstractContextManager[object]]


@final
class SqliteLocks:
    """Locks by name, as files beside another one; SQLite knows how to lock a file on every system.

    The operating system frees them when the process ends, however it ends. They are not a forked child's.
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
