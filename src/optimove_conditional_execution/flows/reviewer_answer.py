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
    """The reviewer returned something that is no list of customer ids."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The answer to a batch; iterated over it gives the ids approved, as what a reviewer returns does.

    Attributes:
        approved: Ids of the batch that are approved.
        failed: Ids for which the decision raised.
        not_reached: Ids that were not asked about before time was up.
        unknown_ids: How many ids were returned that are not in the batch.
        reasons: Why those failed that did: a sentence, and how many it is about.
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
"""What a reviewer may return beyond ten times its batch; a generator that goes on has no end."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Customers that a reviewer gets at once.

    Attributes:
        customers: The customers, each once.
        ids: Their ids, in that order.
    """

    customers: tuple[CampaignCustomer, ...]
    ids: Sequence[str]


def parse_answer(batch: Batch, answer: object, deadline: Deadline | None = None) -> BatchResult:
    """Read a reviewer's answer; a generator runs on in here, until the deadline at most.

    Raises:
        InvalidAnswer: It is none, has no end, or holds unknown ids alone.
        TimeoutError: The deadline has passed before the answer was read.
    """
    if isinstance(answer, BatchResult):  # of `per_customer`
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
        raise InvalidAnswer(_nobody_known(unknown))
    return BatchResult(frozenset(approved), unknown_ids=unknown.total())


def _nobody_known(kinds: Counter[str]) -> str:
    (kind, _), *others = kinds.most_common()
    told = f"values of type {kind}{' and others' if others else ''}" if kind != "str" or others else "other strings"
    return (
        f"Nothing that the reviewer returned stands in its batch: it returned {told}. Of the customers of the batch, "
        "return customer_id, which is a str, as it came."
    )


def _fast_path(known: frozenset[str], answer: Iterable[object]) -> frozenset[str] | None:
    """Return what most reviewers return, ids of the batch and nothing else, without a step of Python for each."""
    try:
        approved = frozenset(answer)
    except TypeError:  # one cannot be hashed
        return None
    return known & approved if approved <= known else None
