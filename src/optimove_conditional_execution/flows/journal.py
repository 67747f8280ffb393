"""Journals of reviews of scheduled campaigns, so that a crash loses nothing: the protocol, and its values."""

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
    """How far a review has got.

    Attributes:
        event: What it reviews.
        decided: Ids decided, approved or denied.
        approved: Ids approved.
        acknowledged: Statuses that Optimove has taken.
        finished: Whether nothing is left to do.
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
    """A review that is locked for one run, as it stands.

    Attributes:
        run: The number of this run, 1 or more, which no other run has had or will have.
        acknowledged: Which statuses Optimove has taken.
        report: The JSON text given to `Journal.finish`; None while the review is unfinished.
        announced_twice: Whether the journal has another review of the same campaign with the same clearance.
    """

    run: int
    acknowledged: Ranges = ()
    report: str | None = field(default=None, repr=False)
    announced_twice: bool = False


@runtime_checkable
class Journal(Protocol):
    """Remembers reviews of campaigns: what was announced, decided, and taken by Optimove.

    A review is named by `CampaignReadyEvent.key`. In the order of `record`, the ids that it approved are numbered from
    0, and those that it denied from 2**62, since they are reported only on request; `acknowledge` and `acknowledged`
    speak of ranges of these numbers. Methods are plain functions, called from several threads, and may wait for a disk.
    What one raises is tried again while there is time, a `StoreError` excepted; nothing is sent that is not written
    down. Every method but `open` may be called twice with the same arguments: the second call changes nothing.

    **Why no customer is told two things.** Whatever lock `open` uses can be lost: its file is removed, its server fails
    over. So the lock only spares work, and the guarantee is the number of the run. `open` writes a new one down before
    it returns, and whoever writes with an older `run=` is refused, in the transaction that would have written. Hence
    everything that an older run has recorded stands in the journal before the newer one reads it; the newer run asks
    about nobody who stands there, and sends what stands there as it is. The older run sends nothing before it has
    recorded it, so what it still has in flight is what the newer one sends too. It learns that it is superseded from
    `acknowledged`, which it calls before each update, or from any write, and then stops.
    """

    def add(self, event: CampaignReadyEvent, /) -> bool:
        """Write an announced campaign down.

        Args:
            event: What Optimove posted.

        Returns:
            True when it is new, False when it is known already.
        """
        ...

    def open(self, event: CampaignReadyEvent, /) -> OpenReview | None:
        """Lock a review for one run, among all threads and processes; never waits for the lock.

        An event that is not known is added. The lock is freed by `unlock` and, at once, by the death of the process.

        Args:
            event: What Optimove posted.

        Returns:
            How far the review has got, and the number of this run, which is written down. None when another run has
            the lock, one of the caller's included. A call that raises must leave the review unlocked: nobody would
            unlock it.
        """
        ...

    def unlock(self, key: str, /) -> None:
        """Free the lock of a review; without effect unless `open` took it here."""
        ...

    def record(self, key: str, batches: Sequence[DecidedBatch], /, *, run: int | None = None) -> None:
        """Append decided batches in their order, all or none; a batch that stands there already is left out.

        Args:
            key: The review.
            batches: What was decided.
            run: The number that `open` returned; None writes whoever is at the review.

        Raises:
            OptimoveError: The journal has no such review.
            SupersededError: A later run has opened the review; nothing is written.
        """
        ...

    def batches(self, key: str, /) -> Iterator[DecidedBatch]:
        """Yield all batches in the order of `record`, a few in memory at a time."""
        ...

    def acknowledge(self, key: str, start: int, end: int, /, *, run: int | None = None) -> None:
        """Write down that Optimove has taken a range of statuses.

        Args:
            key: The review.
            start: The number of the first one.
            end: The number behind the last one.
            run: The number that `open` returned; None writes whoever is at the review.

        Raises:
            OptimoveError: The journal has no such review, or the range is none.
            SupersededError: A later run has opened the review; nothing is written.
        """
        ...

    def acknowledged(self, key: str, /, *, run: int | None = None) -> Ranges:
        """Return the ranges that Optimove has taken.

        Args:
            key: The review.
            run: The number that `open` returned; None reads whoever is at the review.

        Raises:
            SupersededError: A later run has opened the review.
        """
        ...

    def finish(self, key: str, report: str, /, *, run: int | None = None) -> None:
        """Write down that nothing is left to do. The first report stands.

        Args:
            key: The review.
            report: JSON text, from `ReviewReport.to_json`.
            run: The number that `open` returned; None writes whoever is at the review.

        Raises:
            OptimoveError: The journal has no such review.
            SupersededError: A later run has opened the review; nothing is written.
        """
        ...

    def unfinished(self) -> list[CampaignReadyEvent]:
        """Return what is left to do, in the order of `add`."""
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
