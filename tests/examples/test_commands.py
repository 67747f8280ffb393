"""The command that each example's docstring ends with is run to the letter, in a copy of the folder.

A shell runs those that start Python, and one of each command of `optimove-ce`; of the others, `optimove-ce` itself runs
in this process, since to start one more takes longer than what it does. What it starts are processes always.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final
from unittest import mock

import pytest
from click.testing import CliRunner

from optimove_conditional_execution.cli.app import program
from tests.adapters.servers import PATIENCE
from tests.conftest import free_port
from tests.examples.commands import ALL, command_of
from tests.examples.test_examples import SERVERS, folder

__all__ = ["folder"]

FEW: Final = {"optimove-ce trigger": "--count 4", "optimove-ce campaign": "--customers 20"}
"""What is put into a command to make it quick, beside a free port."""

HALF: Final = r"^sent +4$\n^approved +2$\n^denied +2$\n^abstained +0$"

REPORTED: Final = r"^rows +20$\n^updates +1$\n^largest update +{0}$\n^approved +{0}$\n^denied +0$\n^unknown +0$"

PRINTED: Final = {
    "fastapi_gate.py": HALF,
    "flask_gate.py": HALF,
    "django_gate.py": HALF,
    "lambda_local.py": HALF,
    "http_backend_gate.py": HALF,
    "load_shedding_gate.py": HALF,
    "evidence_gate.py": HALF,
    "production_gate.py": HALF,
    "player_service.py": r"^a player service at http://127\.0\.0\.1:\d+$",
    "script_gate.py": HALF,
    "manage_webhooks.py": r"^webhook1$",
    "fastapi_listener.py": REPORTED.format(19),
    "promo_activation.py": REPORTED.format(20),
    "compliance_review.py": r"^approved 1, denied 3, failed 0$",
    "process_pool_review.py": r"^approved 15\d\d, denied 4\d\d, complete$",
    "resume_reviews.py": r"^campaign \d+: approved 99, complete$",
}
"""What each command prints on standard output, among other lines."""

SAME: Final = {"lambda_gate.py": "lambda_local.py"}
"""Has the command of another, which runs both."""

PASS: Final = {
    "test_fastapi_gate.py": 4,
    "test_flask_gate.py": 3,
    "test_django_gate.py": 4,
    "test_lambda_gate.py": 4,
    "test_script_gate.py": 4,
}
"""How many tests each example of tests has."""

BY_A_SHELL: Final = {"fastapi_gate.py", "promo_activation.py"}
"""The commands of `optimove-ce` that a shell runs as a whole: a `trigger` and a `campaign`."""


def environment() -> dict[str, str]:
    """Return an environment in which nothing is set, neither Optimove's settings nor the examples' own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("OPTIMOVE_")}
    return kept | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}


def by_a_shell(command: str, folder: Path) -> tuple[int, str, str]:
    """Run a command to its end; return exit status, stdout and stderr."""
    ran = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment(), capture_output=True, text=True, timeout=2 * PATIENCE
    )
    return ran.returncode, ran.stdout, ran.stderr


def in_this_process(command: str) -> tuple[int, str, str]:
    """Run a command of `optimove-ce` to its end, in the current folder; return exit status, stdout and stderr."""
    name, *arguments = shlex.split(command)
    assert name == "optimove-ce"
    with mock.patch.dict(os.environ, environment(), clear=True):
        done = CliRunner().invoke(program, arguments, prog_name=name)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def test_every_example_has_a_command() -> None:
    assert sorted({*PRINTED, *SAME, *PASS, *SERVERS}) == ALL
    assert [command_of(name) for name in SAME] == [command_of(other) for other in SAME.values()]


@pytest.mark.parametrize("name", PRINTED)
def test_the_command_does_what_it_says(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    command = re.sub(r"\b8000\b", str(free_port()), command_of(name))
    for start, option in FEW.items():
        command = command.replace(start, f"{start} {option}")
    if name in BY_A_SHELL or command.startswith("python "):
        status, stdout, stderr = by_a_shell(command, folder)
    else:
        status, stdout, stderr = in_this_process(command)
    assert status == 0, stdout + stderr
    assert re.search(PRINTED[name], stdout, re.MULTILINE), stdout + stderr
    assert "Traceback" not in stderr


def test_the_examples_of_tests_pass(folder: Path) -> None:
    """In one process: five times pytest and its plugins take longer than all the tests."""
    assert [command_of(name) for name in PASS] == [f"python -m pytest {name}" for name in PASS]
    status, stdout, stderr = by_a_shell(f"python -m pytest {' '.join(PASS)}", folder)
    assert status == 0, stdout + stderr
    assert dict(re.findall(r"^(test_\w+\.py) (\S+) ", stdout, re.MULTILINE)) == {
        name: "." * count for name, count in PASS.items()
    }
