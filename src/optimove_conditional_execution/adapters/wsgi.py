"""WSGI adapter: gunicorn, mod_wsgi, waitress, Flask, Django."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, final

from ..errors import ConfigurationError
from ..messages import Request, Response, plain
from ..receivers.base import Receiver
from ..receivers.health import Health
from ..tracebacks import clear_own_locals
from ..validation import is_async

Environ = dict[str, Any]
StartResponse = Callable[..., object]


@final
class WSGIApp:
    """A receiver as a WSGI application."""

    def __init__(self, receiver: Receiver[Response], *, health: Health | None = None) -> None:
        """Wrap a receiver.

        Args:
            receiver: A `WebhookReceiver`.
            health: Answers requests for its two paths; all others go to the receiver.

        Raises:
            ConfigurationError: It is not a receiver, or an async one, or `health` is not a `Health`.
        """
        if not callable(getattr(receiver, "handle", None)) or is_async(receiver.handle):
            raise ConfigurationError("WSGIApp needs a WebhookReceiver; ASGIApp takes an AsyncWebhookReceiver.")
        if health is not None and not isinstance(health, Health):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
            raise ConfigurationError("WSGIApp needs a Health; ASGIApp takes an AsyncHealth.")
        self._receiver = receiver
        self._health = health

    def __call__(self, environ: Environ, start_response: StartResponse | None = None) -> Iterable[bytes]:
        """Answer one request.

        Raises:
            ConfigurationError: It was not called by a WSGI server.
        """
        try:
            return self._serve(environ, start_response)
        except BaseException as error:
            # Trackers record local variables, and the environ holds signature and token, the body personal data.
            del environ
            clear_own_locals(error)
            raise

    def _serve(self, environ: Environ, start_response: StartResponse | None) -> Iterable[bytes]:
        if start_response is None:
            raise ConfigurationError("WSGIApp is for WSGI servers such as gunicorn; use ASGIApp under uvicorn.")
        response = self._answer(environ)
        start_response(f"{response.status} {HTTPStatus(response.status).phrase}", list(response.headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]

    def _answer(self, environ: Environ) -> Response:
        path = environ.get("PATH_INFO", "") or "/"
        if self._health is not None and self._health.handles(path):
            return self._health.handle(Request(environ["REQUEST_METHOD"], path))
        declared = environ.get("CONTENT_LENGTH") or ""
        if declared and not (declared.isascii() and declared.isdigit()):
            return plain(400, "Content-Length is not a number.")
        limit = self._receiver.max_body
        # Without a length, the stream can be read to its end only if the server terminates it (chunked bodies). Under
        # any other server the body is not read, since reading might block for ever, and the receiver reports that.
        wanted = limit + 1 if environ.get("wsgi.input_terminated") else 0
        if declared:
            wanted = int(declared) if len(declared) <= 18 else limit + 1
        if declared and wanted > limit:
            return self._receiver.too_large()
        try:
            body = _read(environ["wsgi.input"], wanted)
        except (OSError, ValueError):  # the client has disconnected, or its chunks are invalid
            return plain(400, "The body could not be read.")
        if len(body) > limit:
            return self._receiver.too_large()
        return self._receiver.handle(
            Request(
                environ["REQUEST_METHOD"],
                path,
                environ.get("QUERY_STRING", ""),
                list(_headers(environ)),
                body,
            )
        )


def _read(stream: Any, wanted: int) -> bytes:
    body = bytearray()
    while wanted > len(body):
        piece = stream.read(wanted - len(body))
        if not piece:
            break
        body += piece
    return bytes(body)


def _headers(environ: Environ) -> Iterator[tuple[str, str]]:
    for name, value in environ.items():
        if name.startswith("HTTP_"):
            yield name[5:].replace("_", "-"), value
        elif name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:  # some servers pass an empty one for a missing one
            yield name.replace("_", "-"), value
