"""Stores: claims on notifications, journals of reviews, and decision logs.

`MemoryClaims` and `MemoryJournal` are for one process, `SqliteClaims` and `SqliteJournal` for several on one machine.
For several machines there are `stores.redis.RedisClaims`, `stores.postgres.PostgresClaims` and
`stores.postgres.PostgresJournal`, with the extras `redis` and `postgres`; or implement `ClaimStore`, `Journal` and
`DecisionLog` over your own database. `SqliteDecisionLog` and `stores.postgres.PostgresDecisionLog` are the evidence of
what was decided.
"""

from typing import TYPE_CHECKING, Final

from .._lazy import attach

if TYPE_CHECKING:
    from ..flows.claims import Claim, ClaimState, ClaimStore
    from ..flows.decision_log import Completion, DecisionLog, DecisionRecord, LoggedDecision
    from ..flows.journal import DecidedBatch, Journal, JournalHistory, OpenReview, ReviewState, StatusUpdate
    from ..flows.subject import Subject
    from .claims import MemoryClaims, SqliteClaims
    from .decisions import SqliteDecisionLog
    from .hash_chain import ChainFault
    from .journals import MemoryJournal, SqliteJournal

__all__ = [
    "ChainFault",
    "Claim",
    "ClaimState",
    "ClaimStore",
    "Completion",
    "DecidedBatch",
    "DecisionLog",
    "DecisionRecord",
    "Journal",
    "JournalHistory",
    "LoggedDecision",
    "MemoryClaims",
    "MemoryJournal",
    "OpenReview",
    "ReviewState",
    "SqliteClaims",
    "SqliteDecisionLog",
    "SqliteJournal",
    "StatusUpdate",
    "Subject",
]

_PLACES: Final = {
    "claims": ("MemoryClaims", "SqliteClaims"),
    "decisions": ("SqliteDecisionLog",),
    "hash_chain": ("ChainFault",),
    "journals": ("MemoryJournal", "SqliteJournal"),
    ".flows.claims": ("Claim", "ClaimState", "ClaimStore"),
    ".flows.decision_log": ("Completion", "DecisionLog", "DecisionRecord", "LoggedDecision"),
    ".flows.journal": ("DecidedBatch", "Journal", "JournalHistory", "OpenReview", "ReviewState", "StatusUpdate"),
    ".flows.subject": ("Subject",),
}

if not TYPE_CHECKING:  # a __getattr__ would let type checkers accept every name
    __getattr__, __dir__, _MODULES = attach(__name__, _PLACES)
