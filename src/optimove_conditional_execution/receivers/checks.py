"""What every receiver refuses: functions that it could not call, and what is no `Request`."""

from __future__ import annotations

import inspect
from typing import Final

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.messages import Request

_COUNTS: Final = {1: "one argument", 2: "two arguments"}


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
        raise ConfigurationError(f"{name} must be a function of {meant}.")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables have none to look at
        return
    try:
        signature.bind(*parameters)
    except TypeError:
        called = getattr(function, "__name__", type(function).__name__)
        raise ConfigurationError(
            f"{name} must take {_COUNTS[len(parameters)]}, {meant}; {called}{signature} does not."
        ) from None


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
