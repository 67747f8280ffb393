"""What the decision logs in SQLite and in PostgreSQL share: questions, checks of the chain, prune and erase.

The table has the same columns in both. How a transaction is made, and how entries are appended, differs.
"""

from __future__ import annotations

import abc
import asyncio
import concurrent.futures
import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol, Self, TypeVar, cast, final

from pydantic import SecretBytes, SecretStr

from ..credentials import revealed
from ..errors import ConfigurationError
from ..flows.decision_log import Completion, DecisionRecord, LoggedDecision
from ..flows.journal import ranges_of
from ..fork import detect_fork
from . import hash_chain, log_rows
from .group_commit import GroupCommit
from .hash_chain import GENESIS, GROUP, ChainFault, Content, Row
from .payloads import EncryptionKeys, PayloadCodec

T = TypeVar("T")

Identify = str | bytes | SecretStr | SecretBytes | Callable[[str], str]

COLUMNS: Final = ", ".join(("number", "hash", *Content._fields))

_DECISIONS: Final = "type IN ('decision', 'group')"
_AT_ONCE: Final = 500
"""Rows, and about as many records, that are in memory."""

_NOT_THE_HEAD: Final = "is not the one that the database keeps as the last"
_PRUNED_AT_ONCE: Final = 10_000
_CHECKED: Final = b"optimove-ce decision log, identify="
_CHECK_DIGITS: Final = 8
_HEAD: Final = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


class Execute(Protocol):
    """Executes a statement, with a `?` for each value, and returns its rows."""

    def __call__(self, statement: str, values: Sequence[object] = (), /) -> list[Any]: ...  # noqa: D102 - see above


Append = Callable[[Content], None]
"""Appends an entry, in a write transaction."""


class ChainedLog(AbstractContextManager["ChainedLog"], abc.ABC):
    """A decision log in a table; see `SqliteDecisionLog` and `PostgresDecisionLog`."""

    _table: str
    _place: str
    """The function of SQL that returns where a text holds another one, and 0 where not."""

    def __init__(
        self, identify: Identify | None, *, keep_payloads: bool, encryption_keys: EncryptionKeys | None
    ) -> None:
        self._identify = _identifier(identify)
        self.instant: Final = not callable(identify)
        self._payloads = PayloadCodec(
            keep=keep_payloads, keys=encryption_keys, is_pseudonymous=self._identify is not None
        )

    @property
    def keep_payloads(self) -> bool:
        """Whether the log keeps payloads."""
        return self._payloads.keep

    def append(self, entries: Sequence[DecisionRecord | Completion], /) -> None:
        """Append entries; see `DecisionLog.append`.

        Raises:
            PayloadError: One cannot be written as JSON.
            ConfigurationError: The time of one has no zone.
            Exception: What the database raises, as in all methods.
        """
        contents = log_rows.contents_of(entries, self._identify, self._payloads)
        detect_fork()
        self._group.append(contents)

    def submit(
        self, entries: Sequence[DecisionRecord | Completion], /
    ) -> concurrent.futures.Future[None] | asyncio.Future[None]:
        """Append entries in a thread, together with what others append; see `QueuedLog.submit`.

        Raises:
            PayloadError: One cannot be written as JSON; called in an event loop, the future raises it.
            ConfigurationError: The time of one has no zone; likewise.
        """
        detect_fork()
        return self._group.submit(lambda: log_rows.contents_of(entries, self._identify, self._payloads))

    def complete(self, entry: DecisionRecord | Completion, on_lost: Callable[[Exception], object], /) -> None:
        """Append an entry in a thread, soon; see `QueuedLog.complete`."""
        detect_fork()
        self._group.submit_later(lambda: log_rows.contents_of([entry], self._identify, self._payloads), on_lost)

    def flush(self) -> None:
        """Write what was submitted; what goes wrong is told to those who have submitted it."""
        detect_fork()
        self._group.flush()

    def after_fork(self) -> None:
        """Drop what the parent appends, which it will do itself; a child has other threads."""
        self._group = GroupCommit(self._write)

    @abc.abstractmethod
    def _write(self, contents: Sequence[Content]) -> None:
        """Append entries in one transaction. One without decisions may be lost in a power failure."""

    @abc.abstractmethod
    def _query(self, work: Callable[[Execute], T]) -> T:
        """Call a function that reads."""

    @abc.abstractmethod
    def _change(self, work: Callable[[Execute, Append], T]) -> T:
        """Call a function that writes, in a transaction which excludes all others that write."""

    @abc.abstractmethod
    def _highest(self, execute: Execute) -> int:
        """Return the highest number that was ever given to an entry."""

    def _kept_head(self, execute: Execute) -> tuple[int, bytes | None]:
        """Return the highest number, and the hash of that entry if the database keeps it apart from the entries."""
        return self._highest(execute), None

    @abc.abstractmethod
    def _completions(self, execute: Execute, rows: Sequence[Row]) -> Mapping[int, Sequence[Completion]]:
        """Return the completions of decisions by the number of their row, in the order of the log."""

    @abc.abstractmethod
    def close(self) -> None:
        """Close what is open; the next use opens it again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def decisions(
        self,
        *,
        customer_id: str | None = None,
        campaign: str | int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[LoggedDecision]:
        """Yield the decisions in the order of the log, read in small portions.

        Args:
            customer_id: Only those about this customer.
            campaign: Only those of this campaign; see `Subject.campaign`.
            since: Only those at this moment or later.
            until: Only those before this moment.

        Raises:
            ConfigurationError: `since` or `until` has no zone.
        """
        customer = None if customer_id is None else self._key(customer_id)
        condition, values = (_DECISIONS, list[str]()) if customer is None else self._about(customer)
        for column, wanted in (
            ("campaign =", None if campaign is None else log_rows.ascii_text(str(campaign))),
            ("at >=", None if since is None else log_rows.stamp(since, "since")),
            ("at <", None if until is None else log_rows.stamp(until, "until")),
        ):
            if wanted is not None:
                condition += f" AND {column} ?"
                values.append(wanted)
        return self._decisions(condition, values, customer)

    def _about(self, customer: str) -> tuple[str, list[str]]:
        """Return the condition for rows about a customer, and its values."""
        # Two searches, each with an index of its own, since SQLite would walk the whole table for an OR.
        numbers = f"SELECT number FROM {self._table} WHERE"  # noqa: S608 - our own; values are bound
        of_one = f"{numbers} type = 'decision' AND customer = ?"
        of_group = f"{numbers} type = '{GROUP}' AND {self._place}(customer, ?) > 0"
        return f"number IN ({of_one} UNION ALL {of_group})", [customer, f"\n{customer}\n"]

    def _decisions(self, condition: str, values: list[str], customer: str | None) -> Iterator[LoggedDecision]:
        def read(execute: Execute) -> tuple[int, list[LoggedDecision]]:
            rows = self._rows(execute, f"{condition} AND number > ?", (*values, last))
            wanted = [
                single
                for row in rows
                for single in log_rows.singles(row)
                if customer is None or single.content.customer == customer
            ]
            completions = self._completions(execute, wanted)
            found = [self._logged(row, completions.get(row.number, ())) for row in wanted]
            return (rows[-1].number if rows else 0), found

        self.flush()
        last, _ = self._query(self._start)  # what was pruned may still be there
        while True:
            last, found = self._query(read)
            yield from found
            if not last:
                return

    def verify(self, *, head: str | None = None) -> ChainFault | None:
        """Check the whole chain, and return the first entry that was changed, removed or reordered; None when all fit.

        Args:
            head: What `head` returned earlier: the log must hold that very entry. Without it, nothing can tell a log
                whose hashes were all computed anew from an untouched one.

        Raises:
            ConfigurationError: `head` is not what `head` returns, or that entry has been pruned.
        """
        expected = None if head is None else _parsed(head)
        self.flush()
        while True:
            number, digest = start = self._query(self._start)
            verifier = hash_chain.Verifier(number, digest)
            if expected is not None and expected[0] < number:
                raise ConfigurationError(f"The entry of this head was pruned: the log begins with {number + 1}.")
            if expected is not None and expected[0] == number and expected[1] != digest:
                return ChainFault(number, "is not the one whose head was kept")
            fault = self._verified(verifier, expected)
            if fault is None or start == self._query(self._start):
                return fault
            # It was pruned while it was read.

    def _verified(self, verifier: hash_chain.Verifier, expected: tuple[int, bytes] | None) -> ChainFault | None:
        def read(execute: Execute) -> tuple[tuple[int, bytes | None], list[Row]]:
            # In this order: what others append in between must not be missed.
            return self._kept_head(execute), self._rows(execute, "number > ?", (last,))

        last = verifier.number  # what was pruned may still be there
        while True:
            (highest, digest), rows = self._query(read)
            for row in rows:
                if fault := verifier.check(row):
                    return fault
                if expected is not None and row.first <= expected[0] <= row.number and row.hash != expected[1]:
                    return ChainFault(row.number, "is not the one whose head was kept")
                if row.number == highest and digest not in (None, row.hash):
                    return ChainFault(row.number, _NOT_THE_HEAD)
            if not rows:
                if fault := verifier.finish(max(highest, 0 if expected is None else expected[0])):
                    return fault
                # Asked again: it must know what others have appended in between.
                is_known = self._query(self._kept_head)[0] >= verifier.number
                return None if is_known else ChainFault(max(verifier.number, 1), _NOT_THE_HEAD)
            last = rows[-1].number

    def head(self) -> str:
        """Return number and hash of the last entry, to be kept where those who can write the file cannot."""
        self.flush()
        number, digest = self._query(self._last)
        return f"{number}:{digest.hex()}"

    def prune(self, before: datetime, /) -> int:
        """Delete the oldest entries, up to the first that is not from before a moment; the rest stays verifiable.

        That it was pruned, and up to which entry, becomes an entry of its own. The old ones are then deleted in small
        portions, so that decisions can be recorded meanwhile; if that is interrupted, they are hidden, and the next
        `prune` deletes them.

        Args:
            before: The moment.

        Returns:
            How many decisions were deleted.

        Raises:
            ConfigurationError: `before` has no zone.
        """
        moment = log_rows.stamp(before, "before")
        table = self._table
        self.flush()

        def newest(execute: Execute) -> list[tuple[int, bytes]]:
            ((kept,),) = execute(f"SELECT min(number) FROM {table} WHERE at >= ?", (moment,))  # noqa: S608 - our own
            return execute(
                f"SELECT number, hash FROM {table} WHERE number < ? ORDER BY number DESC LIMIT 1",  # noqa: S608 - our own
                (self._highest(execute) + 1 if kept is None else kept,),
            )

        def mark(execute: Execute, append: Append) -> None:
            if self._start(execute)[0] < through:  # another process may have pruned meanwhile
                details = {"through": through, "hash": digest.hex(), "before": moment}
                append(log_rows.of_maintenance("pruning", datetime.now(UTC), details))

        if found := self._query(newest):
            ((through, digest),) = found
            self._change(mark)
        return self._delete_pruned()

    def _delete_pruned(self) -> int:
        """Delete what was pruned, in portions, since whoever appends waits for each; return how many decisions."""
        table, count = self._table, 0

        def work(execute: Execute, _: Append) -> int | None:
            through = self._start(execute)[0]
            ((lowest,),) = execute(f"SELECT min(number) FROM {table}")  # noqa: S608 - our own
            if lowest is None or lowest > through:
                return None
            end = min(lowest + _PRUNED_AT_ONCE, through + 1)
            ((decisions,),) = execute(
                f"SELECT coalesce(sum(size), 0) FROM {table} WHERE number < ? AND {_DECISIONS}",  # noqa: S608 - our own
                (end,),
            )
            execute(f"DELETE FROM {table} WHERE number < ?", (end,))  # noqa: S608 - our own
            return int(decisions)

        while (deleted := self._change(work)) is not None:
            count += deleted
        return count

    def erase(self, customer_id: str, /) -> int:
        """Delete what the log knows of a customer, and keep that decisions were made; the chain stays verifiable.

        Deleted are the id, the reason, the evidence, the additional data and the payload, with the salt of the
        commitment to them. What stays says when which campaign was approved or not, to somebody whom the log does not
        know any more; with the `request_uid` Optimove may know. Which entries were erased, and when, becomes an entry
        of its own, without the id. Later decisions about the customer are recorded as before.

        Args:
            customer_id: The customer.

        Returns:
            How many decisions were erased.
        """
        table, key = self._table, self._key(customer_id)

        def work(execute: Execute, append: Append) -> int:
            condition, values = self._about(key)
            numbers: list[int] = []
            last = 0
            while rows := self._rows(execute, f"{condition} AND number > ?", (*values, last)):
                last = rows[-1].number
                for row in rows:
                    content, erased = log_rows.without(row, key)
                    numbers += erased
                    execute(
                        f"UPDATE {table} SET customer = ?, personal = ?, salt = ? WHERE number = ?",  # noqa: S608 - our own
                        (content.customer, content.personal, content.salt, row.number),
                    )
            if numbers:
                append(log_rows.of_maintenance("erasure", datetime.now(UTC), {"numbers": ranges_of(numbers)}))
            return len(numbers)

        self.flush()
        return self._change(work)

    def _rows(self, execute: Execute, condition: str, values: Sequence[object]) -> list[Row]:
        # Groups are large, so first of all it is asked how many rows are enough.
        found = execute(
            f"SELECT number, size FROM {self._table} WHERE {condition} ORDER BY number LIMIT {_AT_ONCE}",  # noqa: S608 - our own; values are bound
            values,
        )
        numbers: list[int] = []
        records = 0
        for number, size in found:
            if records >= _AT_ONCE:
                break
            numbers.append(number)
            records += size if isinstance(size, int) else 1  # whoever changes the file may write anything
        marks = ", ".join("?" * len(numbers))
        selected = f"SELECT {COLUMNS} FROM {self._table} WHERE number IN ({marks}) ORDER BY number"  # noqa: S608 - our own
        return [Row(row[0], row[1], Content(*row[2:])) for row in execute(selected, numbers)] if numbers else []

    def _logged(self, row: Row, completions: Sequence[Completion]) -> LoggedDecision:
        record = log_rows.record_of(row.content)
        payload, is_sealed = log_rows.payload_of(row.content, self._payloads)
        return LoggedDecision(
            entry=row.number,
            record=record if payload is None else replace(record, payload=payload),
            completion=log_rows.final_completion(completions),
            erased=row.content.commitment is not None and row.content.salt is None,
            sealed=is_sealed,
            foreign=row.content.customer is not None and self._is_foreign(row.content),
        )

    def _is_foreign(self, content: Content) -> bool:
        return log_rows.identify_check_of(content) != getattr(self._identify, "check", None)

    def _last(self, execute: Execute) -> tuple[int, bytes]:
        found = execute(f"SELECT number, hash FROM {self._table} ORDER BY number DESC LIMIT 1")  # noqa: S608 - our own
        return (found[0][0], found[0][1]) if found else (0, GENESIS)

    def _start(self, execute: Execute) -> tuple[int, bytes]:
        """Return number and hash of the entry before the first one."""
        found = execute(
            f"SELECT number, entry FROM {self._table} WHERE type = 'pruning' "  # noqa: S608 - our own
            "ORDER BY number DESC LIMIT 1"
        )
        try:
            ((number, entry),) = found
            details = json.loads(entry)
            through, digest = int(details["through"]), bytes.fromhex(details["hash"])
        except (ValueError, TypeError, KeyError):  # never pruned; or changed, and does not fit then
            return 0, GENESIS
        # The entry itself is to be checked, too.
        return (through, digest) if through < number else (0, GENESIS)

    def pseudonym(self, customer_id: str) -> str:
        """Return what the log holds instead of a customer's id: the id itself, unless `identify=` was given.

        Args:
            customer_id: The customer.
        """
        return customer_id if self._identify is None else self._identify(customer_id)

    def _key(self, customer_id: str) -> str:
        return log_rows.ascii_text(self.pseudonym(customer_id))


def has_decision(contents: Sequence[Content]) -> bool:
    """Return whether one of them is a decision's."""
    return any(content.type in ("decision", GROUP) for content in contents)


def unknown(contents: Sequence[Content], held: Callable[[list[str]], set[str]]) -> list[Content]:
    """Return the entries without records that the log holds.

    Args:
        contents: The entries.
        held: Returns which of these ids the log holds.
    """
    known: set[str | None] = {*held([content.id for content in contents if content.id is not None])}
    wanted: list[Content] = []
    for content in contents:
        if content.id is None or content.id not in known:
            known.add(content.id)
            wanted.append(content)
    return wanted


@final
class _Pseudonyms:
    """Makes pseudonyms under a secret.

    Attributes:
        check: Stands in the log beside each of them, so that another secret is noticed.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self.check = hmac.digest(key, _CHECKED, "sha256").hex()[:_CHECK_DIGITS]

    def __call__(self, customer_id: str) -> str:
        return hmac.digest(self._key, customer_id.encode("utf-8", "surrogatepass"), "sha256").hex()


def _identifier(identify: Identify | None) -> Callable[[str], str] | None:
    given: Any = revealed(identify)
    if given is None:
        return None
    if isinstance(given, str):
        given = given.encode("utf-8", "surrogateescape")
    if isinstance(given, bytes) and given.strip():
        return _Pseudonyms(given)
    if not callable(given):
        raise ConfigurationError("identify must be a secret that is not blank, or a function of a customer id.")
    return cast("Callable[[str], str]", given)


def _parsed(head: str) -> tuple[int, bytes]:
    found = _HEAD.fullmatch(head.strip())
    if found is None:
        raise ConfigurationError("head must be what `head` returned: a number, a colon, 64 hexadecimal digits.")
    return int(found[1]), bytes.fromhex(found[2])


def completion_key(row: Row) -> tuple[str, int | None]:
    """Return what a decision's completions name in `completes`, and the number that their range must hold, if any."""
    content = row.content
    key = json.loads(content.entry).get("event_key")
    # Of a review they name the event, and the numbers of statuses.
    return (str(content.id), None) if key is None or content.low is None else (log_rows.ascii_text(key), content.low)
