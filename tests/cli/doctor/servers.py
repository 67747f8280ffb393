"""Small loopback servers that answer as they are told, over http or https."""

from __future__ import annotations

import contextlib
import http.server
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any

import trustme

from optimove_conditional_execution import Request, Response

Reaction = Callable[[Request], Response]


@dataclass
class Server:
    """What is served, and what came.

    Attributes:
        url: Its base URL.
        requests: Every request so far.
    """

    url: str = ""
    requests: list[Request] = field(default_factory=list)


@contextlib.contextmanager
def answering(
    react: Reaction, *, certificate: trustme.LeafCert | None = None, clock_off: float | None = 0.0
) -> Iterator[Server]:
    """Serve on a free loopback port.

    Args:
        react: Answers.
        certificate: For https.
        clock_off: Seconds by which the Date header is ahead; None sends none.
    """
    server = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            path, _, query = self.path.partition("?")
            request = Request(self.command, path, query, list(self.headers.items()), body)
            server.requests.append(request)
            response = react(request)
            self.send_response_only(response.status)
            if clock_off is not None:
                self.send_header("date", formatdate(time.time() + clock_off, usegmt=True))
            for name, value in response.headers.items():
                if name.lower() != "content-length":
                    self.send_header(name, value)
            self.send_header("content-length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body)

        def __getattr__(self, name: str) -> Any:
            """Answer every method."""
            if name.startswith("do_"):
                return self.answer
            raise AttributeError(name)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Print nothing: a refused certificate is what some tests are about."""

    listener = Quiet(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        # The handshake belongs to the thread of the connection, not to the one that accepts.
        listener.socket = context.wrap_socket(listener.socket, server_side=True, do_handshake_on_connect=False)
    scheme = "http" if certificate is None else "https"
    server.url = f"{scheme}://127.0.0.1:{listener.server_port}"
    thread = threading.Thread(target=lambda: listener.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """Take connections and say nothing; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def hanging_up() -> Iterator[int]:
    """Read a request and end the connection without an answer; yields the port."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.recv(65_536)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def closed_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
