"""The engine for threads, on httpx or httpx2."""

from __future__ import annotations

import math
from typing import Any, final

from ...deadline import Deadline
from ...errors import ConfigurationError
from ...fork import detect_fork, reset_after_fork
from ..connection_pool import MAX_CONNECTIONS, ConnectionPool
from ..engine import CLOSED, FORKED, OutgoingRequest, Stream
from .httpx_adapter import Clients, HttpxErrors, HttpxStream, LibraryName, build, refuse_closed
from .httpx_deadline import RequestProgress, deadline_scope, track_progress


@final
class HttpEngine:
    """Sends requests over clients of httpx or httpx2, which share one TLS context."""

    def __init__(
        self,
        http_client: object | None = None,
        *,
        library: LibraryName = "httpx",
        max_connections: int = MAX_CONNECTIONS,
        base_url: str | None = None,
    ) -> None:
        """Prepare a TLS context, or use the user's client.

        Args:
            http_client: The user's client.
            library: The library to make clients with, when none is given.
            max_connections: Concurrent requests; streams are not counted.
            base_url: The server, for which the environment may name a proxy; None for any.

        Raises:
            ConfigurationError: `http_client` is not an `httpx.Client`, the library is not installed, or the machine's
                settings for proxies or TLS are invalid.
        """
        self._clients = Clients("Client", http_client, library, base_url)
        self._max_connections = max_connections
        self._closed_because = ""
        self._start()
        reset_after_fork(self)

    def _start(self) -> None:
        self._requests = ConnectionPool(self._max_connections, self._clients.make)
        self._streams = ConnectionPool(math.inf, self._clients.make)

    def after_fork(self) -> None:
        """Drop the parent's connections: two processes on one would read each other's responses."""
        self._start()
        if self._clients.given is not None:
            self._closed_because = FORKED

    def open(self, request: OutgoingRequest) -> Stream:
        """Send a request and return the response, its body still to be read.

        Raises:
            TransportError: No response came.
            DeadlineExceeded: The deadline passed first.
            ConfigurationError: The engine is closed.
        """
        detect_fork()
        if self._closed_because:
            raise ConfigurationError(self._closed_because)
        pool = self._requests if request.read_until is None else self._streams
        client = pool.acquire(request.deadline)
        try:
            errors = HttpxErrors(self._clients, request)
            with errors:
                seconds = request.timeout()
                end = Deadline.after(seconds)
                refuse_closed(client)
                outgoing = build(client, request, seconds)
                with deadline_scope(end, errors.progress):
                    try:
                        response = client.send(outgoing, stream=True, follow_redirects=False)
                    except self._clients.module.HTTPStatusError as error:
                        response = error.response  # an event hook raised for a status, which `parse_response` handles
                return _HttpStream(response, errors, end, lambda: pool.release(client))
        except BaseException:
            pool.release(client)
            raise

    def close(self) -> None:
        """Close the connections; the user's client stays open, and is restored."""
        detect_fork()
        if not self._closed_because:
            self._closed_because = CLOSED
            self._clients.restore()
        if self._clients.given is None:
            with track_progress(RequestProgress()):
                for client in (*self._requests.clients(), *self._streams.clients()):
                    client.close()


@final
class _HttpStream(HttpxStream):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._blocks = iter(self._source.iter_raw() if self._already is None else self._already)

    def read(self) -> bytes:
        with self._errors as errors, deadline_scope(self._next_wait(), errors.progress):
            return self._in_time(next(self._blocks, b""))

    def close(self) -> None:
        if (release := self._take_release()) is not None:
            try:
                with self._errors as errors, track_progress(errors.progress):
                    self._source.close()
            finally:
                self._let_go()
                release()
