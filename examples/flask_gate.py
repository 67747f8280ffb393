r"""A gate in Flask: Optimove asks before it sends a triggered campaign, `may_receive` decides.

Run it:    pip install "optimove-conditional-execution[cli]" flask gunicorn
           gunicorn --threads 16 "flask_gate:create_app()"
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL (such as https://api5.optimove.net), OPTIMOVE_WEBHOOK_SECRET
Register:  optimove-ce webhooks create https://your.host/optimove

optimove-ce trigger http://127.0.0.1:8000/optimove --user C234638 --user C100001 -- \
    gunicorn --threads 16 --bind 127.0.0.1:8000 "flask_gate:create_app()"
"""

from __future__ import annotations

import logging
import os

import flask

from optimove_conditional_execution import (
    Deadline,
    Decision,
    OptimoveClient,
    Request,
    WebhookNotification,
    WebhookReceiver,
    webhook_secrets,
)


def bonus_is_active(user_id: str, *, timeout: float) -> bool:
    """Replace this with your bonus system: did the bonus reach the player's account? An error when it is down."""
    return user_id in {"C234638", "C234639"}


def may_receive(notification: WebhookNotification, deadline: Deadline) -> Decision:
    """Promise a bonus only to players who have it; an error or a late answer sends nothing."""
    if notification.is_hashed or notification.user.is_visitor:
        return Decision.abstain("not an id that the bonus system knows")
    if bonus_is_active(notification.user.user_id, timeout=deadline.remaining()):
        return Decision.approve()
    return Decision.deny("the bonus was not activated")


def create_app(client: OptimoveClient | None = None) -> flask.Flask:
    """Return the service; a setting that is missing stops it here. Tests give it the client of a `FakeOptimove`."""
    logging.basicConfig()
    logging.getLogger("optimove_conditional_execution").setLevel(logging.INFO)  # approved and denied too
    receiver = WebhookReceiver(may_receive, client=client or OptimoveClient(), secrets=webhook_secrets(os.environ))
    app = flask.Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = receiver.max_body

    @app.post("/optimove")
    def optimove() -> flask.Response:
        came = flask.request
        query = came.query_string.decode("latin-1")
        answer = receiver.handle(Request(came.method, came.path, query, came.headers, came.get_data()))
        return flask.Response(answer.body, answer.status, dict(answer.headers))

    return app
