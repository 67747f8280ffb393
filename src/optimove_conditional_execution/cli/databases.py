"""Journals and logs of decisions as commands take them, and files with customers."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, cast

import click

import optimove_conditional_execution as sdk  # its names are loaded when they are first used

from ..errors import ConfigurationError, OptimoveError
from .options import F

if TYPE_CHECKING:  # a help text needs no store
    from ..stores.chained_log import ChainedLog
    from ..stores.postgres import PostgresJournal

_KEY_VARIABLE: Final = "OPTIMOVE_DECISION_LOG_KEY"
_VARIABLES: Final = {"journal": "OPTIMOVE_JOURNAL", "log": "OPTIMOVE_DECISION_LOG"}
_TABLES: Final = {"journal": "reviews", "log": "decision_log"}
_CONTENTS: Final = {"journal": "what was decided and sent", "log": "the decisions"}
_BUSY_SECONDS: Final = 10.0
_LOOKED_AT: Final = 1_000
# What reading raises when an entry is not as we have written it.
_UNREADABLE: Final = (ValueError, LookupError, TypeError, AssertionError)

Kind = Literal["journal", "log"]


def database_option(what: Kind, *, required: bool = True) -> Callable[[F], F]:
    """Return the option `--journal` or `--log`, which an environment variable can set, too."""
    return click.option(
        f"--{what}",
        envvar=_VARIABLES[what],
        show_envvar=True,
        metavar="FILE|URL",
        required=required,
        help=f"The SQLite file that holds {_CONTENTS[what]}, or a postgresql:// URL. Others on this machine can read "
        "options: for a URL with a password set the variable.",
    )


def moment_option(name: str, text: str, *, required: bool = False) -> Callable[[F], F]:
    """Return an option that takes a date or a time."""
    text = f"{text}; UTC without a zone."
    return click.option(name, metavar="DATE", callback=_moment, required=required, help=text)


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter("must be a date or a time such as 2026-03-03 or 2026-03-03T12:00+01:00.") from None
    try:
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise click.BadParameter("must be between the years 1 and 9999 in UTC.") from None


def selection_options(function: F) -> F:
    """Add the options whose values are arguments of a log's `decisions`."""
    campaign = click.option("--campaign", metavar="N", help="Only this campaign: its series id, or CampaignID.")
    since = moment_option("--since", "Only from this moment on")
    until = moment_option("--until", "Only from before this moment")
    return campaign(since(until(function)))


def read_journal(path: str) -> AbstractContextManager[sdk.stores.SqliteJournal | PostgresJournal]:
    """Open a journal that exists, to read it, and close it in the end.

    Args:
        path: The path of a file, or a URL.

    Raises:
        ConfigurationError: There is no such journal, or it cannot be read.
    """
    return _reading("journal", path)


def read_log(path: str) -> AbstractContextManager[ChainedLog]:
    """Open a log that exists, and close it in the end.

    Args:
        path: The path of a file, or a URL.

    Raises:
        ConfigurationError: There is no such log, or it cannot be used.
    """
    settings = _log_settings()
    if keys := os.environ.get(_KEY_VARIABLE):
        settings["encryption_keys"] = [key.strip() for key in keys.split(",")]
    return _reading("log", path, **settings)


def _log_settings() -> dict[str, Any]:
    from ..settings import LOG_SECRET_VARIABLE

    return {"identify": os.environ.get(LOG_SECRET_VARIABLE)}


@contextmanager
def _reading(what: Kind, path: str, **settings: Any) -> Iterator[Any]:
    from ..stores.sqlite_file import SqliteError

    with reachable(what), _opened(what, path, **settings) as opened:
        try:
            yield opened
        except OptimoveError:
            raise
        except SqliteError as error:
            raise ConfigurationError(
                f"The {what} cannot be read or written ({error}). If the file is damaged, restore it from a backup."
            ) from error
        except _UNREADABLE as error:
            hint = "`optimove-ce decisions verify` names the first that was." if what == "log" else "Restore a backup."
            raise ConfigurationError(
                f"An entry of the {what} cannot be read ({type(error).__name__}): it was changed. {hint}"
            ) from None


def open_journal(path: str, *, is_new: bool = False) -> sdk.stores.SqliteJournal | PostgresJournal:
    """Open a journal.

    Args:
        path: The path of a file, or a URL.
        is_new: Whether a file that is missing is created; else it is an error.

    Raises:
        ConfigurationError: It cannot be used.
    """
    journal: sdk.stores.SqliteJournal | PostgresJournal = _opened("journal", path, is_new=is_new)
    return journal


def open_log(path: str | None) -> AbstractContextManager[ChainedLog | None]:
    """Open a log to append to it, and close it in the end; a file that is missing is created. Without a path, None.

    Raises:
        ConfigurationError: It cannot be used.
    """
    log: ChainedLog | None = None if path is None else _opened("log", path, is_new=True, **_log_settings())
    return nullcontext() if log is None else log


def _opened(what: Kind, path: str, *, is_new: bool = False, **settings: Any) -> Any:
    if is_url(path):
        try:
            from ..stores.postgres import PostgresDecisionLog, PostgresJournal
        except ImportError as error:  # of the extra
            raise ConfigurationError(str(error)) from None
        if what == "journal":
            return PostgresJournal(path)
        return PostgresDecisionLog(path, create_tables=is_new, **settings)
    _check_path(path, what)
    try:
        if not is_new:
            _check_file(path, what)
        return sdk.stores.SqliteJournal(path) if what == "journal" else sdk.stores.SqliteDecisionLog(path, **settings)
    except OptimoveError:
        raise
    except Exception as error:  # the file may be of any kind
        rule = "It must be an SQLite file of ours, in a folder that exists."
        raise ConfigurationError(f"The {what} {path} cannot be used: {error}. {rule}") from error


@contextmanager
def reachable(what: Kind) -> Iterator[None]:
    """Turn the error of a server that cannot be reached into ours.

    Raises:
        ConfigurationError: It cannot.
    """
    try:
        yield
    except BrokenPipeError:  # of the output: whoever reads it has enough
        raise
    except ConnectionError as error:
        raise ConfigurationError(f"The {what} cannot be used: {error}") from error


def _check_file(path: str, what: Kind) -> None:
    """Refuse a file that does not exist, or is not ours, since opening it would create the tables in it.

    An empty one would look like a journal that is finished, or a log in which nothing was changed.
    """
    from ..stores.sqlite_file import connected

    if not Path(path).is_file():
        raise ConfigurationError(f"There is no {what} {path}.")
    with closing(connected(path, timeout=_BUSY_SECONDS)) as connection:
        found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (_TABLES[what],)).fetchone()
    if found is None:
        raise ConfigurationError(f"{path} is no {what}: it is empty, or another SQLite file.")


def _check_path(path: str, what: Kind) -> None:
    """Refuse what is no path, before an error quotes it or a file is created that is called so."""
    if any(text in path.lower().replace(" ", "") for text in ("://", "password=", "host=", "dbname=")):
        raise ConfigurationError(
            f"The {what} must be the path of a file, or a URL that begins with postgresql://. What was given is not "
            "shown, since it may hold a password."
        )


def is_url(path: str) -> bool:
    """Return whether a journal or a log is given as a URL."""
    return path.startswith(("postgresql://", "postgres://"))


def check_secret(found: Iterator[sdk.stores.LoggedDecision]) -> None:
    """Refuse to say that nothing is found about a customer, whose decisions may be there under another pseudonym.

    Args:
        found: Decisions among which the customer's could be; the first ones are looked at.

    Raises:
        ConfigurationError: The secret of their pseudonyms is another one.
    """
    from ..settings import LOG_SECRET_VARIABLE

    if any(each.foreign for each in islice(found, _LOOKED_AT)):
        raise ConfigurationError(
            f"Whether the log holds this customer is not known: its pseudonyms were made with another secret. Set "
            f"{LOG_SECRET_VARIABLE} to the identify= that the log was written with, or to nothing if it holds ids."
        )


@contextmanager
def private_file(path: Path) -> Iterator[TextIO]:
    """Write a file that its owner alone can read; it replaces an older one when it is complete.

    Args:
        path: The file.

    Raises:
        ConfigurationError: It cannot be written.
    """
    real = path.resolve()
    made: Path | None = None
    try:
        # An id may have a lone surrogate.
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", newline="", dir=real.parent, delete=False
        ) as file:
            made = Path(file.name)
            yield cast("TextIO", file)
        made.replace(real)
    except OptimoveError:  # some of them are OSErrors, too
        raise
    except OSError as error:
        raise ConfigurationError(f"The file {path} cannot be written: {error.strerror}.") from None
    finally:
        if made is not None:
            made.unlink(missing_ok=True)
