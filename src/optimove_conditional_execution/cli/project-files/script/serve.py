"""The service, with Python's own web server: `python serve.py`, or with another port `python serve.py 8001`.

It listens on loopback. Put what ends https before it, such as nginx or Caddy. Under much traffic let
gunicorn serve the same application: `gunicorn --threads 16 "serve:create_app()"`.
"""

from __future__ import annotations

import logging
import signal
import sys
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from optimove_conditional_execution import OptimoveClient
from optimove_conditional_execution.adapters.wsgi import WSGIApp

from gate import create_receiver


class Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own; closing it waits for those that are being answered."""

    request_queue_size = 128


class Handler(WSGIRequestHandler):
    """Gives up on a sender that says nothing for 10 seconds."""

    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives
        """Stay silent: the gate logs what becomes of each notification."""


def create_app(client: OptimoveClient | None = None) -> WSGIApp:
    """Return the gate, which answers on every path. Tests give it the client of a `FakeOptimove`."""
    logging.basicConfig()
    return WSGIApp(create_receiver(client))


def create_server(app: WSGIApp, port: int) -> Server:
    """Return a server that listens already; port 0 takes a free one."""
    server = Server(("127.0.0.1", port), Handler)
    server.set_app(app)
    return server


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))
    with create_server(create_app(), int(sys.argv[1]) if len(sys.argv) > 1 else 8000) as server:
        server.serve_forever()
