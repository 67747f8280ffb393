"""Every error that a newcomer can cause names its cause and the remedy. One test a message."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

import optimove_conditional_execution as sdk
from optimove_conditional_execution import (
    AsyncCampaignReview,
    AsyncListenerReceiver,
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    CampaignCustomer,
    CampaignReview,
    ConfigurationError,
    Deadline,
    Decision,
    ListenerReceiver,
    NotFoundError,
    OptimoveClient,
    Outcome,
    Request,
    RetryPolicy,
    TransportError,
    UnexpectedResponseError,
    WebhookNotification,
    WebhookReceiver,
    drivers,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.adapters.wsgi import WSGIApp
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request

ONCE = RetryPolicy(attempts=1)


def approve(_: WebhookNotification, __: Deadline) -> bool:
    return True


async def approve_async(_: WebhookNotification, __: Deadline) -> bool:
    return True


def all_of_them(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return [customer.customer_id for customer in customers]


def client_of(url: str, **options: Any) -> OptimoveClient:
    return OptimoveClient("the-key", base_url=url, timeout=5, retry=ONCE, **options)


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPTIMOVE_API_KEY", "OPTIMOVE_BASE_URL", "OPTIMOVE_TIMEZONE"):
        monkeypatch.delenv(name, raising=False)


# ---- settings

SETTINGS: list[tuple[str, Callable[[], object], tuple[str, ...]]] = [
    ("no key", lambda: OptimoveClient(base_url="https://api5.optimove.net"), ("OPTIMOVE_API_KEY", "api_key=")),
    ("blank key", lambda: OptimoveClient(" ", base_url="https://api5.optimove.net"), ("OPTIMOVE_API_KEY",)),
    ("odd key", lambda: OptimoveClient("a b", base_url="https://api5.optimove.net"), ("OPTIMOVE_API_KEY", "blanks")),
    ("no URL", lambda: OptimoveClient("k"), ("OPTIMOVE_BASE_URL", "base_url=", "https://api5.optimove.net")),
    ("no scheme", lambda: OptimoveClient("k", base_url="api5.optimove.net"), ("http(s)://host", "OPTIMOVE_BASE_URL")),
    ("placeholder", lambda: OptimoveClient("k", base_url="https://apiX.optimove.net"), ("digit", "OPTIMOVE_BASE_URL")),
    ("path", lambda: sdk.Endpoints(path_prefix="current/"), ("path_prefix",)),
    (
        "zone missing",
        lambda: CampaignReview(all_of_them, client=client_of("https://api5.optimove.net")),
        ("OPTIMOVE_TIMEZONE", "timezone=", "Europe/London"),
    ),
    (
        "zone unknown",
        lambda: CampaignReview(all_of_them, client=FakeOptimove().client(), timezone="GMT+2"),
        ("IANA", "timezone="),
    ),
    ("offset", lambda: OptimoveClient("k", base_url="https://a.b", timezone="+02:00"), ("IANA", "OPTIMOVE_TIMEZONE")),
    (
        "channel of type 5",
        lambda: FakeOptimove().client().register_event_listener("https://a.b/c", channel_id=3),
        ("channel_id", "left out"),
    ),
    (
        "relative listener",
        lambda: FakeOptimove().client().ensure_event_listener("/campaigns"),
        ("listener_url", "absolute"),
    ),
]


@pytest.mark.parametrize(("make", "words"), [row[1:] for row in SETTINGS], ids=[row[0] for row in SETTINGS])
def test_settings(make: Callable[[], object], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert_names(str(caught.value), words)


def assert_names(message: str, words: tuple[str, ...]) -> None:
    assert [word for word in words if word not in message] == [], message
    assert message.endswith(".")


# ---- wiring

SYNC, ASYNC = FakeOptimove().client(), FakeOptimove().async_client()
WIRING: list[tuple[str, Callable[[], object], tuple[str, ...]]] = [
    (
        "handler of one argument",
        lambda: WebhookReceiver(lambda n: True, client=SYNC, secrets="s"),  # type: ignore[arg-type]
        ("two arguments", "the notification and the deadline"),
    ),
    (
        "handler that was called",
        lambda: WebhookReceiver(True, client=SYNC, secrets="s"),  # type: ignore[arg-type]
        ("handler must be a function",),
    ),
    (
        "async handler in threads",
        lambda: WebhookReceiver(approve_async, client=SYNC, secrets="s"),  # type: ignore[arg-type]
        ("AsyncWebhookReceiver",),
    ),
    (
        "client of the other colour",
        lambda: AsyncWebhookReceiver(approve, client=SYNC, secrets="s"),  # type: ignore[arg-type]
        ("AsyncOptimoveClient",),
    ),
    (
        "the class for the client",
        lambda: WebhookReceiver(approve, client=OptimoveClient, secrets="s"),  # type: ignore[arg-type]
        ("client must be an OptimoveClient",),
    ),
    (
        "the class for the client of a review",
        lambda: CampaignReview(all_of_them, client=OptimoveClient, timezone="UTC"),  # type: ignore[arg-type]
        ("OptimoveClient",),
    ),
    (
        "no secret",
        lambda: WebhookReceiver(approve, client=SYNC, secrets=None),  # type: ignore[arg-type]
        ("secrets", "UNSIGNED"),
    ),
    ("empty secret", lambda: WebhookReceiver(approve, client=SYNC, secrets=""), ("empty", "anybody could sign")),
    ("blank token", lambda: ListenerReceiver(print, token=" "), ("token", "UNSIGNED")),
    (
        "sync receiver in ASGI",
        lambda: ASGIApp(WebhookReceiver(approve, client=SYNC, secrets="s")),  # type: ignore[arg-type]
        ("AsyncWebhookReceiver", "WSGIApp"),
    ),
    (
        "async receiver in WSGI",
        lambda: WSGIApp(AsyncWebhookReceiver(approve, client=ASYNC, secrets="s")),  # type: ignore[arg-type]
        ("WebhookReceiver", "ASGIApp"),
    ),
    (
        "reviewer of one customer",
        lambda: CampaignReview(lambda customer: [], client=SYNC, timezone="UTC"),  # type: ignore[arg-type]
        ("two arguments", "per_customer"),
    ),
    (
        "event as JSON",
        lambda: CampaignReview(all_of_them, client=SYNC, timezone="UTC").run({"EventTypeID": 5}),  # type: ignore[arg-type]
        ("CampaignReadyEvent.from_json",),
    ),
    (
        "the framework's request",
        lambda: WebhookReceiver(approve, client=SYNC, secrets="s").handle(object()),  # type: ignore[arg-type]
        ("Request(method, path, query, headers, body)", "raw body"),
    ),
    (
        "coroutine as on_outcome",
        lambda: AsyncWebhookReceiver(approve, client=ASYNC, secrets="s", on_outcome=observe),  # type: ignore[arg-type]
        ("on_outcome", "never be awaited"),
    ),
    (
        "requests' session as http_client",
        lambda: OptimoveClient("k", base_url="https://a.b", http_client=object()),
        ("http_client", "httpx.Client"),
    ),
]


async def observe(_: Outcome) -> None: ...


@pytest.mark.parametrize(("make", "words"), [row[1:] for row in WIRING], ids=[row[0] for row in WIRING])
def test_wiring(make: Callable[[], object], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert_names(str(caught.value), words)


def test_a_decision_is_no_condition() -> None:
    with pytest.raises(TypeError, match=r"no truth value: return it as it is"):
        assert Decision.deny()


# ---- what answers instead of Optimove


@contextlib.contextmanager
def server(status: int, body: bytes, content_type: str = "application/json") -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-type", content_type)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


PAGE = b"<!doctype html><title>Log in</title>"


def test_a_wrong_path_prefix() -> None:
    with server(404, b"") as url, client_of(url) as client:
        with pytest.raises(NotFoundError) as caught:
            client.get_registered_event_listeners()
        assert_names(str(caught.value), ("/General/GetRegisteredEventListeners", 'Endpoints(path_prefix="/current")'))
        with pytest.raises(NotFoundError) as caught:
            list(client.get_processed_campaign_customers(1359))
        assert_names(str(caught.value), ('Endpoints(path_prefix="/current")',))
        with pytest.raises(NotFoundError) as caught:
            client.get_webhooks()
        assert_names(str(caught.value), ("see Endpoints and base_url",))
        assert "path_prefix" not in str(caught.value)


def test_a_page_instead_of_the_api() -> None:
    with server(200, PAGE, "text/html") as url, client_of(url) as client:
        with pytest.raises(UnexpectedResponseError) as caught:
            client.get_registered_event_listeners()
        assert_names(str(caught.value), ("web page", "base_url", "firewall", "path_prefix"))
    in_front = pytest.raises(sdk.ServerError, match="a firewall or proxy is in front")
    with server(503, PAGE, "text/html") as url, client_of(url) as client, in_front:
        client.get_webhooks()


def test_a_redirect() -> None:
    with server(307, b"") as url, client_of(url) as client:
        with pytest.raises(sdk.APIError) as caught:
            client.get_webhooks()
        assert_names(str(caught.value), ("Redirects are not followed", "trailing slash", "base_url"))


def test_a_wrong_key() -> None:
    refused = pytest.raises(sdk.AuthenticationError, match=r"OPTIMOVE_API_KEY.*type Admin")
    with server(401, b'"Unauthorized"') as url, client_of(url) as client, refused:
        client.get_webhooks()


async def refusal(url: str, engine: Any) -> str:
    async with AsyncOptimoveClient("the-key", base_url=url, timeout=30, retry=ONCE, engine=engine) as client:
        with pytest.raises(TransportError) as caught:
            await client.get_webhooks()
    assert caught.value.request_sent is False
    return str(caught.value)


@pytest.mark.parametrize("engine", ["httpx", "httpx2", "aiohttp"])
def test_nothing_listens(engine: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, never listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert_names(asyncio.run(refusal(url, engine)), ("Nothing listens there", "OPTIMOVE_BASE_URL"))


@pytest.mark.parametrize("engine", ["httpx", "httpx2", "aiohttp"])
def test_https_where_http_is_spoken(engine: str) -> None:
    with server(200, b"[]") as url:
        message = asyncio.run(refusal(url.replace("http:", "https:"), engine))
    assert_names(message, ("does not speak TLS", "OPTIMOVE_BASE_URL"))


@pytest.mark.parametrize("engine", ["httpx", "httpx2", "aiohttp"])
def test_a_certificate_of_an_unknown_ca(engine: str, tls_url: str) -> None:
    assert_names(asyncio.run(refusal(tls_url, engine)), ("certificate is not trusted", "SSL_CERT_FILE"))


@pytest.mark.parametrize("engine", ["httpx", "httpx2", "aiohttp"])
def test_a_host_that_does_not_exist(engine: str) -> None:
    message = asyncio.run(refusal("https://nowhere.invalid", engine))
    assert_names(message, ("name of the host is not known", "OPTIMOVE_BASE_URL"))


# ---- at work


def outcome_of(receiver: WebhookReceiver, outcomes: list[Outcome], secret: str = "fake-secret") -> Outcome:
    receiver.handle(signed_request(notification("C1"), secret=secret))
    return outcomes[-1]


def test_another_secret(caplog: pytest.LogCaptureFixture) -> None:
    outcomes: list[Outcome] = []
    receiver = WebhookReceiver(approve, client=SYNC, secrets="ours", on_outcome=outcomes.append)
    with caplog.at_level(logging.WARNING, "optimove_conditional_execution"):
        outcome = outcome_of(receiver, outcomes, secret="theirs")
    assert outcome.kind == "forged"
    assert_names(outcome.error or "", ("the secret is a different one", "changed in transit"))
    assert "optimove-ce verify" in caplog.text


def test_a_forgotten_await() -> None:
    outcomes: list[Outcome] = []

    def forgetful(notified: WebhookNotification, deadline: Deadline) -> Any:
        return approve_async(notified, deadline)

    receiver = WebhookReceiver(forgetful, client=SYNC, secrets="fake-secret", on_outcome=outcomes.append)
    outcome = outcome_of(receiver, outcomes)
    assert outcome.kind == "failed"
    assert_names((outcome.error or "") + ".", ("returned coroutine", "Is an await missing?"))


@pytest.mark.parametrize(("answer", "advice"), [(Decision.approve, "Decision.approve()"), (approve, "parenth")])
def test_a_forgotten_call(answer: Any, advice: str) -> None:
    outcomes: list[Outcome] = []
    receiver = WebhookReceiver(lambda n, d: answer, client=SYNC, secrets="fake-secret", on_outcome=outcomes.append)
    outcome = outcome_of(receiver, outcomes)
    assert outcome.kind == "failed"
    assert advice in (outcome.error or "")


@pytest.mark.parametrize("awaits_afterwards", [False, True])
def test_blocking_work_in_a_coroutine(awaits_afterwards: bool) -> None:
    outcomes: list[Outcome] = []
    fake = FakeOptimove(timeout_ms=600)

    async def blocking(notified: WebhookNotification, deadline: Deadline) -> bool:
        time.sleep(1.2)
        if awaits_afterwards:
            await asyncio.sleep(0.01)
        return True

    async def run() -> None:
        receiver = AsyncWebhookReceiver(
            blocking, client=fake.async_client(), secrets="fake-secret", on_outcome=outcomes.append
        )
        question = await fake.anotify(receiver, "C1")
        assert not question.approved

    asyncio.run(run())
    assert outcomes[0].kind == "late"
    assert_names(outcomes[0].error or "", ("event loop was blocked", "plain function", "runs in a thread"))


def test_an_async_handler_that_is_merely_late_gets_no_such_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "_STANDSTILL", 30.0)  # a busy machine delays a timer, too
    outcomes: list[Outcome] = []
    fake = FakeOptimove(timeout_ms=300)

    async def slow(notified: WebhookNotification, deadline: Deadline) -> bool:
        await asyncio.sleep(30)
        return True

    async def run() -> None:
        receiver = AsyncWebhookReceiver(
            slow, client=fake.async_client(), secrets="fake-secret", on_outcome=outcomes.append, reserve=0.1
        )
        await fake.anotify(receiver, "C1")

    asyncio.run(run())
    assert outcomes[0].kind == "late"
    assert outcomes[0].error == "The handler did not answer in time."


def test_a_mounted_app_redirects_and_a_route_does_not() -> None:
    """The server answers before the app is asked; `optimove-ce trigger` and `doctor` name it."""
    receiver = AsyncWebhookReceiver(approve, client=ASYNC, secrets="fake-secret")
    mounted, routed = FastAPI(), FastAPI()
    mounted.mount("/optimove", ASGIApp(receiver))
    routed.add_route("/optimove", ASGIApp(receiver), methods=["POST"])  # type: ignore[arg-type]
    assert [asyncio.run(status_of(app)) for app in (mounted, routed)] == [307, 401]


async def status_of(app: FastAPI) -> int:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="https://gate.example.com") as http:
        return (await http.post("/optimove", content=b"{}")).status_code


def test_a_request_with_text_for_bytes() -> None:
    outcomes: list[Outcome] = []
    receiver = WebhookReceiver(approve, client=SYNC, secrets="fake-secret", on_outcome=outcomes.append)
    signed = signed_request(notification("C1"), secret="fake-secret")
    receiver.handle(Request("POST", headers=signed.headers, body=signed.body.decode()))  # type: ignore[arg-type]
    assert outcomes[0].kind == "forged"
    assert_names(outcomes[0].error or "", ("raw bytes", "before any decoding"))


@pytest.mark.parametrize("make", [AsyncListenerReceiver, ListenerReceiver])
def test_a_listener_without_a_function(make: Any) -> None:
    with pytest.raises(ConfigurationError, match="on_ready must be a function of the event"):
        make(None, token="a-token")


def test_an_async_review_with_the_sync_client() -> None:
    with pytest.raises(ConfigurationError, match="AsyncOptimoveClient"):
        AsyncCampaignReview(all_of_them, client=SYNC, timezone="UTC")  # type: ignore[arg-type]
