"""Journals of reviews, so that a crash loses nothing: the protocol, and its values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, final, runtime_checkable

from ..models.events import CampaignReadyEvent

FIRST_DENIAL: Final = 2**62
"""The number of the first denial of a review."""


Ranges = Sequence[tuple[int, int]]
"""Ranges `(start, end)` of numbered statuses, in order; those that touch are one."""


@final
@dataclass(frozen=True, slots=True)
class DecidedBatch:
    """One decided batch of customers.

    Attributes:
        approved: Ids of those who may receive the campaign.
        denied: Ids of those who may not.
    """

    approved: tuple[str, ...] = field(repr=False)
    denied: tuple[str, ...] = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class ReviewState:
    """The state of a review in a journal.

    Attributes:
        event: The event that announced the campaign.
        decided: Ids decided, approved or denied.
        approved: Ids approved.
        acknowledged: Statuses that Optimove has acknowledged.
        finished: Whether the review is complete.
        report: The JSON text given to `Journal.finish`; None before.
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

    The key of a review is `CampaignReadyEvent.key`. In the order of `record`, the ids that it approved are numbered
    from 0, and those that it denied from 2**62, since they are reported only on request; `acknowledge` and
    `acknowledged` speak of ranges of these numbers. Methods are plain functions, called from several threads, and may
    block on a disk. A failed call is retried while there is time, except after a `StoreError`; nothing is sent that is
    not recorded. Every method but `open` may be called twice with the same arguments: the second call changes nothing.

    **Why no customer gets two different statuses.** Whatever lock `open` uses can be lost: its file is removed, its
    server fails over. So the lock only saves work, and the guarantee is the run number, a fencing token. `open` records
    a new one before it returns, and a write with an older `run=` is rejected, in the same transaction. Hence everything
    that an older run has recorded is in the journal before the newer one reads it; the newer run asks about no customer
    who is recorded, and sends recorded decisions unchanged. The older run sends nothing before it has recorded it, so
    what it still has in flight is what the newer one sends too. It learns that it is superseded from `acknowledged`,
    which it calls before each update, or from any write, and then stops.
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
        """Append decided batches in order, atomically; a batch that is recorded already is skipped.

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

    def acknowledge(self, key: str, start: int, end: int, /, *, run: int | None = None) -> None:
        """Record that Optimove has acknowledged a range of statuses.

        Args:
            key: The review.
            start: The number of the first one.
            end: The number after the last one.
            run: The number that `open` returned; None writes without checking it.

        Raises:
            OptimoveError: The journal has no such review, or the range is empty.
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
        """Record that the review is complete. The first report is kept.

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
