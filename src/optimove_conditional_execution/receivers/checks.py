"""What every receiver refuses: functions that it could not call, and what is no `Request`."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from logging import Logger
from typing import Final

from pydantic import SecretBytes

from optimove_conditional_execution.credentials import copied_wrong
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


def warn_of_copies(logger: Logger, what: str, secrets: Iterable[SecretBytes]) -> None:
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
