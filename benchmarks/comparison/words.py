"""What stands in a cell, and what is written into logs meanwhile."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

KEY: Final = "an-api-key-that-nobody-may-see"
SECRET: Final = "a-secret-that-nobody-may-see"
NOT_ITS_JOB: Final = "-"


@dataclass(frozen=True)
class Table:
    """One table of the page.

    Attributes:
        title: What is compared.
        columns: The alternatives.
        rows: The features, and a cell for each alternative.
    """

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[str]]

    def __str__(self) -> str:
        """Return it as Markdown."""
        lines = [f"| {self.title} | {' | '.join(self.columns)} |", "| --- |" + " --- |" * len(self.columns)]
        lines += [f"| {row} | {' | '.join(cells)} |" for row, cells in self.rows.items()]
        return "\n".join(lines)


def word(answer: bool | str) -> str:
    """Return a cell."""
    return answer if isinstance(answer, str) else "yes" if answer else "no"


class _Everything(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    """Yield all that is logged meanwhile, from level DEBUG on, tracebacks included."""
    root, handler = logging.getLogger(), _Everything()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler.texts
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
