"""An integrator's service in a process of its own, which never outlives this one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from optimove_conditional_execution.cli.processes import ended, kill_group, lines
from optimove_conditional_execution.errors import ConfigurationError

# -P: a file of the working directory must not stand in for a module of ours.
SAMPLE_SERVICE: Final = (sys.executable, "-P", "-m", "optimove_conditional_execution.cli.sample_service")

_START_SECONDS: Final = 30.0
_END_SECONDS: Final = 3.0
_KEPT_LINES: Final = 20


@contextlib.asynccontextmanager
async def service_process(
    settings: Mapping[str, str], *, command: Sequence[str] = SAMPLE_SERVICE
) -> AsyncIterator[str]:
    """Run a service while the context lasts.

    The service writes the URL of its webhook as its first line, and ends when its standard input is closed. So it ends
    with this process even when that is killed; one that does not end by itself is killed.

    Args:
        settings: Environment variables for it, beside those of this process.
        command: How to start it.

    Yields:
        The URL of its webhook.

    Raises:
        ConfigurationError: It did not start.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **settings},
        # Ctrl-C in a terminal goes to the whole group; the service ends after its last answer, not before.
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 - it was asked for
    assert process.stderr is not None  # noqa: S101 - it was asked for
    complaints: deque[str] = deque(maxlen=_KEPT_LINES)
    listening = asyncio.create_task(_listen(process.stderr, complaints))
    try:
        url = await _first_line(process.stdout)
        if url:
            yield url
    finally:
        await _end(process)
        await listening
    if not url:
        last = complaints[-1] if complaints else "it said nothing"
        raise ConfigurationError(f"The sample service did not start: {last}")


async def _first_line(stream: asyncio.StreamReader) -> str:
    try:
        async with asyncio.timeout(_START_SECONDS):
            return (await stream.readline()).decode("utf-8", "replace").strip()
    except TimeoutError:
        return ""


async def _listen(stream: asyncio.StreamReader, complaints: deque[str]) -> None:
    async for line in lines(stream):
        if text := line.decode("utf-8", "replace").strip():
            complaints.append(text)


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None  # noqa: S101 - it was asked for
    process.stdin.close()
    if not await ended(process, within=_END_SECONDS):
        kill_group(process)
        await process.wait()
