"""The service: it serves the gate at /optimove."""

from __future__ import annotations

import logging

import flask
from optimove_conditional_execution import OptimoveClient, Request

from gate import create_receiver


def create_app(client: OptimoveClient | None = None) -> flask.Flask:
    """Return the service. Tests give it the client of a `FakeOptimove`; without one, the environment says which."""
    logging.basicConfig()
    receiver = create_receiver(client)
    app = flask.Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = receiver.max_body

    @app.post("/optimove")
    def optimove() -> flask.Response:
        came = flask.request
        query = came.query_string.decode("latin-1")
        answer = receiver.handle(Request(came.method, came.path, query, came.headers, came.get_data()))
        return flask.Response(answer.body, answer.status, dict(answer.headers))

    return app
