"""Journals of reviews, so that a crash loses nothing: the protocol, and its values."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol, cast, final, runtime_checkable

from ..models.events import CampaignReadyEvent

FIRST_DENIAL: Final = 2**62
"""The number of the first denial of a review."""


Ranges = Sequence[tuple[int, int]]
"""Ranges `(start, end)` of numbered statuses, in order; those that touch are one."""


def ranges_of(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as ranges `(start, end)`."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found


@final
@dataclass(frozen=True, slots=True)
class DecidedBatch:
    """What became of one batch of customers; a journal stores it as one text, `to_json`, and need not look inside.

    Each customer is in one of `approved`, `denied`, `abstained`, `confirmed`, `failed`, `unanswered`, `not_reached` and
    `skipped`. A later batch can name a customer again, when another row of the customer has been read.

    Attributes:
        approved: Ids of those who are approved, for the first time in the review.
        denied: Ids of those who are not, for the first time.
        abstained: Ids of those whom the reviewer abstained about: not approved, and never reported.
        confirmed: Ids of those decided before, whose answer stays as it was.
        revoked: Those of `denied` and `abstained` whom an earlier batch approved.
        failed: Ids of those whose decision failed, by the class of what was raised and the HTTP status where there is
            one, such as `ServerError 503`.
        unanswered: Ids of those whom the reviewer was asked about, without an answer before time was up.
        not_reached: Ids of those who were read, and whom it was not asked about before time was up.
        skipped: Ids of those whom it is not to be asked about: the control group.
        reasons: The reviewer's words on its decision, by id.
        row_sets: The distinct sets of rows that the reviewer knew of these customers, as JSON texts.
        row_set_of: For each of `ids` the index of its set in `row_sets`; empty when all have the first.
        released: The number of the run that begins to send after this batch; None for all others. What is approved by
            then is final.
        at: When the journal recorded it, in seconds since 1970; None in a batch that was not read from a journal, and
            in one of a journal that keeps no times. Not compared.
    """

    approved: tuple[str, ...] = field(default=(), repr=False)
    denied: tuple[str, ...] = field(default=(), repr=False)
    abstained: tuple[str, ...] = field(default=(), repr=False)
    confirmed: tuple[str, ...] = field(default=(), repr=False)
    revoked: tuple[str, ...] = field(default=(), repr=False)
    failed: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False, hash=False)
    unanswered: tuple[str, ...] = field(default=(), repr=False)
    not_reached: tuple[str, ...] = field(default=(), repr=False)
    skipped: tuple[str, ...] = field(default=(), repr=False)
    reasons: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    row_sets: tuple[str, ...] = field(default=(), repr=False)
    row_set_of: tuple[int, ...] = field(default=(), repr=False)
    released: int | None = None
    at: float | None = field(default=None, compare=False)

    @property
    def ids(self) -> tuple[str, ...]:
        """All ids but those in `skipped`, in the order of the attributes."""
        return tuple(
            itertools.chain(
                self.approved,
                self.denied,
                self.abstained,
                self.confirmed,
                *self.failed.values(),
                self.unanswered,
                self.not_reached,
            )
        )

    @property
    def newly_decided(self) -> int:
        """How many customers more are decided about, with this batch."""
        return len(self.approved) + len(self.denied) + len(self.abstained) - len(self.revoked)

    @property
    def newly_approved(self) -> int:
        """How many customers more are approved, with this batch; negative when it revokes."""
        return len(self.approved) - len(self.revoked)

    def to_json(self) -> str:
        """Return the batch as a JSON object without empty fields; in ASCII, since an id may hold a lone surrogate.

        Without `at`: the same batch has the same text, whenever it is recorded.
        """
        values = {name: getattr(self, name) for name in _FIELDS}
        return json.dumps({name: value for name, value in values.items() if value or value == 0})

    @classmethod
    def from_json(cls, text: str) -> DecidedBatch:
        """Return the batch of a text from `to_json`.

        Args:
            text: The JSON object.

        Raises:
            ValueError: It is not JSON.
        """
        return cls.from_values(json.loads(text))

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> DecidedBatch:
        """Return the batch of a parsed text.

        Args:
            values: The JSON object, which is used up.
        """
        for name, value in values.items():
            if isinstance(value, list):
                values[name] = tuple(cast("list[object]", value))
        if "failed" in values:
            values["failed"] = {kind: tuple(ids) for kind, ids in values["failed"].items()}
        return cls(**values)


_FIELDS: Final = tuple(item.name for item in dataclasses.fields(DecidedBatch) if item.name != "at")


@final
@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """A status update that Optimove has acknowledged.

    Attributes:
        ranges: The numbers of its statuses, as in `Journal.acknowledge`.
        at: When the journal recorded it, in seconds since 1970; None when that is not known. Not compared.
    """

    ranges: tuple[tuple[int, int], ...]
    at: float | None = field(default=None, compare=False)

    def to_json(self) -> str:
        """Return the update as a JSON object, without `at`."""
        return json.dumps({_RANGES: self.ranges})


_RANGES: Final = "acknowledged"
Entry = DecidedBatch | StatusUpdate
"""What a journal with a history holds of a review."""


def dated(text: str, at: float) -> str:
    """Return the text of an entry with the time at which it is recorded.

    Args:
        text: From `to_json`.
        at: Seconds since 1970; kept to the millisecond.
    """
    return f'{{"at": {at:.3f}}}' if text == "{}" else f'{{"at": {at:.3f}, {text[1:]}'


def entry_of(text: str) -> Entry:
    """Return the entry of a text from `dated`, or from `to_json`, as older journals hold it.

    Args:
        text: The JSON object.

    Raises:
        ValueError: It is not JSON.
    """
    values: dict[str, Any] = json.loads(text)
    if _RANGES in values:
        return StatusUpdate(tuple([(start, end) for start, end in values[_RANGES]]), values.get("at"))
    return DecidedBatch.from_values(values)


@final
@dataclass(frozen=True, slots=True)
class ReviewState:
    """The state of a review in a journal.

    Attributes:
        event: The event that announced the campaign.
        decided: Customers decided about: approved or not. The sum of `DecidedBatch.newly_decided`.
        approved: Customers approved, by all answers so far. The sum of `DecidedBatch.newly_approved`.
        acknowledged: Statuses that Optimove has acknowledged.
        finished: Whether `Journal.finish` was called.
        report: The JSON text of the last report; None before.
    """

    event: CampaignReadyEvent
    decided: int
    approved: int
    acknowledged: int
    finished: bool
    report: str | None = field(default=None, repr=False)


@final
@dataclass(frozen=True, slots=True)
class OpenReview:
    """A review locked for one run, with its state.

    Attributes:
        run: The number of this run, 1 or more, which no other run has had or will have.
        acknowledged: Ranges of the statuses that Optimove has acknowledged.
        report: The JSON text given to `Journal.finish`; None while the review is unfinished.
        announced_twice: Whether the journal has another review of the same campaign with the same clearance.
    """

    run: int
    acknowledged: Ranges = ()
    report: str | None = field(default=None, repr=False)
    announced_twice: bool = False


@runtime_checkable
class Journal(Protocol):
    """A durable log of reviews: what was announced, decided, and acknowledged by Optimove.

    The key of a review is `CampaignReadyEvent.key`. In the order of `record`, the ids in `DecidedBatch.approved` are
    numbered from 0, and those in `denied` from 2**62, since they are reported only on request; `acknowledge` and
    `acknowledged` speak of ranges of these numbers. An approval that is revoked keeps its number, and is never sent. A
    journal stores numbers and batches as they come: what they mean is the review's business.

    Methods are plain functions, called from several threads, and may block on a disk. A failed call is retried while
    there is time, except after a `StoreError`; nothing is sent that is not recorded. Every method but `open` may be
    called twice with the same arguments: the second call changes nothing.

    **Why no customer gets two different statuses.** Whatever lock `open` uses can be lost: its file is removed, its
    server fails over. So the lock only saves work, and the guarantee is the run number, a fencing token. `open` records
    a new one before it returns, and a write with an older `run=` is rejected, in the same transaction. Hence everything
    that an older run has recorded is in the journal before the newer one reads it; the newer run asks about no customer
    who is recorded, except about rows that are new, and sends recorded decisions unchanged. The older run sends nothing
    before it has recorded it, so what it still has in flight is what the newer one sends too. It learns that it is
    superseded from `acknowledged`, which it calls before each update, or from any write, and then stops.

    A customer in several rows is decided about in several answers, and one of them can revoke the others. So nothing is
    sent before a batch with `released` is recorded, after all answers that came; what is approved by then is final in
    every later run, whether or not it was acknowledged. Only when every row has been read, so that no later answer can
    revoke anything, and the journal cannot write the release, are recorded decisions sent without it.
    """

    def add(self, event: CampaignReadyEvent, /) -> bool:
        """Add an announced campaign.

        Args:
            event: The event that Optimove posted.

        Returns:
            True when it is new, False when it was added before.
        """
        ...

    def open(self, event: CampaignReadyEvent, /) -> OpenReview | None:
        """Lock a review for one run, across all threads and processes; never waits for the lock.

        An unknown event is added. The lock is released by `unlock` and, immediately, by the end of the process.

        Args:
            event: The event that Optimove posted.

        Returns:
            The state of the review, and the number of this run, which is recorded. None when another run holds the
            lock, one of the caller's included. A call that raises must leave the review unlocked: it would never be
            unlocked.
        """
        ...

    def unlock(self, key: str, /) -> None:
        """Release the lock of a review; without effect unless `open` acquired it here."""
        ...

    def record(self, key: str, batches: Sequence[DecidedBatch], /, *, run: int | None = None) -> None:
        """Append decided batches in order, atomically; one that is recorded already, with the same text, is skipped.

        Args:
            key: The review.
            batches: The decided batches.
            run: The number that `open` returned; None writes without checking it.

        Raises:
            OptimoveError: The journal has no such review.
            SupersededError: A later run has opened the review; nothing is written.
        """
        ...

    def batches(self, key: str, /) -> Iterator[DecidedBatch]:
        """Yield all batches in the order of `record`, a few in memory at a time."""
        ...

    def acknowledge(self, key: str, ranges: Ranges, /, *, run: int | None = None) -> None:
        """Record that Optimove has acknowledged ranges of statuses, atomically.

        Args:
            key: The review.
            ranges: Pairs of the number of the first status, and the number after the last one. There are many when
                every few approvals one was revoked.
            run: The number that `open` returned; None writes without checking it.

        Raises:
            OptimoveError: The journal has no such review, or a range is empty.
            SupersededError: A later run has opened the review; nothing is written.
        """
        ...

    def acknowledged(self, key: str, /, *, run: int | None = None) -> Ranges:
        """Return the ranges of statuses that Optimove has acknowledged.

        Args:
            key: The review.
            run: The number that `open` returned; None reads without checking it.

        Raises:
            SupersededError: A later run has opened the review.
        """
        ...

    def finish(self, key: str, report: str, /, *, run: int | None = None) -> None:
        """Record that the review is over: complete, or past clearance. The first report given to `finish` is kept.

        Args:
            key: The review.
            report: JSON text, from `ReviewReport.to_json`.
            run: The number that `open` returned; None writes without checking it.

        Raises:
            OptimoveError: The journal has no such review.
            SupersededError: A later run has opened the review; nothing is written.
        """
        ...

    def keep_report(self, key: str, report: str, /, *, run: int | None = None) -> None:
        """Keep the report of a run that leaves the review incomplete, until the next report; `finish` replaces it.

        Args:
            key: The review.
            report: JSON text, from `ReviewReport.to_json`.
            run: The number that `open` returned; None writes without checking it.

        Raises:
            OptimoveError: The journal has no such review.
            SupersededError: A later run has opened the review; nothing is written.
        """
        ...

    def unfinished(self) -> list[CampaignReadyEvent]:
        """Return the events of unfinished reviews, in the order of `add`."""
        ...

    def reviews(self) -> list[ReviewState]:
        """Return all reviews, in the order of `add`."""
        ...

    def prune(self, before: datetime, /) -> int:
        """Delete the finished reviews whose clearance was before a moment.

        Args:
            before: Naive, in the zone of `CampaignReadyEvent.clearance_required_by`.

        Returns:
            How many were deleted.

        Raises:
            ConfigurationError: `before` has a zone.
        """
        ...


@runtime_checkable
class JournalHistory(Protocol):
    """A journal that tells what it recorded when, status updates included; the journals of this SDK do."""

    def history(self, key: str, /) -> Iterator[Entry]:
        """Yield all batches and status updates in the order in which they were recorded, a few in memory at a time.

        What an earlier version of the SDK recorded has no time, and no updates.
        """
        ...
