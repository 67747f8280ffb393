"""Reconciliation: whom Optimove has sent a scheduled campaign, compared with who was approved."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from enum import IntFlag
from itertools import chain, islice
from typing import Any, Final, Literal, Protocol, TypeVar, final, get_args, runtime_checkable

from .client import AsyncOptimoveClient, OptimoveClient
from .deadline import Deadline
from .errors import ConfigurationError
from .flows.customer_history import approvals
from .flows.decision_log import LoggedDecision
from .flows.journal import Journal
from .flows.report import ReviewReport
from .models.campaign import CustomerExecution
from .review.journal_access import StoreAccess
from .stores.sqlite_file import SqliteFile
from .validation import integer

T = TypeVar("T")

Difference = Literal["unapproved", "not_sent", "unacknowledged", "disagreeing"]

_AT_ONCE: Final = 1_000
_DENYING: Final = frozenset({"denied", "abstained"})
_WITHDRAWN: Final = frozenset({"revoked", "discarded"})

_FOREIGN: Final = (
    "The decision log holds other pseudonyms of this campaign's customers than its identify= makes, or ids: nobody can "
    "be compared. Pass the identify= of the review; the command reads a secret from OPTIMOVE_DECISION_LOG_SECRET."
)

_TEMPORARY: Final = ""
"""SQLite's name for a private file that is deleted when it is closed, or when the process ends."""

_SCHEMA: Final = """
PRAGMA cache_size = -16384;
CREATE TABLE IF NOT EXISTS customers (key BLOB PRIMARY KEY, id BLOB, marks INTEGER NOT NULL) WITHOUT ROWID;
"""

_ADD: Final = """
INSERT INTO customers (key, id, marks) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE SET
    marks = CASE WHEN marks & 16 THEN marks ELSE marks & ~?4 END | ?3, id = coalesce(id, ?2)
"""


@runtime_checkable
class ReadableLog(Protocol):
    """A decision log that can be read, as those in `stores` can."""

    def decisions(self, *, campaign: str | int | None = None) -> Iterator[LoggedDecision]:
        """Yield the decisions of a campaign, in the order of the log."""
        ...

    def pseudonym(self, customer_id: str) -> str:
        """Return what the log holds instead of a customer's id."""
        ...


class Mark(IntFlag):
    """What is known of a customer."""

    JOURNAL = 1  # approved by the journal
    TOLD = 2  # the journal holds that Optimove acknowledged it
    LOG = 4  # approved by the decision log
    SENT = 8
    LOGGED_TOLD = 16  # the log holds that Optimove acknowledged it, so that no later record withdraws it
    HELD = 32  # the log holds that the kill switch held it back
    MAYBE_HELD = 64  # the switch held approvals of the review back, and Optimove did not acknowledge this one


_ALL_MARKS: Final = [Mark(value) for value in range(128)]


@final
class Comparison:
    """Customers by their id, each with marks, in a temporary SQLite file, so that a million take no memory."""

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
        wanted = ",".join([str(int(marks)) for marks in _ALL_MARKS if is_wanted(marks)])
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


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation(AbstractContextManager["Reconciliation"]):
    """The result of a comparison; counts are distinct customers, unless they say otherwise.

    With a journal and a log, a customer is approved when both say so; one that knows nothing of the campaign is left
    out. Close it, or use it in a `with` statement: the ids are in a temporary file until then.

    Attributes:
        campaign_id: The campaign.
        reviews: Reviews of the campaign in the journal; of several, each can approve a customer.
        records: Decisions about the campaign in the log.
        erased: Those of them whose customer was erased; they cannot be compared.
        rows: Rows that Optimove returned; a customer can have several.
        control_group_rows: Those of them of the control group, to whom nothing is sent; they are left out.
        approved: Customers who were approved, and whose approval was not held back.
        acknowledged: Those of them whose approval Optimove acknowledged.
        held_back: Customers who were approved, and whose approval the kill switch, or `observe=True`, kept from being
            sent. The log knows which; without one, these are all whom Optimove did not acknowledge, of a review that
            something was held back of.
        sent: Customers whom Optimove has sent the campaign.
        unapproved: Those of them who were not approved.
        not_sent: Customers whose approval Optimove acknowledged, and whom it has not sent it.
        unacknowledged: Customers who were approved, whose approval Optimove did not acknowledge, and whom it has not
            sent it.
        disagreeing: Customers whom only one of journal and log approves.
    """

    campaign_id: int
    reviews: int
    records: int
    erased: int
    rows: int
    control_group_rows: int
    approved: int
    acknowledged: int
    held_back: int
    sent: int
    unapproved: int
    not_sent: int
    unacknowledged: int
    disagreeing: int
    _comparison: Comparison = field(repr=False)
    _tests: dict[str, Callable[[Mark], bool]] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether the campaign was sent to nobody who was not approved."""
        return self.unapproved == 0

    def ids(self, difference: Difference) -> Iterator[str]:
        """Yield the customers of a count, in any order, a few in memory at a time.

        Args:
            difference: `unapproved`, `not_sent`, `unacknowledged` or `disagreeing`. In a log that holds pseudonyms, a
                customer whom neither the journal nor Optimove names has only a pseudonym.

        Raises:
            ConfigurationError: It is closed, or there is no such count.
        """
        if difference not in self._tests:
            raise ConfigurationError(f"difference must be one of {', '.join(self._tests)}.")
        return self._comparison.ids(self._tests[difference])

    def as_json(self) -> dict[str, Any]:
        """Return the counts as a JSON object, without ids."""
        names = [each.name for each in fields(self) if not each.name.startswith("_")]
        return {"ok": self.ok, **{name: getattr(self, name) for name in names}}

    def close(self) -> None:
        """Delete the temporary file with the ids."""
        self._comparison.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def reconcile(
    client: OptimoveClient,
    campaign_id: int,
    *,
    journal: Journal | None = None,
    decision_log: ReadableLog | None = None,
    deadline: Deadline | None = None,
    wait_for_customers: float | None = None,
) -> Reconciliation:
    """Compare whom Optimove has sent a scheduled campaign (GetCustomerExecutionDetailsByCampaign) with the approvals.

    Call it after the event of EventTypeID 13 of the campaign's last channel: before that, approved customers are
    rightly among those not sent. `docs/explanation/guarantees.md` says what it can and cannot show. Memory is flat: ids
    are in a temporary file, in the folder that SQLite uses for such files.

    Args:
        client: Reads whom the campaign was sent to.
        campaign_id: The campaign.
        journal: The journal of its review.
        decision_log: The decision log of its review, such as a `SqliteDecisionLog` with the same `identify=`.
        deadline: The end of reading from Optimove; see `OptimoveClient.get_customer_execution_details_by_campaign`.
        wait_for_customers: Seconds for which an empty first page is requested again.

    Raises:
        ConfigurationError: Neither a journal nor a log is given, or one cannot be read, or the log's `identify=` does
            not fit.
        NotFoundError: Optimove has no such campaign.
        OptimoveError: The rows could not be read; and what journal and log raise.
    """
    if not isinstance(client, OptimoveClient):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
        raise ConfigurationError("reconcile needs an OptimoveClient; with an AsyncOptimoveClient await areconcile.")
    with _Work(campaign_id, journal, decision_log) as work:
        work.check()
        blocks = client.get_customer_execution_details_by_campaign_in_blocks(
            campaign_id, deadline=deadline, wait_for_customers=wait_for_customers
        )
        with contextlib.closing(blocks):
            for block in blocks:
                work.add_sent(block)
        work.load()
        return work.result()


async def areconcile(
    client: AsyncOptimoveClient,
    campaign_id: int,
    *,
    journal: Journal | None = None,
    decision_log: ReadableLog | None = None,
    deadline: Deadline | None = None,
    wait_for_customers: float | None = None,
) -> Reconciliation:
    """Compare whom Optimove has sent a scheduled campaign with the approvals; see `reconcile`.

    The journal and the log are read in a thread.

    Args:
        client: Reads whom the campaign was sent to.
        campaign_id: The campaign.
        journal: The journal of its review.
        decision_log: The decision log of its review.
        deadline: The end of reading from Optimove.
        wait_for_customers: Seconds for which an empty first page is requested again.

    Raises:
        ConfigurationError: Neither a journal nor a log is given, or one cannot be read.
        NotFoundError: Optimove has no such campaign.
        OptimoveError: The rows could not be read; and what journal and log raise.
    """
    if not isinstance(client, AsyncOptimoveClient):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
        raise ConfigurationError("areconcile needs an AsyncOptimoveClient; with an OptimoveClient call reconcile.")
    with _Work(campaign_id, journal, decision_log) as work:
        thread = StoreAccess("optimove-reconciliation")
        await thread.call(work.check)
        blocks = client.get_customer_execution_details_by_campaign_in_blocks(
            campaign_id, deadline=deadline, wait_for_customers=wait_for_customers
        )
        async with contextlib.aclosing(blocks):
            async for block in blocks:
                await thread.call(work.add_sent, block)
        await thread.call(work.load)
        return await thread.call(work.result)


class _Work:
    """One comparison, for both colours; a result takes over the temporary file."""

    def __init__(self, campaign_id: int, journal: Journal | None, decision_log: ReadableLog | None) -> None:
        self._campaign_id = integer("campaign_id", campaign_id, minimum=1)
        if journal is None and decision_log is None:
            raise ConfigurationError("reconcile needs a journal or a decision_log, or both: they hold the approvals.")
        if decision_log is not None and not isinstance(decision_log, ReadableLog):
            raise ConfigurationError(
                "decision_log must be readable, such as a SqliteDecisionLog: with the methods `decisions` and "
                "`pseudonym`."
            )
        self._journal = journal
        self._log = decision_log
        self._comparison = Comparison(None if decision_log is None else decision_log.pseudonym)
        self._is_done = False
        self._reviews = self._records = self._erased = self._rows = self._control_group_rows = 0

    def __enter__(self) -> _Work:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_done:
            self._comparison.close()

    def check(self) -> None:
        """Find out whether journal and log can be compared, before Optimove is asked."""
        if self._journal is not None:
            self._journal.reviews()
        if self._log is not None:
            _check(list(islice(self._log.decisions(campaign=self._campaign_id), _AT_ONCE)))

    def load(self) -> None:
        """Read the journal and the log; it may block on a disk or a network.

        Last, and in this order, the reverse of that in which they are written: what Optimove has sent while a review
        still runs is in the journal by then, and what is there is in the log.
        """
        if self._journal is not None:
            self._load_journal(self._journal)
        if self._log is not None:
            self._load_log(self._log)

    def _load_journal(self, journal: Journal) -> None:
        for state in journal.reviews():
            if state.event.campaign_id == self._campaign_id:
                self._reviews += 1
                key = state.event.key
                batches = journal.batches(key)
                first = list(islice(batches, 1))
                if state.decided and not first:
                    raise ConfigurationError(
                        "The journal does not hold any more who was approved in this review: a MemoryJournal keeps "
                        "that of the last eight reviews only."
                    )
                is_held = state.report is not None and ReviewReport.from_json(state.report).held_back > 0
                untold = Mark.JOURNAL | Mark.MAYBE_HELD if is_held else Mark.JOURNAL
                for ids, is_told in approvals(state.event, chain(first, batches), journal.acknowledged(key)):
                    self._comparison.add(ids, Mark.JOURNAL | Mark.TOLD if is_told else untold)

    def _load_log(self, log: ReadableLog) -> None:
        for portion in _portions(log.decisions(campaign=self._campaign_id)):
            # A triggered campaign's series id can be the same number.
            found = [each for each in portion if each.record.flow == "scheduled"]
            _check(found)
            self._records += len(found)
            self._erased += sum(each.erased for each in found)
            self._comparison.add_keys(
                [
                    (name, *marks)
                    for each in found
                    if (name := each.record.subject.customer_id) is not None and (marks := _marks(each)) is not None
                ]
            )

    def add_sent(self, block: list[CustomerExecution]) -> None:
        """Add rows of those whom Optimove has sent the campaign."""
        sent = [row.customer_id for row in block if not row.is_control]
        self._rows += len(block)
        self._control_group_rows += len(block) - len(sent)
        self._comparison.add(sent, Mark.SENT)

    def result(self) -> Reconciliation:
        """Return the counts."""
        # When neither knows the campaign, nobody was approved.
        approving = Mark.JOURNAL if self._reviews or not self._records else Mark(0)
        approving |= Mark.LOG if self._records or not self._reviews else Mark(0)
        told = Mark.TOLD | Mark.LOGGED_TOLD
        held = Mark.HELD if self._records else Mark.MAYBE_HELD

        def was_approved(marks: Mark) -> bool:
            return marks & approving == approving

        def is_held(marks: Mark) -> bool:
            return bool(marks & held) and not marks & told

        def is_approved(marks: Mark) -> bool:
            return was_approved(marks) and not is_held(marks)

        def is_absent(marks: Mark) -> bool:
            return is_approved(marks) and not marks & Mark.SENT

        tests: dict[str, Callable[[Mark], bool]] = {
            "approved": is_approved,
            "acknowledged": lambda marks: is_approved(marks) and bool(marks & told),
            "held_back": lambda marks: was_approved(marks) and is_held(marks),
            "sent": lambda marks: bool(marks & Mark.SENT),
            "unapproved": lambda marks: bool(marks & Mark.SENT) and not is_approved(marks),
            "not_sent": lambda marks: is_absent(marks) and bool(marks & told),
            "unacknowledged": lambda marks: is_absent(marks) and not marks & told,
            "disagreeing": lambda marks: bool(marks & approving) and not was_approved(marks),
        }
        found = self._comparison.counts()
        result = Reconciliation(
            campaign_id=self._campaign_id,
            reviews=self._reviews,
            records=self._records,
            erased=self._erased,
            rows=self._rows,
            control_group_rows=self._control_group_rows,
            **{name: sum(count for marks, count in found.items() if test(marks)) for name, test in tests.items()},
            _comparison=self._comparison,
            _tests={name: tests[name] for name in get_args(Difference)},
        )
        self._is_done = True
        return result


def _check(decisions: Iterable[LoggedDecision]) -> None:
    if any(each.foreign for each in decisions if each.record.flow == "scheduled"):
        raise ConfigurationError(_FOREIGN)


def _marks(logged: LoggedDecision) -> tuple[Mark, Mark] | None:
    """Return the marks that a record adds to its customer, and those that it removes; None when it says nothing."""
    kind, done = logged.record.kind, logged.completion
    if done is not None and done.kind in _WITHDRAWN:
        return None
    if kind == "approved":
        if done is not None and done.kind == "acknowledged" and done.taken is True:
            return Mark.LOG | Mark.LOGGED_TOLD, Mark(0)
        if done is not None and done.told == "nothing":
            return Mark.LOG | Mark.HELD, Mark(0)
        return Mark.LOG, Mark.HELD
    return (Mark(0), Mark.LOG) if kind in _DENYING else None


def _portions(items: Iterable[T]) -> Iterator[list[T]]:
    left = iter(items)
    while portion := list(islice(left, _AT_ONCE)):
        yield portion
