"""Stores: claims on notifications, and journals of reviews.

`MemoryClaims` and `MemoryJournal` are for one process, `SqliteClaims` and `SqliteJournal` for several on one machine.
`stores.redis.RedisClaims` and `stores.postgres.PostgresClaims` are for several machines, each with its own extra;
or implement `ClaimStore` and `Journal` over your own database.
"""

from ..flows.claims import Claim, ClaimState, ClaimStore
from ..flows.journal import DecidedBatch, Journal, OpenReview, ReviewState
from .claims import MemoryClaims, SqliteClaims
from .journals import MemoryJournal, SqliteJournal

__all__ = [
    "Claim",
    "ClaimState",
    "ClaimStore",
    "DecidedBatch",
    "Journal",
    "MemoryClaims",
    "MemoryJournal",
    "OpenReview",
    "ReviewState",
    "SqliteClaims",
    "SqliteJournal",
]
