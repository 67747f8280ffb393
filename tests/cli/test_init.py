"""Projects that `optimove-ce init` writes: examples in folders of their own, whose tests notice a broken gate.

The examples themselves are run by `tests/examples`: each to the letter of its command.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from optimove_conditional_execution.cli.app import program
from optimove_conditional_execution.cli.tools import REQUIREMENTS
from optimove_conditional_execution.installation import requirement
from tests.cli.conftest import PATIENCE, environment
from tests.conftest import free_port

KINDS = sorted(REQUIREMENTS)
FILES = {"gate.py", "test_gate.py", "requirements.txt", "README.md", ".env.example", ".gitignore", "mypy.ini"}
OF_THEIR_OWN = {"lambda": {"lambda_local.py"}}
NOT_THEIRS = ("hypothesispytest", "pytest_httpx", "xdist", "xdist.looponfail")
"""Plugins that `requirements.txt` does not bring, and a start would wait for."""


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
    options = ["-v", "-W", "error", "--rootdir", ".", "-pno:cacheprovider", *(f"-pno:{each}" for each in NOT_THEIRS)]
    ran = subprocess.run(
        [*shlex.split(command), *options],
        cwd=project,
        env=variables(PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    results = dict(re.findall(r"^test_gate\.py::(\S+) (PASSED|FAILED)", ran.stdout, re.MULTILINE))
    assert len(results) >= 3, ran.stdout + ran.stderr
    failed = {name for name, result in results.items() if result == "FAILED"}
    assert ran.returncode == (1 if failed else 0)
    return failed


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_its_files(self, kind: str, project: Path) -> None:
        files = {path.name: path for path in project.iterdir()}
        assert set(files) == FILES | OF_THEIR_OWN.get(kind, set())
        beside = project / "beside"
        beside.touch()
        assert {path.stat().st_mode for path in files.values()} == {beside.stat().st_mode}
        assert {stat.S_IFMT(path.lstat().st_mode) for path in files.values()} == {stat.S_IFREG}
        assert not [path for path in files.values() if f"{kind}_gate" in path.read_text()]

    def test_its_tests_notice_a_gate_that_approves_everybody(self, kind: str, project: Path) -> None:
        gate = project / "gate.py"
        head, docstring, body = gate.read_text().partition('an error or a late answer sends nothing."""\n')
        assert docstring
        gate.write_text(f"{head}{docstring}    return Decision.approve()\n{body}")
        # What still passes is the test of the signature, and in Flask that of the route.
        failed = failed_tests(project)
        assert {"forged" in name or "route" in name for name in failed} == {False}
        assert len(failed) == (2 if kind == "flask" else 3)

    def test_what_it_says_to_do_next(self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        there = init(kind)
        readme = (tmp_path / "README.md").read_text()
        assert [line.strip() for line in there.output.splitlines() if line.startswith("  ")] == [
            *re.findall(r"^\d\. .*?: `(.+?)`$", readme, re.MULTILINE)[:3]
        ]
        written = {line.removeprefix("wrote ") for line in there.output.splitlines() if line.startswith("wrote ")}
        assert written == FILES | OF_THEIR_OWN.get(kind, set())
        elsewhere: dict[str, Any] = json.loads(init(kind, "my gate", "--json").output)
        assert elsewhere.keys() == {"kind", "directory", "files", "next"}
        assert (elsewhere["kind"], elsewhere["directory"]) == (kind, "my gate")
        assert set(elsewhere["files"]) == written
        assert elsewhere["next"][0] == "cd 'my gate' && python -m pip install -r requirements.txt"
        assert len(re.findall(r"^\d\. ", readme, re.MULTILINE)) == 5
        assert set(re.findall(r"optimove-ce (\w+)", readme)) == {"trigger", "doctor", "webhooks"}

    def test_it_holds_no_value_that_looks_like_a_secret(self, kind: str, project: Path) -> None:
        example = (project / ".env.example").read_text()
        assert re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE) == [
            ("OPTIMOVE_API_KEY", ""), ("OPTIMOVE_BASE_URL", ""), ("OPTIMOVE_WEBHOOK_SECRET", ""),
        ]  # fmt: skip
        assert ".env" in (project / ".gitignore").read_text().splitlines()
        assert requirement("cli") in (project / "requirements.txt").read_text().splitlines()
        for file in project.glob("*.py"):
            assert "optimove-conditional-execution[cli]" not in file.read_text(), "it would be looked for on an index"


@pytest.mark.parametrize("kind", ["script"])
def test_its_tests_pass_and_its_service_is_rehearsed(kind: str, project: Path) -> None:
    assert failed_tests(project) == set()
    (command,) = re.findall(r"\*\*Rehearse\*\*, without Optimove: `(.+)`", (project / "README.md").read_text())
    command = command.replace("8000", str(free_port())).replace("trigger", "trigger --count 4")
    ran = subprocess.run(
        ["sh", "-c", command], cwd=project, env=variables(), capture_output=True, text=True, timeout=PATIENCE
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^approved +2$\n^denied +2$", ran.stdout, re.MULTILINE)
    assert "Traceback" not in ran.stderr
    assert not [user for user in ("C234638", "C100001") if user in ran.stderr]


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
    assert {path.name for path in project.iterdir()} == FILES | {"other.py"}
    assert init("flask", str(tmp_path / "new")).exit_code == 0
    for name in FILES:
        assert (project / name).read_bytes() == (tmp_path / "new" / name).read_bytes()
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


def test_a_failure_to_make_the_folder_says_so_too(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = init("flask", str(tmp_path / "file" / "below"))
    assert done.exit_code == 2
    assert re.search(r"Cannot write .*below: .* Nothing was written\.$", done.output.strip())


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
