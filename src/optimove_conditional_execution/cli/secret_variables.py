"""Where the command finds webhook secrets: in the environment, else from a hidden prompt; never among its options."""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Mapping
from typing import Final

import click

from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.settings import SECRET_VARIABLE

# The secret; further ones, while you rotate, in the same name with `_2`, `_3` and so on.
_NAME: Final = re.compile(rf"{SECRET_VARIABLE}(?:_([2-9]|[1-9][0-9]))?")

NamedSecret = tuple[str, bytes]
"""The variable, and its value as bytes."""


def named_secrets(environment: Mapping[str, str]) -> list[NamedSecret]:
    """Return whatever secrets an environment has, in the order of their numbers, blank ones too.

    Args:
        environment: Such as `os.environ`.
    """
    found = [(int(match[1] or 1), name) for name in environment if (match := _NAME.fullmatch(name))]
    return [(name, os.fsencode(environment[name])) for _, name in sorted(found)]


def webhook_secrets(environment: Mapping[str, str]) -> list[NamedSecret]:
    """Return the secrets of an environment, in the order of their numbers.

    Args:
        environment: Such as `os.environ`.

    Raises:
        ConfigurationError: There is none, or one of them is blank.
    """
    named = named_secrets(environment)
    if not named:
        raise ConfigurationError(
            f"The webhook secret is missing: set the environment variable {SECRET_VARIABLE}. "
            "It is the one that UpdateWebhookSettings was given."
        )
    for name, secret in named:
        if not secret.strip():
            raise ConfigurationError(f"{name} is empty or blank: anybody could sign with it.")
    return named


def given_secrets() -> list[NamedSecret]:
    """Return the secrets of this process's environment, or ask for one when somebody sits at the terminal.

    Raises:
        ConfigurationError: There is none, or one of them is blank.
    """
    if not any(_NAME.fullmatch(name) for name in os.environ) and sys.stdin is not None and sys.stdin.isatty():
        # Unstripped: white space around a secret is a mistake that `verify` can tell.
        answer: str = click.prompt("Webhook secret", hide_input=True, err=True)
        return webhook_secrets({SECRET_VARIABLE: answer})
    return webhook_secrets(os.environ)


def as_text(secret: NamedSecret) -> str:
    """Return a secret as JSON can carry it.

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
    if any(_NAME.fullmatch(name) for name in environment):
        return as_text(webhook_secrets(environment)[0]), False
    return secrets.token_urlsafe(32), True
