"""The commands of the tutorial do what it shows."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.conftest import free_port
from tests.docs.pages import DOCS, Block, blocks

PAGE = DOCS / "tutorial" / "first-gate.md"


def timeless(line: str) -> str:
    return re.sub(r"\d+ (of \d+ )?ms", "some ms", line)


def test_the_one_line_that_rehearses_the_gate(tmp_path: Path) -> None:
    found = blocks(PAGE)
    gate = next(block for block in found if block.title == "gate.py")
    rehearsal = next(block for block in found if "optimove-ce trigger" in block.code)
    shown = next(block for block in found if block.language == "text")
    (tmp_path / "gate.py").write_text(gate.code, encoding="utf-8")
    done = subprocess.run(command_of(rehearsal), cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    # What is under way at the same time may end in another order; the page leaves out the picture.
    output = Counter(map(timeless, done.stdout.splitlines()))
    assert Counter(map(timeless, shown.code.splitlines())) - output == Counter()
    assert "Answers by latency" in done.stdout


def command_of(block: Block) -> list[str]:
    """Return the command, with this Python and a port that is free."""
    words = shlex.split(block.code.replace("8000", str(free_port())))
    assert words[0] == ".venv/bin/optimove-ce"
    python = {".venv/bin/python": sys.executable}
    return [
        sys.executable, "-m", "optimove_conditional_execution.cli", *(python.get(word, word) for word in words[1:]),
    ]  # fmt: skip


def test_its_tests_run_in_a_clone_without_the_plugins_of_this_suite(tmp_path: Path) -> None:
    for page in (PAGE, PAGE.with_name("first-review.md")):
        for block in blocks(page):
            if block.title is not None and block.title.endswith(".py"):
                (tmp_path / block.title).write_text(block.code, encoding="utf-8")
    shutil.copy(DOCS.parent / "pyproject.toml", tmp_path)
    fixture = "optimove_conditional_execution.testing.pytest_plugin"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", fixture, "test_gate.py", "test_listener.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )  # fmt: skip
    assert "3 passed" in done.stdout, done.stdout + done.stderr
