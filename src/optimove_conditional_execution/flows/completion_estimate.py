"""Completion estimate of a review, from what it has measured so far."""

from __future__ import annotations

import math

from ..deadline import Clock, Deadline


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
