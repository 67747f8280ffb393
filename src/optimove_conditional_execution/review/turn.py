"""Who runs a review: one at a time, among all threads and processes."""

from __future__ import annotations

import threading
from typing import final

from optimove_conditional_execution.flows.journal import Journal


@final
class Turn:
    """A review that is taken for one run, and given back whatever happens to the run.

    Taking can wait for a disk, in a thread that nobody can cancel. So a run that is cancelled meanwhile leaves first,
    and what is taken after that is given back at once.
    """

    def __init__(self, journal: Journal, key: str) -> None:
        self._journal = journal
        self._key = key
        self._lock = threading.Lock()
        self._taken = False
        self._left = False

    def take(self) -> bool:
        """Become the only one who runs the review; False when somebody is at it."""
        if not self._journal.take(self._key):
            return False
        with self._lock:
            self._taken = not self._left
        if not self._taken:
            self._journal.leave(self._key)
        return self._taken

    def leave(self) -> None:
        """Let somebody else run it; without effect unless it was taken."""
        with self._lock:
            self._left = True
            taken, self._taken = self._taken, False
        if taken:
            self._journal.leave(self._key)
