"""Group commit: threads that append at the same time share one transaction, since its end takes most of the time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ..errors import OptimoveError
from .hash_chain import Content


@dataclass(slots=True, eq=False)
class _Pending:
    """What one thread appends."""

    contents: Sequence[Content]
    done: bool = False
    error: Exception | None = None


class GroupCommit:
    """Appends entries in groups, one after another. Not to be used by a forked child; it needs another one."""

    def __init__(self, write: Callable[[Sequence[Content]], None]) -> None:
        """Take what writes a group.

        Args:
            write: Appends entries in one transaction; what it raises is raised by all threads of the group.
        """
        self._write: Final = write
        self._waiting: list[_Pending] = []
        self._queue, self._writer = threading.Lock(), threading.Lock()

    def append(self, contents: Sequence[Content]) -> None:
        """Append entries; they are safe when this returns."""
        mine = _Pending(contents)
        with self._queue:
            self._waiting.append(mine)
        with self._writer:
            if not mine.done:
                with self._queue:
                    group, self._waiting = self._waiting, []
                self._write_all(group)
        if mine.error is not None:
            raise mine.error

    def _write_all(self, group: Sequence[_Pending]) -> None:
        try:
            self._write([content for each in group for content in each.contents])
        except BaseException as error:
            for each in group:
                each.error = error if isinstance(error, Exception) else OptimoveError("Appending was interrupted.")
            if not isinstance(error, Exception):
                raise
        finally:
            for each in group:
                each.done = True
