"""What the tests of decision logs in SQLite share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from optimove_conditional_execution.stores import SqliteDecisionLog


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a decision log."""
    return tmp_path / "decisions.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteDecisionLog]:
    """A decision log in a file."""
    with SqliteDecisionLog(path) as log:
        yield log
