"""Projects that `optimove-ce init` writes: their tests pass and notice a broken gate, and their service answers."""

from __future__ import annotations

import ast
import contextlib
import fnmatch
import json
import os
import re
import shlex
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

import optimove_conditional_execution
from optimove_conditional_execution import ConfigurationError, OptimoveClient
from optimove_conditional_execution.cli.program import program
from optimove_conditional_execution.cli.projects import PROJECTS, write
from optimove_conditional_execution.testing import notification, signed_request
from tests.cli.conftest import COMMAND, PATIENCE, environment

PACKAGE = Path(optimove_conditional_execution.__file__).parent
EXAMPLES = Path(__file__).parents[2] / "examples"
KINDS = sorted(PROJECTS)
COMMON = {"gate.py", "test_gate.py", "requirements.txt", "README.md", ".env.example", ".gitignore"}
OF_THEIR_OWN = {
    "fastapi": {"main.py", "test_main.py"},
    "flask": {"app.py", "test_app.py"},
    "django": {"views.py", "urls.py", "settings.py", "wsgi.py", "test_views.py"},
    "lambda": {"lambda_function.py", "local.py", "test_lambda_function.py"},
    "script": {"serve.py", "test_serve.py"},
}
TESTS = {
    "test_an_active_player_gets_the_campaign",
    "test_any_other_player_does_not[self-excluded]",
    "test_any_other_player_does_not[None]",
    "test_ids_that_the_register_cannot_know_are_left_alone",
    "test_a_broken_register_does_not_approve",
    "test_a_notification_is_answered",
    "test_a_forged_one_is_refused",
}
NOT_THEIRS = ("hypothesispytest", "pytest_httpx", "xdist", "xdist.looponfail")
"""Plugins that `requirements.txt` does not bring, and a start would wait for."""

HARMLESS = {"test_an_active_player_gets_the_campaign", "test_a_notification_is_answered"}
"""Those that pass when a gate approves everybody."""


def init(*arguments: str) -> Result:
    return CliRunner().invoke(program, ["init", *arguments])


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project of the kind that a test is about, in a folder that is not there yet and has a blank in its path."""
    kind: str = request.node.callspec.params["kind"]
    folder = tmp_path / "my gates" / kind
    assert init(kind, str(folder)).exit_code == 0
    return folder


def variables(**more: str) -> dict[str, str]:
    """Return an environment in which the commands of this Python come first, as in an activated one."""
    return environment(**more) | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}


def failed_tests(project: Path) -> set[str]:
    """Run a project's tests as its README says, with warnings as errors; return which fail."""
    (command,) = re.findall(r"\*\*Test\*\*: `(.+)`", (project / "README.md").read_text())
    ran = subprocess.run(
        [
            *shlex.split(command),
            "-v",
            "-W",
            "error",
            "--rootdir",
            ".",
            "-pno:cacheprovider",
            *(f"-pno:{plugin}" for plugin in NOT_THEIRS),
        ],
        cwd=project,
        env=variables(PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    results = dict(re.findall(r"^test_\w+\.py::(\S+) (PASSED|FAILED)", ran.stdout, re.MULTILINE))
    assert set(results) == TESTS, ran.stdout + ran.stderr
    failed = {name for name, result in results.items() if result == "FAILED"}
    assert ran.returncode == (1 if failed else 0)
    return failed


def edit(file: Path, **changes: tuple[str, str]) -> None:
    text = file.read_text()
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    file.write_text(text)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def serving(project: Path, port: int) -> list[str]:
    """Return the command of a project's README that serves it, with another port than 8000."""
    (url, command), *others = re.findall(
        r"`optimove-ce trigger (\S+) --count 20 -- (.+)`", (project / "README.md").read_text()
    )
    assert (url, others) == ("http://127.0.0.1:8000/optimove", [])
    words = shlex.split(command)
    return [word.replace("8000", str(port)) for word in words] if "8000" in command else [*words, str(port)]


@contextlib.contextmanager
def served(project: Path, log: Path, **settings: str) -> Iterator[str]:
    """Serve a project; yields its webhook's URL once it listens."""
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            serving(project, port), cwd=project, env=variables(**settings), stdout=output, stderr=subprocess.STDOUT
        )
    try:
        end = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/optimove"
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_its_files(self, kind: str, project: Path) -> None:
        files = {path.name: path for path in project.iterdir()}
        assert set(files) == COMMON | OF_THEIR_OWN[kind]
        beside = project / "beside"
        beside.touch()
        assert {path.stat().st_mode for path in files.values()} == {beside.stat().st_mode}
        assert {stat.S_IFMT(path.lstat().st_mode) for path in files.values()} == {stat.S_IFREG}

    def test_its_tests_pass(self, kind: str, project: Path) -> None:
        assert failed_tests(project) == set()

    def test_its_tests_notice_a_gate_that_approves_everybody(self, kind: str, project: Path) -> None:
        edit(
            project / "gate.py",
            hashed=("if notification.is_hashed or notification.user.is_visitor:", "if False:"),
            asked=(re.findall(r"status = .*\n", (project / "gate.py").read_text())[0], 'status = "active"\n'),
            signed=("secrets=secret", "secrets=__import__('optimove_conditional_execution').UNSIGNED"),
        )
        assert failed_tests(project) == TESTS - HARMLESS

    def test_its_service_answers_the_simulator(self, kind: str, project: Path, tmp_path: Path) -> None:
        log = tmp_path / "log"
        with subprocess.Popen(
            [*COMMAND, "simulate", "--json", "--count", "10", "--rate", "50", "--timeout-ms", "60000"],
            stdout=subprocess.PIPE, env=environment(), text=True,
        ) as simulator:  # fmt: skip
            try:
                assert simulator.stdout is not None
                settings: dict[str, str] = json.loads(simulator.stdout.readline())["environment"]
                with served(project, log, **settings) as url:
                    forged = signed_request(notification(), secret="not-the-secret")
                    headers = dict(forged.headers)
                    answer = httpx.post(url, content=forged.body, headers=headers, trust_env=False, timeout=PATIENCE)
                    assert answer.status_code == 401
                    key, base = settings["OPTIMOVE_API_KEY"], settings["OPTIMOVE_BASE_URL"]
                    with OptimoveClient(key, base_url=base) as client:
                        client.ensure_webhook(url)
                    output, _ = simulator.communicate(timeout=PATIENCE)
            finally:
                simulator.kill()
        *results, summary = [json.loads(line) for line in output.splitlines()]
        denied = {result["user_id"] for result in results if result["result"] == "denied"}
        assert denied == {"C100005", "C100010"}
        assert (summary["approved"], summary["denied"], summary["late"]) == (8, 2, 0)
        printed = log.read_text()
        assert len(re.findall(r"\bapproved in \d", printed)) == 8
        assert len(re.findall(r"\bdenied in \d\S* s: self-excluded$", printed, re.MULTILINE)) == 2
        assert "forged in" in printed
        assert "Traceback" not in printed
        for secret in (settings["OPTIMOVE_API_KEY"], settings["OPTIMOVE_WEBHOOK_SECRET"], "C100005"):
            assert secret not in printed

    def test_what_it_says_to_do_next(self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        there = init(kind)
        readme = (tmp_path / "README.md").read_text()
        assert [line.strip() for line in there.output.splitlines() if line.startswith("  ")] == [
            *re.findall(r"^\d\. .*?: `(.+?)`$", readme, re.MULTILINE)[:3]
        ]
        assert {line.removeprefix("wrote ") for line in there.output.splitlines() if line.startswith("wrote ")} == (
            COMMON | OF_THEIR_OWN[kind]
        )
        elsewhere: dict[str, Any] = json.loads(init(kind, "my gate", "--json").output)
        assert elsewhere.keys() == {"kind", "directory", "files", "next"}
        assert (elsewhere["kind"], elsewhere["directory"]) == (kind, "my gate")
        assert set(elsewhere["files"]) == COMMON | OF_THEIR_OWN[kind]
        assert elsewhere["next"][0] == "cd 'my gate' && python -m pip install -r requirements.txt"
        assert len(re.findall(r"^\d\. ", readme, re.MULTILINE)) == 5

    def test_it_holds_no_value_that_looks_like_a_secret(self, kind: str, project: Path) -> None:
        example = (project / ".env.example").read_text()
        assert re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE) == [
            ("OPTIMOVE_API_KEY", ""), ("OPTIMOVE_BASE_URL", ""), ("OPTIMOVE_WEBHOOK_SECRET", ""),
        ]  # fmt: skip
        assert ".env" in (project / ".gitignore").read_text().splitlines()
        assert "optimove-conditional-execution[cli]" in (project / "requirements.txt").read_text().splitlines()


@pytest.mark.parametrize("kind", ["fastapi", "django", "script"])
def test_its_service_does_not_start_without_a_secret(kind: str, project: Path) -> None:
    settings = {"OPTIMOVE_API_KEY": "k", "OPTIMOVE_BASE_URL": "https://optimove.test"}
    ran = subprocess.run(
        serving(project, free_port()), cwd=project, env=variables(**settings), capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert ran.returncode not in (0, None)
    assert "OPTIMOVE_WEBHOOK_SECRET" in ran.stderr


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "gate.py").write_text("mine")
    (tmp_path / "README.md").symlink_to(tmp_path / "nowhere")
    done = init("flask", str(tmp_path))
    assert done.exit_code == 2
    assert "gate.py, README.md." in done.output
    assert "--force" in done.output
    assert {path.name for path in tmp_path.iterdir()} == {"gate.py", "README.md"}
    assert (tmp_path / "gate.py").read_text() == "mine"


def test_force_overwrites_its_own_files_and_no_others(tmp_path: Path) -> None:
    linked, project = tmp_path / "linked", tmp_path / "project"
    linked.write_text("mine")
    project.mkdir()
    (project / "gate.py").write_text("old")
    (project / "README.md").symlink_to(linked)
    (project / "other.py").write_text("mine")
    assert init("flask", str(project), "--force").exit_code == 0
    assert {path.name for path in project.iterdir()} == COMMON | OF_THEIR_OWN["flask"] | {"other.py"}
    files = PROJECTS["flask"].files()
    assert {name: (project / name).read_bytes() for name in files} == files
    assert not (project / "README.md").is_symlink()
    assert linked.read_text() == (project / "other.py").read_text() == "mine"


def test_a_failure_half_way_says_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "README.md").mkdir()
    done = init("flask", str(tmp_path), "--force")
    assert done.exit_code == 2
    assert "Cannot write README.md: " in done.output
    written = done.output.rpartition("Written before that: ")[2].strip().rstrip(".").split(", ")
    assert {path.name for path in tmp_path.iterdir()} == {*written, "README.md"}
    assert written[0] == "gate.py"


def test_a_failure_to_write_a_new_file_says_so_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^Cannot write no/b: .*\. Written before that: a\.$"):
        write({"a": b"1", "no/b": b"2"}, tmp_path / "new", replace=False)
    assert (tmp_path / "new" / "a").read_bytes() == b"1"
    with pytest.raises(ConfigurationError, match=r"^Cannot write .*below: .* Nothing was written\.$"):
        write({"a": b"1"}, tmp_path / "new" / "a" / "below", replace=False)


def test_typing_errors_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for typed in ([], ["rails"], ["flask", "file"], ["flask", "a", "b"]):
        assert init(*typed).exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_help_has_an_example() -> None:
    assert "  optimove-ce init fastapi" in init("--help").output


def test_it_leaves_the_network_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it used the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    assert init("fastapi", str(tmp_path)).exit_code == 0


def test_every_stored_file_is_part_of_a_project() -> None:
    folder = PACKAGE / "cli" / "project-files"
    stored = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "__pycache__" and path.name != "ruff.toml"
    }
    assert stored == {source for project in PROJECTS.values() for source in project.sources}


def test_nothing_in_the_package_is_collected_as_a_test() -> None:
    names = [path.name for path in PACKAGE.rglob("*.py")]
    assert len(names) > 100
    assert [name for name in names if fnmatch.fnmatch(name, "test_*.py") or fnmatch.fnmatch(name, "*_test.py")] == []


def test_the_commands_in_the_readmes_are_there() -> None:
    for kind, project in PROJECTS.items():
        readme = project.files()["README.md"].decode()
        named = set(re.findall(r"optimove-ce (\w+)", readme))
        assert {"trigger", "doctor", "webhooks"} <= named, kind
        assert named <= set(program.commands), kind


def functions(source: str | bytes) -> dict[str, str]:
    """Return a module's functions, without docstrings and with `async` and `await` taken out."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            found[node.name] = re.sub(r"\b(async|await) ", "", ast.unparse(node))
    return found


def test_both_gates_decide_alike_and_as_the_examples_do() -> None:
    threads, coroutines = (functions(PROJECTS[kind].files()["gate.py"]) for kind in ("flask", "fastapi"))
    shared = {"player_status", "may_receive", "log_outcome"}
    assert {name: threads[name] for name in shared} == {name: coroutines[name] for name in shared}
    for example in ("fastapi_gate.py", "lambda_gate.py"):
        assert functions((EXAMPLES / example).read_text())["may_receive"] == threads["may_receive"]
