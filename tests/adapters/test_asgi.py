"""ASGI: the adapter by itself, in Starlette and in FastAPI, under uvicorn with h11."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route

from optimove_conditional_execution import (
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    ConfigurationError,
    Deadline,
    Outcome,
    Request,
    Response,
    WebhookNotification,
    WebhookReceiver,
    sign,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.testing import FakeOptimove, SentNotification, notification
from tests.adapters.apps import decide
from tests.adapters.servers import chunks, hang_up, head, talk
from tests.adapters.table import MAX_BODY, ROWS, SECRET, ask_every_row
from tests.conftest import served

MEGABYTE = 1_048_576


@dataclass
class Mounted:
    """A receiver under uvicorn, and what came of the requests to it."""

    url: str = ""
    outcomes: list[Outcome] = field(default_factory=list)
    ended: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def await_request(self) -> None:
        """Wait until the application has ended with one more request."""
        assert self.ended.acquire(timeout=30)


class Watched:
    """An ASGI application that tells when a request is over, and closes a client when the server stops."""

    def __init__(self, app: ASGIApp, client: AsyncOptimoveClient, mounted: Mounted) -> None:
        self._app = app
        self._client = client
        self._mounted = mounted

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def closing(message: Any) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                await self._client.aclose()
            await send(message)

        try:
            await self._app(scope, receive, closing)
        finally:
            if scope["type"] == "http":
                self._mounted.ended.release()


@contextlib.contextmanager
def mounted(
    optimove_url: str, handler: Any = decide, *, body_timeout: float = 10.0, **options: Any
) -> Iterator[Mounted]:
    """Serve a receiver whose client talks to a fake over HTTP."""
    it = Mounted()
    client = AsyncOptimoveClient("fake-api-key", base_url=optimove_url)
    receiver = AsyncWebhookReceiver(
        handler,
        client=client,
        **{"secrets": SECRET, "max_body": MAX_BODY, "on_outcome": it.outcomes.append, **options},
    )
    app = Watched(ASGIApp(receiver, body_timeout=body_timeout), client, it)
    with served(app, http="h11", log_config=None) as it.url:
        yield it


def asked(fake: FakeOptimove, user_id: str = "VIP") -> tuple[SentNotification, bytes, dict[str, str]]:
    """Let a fake ask about a customer; return the body and the headers of its post."""
    question, _ = fake.trigger(user_id, timeout_ms=30_000)
    body = json.dumps(notification(user_id, request_uid=question.request_uid, timeout_ms=30_000)).encode()
    return question, body, {"optimove-signature-content": sign(body, secret=SECRET)}


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail when a server or asyncio logs an error or a traceback."""
    with caplog.at_level(logging.INFO):
        yield
    assert [
        record.getMessage() for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR
    ] == []


@pytest.mark.usefixtures("quiet")
class TestUnderUvicorn:
    def test_every_row_of_the_table(self, fake_optimove: FakeOptimove, optimove_url: str) -> None:
        with mounted(optimove_url) as hook:
            assert ask_every_row(hook.url, fake_optimove) == ROWS

    def test_every_row_of_the_table_in_starlette(self, fake_optimove: FakeOptimove, optimove_url: str) -> None:
        with framework(Starlette, optimove_url) as url:
            assert ask_every_row(f"{url}/optimove", fake_optimove) == ROWS

    def test_every_row_of_the_table_in_fastapi(self, fake_optimove: FakeOptimove, optimove_url: str) -> None:
        with framework(FastAPI, optimove_url) as url:
            assert ask_every_row(f"{url}/optimove", fake_optimove) == ROWS

    def test_add_route_works_too(self, fake_optimove: FakeOptimove) -> None:
        receiver = AsyncWebhookReceiver(decide, client=fake_optimove.async_client(), secrets=SECRET)
        app: Any = FastAPI()
        app.add_route("/optimove", ASGIApp(receiver), methods=["POST"])
        question, body, headers = asked(fake_optimove)
        with served(app, http="h11") as url:
            assert httpx.post(f"{url}/optimove", content=body, headers=headers).status_code == 200
        assert question.approved

    def test_chunked_bodies(self, fake_optimove: FakeOptimove, optimove_url: str) -> None:
        question, body, headers = asked(fake_optimove)
        with mounted(optimove_url) as hook:
            pieces = iter([body[:1], body[1:700], body[700:]])
            assert httpx.post(hook.url, content=pieces, headers=headers).status_code == 200
        assert question.approved

    def test_both_names_of_the_signature_header(self, fake_optimove: FakeOptimove, optimove_url: str) -> None:
        question, body, headers = asked(fake_optimove)
        signature = headers["optimove-signature-content"]
        with mounted(optimove_url) as hook:
            odd = {**headers, "x-optimove-signature-content": "0" * 64}
            assert httpx.post(hook.url, content=body, headers=odd).status_code == 401
            assert question.answer is None
            both = {**headers, "X-Optimove-Signature-Content": signature}
            assert httpx.post(hook.url, content=body, headers=both).status_code == 200
        assert question.approved

    @pytest.mark.parametrize("length", [MAX_BODY + 1, 50 * MEGABYTE, 10**18])
    def test_a_promise_of_too_much_is_refused_before_a_byte_of_it_is_read(
        self, length: int, fake_optimove: FakeOptimove, optimove_url: str
    ) -> None:
        request = head("/", ("Content-Length", str(length)))
        with mounted(optimove_url) as hook:
            reply = talk(hook.url, [request])
        assert (reply.status, reply.sent) == (413, len(request))
        assert reply.headers["connection"] == "close"
        assert [outcome.kind for outcome in hook.outcomes] == ["unreadable"]
        assert fake_optimove.calls == []

    def test_a_stream_of_fifty_megabytes_is_cut_and_costs_no_memory(
        self, fake_optimove: FakeOptimove, optimove_url: str
    ) -> None:
        with mounted(optimove_url) as hook:
            talk(hook.url, [head("/", ("Transfer-Encoding", "chunked")), *chunks(MAX_BODY * 2)])  # warms caches up
            tracemalloc.start()
            try:
                request = head("/", ("Transfer-Encoding", "chunked"))
                reply = talk(hook.url, itertools.chain([request], chunks(50 * MEGABYTE)))
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert reply.status == 413
        assert reply.sent < 10 * MEGABYTE, "the answer waited for the stream"
        assert peak < 4 * MEGABYTE
        assert {outcome.kind for outcome in hook.outcomes} == {"unreadable"}
        assert fake_optimove.calls == []

    def test_a_sender_that_leaves_mid_body_leaves_nothing_behind(
        self, fake_optimove: FakeOptimove, optimove_url: str
    ) -> None:
        question, body, headers = asked(fake_optimove)
        lines = head("/", ("Content-Length", str(len(body))), *headers.items())
        with mounted(optimove_url) as hook:
            hang_up(hook.url, lines + body[:-1])
            hook.await_request()
            assert hook.outcomes == []
            assert question.answer is None
            assert httpx.post(hook.url, content=body, headers=headers).status_code == 200
        assert question.approved

    def test_a_sender_that_leaves_before_the_answer_is_answered_at_optimove_all_the_same(
        self, fake_optimove: FakeOptimove, optimove_url: str
    ) -> None:
        entered, release = threading.Event(), threading.Event()

        def patient(_: WebhookNotification, __: Deadline) -> bool:
            entered.set()
            return release.wait(30)

        question, body, headers = asked(fake_optimove)
        lines = head("/", ("Content-Length", str(len(body))), *headers.items())
        with mounted(optimove_url, patient) as hook:
            hang_up(hook.url, lines + body)
            assert entered.wait(30)
            release.set()
            hook.await_request()
        assert question.approved
        assert [outcome.kind for outcome in hook.outcomes] == ["approved"]

    def test_a_sender_that_dawdles_gets_a_408(self, fake_optimove: FakeOptimove, optimove_url: str) -> None:
        question, body, headers = asked(fake_optimove)
        lines = head("/", ("Content-Length", str(len(body))), *headers.items())
        with mounted(optimove_url, body_timeout=0.2) as hook:
            reply = talk(hook.url, [lines + body[:-1]])
        assert (reply.status, reply.headers["connection"]) == (408, "close")
        assert question.answer is None

    @pytest.mark.parametrize("patience", [0.2, 30.0])
    def test_a_body_that_a_middleware_has_read_is_named(
        self, patience: float, fake_optimove: FakeOptimove, optimove_url: str
    ) -> None:
        outcomes: list[Outcome] = []
        client = AsyncOptimoveClient("fake-api-key", base_url=optimove_url)
        receiver = AsyncWebhookReceiver(decide, client=client, secrets=SECRET, on_outcome=outcomes.append)
        app = ASGIApp(receiver, body_timeout=patience)

        async def reading(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                while (await receive()).get("more_body", False):
                    pass
            await app(scope, receive, send)
            if scope["type"] == "lifespan":
                await client.aclose()

        question, body, headers = asked(fake_optimove)
        with served(reading, http="h11", log_config=None) as url:
            if patience < 1:
                assert httpx.post(url, content=body, headers=headers, timeout=30).status_code == 401
            else:  # whoever posted it gives up before
                lines = head("/", ("Content-Length", str(len(body))), *headers.items())
                hang_up(url, lines + body)
                deadline = Deadline.after(30)
                while not outcomes and not deadline.expired:
                    time.sleep(0.01)
        (outcome,) = outcomes
        assert f"{len(body)} bytes were announced" in str(outcome.error)
        assert "a middleware or the view has read it before" in str(outcome.error)
        assert question.answer is None

    def test_when_all_handlers_are_busy_the_next_notification_is_refused_at_once(
        self, fake_optimove: FakeOptimove, optimove_url: str
    ) -> None:
        entered, release = threading.Event(), threading.Event()

        def patient(_: WebhookNotification, __: Deadline) -> bool:
            entered.set()
            return release.wait(30)

        first, first_body, first_headers = asked(fake_optimove)
        second, second_body, second_headers = asked(fake_optimove)
        with mounted(optimove_url, patient, max_concurrency=1) as hook, ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(httpx.post, hook.url, content=first_body, headers=first_headers, timeout=30)
            assert entered.wait(30)
            assert httpx.post(hook.url, content=second_body, headers=second_headers).status_code == 503
            release.set()
            assert waiting.result(30).status_code == 200
        assert first.approved
        assert second.answer is None
        assert [outcome.kind for outcome in hook.outcomes] == ["overloaded", "approved"]

    def test_garbage_that_is_no_http_is_the_servers_to_refuse(self, optimove_url: str) -> None:
        with mounted(optimove_url) as hook:
            assert talk(hook.url, [b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"]).status == 400
            assert talk(hook.url, [b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"]).status == 400
        assert hook.outcomes == []


@contextlib.contextmanager
def framework(kind: type[Starlette], optimove_url: str) -> Iterator[str]:
    """Serve a receiver as a route of an application that closes the client at its end."""
    client = AsyncOptimoveClient("fake-api-key", base_url=optimove_url)
    receiver = AsyncWebhookReceiver(decide, client=client, secrets=SECRET, max_body=MAX_BODY)

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with client:
            yield

    route = Route("/optimove", ASGIApp(receiver), methods=["POST"])
    with served(kind(lifespan=lifespan, routes=[route]), http="h11", log_config=None) as url:
        yield url


class TestWithoutAServer:
    """What uvicorn does only sometimes, or never."""

    def test_a_websocket_is_closed(self, fake_optimove: FakeOptimove) -> None:
        assert self.sent(fake_optimove, {"type": "websocket"}, []) == [{"type": "websocket.close", "code": 1000}]

    def test_lifespan(self, fake_optimove: FakeOptimove) -> None:
        messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
        sent = self.sent(fake_optimove, {"type": "lifespan"}, messages)
        assert sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]

    def test_a_body_of_empty_pieces_and_missing_keys(self, fake_optimove: FakeOptimove) -> None:
        pieces: list[dict[str, Any]] = [{"type": "http.request", "more_body": True}, {"type": "http.request"}]
        start, body = self.sent(fake_optimove, self.post(), pieces)
        assert (start["status"], body["body"]) == (401, b"The signature is missing or wrong.")

    @pytest.mark.parametrize("length", [b"", b"two", b"-1", b"\xb2", b"1, 1"])
    def test_a_length_that_is_no_number_is_not_trusted(self, length: bytes, fake_optimove: FakeOptimove) -> None:
        pieces: list[dict[str, Any]] = [
            {"type": "http.request", "body": b"x" * (MAX_BODY + 1), "more_body": True},
        ]
        start, _ = self.sent(fake_optimove, self.post((b"content-length", length)), pieces)
        assert start["status"] == 413

    def test_a_sender_that_is_gone_gets_an_answer_that_nobody_reads(self, fake_optimove: FakeOptimove) -> None:
        pieces: list[dict[str, Any]] = [
            {"type": "http.request", "body": b"{", "more_body": True},
            {"type": "http.disconnect"},
        ]
        assert self.sent(fake_optimove, self.post(), pieces)[0]["status"] == 408

    def test_a_server_may_refuse_the_answer_to_a_sender_that_is_gone_and_to_no_other(
        self, fake_optimove: FakeOptimove
    ) -> None:
        app = ASGIApp(AsyncWebhookReceiver(decide, client=fake_optimove.async_client(), secrets=SECRET))

        async def send(message: Any) -> None:
            raise ConnectionResetError

        async def gone() -> Any:
            return {"type": "http.disconnect"}

        async def there() -> Any:
            return {"type": "http.request", "body": b"{}"}

        asyncio.run(app(self.post(), gone, send))
        with pytest.raises(ConnectionResetError):
            asyncio.run(app(self.post(), there, send))

    def test_a_sender_that_is_gone_below_a_middleware_leaves_no_traceback(self, fake_optimove: FakeOptimove) -> None:
        class Plain(BaseHTTPMiddleware):
            async def dispatch(self, request: Any, call_next: Any) -> Any:
                return await call_next(request)

        receiver = AsyncWebhookReceiver(decide, client=fake_optimove.async_client(), secrets=SECRET)
        route = Route("/", ASGIApp(receiver), methods=["POST"])
        app: Any = Starlette(routes=[route], middleware=[Middleware(Plain)])
        coming = iter([{"type": "http.request", "body": b"{", "more_body": True}])

        async def receive() -> Any:
            return next(coming, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            sent.append(message)

        sent: list[Any] = []
        asyncio.run(app({**self.post(), "root_path": "", "query_string": b""}, receive, send))
        assert sent[0]["status"] == 408

    def test_dropped_chunks_are_told(self, fake_optimove: FakeOptimove) -> None:
        scope = self.post((b"Transfer-Encoding", b"chunked"))
        assert self.sent(fake_optimove, scope, [{"type": "http.request", "body": b""}])[0]["status"] == 411

    def test_header_names_of_any_case(self, fake_optimove: FakeOptimove) -> None:
        question, body, headers = asked(fake_optimove)
        signature = headers["optimove-signature-content"].encode()
        pieces: list[dict[str, Any]] = [{"type": "http.request", "body": body}]
        start, _ = self.sent(fake_optimove, self.post((b"Optimove-Signature-CONTENT", signature)), pieces)
        assert start["status"] == 200
        assert question.approved

    def test_anything_with_a_receivers_methods_can_be_mounted(self) -> None:
        class Mirror:
            max_body = 10

            def too_large(self) -> Response:
                return Response(413)

            async def handle(self, request: Request) -> Response:
                return Response(200, {"x-path": request.path}, request.query.encode())

        sent: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {**self.post(), "query_string": b"a=1"}
        asyncio.run(ASGIApp(Mirror())(scope, receive, send))
        assert sent[0]["headers"] == [(b"x-path", b"/")]
        assert sent[1]["body"] == b"a=1"

    def test_a_sync_receiver_is_refused_at_once(self, fake_optimove: FakeOptimove) -> None:
        receiver: Any = WebhookReceiver(decide, client=fake_optimove.client(), secrets=SECRET)
        with pytest.raises(ConfigurationError, match="WSGIApp"):
            ASGIApp(receiver)

    @staticmethod
    def post(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
        return {"type": "http", "method": "POST", "path": "/", "headers": list(headers)}

    @staticmethod
    def sent(fake: FakeOptimove, scope: dict[str, Any], messages: list[dict[str, Any]]) -> list[Any]:
        receiver = AsyncWebhookReceiver(decide, client=fake.async_client(), secrets=SECRET, max_body=MAX_BODY)
        coming = iter(messages)
        sent: list[Any] = []

        async def receive() -> Any:
            return next(coming)

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(ASGIApp(receiver)(scope, receive, send))
        return sent
