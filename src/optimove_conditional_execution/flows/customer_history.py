"""What the journal of a review knows of single customers, from its batches in order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from operator import itemgetter
from typing import Any, Final, Literal, cast

from ..models.events import CampaignReadyEvent
from .journal import FIRST_DENIAL, DecidedBatch, Entry, Ranges, ReviewState, StatusUpdate
from .ledger import Ledger
from .report import ReviewReport

NO_ANSWER: Final = "no answer"

_TOO_LATE: Final = "TimeoutError"
"""The kind of failure of those whose answer did not come within `batch_timeout`, or who waited for a register."""


def unanswered(batches: Iterable[DecidedBatch]) -> dict[str, str]:
    """Return the customers whom the reviewer was asked about, and has never answered about since.

    Args:
        batches: Those of one review, in the order of the journal.

    Returns:
        By id, in the order in which they were first asked about, why there was no answer: `no answer` when time was up,
        `TimeoutError` when the reviewer was too slow for `batch_timeout`, or raised that itself.
    """
    found: dict[str, str] = {}
    for batch in batches:
        for name in chain(batch.approved, batch.denied, batch.abstained, batch.confirmed) if found else ():
            found.pop(name, None)
        found.update(dict.fromkeys(batch.unanswered, NO_ANSWER))
        found.update(dict.fromkeys(batch.failed.get(_TOO_LATE, ()), _TOO_LATE))
    return found


def approvals(
    event: CampaignReadyEvent, batches: Iterable[DecidedBatch], acknowledged: Ranges
) -> Iterator[tuple[Sequence[str], bool]]:
    """Yield the customers whom a review approved, after all its answers, and whether Optimove acknowledged it.

    Args:
        event: The campaign.
        batches: Those of the review, in the order of the journal.
        acknowledged: From `Journal.acknowledged`.
    """
    ledger = _replayed(event, acknowledged)
    end = 0
    for batch in batches:
        ledger.restore(batch)
        start, end = end, end + len(batch.approved)
        if told := [batch.approved[number - start] for number in _within(acknowledged, start, end)]:
            yield told, True
    ledger.send_all()
    while (chunk := ledger.next_chunk()) is not None:
        yield chunk.ids, False


def _replayed(event: CampaignReadyEvent, acknowledged: Ranges) -> Ledger:
    # What a run that goes on with the review would know.
    return Ledger(event=event, chunk_size=1_000, report_denied=False, skip_control_group=True, taken=acknowledged)


def _within(ranges: Ranges, start: int, end: int) -> Iterator[int]:
    """Yield the numbers from `start` to `end` that are in ranges, which are in order."""
    for index in range(bisect_left(ranges, start, key=itemgetter(1)), len(ranges)):
        low, high = ranges[index]
        if low >= end:
            return
        yield from range(max(low, start), min(high, end))


Standing = Literal[
    "approved", "denied", "abstained", "failed", "unanswered", "not_reached", "skipped", "not_in_campaign", "unknown"
]


@dataclass(frozen=True, slots=True)
class Step:
    """What happened to one customer in a review.

    Attributes:
        what: A field of `DecidedBatch` such as `approved`; `released` when approvals became final; or `acknowledged`.
        number: The number of the batch in the review, or of the status update, from 1; None for `released`, and for an
            update that the journal has not recorded.
        at: When, in seconds since 1970; None when the journal has not recorded it.
        reason: The reviewer's words, or why a decision failed.
    """

    what: str
    number: int | None = None
    at: float | None = None
    reason: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class CustomerReview:
    """What the journal of a review knows of one customer.

    Attributes:
        event: The campaign.
        standing: What became of the customer in the end. `not_in_campaign` when every customer was read, and this one
            was not among them; `unknown` when not every customer was read, or decided about, yet.
        acknowledged: Whether Optimove acknowledged the customer's status.
        steps: What happened, in order.
    """

    event: CampaignReadyEvent
    standing: Standing
    acknowledged: bool
    steps: tuple[Step, ...] = field(repr=False)

    @property
    def reason(self) -> str | None:
        """The reviewer's words, or why the decision failed, of the last step that led to the standing and has some."""
        reasons = [step.reason for step in self.steps if step.what == self.standing and step.reason is not None]
        return reasons[-1] if reasons else None

    def as_json(self) -> dict[str, Any]:
        """Return it as a JSON object; times in seconds since 1970."""
        return {
            "campaign_id": self.event.campaign_id,
            "clearance_required_by": self.event.clearance_required_by.isoformat(sep=" "),
            "standing": self.standing,
            "reason": self.reason,
            "acknowledged": self.acknowledged,
            "steps": list(map(asdict, self.steps)),
        }


def explain(state: ReviewState, history: Iterable[Entry], acknowledged: Ranges, customer_id: str) -> CustomerReview:
    """Say what became of one customer in a review.

    Args:
        state: The review.
        history: From `JournalHistory.history`; or `Journal.batches`, and then no update has a number or a time.
        acknowledged: From `Journal.acknowledged`.
        customer_id: The customer.
    """
    steps: list[Step] = []
    mine: list[DecidedBatch] = []
    numbers: list[int] = []
    ends = {"approved": 0, "denied": FIRST_DENIAL}
    batches = updates = 0
    for entry in history:
        if isinstance(entry, StatusUpdate):
            updates += 1
            if any(list(_within(entry.ranges, number, number + 1)) for number in numbers):
                steps.append(Step("acknowledged", updates, entry.at))
            continue
        if entry.released is not None:
            mine.append(entry)
            if steps:
                steps.append(Step("released", at=entry.at))
            continue
        batches += 1
        found = _of_one(entry, customer_id)
        if found is not None:
            what, about, reason = found
            mine.append(about)
            steps.append(Step(what, batches, entry.at, reason))
            if what in ends:
                numbers.append(ends[what] + getattr(entry, what).index(customer_id))
        for what in ends:
            ends[what] += len(getattr(entry, what))
    is_told = any(list(_within(acknowledged, number, number + 1)) for number in numbers)
    if is_told and not any(step.what == "acknowledged" for step in steps):
        steps.append(Step("acknowledged"))
    return CustomerReview(state.event, _standing(state, mine, steps, is_told=is_told), is_told, tuple(steps))


def _of_one(batch: DecidedBatch, name: str) -> tuple[str, DecidedBatch, str | None] | None:
    """Return in which field of a batch a customer is, the batch without all others, and the reason."""
    only = (name,)
    if name in batch.skipped:
        return "skipped", DecidedBatch(skipped=only), None
    where = next((what for what in _ANSWERS if name in getattr(batch, what)), None)
    kind = next((kind for kind, names in batch.failed.items() if name in names), None)
    if where is None and kind is None:
        return None
    row_set = batch.row_set_of[batch.ids.index(name)] if batch.row_set_of else 0
    about = {
        **({"failed": {kind: only}} if where is None else {where: only}),
        "revoked": only if name in batch.revoked else (),
        "row_sets": batch.row_sets[row_set : row_set + 1],
    }
    return where or "failed", DecidedBatch.from_values(about), batch.reasons.get(name) or kind


_ANSWERS: Final = ("approved", "denied", "abstained", "confirmed", "unanswered", "not_reached")


def _standing(state: ReviewState, batches: Sequence[DecidedBatch], steps: Sequence[Step], *, is_told: bool) -> Standing:
    if not steps:
        is_complete = state.finished and state.report is not None and ReviewReport.from_json(state.report).complete
        return "not_in_campaign" if is_complete else "unknown"
    # By the rules of a run that goes on with the review: of several rows, one no is a no.
    is_approved = is_told and any(batch.approved for batch in batches)
    ledger = _replayed(state.event, ((0, 1),) if is_approved else ())
    for batch in batches:
        ledger.restore(batch)
    found = [standing for standing in ("approved", "abstained", "denied", "failed") if getattr(ledger, standing)]
    found += [step.what for step in reversed(steps) if step.what in ("unanswered", "not_reached", "skipped")]
    return cast("Standing", found[0]) if found else "unknown"
