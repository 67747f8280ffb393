"""The demo as people run it, against a service that works and against services that do not."""

from __future__ import annotations

import functools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from optimove_conditional_execution import CampaignCustomer, Deadline
from optimove_conditional_execution.rehearsal import demo
from optimove_conditional_execution.rehearsal.demo import demo_scheduled, demo_triggered
from tests.cli.conftest import PATIENCE, Run, children_of, is_gone

# Registers a webhook that answers 200 to everything, a forgery included, and decides nothing.
DEAF = """
import http.server, threading, os
from optimove_conditional_execution import OptimoveClient
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
with OptimoveClient() as client:
    client.ensure_webhook(f"http://127.0.0.1:{server.server_port}/")
os.read(0, 1)
"""
FEW = ("--customers", "701")
PROXIES = {"HTTP_PROXY": "http://192.0.2.1:9", "http_proxy": "http://192.0.2.1:9", "no_proxy": "example.com"}


def test_json_is_one_object_with_the_numbers_whatever_the_proxies_of_the_shell(optimove_ce: Run) -> None:
    # A generous deadline: this is about the flow, and the machine may be busy.
    done = optimove_ce(
        "demo", "--json", "--count", "10", "--seed", "5", "--timeout-ms", "4000", *FEW, variables=PROXIES
    )
    assert (done.returncode, done.stderr) == (0, "")
    numbers = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert numbers["ok"] is True
    assert (numbers["sent"], numbers["seed"]) == (10, 5)
    assert (numbers["lost"], numbers["late"], numbers["findings"]) == (0, 0, [])
    assert numbers["forged"] >= 1
    assert numbers["duplicates"] == 1
    assert numbers["approved"] >= 2
    assert numbers["denied"] >= 1
    assert numbers["abstained"] >= 3
    assert numbers["decided"] == numbers["approved"] + numbers["denied"] + numbers["abstained"]
    assert numbers["sent"] == numbers["decided"] + numbers["forged"] + numbers["duplicates"]
    latency = numbers["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"] <= numbers["deadline_ms"] == 4000
    campaign = numbers["campaign"]
    assert (campaign["customers"], campaign["approved"], campaign["recipients"], campaign["ok"]) == (
        701,
        595,
        595,
        True,
    )


def test_a_pipe_gets_plain_lines(optimove_ce: Run) -> None:
    done = optimove_ce("demo", "--count", "8", "--timeout-ms", "3000", *FEW)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert done.stdout.isascii()
    rows, _, rest = done.stdout.partition("\n\n")
    assert len(rows.splitlines()) == 7, "a line for each customer"
    for scenario in (
        "eligible",
        "self-excluded",
        "slow backend",
        "failing backend",
        "undecided",
        "forged",
        "duplicate",
    ):
        assert scenario in rows
    for name in ("sent", "decided", "approved", "denied", "abstained", "forged", "duplicates", "lost", "late"):
        assert any(line.split()[:1] == [name] for line in rest.splitlines())
    assert "p50" in rest
    assert "Nothing lost, nothing late" in rest
    last = r"^campaign 1359: 694 decided, 595 approved, [0-9,]+/s, \d+ s left, \d+ s slack$"
    assert re.search(last, rest, re.MULTILINE)
    assert "recipients  595, 0 unapproved, 0 missing" in rest
    assert "All customers accounted for" in rest


def test_a_terminal_gets_a_live_table_whatever_lies_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise SystemExit('shadowed')")
    code = "import sys; sys.path.remove(''); from optimove_conditional_execution.cli import main; main()"
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, "demo", "--count", "3", "--timeout-ms", "3000", *FEW],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"},
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            piece = os.read(master, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not piece:
            break
        shown += piece
    os.close(master)
    _, complaints = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaints) == (0, b"")
    assert b"\x1b[?25l" in shown, "the cursor is hidden while the table lives"
    assert b"\x1b[?25h" in shown, "and shown again"
    assert b"self-excluded" in shown
    assert b"Nothing lost, nothing late" in shown
    assert b"595" in shown
    assert b"All customers accounted for" in shown


@pytest.fixture
def against(optimove_ce: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the demo with another service."""

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = (sys.executable, "-c", script)
        monkeypatch.setattr(demo, "demo_triggered", functools.partial(demo_triggered, command=command))
        return optimove_ce("demo", *arguments, *FEW)

    return run


def test_a_service_that_decides_nothing_is_status_1(
    against: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = against(DEAF, "--count", "8", "--timeout-ms", "500", "--json")
    numbers = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (1, "")
    assert (numbers["sent"], numbers["ok"], numbers["approved"], numbers["forged"]) == (8, False, 0, 0)
    # eligible, self-excluded, forged, and the first of the duplicates
    assert numbers["lost"] == 4
    text = " ".join(numbers["findings"])
    assert "2 notifications" in text
    assert "each should have been approved, and no answer came" in text
    assert "should have been denied, and no answer came" in text
    assert "got 200 over HTTP instead of 401." in text
    assert numbers["latency_ms"]["max"] is None


def test_a_service_that_dies_is_status_2(against: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = against("import sys; sys.exit('no room')", "--count", "1", "--timeout-ms", "300", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: The sample service ended, and did not register a webhook: exit status 1, at the end: no room\n"
    )


async def everybody(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return [one.customer_id for one in customers]


def test_what_does_not_add_up_is_status_1(optimove_ce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "demo_scheduled", functools.partial(demo_scheduled, reviewer=everybody))
    done = optimove_ce("demo", "--count", "1", "--timeout-ms", "4000", "--customers", "300")
    assert done.returncode == 1
    assert "! 42 would get the campaign and must not: C0000007, C0000014, C0000021 and others.\n" in done.stdout
    assert done.stdout.endswith("The review and the simulator differ.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_leaves_no_process_behind(
    number: signal.Signals, started: Callable[..., subprocess.Popen[str]]
) -> None:
    process = started("demo", "--count", "200", "--timeout-ms", "5000")
    assert process.stdout is not None
    assert process.stdout.readline(), "the demo is in full swing"
    (service,) = children_of(process.pid)
    began = time.monotonic()
    process.send_signal(number)
    _, complaints = process.communicate(timeout=PATIENCE)
    assert is_gone(service)
    assert time.monotonic() - began < 30
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 128 + number
        assert complaints == "Interrupted.\n"
