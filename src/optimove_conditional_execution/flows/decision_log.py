"""The decision log: why each customer got a campaign or did not. The protocol, and its values.

Not the journal: that lets a review go on after a crash, and is pruned when the review is done. The log is evidence.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from itertools import chain, count, repeat
from typing import Any, Final, Literal, Protocol, cast, final, overload, runtime_checkable

from ..errors import ConfigurationError
from ..handlers import Verdict
from ..validation import is_async
from .subject import UNKNOWN
from .subject import Subject as Subject

CampaignFlow = Literal["triggered", "scheduled"]
Told = Literal["approved", "denied", "nothing"]
OnLogFailure = Literal["refuse", "decide"]

PLACE_DIGITS: Final = 9
"""With which the ids of a review's records end: the place in the run."""


def record_id(at: datetime) -> str:
    """Return a random id for a record. Ids of about the same time are neighbours, as an index of them likes it."""
    return f"{round(at.timestamp() * 1e6):014x}{secrets.token_hex(9)}"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """One decision about one customer, or a request about which nobody was asked. The repr shows no personal data.

    It is written before the answer leaves; what became of the answer is in a `Completion`.

    Attributes:
        id: Identifies the record; a random one by default.
        at: When it was decided, in UTC.
        flow: `"triggered"` or `"scheduled"`.
        kind: `approved`, `denied`, `abstained`, or why nobody decided: a kind of `Outcome`, such as `failed`, `late`,
            `forged`, `expired` or `overloaded`; for a review also `not_reached`, `skipped` for the control group, and
            `confirmed` when it asked again, about further rows, and the earlier decision stands, whatever the verdict.
            `shadow`: what a shadow said beside the real decision, which has a record of its own.
        subject: The customer and the campaign.
        request_uid: The notification's `request_uid`; None for a scheduled campaign.
        event_key: The event's `CampaignReadyEvent.key`; None for a triggered campaign.
        number: The number of the status in the review's journal, as in `Journal`: from 0 when approved, from 2**62 when
            denied. None for a triggered campaign, and when there is no status.
        verdict: What was decided; after a failure what `on_failure` says. None when there is no decision.
        reason: The handler's words.
        evidence: What the handler gave as `Decision.evidence`.
        additional_data: What Optimove was to be sent along with the answer.
        redelivered: Whether this is the answer of an earlier delivery, given again.
        error: What went wrong, in words that hold no personal data; None when nothing did.
        seconds: How long each stage took until now, by name, such as `decide`.
        payload: What was asked: the notification's raw body, or for a review JSON of the event and the customer's rows.
            Only a log whose `keep_payloads` is true gets it, and only for what was decided.
        observed: An answer that does not count, as the kind that it would have led to: a shadow's, or with
            `observe=True` the handler's own, or the reviewer's. None without one.
        decided: With kind `shadow`: what the real answer led to, as a kind.
        switch: What the kill switch said, when it answered in place of the rule: `"deny"`, `"abstain"`, or `"failed"`
            when it could not be looked at. None when the decision is the rule's.
    """

    id: str = field(default_factory=lambda: secrets.token_hex(16))
    at: datetime
    flow: CampaignFlow
    kind: str
    subject: Subject = UNKNOWN
    request_uid: str | None = None
    event_key: str | None = None
    number: int | None = None
    verdict: Verdict | None = None
    reason: str | None = field(default=None, repr=False)
    evidence: Mapping[str, Any] = field(default_factory=dict, repr=False)
    additional_data: Mapping[str, Any] = field(default_factory=dict, repr=False)
    redelivered: bool = False
    error: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    payload: bytes | None = field(default=None, repr=False)
    observed: str | None = None
    decided: str | None = None
    switch: str | None = None

    @property
    def differs(self) -> bool:
        """Whether an answer that does not count would have led to something else than the one that does."""
        return self.observed is not None and self.observed != (self.decided or self.kind)


@final
@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RecordGroup:
    """Records of a review that have most in common; it costs much less than a record for each. The repr shows none.

    Attributes:
        common: What they have in common. Its id is what their ids begin with; then comes the place in the run.
        first: The place of the first one.
        customers: The customers' ids.
        subjects: What was asked about each, without its id.
        reasons: The reviewer's words, by id.
        evidence: What its decisions rest on, by id.
        others: Returns what else is different about a customer, by attributes of `DecisionRecord`; None for nothing.
    """

    common: DecisionRecord
    first: int
    customers: Sequence[str]
    subjects: Sequence[Subject]
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    evidence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    others: Callable[[str], Mapping[str, Any]] | None = None

    def ids(self, step: int = 1) -> Iterator[str]:
        """Yield the ids of the records, or of each so-and-so-many-th."""
        prefix, end = self.common.id, self.first + len(self.customers)
        return (f"{prefix}{place:0{PLACE_DIGITS}}" for place in range(self.first, end, step))

    def __iter__(self) -> Iterator[DecisionRecord]:
        # The numbers of a group's statuses follow each other.
        numbers: Iterable[int | None] = repeat(None) if self.common.number is None else count(self.common.number)
        for ident, number, name, subject in zip(self.ids(), numbers, self.customers, self.subjects, strict=False):
            yield replace(
                self.common,
                id=ident,
                number=number,
                subject=replace(subject, customer_id=name),
                reason=self.reasons.get(name),
                evidence=self.evidence.get(name, {}),
                **({} if self.others is None else self.others(name)),
            )


@final
class RecordGroups(Sequence[DecisionRecord]):
    """The records of groups; each is made when it is asked for."""

    def __init__(self, groups: Sequence[RecordGroup]) -> None:
        """Take the groups."""
        self.groups: Final = groups

    def __len__(self) -> int:
        return sum(len(group.customers) for group in self.groups)

    def __iter__(self) -> Iterator[DecisionRecord]:
        return chain.from_iterable(self.groups)

    @overload
    def __getitem__(self, index: int) -> DecisionRecord: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[DecisionRecord]: ...
    def __getitem__(self, index: int | slice) -> DecisionRecord | Sequence[DecisionRecord]:
        return list(self)[index]


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What became of decisions that were recorded before. It holds no personal data.

    Attributes:
        at: When that was known, in UTC.
        completes: The `DecisionRecord.id`; for a scheduled campaign the event's key, and `numbers` says which.
        numbers: The range `(start, end)` of the numbers of statuses; None for a single record.
        kind: The kind of the final `Outcome`, such as `approved` or `undelivered`. For a review: `acknowledged`,
            `undelivered`, `revoked` for approvals that were not sent, since a later answer about the customer was no,
            or `discarded` for decisions that a crash kept out of the journal: they were never sent, and their customers
            are asked about again under the same numbers.
        told: What was sent to Optimove: `"approved"`, `"denied"` or `"nothing"`; None when each was told what its
            record says, or may have been.
        taken: Whether Optimove accepted it with a 2xx. None when nothing was sent, or it is not known.
        error: What went wrong, in words that hold no personal data; None when nothing did.
        seconds: How long each stage took, by name, such as `deliver`.
    """

    at: datetime
    completes: str
    numbers: tuple[int, int] | None = None
    kind: str
    told: Told | None = None
    taken: bool | None = None
    error: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDecision:
    """A decision as the log holds it.

    Attributes:
        entry: Its number in the log.
        record: What was recorded before the answer left.
        completion: What became of it; None while the answer is on its way, and when the process ended before it was
            known.
        erased: Whether the personal part was erased.
        sealed: Whether it has a payload that the keys which the log was given do not decrypt.
        foreign: Whether its customer was recorded with another `identify=` than the log was given, so that the log does
            not find the customer by the id.
    """

    entry: int
    record: DecisionRecord
    completion: Completion | None = None
    erased: bool = False
    sealed: bool = False
    foreign: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object: the record and its subject without the payload, and the completion in its own."""
        record = self.record
        names = [each.name for each in fields(DecisionRecord) if each.name not in ("subject", "payload")]
        told = {name: getattr(record, name) for name in names}
        subject = {each.name: getattr(record.subject, each.name) for each in fields(Subject)}
        done: dict[str, Any] | None = None
        if self.completion is not None:
            wanted = [each.name for each in fields(Completion) if each.name not in ("completes", "numbers")]
            done = {name: getattr(self.completion, name) for name in wanted}
            done |= {"at": self.completion.at.isoformat(), "seconds": dict(self.completion.seconds)}
        return {
            "entry": self.entry,
            **told,
            **subject,
            "at": record.at.isoformat(),
            "channels": list(record.subject.channels),
            "promotions": list(record.subject.promotions),
            "evidence": dict(record.evidence),
            "additional_data": dict(record.additional_data),
            "seconds": dict(record.seconds),
            "erased": self.erased,
            "completion": done,
        }


@runtime_checkable
class DecisionLog(Protocol):
    """A decision log. With one method it can be anything that keeps records: a table, a queue, a log of yours.

    `append` is a plain function, called from several threads, and may block on a disk or a network: receivers and
    reviews call it in a pool, with a deadline. Whatever it raises counts as "unreachable", and then nothing is
    approved, unless `on_log_failure` says otherwise.

    A log that has an attribute `keep_payloads`, which is true, gets records with their `payload`.
    """

    def append(self, entries: Sequence[DecisionRecord | Completion], /) -> None:
        """Append entries in order, all or none; they are safe when this returns.

        Called again with the same record, because a reply was lost, it must not add a second one: `DecisionRecord.id`
        tells. A `Completion` may stand twice.

        Args:
            entries: A few for a receiver, up to a batch of customers for a review.
        """
        ...


class QueuedLog(DecisionLog, Protocol):
    """A decision log that also takes entries without blocking; receivers use that, and need no thread then.

    Attributes:
        instant: Whether `submit` never blocks, not even in a function of the user's.
    """

    instant: bool

    def submit(self, entries: Sequence[DecisionRecord | Completion], /) -> Any:
        """Append entries as `append` does, and return at once; entries of the same time are written together.

        Args:
            entries: A few.

        Returns:
            A `concurrent.futures.Future`, in an event loop an `asyncio.Future` of it: they are safe when it is done.
        """
        ...

    def complete(self, entry: DecisionRecord | Completion, on_lost: Callable[[Exception], object], /) -> None:
        """Append a completion, or another entry for which nobody waits, soon: it may wait a moment for others.

        Args:
            entry: The entry.
            on_lost: Called in any thread with what was raised, if it was not appended.
        """
        ...


def queue_of(log: DecisionLog) -> QueuedLog | None:
    """Return a log that takes entries without blocking; None when it may block."""
    # By its type: whoever wraps a log, and passes all else on, would be passed by.
    is_queued = callable(getattr(type(log), "submit", None))
    return cast("QueuedLog", log) if is_queued and getattr(log, "instant", False) is True else None


def keeps_payloads(log: object) -> bool:
    """Return whether a log is to get payloads."""
    return getattr(log, "keep_payloads", False) is True


def check_log(decision_log: object, on_log_failure: object) -> None:
    """Reject a log that cannot be called, and a setting that is invalid.

    Raises:
        ConfigurationError: One is; the message says what to pass.
    """
    if decision_log is not None and not isinstance(decision_log, DecisionLog):
        raise ConfigurationError("decision_log must be a DecisionLog, such as stores.SqliteDecisionLog(path).")
    if is_async(getattr(decision_log, "append", None)):
        raise ConfigurationError("decision_log.append must be a plain function; it is called in a thread.")
    if on_log_failure not in ("refuse", "decide"):
        raise ConfigurationError(
            'on_log_failure must be "refuse" (an approval is not sent) or "decide" (it is, without a record).'
        )
