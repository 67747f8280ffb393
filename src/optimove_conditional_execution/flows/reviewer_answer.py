"""Reviewer answers: only ids of the batch, as strings, are approved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Final

from ..deadline import Deadline
from ..errors import OptimoveError
from ..models.campaign import CampaignCustomer


class InvalidAnswer(OptimoveError):  # noqa: N818 - a kind of failure of the reviewer's, told by name in a log
    """The reviewer's return value is not a list of customer ids."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of a batch; iterating yields the approved ids, as a reviewer's return value does.

    Attributes:
        approved: Ids of the batch that are approved.
        failed: Ids for which the decision raised.
        not_reached: Ids that were not decided about before time was up.
        unknown_ids: The number of returned ids that are not in the batch.
        reasons: Reasons of failures, each with the number of customers.
    """

    approved: Set[str]
    failed: Set[str] = frozenset()
    not_reached: Set[str] = frozenset()
    unknown_ids: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict[str, int])

    def __iter__(self) -> Iterator[str]:
        return iter(self.approved)


_LISTS: Final = (list, tuple, set, frozenset)

_MOST_ITEMS: Final = 1_000_000
"""Ids that a reviewer may return beyond ten times its batch; a generator with more counts as endless."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of customers for a reviewer.

    Attributes:
        customers: The customers, each once.
        ids: Their ids, in that order.
    """

    customers: tuple[CampaignCustomer, ...]
    ids: Sequence[str]


def parse_answer(batch: Batch, answer: object, deadline: Deadline | None = None) -> BatchResult:
    """Validate a reviewer's return value; a generator is iterated here, until the deadline at most.

    Raises:
        InvalidAnswer: It is not a list of ids, is endless, or holds only unknown ids.
        TimeoutError: The deadline passed before the generator was exhausted.
    """
    if isinstance(answer, BatchResult):  # from `per_customer`
        return answer
    if isinstance(answer, str | bytes | Mapping) or not isinstance(answer, Iterable):
        raise InvalidAnswer(
            f"The reviewer returned a {type(answer).__name__}; it must return the customer_ids that are approved."
        )
    known = frozenset(batch.ids)
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
