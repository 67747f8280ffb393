"""What the command's tests share: the command, in an environment without Optimove's variables."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner

from optimove_conditional_execution.cli.app import program

COMMAND = (sys.executable, "-m", "optimove_conditional_execution.cli")
PATIENCE = 90.0

Run = Callable[..., subprocess.CompletedProcess[str]]


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with these Optimove variables and no others."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPTIMOVE_")} | variables


@pytest.fixture
def optimove_ce() -> Run:
    """Run the command to its end, in this process: to start one takes longer than most of what it does."""

    def run(
        *arguments: str, body: bytes = b"", variables: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        with mock.patch.dict(os.environ, environment(**(variables or {})), clear=True):
            done = CliRunner().invoke(program, arguments, input=body, prog_name="optimove-ce")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def optimove_ce_process() -> Run:
    """Run the command to its end, in a process of its own."""

    def run(
        *arguments: str, body: bytes = b"", variables: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *arguments],
            input=body,
            capture_output=True,
            env=environment(**(variables or {})),
            timeout=PATIENCE,
            check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command; whatever a test leaves behind is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(
        *arguments: str, variables: dict[str, str] | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(**(variables or {})),
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    listing = Path(f"/proc/{pid}/task/{pid}/children")
    if listing.exists():
        return [int(child) for child in listing.read_text().split()]
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(child) for child, parent in (line.split() for line in table.splitlines()) if int(parent) == pid]


def is_gone(pid: int) -> bool:
    """Wait until a process has ended; a zombie, which nobody in a container may collect, has ended too."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{pid}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return False
