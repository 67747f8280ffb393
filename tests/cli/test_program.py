"""The command as a whole: help, version, what is missing, and proxies."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from optimove_conditional_execution import __version__
from optimove_conditional_execution.cli.program import program
from tests.cli.conftest import Run, environment


def test_the_version(optimove_ce: Run) -> None:
    assert optimove_ce("--version").stdout == f"optimove-ce {__version__}\n"


@pytest.mark.parametrize("command", [(), ("demo",), ("simulate",), ("sign",), ("verify",)])
def test_help_has_an_example(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(program, [*command, "--help"])
    assert done.exit_code == 0
    assert "  optimove-ce " in done.output
    assert "--json" in done.output or not command


@pytest.mark.parametrize("typed", ["demmo", "demo --count 0", "simulate --rate 0", "simulate --webhook x", "demo --x"])
def test_a_typing_error_is_status_2(typed: str) -> None:
    assert CliRunner().invoke(program, typed.split()).exit_code == 2


@pytest.mark.parametrize("library", ["click", "rich", "uvicorn"])
def test_a_missing_extra_is_named(library: str) -> None:
    code = f"import sys; sys.modules[{library!r}] = None; import optimove_conditional_execution.cli as cli; cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"optimove-ce needs {library}: pip install 'optimove-conditional-execution[cli]'\n"


def test_another_missing_module_is_a_bug_and_looks_like_one() -> None:
    code = "import sys; sys.modules['json'] = None; import optimove_conditional_execution.cli as cli; cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    assert "json" in done.stderr


def test_a_host_that_is_not_ours_is_one_line(optimove_ce: Run) -> None:
    done = optimove_ce("simulate", "--host", "192.0.2.1")
    assert done.returncode == 2
    warning, error = done.stderr.splitlines()
    assert warning.startswith("Warning: ")
    assert error.startswith("Error: Cannot listen on 192.0.2.1 port 0")
