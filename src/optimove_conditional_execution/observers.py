"""Logging and callbacks that observe: whatever they raise, the work that they observe goes on."""

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

    `logging.Handler` catches what goes wrong while a record is written, but a filter, a handler or a record factory of
    somebody's own may raise through `Logger.log`. As the standard library does, that is then told on stderr, unless
    `logging.raiseExceptions` is off. Ctrl-C alone comes through.
    """

    def __init__(self, name: str) -> None:
        """Take the logger of the package with this name."""
        self._logger = logging.getLogger(f"optimove_conditional_execution.{name}")

    def is_enabled_for(self, level: int) -> bool:
        """Whether a record of this level would be made; it is when a logger of somebody's own cannot tell."""
        try:
            return self._logger.isEnabledFor(level)
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - as in `_log`, which tells it
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
    """Tell on stderr that logging failed. Only the type is told, since a message can quote the record."""
    if logging.raiseExceptions and sys.stderr is not None:
        try:
            sys.stderr.write(f"--- Logging error: a filter or handler of {logger} raised {type(error).__name__} ---\n")
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - it has been closed, or leads to the logger that has just failed
            return


def notify(name: str, observer: Callable[[T], object], value: T, log: SafeLogger) -> None:
    """Call somebody's observer. What it raises is logged by its type, since its message can hold anything.

    Args:
        name: The setting that it was given as.
        observer: The function.
        value: What it is told.
        log: Where it is logged that it failed.
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
