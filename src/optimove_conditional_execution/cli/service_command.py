"""The integrator's own service, started by its command line and stopped when the rehearsal is over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar, final

import click

from optimove_conditional_execution.cli.listening import is_reachable, until_reachable
from optimove_conditional_execution.cli.processes import end_group, lines
from optimove_conditional_execution.cli.replies import origin
from optimove_conditional_execution.errors import ConfigurationError

START_SECONDS: Final = 30.0
"""How long a service may take to listen."""

_END_SECONDS: Final = 5.0
_LAST_WORDS_SECONDS: Final = 0.5
_LAST_LINES: Final = 5

T = TypeVar("T")

command_argument: Final = click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND ...]")
start_within_option: Final = click.option(
    "--start-within",
    type=click.FloatRange(0, 3_600),
    default=START_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long your service may take to listen.",
)


@final
class ServiceCommand:
    """A service that was started by its command line."""

    def __init__(self, process: asyncio.subprocess.Process, output: asyncio.Task[None], last: Sequence[str]) -> None:
        self._process = process
        self._output = output
        self._last = last

    async def until_listening(self, url: str, *, within: float) -> None:
        """Wait until it listens where a URL points.

        Args:
            url: An absolute URL.
            within: Seconds.

        Raises:
            ConfigurationError: It ended first, or time ran out.
        """
        await self.until(until_reachable(url), within=within, what=f"listen at {origin(url)}")

    async def until(self, ready: Coroutine[Any, Any, T], *, within: float, what: str) -> T:
        """Wait for something that the service brings about, and return it.

        Args:
            ready: Waits for it.
            within: Seconds.
            what: Its name, as in "to listen".

        Raises:
            ConfigurationError: The service ended first, or time ran out.
        """
        death = asyncio.create_task(self._process.wait())
        hope = asyncio.create_task(ready)
        try:
            done, _ = await asyncio.wait({death, hope}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
            if death in done:
                raise ConfigurationError(f"Your service ended, and did not {what}: {await self._last_words()}")
            if hope not in done:
                raise ConfigurationError(
                    f"Your service did not {what} within {within:g} s: give it another URL, or more time with "
                    "--start-within."
                )
            return hope.result()
        finally:
            for task in (death, hope):
                task.cancel()
            await asyncio.gather(death, hope, return_exceptions=True)

    @property
    def ended(self) -> str | None:
        """A sentence about its end; None while it runs."""
        status = self._process.returncode
        return None if status is None else f"your service ended during the rehearsal, with {_exit(status)}"

    async def _last_words(self) -> str:
        # What it wrote last may still be in the pipe, which something that it has started may hold open.
        await asyncio.wait({self._output}, timeout=_LAST_WORDS_SECONDS)
        status = self._process.returncode
        said = " | ".join(self._last) or "it wrote nothing to standard error"
        return f"{_exit(status or 0)}, at the end: {said}"


def _exit(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal {-status}"


@contextlib.asynccontextmanager
async def service_command(
    command: Sequence[str], settings: Mapping[str, str], *, url: str | None = None
) -> AsyncIterator[ServiceCommand]:
    """Run a service while the context lasts; what it writes goes to standard error.

    Args:
        command: Its command line.
        settings: Environment variables for it, beside those of this process.
        url: Where it will listen, if that is known: nothing else must be there.

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
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A pipe makes Python keep its output back, and people wait for it.
            env={"PYTHONUNBUFFERED": "1", **os.environ, **settings},
            # Ctrl-C in a terminal goes to the whole group; the service ends after its last answer, not before.
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        # A newcomer calls this program by its path in an environment that the shell does not know of.
        remedy = (
            " Give its path, or activate the environment that it is installed in."
            if isinstance(error, FileNotFoundError)
            else ""
        )
        raise ConfigurationError(f"Your service cannot be started: {command[0]}: {reason}.{remedy}") from None
    assert process.stdout is not None  # noqa: S101 - it was asked for
    assert process.stderr is not None  # noqa: S101 - it was asked for
    last: deque[str] = deque(maxlen=_LAST_LINES)
    output = asyncio.create_task(_pass_on(process.stdout, process.stderr, last))
    try:
        yield ServiceCommand(process, output, last)
    finally:
        await end_group(process, within=_END_SECONDS)
        await asyncio.wait({output}, timeout=_LAST_WORDS_SECONDS)
        output.cancel()
        await asyncio.gather(output, return_exceptions=True)


async def _pass_on(out: asyncio.StreamReader, err: asyncio.StreamReader, last: deque[str]) -> None:
    async def show(stream: asyncio.StreamReader) -> None:
        async for line in lines(stream):
            if stream is err and line.strip():
                last.append(line.decode("utf-8", "replace").strip())
            # Not to standard output, which is for results.
            # When its reader has gone we read on: a full pipe would stop the service, and the verdict would blame it.
            with contextlib.suppress(OSError):
                click.echo(line, err=True)

    await asyncio.gather(show(out), show(err))
