"""The service of a rehearsal: waited for, started by a command line, and never left behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

import pytest
from starlette.applications import Starlette

from optimove_conditional_execution import ConfigurationError
from optimove_conditional_execution.rehearsal.base import served
from optimove_conditional_execution.rehearsal.service import end_group, lines, started, until_reachable
from optimove_conditional_execution.urls import is_loopback
from tests.cli.conftest import PATIENCE, is_gone
from tests.conftest import free_port


def test_its_output_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    script = "import os, sys; print(os.environ['GIVEN']); print('x' * 10_000, file=sys.stderr); print(end='no newline')"

    async def run() -> None:
        async with started([sys.executable, "-c", script], {"GIVEN": "said"}) as service:
            with pytest.raises(ConfigurationError, match="exit status 0"):
                await service.until(asyncio.sleep(600), within=PATIENCE, what="sleep")
            assert service.ended == "Your service ended during the rehearsal, with exit status 0"

    asyncio.run(run())
    out, err = capfd.readouterr()
    assert out == ""
    assert "said\n" in err
    assert err.replace("\n", "").count("x") >= 10_000
    assert "no newline\n" in err


def test_it_goes_when_its_context_fails() -> None:
    pids: list[int] = []

    async def run() -> None:
        async with started([sys.executable, "-c", "import time; time.sleep(600)"], {}) as service:
            pids.append(service.pid)
            raise ConfigurationError("on purpose")

    with pytest.raises(ConfigurationError, match="on purpose"):
        asyncio.run(run())
    assert is_gone(pids[0])


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


def test_one_that_starts_later_is_waited_for() -> None:
    async def run() -> None:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        waiting = asyncio.create_task(until_reachable(f"{url}/campaigns"))
        done, _ = await asyncio.wait([waiting], timeout=0.1)
        assert not done
        async with served(Starlette(), port=port), asyncio.timeout(PATIENCE):
            assert await waiting == f"{url}/campaigns"

    asyncio.run(run())


def test_one_that_listens_before_it_can_answer_is_waited_for() -> None:
    async def run() -> None:
        booted = asyncio.Event()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if await reader.readline():
                await booted.wait()
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/optimove?token=secret"
        waiting = asyncio.create_task(until_reachable(url))
        done, _ = await asyncio.wait([waiting], timeout=0.5)
        assert not done
        booted.set()
        async with asyncio.timeout(PATIENCE):
            assert await waiting == url
        server.close()
        await server.wait_closed()

    asyncio.run(run())


def test_a_name_that_no_machine_has() -> None:
    began = time.monotonic()
    with pytest.raises(ConfigurationError, match="No machine is called no-such-machine"):
        asyncio.run(until_reachable("http://no-such-machine.invalid/campaigns"))
    assert time.monotonic() - began < PATIENCE


def test_which_hosts_are_loopback() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", "")] == [False] * 5
