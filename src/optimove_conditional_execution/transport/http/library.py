"""httpx, or httpx2 that goes on from it: two libraries of one interface."""

from __future__ import annotations

import importlib
import logging
import socket
import sys
from types import ModuleType
from typing import Any, Final, Literal, cast, final

from optimove_conditional_execution.errors import ConfigurationError, TransportCause
from optimove_conditional_execution.observers import report_logging_error
from optimove_conditional_execution.transport.http.bounded import is_in_call

LibraryName = Literal["httpx", "httpx2"]

_NAMES: Final[tuple[LibraryName, ...]] = ("httpx", "httpx2")


@final
class Library:
    """What the engines need of either.

    Attributes:
        module: The library itself.
        is_ours: Whether the clients are the engine's own, with the proxies of the environment.
        causes: Classes of exceptions, and the cause that each means; the first that fits counts.
        before_send: What it raises before anything is sent.
        after_send: What it raises only when the request was sent.
    """

    def __init__(self, module: ModuleType, *, is_ours: bool) -> None:
        """Map the library's exceptions."""
        _guard_loggers(module.__name__)
        self.module: Any = module
        self.is_ours = is_ours
        invalid = (self.module.LocalProtocolError, self.module.InvalidURL, self.module.UnsupportedProtocol)
        self.causes: tuple[tuple[tuple[type[Exception], ...], TransportCause], ...] = (
            ((TimeoutError, self.module.TimeoutException), "timeout"),
            (invalid, "invalid-request"),
            ((self.module.ProxyError,), "proxy"),
            ((self.module.TransportError, socket.gaierror), "broken"),
        )
        self.before_send: tuple[type[Exception], ...] = (
            self.module.ConnectError,
            self.module.ConnectTimeout,
            self.module.PoolTimeout,
            socket.gaierror,
            self.module.ProxyError,
            *invalid,
        )
        self.after_send: tuple[type[Exception], ...] = (
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
        return Library(importlib.import_module(name), is_ours=True)
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
            return Library(module, is_ours=False)
    mine, other = (
        ("OptimoveClient", "AsyncOptimoveClient") if kind == "Client" else ("AsyncOptimoveClient", "OptimoveClient")
    )
    other_kind = "AsyncClient" if kind == "Client" else "Client"
    raise ConfigurationError(
        f"http_client of an {mine} must be an httpx.{kind}, or one of httpx2; {other} takes the {other_kind}."
    )
