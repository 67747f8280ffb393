"""Operations: API calls as values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import SecretStr

from ..errors import ConfigurationError
from ..messages import Response

T = TypeVar("T")

FIRST_TRY_SHARE: Final = 1 / 3
"""Share of a call's time for its first try. If that is lost on a dead connection, the second one can take twice as
long, so that a slow server still has enough time."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The method and path of a call.

    Attributes:
        method: The HTTP method, such as `GET`.
        path: The path below the base URL, with a leading slash, used verbatim; `{names}` in it are placeholders for the
            parameters of the call.

    Raises:
        ConfigurationError: The method is invalid, or the path does not begin with a slash.
    """

    method: str
    path: str

    def __post_init__(self) -> None:
        """Reject values that would send the API key to another server."""
        if not isinstance(self.path, str) or not self.path.startswith("/"):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
            raise ConfigurationError("An Endpoint's path must begin with a slash: it stands behind the base URL.")
        if not isinstance(self.method, str) or not (self.method.isascii() and self.method.isalpha()):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
            raise ConfigurationError("An Endpoint's method must be an HTTP method, such as GET.")


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """An API call as a value, to be sent by a client.

    Attributes:
        name: The name of the client's method.
        endpoint: Method and path pattern.
        parse: Parses a 2xx response. It may raise `PayloadError`, which the client turns into
            `UnexpectedResponseError`.
        path_parameters: Values for the `{names}` of the path.
        query: Query parameters, in order.
        body: The JSON body, or None.
        idempotent: Whether sending it twice does no more than sending it once. Decides about retries.
        gone_means_done: Whether a 404 to a repeated try means that the first try did it.
        long_running: Whether a response may take long: a try may then take most of the time that the call has left, and
            not only `RetryPolicy.attempt_timeout`.
        urgent: Whether a call with a deadline is retried until then, however many tries it takes.
        first_try_share: The share of the time that is left that the first try may take, so that a try that is lost
            leaves time for another; 1 for a call whose try may need all of it. No kept-alive connection is used for
            that.
        limit: Which rate limit it counts against.
        private: Whether bodies hold secrets or personal data; then no error message quotes Optimove's words.
        redact: Secrets that a response could echo; they are redacted from errors.
    """

    name: str
    endpoint: Endpoint
    parse: Callable[[Response], T] = field(repr=False)
    path_parameters: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes | None = field(default=None, repr=False)
    idempotent: bool = False
    gone_means_done: bool = False
    urgent: bool = False
    first_try_share: float = FIRST_TRY_SHARE
    long_running: bool = False
    limit: Literal["general", "approval"] = "general"
    private: bool = False
    redact: tuple[SecretStr, ...] = field(default=(), repr=False)

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.endpoint.method

    @property
    def path(self) -> str:
        """The path below the base URL, parameters filled in and percent-encoded.

        Raises:
            ConfigurationError: The endpoint's path names a parameter that the call does not have.
        """
        path = self.endpoint.path
        if not self.path_parameters and "{" not in path and "}" not in path:
            return path
        names = ", ".join(f"{{{name}}}" for name, _ in self.path_parameters) or "no parameters"
        try:
            return path.format_map({name: quote(value, safe="") for name, value in self.path_parameters})
        except UnicodeEncodeError:
            raise ConfigurationError(f"{self.name}: {names} must be valid Unicode text.") from None
        except (KeyError, ValueError, IndexError, AttributeError, TypeError):
            raise ConfigurationError(f"Endpoints.{self.name}: the path may hold {names} in braces, no more.") from None


def with_slash(operation: Operation[T]) -> Operation[T] | None:
    """Return GetWebhooks with a trailing slash in its path; None for any other call, or if it has one.

    Optimove prints the path of CreateWebhook with the slash, and both calls may share one path. A second request does
    no harm.

    Args:
        operation: Bound to its endpoint.
    """
    path = operation.endpoint.path
    if operation.name != "get_webhooks" or operation.method != "GET" or path.endswith("/"):
        return None
    return dataclasses.replace(operation, endpoint=Endpoint("GET", f"{path}/"))
