"""The rehearsed service: wait for it, or start it by its command line and stop it with its child processes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from pydantic import Secret

from ..deadline import Deadline
from ..errors import ConfigurationError, DeadlineExceeded, TransportError
from ..transport.engine import OutgoingRequest
from ..transport.http import AsyncHttpEngine
from ..urls import origin

_END_SECONDS: Final = 5.0
_LAST_WORDS_SECONDS: Final = 0.5
_LAST_LINES: Final = 5
_LONGEST_LINE: Final = 4_096
_NEVER_AWAITED: Final = re.compile(r"RuntimeWarning: coroutine '([^']+)' was never awaited")
"""What Python prints when it collects such a coroutine."""

_LOOK_AGAIN: Final = 0.02
_CONNECT_SECONDS: Final = 2.0
_FIRST_ANSWER_SECONDS: Final = 10.0

T = TypeVar("T")


async def is_reachable(url: str) -> bool:
    """Whether something takes connections where a URL points.

    Args:
        url: An absolute URL.

    Raises:
        ConfigurationError: No machine has that name.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, port)
    except (socket.gaierror, UnicodeError):  # the latter for what cannot be a name, such as a..b
        raise ConfigurationError(f"No machine is called {parts.hostname}: check the URL.") from None
    except OSError:
        return False
    writer.close()
    return True


async def until_reachable(url: str) -> str:
    """Wait until a server answers where a URL points, and return the URL.

    Servers such as gunicorn take connections long before their workers can answer. What waited in that queue would come
    to a handler without its time. So `GET /` is sent first, and any response will do.

    Args:
        url: An absolute URL.

    Raises:
        ConfigurationError: No machine has that name.
    """
    while not await is_reachable(url):
        await asyncio.sleep(_LOOK_AGAIN)
    request = OutgoingRequest(
        "GET", f"{origin(url)}/", Secret({}), None, Deadline.after(_FIRST_ANSWER_SECONDS), _FIRST_ANSWER_SECONDS
    )
    async with contextlib.aclosing(AsyncHttpEngine()) as engine:
        with contextlib.suppress(TransportError, DeadlineExceeded):  # the rehearsal says what is wrong with a service
            await engine.send(request)
    return url


class Service:
    """A service that was started by its command line.

    Attributes:
        pid: Its process id, and that of its group.
        never_awaited: Names of coroutines that it did not await, as Python has warned on its output.
    """

    def __init__(self, process: asyncio.subprocess.Process, *, is_sample: bool) -> None:
        self.pid = process.pid
        self.never_awaited: list[str] = []
        self._process = process
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._name = "The sample service" if is_sample else "Your service"
        self._output = asyncio.create_task(self._pass_on(is_shown=not is_sample))

    async def until(self, ready: Coroutine[Any, Any, T], *, within: float, what: str) -> T:
        """Wait for a result of the service, and return it.

        Args:
            ready: Waits for it.
            within: Seconds.
            what: Its name, as in "to listen".

        Raises:
            ConfigurationError: The service ended first, or time ran out.
        """
        end = asyncio.create_task(self._process.wait())
        waiting = asyncio.create_task(ready)
        try:
            done, _ = await asyncio.wait({end, waiting}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
            if end in done:
                raise ConfigurationError(f"{self._name} ended, and did not {what}: {await self._last_words()}")
            if waiting not in done:
                raise ConfigurationError(
                    f"{self._name} did not {what} within {within:g} s: give it another URL, or more time with "
                    "--start-within."
                )
            return waiting.result()
        finally:
            for task in (end, waiting):
                task.cancel()
            await asyncio.gather(end, waiting, return_exceptions=True)

    @property
    def ended(self) -> str:
        """A sentence about its end, without full stop; empty while it runs."""
        status = self._process.returncode
        return "" if status is None else f"{self._name} ended during the rehearsal, with {_exit(status)}"

    async def _pass_on(self, *, is_shown: bool) -> None:
        async def show(stream: asyncio.StreamReader | None) -> None:
            assert stream is not None  # noqa: S101 - it was asked for
            async for line in lines(stream):
                text = line.decode("utf-8", "replace")
                if stream is self._process.stderr and text.strip():
                    self._last.append(text.strip())
                self.never_awaited += [name for name in _NEVER_AWAITED.findall(text) if name not in self.never_awaited]
                # Not to standard output, which is for results.
                # Read on when standard error is closed: a full pipe would block the service.
                with contextlib.suppress(OSError):
                    if is_shown:
                        print(text, file=sys.stderr, flush=True)

        await asyncio.gather(show(self._process.stdout), show(self._process.stderr))

    async def end(self) -> None:
        """Terminate it with its child processes, and read the rest of its output."""
        await end_group(self._process, within=_END_SECONDS)
        await asyncio.wait({self._output}, timeout=_LAST_WORDS_SECONDS)
        self._output.cancel()
        await asyncio.gather(self._output, return_exceptions=True)

    async def _last_words(self) -> str:
        # Its last output may still be in the pipe, which a child process may hold open.
        await asyncio.wait({self._output}, timeout=_LAST_WORDS_SECONDS)
        said = " | ".join(self._last) or "it wrote nothing to standard error"
        return f"{_exit(self._process.returncode or 0)}, at the end: {said}"


@contextlib.asynccontextmanager
async def started(
    command: Sequence[str], environment: Mapping[str, str], *, url: str | None = None, is_sample: bool = False
) -> AsyncIterator[Service]:
    """Run a service while the context lasts.

    What it writes goes to standard error. At the end it and its child processes are terminated, and what is left
    after five seconds is killed.

    Args:
        command: Its command line.
        environment: Environment variables for it, beside those of this process.
        url: Where it will listen, if that is known; nothing else may listen there.
        is_sample: Whether it is the sample service, whose output is not needed, and which ends with its standard
            input, so also when this process is killed.

    Raises:
        ConfigurationError: The command cannot be started, or something else listens at the URL.
    """
    if url is not None and await is_reachable(url):
        raise ConfigurationError(
            f"Something listens at {origin(url)} already: stop it, or leave COMMAND away to rehearse what runs there."
        )
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.PIPE if is_sample else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # With a pipe Python buffers its output, and users would wait for it.
            env={"PYTHONUNBUFFERED": "1", **os.environ, **environment},
            # Ctrl-C in a terminal goes to the whole group; the service ends after its last answer, not before.
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        # The program may have been called by its path in an environment that is not active.
        remedy = (
            " Give its path, or activate the environment that it is installed in."
            if isinstance(error, FileNotFoundError)
            else ""
        )
        raise ConfigurationError(f"Your service cannot be started: {command[0]}: {reason}.{remedy}") from None
    service = Service(process, is_sample=is_sample)
    try:
        yield service
    finally:
        await service.end()


async def end_group(process: asyncio.subprocess.Process, *, within: float) -> None:
    """Terminate a process and its child processes, and kill what is left then.

    Args:
        process: One that was started with `start_new_session=True`, so that it leads a group of its own.
        within: Seconds that they have.
    """
    end = time.monotonic() + within
    _end(process, at_once=False)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            await process.wait()
    # Reloaders and workers can outlive the process that started them.
    while _has_members(process) and time.monotonic() < end:
        await asyncio.sleep(_LOOK_AGAIN)
    _end(process, at_once=True)
    await process.wait()


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield what a process writes, line by line, without their ends; a very long line comes in pieces.

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


def _exit(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}"


def _end(process: asyncio.subprocess.Process, *, at_once: bool) -> None:
    # macOS raises PermissionError for a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL if at_once else signal.SIGTERM)


def _has_members(process: asyncio.subprocess.Process) -> bool:
    if sys.platform == "win32":
        return False
    try:
        os.killpg(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
