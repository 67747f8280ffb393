"""The demo as people run it, against a service that works and against services that do not."""

from __future__ import annotations

import asyncio
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
from click.testing import CliRunner

from optimove_conditional_execution import CampaignCustomer, ConfigurationError, Deadline
from optimove_conditional_execution.cli import campaign_rehearsal, rehearsal
from optimove_conditional_execution.cli import demo as demo_module
from optimove_conditional_execution.cli.judgement import Summary
from optimove_conditional_execution.cli.program import program
from optimove_conditional_execution.cli.scenarios import cast
from optimove_conditional_execution.cli.service_process import service_process
from optimove_conditional_execution.handlers import AsyncCampaignReviewer
from tests.cli.conftest import PATIENCE, Run, children_of, is_gone

# Answers 200 to everything, a forgery included, and decides nothing.
DEAF = """
import http.server, threading, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
os.read(0, 1)
"""


def test_json_is_one_object_with_the_numbers(optimove_ce: Run) -> None:
    # A generous deadline: this is about the flow, and the machine may be busy.
    done = optimove_ce("demo", "--json", "--count", "10", "--seed", "5", "--timeout-ms", "4000")
    assert (done.returncode, done.stderr) == (0, "")
    numbers = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1
    assert numbers["ok"] is True
    assert numbers["sent"] == 10
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


def test_a_pipe_gets_plain_lines(optimove_ce: Run) -> None:
    done = optimove_ce("demo", "--count", "8", "--timeout-ms", "3000")
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
        assert any(line.split()[0] == name for line in rest.splitlines())
    assert "p50" in rest
    assert "Nothing lost, nothing late" in rest
    last = r"^campaign 1359: 24,750 decided, 21,214 approved, [0-9,]+/s, \d+ s left, \d+ s slack$"
    assert re.search(last, rest, re.MULTILINE)
    assert "recipients  21,214, 0 unapproved, 0 missing" in rest
    assert "Everybody accounted for" in rest


def test_a_terminal_gets_a_live_table() -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "optimove_conditional_execution.cli", "demo", "--count", "3", "--timeout-ms", "3000"],
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
    assert b"21,214" in shown
    assert b"Everybody accounted for" in shown


def run_against(script: str, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    command = (sys.executable, "-c", script)
    monkeypatch.setattr(demo_module, "rehearse", functools.partial(rehearsal.rehearse, command=command))
    result = CliRunner().invoke(program, ["demo", *arguments])
    return result.exit_code, result.output


def test_a_service_that_decides_nothing_is_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    status, output = run_against(DEAF, monkeypatch, "--count", "8", "--timeout-ms", "500", "--json")
    numbers = json.loads(output)
    assert status == 1
    assert (numbers["sent"], numbers["ok"], numbers["approved"], numbers["forged"]) == (8, False, 0, 0)
    # eligible, self-excluded, forged, and the first of the duplicates
    assert numbers["lost"] == 4 == len(numbers["findings"])
    assert numbers["latency_ms"]["max"] is None


def test_what_was_lost_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    status, output = run_against(DEAF, monkeypatch, "--count", "3", "--timeout-ms", "300")
    assert status == 1
    assert "instead of 401" in output
    assert "it should have been approved, and no answer came" in output


@pytest.mark.parametrize(
    "script", ["import sys; sys.exit('no room')", "print('http://127.0.0.1:1/x'); import sys; sys.exit()"]
)
def test_a_service_that_dies_ends_the_demo(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    status, output = run_against(script, monkeypatch, "--count", "1", "--timeout-ms", "300", "--json")
    if "no room" in script:
        assert status == 2
        assert output == "Error: The sample service did not start: no room\n"
    else:
        assert status == 1
        assert json.loads(output)["lost"] == 1


def test_the_campaign_is_reconciled_with_the_simulators_books(optimove_ce: Run) -> None:
    done = optimove_ce("demo", "--json", "--count", "1", "--customers", "701", "--timeout-ms", "4000")
    assert (done.returncode, done.stderr) == (0, "")
    campaign = json.loads(done.stdout)["campaign"]
    # Every seventh is excluded, every hundredth is in the control group, and the 700th is both.
    assert (campaign["customers"], campaign["control_group"], campaign["reviewed"]) == (701, 7, 694)
    assert (campaign["approved"], campaign["denied"]) == (701 - 100 - 7 + 1, 99)
    assert campaign["recipients"] == campaign["acknowledged"] == campaign["approved"] == campaign["largest_update"]
    assert (campaign["unapproved"], campaign["missing"], campaign["late"], campaign["updates"]) == (0, 0, 0, 1)
    assert campaign["ok"] is True


async def everybody(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return [one.customer_id for one in customers]


async def nobody(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return []


async def broken(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    raise LookupError("C0000001")


@pytest.mark.parametrize(
    ("reviewer", "finding"),
    [
        (everybody, "42 would get the campaign and must not: C0000007, C0000014, C0000021 ..."),
        (nobody, "255 were approved and would not get the campaign"),
        (
            broken,
            "the review is incomplete: 1 batches failed: The reviewer raised LookupError. "
            "The first pass was incomplete: 297 customers failed, 0 were not reached.",
        ),
    ],
)
def test_what_does_not_add_up_is_status_1(
    reviewer: AsyncCampaignReviewer, finding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A review whose reviewer fails is run again until clearance.
    monkeypatch.setattr(campaign_rehearsal, "_LEAD_SECONDS", 12.0)
    rehearse = functools.partial(campaign_rehearsal.rehearse_campaign, reviewer=reviewer)
    monkeypatch.setattr(demo_module, "rehearse_campaign", rehearse)
    result = CliRunner().invoke(program, ["demo", "--count", "1", "--timeout-ms", "4000", "--customers", "300"])
    assert result.exit_code == 1
    assert f"! {finding}\n" in result.output
    assert result.output.endswith("It does not add up.\n")


def test_a_stubborn_service_is_killed() -> None:
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"

    async def run() -> int:
        async with service_process({}, command=(sys.executable, "-c", script)) as line:
            return int(line)

    assert is_gone(asyncio.run(run()))


def test_a_service_goes_when_its_context_fails() -> None:
    script = "import os; print(os.getpid(), flush=True); os.read(0, 1)"
    pids: list[int] = []

    async def run() -> None:
        async with service_process({}, command=(sys.executable, "-c", script)) as line:
            pids.append(int(line))
            raise ConfigurationError("on purpose")

    with pytest.raises(ConfigurationError, match="on purpose"):
        asyncio.run(run())
    assert is_gone(pids[0])


def test_the_sample_service_needs_its_settings() -> None:
    async def run() -> None:
        settings = {"OPTIMOVE_API_KEY": "k", "OPTIMOVE_BASE_URL": "not a url", "OPTIMOVE_WEBHOOK_SECRET": "s"}
        async with service_process(settings):
            pass

    with pytest.raises(ConfigurationError, match="OPTIMOVE_BASE_URL"):
        asyncio.run(run())


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


def test_the_numbers_come_from_the_simulator_alone() -> None:
    seen = asyncio.run(
        rehearsal.rehearse(cast(2, seed=1), timeout_ms=3000, on_change=lambda visit: None),
    )
    assert {observation.statuses for observation in seen} == {(200,)}
    assert Summary.of(seen, deadline_ms=3000).ok


def test_proxies_of_the_shell_do_not_matter(optimove_ce: Run) -> None:
    proxies = {"HTTP_PROXY": "http://192.0.2.1:9", "http_proxy": "http://192.0.2.1:9", "no_proxy": "example.com"}
    done = optimove_ce("demo", "--json", "--count", "1", "--timeout-ms", "3000", variables=proxies)
    assert done.returncode == 0, done.stderr


def test_a_file_of_the_working_directory_does_not_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "uvicorn.py").write_text("raise SystemExit('shadowed')")
    monkeypatch.chdir(tmp_path)
    code = "import sys; sys.path.remove(''); from optimove_conditional_execution.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", "--count", "1", "--json", "--timeout-ms", "3000"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
