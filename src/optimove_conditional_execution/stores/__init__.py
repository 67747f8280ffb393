"""Where the SDK remembers: who answers which notification, and how far the review of a campaign has got.

`MemoryClaims` and `MemoryJournal` serve one process, `SqliteClaims` and `SqliteJournal` several on one machine. For
several machines implement `ClaimStore` and `Journal` over your own database.
"""

from optimove_conditional_execution.flows.claims import Claim, ClaimState, ClaimStore
from optimove_conditional_execution.flows.journal import Decided, Journal, Kept
from optimove_conditional_execution.stores.memory import MemoryClaims
from optimove_conditional_execution.stores.memory_journal import MemoryJournal
from optimove_conditional_execution.stores.sqlite import SqliteClaims
from optimove_conditional_execution.stores.sqlite_journal import SqliteJournal

__all__ = [
    "Claim",
    "ClaimState",
    "ClaimStore",
    "Decided",
    "Journal",
    "Kept",
    "MemoryClaims",
    "MemoryJournal",
    "SqliteClaims",
    "SqliteJournal",
]
