"""Claim stores: in the memory of one process, or in an SQLite file for the processes of one machine."""

from __future__ import annotations

import heapq
import threading
import time
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Final, NamedTuple, final

from .. import validation
from ..deadline import Clock
from ..errors import ConfigurationError
from ..flows.claims import Claim, ClaimState, StoreFullError
from ..fork import detect_fork, reset_after_fork
from ..models.approval import Approval

if TYPE_CHECKING:  # so that claims in memory load no sqlite3
    from .sqlite_file import Connection


@dataclass(eq=False, slots=True)
class _Record:
    """A claim as it is stored; `lease` and `ttl` are when they end: by the store's clock, or in seconds from now."""

    owner: str
    state: ClaimState
    approval: Approval | None
    lease: float
    ttl: float

    def for_caller(self, *, mine: bool, now: float = 0.0) -> Claim:
        """Return the claim as a caller sees it."""
        lease = 0.0 if self.state is ClaimState.SETTLED else max(0.0, self.lease - now)
        return Claim(self.state, self.approval if mine else None, mine, lease)


def _acquired(known: _Record | None, owner: str, lease: float, ttl: float, *, now: float = 0.0) -> tuple[_Record, bool]:
    """Return the claim after `acquire`, and whether it is the caller's, so that it must be written."""
    if known is None:
        return _Record(owner, ClaimState.OPEN, None, lease, ttl), True
    if known.state is ClaimState.SETTLED or (known.owner != owner and known.lease > now):
        return known, False
    known.owner, known.lease, known.ttl = owner, lease, max(known.ttl, ttl)
    return known, True


def _renewed(known: _Record | None, owner: str, lease: float, ttl: float) -> _Record | None:
    """Return the claim to write by `renew`; None when it is not the caller's."""
    if known is not None and (known.owner != owner or known.state is ClaimState.SETTLED):
        return None
    return _acquired(known, owner, lease, ttl)[0]


def _updated(known: _Record | None, owner: str, claim: Claim, lease: float, ttl: float) -> _Record | None:
    """Return the claim to write by `update`; None when it is not the caller's."""
    if known is None:
        return _Record(owner, claim.state, claim.approval, lease, ttl)
    if known.owner != owner or (known.state is ClaimState.SETTLED and claim.state is not ClaimState.SETTLED):
        return None
    known.state, known.approval, known.lease, known.ttl = claim.state, claim.approval, lease, max(known.ttl, ttl)
    return known


@final
class MemoryClaims:
    """A claim store for one process; each claim expires soon after its deadline. Safe for threads and for asyncio."""

    instant = True

    def __init__(self, *, capacity: int = 100_000, clock: Clock = time.monotonic) -> None:
        """Start empty.

        Args:
            capacity: The maximum number of unexpired claims, each of which is kept until half a minute after its
                deadline: 100,000 are some 2,800 notifications a second with a timeout of 5 s. When the store is full,
                new notifications are answered 503 rather than decided twice.
            clock: Monotonic, in seconds.

        Raises:
            ConfigurationError: `capacity` is not a whole number of 1 or more.
        """
        self._capacity = validation.integer("capacity", capacity)
        self._clock = clock
        self._claims: dict[str, _Record] = {}
        self._expiries: list[tuple[float, str]] = []
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock, which a thread may hold that the child does not have."""
        self._lock = threading.Lock()

    def acquire(self, question: str, owner: str, lease: float, ttl: float, /) -> Claim:
        """Claim a notification; see `ClaimStore.acquire`.

        Raises:
            OptimoveError: The store is full.
        """
        detect_fork()
        with self._lock:
            now = self._clock()
            known = self._known(question, now)
            if known is None and len(self._claims) >= self._capacity:
                raise StoreFullError("MemoryClaims is full: too many notifications are before their deadline.")
            record, mine = _acquired(known, owner, now + lease, now + ttl, now=now)
            if mine:
                self._write(question, record)
            return record.for_caller(mine=mine, now=now)

    def renew(self, question: str, owner: str, lease: float, ttl: float, /) -> bool:
        """Extend a lease; see `ClaimStore.renew`."""
        with self._lock:
            now = self._clock()
            return self._write(question, _renewed(self._known(question, now), owner, now + lease, now + ttl))

    def update(self, question: str, owner: str, claim: Claim, lease: float, ttl: float, /) -> bool:
        """Write the state of a claim; see `ClaimStore.update`."""
        with self._lock:
            now = self._clock()
            return self._write(question, _updated(self._known(question, now), owner, claim, now + lease, now + ttl))

    def release(self, question: str, owner: str, /) -> None:
        """Delete a claim; see `ClaimStore.release`."""
        with self._lock:
            known = self._claims.get(question)
            if known is not None and known.owner == owner and known.state is ClaimState.OPEN:
                del self._claims[question]
            # Its expiry stays in the heap, which is rebuilt before such outnumber the others.
            if len(self._expiries) > 2 * len(self._claims) + 64:
                self._expiries = [(known.ttl, question) for question, known in self._claims.items()]
                heapq.heapify(self._expiries)

    def __len__(self) -> int:
        """Return the number of claims."""
        with self._lock:
            self._forget(self._clock())
            return len(self._claims)

    def _known(self, question: str, now: float) -> _Record | None:
        if self._expiries and self._expiries[0][0] <= now:
            self._forget(now)
        return self._claims.get(question)

    def _write(self, question: str, record: _Record | None) -> bool:
        if record is None:
            return False
        if question not in self._claims:
            heapq.heappush(self._expiries, (record.ttl, question))
        self._claims[question] = record
        return True

    def _forget(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            _, question = heapq.heappop(self._expiries)
            known = self._claims.get(question)
            if known is None:
                continue
            if known.ttl <= now:
                del self._claims[question]
            else:  # extended since
                heapq.heappush(self._expiries, (known.ttl, question))


_BUSY_SECONDS: Final = 2.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS leased_claims (
    question TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    state TEXT NOT NULL,
    approval TEXT,
    leased REAL NOT NULL,
    leased_monotonic REAL NOT NULL,
    expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS leased_claims_expires ON leased_claims (expires);
-- What an earlier version has left, which knew no leases.
CREATE TABLE IF NOT EXISTS claims (
    request_uid TEXT PRIMARY KEY, expires REAL NOT NULL, state TEXT NOT NULL, approval TEXT
) WITHOUT ROWID;
INSERT OR IGNORE INTO leased_claims SELECT request_uid, '', state, approval, 0, 0, expires FROM claims;
DELETE FROM claims;
"""

_READ: Final = "SELECT owner, state, approval, leased, leased_monotonic, expires FROM leased_claims WHERE question = ?"


class _Now(NamedTuple):
    """One moment on the clocks of a process."""

    wall: float
    monotonic: float
    steady: float
    """The wall clock as it would be if it had not been set since the process started."""


@final
class SqliteClaims(AbstractContextManager["SqliteClaims"]):
    """A claim store in an SQLite file, shared by all processes that open it. Safe for threads, asyncio and forks.

    Claims expire by the machine's wall clock. When that is set, a claim is kept until it has expired by both the wall
    clock and the process's monotonic clock, and a lease runs until it has run out by both: deleted or taken over too
    early, a claim would be decided again. The file holds the answers that Optimove has not accepted yet,
    `additional_data` included, until half a minute after their deadline.
    """

    instant = False

    def __init__(
        self, path: str | PathLike[str], *, wall_clock: Clock = time.time, monotonic: Clock = time.monotonic
    ) -> None:
        """Open or create the file.

        Args:
            path: The path of the file; its directory must exist, on a local disk.
            wall_clock: Seconds since 1970.
            monotonic: The machine's monotonic clock, seconds.

        Raises:
            ConfigurationError: `path` is `:memory:` or empty.
            sqlite3.Error: The file cannot be opened, or is not an SQLite database.
            StoreError: Here and in all methods: the file has been removed or replaced. Restart all processes.
        """
        from .sqlite_file import NO_FILE, SqliteFile

        if path in NO_FILE:
            raise ConfigurationError("SqliteClaims needs a file that processes share; in memory there is MemoryClaims.")
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._offset = wall_clock() - monotonic()
        self._file = SqliteFile(fspath(path), _SCHEMA, synchronous="NORMAL", busy_seconds=_BUSY_SECONDS)

    def acquire(self, question: str, owner: str, lease: float, ttl: float, /) -> Claim:
        """Claim a notification; see `ClaimStore.acquire`."""
        with self._file.writing() as connection:
            now = self._now()
            connection.execute("DELETE FROM leased_claims WHERE expires <= ?", (min(now.wall, now.steady),))
            record, mine = _acquired(_read(connection, question, now), owner, lease, ttl)
            if mine:
                _write(connection, question, record, now)
            return record.for_caller(mine=mine)

    def renew(self, question: str, owner: str, lease: float, ttl: float, /) -> bool:
        """Extend a lease; see `ClaimStore.renew`."""
        with self._file.writing() as connection:
            now = self._now()
            return _write(connection, question, _renewed(_read(connection, question, now), owner, lease, ttl), now)

    def update(self, question: str, owner: str, claim: Claim, lease: float, ttl: float, /) -> bool:
        """Write the state of a claim; see `ClaimStore.update`."""
        with self._file.writing() as connection:
            now = self._now()
            known = _read(connection, question, now)
            return _write(connection, question, _updated(known, owner, claim, lease, ttl), now)

    def release(self, question: str, owner: str, /) -> None:
        """Delete a claim; see `ClaimStore.release`."""
        with self._file.connection() as connection:
            connection.execute(
                "DELETE FROM leased_claims WHERE question = ? AND owner = ? AND state = ?",
                (question, owner, ClaimState.OPEN.value),
            )

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _now(self) -> _Now:
        monotonic = self._monotonic()
        return _Now(self._wall_clock(), monotonic, monotonic + self._offset)


def _read(connection: Connection, question: str, now: _Now) -> _Record | None:
    with closing(connection.execute(_READ, (question,))) as rows:
        row: tuple[str, str, str | None, float, float, float] | None = rows.fetchone()
    if row is None:
        return None
    owner, state, approval, leased, leased_monotonic, expires = row
    if expires <= min(now.wall, now.steady):
        return None
    return _Record(
        owner,
        ClaimState(state),
        None if approval is None else Approval.from_json(approval),
        # On every system, Python's monotonic clock is the same in all processes of a machine.
        max(leased - now.wall, leased_monotonic - now.monotonic),
        expires - max(now.wall, now.steady),
    )


def _write(connection: Connection, question: str, record: _Record | None, now: _Now) -> bool:
    if record is None:
        return False
    approval = None if record.approval is None else record.approval.model_dump_json(by_alias=True)
    leased, leased_monotonic = now.wall + record.lease, now.monotonic + record.lease
    expires = max(now.wall, now.steady) + record.ttl
    connection.execute(
        "INSERT OR REPLACE INTO leased_claims VALUES (?, ?, ?, ?, ?, ?, ?)",
        (question, record.owner, record.state.value, approval, leased, leased_monotonic, expires),
    )
    return True
