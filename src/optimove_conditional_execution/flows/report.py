"""Progress and report of a review, and the estimate of when it will be complete."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any, final

from ..deadline import Clock, Deadline
from ..errors import OptimoveError


@final
@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a running review. Plain values, for a display or a metric.

    Attributes:
        campaign_id: The campaign.
        rows: Rows received.
        reviewed: Customers whose batch has been reviewed, or has failed.
        approved: Customers who are approved so far; a further row can still say no.
        denied: Customers who are not.
        failed: Customers whose decision failed at the last attempt; some may be asked about again.
        acknowledged: Customers whose status Optimove has acknowledged.
        all_read: Whether the last row has been received; until then the number of customers is unknown.
        rate: Customers reviewed per second, so far.
        seconds: Seconds since the start.
        seconds_left: Seconds until clearance.
        slack: Seconds between the expected end of the known work and clearance; negative when it cannot be done in
            time; None before anything has been measured.
    """

    campaign_id: int
    rows: int
    reviewed: int
    approved: int
    denied: int
    failed: int
    acknowledged: int
    all_read: bool
    rate: float
    seconds: float
    seconds_left: float
    slack: float | None

    @property
    def behind(self) -> bool:
        """Whether the known work cannot be complete by clearance."""
        return self.slack is not None and self.slack < 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewReport:
    """The result of a review. Counts are distinct customers, over all runs of the review, unless they say otherwise.

    Attributes:
        campaign_id: The campaign.
        reviewed: Customers whom the reviewer was asked about: `approved + denied + failed`.
        approved: Customers whom it approved.
        denied: Customers whom it did not.
        abstained: Those of them whom it abstained about, who are never reported.
        failed: Customers whose decision failed at every attempt: the reviewer raised, was too slow for `batch_timeout`,
            or returned an invalid value. Not approved; a further run of the same event asks about them again.
        not_reached: Customers who were read, but not decided about, with all their rows, before time was up. Not
            approved.
        acknowledged: Customers whose status Optimove acknowledged with a 2xx.
        rows: Rows received, in this run.
        repeated_rows: Further rows of the same customers, such as one per channel, in this run.
        control_group_rows: Rows of the control group (`action_id` 1), in this run.
        chunks: Status updates that Optimove acknowledged, in this run.
        retries: Retried requests, in this run.
        seconds: How long this run took.
        seconds_to_spare: Seconds between its end and clearance; negative when clearance was first.
        complete: Whether every customer was read and decided about, and every status to report acknowledged.
        finished_before_clearance: Whether it was complete before clearance.
        error: The error that prevented customers from being read or statuses from being sent; None without one.
        warnings: What needs attention, in plain words without personal data.
        stopped: Whether it was stopped before it was complete; `resume` goes on with it.
        held_back: Approvals that the journal holds, and that the kill switch, or `observe=True`, kept from being sent,
            in this run; `error` says why. A further run sends them once it may, if there is time before clearance.
        would_approve: With `observe=True` the customers whom the reviewer approved, in this run; all who were decided
            about count as abstained. None without.
    """

    campaign_id: int
    reviewed: int = 0
    approved: int = 0
    denied: int = 0
    abstained: int = 0
    failed: int = 0
    not_reached: int = 0
    acknowledged: int = 0
    rows: int = 0
    repeated_rows: int = 0
    control_group_rows: int = 0
    chunks: int = 0
    retries: int = 0
    seconds: float = 0.0
    seconds_to_spare: float = 0.0
    complete: bool = False
    finished_before_clearance: bool = False
    error: OptimoveError | None = None
    warnings: tuple[str, ...] = ()
    stopped: bool = False
    held_back: int = 0
    would_approve: int | None = None

    @property
    def observed(self) -> bool:
        """Whether the review only observed, and sent nothing."""
        return self.would_approve is not None

    def to_json(self) -> str:
        """Return the report as a JSON object; the error becomes its text."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        values["error"] = None if self.error is None else f"{type(self.error).__name__}: {self.error}"
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> ReviewReport:
        """Parse a report written by `to_json`, such as `ReviewState.report`; unknown fields are ignored.

        Args:
            text: The JSON object. The error comes back as an `OptimoveError` with the same words.

        Raises:
            ValueError: It is not JSON.
        """
        names = {item.name for item in dataclasses.fields(cls)}
        values = {name: value for name, value in json.loads(text).items() if name in names}
        if values.get("error") is not None:
            values["error"] = OptimoveError(values["error"])
        values["warnings"] = tuple(values.get("warnings", ()))
        return cls(**values)


class CompletionEstimate:
    """Estimates when the known work will be complete: deciding, and then sending.

    The number of customers is known only after the last row. Until then the estimate covers those read so far; so it
    can be too optimistic, but not too pessimistic.
    """

    def __init__(
        self,
        *,
        clearance: Deadline,
        chunk_size: int,
        pause_between_requests: float,
        expected: int | None,
        clock: Clock,
        updates_at_once: int = 1,
    ) -> None:
        """Start measuring.

        Args:
            clearance: The deadline for all statuses.
            chunk_size: Statuses per request, at most.
            pause_between_requests: Seconds per request under the rate limit; 0 without one.
            expected: The number of customers, if known.
            clock: A monotonic clock, seconds.
            updates_at_once: Concurrent status updates.
        """
        self._updates_at_once = updates_at_once
        self._clearance = clearance
        self._given = clearance.remaining()
        self._chunk_size = chunk_size
        self._pause = pause_between_requests
        self._expected = expected
        self._clock = clock
        self._started = clock()
        self._asked_first: float | None = None
        self._chunk_seconds = 0.0
        self._chunks = 0

    def first_batch(self) -> None:
        """Record that the reviewer is called for the first time."""
        if self._asked_first is None:
            self._asked_first = self._clock()

    def update_sent(self, seconds: float) -> None:
        """Record how many seconds a status update took."""
        self._chunk_seconds += seconds
        self._chunks += 1

    def seconds(self) -> float:
        """Return the seconds since the start."""
        return self._clock() - self._started

    def seconds_to_spare(self) -> float:
        """Return the seconds until clearance; negative after it."""
        return self._given - self.seconds()

    def rate(self, reviewed: int) -> float:
        """Return the customers reviewed per second."""
        if self._asked_first is None or not reviewed:
            return 0.0
        return reviewed / max(self._clock() - self._asked_first, 1e-9)

    def slack(self, *, reviewed: int, waiting: int, unsent: int) -> float | None:
        """Return the seconds between the expected end and clearance; None when nothing has been measured.

        Args:
            reviewed: Customers reviewed in this run.
            waiting: Customers read and not yet reviewed.
            unsent: Statuses decided and not yet sent.
        """
        rate = self.rate(reviewed)
        if self._expected is not None:
            waiting = max(waiting, self._expected - reviewed)
        if not rate and waiting:
            return None
        deciding = waiting / rate if waiting else 0.0
        a_chunk = max(self._chunk_seconds / self._chunks if self._chunks else 0.0, self._pause)
        # Assume that all are approved; nothing is sent before the last customer is decided.
        chunks = math.ceil((unsent + waiting) / self._chunk_size)
        sending = max(a_chunk * math.ceil(chunks / self._updates_at_once), self._pause * chunks)
        return self._clearance.remaining() - deciding - sending
