"""WSGI: the adapter by itself, in Flask and in Django views, under wsgiref with its validator and under gunicorn."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from optimove_conditional_execution import AsyncWebhookReceiver, ConfigurationError, Outcome, WebhookReceiver, sign
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.adapters.wsgi import WSGIApp
from optimove_conditional_execution.testing import FakeOptimove, SentNotification, notification
from tests.adapters.apps import decide
from tests.adapters.servers import Running, chunks, gunicorn_command, hang_up, head, running, talk, wsgiref_command
from tests.adapters.table import MAX_BODY, ROWS, SECRET, ask_every_row
from tests.conftest import OverHTTP, served

FACTORIES = ["plain", "flask_mount", "flask_view", "django_view"]


def environment(optimove_url: str) -> dict[str, str]:
    return {"OPTIMOVE_API_KEY": "fake-api-key", "OPTIMOVE_BASE_URL": optimove_url, "OPTIMOVE_WEBHOOK_SECRET": SECRET}


def test_every_row_of_the_table_under_wsgiref_and_its_validator(
    fake_optimove: FakeOptimove, optimove_url: str, tmp_path: Path
) -> None:
    command = wsgiref_command(*FACTORIES)
    with running(command, log=tmp_path / "log", environment=environment(optimove_url)) as server:
        seen = {name: ask_every_row(f"{server.url}/{name}/optimove", fake_optimove) for name in FACTORIES}
        assert seen == dict.fromkeys(FACTORIES, ROWS)
    assert "Traceback" not in server.printed()


Gunicorn = Callable[[str], tuple[Running, FakeOptimove]]


@pytest.fixture(scope="module")
def gunicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gunicorn]:
    """Serve a factory of `apps.py` below its name, once for all tests here, and tell its stand-in for Optimove.

    The views of Django have a process each, since each has settings of its own; the others share one.
    """
    with contextlib.ExitStack() as stack:

        @functools.cache
        def serve(*factories: str) -> tuple[Running, FakeOptimove]:
            fake = FakeOptimove()
            optimove_url = stack.enter_context(served(ASGIApp(OverHTTP(fake))))
            command = gunicorn_command(f"tests.adapters.apps:mounted{factories!r}")
            log = tmp_path_factory.mktemp("gunicorn") / "log"
            return stack.enter_context(running(command, log=log, environment=environment(optimove_url))), fake

        def below(factory: str) -> tuple[Running, FakeOptimove]:
            server, fake = serve(factory) if "django" in factory else serve("plain", "flask_mount", "flask_view")
            return replace(server, url=f"{server.url}/{factory}"), fake

        yield below


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_row_of_the_table_under_gunicorn(factory: str, gunicorn: Gunicorn) -> None:
    server, fake = gunicorn(factory)
    assert ask_every_row(f"{server.url}/optimove", fake) == ROWS
    assert "Traceback" not in server.printed()


def asked(fake: FakeOptimove) -> tuple[SentNotification, bytes, str]:
    """Return a question that is answered with yes, its body and its signature."""
    question, _ = fake.trigger("VIP", timeout_ms=30_000)
    body = json.dumps(notification("VIP", request_uid=question.request_uid, timeout_ms=30_000)).encode()
    return question, body, sign(body, secret=SECRET)


def test_gunicorn_hands_on_chunked_bodies(gunicorn: Gunicorn) -> None:
    server, fake = gunicorn("plain")
    question, body, signature = asked(fake)
    headers = {"optimove-signature-content": signature}
    posted = httpx.post(server.url, content=iter([body[:100], body[100:]]), headers=headers, timeout=30)
    too_long = talk(server.url, [head("/plain", ("Transfer-Encoding", "chunked")), *chunks(MAX_BODY * 4)])
    assert (posted.status_code, question.approved) == (200, True)
    assert too_long.status == 413
    assert "Traceback" not in server.printed()


@pytest.mark.parametrize(
    ("factory", "status", "approved"),
    [("flask_view", 200, True), ("django_view", 411, False), ("django_beside", 200, True)],
)
def test_chunked_bodies_in_views_under_gunicorn(factory: str, status: int, approved: bool, gunicorn: Gunicorn) -> None:
    server, fake = gunicorn(factory)
    question, body, signature = asked(fake)
    headers = {"optimove-signature-content": signature}
    posted = httpx.post(f"{server.url}/optimove", content=iter([body[:100], body[100:]]), headers=headers, timeout=30)
    assert posted.status_code == status
    assert question.approved == approved
    assert ("WSGIApp" in server.printed()) == (factory == "django_view")  # Python prints warnings when nobody logs


def test_a_sender_that_promises_more_than_it_sends_is_no_sender(gunicorn: Gunicorn) -> None:
    server, fake = gunicorn("plain")
    question, body, signature = asked(fake)
    # The signature covers the whole body, so a part of it is worth nothing.
    headers = [("Content-Length", str(len(body))), ("optimove-signature-content", signature)]
    hang_up(server.url, head("/plain", *headers) + body[:-1])
    assert ask_every_row(f"{server.url}/optimove", fake) == ROWS
    assert question.answer is None
    assert "Traceback" not in server.printed()


class TestWithoutAServer:
    """What servers never do, or not every one of them."""

    @pytest.fixture
    def app(self, fake_optimove: FakeOptimove) -> WSGIApp:
        return WSGIApp(WebhookReceiver(decide, client=fake_optimove.client(), secrets=SECRET, max_body=MAX_BODY))

    @pytest.mark.parametrize(
        ("length", "status"),
        [
            (None, 401),
            ("", 401),
            ("0", 401),
            ("2", 401),
            ("1000", 401),  # the stream ends before
            (str(MAX_BODY + 1), 413),
            ("9" * 5_000, 413),
            ("-1", 400),
            ("+2", 400),
            ("two", 400),
            ("\N{SUPERSCRIPT TWO}", 400),
            ("1,1", 400),
        ],
    )
    def test_lengths(self, app: WSGIApp, length: str | None, status: int) -> None:
        assert self.status(app, {"CONTENT_LENGTH": length}, b"{}") == status

    def test_a_stream_that_the_server_ends_is_read_up_to_the_limit(self, app: WSGIApp) -> None:
        class Endless(io.RawIOBase):
            taken = 0

            def read(self, size: int = -1, /) -> bytes:
                assert 0 < size <= MAX_BODY + 1
                self.taken += min(size, 1_000)
                return b"x" * min(size, 1_000)

        stream = Endless()
        extra = {"wsgi.input_terminated": True, "wsgi.input": stream}
        assert self.status(app, extra, b"") == 413
        assert stream.taken == MAX_BODY + 1

    def test_chunks_under_a_server_that_does_not_end_them_are_not_waited_for(self, fake_optimove: FakeOptimove) -> None:
        class Open(io.RawIOBase):
            def read(self, size: int = -1, /) -> bytes:
                raise AssertionError("whoever reads this waits for ever")

        outcomes: list[Outcome] = []
        client = fake_optimove.client()
        app = WSGIApp(WebhookReceiver(decide, client=client, secrets=SECRET, on_outcome=outcomes.append))
        extra = {"wsgi.input": Open(), "HTTP_TRANSFER_ENCODING": "chunked"}
        assert self.status(app, extra, b"") == 411
        (outcome,) = outcomes
        assert (outcome.kind, outcome.status) == ("unreadable", 411)
        assert "wsgi.input_terminated" in str(outcome.error)

    def test_a_body_that_a_middleware_has_read_is_named(self, fake_optimove: FakeOptimove) -> None:
        outcomes: list[Outcome] = []
        client = fake_optimove.client()
        app = WSGIApp(WebhookReceiver(decide, client=client, secrets=SECRET, on_outcome=outcomes.append))
        for left in (b"", b"{}"):
            assert self.status(app, {"CONTENT_LENGTH": "1268"}, left) == 401
            assert "a middleware or the view has read it before" in str(outcomes.pop().error)

    def test_a_connection_that_breaks_while_its_body_is_read_ends_without_a_traceback(self, app: WSGIApp) -> None:
        class Broken(io.RawIOBase):
            def read(self, size: int = -1, /) -> bytes:
                raise ConnectionResetError

        assert self.status(app, {"CONTENT_LENGTH": "2", "wsgi.input": Broken()}, b"") == 400

    def test_an_async_receiver_is_refused_at_once(self, fake_optimove: FakeOptimove) -> None:
        receiver: Any = AsyncWebhookReceiver(decide, client=fake_optimove.async_client(), secrets=SECRET)
        with pytest.raises(ConfigurationError, match="ASGIApp"):
            WSGIApp(receiver)

    @staticmethod
    def status(app: WSGIApp, extra: dict[str, Any], body: bytes) -> int:
        environ = {"REQUEST_METHOD": "POST", "wsgi.input": io.BytesIO(body), **extra}
        statuses: list[str] = []
        answer = app(environ, lambda status, headers: statuses.append(status))
        assert all(isinstance(part, bytes) for part in answer)
        return int(statuses[0].split()[0])
