"""The command as a whole: help, version, what is missing, and proxies."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from optimove_conditional_execution import __version__
from optimove_conditional_execution.cli.app import program
from optimove_conditional_execution.installation import install_hint
from optimove_conditional_execution.rehearsal.plan import ALL_SCENARIOS_COUNT
from tests.cli.conftest import Run, environment


def test_the_version(optimove_ce: Run) -> None:
    assert optimove_ce("--version").stdout == f"optimove-ce {__version__}\n"


@pytest.mark.parametrize("command", [(), ("demo",), ("simulate",), ("trigger",), ("campaign",), ("sign",), ("verify",)])
def test_help_has_an_example(command: tuple[str, ...]) -> None:
    done = CliRunner().invoke(program, [*command, "--help"])
    assert done.exit_code == 0
    assert "  optimove-ce " in done.output
    assert "--json" in done.output or not command


def test_the_list_of_commands_tells_all_in_80_columns(optimove_ce: Run) -> None:
    listed = optimove_ce("--help").stdout
    _, _, listed = listed.partition("Commands:")
    assert "..." not in listed
    assert max(map(len, listed.splitlines())) <= 80
    context = click.Context(program)
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        assert command is not None
        summary = " ".join(str(command.help).split()).partition(". ")[0].rstrip(".")
        assert f"{name} {summary}" in " ".join(listed.split()), name


def test_the_help_of_the_demo_names_the_count_that_plays_all_scenarios() -> None:
    output = CliRunner().invoke(program, ["demo", "--help"]).output
    assert f"with {ALL_SCENARIOS_COUNT} or more every scenario is played" in " ".join(output.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_for_a_shell(shell: str, optimove_ce: Run) -> None:
    done = optimove_ce("completion", shell)
    assert done.returncode == 0
    assert f"_OPTIMOVE_CE_COMPLETE={shell}_complete" in done.stdout
    assert "optimove-ce" in done.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("optimove-ce tri", {"plain,trigger"}),
        ("optimove-ce trigger --sk", {"plain,--skew"}),
        ("optimove-ce trigger --fault d", {"plain,duplicate"}),
        ("optimove-ce completion z", {"plain,zsh"}),
    ],
)
def test_what_the_script_asks_for(words: str, offered: set[str], optimove_ce: Run) -> None:
    asked = {"_OPTIMOVE_CE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert set(optimove_ce(variables=asked).stdout.split()) == offered


@pytest.mark.parametrize(
    "typed",
    [
        "demmo",
        "demo --count 0",
        "simulate --rate 0",
        "simulate --webhook x",
        "demo --x",
        "trigger x",
        "completion tcsh",
    ],
)
def test_a_typing_error_is_status_2(typed: str) -> None:
    assert CliRunner().invoke(program, typed.split()).exit_code == 2


def test_a_missing_extra_is_named() -> None:
    code = (
        "import sys\n"
        "import optimove_conditional_execution.cli as cli\n"
        "sys.argv = ['optimove-ce', 'demo']\n"
        "for library in ('click', 'rich', 'uvicorn'):\n"
        "    sys.modules[library] = None\n"
        "    try:\n"
        "        cli.main()\n"
        "    except SystemExit as ended:\n"
        "        print(ended.code)\n"
        "    del sys.modules[library]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (0, "2\n2\n2\n")
    assert done.stderr.splitlines() == [
        f"optimove-ce needs {library}: {install_hint('cli')}" for library in ("click", "rich", "uvicorn")
    ]


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
