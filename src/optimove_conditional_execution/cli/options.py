"""What several commands take: URLs, `--json`, the user's functions, and webhook secrets, which are never options."""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from ..errors import ConfigurationError
from ..urls import split_absolute

F = TypeVar("F", bound=Callable[..., Any])

CLAIMS_VARIABLE: Final = "OPTIMOVE_CLAIMS_URL"
MAX_TIMEOUT_MS: Final = 3_600_000
_SUFFIXES: Final = (".html", ".htm")

NamedSecret = tuple[str, bytes]
"""The variable, and its value as bytes."""

json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else.")
json_lines_option: Final = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")


def together(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Return one decorator for options that several commands share."""
    return lambda function: functools.reduce(lambda added, option: option(added), reversed(options), function)


class Seconds(click.FloatRange):
    """A number of seconds in a range."""

    name = "seconds"


def url(value: str) -> str:
    """Return an absolute URL; the type of options and arguments.

    Raises:
        BadParameter: It is none.
    """
    if split_absolute(value) is None:
        raise click.BadParameter("give an absolute URL, such as http://127.0.0.1:8000/optimove")
    return value


def given_secrets() -> list[NamedSecret]:
    """Return the webhook secrets of this process's environment, or ask for one on a terminal.

    Raises:
        ConfigurationError: There is none, or one of them is blank.
    """
    from ..settings import SECRET_VARIABLE, secret_variables, webhook_secrets

    environment: Mapping[str, str] = os.environ
    if not secret_variables(environment) and sys.stdin is not None and sys.stdin.isatty():
        # Unstripped: white space around a secret is a mistake that `verify` can tell.
        environment = {SECRET_VARIABLE: click.prompt("Webhook secret", hide_input=True, err=True)}
    webhook_secrets(environment)  # checks them
    return list(secret_variables(environment).items())


def echo_result(value: object, text: str, *, as_json: bool) -> None:
    """Print a result: as one line of JSON, or as text."""
    click.echo(json.dumps(value) if as_json else text)


def printable(text: str) -> str:
    """Return text that cannot steer a terminal: ids, URLs and reasons are others' text."""
    return "".join(character if character.isprintable() else "?" for character in text)


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


def user_function(given: str, what: str) -> Callable[..., Any]:
    """Import a function; its module is looked for in the current folder first.

    Args:
        given: `MODULE:FUNCTION`; the function may be an attribute of something, as in `gate:rules.handler`.
        what: What it is, for errors.

    Raises:
        ConfigurationError: There is no such function.
    """
    module, _, name = given.partition(":")
    if not module or not name:
        raise ConfigurationError(f"The {what} is given as MODULE:FUNCTION, such as gate:{what}.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"There is no module {error.name}, here or among what is installed.") from None
    except Exception as error:
        # It is the user's own code: show the message and the location.
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{where.filename}:{where.lineno}"
        raise ConfigurationError(
            f"The module {module} cannot be imported: {type(error).__name__}: {error} ({place})."
        ) from error
    try:
        found: object = attrgetter(name)(imported)
    except AttributeError:
        found = None
    if not callable(found):
        raise ConfigurationError(f"The module {module} has no function {name}.")
    return found


def _checked(_: click.Context, __: click.Parameter, path: Path | None) -> Path | None:
    """Return a path with its links followed, if a page can be written there.

    Raises:
        BadParameter: It does not name an HTML file, or nothing can be written there.
    """
    if path is None:
        return None
    try:
        real = path.resolve()
        if path.is_dir():
            complaint = f"{path} is a folder: name a file in it, such as {path / 'report.html'}."
        elif path.suffix.lower() not in _SUFFIXES:
            complaint = f"{path} must end in .html: so that no other file is overwritten by mistake."
        elif real.exists() and not real.is_file():
            complaint = f"{path} is not a regular file."
        elif not real.parent.is_dir():
            complaint = f"There is no folder {path.parent}: make it first."
        else:
            # Permissions are known only by trying. A write-protected page is kept.
            if real.exists():
                real.open("r+b").close()
            tempfile.TemporaryFile(dir=real.parent).close()
            return real
    except OSError as error:
        complaint = f"{path} cannot be written: {error.strerror or type(error).__name__}."
    raise click.BadParameter(complaint)


report_option: Final = click.option(
    "--report",
    type=click.Path(path_type=Path),
    callback=_checked,
    metavar="FILE.html",
    help="Write a page with the numbers and charts, too.",
)
"""`--report FILE.html`: the command gets `report: Path | None`; an unusable path is status 2."""
