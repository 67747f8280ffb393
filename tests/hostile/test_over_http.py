"""Hostile deliveries to a real server in a process of its own: statuses, its log, and its memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from optimove_conditional_execution import sign
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.testing import FakeOptimove, notification
from tests.adapters.servers import PATIENCE, Running, chunks, hang_up, head, running, talk, uvicorn_command
from tests.conftest import OverHTTP, served
from tests.hostile.deliveries import LAST_MS, OPEN_AND_SHUT, SECRET

MEGABYTE = 1_048_576
DELIVERIES = 2_000
WARM_UP = 400
"""Deliveries after which the server has imported, cached and allocated what it needs."""

Headers = list[tuple[bytes, bytes]]


@pytest.fixture(scope="module")
def fake_optimove() -> FakeOptimove:
    return FakeOptimove(secret=SECRET)


@pytest.fixture(scope="module")
def server(fake_optimove: FakeOptimove, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with served(ASGIApp(OverHTTP(fake_optimove))) as url:
        environment = {
            "OPTIMOVE_API_KEY": fake_optimove.api_key,
            "OPTIMOVE_BASE_URL": url,
            "OPTIMOVE_WEBHOOK_SECRET": SECRET,
            "PYTHONMALLOC": "malloc",  # so that what Python gives back is seen to be given back
            "MALLOC_ARENA_MAX": "2",
        }
        command = uvicorn_command("tests.hostile.service:create_app")
        with running(command, log=tmp_path_factory.mktemp("hostile") / "log", environment=environment) as server:
            yield server


@pytest.fixture
def service(server: Running, fake_optimove: FakeOptimove) -> Running:
    """The one server of these tests: it outlives what each of them does to it."""
    fake_optimove.calls.clear()
    return server


def signature(body: bytes) -> Headers:
    return [(b"optimove-signature-content", sign(body, secret=SECRET).encode())]


def broken_notifications() -> dict[str, bytes]:
    """Return signed bodies that get a 400: what is needed is missing, null, or of another type."""
    broken: dict[str, bytes] = {}
    needed = ("timestamp", "conditional_execution_approval_deadline", "request_uid", "user")
    wrong: list[Any] = [None, -1, 1.5, True, "x" * 2_000, [], {}, [[[]]]]
    for name, value in itertools.product(needed, wrong):
        if (name, value) == ("request_uid", -1):
            continue  # a whole number is an id
        changes = {name: value, "request_uid": None} if name != "request_uid" else {name: value}
        broken[f"{name}={value!r:.9}"] = json.dumps(notification(changes=changes)).encode()
    for value in wrong:
        payload = notification(changes={"request_uid": None})
        payload["user"]["user_id"] = value
        broken[f"user_id={value!r:.9}"] = json.dumps(payload).encode()
    broken["huge numbers"] = json.dumps(notification(changes={"timestamp": 10**400, "request_uid": None})).encode()
    return {**broken, **OPEN_AND_SHUT}


def refused(body: bytes) -> list[Headers]:
    """Return headers that get a 401."""
    digest = sign(body, secret=SECRET).encode()
    name = b"optimove-signature-content"
    return [
        [],
        [(name, b"")],
        [(name, b"0" * 64)],
        [(name, digest), (name, digest)],
        [(name, digest), (b"x-" + name, b"0" * 64)],
        [(name, digest + b"," + digest)],
        [(name, b"\xe9" * 64)],
        [(name, b"x" * 8_000)],
        [(b"cookie", b"\xff\xfe"), (b"x-forwarded-for", b"'; DROP TABLE users")],
    ]


def expired() -> bytes:
    return json.dumps(notification(timeout_ms=-1)).encode()


def hostile(http: httpx.Client) -> Iterator[Callable[[], tuple[int, int]]]:
    """Yield deliveries without end, each a function that sends one and returns the status and what it should be."""

    def post(body: bytes, headers: Headers) -> int:
        return http.post("/optimove", content=body, headers=headers).status_code

    good = json.dumps(notification()).encode()
    bodies = list(broken_notifications().values())
    forgeries = refused(good)
    # By hand, since a client that goes on sending can miss the answer when the server closes on it.
    too_long = head("/optimove", ("Content-Length", "262145")) + b"x" * 100_000
    for number in itertools.count():
        body = bodies[number % len(bodies)]
        forgery = forgeries[number % len(forgeries)]
        late = expired()
        yield lambda body=body: (post(body, signature(body)), 400)  # type: ignore[misc]
        yield lambda forgery=forgery: (post(good, forgery), 401)  # type: ignore[misc]
        yield lambda late=late: (post(late, signature(late)), 200)  # type: ignore[misc]
        yield lambda: (http.get("/optimove").status_code, 405)
        yield lambda: (talk(str(http.base_url), [too_long]).status, 413)


def deliver(http: httpx.Client, count: int) -> None:
    for send in itertools.islice(hostile(http), count):
        status, expected = send()
        assert status == expected


def assert_healthy(http: httpx.Client, fake: FakeOptimove) -> None:
    question, _ = fake.trigger(timeout_ms=30_000)
    body = json.dumps(notification(request_uid=question.request_uid, timeout_ms=30_000)).encode()
    assert http.post("/optimove", content=body, headers=signature(body)).status_code == 200
    assert question.approved


def test_two_thousand_deliveries_leave_no_traceback_and_no_memory_behind(
    service: Running, fake_optimove: FakeOptimove, record_property: Callable[[str, object], None]
) -> None:
    with httpx.Client(base_url=service.url, timeout=PATIENCE, trust_env=False) as http:
        deliver(http, WARM_UP)
        before = service.memory()
        deliver(http, DELIVERIES)
        growth = service.memory() - before
        assert fake_optimove.calls == []
        assert_healthy(http, fake_optimove)
    record_property("memory_growth_bytes", growth)
    assert growth < 8 * MEGABYTE
    assert "Traceback" not in service.printed()
    assert "ERROR" not in service.printed()


def test_a_stream_of_fifty_megabytes_leaves_no_memory_behind(
    service: Running, fake_optimove: FakeOptimove, record_property: Callable[[str, object], None]
) -> None:
    request = head("/optimove", ("Transfer-Encoding", "chunked"), ("optimove-signature-content", "0" * 64))
    with httpx.Client(base_url=service.url, timeout=PATIENCE, trust_env=False) as http:
        talk(service.url, itertools.chain([request], chunks(MEGABYTE)))
        assert_healthy(http, fake_optimove)
        before = service.memory("VmHWM")
        for _ in range(5):
            reply = talk(service.url, itertools.chain([request], chunks(50 * MEGABYTE)))
            assert reply.status == 413
            assert reply.sent < 10 * MEGABYTE
        growth = service.memory("VmHWM") - before
        assert_healthy(http, fake_optimove)
    record_property("peak_growth_bytes", growth)
    assert growth < 8 * MEGABYTE
    assert "Traceback" not in service.printed()


def test_senders_that_break_http_itself(service: Running, fake_optimove: FakeOptimove) -> None:
    body = json.dumps(notification()).encode()
    signed = ("optimove-signature-content", sign(body, secret=SECRET))
    length = ("Content-Length", str(len(body)))
    for data in (
        b"\x00" * 1_000,
        b"\r\n" * 1_000,
        b"GET\r\n\r\n",
        b"POST /optimove HTTP/9.9\r\n\r\n",
        head("/optimove", ("Content-Length", "ten")),
        head("/optimove", ("Content-Length", "1"), ("Content-Length", "2")),
        head("/optimove", ("Transfer-Encoding", "gzip, chunked")),
        head("/optimove", ("Transfer-Encoding", "chunked")) + b"zz\r\n\r\n",
        head("/optimove", ("x", "y" * 200_000)),
    ):
        assert 400 <= talk(service.url, [data]).status < 500
    for data in (
        b"",
        b"POST /opt",
        head("/optimove", length, signed),
        head("/optimove", length, signed) + body[:-1],
        head("/optimove", ("Transfer-Encoding", "chunked"), signed) + b"5\r\nabc",
    ):
        hang_up(service.url, data)
    with httpx.Client(base_url=service.url, timeout=PATIENCE, trust_env=False) as http:
        assert_healthy(http, fake_optimove)
    assert len(fake_optimove.calls) == 1
    assert "Traceback" not in service.printed()


def test_on_failure_answers_what_is_unreadable_but_has_a_name(service: Running, fake_optimove: FakeOptimove) -> None:
    with httpx.Client(base_url=service.url, timeout=PATIENCE, trust_env=False) as http:
        users: list[Any] = [None, 7, [], {}, {"user_id": 7.5}, {"user_id": True}, {"user_id": ""}]
        for value in users:
            question, _ = fake_optimove.trigger(timeout_ms=30_000)
            changes = {"user": value, "request_uid": question.request_uid}
            body = json.dumps(notification(changes=changes, timeout_ms=30_000)).encode()
            assert http.post("/optimove", content=body, headers=signature(body)).status_code == 400
            assert question.answer is not None
            assert not question.answer.approved
        for timestamp in (None, -1, "x", 10**400, LAST_MS + 1):
            question, _ = fake_optimove.trigger(timeout_ms=30_000)
            changes = {"timestamp": timestamp, "request_uid": question.request_uid}
            body = json.dumps(notification(changes=changes, timeout_ms=30_000)).encode()
            assert http.post("/optimove", content=body, headers=signature(body)).status_code == 400
            assert question.answer is not None
            assert not question.answer.approved
        assert_healthy(http, fake_optimove)
    assert "Traceback" not in service.printed()
    assert "failed inside" not in service.printed()
