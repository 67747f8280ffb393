"""`optimove-ce switch`: sets what the file says, and prints it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from optimove_conditional_execution.cli.app import program


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(program, ["switch", *map(str, arguments)])
    return result.exit_code, result.output


def test_it_sets_and_prints(tmp_path: Path) -> None:
    path = tmp_path / "switch"
    assert run(path, "--deny", "--campaign", 29, "--campaign", 30, "--tag", "Summer bonus") == (
        0,
        "ask\ndeny campaign 29\ndeny campaign 30\ndeny tag Summer bonus\n",
    )
    assert run(path, "--abstain")[0] == 0
    assert run(path, "--ask", "--campaign", 30)[0] == 0
    said = "abstain\ndeny campaign 29\ndeny tag Summer bonus\n"
    assert run(path) == (0, said)
    assert path.read_text() == said


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (None, [], "cannot be used: No such file"),
        ("ask\nstop\n", [], "Line 2 of the switch is invalid"),
        ("ask\nstop\n", ["--ask"], "Line 2 of the switch is invalid"),
        ("ask\n", ["--campaign", "29"], "need --deny, --abstain or --ask"),
        ("ask\n", ["--deny", "--tag", " "], "must not be empty"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: str | None, arguments: list[str], words: str) -> None:
    path = tmp_path / "switch"
    if content is not None:
        path.write_text(content)
    status, output = run(path, *arguments)
    assert status == 2
    assert words in output
    assert (path.read_text() if path.exists() else None) == content
