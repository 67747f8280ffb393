"""What every picture in SVG has: a place to draw in, levels, and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from optimove_conditional_execution.cli.pictures.markup import Markup, escaped, joined, tag
from optimove_conditional_execution.cli.pictures.wording import number


@final
@dataclass(frozen=True, slots=True)
class Size:
    """How large a picture is drawn.

    Attributes:
        name: Its class in the page, which shows one size.
        width: Units; on a screen about pixels.
        height: Units of the plot, without what stands above and below.
        font: Units of its letters.
    """

    name: str
    width: float
    height: float
    font: float


WIDE: Final = Size("wide", 720, 220, 13)
NARROW: Final = Size("narrow", 330, 180, 12)
"""For telephones: a wide picture would shrink there until nobody can read it."""

LINE: Final = 18.0
"""Units from one line of text to the next."""

_LETTER: Final = 0.58
"""About the width of a letter, as a part of the font's size."""


@final
@dataclass(frozen=True, slots=True)
class Plot:
    """The place to draw in, between its levels on the left, and its labels below.

    Attributes:
        size: Of the whole picture.
        levels: Round numbers of the upright axis, from 0.
        above: Lines of text above the plot.
    """

    size: Size
    levels: tuple[float, ...]
    above: int

    @property
    def left(self) -> float:
        """Where the plot begins."""
        return self.text_width(number(self.levels[-1])) + 14

    @property
    def right(self) -> float:
        """Where it ends."""
        return self.size.width - 14

    @property
    def top(self) -> float:
        """Where its highest level is."""
        return 10 + LINE * self.above

    @property
    def bottom(self) -> float:
        """Where 0 is."""
        return self.top + self.size.height

    @property
    def height(self) -> float:
        """Of the whole picture."""
        return self.bottom + 2 * LINE + 10

    @property
    def letter(self) -> float:
        """About the width of a letter."""
        return self.size.font * _LETTER

    def text_width(self, text: str) -> float:
        """Return about how wide a text is."""
        return len(text) * self.letter

    def x(self, part: float) -> float:
        """Return where a part of the width is, from 0 to 1."""
        return self.left + part * (self.right - self.left)

    def y(self, count: float) -> float:
        """Return how high a count stands."""
        return self.bottom - count / self.levels[-1] * self.size.height

    def grid(self) -> Markup:
        """Return the levels, with their numbers."""
        return joined(
            *(
                joined(
                    self.line(self.left, self.y(level), self.right, self.y(level), "grid" if level else "axis"),
                    self.text(self.left - 8, self.y(level) + self.size.font / 3, number(level), anchor="end"),
                )
                for level in self.levels
            )
        )

    def labels(self, labels: Sequence[tuple[float, str]], below: str) -> Markup:
        """Return labels at parts of the width, and what they measure below them."""
        drawn = []
        for part, label in labels:
            at = self.x(part)
            half = self.text_width(label) / 2
            drawn.append(self.line(at, self.bottom, at, self.bottom + 4, "axis"))
            drawn.append(self.text(min(max(at, half), self.size.width - half), self.bottom + LINE, label))
        drawn.append(self.text((self.left + self.right) / 2, self.bottom + 2 * LINE, below, kind="muted"))
        return joined(*drawn)

    def mark(self, at: float, row: int, label: str, kind: str) -> Markup:
        """Return an upright line over the whole plot, with a label beside it above the plot.

        Args:
            at: Where.
            row: The line of text of the label, from 0 at the top.
            label: One that fits on neither side of the line is moved to where it is seen.
            kind: Its class.
        """
        y = 10 + LINE * row + self.size.font - 2
        wide = self.text_width(label)
        line = self.line(at, 10 + LINE * row, at, self.bottom, kind)
        if at - 6 >= wide:
            return joined(line, self.text(at - 6, y, label, anchor="end", kind=f"{kind}-label"))
        start = min(at + 6, max(0.0, self.size.width - wide))
        return joined(line, self.text(start, y, label, anchor="start", kind=f"{kind}-label"))

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
        """Return a straight line."""
        return tag("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind})

    def text(self, x: float, y: float, text: str, *, anchor: str = "middle", kind: str = "label") -> Markup:
        """Return a text."""
        return tag("text", {"x": x, "y": y, "text-anchor": anchor, "class": kind}, escaped(text))

    def band(self, start: float, end: float, kind: str) -> Markup:
        """Return a shade over the whole height, from one place to another."""
        return tag(
            "rect",
            {"x": start, "y": self.top, "width": max(0.0, end - start), "height": self.size.height, "class": kind},
        )

    def picture(self, name: str, title: str, sentence: str, *drawn: Markup) -> Markup:
        """Return the whole picture.

        Args:
            name: Unique in the page.
            title: What screen readers call it.
            sentence: What it shows, for those who cannot see it.
            drawn: What stands in it.
        """
        ids = f"{name}-{self.size.name}-title", f"{name}-{self.size.name}-desc"
        attributes: dict[str, str | float | None] = {
            "xmlns": "http://www.w3.org/2000/svg",
            "class": f"picture {self.size.name}",
            "viewBox": f"0 0 {self.size.width:g} {self.height:g}",
            "font-size": self.size.font,
            "role": "img",
            "aria-labelledby": ids[0],
            "aria-describedby": ids[1],
        }
        return tag(
            "svg",
            attributes,
            tag("title", {"id": ids[0]}, escaped(title)),
            tag("desc", {"id": ids[1]}, escaped(sentence)),
            *drawn,
        )
