"""The settings that `optimove-ce init` writes for mypy: it finds a condition that lacks its await.

Run by `nox -s types`, which has mypy.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from optimove_conditional_execution.cli.tools import project

FORGOTTEN = """\
async def is_eligible(user_id: str) -> bool:
    return user_id == "C1"


async def may_receive(user_id: str) -> bool:
    if is_eligible(user_id):
        return True
    return False
"""


def checked(folder: Path) -> str:
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(folder / "cache"), "gate.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_mypy_finds_the_forgotten_await(tmp_path: Path) -> None:
    (tmp_path / "gate.py").write_text(FORGOTTEN)
    assert checked(tmp_path).startswith("Success"), "it does not by default"
    (tmp_path / "mypy.ini").write_text(project("script")["mypy.ini"])
    assert "gate.py:6: error:" in (found := checked(tmp_path))
    assert "[truthy-bool]" in found
