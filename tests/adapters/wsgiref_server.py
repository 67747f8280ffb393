"""Serves a WSGI application of `apps` with wsgiref, under its validator: `python -m ... FD module:factory`."""

from __future__ import annotations

import importlib
import socket
import sys
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer
from wsgiref.validate import validator


def main(descriptor: str, factory: str) -> None:
    """Serve until the process is ended."""
    module, _, name = factory.partition(":")
    server = WSGIServer(("127.0.0.1", 0), WSGIRequestHandler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=int(descriptor))
    server.server_name, server.server_port = server.socket.getsockname()
    server.setup_environ()
    server.set_app(validator(getattr(importlib.import_module(module), name)()))
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
