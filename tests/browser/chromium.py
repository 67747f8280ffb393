"""Chromium without a screen, driven over a pipe: what a page looks like there, and what it asks the network for."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
PATIENCE: Final = 90.0

_FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
    "--remote-debugging-pipe", "about:blank",
)  # fmt: skip

# Chromium reads commands from descriptor 3 and writes to 4.
_AT_3_AND_4: Final = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_HIGH: Final = 10


def installed() -> str:
    """Return the path of a Chromium."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise AssertionError(
        f"These tests need a browser: none of {', '.join(NAMES)} is on PATH. On Debian: apt-get install chromium"
    )


class Page:
    """A tab: its answers, and what it has asked for and complained about since it was opened."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._received = b""
        self._number = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command, and return its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])
            self.events.append(answer)

    def open(self, path: Path, *, width: int = 1280, dark: bool = False, media: str = "screen") -> None:
        """Open a file, and wait until all of it has been loaded."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        # What it asks for late comes before the answer to this.
        self.value("new Promise(done => requestAnimationFrame(() => setTimeout(() => done(1), 50)))")

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression is worth in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str, value: Any) -> None:
        """Wait until a JavaScript expression is worth a value: what a click does is drawn a little later."""
        end = time.monotonic() + PATIENCE
        while (now := self.value(expression)) != value:
            assert time.monotonic() < end, f"{expression} is {now}, not {value}"
            time.sleep(0.02)

    @property
    def requests(self) -> list[str]:
        """What the page asked for, its own file first."""
        return [
            event["params"]["request"]["url"] for event in self.events if event["method"] == "Network.requestWillBeSent"
        ]

    @property
    def complaints(self) -> list[str]:
        """What stands in the console."""
        kinds = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._received:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium has said nothing for {PATIENCE:.0f} s"
            piece = os.read(self._answers, 1 << 16)
            assert piece, "Chromium has ended"
            self._received += piece
        line, _, self._received = self._received.partition(b"\0")
        return dict(json.loads(line))


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Start Chromium with an empty profile; yields a tab, and ends the browser."""
    ours, theirs = os.pipe(), os.pipe()
    commands_in, answers_out = (fcntl.fcntl(end, fcntl.F_DUPFD, _HIGH) for end in (ours[0], theirs[1]))
    os.close(ours[0])
    os.close(theirs[1])
    with (profile / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", _AT_3_AND_4, str(commands_in), str(answers_out), installed()),
                *(f"--user-data-dir={profile / 'profile'}", *_FLAGS),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(commands_in, answers_out),
        )
        os.close(commands_in)
        os.close(answers_out)
        try:
            yield Page(ours[1], theirs[0])
        finally:
            os.close(ours[1])  # which ends it
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(theirs[0])
