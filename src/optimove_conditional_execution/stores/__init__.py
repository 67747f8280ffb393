"""Where the SDK remembers: who answers which notification, and how far the review of a campaign has got.

`MemoryClaims` and `MemoryJournal` serve one process, `SqliteClaims` and `SqliteJournal` several on one machine. For
several machines implement `ClaimStore` and `Journal` over your own database.
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
