"""Checks of settings and arguments: each error names the setting, and never quotes its value. Counts in messages."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from types import FunctionType
from typing import TYPE_CHECKING, Final

from .errors import ConfigurationError
from .observers import SafeLogger
from .urls import split_absolute

if TYPE_CHECKING:
    from pydantic import SecretBytes

_COUNTS: Final = {0: "no argument", 1: "one argument", 2: "two arguments"}


def integer(name: str, value: object, *, minimum: int = 1) -> int:
    """Return `value` if it is a whole number, `minimum` or more.

    Args:
        name: The setting.
        value: What was given.
        minimum: The smallest that is allowed.

    Raises:
        ConfigurationError: It is not a whole number, or is less.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigurationError(f"{name} must be a whole number, {minimum} or more.")
    return value


def seconds(name: str, value: object, *, above_zero: bool = False) -> float:
    """Return `value` if it is a number of seconds: 0 or more, or above 0; infinity is allowed.

    Raises:
        ConfigurationError: It is not.
    """
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if not usable or not (value > 0 if above_zero else value >= 0):  # type: ignore[operator]  # a number, see above
        raise ConfigurationError(f"{name} must be a number of seconds, {'above 0' if above_zero else '0 or more'}.")
    return value  # type: ignore[return-value]  # a number, see above


def absolute_url(name: str, value: object) -> str:
    """Return `value` unchanged if it is an absolute URL of http or https.

    Raises:
        ConfigurationError: It is none.
    """
    if not isinstance(value, str) or split_absolute(value) is None:
        raise ConfigurationError(f"{name} must be absolute, such as https://gate.example.com/optimove.")
    return value


def is_async(function: object) -> bool:
    """Return whether `function` is a coroutine function."""
    if isinstance(function, FunctionType) and function.__code__.co_flags & inspect.CO_COROUTINE:
        return True  # `inspect` takes several times as long to say so
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function):
        return True
    # So is an object whose class has `async def __call__`.
    return inspect.iscoroutinefunction(inspect.getattr_static(type(function), "__call__", None))


def check_callable(name: str, function: object, *parameters: str, hint: str = "") -> None:
    """Reject a value that cannot be called with this many positional arguments.

    Args:
        name: The setting.
        function: What was given.
        parameters: Its arguments, in words.
        hint: A sentence to add when the function takes other arguments.

    Raises:
        ConfigurationError: It is not a function, or takes other arguments.
    """
    meant = " and ".join(f"the {parameter}" for parameter in parameters)
    if not callable(function):
        raise ConfigurationError(f"{name} must be a function{meant and f' of {meant}'}.")
    try:
        signature = inspect.signature(function, follow_wrapped=False)  # what is called, not what it wraps
    except (TypeError, ValueError):  # some callables have no signature
        return
    try:
        signature.bind(*parameters)
    except TypeError:
        called = getattr(function, "__name__", type(function).__name__)
        raise ConfigurationError(
            f"{name} must take {_COUNTS[len(parameters)]}{meant and f', {meant}'}; {called}{signature} does not."
            f"{hint and f' {hint}'}"
        ) from None


def check_takes(name: str, function: Callable[..., object], keyword: str, *, needed_by: str) -> None:
    """Reject a function that does not take a keyword argument.

    Args:
        name: What the function is, in words.
        function: The function.
        keyword: The argument.
        needed_by: The setting that needs it.

    Raises:
        ConfigurationError: It does not take it.
    """
    try:
        parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):  # some callables have no signature
        return
    if not any(each.kind is each.VAR_KEYWORD or each.name == keyword for each in parameters):
        raise ConfigurationError(
            f"{name} must take {keyword}=, which {needed_by} needs; hand it on to the client's own method."
        )


def warn_of_copies(logger: SafeLogger, what: str, secrets: Iterable[SecretBytes]) -> None:
    """Log likely copy-and-paste mistakes in secrets: the kind of mistake, never the secret.

    Args:
        logger: The receiver's.
        what: The kind of secret, in words.
        secrets: As they were given.
    """
    from .credentials import copied_wrong

    for secret in secrets:
        for found in copied_wrong(secret.get_secret_value()):
            logger.warning("%s %s: %s", what, found.what, found.remedy)


def number_of(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun, in the plural except for 1, for a message.

    Args:
        count: The count.
        noun: The noun in the singular.
        plural: Its plural, if that is not formed with an s.
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
