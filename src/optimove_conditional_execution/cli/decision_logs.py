"""Logs of decisions as commands take them: an SQLite file, or a PostgreSQL; shared by `decisions` and `replay`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import click

from ..errors import ConfigurationError, OptimoveError
from ..flows.decision_log import LoggedDecision
from ..settings import LOG_SECRET_VARIABLE
from ..stores import SqliteDecisionLog
from ..stores.chained_log import ChainedLog
from ..stores.sqlite_file import SqliteError
from .journals import check_file, is_url

LOG_VARIABLE: Final = "OPTIMOVE_DECISION_LOG"
KEY_VARIABLE: Final = "OPTIMOVE_DECISION_LOG_KEY"


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


log_option: Final = click.option(
    "--log",
    envvar=LOG_VARIABLE,
    show_envvar=True,
    metavar="FILE|URL",
    required=True,
    help="The SQLite file that decisions are written to, or a postgresql:// URL. Others on this machine can read "
    "options: for a URL with a password set the variable.",
)
campaign_option: Final = click.option(
    "--campaign", metavar="N", help="Only this campaign: its series id, or CampaignID."
)
since_option: Final = click.option(
    "--since", metavar="DATE", callback=_moment, help="Only from this moment on; UTC without a zone."
)
until_option: Final = click.option(
    "--until", metavar="DATE", callback=_moment, help="Only from before this moment; UTC without a zone."
)
before_option: Final = click.option(
    "--before",
    metavar="DATE",
    callback=_moment,
    required=True,
    help="Delete what is from before this moment; UTC without a zone.",
)


@contextmanager
def opened_log(log: str) -> Iterator[ChainedLog]:
    """Open a log that exists, and close it in the end.

    Args:
        log: The path of a file, or a URL.

    Raises:
        ConfigurationError: There is no such log, or it cannot be used.
    """
    with _log(log) as opened:
        try:
            yield opened
        except BrokenPipeError:  # of the output: whoever reads it has enough
            raise
        except ConnectionError as error:
            raise ConfigurationError(f"The log cannot be used: {error}") from error
        except SqliteError as error:
            raise ConfigurationError(
                f"The log cannot be read or written ({error}). If the file is damaged, restore it from a backup."
            ) from error


def _log(log: str) -> ChainedLog:
    settings: dict[str, Any] = {"identify": os.environ.get(LOG_SECRET_VARIABLE)}
    if keys := os.environ.get(KEY_VARIABLE):
        settings["encryption_keys"] = [key.strip() for key in keys.split(",")]
    # A mistyped name must not create an empty log that looks like one without decisions.
    if is_url(log):
        try:
            from ..stores.postgres import PostgresDecisionLog
        except ImportError as error:
            raise ConfigurationError(str(error)) from None
        return PostgresDecisionLog(log, create_tables=False, **settings)
    check_file(log, "log", table="decision_log")
    try:
        return SqliteDecisionLog(log, **settings)
    except OptimoveError:
        raise
    except Exception as error:  # the file may be of any kind
        raise ConfigurationError(
            f"The log {log} cannot be used: {error}. It must be an SQLite file of ours."
        ) from error


def about_pseudonyms() -> str:
    """Return what may be the reason that nothing is found about a customer."""
    if os.environ.get(LOG_SECRET_VARIABLE):
        return f"What was written without the secret in {LOG_SECRET_VARIABLE}, or with another one, is not found."
    return f"If it holds pseudonyms instead of ids, set {LOG_SECRET_VARIABLE}."


def readable(found: Iterator[LoggedDecision]) -> Iterator[LoggedDecision]:
    """Yield decisions.

    Raises:
        ConfigurationError: An entry cannot be read.
    """
    try:
        yield from found
    except OptimoveError:
        raise
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise ConfigurationError(
            f"An entry of the log cannot be read ({type(error).__name__}): it was changed. "
            "`optimove-ce decisions verify` names the first that was."
        ) from None
