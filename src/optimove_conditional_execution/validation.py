"""Checks of settings and arguments. Each error names the setting, and never quotes its value."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import Final

from pydantic import SecretBytes

from .credentials import copied_wrong
from .errors import ConfigurationError
from .observers import SafeLogger
from .urls import split_absolute

_COUNTS: Final = {0: "no argument", 1: "one argument", 2: "two arguments"}


def integer(name: str, value: object, *, minimum: int = 1) -> int:
    """Return a whole number.

    Args:
        name: The setting.
        value: What was given.
        minimum: The smallest that is allowed.

    Raises:
        ConfigurationError: It is something else, or less.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigurationError(f"{name} must be a whole number, {minimum} or more.")
    return value


def seconds(name: str, value: object, *, above_zero: bool = False) -> float:
    """Return a number of seconds: 0 or more, or above 0; infinity is one.

    Raises:
        ConfigurationError: It is none.
    """
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not usable or not (value > 0 if above_zero else value >= 0):  # type: ignore[operator]  # a number, see above
        raise ConfigurationError(f"{name} must be a number of seconds, {'above 0' if above_zero else '0 or more'}.")
    return value  # type: ignore[return-value]  # a number, see above


def absolute_url(name: str, value: object) -> str:
    """Return an absolute URL of http or https, as it was given.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(value, str) or split_absolute(value) is None:
        raise ConfigurationError(f"{name} must be absolute, such as https://gate.example.com/optimove.")
    return value


def is_async(function: object) -> bool:
    """Return whether calling `function` makes a coroutine."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    # An object whose class has `async def __call__` is one too.
    return inspect.iscoroutinefunction(inspect.getattr_static(type(function), "__call__", None))


def check_callable(name: str, function: object, *parameters: str, hint: str = "") -> None:
    """Reject what cannot be called with so many positional arguments.

    Args:
        name: The setting.
        function: What was given.
        parameters: What it will be called with, in words.
        hint: A sentence for a function that takes other arguments.

    Raises:
        ConfigurationError: It is no function, or takes something else.
    """
    meant = " and ".join(f"the {parameter}" for parameter in parameters)
    if not callable(function):
        raise ConfigurationError(f"{name} must be a function{meant and f' of {meant}'}.")
    try:
        signature = inspect.signature(function, follow_wrapped=False)  # what is called, not what it wraps
    except (TypeError, ValueError):  # some callables have none
        return
    try:
        signature.bind(*parameters)
    except TypeError:
        called = getattr(function, "__name__", type(function).__name__)
        raise ConfigurationError(
            f"{name} must take {_COUNTS[len(parameters)]}{meant and f', {meant}'}; {called}{signature} does not."
            f"{hint and f' {hint}'}"
        ) from None


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
