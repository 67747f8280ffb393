"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

_FENCE: Final = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?P<options>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE
)
_TITLE: Final = re.compile(r'title="([^"]+)"')
_SNIPPET: Final = re.compile(r'^--8<-- "([^"]+)"$', re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, the line after its opening fence, and the file that its title names."""

    language: str
    code: str
    line: int
    title: str | None

    @property
    def snippet(self) -> str | None:
        """The path of the file that is included, if that is all there is."""
        found = _SNIPPET.fullmatch(self.code.strip())
        return found[1] if found else None


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        title = _TITLE.search(match["options"])
        line = text.count("\n", 0, match.start("code")) + 1
        found.append(Block(match["language"], textwrap.dedent(match["code"]), line, title[1] if title else None))
    return found


def without_fences(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def without_code(page: Path) -> str:
    """Return a page's prose: no fenced blocks and no code spans, which can hold what only looks like a link."""
    return re.sub(r"`[^`\n]*`", "", without_fences(page))
