"""What every receiver refuses: functions that it could not call, and what is no `Request`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from typing import Final, NoReturn

from pydantic import SecretBytes

from optimove_conditional_execution.credentials import copied_wrong
from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.drivers import is_async
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.messages import Request
from optimove_conditional_execution.observers import SafeLogger

_COUNTS: Final = {0: "no argument", 1: "one argument", 2: "two arguments"}


def check_function(name: str, function: object, *parameters: str) -> None:
    """Refuse what cannot be called with so many positional arguments.

    Args:
        name: The setting.
        function: What was given.
        parameters: What it will be called with, in words.

    Raises:
        ConfigurationError: It is no function, or takes something else.
    """
    meant = " and ".join(f"the {parameter}" for parameter in parameters)
    if not callable(function):
        raise ConfigurationError(f"{name} must be a function{meant and f' of {meant}'}.")
    try:
        signature = inspect.signature(function, follow_wrapped=False)  # what is called, not what it wraps
    except (TypeError, ValueError):  # some callables have none to look at
        return
    try:
        signature.bind(*parameters)
    except TypeError:
        called = getattr(function, "__name__", type(function).__name__)
        raise ConfigurationError(
            f"{name} must take {_COUNTS[len(parameters)]}{meant and f', {meant}'}; {called}{signature} does not."
        ) from None


def check_around(around: object) -> None:
    """Refuse what cannot make context managers.

    Raises:
        ConfigurationError: It is no function without arguments, or a coroutine function.
    """
    check_function("around", around)
    if is_async(around):
        raise ConfigurationError(
            "around must be a function that returns a context manager; decorate an async generator function with "
            "contextlib.asynccontextmanager."
        )


def warn_of_copies(logger: SafeLogger, what: str, secrets: Iterable[SecretBytes]) -> None:
    """Log what looks copied wrong about secrets: the kind of mistake, and never the secret.

    Args:
        logger: The receiver's.
        what: What the secrets are, in words.
        secrets: As they were given.
    """
    for secret in secrets:
        for found in copied_wrong(secret.get_secret_value()):
            logger.warning("%s %s: %s", what, found.what, found.remedy)


def check_request(request: object) -> None:
    """Refuse a framework's own request.

    Raises:
        ConfigurationError: It is no `Request`.
    """
    if not isinstance(request, Request):
        raise ConfigurationError(
            f"handle needs a Request(method, path, query, headers, body), not a {type(request).__name__}: "
            "build it from your framework's request, with the raw body."
        )


def check_deadline(deadline: object) -> None:
    """Refuse what is no deadline.

    Raises:
        ConfigurationError: It is neither a `Deadline` nor None.
    """
    if deadline is not None and not isinstance(deadline, Deadline):
        raise ConfigurationError("handle's deadline must be a Deadline, such as Deadline.after(seconds), or None.")


def refuse_running_loop(receiver: str, twin: str) -> None:
    """Refuse to block an event loop: everything else that it serves would stand still meanwhile.

    Raises:
        ConfigurationError: An event loop runs the caller.
    """
    try:
        # Not `get_running_loop`: under gevent a thread's greenlets all see the loop that one of them runs.
        task = asyncio.current_task()
    except RuntimeError:
        return
    if task is not None:
        raise ConfigurationError(
            f"{receiver}.handle blocks, so it must not be called in an event loop, as in an async view: use {twin}, or "
            "call it in a thread, as with await asyncio.to_thread(receiver.handle, request)."
        )


def refuse_pickling(receiver: object) -> NoReturn:
    """Refuse to pickle a receiver.

    Raises:
        TypeError: Always, as for everything that cannot be pickled.
    """
    raise TypeError(
        f"A {type(receiver).__name__} cannot be pickled or copied: it holds threads, connections and claims of this "
        "process. Make one in each process, as in a function that your server calls at its start."
    )
