"""httpx, or httpx2 that goes on from it: two libraries of one interface."""

from __future__ import annotations

import importlib
import socket
import sys
from types import ModuleType
from typing import Any, Final, Literal, cast, final

from optimove_conditional_execution.errors import ConfigurationError

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
