"""Journals as commands take them: an SQLite file, or a PostgreSQL; shared by `review` and `reconcile`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ..errors import ConfigurationError
from ..stores import SqliteJournal
from ..stores.sqlite_file import SqliteError, connected

if TYPE_CHECKING:
    from ..stores.postgres import PostgresJournal

JOURNAL_VARIABLE: Final = "OPTIMOVE_JOURNAL"
JOURNAL_HELP: Final = (
    "The SQLite file that holds what was decided and sent, or a postgresql:// URL. Others on this machine can read "
    "options: for a URL with a password set the variable."
)

journal_option: Final = click.option(
    "--journal",
    type=click.Path(dir_okay=False),
    envvar=JOURNAL_VARIABLE,
    show_envvar=True,
    required=True,
    help=JOURNAL_HELP,
)

_BUSY_SECONDS: Final = 10.0


def opened_journal(path: str) -> SqliteJournal | PostgresJournal:
    """Open a journal.

    Args:
        path: The path of a file, which is created if it is missing, or a URL.

    Raises:
        ConfigurationError: It cannot be used.
    """
    if is_url(path):
        try:
            from ..stores.postgres import PostgresJournal
        except ImportError as error:
            raise ConfigurationError(str(error)) from None
        return PostgresJournal(path)
    check_path(path, "journal")
    try:
        return SqliteJournal(path)
    except Exception as error:  # the file may be of any kind
        raise ConfigurationError(
            f"The journal {path} cannot be used ({error}): it must be an SQLite file of ours, in a folder that exists."
        ) from error


@contextmanager
def read_journal(path: str) -> Iterator[SqliteJournal | PostgresJournal]:
    """Open a journal that exists, to read it, and close it in the end.

    Args:
        path: The path of a file, or a URL.

    Raises:
        ConfigurationError: There is no such journal, or it cannot be read.
    """
    with opened_journal(existing(path)) as journal:
        try:
            yield journal
        except BrokenPipeError:  # of the output: whoever reads it has enough
            raise
        except ConnectionError as error:
            raise unreachable(error) from error
        except (SqliteError, json.JSONDecodeError) as error:
            raise ConfigurationError(f"The journal {path} cannot be read ({error}).") from error


def existing(journal: str) -> str:
    """Return the path of a journal that exists, or a URL.

    Raises:
        ConfigurationError: There is no such file.
    """
    if not is_url(journal):
        check_file(journal, "journal", table="reviews")
    return journal


def check_file(path: str, what: str, *, table: str) -> None:
    """Refuse a file that does not exist, or is not ours, since opening it would create the tables in it.

    An empty one would look like a journal that is finished, or a log in which nothing was changed.

    Args:
        path: The path.
        what: `journal` or `log`.
        table: A table that it must have.

    Raises:
        ConfigurationError: It is none.
    """
    check_path(path, what)
    if not Path(path).is_file():
        raise ConfigurationError(f"There is no {what} {path}.")
    try:
        with closing(connected(path, timeout=_BUSY_SECONDS)) as connection:
            found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    except SqliteError as error:
        raise ConfigurationError(
            f"The {what} {path} cannot be used: {error}. It must be an SQLite file of ours."
        ) from error
    if found is None:
        raise ConfigurationError(f"{path} is no {what}: it is empty, or another SQLite file.")


def check_path(path: str, what: str) -> None:
    """Refuse what is no path, before an error quotes it or a file is created that is called so.

    Args:
        path: The path.
        what: `journal` or `log`.

    Raises:
        ConfigurationError: It is a URL of another kind, or has a password.
    """
    if "://" in path or "password=" in path.lower().replace(" ", ""):
        raise ConfigurationError(
            f"The {what} must be the path of a file, or a URL that begins with postgresql://. What was given is not "
            "shown, since it may hold a password."
        )


def unreachable(error: ConnectionError) -> ConfigurationError:
    """Return our error for a journal on a server that cannot be reached."""
    return ConfigurationError(f"The journal cannot be used: {error}")


def is_url(journal: str) -> bool:
    """Return whether a journal is given as a URL."""
    return journal.startswith(("postgresql://", "postgres://"))
