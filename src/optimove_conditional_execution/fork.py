"""Around `os.fork`: what must rest meanwhile, and the reset of connections, threads and locks in the child."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol


class Forkable(Protocol):
    """An object with resources that a child process must not share with its parent.

    Its methods call `detect_fork` before they use them.
    """

    def after_fork(self) -> None:
        """Reset, in the only thread of the child: locks may be held by threads that no longer exist."""
        ...


class Resting(Protocol):
    """An object that must not be in use while its process forks."""

    def rest(self, seconds: float) -> Callable[[], object] | None:
        """Wait until it is not in use, and keep it so.

        Args:
            seconds: Seconds at most.

        Returns:
            What ends the rest; None if the time was not enough.
        """
        ...


_REGISTERED: Final[weakref.WeakSet[Forkable]] = weakref.WeakSet()
_RESTING: Final[weakref.WeakSet[Resting]] = weakref.WeakSet()
_REST_SECONDS: Final = 2.0
"""Seconds by which a fork is delayed at most."""

_forking = threading.local()
_lock = threading.RLock()  # a signal handler may fork while its thread holds it
_process = os.getpid()


def reset_after_fork(forkable: Forkable) -> None:
    """Call `after_fork` of an object in each child process that is forked while it lives."""
    _REGISTERED.add(forkable)


def rest_during_fork(resting: Resting) -> None:
    """Let an object rest in each fork that is made through Python while it lives.

    What interrupts that wait is lost, such as a Ctrl-C: Python lets no hook of a fork raise. A signal
    handler that forks meanwhile can lock up in Python's own hooks, those of `concurrent.futures`.
    """
    with _lock:
        _RESTING.add(resting)


def detect_fork() -> None:
    """Start afresh in a child process whose fork Python was not told of.

    `os.register_at_fork` sees only forks that are made through Python. uWSGI forks its workers in C and by default runs
    no hooks.
    """
    if _process != os.getpid():
        with _lock:
            if _process != os.getpid():
                _reset()


class ForkLock:
    """A lock that is free in a forked child, whoever held it. For rare use: it is slower than a `threading.Lock`."""

    def __init__(self, make: Callable[[], Any] = threading.Lock) -> None:
        """Make a lock.

        Args:
            make: `threading.Lock` or `threading.RLock`.
        """
        self._make = make
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock, which a thread may hold that the child does not have."""
        self._lock = self._make()

    def __enter__(self) -> None:
        detect_fork()
        lock = self._lock
        lock.acquire()
        self._held = lock  # which is another one than `_lock` in a child that its holder forks

    def __exit__(self, *_: object) -> None:
        self._held.release()


def _reset() -> None:
    global _process
    for forkable in list(_REGISTERED):
        forkable.after_fork()
    _process = os.getpid()  # last: a thread that sees it sees the rest


def _before_fork() -> None:
    ends: list[Callable[[], object]] = []
    # Of this thread's forks: a signal handler may fork while this one waits, and other threads at any time.
    vars(_forking).setdefault("ends", []).append(ends)
    with _lock:
        resting = list(_RESTING)
    until = time.monotonic() + _REST_SECONDS
    for each in resting:
        # Python prints what a hook of a fork raises, and goes on: so does what a signal handler raises here.
        with contextlib.suppress(BaseException):
            if (end := each.rest(max(0.0, until - time.monotonic()))) is not None:
                ends.append(end)


def _after_fork_in_parent() -> None:
    for end in _forking.ends.pop():
        end()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    _reset()
    _forking.ends.pop()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)
