"""Logging and observer callbacks whose exceptions do not reach the caller.

What is logged stands where it happens: the line of each notification in `receivers.webhook`, of each call in
`transport.instrumentation`.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar, final

T = TypeVar("T")


@final
class SafeLogger:
    """A logger of the standard library's whose filters and handlers cannot fail the caller.

    `logging.Handler` catches errors while a record is written, but an application's filter, handler or record factory
    may raise through `Logger.log`. As in the standard library, that is then reported on stderr, unless
    `logging.raiseExceptions` is off. Only `KeyboardInterrupt` propagates.
    """

    def __init__(self, name: str) -> None:
        """Wrap the logger with this name."""
        self._logger = logging.getLogger(f"optimove_conditional_execution.{name}")

    def is_enabled_for(self, level: int) -> bool:
        """Whether a record of this level would be created; True when the application's logger raises."""
        try:
            return self._logger.isEnabledFor(level)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - as in `_log`, which reports it
            return True

    def log(self, level: int, message: str, *arguments: object, extra: Mapping[str, object] | None = None) -> None:
        """Log; see `logging.Logger.log`."""
        self._log(level, message, arguments, extra)

    def info(self, message: str, *arguments: object) -> None:
        """Log with level INFO."""
        self._log(logging.INFO, message, arguments, None)

    def warning(self, message: str, *arguments: object) -> None:
        """Log with level WARNING."""
        self._log(logging.WARNING, message, arguments, None)

    def error(self, message: str, *arguments: object) -> None:
        """Log with level ERROR."""
        self._log(logging.ERROR, message, arguments, None)

    def _log(self, level: int, message: str, arguments: tuple[object, ...], extra: Mapping[str, object] | None) -> None:
        try:
            self._logger.log(level, message, *arguments, extra=extra, stacklevel=3)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - SystemExit and CancelledError too: see the class
            report_logging_error(self._logger.name, error)


def report_logging_error(logger: str, error: BaseException) -> None:
    """Report on stderr that logging failed. Only the type is named, since a message can quote the record."""
    if logging.raiseExceptions and sys.stderr is not None:
        try:
            sys.stderr.write(f"--- Logging error: a filter or handler of {logger} raised {type(error).__name__} ---\n")
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - it has been closed, or leads to the logger that has just failed
            return


def notify(name: str, observer: Callable[[T], object], value: T, log: SafeLogger) -> None:
    """Call an observer. An exception is logged by its type alone, since its message can hold anything.

    Args:
        name: The name of the setting that it was passed as.
        observer: The function.
        value: Its argument.
        log: The logger for its failure.
    """
    try:
        answer = observer(value)
        if inspect.iscoroutine(answer):
            answer.close()  # or Python would warn that it was never awaited
            log.error("%s returned a coroutine, which nothing awaits: it must be a plain function", name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit and CancelledError too: it must not change an answer
        log.error("%s raised %s", name, type(error).__name__)
