"""Which events have been handed to the integrator's code, so that a repeat is not handed over again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, final

REMEMBERED: Final = 10_000


@final
@dataclass(frozen=True, slots=True, eq=False)
class Handover:
    """An event that is being handed over.

    Attributes:
        key: The event's name.
        taken: Done when the integrator's function is: True when it returned, False when it raised.
    """

    key: str
    taken: Future[bool] = field(default_factory=lambda: Future[bool]())


@final
class Handovers:
    """The last events that were handed over, or are at it. Safe for threads."""

    def __init__(self, *, capacity: int = REMEMBERED) -> None:
        """Remember so many events at most; the oldest is forgotten first."""
        self._capacity = capacity
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Handover | None] = OrderedDict()  # None: it has been taken

    def begin(self, key: str) -> tuple[Handover | None, bool]:
        """Take an event, unless somebody has it.

        Returns:
            The handover, and whether it is ours to make; (None, False) when the event has been taken already.
        """
        with self._lock:
            if key in self._known:
                return self._known[key], False
            handover = self._known[key] = Handover(key)
            if len(self._known) > self._capacity:
                self._known.popitem(last=False)
            return handover, True

    def end(self, handover: Handover, *, taken: bool) -> None:
        """Note how a handover went; an event that was not taken is forgotten, so that a repeat is handed over."""
        with self._lock:
            # It may have been forgotten meanwhile, and have come again.
            if self._known.get(handover.key) is handover:
                if taken:
                    self._known[handover.key] = None
                else:
                    del self._known[handover.key]
            first = not handover.taken.done()
            if first:
                handover.taken.set_result(taken)

    def __len__(self) -> int:
        """Return how many events are remembered."""
        with self._lock:
            return len(self._known)
