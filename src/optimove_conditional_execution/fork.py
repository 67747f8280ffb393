"""Reset of connections, threads and locks in a child process after `os.fork`."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol


class Forkable(Protocol):
    """An object with resources that a child process must not share with its parent."""

    def after_fork(self) -> None:
        """Reset, in the only thread of the child: locks may be held by threads that no longer exist."""
        ...


_REGISTERED: Final[weakref.WeakSet[Forkable]] = weakref.WeakSet()


def reset_after_fork(forkable: Forkable) -> None:
    """Call `after_fork` of an object in each child process that is forked while it lives."""
    _REGISTERED.add(forkable)


def _reset() -> None:
    for forkable in list(_REGISTERED):
        forkable.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_reset)
