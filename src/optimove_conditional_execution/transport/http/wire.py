"""What both engines need of httpx: requests out, answers and errors back as ours."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any, TypeVar

import httpx

from optimove_conditional_execution.errors import ConfigurationError, OptimoveError, TransportCause
from optimove_conditional_execution.messages import Response
from optimove_conditional_execution.tracebacks import clear_locals
from optimove_conditional_execution.transport.exchange import MAX_RESPONSE_BODY, Exchange
from optimove_conditional_execution.transport.failures import transport_error
from optimove_conditional_execution.transport.http.bounded import Progress
from optimove_conditional_execution.transport.http.library import Library
from optimove_conditional_execution.transport.loops import CLOSED
from optimove_conditional_execution.transport.places import KEEPALIVE_SECONDS
from optimove_conditional_execution.transport.proxies import has_proxy, proxy_for

P = TypeVar("P")


def set_up(make: Callable[[], P]) -> P:
    """Make something of the library's, whose settings come from the environment too.

    Raises:
        ConfigurationError: They make no sense.
    """
    try:
        return make()
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - its message can hold a proxy's password, so it is not chained
        name = type(error).__name__
    raise ConfigurationError(
        f"httpx cannot be set up ({name}): check HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and "
        "SSL_CERT_DIR."
    )


def proxied(url: str | None) -> dict[str, Any]:
    """Return a client's arguments for the proxy that the environment names; without a URL the library looks itself.

    Raises:
        ConfigurationError: A variable of the environment makes no sense.
    """
    return {} if url is None else {"proxy": proxy_for(url), "trust_env": False}


def limits(module: Any, connections: int | None) -> object:
    """Return the library's limits for a client of so many connections, None for any number."""
    return module.Limits(
        max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=KEEPALIVE_SECONDS
    )


def refuse_closed(client: httpx.Client | httpx.AsyncClient) -> None:
    """Refuse to send over a closed client; httpx would raise a RuntimeError."""
    if client.is_closed:
        raise ConfigurationError(CLOSED)


def judged(response: httpx.Response) -> Response:
    """Return the answer that an event hook has raised for, as `raise_for_status` does; errors are ours to tell."""
    return answer(response, bytearray(response.content if response.is_stream_consumed else b""))


def read_already(response: httpx.Response) -> list[bytes] | None:
    """Return the body when somebody's event hook has read it already."""
    return [response.content] if response.is_stream_consumed else None


def build(
    client: httpx.Client | httpx.AsyncClient, exchange: Exchange, seconds: float, *, read: float | None = None
) -> httpx.Request:
    """Return the request as httpx wants it.

    Args:
        client: What sends it.
        exchange: The request.
        seconds: How long each of its waits may take.
        read: How long each wait for bytes may take; None for the same.
    """
    return client.build_request(
        exchange.method,
        exchange.url,
        headers=exchange.plain_headers(),
        content=exchange.body,
        timeout=(seconds, seconds if read is None else read, seconds, seconds),
    )


def answer(response: httpx.Response, body: bytearray) -> Response:
    """Return an answer as a value, its body cut one byte after the limit."""
    return Response(response.status_code, dict(response.headers.items()), bytes(body[: MAX_RESPONSE_BODY + 1]))


def is_framed(response: httpx.Response) -> bool:
    """Whether the head of an answer says where its body ends; HTTP/2 always does."""
    named = not response.headers.keys().isdisjoint(("content-length", "transfer-encoding"))
    return named or response.status_code == HTTPStatus.NO_CONTENT or not response.http_version.startswith("HTTP/1")


class translated(contextlib.AbstractContextManager[None]):  # noqa: N801 - reads as a verb in a with statement
    """Turn the engine's exceptions into ours. A class, because a generator would cost a third more per call."""

    def __init__(self, library: Library, exchange: Exchange, progress: Progress) -> None:
        self._library = library
        self._exchange = exchange
        self._progress = progress
        self._handled = sys.exception()

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            return
        # The library's frames hold the request in the clear, those of a cancellation too.
        clear_locals(error, handled=self._handled)
        if not isinstance(error, Exception) or isinstance(error, OptimoveError):
            return
        kinds = self._library.causes
        cause: TransportCause = next((cause for kind, cause in kinds if isinstance(error, kind)), "other")
        raise transport_error(
            self._exchange,
            error,
            request_sent=self._sent(error),
            cause=cause,
            safe_to_quote=cause in ("broken", "proxy"),
            uses_proxy=cause == "broken" and self._library.is_ours and has_proxy(self._exchange.url),
            handled=self._handled,
        ) from None

    def _sent(self, error: BaseException) -> bool | None:
        if isinstance(error, self._library.before_send):
            return False
        if self._progress.seen:
            return self._progress.sent
        return True if isinstance(error, self._library.after_send) else None
