"""httpx, or httpx2 that goes on from it: two libraries of one interface."""

from __future__ import annotations

import importlib
import logging
import socket
import sys
from types import ModuleType
from typing import Any, Final, Literal, cast, final

from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.observers import report_logging_error
from optimove_conditional_execution.transport.http.bounded import is_in_call

LibraryName = Literal["httpx", "httpx2"]

_NAMES: Final[tuple[LibraryName, ...]] = ("httpx", "httpx2")


@final
class Library:
    """What the engines need of either.

    Attributes:
        module: The library itself.
        timeouts: What it raises when time is up.
        silences: What it raises when there is no answer.
        refusals: What it raises when a request makes no sense.
        never_sent: What it raises before anything is sent.
        after_sending: What it raises only when the request is on its way.
    """

    def __init__(self, module: ModuleType) -> None:
        """Note what the library calls its errors."""
        _guard_loggers(module.__name__)
        self.module: Any = module
        self.timeouts: tuple[type[Exception], ...] = (TimeoutError, self.module.TimeoutException)
        self.silences: tuple[type[Exception], ...] = (
            socket.gaierror,
            self.module.NetworkError,
            self.module.RemoteProtocolError,
            self.module.ProxyError,
        )
        self.refusals: tuple[type[Exception], ...] = (
            self.module.LocalProtocolError,
            self.module.InvalidURL,
            self.module.UnsupportedProtocol,
        )
        self.never_sent: tuple[type[Exception], ...] = (
            self.module.ConnectError,
            self.module.ConnectTimeout,
            self.module.PoolTimeout,
            socket.gaierror,
            self.module.ProxyError,
            *self.refusals,
        )
        self.after_sending: tuple[type[Exception], ...] = (
            self.module.ReadError,
            self.module.ReadTimeout,
            self.module.RemoteProtocolError,
        )


@final
class _GuardedLogging(logging.Filter):
    """Lets the library log during a call of ours without failing it.

    httpx logs each answer before it hands it out. A filter or handler that raised there would lose the answer of a
    request that was taken, and the connection with it. Records of anybody else's calls pass as they are.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Handle the record here when a call of ours made it."""
        if not is_in_call():
            return True
        try:
            logging.getLogger(record.name).callHandlers(record)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - as in `SafeLogger`
            report_logging_error(record.name, error)
        return False


_GUARD: Final = _GuardedLogging()


def _guard_loggers(library: str) -> None:
    core = library.replace("httpx", "httpcore")
    for name in (library, *(f"{core}.{part}" for part in ("connection", "http11", "http2", "proxy", "socks"))):
        logging.getLogger(name).addFilter(_GUARD)  # once, however often it is called


def named(name: LibraryName) -> Library:
    """Return a library by name.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        return Library(importlib.import_module(name))
    except ImportError:
        raise ConfigurationError(
            f"engine={name!r} needs a package that is not installed: "
            f"pip install 'optimove-conditional-execution[{name}]'."
        ) from None


def of_client(client: object, kind: Literal["Client", "AsyncClient"]) -> Library:
    """Return the library that a client is from.

    Raises:
        ConfigurationError: It is from none, or of the other colour.
    """
    for name in _NAMES:
        module = cast("Any", sys.modules.get(name))
        if module is not None and isinstance(client, getattr(module, kind)):
            return Library(module)
    mine, other = (
        ("OptimoveClient", "AsyncOptimoveClient") if kind == "Client" else ("AsyncOptimoveClient", "OptimoveClient")
    )
    other_kind = "AsyncClient" if kind == "Client" else "Client"
    raise ConfigurationError(
        f"http_client of an {mine} must be an httpx.{kind}, or one of httpx2; {other} takes the {other_kind}."
    )
