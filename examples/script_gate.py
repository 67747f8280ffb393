r"""A gate without a framework, served by Python's own web server in threads: `may_receive` decides.

Run it:    pip install "optimove-conditional-execution[cli]"
           python script_gate.py 8000     (on loopback: put a TLS proxy in front of it, such as nginx or Caddy)
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL (such as https://api5.optimove.net), OPTIMOVE_WEBHOOK_SECRET
Register:  optimove-ce webhooks create https://your.host/optimove

optimove-ce trigger http://127.0.0.1:8000/optimove --user C234638 --user C100001 -- \
    python script_gate.py 8000
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from optimove_conditional_execution import (
    Deadline,
    Decision,
    OptimoveClient,
    WebhookNotification,
    WebhookReceiver,
    webhook_secrets,
)
from optimove_conditional_execution.adapters.wsgi import WSGIApp


def player_status(user_id: str, *, timeout: float) -> str | None:
    """Replace this with your register: a player's status, None for an unknown player, an error when it is down."""
    return {"C234638": "active", "C100001": "self-excluded", "C100002": "cooling-off"}.get(user_id)


def may_receive(notification: WebhookNotification, deadline: Deadline) -> Decision:
    """Let campaigns through to active players only; an error or a late answer sends nothing."""
    if notification.is_hashed or notification.user.is_visitor:
        return Decision.abstain("not an id that the register knows")
    status = player_status(notification.user.user_id, timeout=deadline.remaining())
    return Decision.approve() if status == "active" else Decision.deny(status or "unknown player")


class Server(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own; closing it waits for those that are being answered."""

    request_queue_size = 128


class Handler(WSGIRequestHandler):
    """Closes a connection on which nothing arrives for 10 seconds."""

    timeout = 10


def create_server(port: int, client: OptimoveClient | None = None) -> Server:
    """Return a server that listens already; port 0 takes a free one. Tests give it the client of a `FakeOptimove`."""
    logging.basicConfig()
    logging.getLogger("optimove_conditional_execution").setLevel(logging.INFO)  # approved and denied too
    receiver = WebhookReceiver(may_receive, client=client or OptimoveClient(), secrets=webhook_secrets(os.environ))
    server = Server(("127.0.0.1", port), Handler)
    server.set_app(WSGIApp(receiver))
    return server


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with create_server(int(sys.argv[1])) as server:
        server.serve_forever()
