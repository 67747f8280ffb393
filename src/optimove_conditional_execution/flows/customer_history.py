"""What the journal of a review knows of single customers, from its batches in order."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from typing import Final

from .journal import DecidedBatch

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
