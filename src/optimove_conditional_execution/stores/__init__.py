"""Stores: claims on notifications, journals of reviews, and logs of decisions.

`MemoryClaims` and `MemoryJournal` are for one process, `SqliteClaims` and `SqliteJournal` for several on one machine.
`SqliteDecisionLog` is the evidence of what was decided. `stores.redis.RedisClaims` and `stores.postgres.PostgresClaims`
are for several machines, each with its own extra; or implement `ClaimStore`, `Journal` and `DecisionLog` over your own
database.
"""

from ..flows.claims import Claim, ClaimState, ClaimStore
from ..flows.decision_log import Completion, DecisionLog, DecisionRecord, LoggedDecision, Subject
from ..flows.journal import DecidedBatch, Journal, OpenReview, ReviewState
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
    "LoggedDecision",
    "MemoryClaims",
    "MemoryJournal",
    "OpenReview",
    "ReviewState",
    "SqliteClaims",
    "SqliteDecisionLog",
    "SqliteJournal",
    "Subject",
]
