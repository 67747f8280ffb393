"""The one command of each example: the last paragraph of its docstring."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

from tests.adapters.servers import ROOT

EXAMPLES: Final = ROOT / "examples"
ALL: Final = sorted(path.name for path in EXAMPLES.glob("**/*.py") if path.parent.name != "compose")


def docstring(name: str) -> str:
    return ast.get_docstring(ast.parse((EXAMPLES / name).read_text("utf-8"))) or ""


def command_of(name: str) -> str:
    """Return it in one line, as a shell would join it."""
    return " ".join(docstring(name).split("\n\n")[-1].replace("\\\n", "").split())


def the_table() -> dict[str, str]:
    """Return the commands of the README's tables, by file."""
    lines = (EXAMPLES / "README.md").read_text("utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| [`")]
    return {Path(file.rpartition("(")[2].rstrip(")")).name: command.strip("`") for file, _, command in rows}
