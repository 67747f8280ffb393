"""Servers of other projects, each in a process and a folder of its own, on a free loopback port.

One module a server beside this one: what it is started with, and when it is ready. `conftest.py` has the fixtures.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PATIENCE = 60.0
"""Seconds; only a broken test waits so long."""

_ORDINARY = ("postgres", "nobody")
"""Who runs a server when the tests run as root, which some servers refuse."""


def program(name: str, package: str, *folders: Path) -> str:
    """Return the path of a server's program.

    Raises:
        RuntimeError: It is not installed.
    """
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)])
    found = shutil.which(name, path=path)
    if found is None:
        raise RuntimeError(f"These tests need {name}: install the package {package} of your system.")
    return found


def ordinary_user() -> str | None:
    """Return whom to run a server as; None for who runs the tests."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in _ORDINARY if name in known)


@contextlib.contextmanager
def own_folder(user: str | None) -> Iterator[Path]:
    """Make a folder that belongs to who runs the server; pytest's own can only be entered by who runs the tests."""
    folder = Path(tempfile.mkdtemp(prefix="optimove-ce-"))
    try:
        if user is not None:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class ServerProcess:
    """A server that is started, stopped and started again on the same port, with the same data."""

    def __init__(self, command: Sequence[str], *, folder: Path, user: str | None) -> None:
        self._command = command
        self._folder = folder
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"

    def run(self, command: Sequence[str]) -> None:
        """Run a program of the server's to its end."""
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE, **self._options())

    def start(self) -> None:
        """Start the server; it may not be ready yet."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, **self._options()
            )

    def check(self) -> None:
        """Fail when it has ended by itself, with what it said."""
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text(errors="replace")

    def send_signal(self, number: int) -> None:
        """Send a signal to its main process."""
        assert self._process is not None
        self._process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop the server with a signal, and wait until it has ended."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"cwd": self._folder, "env": {**os.environ, "LC_ALL": "C"}}
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            options |= {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        return options
