"""A service that the command starts: `campaign -- COMMAND`, and processes that are never left behind."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from optimove_conditional_execution import ConfigurationError
from optimove_conditional_execution.cli.processes import end_group, lines
from optimove_conditional_execution.cli.service_command import service_command
from tests.cli.conftest import COMMAND, PATIENCE, Run, environment, free_port, is_gone
from tests.cli.services import uvicorn_command


@pytest.mark.parametrize(("registers", "token"), [(True, None), (False, None), (False, "in-the-url")])
def test_a_campaign_for_a_service_that_is_started_here(registers: bool, token: str | None) -> None:
    port = free_port()
    query = "?token=in-the-url" if token == "in-the-url" else ""
    listener = () if registers else ("--listener", f"http://127.0.0.1:{port}/campaigns{query}")
    variables = {"PORT": str(port)} if registers else {}
    done = subprocess.run(
        [*COMMAND, "campaign", *listener, "--customers", "3", "--lead", "60", "--wait", "2", "--json",
         "--", *uvicorn_command("reviews", port)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment(**variables), timeout=PATIENCE,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ready, result = (json.loads(line) for line in done.stdout.splitlines())
    assert set(ready["environment"]) == {"OPTIMOVE_BASE_URL", "OPTIMOVE_TIMEZONE"}
    assert (result["listener_status"], result["approved"], result["rows"]) == (200, 3, 3)
    assert "Uvicorn running on" in done.stderr
    if registers:
        assert "Warning" not in done.stderr


def test_a_campaign_for_a_service_that_dies(optimove_ce: Run) -> None:
    done = optimove_ce("campaign", "--", sys.executable, "-c", "import sys; sys.exit('no reviews today')")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        "Error: Your service ended, and did not listen for campaigns: exit status 1, at the end: no reviews today"
    )


def test_a_campaign_whose_service_never_registers(optimove_ce: Run) -> None:
    sleeping = (sys.executable, "-c", "import time; time.sleep(600)")
    done = optimove_ce("campaign", "--start-within", "0.3", "--", *sleeping)
    assert done.returncode == 2
    assert "did not listen for campaigns within 0.3 s" in done.stderr


def test_its_output_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    script = "import os, sys; print(os.environ['GIVEN']); print('x' * 10_000, file=sys.stderr); print(end='no newline')"

    async def run() -> None:
        async with service_command([sys.executable, "-c", script], {"GIVEN": "said"}) as service:
            with pytest.raises(ConfigurationError, match="exit status 0"):
                await service.until(asyncio.sleep(600), within=PATIENCE, what="sleep")

    asyncio.run(run())
    out, err = capfd.readouterr()
    assert out == ""
    assert "said\n" in err
    assert err.replace("\n", "").count("x") >= 10_000
    assert "no newline\n" in err


def test_a_reader_that_leaves_does_not_hold_it_up(tmp_path: Path) -> None:
    written = tmp_path / "written"
    # More than a pipe takes.
    script = f"import pathlib, sys; sys.stderr.write('x\\n' * 300_000); pathlib.Path({str(written)!r}).touch()"
    reading, writing = os.pipe()
    os.close(reading)
    try:
        url = f"http://127.0.0.1:{free_port()}/x"
        subprocess.run(
            [*COMMAND, "trigger", url, "--start-within", "20", "--", sys.executable, "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writing, env=environment(), timeout=PATIENCE,
            check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert written.exists()


def test_what_it_has_started_ends_too() -> None:
    child = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(os.getpid(), flush=True); time.sleep(600)"
    )
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)"

    async def run() -> tuple[int, int]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", parent, stdout=subprocess.PIPE, start_new_session=True
        )
        assert process.stdout is not None
        grandchild = int(await process.stdout.readline())
        os.kill(grandchild, 0)
        await end_group(process, within=0.5)
        assert await process.stdout.read() == b"", "nobody holds the pipe any more"
        return process.pid, grandchild

    assert all(is_gone(pid) for pid in asyncio.run(run()))


def test_ending_what_has_ended_is_fine() -> None:
    async def run() -> int | None:
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "", start_new_session=True)
        await process.wait()
        await end_group(process, within=5)
        return process.returncode

    assert asyncio.run(run()) == 0


def test_lines_come_one_by_one() -> None:
    async def run() -> list[bytes]:
        stream = asyncio.StreamReader()
        for chunk in (b"one\ntw", b"o\r\n", b"\n", b"y" * 5_000, b"\nend"):
            stream.feed_data(chunk)
        stream.feed_eof()
        return [line async for line in lines(stream)]

    found = asyncio.run(run())
    assert found[:3] == [b"one", b"two", b""]
    assert b"".join(found[3:-1]) == b"y" * 5_000
    assert found[-1] == b"end"


def test_a_service_has_the_default_signals_also_under_nohup() -> None:
    """A process inherits that a signal is ignored, and would keep it."""
    says = "import signal, sys; sys.exit(f'hangup {signal.getsignal(signal.SIGHUP)!r}')"
    line = shlex.join([*COMMAND, "campaign", "--", sys.executable, "-c", says])
    done = subprocess.run(
        ["sh", "-c", f"trap '' HUP; exec {line}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert "hangup <Handlers.SIG_DFL: 0>" in done.stderr
