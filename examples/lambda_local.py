r"""A Lambda handler on your own machine: converts HTTP requests to the events of a function URL.

Run it:    python lambda_local.py MODULE PORT     (MODULE has the function `handler`)

optimove-ce trigger http://127.0.0.1:8000/ --user C234638 --user C100001 -- \
    python lambda_local.py lambda_gate 8000
"""

from __future__ import annotations

import base64
import importlib
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Handler = Callable[[dict[str, Any], None], dict[str, Any]]


def function_url(handler: Handler, port: int) -> ThreadingHTTPServer:
    """Return a server on loopback that calls a handler as AWS would, without its limits."""

    class FunctionURL(BaseHTTPRequestHandler):
        """One request."""

        def do_POST(self) -> None:
            """Call the handler, and send its response."""
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            event = {
                "version": "2.0",
                "rawPath": path,
                "rawQueryString": query,
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "requestContext": {"http": {"method": self.command}},
                "body": base64.b64encode(body).decode(),
                "isBase64Encoded": True,
            }
            answer = handler(event, None)
            self.send_response(answer["statusCode"])
            for name, value in answer["headers"].items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer["body"].encode())

    return ThreadingHTTPServer(("127.0.0.1", port), FunctionURL)


if __name__ == "__main__":
    sys.path.insert(0, "")
    function_url(importlib.import_module(sys.argv[1]).handler, int(sys.argv[2])).serve_forever()
