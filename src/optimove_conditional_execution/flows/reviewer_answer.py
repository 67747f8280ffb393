"""Batches for a reviewer, and its answers: only ids of the batch, as strings, are approved."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

from ..deadline import Deadline
from ..errors import OptimoveError
from ..handlers import Decision, kind_of
from ..models.campaign import CampaignCustomer, CustomerBatch
from .effects import exception_name, original
from .known_customers import Asked


class InvalidAnswer(OptimoveError):  # noqa: N818 - a kind of failure of the reviewer's, told by name in a log
    """The reviewer's return value is not a list of customer ids."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the decision about a customer failed; it quotes no customer's data.

    Attributes:
        text: The reason in a sentence, for logs and reports.
        kind: The class of what was raised, and the HTTP status where there is one, such as `ServerError 503`.
    """

    text: str
    kind: str


@dataclass(frozen=True, slots=True, repr=False)
class BatchResult:
    """The result of a batch; iterating yields the approved ids, as a reviewer's return value does.

    Customers of the batch who are in none of the collections are denied.

    Attributes:
        approved: Ids of the batch that are approved.
        abstained: Ids that the reviewer abstained about.
        failed: Ids for which the decision failed, each with the reason.
        not_reached: Ids that were not asked about before time was up.
        unanswered: Ids that were asked about, without an answer before time was up.
        unknown_ids: The number of returned ids that are not in the batch.
        reasons: The reviewer's words, by id.
        evidence: What its decisions rest on, for the decision log alone, by id.
        customers: The customers as the reviewer got them, by id; only for a decision log that keeps payloads.
        observed: With `observe=True` what it would have said, by id, for the decision log: a kind of record.
        switch: What the kill switch said, if the answer is its own; see `DecisionRecord.switch`.
    """

    approved: Set[str]
    abstained: Set[str] = frozenset()
    failed: Mapping[str, Failure] = field(default_factory=dict[str, Failure])
    not_reached: Set[str] = frozenset()
    unanswered: Set[str] = frozenset()
    unknown_ids: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    evidence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]], repr=False)
    customers: Mapping[str, CampaignCustomer] = field(default_factory=dict[str, CampaignCustomer], repr=False)
    observed: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    switch: str | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(self.approved)

    def became(self, customer_id: str) -> Literal["approved", "denied", "abstained", "failed", "late"]:
        """Return what the answer made of a customer of the batch."""
        if customer_id in self.approved:
            return "approved"
        if customer_id in self.abstained:
            return "abstained"
        if customer_id in self.failed:
            return "failed"
        return "late" if customer_id in self.not_reached or customer_id in self.unanswered else "denied"


_LISTS: Final = (list, tuple, set, frozenset)

_MAPPING: Final = "reviewer's mapping holds a %s; it must hold"

_STATUSES: Final = (100, 599)

_MOST_ITEMS: Final = 1_000_000
"""Ids that a reviewer may return beyond ten times its batch; a generator with more counts as endless."""


@dataclass(eq=False, slots=True, repr=False)
class Batch:
    """A batch of customers for a reviewer. It shrinks to those whose decision failed, who are asked about again.

    Attributes:
        customers: The customers, each once, as the reviewer gets them.
        asked: The same customers, in that order.
    """

    customers: CustomerBatch
    asked: Asked

    def shrink_to(self, ids: Set[str], *, attempt: int) -> None:
        """Keep those customers who still need an answer.

        Args:
            ids: Their ids.
            attempt: The number of the attempt that is to give it.
        """
        before, self.asked = self.customers, self.asked.only(ids)
        left = [customer for customer in before if customer.customer_id in ids]
        self.customers = CustomerBatch(left, event=before.event, number=before.number, attempt=attempt)


def failure_of(error: BaseException, *, who: str = "reviewer") -> Failure:
    """Return the failure that an exception is; its message may hold personal data, except that of `InvalidAnswer`."""
    name = exception_name(error)
    text = str(error) if isinstance(error, InvalidAnswer) else f"The {who} raised {name}."
    status = _http_status(original(error))
    return Failure(text, name if status is None else f"{name} {status}")


def _http_status(error: BaseException) -> int | None:
    """Return the status of an HTTP library's error: its own, or that of its response."""
    with contextlib.suppress(Exception):  # an attribute of a foreign class may raise anything
        for owner in (error, getattr(error, "response", None)):
            for name in ("status", "status_code"):
                status: object = getattr(owner, name, None)
                if type(status) is int and _STATUSES[0] <= status <= _STATUSES[1]:
                    return status
    return None


def parse_answer(ids: Sequence[str], answer: object, deadline: Deadline | None = None) -> BatchResult:
    """Validate a reviewer's return value; a generator is iterated here, until the deadline at most.

    Args:
        ids: The ids of the batch.
        answer: What the reviewer returned.
        deadline: When a generator counts as late.

    Raises:
        InvalidAnswer: It is neither a list of ids nor a mapping, is endless, or holds only unknown ids.
        TimeoutError: The deadline passed before the generator was exhausted.
    """
    if isinstance(answer, BatchResult):  # from `per_customer`
        return answer
    if isinstance(answer, Mapping):
        return parse_decisions(ids, cast("Mapping[Any, object]", answer))
    if isinstance(answer, str | bytes) or not isinstance(answer, Iterable):
        raise InvalidAnswer(
            f"The reviewer returned a {kind_of(answer)}; it must return the customer_ids that are approved, or a "
            "mapping of customer_ids to True, False or a Decision."
        )
    known = frozenset(ids)
    if type(answer) in _LISTS and (approved_ids := _fast_path(known, answer)) is not None:
        return BatchResult(approved_ids)
    approved: set[str] = set()
    unknown: Counter[str] = Counter()
    most = 10 * len(known) + _MOST_ITEMS
    for count, item in enumerate(answer):
        if deadline is not None and deadline.expired:
            raise TimeoutError
        if count >= most:
            raise InvalidAnswer(f"The reviewer returned over {most} ids; it must return those of its batch, each once.")
        if isinstance(item, CampaignCustomer):
            raise InvalidAnswer("The reviewer returned customers; it must return their customer_ids.")
        if isinstance(item, str) and item in known:
            approved.add(item)
        else:
            unknown[type(item).__name__] += 1
    if unknown and not approved:
        raise InvalidAnswer(_only_unknown_ids(unknown))
    return BatchResult(frozenset(approved), unknown_ids=unknown.total())


def parse_decisions(ids: Sequence[str], answer: Mapping[Any, object], what: str = _MAPPING) -> BatchResult:
    """Validate a mapping of ids to decisions; a `Failure` in it stands for itself.

    Args:
        ids: The ids of the batch.
        answer: The mapping; who is missing in it is denied.
        what: What to say of a value of another type, which `%s` stands for.

    Raises:
        InvalidAnswer: It is not empty, and holds only unknown ids.
    """
    approved: dict[str, None] = {}
    abstained: dict[str, None] = {}
    failed: dict[str, Failure] = {}
    reasons: dict[str, str] = {}
    evidence: dict[str, Mapping[str, Any]] = {}
    found = 0
    for name in ids:
        if name not in answer:
            continue
        found += 1
        value = answer[name]
        if isinstance(value, Decision):
            if value.reason is not None:
                reasons[name] = str(value.reason)
            if value.evidence:
                evidence[name] = value.evidence
            if value.verdict == "abstain":
                abstained[name] = None
            value = value.verdict == "approve"
        if value is True:
            approved[name] = None
        elif isinstance(value, Failure):
            failed[name] = value
        elif value is not False:
            failed[name] = Failure(f"The {what % kind_of(value)} True, False or a Decision.", InvalidAnswer.__name__)
    if not found and len(answer):
        raise InvalidAnswer(_only_unknown_ids(Counter(type(key).__name__ for key in answer)))
    return BatchResult(
        approved.keys(),
        abstained.keys(),
        failed,
        unknown_ids=max(0, len(answer) - found),
        reasons=reasons,
        evidence=evidence,
    )


def _only_unknown_ids(kinds: Counter[str]) -> str:
    (kind, _), *others = kinds.most_common()
    told = f"values of type {kind}{' and others' if others else ''}" if kind != "str" or others else "other strings"
    return (
        f"Nothing that the reviewer returned is in its batch: it returned {told}. Of the customers of the batch, "
        "return customer_id, which is a str, unchanged."
    )


def _fast_path(known: frozenset[str], answer: Iterable[object]) -> frozenset[str] | None:
    """Handle the usual case, only ids of the batch, without a loop in Python."""
    try:
        approved = frozenset(answer)
    except TypeError:  # an unhashable item
        return None
    return known & approved if approved <= known else None
