"""Records of a review in a decision log: one for each customer before its decision counts, completions after.

What the reviewer was asked about a customer, the event and the customer's rows, is the payload of the record.

A file of its own, since it says what is recorded; `review.run_log` writes it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from ..deadline import Clock
from ..handlers import Verdict
from ..models.campaign import CONTROL_GROUP, CampaignCustomer, CustomerRow
from ..models.events import CampaignReadyEvent
from .decision_log import Completion, DecisionRecord, RecordGroup, RecordGroups, Told
from .journal import FIRST_DENIAL, DecidedBatch, Ranges
from .reviewer_answer import BatchResult
from .row_sets import row_of
from .subject import Subject, text_of

_LAST_NUMBER: Final = 2**63 - 1
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), default=repr)
_LATE: Final = "The reviewer did not answer in time."


@dataclass(frozen=True, slots=True)
class Decided:
    """A batch that is about to be recorded in the journal.

    Attributes:
        batch: The batch.
        result: The reviewer's answer; None without one.
    """

    batch: DecidedBatch
    result: BatchResult | None = None

    @property
    def size(self) -> int:
        """How many customers it is about."""
        return len(self.batch.ids) + len(self.batch.skipped)


@dataclass(frozen=True, slots=True)
class Numbered:
    """A batch with the numbers that its records get.

    Attributes:
        decided: The batch.
        at: When it was decided.
        first: The number of its first record in the run.
        approval: The number of its first approval in the journal.
        denial: The number of its first denial in the journal.
    """

    decided: Decided
    at: datetime
    first: int
    approval: int
    denial: int


@dataclass(slots=True, kw_only=True)
class RunRecords:
    """Makes the entries of one run of a review.

    Attributes:
        event: The campaign.
        run: The number of the run in the journal.
        wall_clock: Seconds since 1970.
    """

    event: CampaignReadyEvent
    run: int
    wall_clock: Clock
    # A journal that was lost begins at run 1 again, and a record with an id that the log holds would not be added.
    _token: str = field(default_factory=lambda: secrets.token_hex(8))
    _count: int = 0
    _text: str = ""

    def discarded(self, approval: int, denial: int) -> list[Completion]:
        """Return that decisions from these numbers on, which the log may hold, never came into the journal.

        Args:
            approval: The number of the next approval.
            denial: The number of the next denial.
        """
        ranges = ((approval, FIRST_DENIAL), (denial, _LAST_NUMBER))
        return self.completions(ranges, "discarded", taken=None)

    def completions(
        self, ranges: Ranges, kind: str, *, taken: bool | None, error: str | None = None, told: Told | None = None
    ) -> list[Completion]:
        """Return what became of ranges of statuses; `Completion` says what the arguments mean."""
        at, key = self._now(), self.event.key
        return [
            Completion(at=at, completes=key, numbers=each, kind=kind, told=told, taken=taken, error=error)
            for each in ranges
        ]

    def number(self, group: Sequence[Decided], approval: int, denial: int) -> list[Numbered]:
        """Number the records of batches in the order in which the journal is to record them.

        Args:
            group: The batches.
            approval: The number of the next approval.
            denial: The number of the next denial.
        """
        at = self._now()
        numbered: list[Numbered] = []
        for decided in group:
            batch = decided.batch
            numbered.append(Numbered(decided, at, self._count, approval, denial))
            self._count += decided.size
            approval += len(batch.approved)
            denial += len(batch.denied)
        return numbered

    def records(self, numbered: Numbered) -> RecordGroups:
        """Return the records of a batch: the same ones when called again, so that a retry is harmless."""
        batch, result = numbered.decided.batch, numbered.decided.result or BatchResult(frozenset())
        key = self.event.key
        # Before every id stands the run's, which no other run has.
        prefix = f"{key}/{self.run:06}-{self._token}/"
        subjects = self._subjects(batch)
        groups: list[RecordGroup] = []
        place = 0

        def add(kind: str, size: int, **given: Any) -> None:
            nonlocal place
            start, place = place, place + size
            if size:
                add_group(kind, numbered.first + start, batch.ids[start:place], subjects[start:place], **given)

        def add_group(
            kind: str,
            first: int,
            customers: Sequence[str],
            subjects: Sequence[Subject],
            group: Mapping[str, Any] = MappingProxyType({}),
            **given: Any,
        ) -> None:
            common = DecisionRecord(
                id=prefix, at=numbered.at, flow="scheduled", kind=kind, event_key=key, switch=result.switch, **given
            )
            groups.append(RecordGroup(common=common, first=first, customers=customers, subjects=subjects, **group))

        def others(name: str) -> dict[str, Any]:
            customer = result.customers.get(name)
            return {
                "payload": None if customer is None else review_payload(self._event_text(), customer),
                "observed": result.observed.get(name),
            }

        def confirmed(name: str) -> dict[str, Any]:
            return {"verdict": _said(name, result), **others(name)}

        def failure(name: str) -> dict[str, Any]:
            failed = result.failed.get(name)
            return {} if failed is None else {"error": failed.text}

        decided: dict[str, Any] = {"reasons": result.reasons, "evidence": result.evidence}
        if result.customers or result.observed:
            decided["others"] = others
        failing = {"others": failure} if result.failed else {}
        add("approved", len(batch.approved), verdict="approve", number=numbered.approval, group=decided)
        add("denied", len(batch.denied), verdict="deny", number=numbered.denial, group=decided)
        add("abstained", len(batch.abstained), verdict="abstain", group=decided)
        add("confirmed", len(batch.confirmed), group=decided | {"others": confirmed})
        add("failed", sum(map(len, batch.failed.values())), group=failing)
        add("late", len(batch.unanswered), error=_LATE, group=failing)
        add("not_reached", len(batch.not_reached), group=failing)
        if batch.skipped:
            skipped = Subject(campaign=str(self.event.campaign_id), action=str(CONTROL_GROUP))
            add_group("skipped", numbered.first + place, batch.skipped, [skipped] * len(batch.skipped))
        return RecordGroups(groups)

    def _subjects(self, batch: DecidedBatch) -> list[Subject]:
        """Return for each of `batch.ids` what it was asked about: all rows that the reviewer knew."""
        sets = [self._subject(json.loads(text)) for text in batch.row_sets]
        if batch.row_set_of:
            return [sets[index] for index in batch.row_set_of]
        return (sets[:1] or [Subject()]) * len(batch.ids)

    def _subject(self, rows: Sequence[Sequence[Any]]) -> Subject:
        return Subject(
            campaign=str(self.event.campaign_id),
            action=", ".join(_texts([action for _, action, _, _ in rows])) or None,
            channels=_texts([channel for channel, _, _, _ in rows]),
            promotions=_texts([code for *_, codes in rows for code in codes]),
        )

    def _event_text(self) -> str:
        self._text = self._text or self.event.model_dump_json(by_alias=True)
        return self._text

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self.wall_clock(), UTC)


def _said(name: str, result: BatchResult) -> Verdict:
    if name in result.approved:
        return "approve"
    return "abstain" if name in result.abstained else "deny"


def _texts(values: Sequence[object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([text for value in values if (text := text_of(value)) is not None]))


def review_payload(event: str, customer: CampaignCustomer) -> bytes:
    """Return the payload of a customer: the row that the reviewer got, then the other ones that are known.

    Args:
        event: The event as JSON text.
        customer: The customer, as the reviewer got it.
    """
    rows = [customer.model_dump(by_alias=True)]
    first = CustomerRow(*row_of(customer))
    rows += [
        {
            "CustomerID": customer.customer_id,
            "ActionID": row.action_id,
            "ChannelID": row.channel_id,
            "TemplateID": row.template_id,
            "PromoCode": row.promo_codes,
        }
        for row in customer.rows
        if row != first
    ]
    return f'{{"event":{event},"rows":{_ENCODER.encode(rows)}}}'.encode()


def read_review_payload(payload: bytes) -> tuple[CampaignReadyEvent, CampaignCustomer]:
    """Return the event, and the customer as the reviewer got it.

    Raises:
        ValueError: It is not a payload of a review.
    """
    given: dict[str, Any] = json.loads(payload)
    first, *others = [CampaignCustomer.model_validate(row) for row in given["rows"]]
    customer = first.with_rows([CustomerRow(*row_of(each)) for each in (first, *others)]) if others else first
    return CampaignReadyEvent.model_validate(given["event"]), customer
