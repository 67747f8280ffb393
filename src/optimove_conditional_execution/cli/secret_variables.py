"""Webhook secrets of the command: from the environment, else from a hidden prompt; never from options."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping

import click

from .. import settings
from ..errors import ConfigurationError
from ..settings import SECRET_VARIABLE as SECRET_VARIABLE
from ..settings import secret_variables

NamedSecret = tuple[str, bytes]
"""The variable, and its value as bytes."""


def webhook_secrets(environment: Mapping[str, str]) -> list[NamedSecret]:
    """Return the secrets of an environment with their variables, in the order of their numbers.

    Args:
        environment: Such as `os.environ`.

    Raises:
        ConfigurationError: There is none, or one of them is blank.
    """
    found = settings.webhook_secrets(environment)
    return list(zip(secret_variables(environment), (each.get_secret_value() for each in found), strict=True))


def given_secrets() -> list[NamedSecret]:
    """Return the secrets of this process's environment, or ask for one on a terminal.

    Raises:
        ConfigurationError: There is none, or one of them is blank.
    """
    if not secret_variables(os.environ) and sys.stdin is not None and sys.stdin.isatty():
        # Unstripped: white space around a secret is a mistake that `verify` can tell.
        answer: str = click.prompt("Webhook secret", hide_input=True, err=True)
        return webhook_secrets({SECRET_VARIABLE: answer})
    return webhook_secrets(os.environ)


def as_text(secret: NamedSecret) -> str:
    """Return a secret as text for JSON.

    Raises:
        ConfigurationError: It is not UTF-8 text.
    """
    name, value = secret
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name} is not UTF-8 text: it cannot be sent as JSON.") from None


def secret_or_new(environment: Mapping[str, str]) -> tuple[str, bool]:
    """Return the webhook secret of an environment, else a new one, and whether it is new.

    Args:
        environment: Such as `os.environ`.

    Raises:
        ConfigurationError: The one that is set is blank, or not UTF-8 text.
    """
    if secret_variables(environment):
        return as_text(webhook_secrets(environment)[0]), False
    return secrets.token_urlsafe(32), True
