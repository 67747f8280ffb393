"""Listeners behind real servers and in Lambda: the token comes with the query or as the last segment of the path."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import flask
import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import WSGIRequestHandler, make_server

from optimove_conditional_execution import (
    UNSIGNED,
    AsyncListenerReceiver,
    ConfigurationError,
    ListenerReceiver,
    Request,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.adapters.aws_lambda import lambda_handler
from optimove_conditional_execution.adapters.wsgi import WSGIApp
from optimove_conditional_execution.models.events import CampaignReadyEvent
from tests.adapters.servers import chunks, head, talk
from tests.adapters.test_aws_lambda import function_url, http_api, load_balancer, rest
from tests.conftest import served

TOKENS = ["tZ3-_9", "\xe9t\xe9 \u20ac", "a+b=="]
PATIENCE = 30.0
MAX_BODY = 2_000


class Events:
    """An integrator's function: keeps the campaigns, and fails on one of them."""

    def __init__(self) -> None:
        self.campaigns: list[int] = []

    def __call__(self, event: CampaignReadyEvent) -> None:
        if event.campaign_id == 666:
            raise RuntimeError("nothing to keep it in")
        self.campaigns.append(event.campaign_id)

    async def coroutine(self, event: CampaignReadyEvent) -> None:
        self(event)


def settings(token: Any) -> dict[str, Any]:
    return {"token": token, "answer_within": PATIENCE, "max_body": MAX_BODY}


@contextlib.contextmanager
def fastapi(events: Events, token: Any) -> Iterator[str]:
    """Serve a FastAPI application with uvicorn."""
    app = ASGIApp(AsyncListenerReceiver(events.coroutine, **settings(token)))
    routes: list[BaseRoute] = [Route(path, app, methods=["POST"]) for path in ("/listener", "/listener/{token}")]
    with served(FastAPI(routes=routes), http="h11", log_config=None) as url:
        yield f"{url}/listener"


@contextlib.contextmanager
def uvicorn_alone(events: Events, token: Any) -> Iterator[str]:
    """Serve the adapter by itself, with a plain function behind it."""
    with served(ASGIApp(AsyncListenerReceiver(events, **settings(token))), http="h11", log_config=None) as url:
        yield f"{url}/listener"


@contextlib.contextmanager
def werkzeug(app: Any) -> Iterator[str]:
    class Quiet(WSGIRequestHandler):
        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002 - the name is werkzeug's
            pass

    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/listener"
    finally:
        server.shutdown()
        thread.join(PATIENCE)
        server.server_close()


@contextlib.contextmanager
def flask_mount(events: Events, token: Any) -> Iterator[str]:
    """Serve a Flask application with the adapter mounted beside it."""
    mounts: dict[str, Any] = {"/listener": WSGIApp(ListenerReceiver(events, **settings(token)))}
    with werkzeug(DispatcherMiddleware(flask.Flask(__name__).wsgi_app, mounts)) as url:
        yield url


@contextlib.contextmanager
def flask_view(events: Events, token: Any) -> Iterator[str]:
    """Serve a Flask application with a view that calls the receiver."""
    receiver = ListenerReceiver(events, **settings(token))
    app = flask.Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = receiver.max_body

    @app.post("/listener")
    @app.post("/listener/<path:rest>")
    def listener(rest: str = "") -> flask.Response:
        came = flask.request
        query = came.query_string.decode("latin-1")
        answer = receiver.handle(Request(came.method, came.path, query, came.headers, came.get_data()))
        return flask.Response(answer.body, answer.status, dict(answer.headers))

    with werkzeug(app) as url:
        yield url


MOUNTS = [fastapi, uvicorn_alone, flask_mount, flask_view]


def event(sample: bytes, campaign: int = 1359) -> bytes:
    return sample.replace(b"1359", str(campaign).encode())


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("mount", MOUNTS)
def test_the_token_by_query_and_by_path(mount: Any, token: str, sample: Callable[[str], bytes]) -> None:
    events, body, quoted = Events(), sample("listener-event-5.json"), quote(token, safe="")
    with mount(events, token) as url, httpx.Client(timeout=PATIENCE) as http:

        def post(suffix: str, campaign: int) -> int:
            return http.post(f"{url}{suffix}", content=event(body, campaign)).status_code

        assert post(f"?token={quoted}", 1) == 200
        assert post(f"?brand=x&token={quoted}&token={quoted}", 2) == 200
        assert post(f"/{quoted}", 3) == 200
        assert post(f"/{quoted}?brand=x", 4) == 200
        assert post(f"?token={quoted}", 1) == 200
        assert events.campaigns == [1, 2, 3, 4]
        for suffix in (
            "",
            "?token=",
            "?token=x",
            f"?token={quoted}&token=x",
            "/x",
            f"/{quoted}x",
            "/%FF",
            "?token=%FF",
        ):
            assert post(suffix, 5) == 401, suffix
        assert post(f"/{quoted}?token=x", 5) == 401
        assert events.campaigns == [1, 2, 3, 4]


@pytest.mark.parametrize("mount", MOUNTS)
def test_every_other_answer(mount: Any, sample: Callable[[str], bytes]) -> None:
    events, body = Events(), sample("listener-event-5.json")
    with mount(events, "secret") as url, httpx.Client(timeout=PATIENCE) as http:
        right = f"{url}?token=secret"
        assert http.post(right, content=event(body, 666)).status_code == 503
        assert http.post(right, content=b"<xml/>").status_code == 400
        assert http.post(right, content=b'{"EventTypeID": 2, "TimeStamp": "2026-11-23 08:30:00"}').status_code == 200
        assert http.put(right, content=body).status_code == 405
        too_long = [head("/listener?token=secret", ("Content-Length", str(MAX_BODY + 1)))]
        if mount is not flask_view:  # Flask has its own answer to that
            assert talk(url, too_long).status == 413
        assert events.campaigns == []
        assert http.post(right, content=body).status_code == 200
    assert events.campaigns == [1359]


def test_a_stream_that_is_too_long_is_cut(sample: Callable[[str], bytes]) -> None:
    events = Events()
    with fastapi(events, UNSIGNED) as url:
        pieces = [head("/listener", ("Transfer-Encoding", "chunked")), *chunks(MAX_BODY * 40, size=MAX_BODY)]
        assert talk(url, pieces).status == 413
        assert httpx.post(url, content=sample("listener-event-5.json")).status_code == 200
    assert events.campaigns == [1359]


def with_query(shape: Any, body: str, token: str) -> dict[str, Any]:
    """Return a Lambda event with a token in the query, as each service hands queries over."""
    made: dict[str, Any] = shape(body, [("Content-Type", "application/json")])
    if shape in (http_api, function_url):
        return {**made, "rawQueryString": f"token={quote(token, safe='')}"}
    if shape is rest:
        return {
            **made,
            "queryStringParameters": {"token": token},
            "multiValueQueryStringParameters": {"token": [token]},
        }
    return {**made, "queryStringParameters": {"token": token}}


def with_path(shape: Any, body: str, segment: str) -> dict[str, Any]:
    made: dict[str, Any] = shape(body, [("Content-Type", "application/json")])
    return {**made, "rawPath" if "rawPath" in made else "path": f"/listener/{segment}"}


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("shape", [rest, http_api, function_url, load_balancer])
def test_lambda(shape: Any, token: str, sample: Callable[[str], bytes]) -> None:
    events, body = Events(), sample("listener-event-5.json").decode()
    handler = lambda_handler(ListenerReceiver(events, **settings(token)))

    def status(made: dict[str, Any]) -> int:
        return int(handler(made, None)["statusCode"])

    assert status(with_query(shape, body, token)) == 200
    assert status(with_path(shape, body.replace("1359", "2"), quote(token, safe=""))) == 200
    assert status(with_path(shape, body.replace("1359", "3"), token)) == 200  # some hand it over decoded
    assert events.campaigns == [1359, 2, 3]
    assert status(with_query(shape, body.replace("1359", "4"), f"{token}x")) == 401
    assert status(with_path(shape, body.replace("1359", "4"), "x")) == 401
    assert status(with_query(shape, body.replace("1359", "666"), token)) == 503
    assert status(with_query(shape, " " * (MAX_BODY + 1), token)) == 413
    assert events.campaigns == [1359, 2, 3]


def test_each_adapter_refuses_the_other_colour() -> None:
    sync: Any = ListenerReceiver(Events(), token=UNSIGNED)
    twin: Any = AsyncListenerReceiver(Events(), token=UNSIGNED)
    with pytest.raises(ConfigurationError):
        ASGIApp(sync)
    for adapter in (WSGIApp, lambda_handler):
        with pytest.raises(ConfigurationError):
            adapter(twin)
