"""Processes that are started and never left behind: their output, and their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Final

_LONGEST_LINE: Final = 4_096
_LOOK_AGAIN: Final = 0.02


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Return what a process writes, line by line, without their ends; a very long line comes in pieces.

    Read it all the time, since a full pipe would block the process.

    Args:
        stream: Its standard output or error.
    """
    rest = b""
    while chunk := await stream.read(_LONGEST_LINE):
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r")
        if len(rest) >= _LONGEST_LINE:
            yield rest
            rest = b""
    if rest:
        yield rest


async def ended(process: asyncio.subprocess.Process, *, within: float) -> bool:
    """Wait for a process to end by itself, and say whether it has.

    Args:
        process: It.
        within: Seconds.
    """
    try:
        async with asyncio.timeout(within):
            await process.wait()
    except TimeoutError:
        return False
    return True


async def end_group(process: asyncio.subprocess.Process, *, within: float) -> None:
    """Ask a process and all that it has started to end, and kill what is left then.

    Args:
        process: One that was started with `start_new_session=True`, so that it leads a group of its own.
        within: Seconds that they have.
    """
    end = time.monotonic() + within
    _tell(process, signal.SIGTERM)
    await ended(process, within=within)
    # Reloaders and workers can outlive the process that started them.
    while _has_members(process) and time.monotonic() < end:
        await asyncio.sleep(_LOOK_AGAIN)
    kill_group(process)
    await process.wait()


def kill_group(process: asyncio.subprocess.Process) -> None:
    """Kill a process and all that it has started.

    Args:
        process: One that was started with `start_new_session=True`.
    """
    if sys.platform == "win32":
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    else:
        _tell(process, signal.SIGKILL)


def _tell(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # PermissionError is macOS's word for a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.send_signal(number)
        else:
            os.killpg(process.pid, number)


def _has_members(process: asyncio.subprocess.Process) -> bool:
    if sys.platform == "win32":
        return False
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
