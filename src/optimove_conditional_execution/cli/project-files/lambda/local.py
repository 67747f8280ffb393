"""Serves the function on loopback, for rehearsals: `python local.py`, or with another port `python local.py 8001`.

Each request becomes the event of a function URL (payload format 2.0), as AWS would make it.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from lambda_function import lambda_handler


def event_of(method: str, target: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Return a request as the event of a function URL."""
    url = urlsplit(target)
    try:
        text, encoded = body.decode(), False
    except UnicodeDecodeError:
        text, encoded = base64.b64encode(body).decode(), True
    return {
        "version": "2.0",
        "rawPath": url.path,
        "rawQueryString": url.query,
        "headers": {name.lower(): value for name, value in headers.items()},
        "requestContext": {"http": {"method": method, "path": url.path}},
        "body": text,
        "isBase64Encoded": encoded,
    }


class Handler(BaseHTTPRequestHandler):
    """Calls the function for each POST, and sends back what it returns."""

    def do_POST(self) -> None:
        """Answer one request."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer = lambda_handler(event_of("POST", self.path, dict(self.headers), body), None)
        content = answer["body"].encode()
        self.send_response(answer["statusCode"])
        for name, value in answer["headers"].items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives
        """Stay silent: the gate logs what becomes of each notification."""


if __name__ == "__main__":
    logging.basicConfig()
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
