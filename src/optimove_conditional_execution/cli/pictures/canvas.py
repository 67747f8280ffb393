"""A grid of characters to draw on."""

from __future__ import annotations

import itertools
import operator
from typing import final

from rich.text import Text


@final
class Canvas:
    """Characters with styles. Whatever does not fit is cut off."""

    def __init__(self, width: int, height: int) -> None:
        """Make an empty one.

        Args:
            width: Characters of a line.
            height: Lines.
        """
        self._width = width
        self._rows: list[list[tuple[str, str]]] = [[(" ", "")] * width for _ in range(height)]

    def put(self, row: int, column: int, text: str, style: str = "") -> None:
        """Write something.

        Args:
            row: From 0, at the top.
            column: From 0, of its first character.
            text: One line.
            style: In rich's words.
        """
        for at, character in enumerate(text, start=column):
            if 0 <= at < self._width:
                self._rows[row][at] = (character, style)

    def lines(self) -> list[str]:
        """Return the lines as plain text, without blanks at their ends."""
        return ["".join(character for character, _ in row).rstrip() for row in self._rows]

    def rich(self) -> Text:
        """Return it with its styles, for a terminal."""
        text = Text(no_wrap=True, overflow="crop")
        for index, (row, line) in enumerate(zip(self._rows, self.lines(), strict=True)):
            for style, run in itertools.groupby(row[: len(line)], key=operator.itemgetter(1)):
                text.append("".join(character for character, _ in run), style or None)
            if index + 1 < len(self._rows):
                text.append("\n")
        return text
