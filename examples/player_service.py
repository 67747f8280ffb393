"""A sample player service for http_backend_gate.py. It answers {"status": ...} for /players/ID.

Run it:    cd examples && python player_service.py COMMAND ...     (COMMAND gets the variable PLAYER_SERVICE_URL)

python player_service.py python -c "import os; print('a player service at', os.environ['PLAYER_SERVICE_URL'])"
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PLAYERS = {"C100001": "self-excluded", "C100002": "cooling-off"}


class PlayerService(BaseHTTPRequestHandler):
    """Knows all players whose ids begin with C2, as active, and some others."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer for one player, or 404."""
        player = self.path.removeprefix("/players/")
        status = PLAYERS.get(player, "active" if player.startswith("C2") else None)
        body = json.dumps({"status": status}).encode()
        self.send_response(200 if status else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing: the path holds the player's id."""


def main(command: list[str]) -> int:
    """Serve on a free port of loopback while the command runs; return its exit status."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), PlayerService)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = {**os.environ, "PLAYER_SERVICE_URL": f"http://127.0.0.1:{server.server_port}"}
    with subprocess.Popen(command, env=settings) as gate:
        signal.signal(signal.SIGTERM, lambda *_: gate.terminate())
        return gate.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
