"""Records of deliveries in a decision log: one before the answer leaves, its completion after.

A file of its own, so that the flow of a notification says what is recorded when, and not how.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final

from ..deadline import Clock, Deadline
from ..handlers import Decision
from .decision_log import (
    Completion,
    DecisionLog,
    DecisionRecord,
    OnLogFailure,
    QueuedLog,
    keeps_payloads,
    queue_of,
    record_id,
)
from .effects import Ask, Flow, Late, exception_name
from .outcome import OutcomeBuilder, OutcomeKind

_COMPLETING: Final = 2.0
"""Seconds that the log may take after the answer has left."""

_UNREAD: Final = frozenset({411, 413})
"""Responses to requests that were not read to their end: there is nothing to record about them."""

_FORGED_A_MINUTE: Final = 60
"""Records of forged requests: whoever sends more must fill neither the disk nor the log's threads."""

_MINUTE: Final = 60.0


@dataclass(slots=True)
class _ForgedRequests:
    """How many forged requests were recorded in this minute, and how many were not. A race miscounts a few."""

    until: float = float("-inf")
    recorded: int = 0
    left_out: int = 0

    def admit(self, now: float) -> bool:
        if now >= self.until:
            self.until, self.recorded = now + _MINUTE, 0
        self.recorded += 1
        if self.recorded > _FORGED_A_MINUTE:
            self.left_out += 1
        return self.recorded <= _FORGED_A_MINUTE

    def take(self) -> int:
        left_out, self.left_out = self.left_out, 0
        return left_out


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryLog:
    """The log of a receiver's decisions.

    Attributes:
        log: The log.
        on_failure: What becomes of an approval that cannot be recorded.
        clock: Monotonic, in seconds.
        wall_clock: Seconds since 1970.
        on_lost: Called with a `request_uid` and an error when a completion could not be written for which nobody waits.
    """

    log: DecisionLog
    on_failure: OnLogFailure
    clock: Clock
    wall_clock: Clock
    on_lost: Callable[[str | None, BaseException], object]
    _forged: _ForgedRequests = field(default_factory=_ForgedRequests)
    _queue: QueuedLog | None = field(init=False)

    def __post_init__(self) -> None:
        """Look what the log can do."""
        object.__setattr__(self, "_queue", queue_of(self.log))

    def record(
        self,
        outcome: OutcomeBuilder,
        kind: OutcomeKind,
        decision: Decision,
        *,
        within: Deadline,
        redelivered: bool = False,
        meanwhile: Callable[[], Flow[None]] | None = None,
        every: float = float("inf"),
    ) -> Flow[bool]:
        """Record a decision before its answer leaves; the result is False when it must not leave.

        Args:
            outcome: The delivery.
            kind: What it becomes when the answer is accepted.
            decision: The decision.
            within: How long to wait for the log.
            redelivered: Whether it is the decision of an earlier delivery, which has recorded it.
            meanwhile: A flow to run while the log takes long; see `Ask`.
            every: Seconds between two of its runs.
        """
        now = self._now()
        record = DecisionRecord(
            id=record_id(now),
            at=now,
            flow="triggered",
            kind=kind,
            subject=outcome.subject,
            request_uid=outcome.request_uid,
            verdict=decision.verdict,
            reason=decision.reason,
            evidence=decision.evidence,
            additional_data=decision.additional_data,
            redelivered=redelivered,
            error=outcome.error,
            seconds=outcome.stages,
            payload=outcome.payload if keeps_payloads(self.log) and not redelivered else None,
            observed=outcome.observed,
            switch=outcome.switch,
        )
        outcome.record = record
        try:
            try:
                yield self._append([record], within, meanwhile, every)
            finally:
                outcome.end_of("log")
        except Exception as error:  # noqa: BLE001 - a log may raise anything
            if outcome.error is None:  # or else that of the handler counts
                late = isinstance(error, Late)
                what = "The decision log did not answer in time." if late else "The decision log is unreachable"
                outcome.set_error(what, None if late else error)
        else:
            outcome.is_recorded = True
            return True
        # Without evidence nobody is approved; what approves nobody may leave, and what was recorded before.
        return self.on_failure == "decide" or decision.verdict != "approve" or redelivered

    def finish(self, outcome: OutcomeBuilder, *, host: Deadline | None) -> Flow[None]:
        """Record what became of a delivery: the completion of its record, or that nobody was asked.

        If the log cannot be written, and the outcome has no error, it gets one.

        Args:
            outcome: The delivery, which has ended.
            host: The deadline of a host that ends the call; None without one.
        """
        # A host that ends the call may freeze the process then, and what waits would never be written.
        if host is None and outcome.is_recorded and self._hand_over(outcome):
            return
        entries = self._last_words(outcome)
        if not entries:
            return
        seconds = _COMPLETING if host is None else min(_COMPLETING, host.remaining())
        try:
            yield self._append(entries, Deadline.after(seconds, clock=self.clock))
        except Exception as error:  # noqa: BLE001 - a log may raise anything, and the answer has left
            self._lost(outcome, error)

    def finish_interrupted(self, outcome: OutcomeBuilder, *, may_wait: bool) -> Flow[None]:
        """Record what became of a delivery that was interrupted, perhaps before there was a decision.

        Args:
            outcome: The delivery.
            may_wait: Whether effects can still be yielded, for a log that may block.
        """
        # What `finish` was writing is written; and anybody can send what was not verified, or has no request_uid.
        is_new = outcome.kind == "cancelled" and outcome.request_uid is not None
        if (is_new or outcome.record is not None) and not self._hand_over(outcome) and may_wait:
            yield from self.finish(outcome, host=None)

    def _hand_over(self, outcome: OutcomeBuilder) -> bool:
        """Hand over the last words about a delivery, without waiting; return whether the log takes them so."""
        if self._queue is None:
            return False
        try:
            for entry in self._last_words(outcome):
                self._queue.complete(entry, partial(self.on_lost, outcome.request_uid))
        except Exception as error:  # noqa: BLE001 - a log may raise anything, and the answer has left
            self._lost(outcome, error)
        return True

    def _lost(self, outcome: OutcomeBuilder, error: Exception) -> None:
        if outcome.error is None:
            outcome.set_error(f"The decision log lost what became of it: {exception_name(error)}")
        else:  # which says something else
            self.on_lost(outcome.request_uid, error)

    def _append(
        self,
        entries: Sequence[DecisionRecord | Completion],
        within: Deadline,
        meanwhile: Callable[[], Flow[None]] | None = None,
        every: float = float("inf"),
    ) -> Ask:
        if self._queue is None:
            return Ask(self.log.append, (entries,), within, "log", meanwhile=meanwhile, every=every)
        return Ask(self._queue.submit, (entries,), within, "future", meanwhile=meanwhile, every=every)

    def _completion(self, outcome: OutcomeBuilder, record: DecisionRecord) -> Completion:
        return Completion(
            at=self._now(),
            completes=record.id,
            kind=outcome.kind,
            told=outcome.told,
            taken=outcome.taken,
            error=outcome.error,
            seconds=_all_seconds(outcome),
        )

    def _last_words(self, outcome: OutcomeBuilder) -> Sequence[DecisionRecord | Completion]:
        if outcome.record is not None:
            completion = self._completion(outcome, outcome.record)
            # A log that was down may be there again.
            return [completion] if outcome.is_recorded else [outcome.record, completion]
        if outcome.kind == "duplicate" or outcome.status in _UNREAD:
            return ()
        left_out = 0
        if outcome.kind == "forged":
            if not self._forged.admit(self.clock()):
                return ()
            left_out = self._forged.take()
        return [
            DecisionRecord(
                at=self._now(),
                flow="triggered",
                kind=outcome.kind,
                subject=outcome.subject,
                request_uid=outcome.request_uid,
                evidence={"forged_requests_not_recorded": left_out} if left_out else {},
                error=outcome.error,
                seconds=_all_seconds(outcome),
            ),
        ]

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.wall_clock(), UTC)


def _all_seconds(outcome: OutcomeBuilder) -> dict[str, float]:
    seconds = outcome.stages
    seconds["total"] = outcome.total
    return seconds
