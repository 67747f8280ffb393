"""The kill switch of receivers and reviews: a function or a file that stops approvals without a deployment.

Pass it as `switch=`. "Stop everything now" in the documentation says how to use it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

from .deadline import Deadline
from .drivers import contained, not_awaitable
from .errors import ConfigurationError
from .flows.switch import Switch, SwitchMode, SwitchState, changed
from .observers import SafeLogger
from .validation import check_callable, is_async
from .worker_pool import DaemonThreadPool, aresult_by, result_by

__all__ = ["SwitchMode", "SwitchSource", "SwitchState", "change_switch", "read_switch"]

SwitchSource = str | PathLike[str] | Callable[[], Any]
"""The path of a file, or a function without arguments (with an async receiver or review also a coroutine function) that
returns `"ask"`, `"deny"` or `"abstain"`, the text of such a file, or a `SwitchState`."""

Through = Callable[[DaemonThreadPool], Any]

_LOGGER: Final = SafeLogger("switch")

_MAX_BYTES: Final = 65_536

_LOCK_SECONDS: Final = 5.0
_LOCK_PAUSE: Final = 0.01


def read_switch(path: str | PathLike[str]) -> SwitchState:
    """Read the file of a switch.

    Args:
        path: The file.

    Raises:
        ConfigurationError: It is invalid: too long, not UTF-8, or a line of it is; the message has its number.
        OSError: It cannot be read.
    """
    # A FIFO that stands there would keep the thread for ever, also when a file has replaced it.
    with open(path, "rb", opener=_opened_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ConfigurationError("The switch must be a regular file.")
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ConfigurationError(f"The file of the switch has more than {_MAX_BYTES} bytes.")
    try:
        return SwitchState.parse(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"Line {line} of the switch is not UTF-8.") from None


def _opened_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def change_switch(
    path: str | PathLike[str], mode: SwitchMode, *, campaigns: tuple[str, ...] = (), tags: tuple[str, ...] = ()
) -> SwitchState:
    """Set what a file says, and write it so that a reader sees either the old or the new one.

    Owner and mode of an existing file are kept, as far as the system allows it. Comments are not.

    Args:
        path: The file; it is made if it does not exist.
        mode: `"ask"`, `"deny"` or `"abstain"`.
        campaigns: Only for these campaigns.
        tags: Only for the campaigns with these tags.

    Returns:
        What the file says now.

    Raises:
        ConfigurationError: The file is invalid; or a name is empty or has a line break.
        OSError: The file cannot be read or written.
    """
    if any(not name.strip() or len(name.splitlines()) > 1 for name in (*campaigns, *tags)):
        raise ConfigurationError("A campaign or a tag must not be empty, and stand on one line.")
    real = Path(os.path.realpath(path))  # the file that a link points to, not the link
    with _alone(real.parent):
        return _changed_file(real, mode, campaigns, tags)


def _changed_file(real: Path, mode: SwitchMode, campaigns: tuple[str, ...], tags: tuple[str, ...]) -> SwitchState:
    before = SwitchState()
    try:
        before = read_switch(real)
    except FileNotFoundError:
        pass
    except ConfigurationError:
        if mode == "ask" or campaigns or tags:
            raise
        # Stopping everything must not fail because of what stood there before.
    state = changed(before, mode, [name.strip() for name in campaigns], [name.strip() for name in tags])
    fresh = real.with_name(f".{real.name}.{secrets.token_hex(8)}.new")  # no crash leaves one that stands in the way
    try:
        with fresh.open("x", encoding="utf-8") as file:
            file.write("\n".join((*state.lines(), "")))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError):
            known = real.stat()
            fresh.chmod(known.st_mode & 0o7777)
            with suppress(AttributeError, PermissionError):  # Windows has no owners
                os.chown(fresh, known.st_uid, known.st_gid)
        fresh.replace(real)
    finally:
        fresh.unlink(missing_ok=True)
    return state


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process at a time change the switches of a folder, so that none undoes what another has stopped.

    Where folders cannot be locked, and when another process holds the lock for long, it goes on all the same: stopping
    must not fail because of a lock.
    """
    locked: int | None = None
    try:
        with suppress(OSError, ImportError):  # Windows has neither
            import fcntl

            locked = os.open(folder, os.O_RDONLY)
            until = Deadline.after(_LOCK_SECONDS)
            while not until.expired:
                with suppress(BlockingIOError):
                    fcntl.flock(locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(_LOCK_PAUSE)
        yield
    finally:
        if locked is not None:
            os.close(locked)


def make_switch(
    source: SwitchSource,
    *,
    pause: Callable[[float], Any],
    in_loop: bool,
    takes_coroutines: bool | None = None,
    through: Through = lambda pool: pool,
) -> Switch:
    """Return a switch as a receiver or a review looks at it.

    Args:
        source: As the integrator gave it.
        pause: Sleeps for a number of seconds.
        in_loop: Whether it is looked at in an event loop.
        takes_coroutines: Whether it may be a coroutine function; by default that is so in an event loop.
        through: Returns what runs a plain function, in place of the pool that is made for it.

    Raises:
        ConfigurationError: It is neither a path nor a function without arguments; or a coroutine function, and must
            not be one.
    """
    if isinstance(source, str | PathLike):
        call: Callable[[], Any] = functools.partial(read_switch, fspath(source))
    else:
        check_callable("switch", source, hint="Or pass the path of a file.")
        call = source
    if is_async(call) and not (in_loop if takes_coroutines is None else takes_coroutines):
        raise ConfigurationError("switch must be a plain function here; a coroutine function needs the async class.")
    # One thread: a call that hangs occupies it, and those behind it are given up in time.
    pool = DaemonThreadPool(1, on_full="queue", name="optimove-switch")

    def read(seconds: float) -> Any:
        until = Deadline.after(seconds)
        if in_loop:
            return aresult_by(asyncio.ensure_future(said()), until)
        return not_awaitable(result_by(through(pool).submit(call, ()), until))

    async def said() -> Any:
        with contained():
            answer = call() if is_async(call) else await asyncio.wrap_future(through(pool).submit(call, ()))
            return await answer if inspect.isawaitable(answer) else answer  # of a lambda around a coroutine function

    return Switch(
        read=read,
        pause=pause,
        clock=time.monotonic,
        on_change=lambda told: _LOGGER.warning("the switch says %s", told),
    )
