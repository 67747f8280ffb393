"""Where the SDK remembers: who answers which notification.

`MemoryClaims` serves one process, `SqliteClaims` several on one machine. For several machines implement `ClaimStore`
over your own database.
"""

from optimove_conditional_execution.flows.claims import Claim, ClaimState, ClaimStore
from optimove_conditional_execution.stores.memory import MemoryClaims
from optimove_conditional_execution.stores.sqlite import SqliteClaims

__all__ = ["Claim", "ClaimState", "ClaimStore", "MemoryClaims", "SqliteClaims"]
