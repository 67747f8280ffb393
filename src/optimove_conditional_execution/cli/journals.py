"""Journals as commands take them: an SQLite file, or a PostgreSQL; shared by `review` and `reconcile`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from ..errors import ConfigurationError
from ..stores import SqliteJournal
from ..stores.sqlite_file import SqliteError

if TYPE_CHECKING:
    from ..stores.postgres import PostgresJournal

JOURNAL_HELP: Final = "The SQLite file that holds what was decided and sent, or a postgresql:// URL."

journal_option: Final = click.option("--journal", type=click.Path(dir_okay=False), required=True, help=JOURNAL_HELP)


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
        except ConnectionError as error:
            raise unreachable(error) from error
        except (SqliteError, json.JSONDecodeError) as error:
            raise ConfigurationError(f"The journal {path} cannot be read ({error}).") from error


def existing(journal: str) -> str:
    """Return the path of a journal that exists, or a URL.

    Raises:
        ConfigurationError: There is no such file.
    """
    # A mistyped name must not create an empty journal that looks like a finished one.
    if not is_url(journal) and not Path(journal).is_file():
        raise ConfigurationError(f"There is no journal {journal}.")
    return journal


def unreachable(error: ConnectionError) -> ConfigurationError:
    """Return our error for a journal on a server that cannot be reached."""
    return ConfigurationError(f"The journal cannot be used: {error}")


def is_url(journal: str) -> bool:
    """Return whether a journal is given as a URL."""
    return journal.startswith(("postgresql://", "postgres://"))
