"""Serves WSGI applications of `apps` with wsgiref, each under its validator, at the path of its factory's name."""

from __future__ import annotations

import socket
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from tests.adapters import apps


def main(descriptor: str, *factories: str) -> None:
    """Serve until the process is ended."""
    server = WSGIServer(("127.0.0.1", 0), WSGIRequestHandler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=int(descriptor))
    server.server_name, server.server_port = server.socket.getsockname()
    server.setup_environ()
    server.set_app(apps.mounted(*factories, validated=True))
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
