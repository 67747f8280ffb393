"""Claim stores: in the memory of one process, or in an SQLite file for the processes of one machine."""

from __future__ import annotations

import heapq
import threading
import time
from contextlib import AbstractContextManager, closing
from os import PathLike, fspath
from typing import Final, final

from .. import validation
from ..deadline import Clock
from ..errors import OptimoveError
from ..flows.claims import Claim, ClaimState
from ..models.approval import Approval
from .sqlite_file import Connection, SqliteFile

_OPEN: Final = Claim(ClaimState.OPEN)


@final
class MemoryClaims:
    """A claim store for one process; each claim expires at its deadline. Safe for threads and for asyncio."""

    instant = True

    def __init__(self, *, capacity: int = 100_000, clock: Clock = time.monotonic) -> None:
        """Start empty.

        Args:
            capacity: The maximum number of unexpired claims. When the store is full, new notifications are answered 503
                rather than decided twice.
            clock: Monotonic, in seconds.

        Raises:
            ConfigurationError: `capacity` is not a whole number of 1 or more.
        """
        self._capacity = validation.integer("capacity", capacity)
        self._clock = clock
        self._lock = threading.Lock()
        self._claims: dict[str, tuple[float, Claim]] = {}
        self._expiries: list[tuple[float, str]] = []

    def claim(self, question: str, seconds: float, /) -> Claim | None:
        """Claim a notification; see `ClaimStore.claim`.

        Raises:
            OptimoveError: The store is full.
        """
        with self._lock:
            now = self._clock()
            self._forget(now)
            known = self._claims.get(question)
            if known is not None:
                expiry, claim = known
                if claim.state is ClaimState.UNDELIVERED:
                    self._claims[question] = (expiry, Claim(ClaimState.OPEN, claim.approval))
                return claim
            if len(self._claims) >= self._capacity:
                raise OptimoveError("MemoryClaims is full: too many notifications are before their deadline.")
            expiry = now + seconds
            self._claims[question] = (expiry, _OPEN)
            heapq.heappush(self._expiries, (expiry, question))
            return None

    def look(self, question: str, /) -> Claim | None:
        """Return the claim on a notification; see `ClaimStore.look`."""
        with self._lock:
            self._forget(self._clock())
            known = self._claims.get(question)
            return None if known is None else known[1]

    def record(self, question: str, claim: Claim, /) -> None:
        """Update a claim; see `ClaimStore.record`."""
        with self._lock:
            known = self._claims.get(question)
            if known is not None:
                self._claims[question] = (known[0], claim)

    def release(self, question: str, /) -> None:
        """Delete a claim; see `ClaimStore.release`."""
        with self._lock:
            self._claims.pop(question, None)

    def __len__(self) -> int:
        """Return the number of claims."""
        with self._lock:
            self._forget(self._clock())
            return len(self._claims)

    def _forget(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            expiry, question = heapq.heappop(self._expiries)
            known = self._claims.get(question)
            if known is not None and known[0] == expiry:
                del self._claims[question]
        # Released claims leave their expiry in the heap; rebuild it before those outnumber the others.
        if len(self._expiries) > 2 * len(self._claims) + 64:
            self._expiries = [(expiry, question) for question, (expiry, _) in self._claims.items()]
            heapq.heapify(self._expiries)


_BUSY_SECONDS: Final = 2.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS claims (  -- request_uid is the question; the name is that of earlier versions
    request_uid TEXT PRIMARY KEY,
    expires REAL NOT NULL,
    state TEXT NOT NULL,
    approval TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS claims_expires ON claims (expires);
"""


@final
class SqliteClaims(AbstractContextManager["SqliteClaims"]):
    """A claim store in an SQLite file, shared by all processes that open it. Safe for threads, asyncio and forks.

    Claims expire by the machine's wall clock, since processes share no other. When that is set, a claim is kept until
    it has expired by both the wall clock and the process's monotonic clock: deleted too early, it would be decided
    again. The file holds the answers that Optimove has not accepted yet, `additional_data` included, until their
    deadline.
    """

    instant = False

    def __init__(
        self, path: str | PathLike[str], *, wall_clock: Clock = time.time, monotonic: Clock = time.monotonic
    ) -> None:
        """Open or create the file.

        Args:
            path: The path of the file; its directory must exist, on a local disk.
            wall_clock: Seconds since 1970.
            monotonic: A monotonic clock, seconds.

        Raises:
            sqlite3.Error: The file cannot be opened, or is not an SQLite database.
            StoreError: Here and in all methods: the file has been removed or replaced. Restart all processes.
        """
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._offset = wall_clock() - monotonic()
        self._file = SqliteFile(fspath(path), _SCHEMA, synchronous="NORMAL", busy_seconds=_BUSY_SECONDS)

    def claim(self, question: str, seconds: float, /) -> Claim | None:
        """Claim a notification; see `ClaimStore.claim`."""
        wall, steady = self._wall_clock(), self._monotonic() + self._offset
        expires = max(wall, steady) + seconds
        with self._file.writing() as connection:
            connection.execute("DELETE FROM claims WHERE expires <= ?", (min(wall, steady),))
            known = _read(connection, question)
            if known is None:
                connection.execute(
                    "INSERT INTO claims VALUES (?, ?, ?, NULL)", (question, expires, ClaimState.OPEN.value)
                )
            elif known.state is ClaimState.UNDELIVERED:
                connection.execute(
                    "UPDATE claims SET state = ? WHERE request_uid = ?", (ClaimState.OPEN.value, question)
                )
            return known

    def look(self, question: str, /) -> Claim | None:
        """Return the claim on a notification; see `ClaimStore.look`."""
        with self._file.connection() as connection:
            return _read(connection, question)

    def record(self, question: str, claim: Claim, /) -> None:
        """Update a claim; see `ClaimStore.record`."""
        approval = None if claim.approval is None else claim.approval.model_dump_json(by_alias=True)
        with self._file.connection() as connection:
            connection.execute(
                "UPDATE claims SET state = ?, approval = ? WHERE request_uid = ?",
                (claim.state.value, approval, question),
            )

    def release(self, question: str, /) -> None:
        """Delete a claim; see `ClaimStore.release`."""
        with self._file.connection() as connection:
            connection.execute("DELETE FROM claims WHERE request_uid = ?", (question,))

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def _read(connection: Connection, question: str) -> Claim | None:
    with closing(connection.execute("SELECT state, approval FROM claims WHERE request_uid = ?", (question,))) as rows:
        row: tuple[str, str | None] | None = rows.fetchone()
    if row is None:
        return None
    return Claim(ClaimState(row[0]), None if row[1] is None else Approval.from_json(row[1]))
