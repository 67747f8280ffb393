"""Requests and answers over httpx, for threads."""

from __future__ import annotations

import os
from typing import Any, final

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.messages import Response
from optimove_conditional_execution.transport.addresses import Addresses
from optimove_conditional_execution.transport.exchange import MAX_RESPONSE_BODY, Exchange, Stream
from optimove_conditional_execution.transport.http.bounded import Progress, bound, noted, until
from optimove_conditional_execution.transport.http.library import Library, LibraryName, named, of_client
from optimove_conditional_execution.transport.http.wire import (
    answer,
    build,
    is_framed,
    judged,
    limits,
    proxied,
    read_already,
    refuse_closed,
    set_up,
    translated,
)
from optimove_conditional_execution.transport.loops import CLOSED
from optimove_conditional_execution.transport.places import MAX_CONNECTIONS, Places


class HttpEngine:
    """Sends requests over one client of httpx or httpx2: one connection pool and one TLS context."""

    def __init__(
        self,
        http_client: object | None = None,
        *,
        library: LibraryName = "httpx",
        max_connections: int = MAX_CONNECTIONS,
        base_url: str | None = None,
    ) -> None:
        """Open a connection pool, or take somebody else's.

        Args:
            http_client: Somebody else's client.
            library: What to make a client of, when none is given.
            max_connections: Requests on their way at once; streams are not counted.
            base_url: The server that is asked, whose proxy the environment may name; None for any.

        Raises:
            ConfigurationError: `http_client` is no `httpx.Client`, the library is not installed, or the machine's
                settings for proxies or TLS make no sense.
        """
        self._owned = http_client is None
        self._library = named(library) if http_client is None else of_client(http_client, "Client")
        self._max_connections = max_connections
        self._proxied = proxied(base_url) if http_client is None else {}
        self._open(http_client)

    def _open(self, http_client: object | None) -> None:
        addresses = Addresses()
        if http_client is None:
            module = self._library.module
            context = set_up(module.create_ssl_context)

            def make(connections: int | None) -> Any:
                client = module.Client(verify=context, limits=limits(module, connections), **self._proxied)
                bound(client, addresses)
                return client

        else:
            bound(http_client, addresses)

            def make(connections: int | None) -> Any:
                return http_client

        self._streaming = set_up(lambda: make(None))
        self._places = Places(self._max_connections, lambda: make(1))
        self._closed = False
        self._process = os.getpid()  # last: whoever sees it sees the rest

    def exchange(self, exchange: Exchange) -> Response:
        """Send a request and return the answer, whatever its status; the whole of it ends by the deadline.

        Raises:
            TransportError: No answer came.
            DeadlineExceeded: The deadline passed first.
        """
        self._check()
        places = self._places
        client = places.take(exchange.deadline)
        try:
            progress = Progress(exchange.heard_since)
            with translated(self._library, exchange, progress):
                seconds = exchange.seconds()
                end = Deadline.after(seconds)
                refuse_closed(client)
                request = build(client, exchange, seconds)
                with until(end, progress):
                    try:
                        response = client.send(request, stream=True, follow_redirects=False)
                    except self._library.module.HTTPStatusError as error:
                        return judged(error.response)
                    try:
                        body = _body(response, end)
                    finally:
                        response.close()
            return answer(response, body)
        finally:
            places.leave(client)

    def stream(self, exchange: Exchange, reading_ends: Deadline) -> Stream:
        """Send a request and return the answer's head, with its body still to be read.

        Args:
            exchange: The request; it bounds the wait for the head.
            reading_ends: The end of reading.

        Raises:
            TransportError: No answer came.
            DeadlineExceeded: The deadline passed first.
        """
        self._check()
        progress = Progress(exchange.heard_since)
        with translated(self._library, exchange, progress):
            seconds = exchange.seconds()
            end = Deadline.after(seconds)
            refuse_closed(self._streaming)
            request = build(self._streaming, exchange, seconds, read=exchange.longest)
            with until(end, progress):
                try:
                    response = self._streaming.send(request, stream=True, follow_redirects=False)
                except self._library.module.HTTPStatusError as error:
                    return _Read(judged(error.response))
                if response.is_success:
                    reading = exchange.reading(reading_ends)
                    return _Stream(self._library, response, reading, progress)
                try:
                    return _Read(answer(response, _body(response, end)))
                finally:
                    response.close()

    def close(self) -> None:
        """Close the connections, unless the client is somebody else's."""
        if not self._owned or self._process != os.getpid():
            return
        self._closed = True
        with noted(Progress()):
            for client in (*self._places.clients(), self._streaming):
                client.close()

    def _check(self) -> None:
        if self._process != os.getpid():
            # Two processes on one connection read each other's answers. What was inherited is left to its owner.
            if not self._owned:
                raise ConfigurationError(
                    "The http_client was made before a fork: make it, and the client, in each process."
                )
            self._open(None)
        if self._closed:
            raise ConfigurationError(CLOSED)


def _body(response: Any, end: Deadline) -> bytearray:
    body = bytearray()
    for chunk in read_already(response) or response.iter_raw():
        body += chunk
        if len(body) > MAX_RESPONSE_BODY:
            break
        if end.expired:
            raise TimeoutError
    return body


@final
class _Stream:
    """A 2xx whose body is read as it comes."""

    def __init__(self, library: Library, response: Any, exchange: Exchange, progress: Progress) -> None:
        self.response = answer(response, bytearray())
        self.is_framed = is_framed(response)
        self._source = response
        self._blocks = iter(read_already(response) or response.iter_raw())
        self._library = library
        self._exchange = exchange
        self._progress = progress

    def read(self) -> bytes:
        with translated(self._library, self._exchange, self._progress):
            if self._exchange.deadline.expired:
                raise TimeoutError
            with until(Deadline.after(self._exchange.seconds()), self._progress):
                return next(self._blocks, b"")

    def close(self) -> None:
        self._source.close()


@final
class _Read:
    """An answer that has been read to its end."""

    is_framed = True

    def __init__(self, response: Response) -> None:
        self.response = response

    def read(self) -> bytes:
        return b""

    def close(self) -> None:
        """Nothing is open."""
