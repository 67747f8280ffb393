"""The check of an unknown webhook, for every fault, and the sentences about what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request as WebRequest
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Route

from optimove_conditional_execution import Request, verify
from optimove_conditional_execution.errors import SignatureError
from optimove_conditional_execution.rehearsal import (
    Finding,
    Observation,
    PlannedNotification,
    Reply,
    TriggeredRehearsal,
    TriggeredResult,
)
from optimove_conditional_execution.rehearsal.checks import Failure, post
from optimove_conditional_execution.rehearsal.plan import Expectation, FaultKind, Forgery
from optimove_conditional_execution.rehearsal.result import sentences
from optimove_conditional_execution.testing import Call, Delivery
from optimove_conditional_execution.transport.http import AsyncHttpEngine
from optimove_conditional_execution.urls import origin
from tests.conftest import served

URL = "http://127.0.0.1:8000/optimove?token=hidden"


def reply(what: int | Failure, *, seconds: float = 0.1, **options: Any) -> Reply:
    if isinstance(what, int):
        return Reply(URL, seconds, status=what, **options)
    return Reply(URL, seconds, failure=what)


def seen(
    fault: FaultKind | None,
    *replies: Reply,
    answer: bool | None = None,
    ignored: tuple[bool, ...] = (),
    expected: Expectation | None = None,
) -> Observation:
    forgery: Forgery | None = "no signature" if fault == "forged" else None
    latency = None if answer is None else 30
    planned = PlannedNotification("C1", {}, fault, forgery, expected=expected)
    return Observation(planned, "uid", replies, answer, ignored, latency, 5_000)


OK = reply(200)


@pytest.mark.parametrize(
    ("one", "kinds"),
    [
        (seen(None, OK, answer=True), ["approved"]),
        (seen(None, OK, answer=False), ["denied"]),
        (seen(None, OK), ["abstained"]),
        (seen(None, OK, answer=True, ignored=(True,)), ["approved"]),
        (seen("duplicate", OK, OK, answer=True), ["approved", "unchanged"]),
        (seen("duplicate", OK, OK), ["abstained", "unchanged"]),
        (seen("forged", reply(401)), ["refused"]),
        (seen("oversize", reply(413)), ["refused"]),
        (seen("oversize", reply("broken")), ["refused"]),
        (seen("late", OK), ["left alone"]),
        (seen("late", reply(410)), ["left alone"]),
        (seen(None, OK, answer=True, expected="approved"), ["approved"]),
        (seen(None, OK, answer=False, expected="denied"), ["denied"]),
        (seen(None, OK, answer=False, expected="not approved"), ["denied"]),
        (seen(None, OK, expected="not approved"), ["abstained"]),
        (seen("duplicate", OK, OK, answer=True, expected="approved"), ["approved", "unchanged"]),
    ],
)
def test_what_is_right(one: Observation, kinds: list[str]) -> None:
    checks = one.checks()
    assert [check.kind for check in checks] == kinds
    assert [check.sentence for check in checks] == [""] * len(kinds)


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (seen(None, reply("refused")), "got no HTTP answer (refused): nothing listens at http://127.0.0.1:8000: "),
        (seen(None, reply("timeout", seconds=10)), "got no HTTP answer in 10.0 s (timeout): the handler hangs"),
        (seen(None, reply("broken")), "got no HTTP answer (broken): the connection ended"),
        (seen(None, reply("tls")), "got no HTTP answer (tls): http://127.0.0.1:8000 does not speak TLS"),
        (seen(None, reply("unknown-host")), "got no HTTP answer (unknown-host): no machine is called 127.0.0.1"),
        (seen(None, reply("timeout"), answer=True), "(timeout), although it was approved: "),
        (seen(None, reply(500), answer=False), "got 500 over HTTP instead of 200, although it was denied: "),
        (seen(None, reply(204)), "got 204 over HTTP instead of 200"),
        (seen(None, reply(401)), "got 401 over HTTP instead of 200: the signature does not fit: "),
        (seen(None, reply(308, location="/optimove/")), "it redirects to /optimove/, and Optimove is not known to"),
        (seen(None, reply(302)), "it redirects, and Optimove is not known to follow"),
        (seen(None, OK, ignored=(True,)), "was approved after its deadline, too late to count: decide sooner"),
        (seen(None, OK, answer=True, ignored=(False,)), "was approved first and denied then; Optimove keeps the first"),
        (seen(None, reply(200, seconds=6)), "got its HTTP answer after 6.0 s, past its deadline"),
        (seen(None, reply(200, is_html=True)), "was answered with HTML: that is a web page, not a webhook"),
        (seen(None, OK, answer=True, expected="denied"), "was approved, which must never happen"),
        (seen(None, reply("broken"), answer=True, expected="not approved"), "was approved, which must never happen"),
        (seen(None, OK, expected="approved"), "should have been approved, and no answer came"),
        (seen(None, OK, answer=False, expected="approved"), "should have been approved, and was denied"),
        (seen(None, OK, expected="denied"), "should have been denied, and no answer came"),
        (seen(None, OK, ignored=(True,), expected="approved"), "was approved after its deadline, too late to count"),
        (seen("forged", OK, answer=True), "had no signature, and was approved nevertheless: verify the signature"),
        (seen("forged", OK, answer=False), "had no signature, and was denied nevertheless: verify the signature"),
        (seen("forged", reply(401), ignored=(True,)), "had no signature, and was approved nevertheless"),
        (seen("forged", OK), "had no signature, and got 200 over HTTP instead of 401"),
        (seen("forged", reply("refused")), "got no HTTP answer (refused) instead of 401: nothing listens"),
        (seen("oversize", OK, answer=True), "had more than 262,144 bytes, and was approved nevertheless: limit the"),
        (seen("oversize", reply(400)), "had more than 262,144 bytes, and got 400 over HTTP instead of 413"),
        (
            seen("late", reply(200), ignored=(True,)),
            "came after its deadline, and was approved, too late to count: do not answer",
        ),
        (seen("late", reply(200), ignored=(False,)), "came after its deadline, and was denied, too late to count"),
        (seen("late", reply(500)), "came after its deadline, and got 500 over HTTP: "),
        (seen("late", reply("timeout")), "came after its deadline, and got no HTTP answer (timeout): "),
        (seen("duplicate", OK, OK, answer=False, ignored=(False,)), "was denied once more when it came again: store"),
        (seen("duplicate", OK, OK, answer=False, ignored=(True,)), "was denied first, and approved when it came again"),
        (seen("duplicate", OK, reply(409), answer=True), "got 200 over HTTP first, and 409 when it came again: store"),
        (seen("duplicate", OK, reply("broken"), answer=True), "first, and broken when it came again: store"),
    ],
)
def test_what_is_wrong(one: Observation, sentence: str) -> None:
    *_, check = one.checks()
    assert check.kind == "wrong"
    assert sentence in check.sentence
    assert "hidden" not in check.sentence


def test_the_numbers_add_up_and_equal_findings_are_one() -> None:
    pending = Observation(PlannedNotification("C9"), "uid", (), over=False)
    summary = TriggeredResult.of(
        [
            seen(None, OK, answer=True),
            seen("forged", reply(307)),
            *(seen(None, reply(307)) for _ in range(4)),
            seen("duplicate", OK, OK, answer=False),
            seen("late", OK),
            pending,
        ],
        further=[Finding("The sky is falling")],
        deadline_ms=5_000,
    )
    assert (summary.sent, summary.approved, summary.denied, summary.wrong, summary.pending) == (10, 1, 1, 5, 1)
    assert summary.faults == {"duplicate": (1, 1), "late": (1, 1), "forged": (1, 0)}
    fallen, redirected, forged = sentences(summary.findings)
    assert fallen == "The sky is falling."
    assert redirected.startswith("4 notifications, C1, each got 307 over HTTP instead of 200: it redirects, and ")
    assert summary.findings[1].user_ids == ("C1",)
    assert summary.findings[2].remedy == summary.findings[1].remedy
    assert forged == "C1 (forged) had no signature, and got 307 over HTTP instead of 401.", "the remedy is said once"
    assert ("forged", "0 of 1 refused") in summary.lines()
    assert "! 4 notifications, C1, each got 307" in str(summary)
    assert summary.as_json()["faults"]["late"] == {"sent": 1, "as_expected": 1}
    assert not summary.ok
    assert summary.hints == ()


def test_nobody_decided_is_a_hint() -> None:
    silent = TriggeredResult.of([seen(None, OK), seen(None, OK)], deadline_ms=5_000)
    assert (silent.ok, silent.abstained, silent.findings) == (False, 2, ())
    assert silent.hints[0].startswith("No answer about any customer was sent to Optimove")


def test_calls_that_optimove_refuses_are_a_finding() -> None:
    calls = [Call("", Request("POST"), status, 0) for status in (401, 401, 404)]
    calls += [Call("get_webhook_by_id", Request("GET"), 404, 0), Call("send_webhook_approval", Request("POST"), 410, 0)]
    summary = TriggeredResult.of([seen(None, OK)], calls=calls, deadline_ms=5_000)
    assert sentences(summary.findings) == [
        "The service called Optimove 2 times and got 401: OPTIMOVE_API_KEY of the service is another one.",
        "The service called Optimove 1 time and got 404: Optimove has no such path, or asked no such request_uid.",
    ]
    assert summary.hints == ()


# ---- what is seen


def bad_server(behaviour: str, listener: socket.socket) -> None:
    """Take one connection, and do with it what no webhook should."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(65_536)
        if behaviour == "speaks no TLS":
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        if behaviour == "is silent":
            while connection.recv(65_536):
                pass


async def posted(url: str, monkeypatch: pytest.MonkeyPatch, *, seconds: float = 60.0) -> Reply:
    monkeypatch.setattr("optimove_conditional_execution.rehearsal.checks._GRACE_SECONDS", seconds)
    engine = AsyncHttpEngine()
    try:
        return await post(engine, Delivery(url, Request("POST", "/", "", {}, b"{}")), timeout_ms=100)
    finally:
        await engine.aclose()


@pytest.mark.parametrize(
    ("behaviour", "scheme", "failure"),
    [("hangs up", "http", "broken"), ("is silent", "http", "timeout"), ("speaks no TLS", "https", "tls")],
)
def test_why_no_answer_came(behaviour: str, scheme: str, failure: Failure, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=bad_server, args=(behaviour, listener))
        thread.start()
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/"
        found = asyncio.run(posted(url, monkeypatch, seconds=0.4 if failure == "timeout" else 60.0))
        thread.join()
    assert (found.failure, found.status, str(found)) == (failure, None, failure)


@pytest.mark.parametrize(
    ("url", "failure"), [("http://127.0.0.1:9/", "refused"), ("http://no-such-machine.invalid/", "unknown-host")]
)
def test_nobody_there(url: str, failure: Failure, monkeypatch: pytest.MonkeyPatch) -> None:
    found = asyncio.run(posted(url, monkeypatch))
    assert (found.failure, found.status, str(found)) == (failure, None, failure)


def test_what_an_answer_says() -> None:
    page = reply(307, location="/x/", is_html=True)
    assert (page.is_redirect, page.is_success, OK.is_redirect, OK.is_success) == (True, False, False, True)
    assert "hidden" not in repr(page)
    assert OK.remedy == ""
    assert reply(599).remedy == "the handler failed"
    assert reply(418).remedy == ""
    assert [origin(url) for url in (URL, "https://[::1]/x", "http://gate.example.com")] == [
        "http://127.0.0.1:8000", "https://[::1]", "http://gate.example.com",
    ]  # fmt: skip


def test_a_redirect_is_read() -> None:
    async def redirect(request: WebRequest) -> HTMLResponse:
        return HTMLResponse("<html>", status_code=307, headers={"location": "/x/?token=1"})

    async def run(url: str) -> Reply:
        async with contextlib.aclosing(AsyncHttpEngine()) as engine:
            return await post(engine, Delivery(f"{url}/x", Request("POST", "/x", "", {}, b"{}")), timeout_ms=100)

    with served(Starlette(routes=[Route("/x", redirect, methods=["POST"])])) as url:
        found = asyncio.run(run(url))
    assert (found.status, found.location, found.is_html) == (307, "/x/", True)


def test_what_goes_out() -> None:
    """A rehearsal's own requests: what is forged does not verify, what is late is stamped so, what is good is good."""
    came: dict[str, list[tuple[str | None, bytes]]] = {}

    async def record(request: WebRequest) -> PlainTextResponse:
        body = await request.body()
        user_id = json.loads(body)["user"]["user_id"]
        came.setdefault(user_id, []).append((request.headers.get("optimove-signature-content"), body))
        return PlainTextResponse("", status_code=401)

    forgeries: tuple[Forgery, ...] = ("a wrong signature", "no signature", "a body changed after it was signed")
    plan = [
        PlannedNotification("C1", {"country": "MT"}),
        PlannedNotification("C2", {}, "late"),
        PlannedNotification("C3", {}, "oversize"),
        PlannedNotification("C4", {}, "duplicate"),
        *(PlannedNotification("C5", {}, "forged", forgery) for forgery in forgeries),
    ]

    with served(Starlette(routes=[Route("/x", record, methods=["POST"])])) as url:
        result = TriggeredRehearsal(
            url=f"{url}/x", notifications=plan, secret="the-secret", deadline_ms=1_000, rate=1_000
        ).run()
    assert all(one.over for one in result.observations)
    assert result.observations[0].planned.name == "C1"
    for name in ("C1", "C2", "C3", "C4"):
        for signature, body in came[name]:
            verify(body, signature=signature, secrets="the-secret")
    assert len(came["C4"]) == 2
    assert came["C4"][0] == came["C4"][1]
    assert len(came["C3"][0][1]) > 262_144
    stamps = {name: json.loads(came[name][0][1])["timestamp"] for name in ("C1", "C2")}
    assert 11_000 - 5_000 < stamps["C1"] - stamps["C2"] <= 11_000, "ten seconds past its deadline"
    assert len(came["C5"]) == 3
    for signature, body in came["C5"]:
        with pytest.raises(SignatureError):
            verify(body, signature=signature, secrets="the-secret")
