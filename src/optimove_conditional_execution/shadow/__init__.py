"""A shadow: a second handler or reviewer, whose answer is recorded and never counts."""

from typing import TYPE_CHECKING, Final

from .._lazy import attach

if TYPE_CHECKING:
    from .asked import AskedBatch, AskedNotification, ShadowAnswer
    from .shadow import Shadow, as_shadow

__all__ = ["AskedBatch", "AskedNotification", "Shadow", "ShadowAnswer", "as_shadow"]

_PLACES: Final = {
    "asked": ("AskedBatch", "AskedNotification", "ShadowAnswer"),
    "shadow": ("Shadow", "as_shadow"),
}

if not TYPE_CHECKING:  # a __getattr__ would let type checkers accept every name
    __getattr__, __dir__, _MODULES = attach(__name__, _PLACES)
