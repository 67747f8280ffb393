"""Which error each failure is, which failures are repeated, and that all of it ends by the deadline."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import pickle
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from pytest_httpx import HTTPXMock

from optimove_conditional_execution import (
    APIError,
    Approval,
    AsyncOptimoveClient,
    AuthenticationError,
    ConfigurationError,
    Deadline,
    DeadlineExceeded,
    HeldBackError,
    NotFoundError,
    OptimoveClient,
    OptimoveError,
    RateLimit,
    RateLimitError,
    Response,
    RetryPolicy,
    ServerError,
    TransportError,
    UnexpectedResponseError,
)
from optimove_conditional_execution.operations import get_webhooks, send_webhook_approval
from optimove_conditional_execution.transport import rate_limit
from optimove_conditional_execution.transport.responses import parse_response
from tests.client.conftest import BASE_URL, KEY, Caller, Make
from tests.conftest import child_status

Sample = Callable[[str], bytes]
APPROVAL = Approval(timestamp=1, request_uid="r-1", approved=True)
WEBHOOK = {"url": "https://example.com/webhook", "id": "webhook1"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, APIError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (405, APIError),
        (410, APIError),
        (301, APIError),
        (302, APIError),
        (307, APIError),
        (308, APIError),
        (500, ServerError),
        (503, ServerError),
        (599, ServerError),
    ],
)
def test_each_status_is_its_error(make: Make, httpx_mock: HTTPXMock, status: int, kind: type[APIError]) -> None:
    httpx_mock.add_response(
        status_code=status, headers={"location": "https://elsewhere.test/"}, json={"message": "Some words."}
    )
    with pytest.raises(kind) as caught:
        make(retry=RetryPolicy(attempts=1)).get_webhook_by_id("7")
    assert type(caught.value) is kind
    assert caught.value.status == status
    assert caught.value.message == "Some words."
    assert caught.value.operation == "get_webhook_by_id"
    assert caught.value.body == b'{"message":"Some words."}'
    path = "/conditional-execution/v2/triggered/webhooks/7"
    assert f"get_webhook_by_id: GET {path} answered {status}" in str(caught.value)
    assert len(httpx_mock.get_requests()) == 1


def test_the_documented_429(make: Make, httpx_mock: HTTPXMock, sample: Sample) -> None:
    httpx_mock.add_response(status_code=429, content=sample("rate-limited-429.json"), headers={"Retry-After": "3600"})
    with pytest.raises(RateLimitError) as caught:
        make(timeout=1.0).get_webhooks()
    assert caught.value.retry_after == 3600.0
    assert caught.value.message == "You have exceeded the rate limit for this API group. Please retry later."
    # Waiting for an hour would have passed the deadline, so nobody waited.
    assert len(httpx_mock.get_requests()) == 1


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", 7.0, 7.0),
        (" 0.5 ", 0.5, 0.5),
        ("-3", 0.0, 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0, 0.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 1e9, 1e10),
        ("soon", None, None),
        ("inf", None, None),
        ("nan", None, None),
        ("", None, None),
    ],
)
def test_retry_after(value: str, low: float | None, high: float | None) -> None:
    with pytest.raises(RateLimitError) as caught:
        parse_response(get_webhooks(), Response(429, {"Retry-After": value}), secrets=())
    error = caught.value
    if low is None or high is None:
        assert error.retry_after is None
    else:
        assert error.retry_after is not None
        assert low <= error.retry_after <= high


def test_a_retry_after_of_the_old_form_is_in_gmt_too(
    make: Make, httpx_mock: HTTPXMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        moment = time.asctime(time.gmtime(time.time() + 7_200))
        httpx_mock.add_response(status_code=429, headers={"Retry-After": moment})
        with pytest.raises(RateLimitError) as caught:
            make(timeout=0.5).get_webhooks()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert 7_000 < (caught.value.retry_after or 0.0) <= 7_200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'"Unauthorized"', "Unauthorized"),
        (b"Bad Request", "Bad Request"),
        (b"<html><h1>Incapsula</h1></html>", ""),
        (b'{"error":"Too Many"}', "Too Many"),
        (b'{"message":{"deep":1}}', ""),
        (b"", ""),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'"two\\nlines\\u0007"', "two lines"),
        (b"x" * 500, "x" * 200),
        (b"[" * 50_000, "[" * 200),
    ],
)
def test_optimoves_own_words(caller: Caller, httpx_mock: HTTPXMock, body: bytes, message: str) -> None:
    httpx_mock.add_response(status_code=400, content=body)
    with pytest.raises(APIError) as caught:
        caller.get_webhooks()
    assert caught.value.message == message
    assert caught.value.body == body[:2_048]


# ---- what is repeated


CALLS: dict[str, Callable[[Caller], Any]] = {
    "approval": lambda caller: caller.send_webhook_approval(APPROVAL),
    "statuses": lambda caller: caller.update_customer_promotion_status(7, {"C1": True, "C2": False}),
    "delete": lambda caller: caller.delete_webhook("webhook1"),
    "register": lambda caller: caller.register_event_listener("https://example.com/listener"),
    "unregister": lambda caller: caller.unregister_event_listener(),
    "settings": lambda caller: caller.update_webhook_settings(timeout_ms=5000),
    "listeners": lambda caller: caller.get_registered_event_listeners(),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b'{"ResponseCode": 401, "Message": "Disabled"}', AuthenticationError, 401),
        (b'{"responseCode": "403"}', AuthenticationError, 403),
        (b'{"STATUS": 400}', APIError, 400),
        (b'\xef\xbb\xbf {"status": 500.0}', ServerError, 500),
        (b'{"statusCode": 503}', ServerError, 503),
        (b'{"status": 429, "error": "Too Many Requests"}', RateLimitError, 429),
        (b'{"status": 0}', UnexpectedResponseError, 200),
        (b'{"status": "Failed"}', UnexpectedResponseError, 200),
        (b'{"Error": "no such campaign"}', UnexpectedResponseError, 200),
        (b'{"error": {"code": 7}}', UnexpectedResponseError, 200),
        (b'{"ERRORS": ["x"]}', UnexpectedResponseError, 200),
        (b'{"status": 200, "errors": {"C1": "unknown"}}', UnexpectedResponseError, 200),
        (b'{"success": false}', UnexpectedResponseError, 200),
        (b'{"Success": "False"}', UnexpectedResponseError, 200),
        (b'{"success": 0}', UnexpectedResponseError, 200),
        (b'{"Success": false, "error": null}', UnexpectedResponseError, 200),
        (b'{"success": ', UnexpectedResponseError, 200),
    ],
)
def test_a_200_whose_body_is_an_error_acknowledges_nothing(
    make: Make, httpx_mock: HTTPXMock, call: str, body: bytes, kind: type[APIError], status: int
) -> None:
    httpx_mock.add_response(content=body, is_reusable=True)
    timeout = 0.5 if issubclass(kind, RateLimitError | ServerError) else 10.0  # the former can be tried until then
    with pytest.raises((kind, DeadlineExceeded)) as caught:
        CALLS[call](make(retry=RetryPolicy(attempts=1), timeout=timeout, timezone="UTC"))
    error = caught.value.__cause__ if isinstance(caught.value, DeadlineExceeded) else caught.value
    assert type(error) is kind
    assert error.status == status
    assert "answered 200 OK" in str(error)


@pytest.mark.parametrize("call", ["approval", "statuses"])
def test_what_passes_on_the_body_of_a_429_or_a_5xx_as_a_200_is_asked_again(
    make: Make, httpx_mock: HTTPXMock, call: str
) -> None:
    httpx_mock.add_response(json={"status": 429, "error": "Too Many Requests", "message": "Slow down."})
    httpx_mock.add_response(json={"ResponseCode": 502})
    httpx_mock.add_response(json={})
    result = CALLS[call](make(timezone="UTC"))
    assert result == (2 if call == "statuses" else None)
    assert len(httpx_mock.get_requests()) == 3


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "body", [b"", b"{}", b"\xef\xbb\xbf{}", b'{"ResponseCode": 200, "Error": null, "errors": [], "success": true}']
)
def test_a_200_that_names_no_error_is_one(make: Make, httpx_mock: HTTPXMock, call: str, body: bytes) -> None:
    httpx_mock.add_response(content=body)
    caller = make(timezone="UTC", retry=RetryPolicy(attempts=1))
    if call == "listeners" and body.endswith(b"{}"):
        with pytest.raises(UnexpectedResponseError):
            CALLS[call](caller)
    else:
        CALLS[call](caller)


@pytest.mark.parametrize("wrapped", [False, True])
def test_an_item_that_cannot_be_read_fails_no_other(
    caller: Caller, httpx_mock: HTTPXMock, caplog: pytest.LogCaptureFixture, wrapped: bool
) -> None:
    for items in (
        [{"id": None, "url": "secret-url"}, WEBHOOK, "odd"],
        [{"EventTypeID": 5, "ListenerURL": "https://a.test/"}, {"EventTypeID": "x", "ListenerURL": "secret-url"}],
        [None, {"id": True, "url": "secret-url"}],
    ):
        httpx_mock.add_response(json={"items": items} if wrapped else items)
    with caplog.at_level("WARNING", "optimove_conditional_execution.client"):
        assert [webhook.id for webhook in caller.get_webhooks()] == ["webhook1"]
        assert [one.listener_url for one in caller.get_registered_event_listeners()] == ["https://a.test/"]
    assert [record.getMessage()[:9] for record in caplog.records] == ["2 of 3 in", "1 of 2 in"]
    assert "secret-url" not in caplog.text
    with pytest.raises(UnexpectedResponseError, match="Webhook"):
        caller.get_webhooks()


def test_a_byte_order_mark_in_front_of_an_answer_is_skipped(caller: Caller, httpx_mock: HTTPXMock) -> None:
    for value in ([WEBHOOK], WEBHOOK, [{"CustomerID": "C1"}], []):
        httpx_mock.add_response(content=b"\xef\xbb\xbf" + json.dumps(value).encode())
    assert len(caller.get_webhooks()) == 1
    assert caller.get_webhook_by_id("webhook1").url == WEBHOOK["url"]
    client = caller.client
    if isinstance(client, AsyncOptimoveClient):

        async def collected(reading: AsyncOptimoveClient) -> list[str]:
            return [one.customer_id async for one in reading.get_processed_campaign_customers(7)]

        assert caller._runner.run(collected(client)) == ["C1"]
    else:
        assert [one.customer_id for one in client.get_processed_campaign_customers(7)] == ["C1"]


def test_a_web_page_behind_a_byte_order_mark_is_one(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(content=b"\xef\xbb\xbf<html>log in</html>")
    with pytest.raises(UnexpectedResponseError, match="web page"):
        caller.send_webhook_approval(APPROVAL)


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_the_infinities_are_no_json_in_an_answer(caller: Caller, httpx_mock: HTTPXMock, literal: str) -> None:
    httpx_mock.add_response(content=f'{{"id": "webhook1", "url": "u", "x": {literal}}}'.encode())
    with pytest.raises(UnexpectedResponseError, match="not JSON"):
        caller.get_webhook_by_id("webhook1")


def test_idempotent_calls_are_repeated(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(status_code=503)
    httpx_mock.add_exception(httpx.ReadError("gone"))
    httpx_mock.add_exception(httpx.ConnectTimeout("slow"))
    httpx_mock.add_response(json=[WEBHOOK])
    assert [webhook.id for webhook in caller.get_webhooks()] == ["webhook1"]


def test_four_tries_and_no_more(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(status_code=503, is_reusable=True)
    calls: list[Callable[[], Any]] = [
        caller.get_webhooks,
        lambda: caller.send_webhook_approval(APPROVAL),
        caller.update_webhook_settings,
    ]
    for call in calls:
        before = len(httpx_mock.get_requests())
        with pytest.raises(ServerError):
            call()
        assert len(httpx_mock.get_requests()) - before == 4


def test_create_webhook_is_not_repeated(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(status_code=503)
    with pytest.raises(ServerError):
        caller.create_webhook("u")
    httpx_mock.add_exception(httpx.ReadError("gone"))
    with pytest.raises(TransportError) as caught:
        caller.create_webhook("u")
    assert caught.value.request_sent is True
    assert len(httpx_mock.get_requests()) == 2


def test_create_webhook_is_repeated_when_it_was_never_sent(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_exception(httpx.ConnectError("refused"))
    httpx_mock.add_response(status_code=201, json=WEBHOOK)
    assert caller.create_webhook("u").id == "webhook1"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302, 200])
def test_final_answers_are_not_repeated(caller: Caller, httpx_mock: HTTPXMock, status: int) -> None:
    httpx_mock.add_response(status_code=status, content=b"<html>")
    with pytest.raises(APIError):
        caller.get_webhook_by_id("7")
    assert len(httpx_mock.get_requests()) == 1


def test_a_429_is_always_repeated_and_is_no_try(
    make: Make, httpx_mock: HTTPXMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_limit, "_FIRST_PAUSE", 0.02)
    caller = make(retry=RetryPolicy(attempts=1, first_pause=0.001, longest_pause=0.002))
    for _ in range(4):
        httpx_mock.add_response(status_code=429)
    httpx_mock.add_response(status_code=201, json=WEBHOOK)
    assert caller.create_webhook("u").id == "webhook1"
    assert len(httpx_mock.get_requests()) == 5


def test_an_approval_with_a_deadline_is_repeated_until_then(caller: Caller, httpx_mock: HTTPXMock) -> None:
    for _ in range(11):
        httpx_mock.add_response(status_code=503)
    httpx_mock.add_response(status_code=200)
    caller.send_webhook_approval(APPROVAL, deadline=Deadline.after(20))
    assert len(httpx_mock.get_requests()) == 12


@pytest.mark.parametrize(("first", "sent"), [(503, True), (429, False), (httpx.ConnectError("refused"), False)])
def test_a_function_before_each_request_can_end_the_call(
    caller: Caller, kind: str, httpx_mock: HTTPXMock, first: int | Exception, sent: bool
) -> None:
    if isinstance(first, Exception):
        httpx_mock.add_exception(first)
    else:
        httpx_mock.add_response(status_code=first)
    looks: list[int] = []

    def before_send() -> None:
        looks.append(1)
        if len(looks) == 2:
            raise HeldBackError("Stopped.")

    async def coroutine() -> None:
        before_send()

    with pytest.raises(HeldBackError, match=r"^Stopped\.") as caught:
        caller.send(send_webhook_approval(APPROVAL), before_send=coroutine if kind == "async" else before_send)
    assert caught.value.request_sent is sent
    assert ("unknown" in str(caught.value)) == sent
    assert (len(looks), len(httpx_mock.get_requests())) == (2, 1)


def test_a_call_that_is_held_back_takes_no_place_in_the_limit(make: Make, httpx_mock: HTTPXMock) -> None:
    def held_back() -> None:
        raise HeldBackError("Stopped.")

    caller = make(rate_limit=RateLimit(1, per=60.0))
    for _ in range(3):
        with pytest.raises(HeldBackError):
            caller.send(get_webhooks(), before_send=held_back, deadline=Deadline.after(20))
    httpx_mock.add_response(json=[])
    assert caller.send(get_webhooks(), deadline=Deadline.after(20)) == []
    with pytest.raises(DeadlineExceeded, match="rate limit"):
        caller.send(get_webhooks(), deadline=Deadline.after(20))


def test_a_client_for_threads_awaits_no_function_before_a_request(httpx_mock: HTTPXMock) -> None:
    async def check() -> None:
        await asyncio.sleep(0)

    with OptimoveClient(KEY, base_url=BASE_URL) as client, pytest.raises(ConfigurationError, match="AsyncOptimove"):
        client.send(send_webhook_approval(APPROVAL), before_send=check)
    assert not httpx_mock.get_requests()


def test_a_webhook_that_is_gone_after_a_lost_answer_was_deleted(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_exception(httpx.ReadError("gone"))
    httpx_mock.add_response(status_code=404)
    caller.delete_webhook("webhook1")
    # A try that had no effect deleted nothing.
    httpx_mock.add_response(status_code=404)
    with pytest.raises(NotFoundError):
        caller.delete_webhook("webhook1")
    httpx_mock.add_response(status_code=429)
    httpx_mock.add_response(status_code=404)
    with pytest.raises(NotFoundError):
        caller.delete_webhook("webhook1")
    httpx_mock.add_exception(httpx.ConnectError("refused"))
    httpx_mock.add_response(status_code=404)
    with pytest.raises(NotFoundError):
        caller.delete_webhook("webhook1")


# ---- what something in between says

PAGE = b"<html><body>Request unsuccessful. Incapsula incident ID: 0</body></html>"


@pytest.mark.parametrize("status", [408, 421, 425])
def test_what_a_load_balancer_says_is_repeated(caller: Caller, httpx_mock: HTTPXMock, status: int) -> None:
    for _ in range(2):
        httpx_mock.add_response(status_code=status, text="Try again")
        httpx_mock.add_response(json=[WEBHOOK])
        assert len(caller.get_webhooks()) == 1
        httpx_mock.add_response(status_code=status, text="Try again")
        httpx_mock.add_response(status_code=200)
        caller.send_webhook_approval(APPROVAL, deadline=Deadline.after(20))
    assert len(httpx_mock.get_requests()) == 8


@pytest.mark.parametrize("status", [400, 401, 403, 404, 406, 418])
def test_a_web_page_is_repeated_until_the_deadline(caller: Caller, httpx_mock: HTTPXMock, status: int) -> None:
    for _ in range(6):
        httpx_mock.add_response(status_code=status, content=PAGE)
    httpx_mock.add_response(status_code=status, text="Blocked", headers={"content-type": "text/html; charset=utf-8"})
    httpx_mock.add_response(status_code=200)
    caller.send_webhook_approval(APPROVAL, deadline=Deadline.after(20))
    assert len(httpx_mock.get_requests()) == 8


@pytest.mark.parametrize(
    "answer",
    [
        {"json": {"message": "No."}},
        {"text": "No."},
        {"json": {"message": "No."}, "headers": {"content-type": "text/html"}},
        {"headers": {"content-type": "text/html"}},
    ],
    ids=["json", "text", "json as html", "nothing"],
)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_the_api_itself_says_is_final(
    caller: Caller, httpx_mock: HTTPXMock, status: int, answer: dict[str, Any]
) -> None:
    httpx_mock.add_response(status_code=status, **answer)
    with pytest.raises(APIError) as caught:
        caller.send_webhook_approval(APPROVAL, deadline=Deadline.after(20))
    assert not caught.value.is_transient
    assert len(httpx_mock.get_requests()) == 1


@pytest.mark.parametrize("status", [408, 403])
def test_creating_is_not_repeated_after_a_web_page(caller: Caller, httpx_mock: HTTPXMock, status: int) -> None:
    httpx_mock.add_response(status_code=status, content=PAGE)
    with pytest.raises(APIError):
        caller.create_webhook("u")
    assert len(httpx_mock.get_requests()) == 1


@pytest.mark.parametrize(("status", "kind"), [(401, AuthenticationError), (403, AuthenticationError), (406, APIError)])
def test_a_web_page_tells_of_the_firewall_and_not_of_the_key(
    caller: Caller, httpx_mock: HTTPXMock, status: int, kind: type[APIError]
) -> None:
    httpx_mock.add_response(status_code=status, content=PAGE)
    with pytest.raises(kind) as caught:
        caller.get_webhooks()
    assert caught.value.is_html
    assert "firewall" in str(caught.value)
    assert "Imperva" in str(caught.value)
    assert "OPTIMOVE_API_KEY" not in str(caught.value)


def test_a_web_page_with_404_does_not_tell_that_a_webhook_is_gone(make: Make, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_exception(httpx.ReadError("gone"))
    httpx_mock.add_response(status_code=404, content=PAGE)
    with pytest.raises(NotFoundError):
        make(retry=RetryPolicy(attempts=2, first_pause=0.001)).delete_webhook("webhook1")


def test_ensure_looks_again_after_a_web_page(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(json=[])
    httpx_mock.add_response(status_code=408, content=PAGE)
    httpx_mock.add_response(json=[WEBHOOK])
    assert caller.ensure_webhook("https://example.com/webhook").id == "webhook1"


# ---- Retry-After


def test_a_date_is_read_against_the_servers_own_clock(make: Make, httpx_mock: HTTPXMock) -> None:
    date = {"Date": "Fri, 01 Jan 2100 00:00:00 GMT", "Retry-After": "Fri, 01 Jan 2100 00:00:07 GMT"}
    httpx_mock.add_response(status_code=429, headers=date)
    with pytest.raises(RateLimitError) as caught:
        make(timeout=0.5).get_webhooks()
    assert caught.value.retry_after == 7.0


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_is_believed_up_to_a_bound(
    make: Make, httpx_mock: HTTPXMock, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caller = make(retry=RetryPolicy(first_pause=0.001, max_retry_after=0.3))
    httpx_mock.add_response(status_code=status, headers={"Retry-After": "3600"})
    httpx_mock.add_response(json=[WEBHOOK])
    began = time.monotonic()
    assert len(caller.get_webhooks()) == 1
    assert 0.3 <= time.monotonic() - began < 10
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "3600 s" in warnings[0].getMessage()
    assert "max_retry_after" in warnings[0].getMessage()


def test_a_503_with_retry_after_holds_all_calls_back(make: Make, httpx_mock: HTTPXMock) -> None:
    caller = make(timeout=1.0)
    httpx_mock.add_response(status_code=503, headers={"Retry-After": "30"})
    for _ in range(3):
        with pytest.raises((ServerError, DeadlineExceeded)):
            caller.get_webhooks()
    assert len(httpx_mock.get_requests()) == 1


# ---- the slash at the end of GetWebhooks' path

WEBHOOKS = f"{BASE_URL}/conditional-execution/v2/triggered/webhooks"


@pytest.mark.parametrize("status", [404, 405, 301, 308])
@pytest.mark.parametrize("content", [b"{}", PAGE], ids=["json", "page"])
def test_the_list_is_looked_for_with_a_slash_and_found_there_from_then_on(
    caller: Caller, httpx_mock: HTTPXMock, caplog: pytest.LogCaptureFixture, status: int, content: bytes
) -> None:
    httpx_mock.add_response(url=WEBHOOKS, status_code=status, content=content)
    httpx_mock.add_response(url=f"{WEBHOOKS}/", json=[WEBHOOK], is_reusable=True)
    assert len(caller.get_webhooks()) == 1
    assert caller.ensure_webhook(WEBHOOK["url"]).id == "webhook1"
    assert len(httpx_mock.get_requests()) == 3
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert 'Endpoints(get_webhooks=Endpoint("GET", "/conditional-execution/v2/triggered/webhooks/"))' in warning


def test_a_list_that_is_found_nowhere_is_missing_where_it_was_looked_for_first(
    caller: Caller, httpx_mock: HTTPXMock
) -> None:
    httpx_mock.add_response(url=WEBHOOKS, status_code=404, is_reusable=True)
    httpx_mock.add_response(url=f"{WEBHOOKS}/", status_code=405, is_reusable=True)
    for _ in range(2):
        with pytest.raises(NotFoundError, match="/triggered/webhooks answered 404"):
            caller.get_webhooks()
    assert len(httpx_mock.get_requests()) == 4


def test_what_the_path_with_the_slash_says_of_the_key_is_told(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(url=WEBHOOKS, status_code=404)
    httpx_mock.add_response(url=f"{WEBHOOKS}/", status_code=401, json={})
    with pytest.raises(AuthenticationError):
        caller.get_webhooks()


@pytest.mark.parametrize("status", [307, 302, 400, 401])
def test_no_other_answer_leads_to_the_path_with_the_slash(caller: Caller, httpx_mock: HTTPXMock, status: int) -> None:
    httpx_mock.add_response(url=WEBHOOKS, status_code=status, json={})
    with pytest.raises(APIError):
        caller.get_webhooks()
    assert len(httpx_mock.get_requests()) == 1


def test_both_paths_keep_the_rate_limit(make: Make, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(url=WEBHOOKS, status_code=404)
    with pytest.raises(DeadlineExceeded, match="rate limit"):
        make(rate_limit=RateLimit(1, per=60.0), timeout=1.0).get_webhooks()


# ---- ensure_webhook


@pytest.mark.parametrize(
    "written",
    [
        "https://example.com/Webhook",
        "https://example.com:443/Webhook",
        "HTTPS://EXAMPLE.COM/Webhook/",
        "https://example.com/%57ebhook",
    ],
)
def test_ensure_knows_a_url_that_is_written_in_another_way(caller: Caller, httpx_mock: HTTPXMock, written: str) -> None:
    httpx_mock.add_response(json=[{"url": written, "id": "1"}], is_reusable=True)
    for wanted in ("https://example.com/Webhook", "https://example.com:443/Webhook/", "https://Example.com/%57ebhook"):
        assert caller.ensure_webhook(wanted).id == "1"
    assert {request.method for request in httpx_mock.get_requests()} == {"GET"}


@pytest.mark.parametrize(
    "written", ["https://example.com/webhook", "http://example.com/Webhook", "https://example.com:8443/Webhook"]
)
def test_ensure_tells_other_urls_apart(caller: Caller, httpx_mock: HTTPXMock, written: str) -> None:
    httpx_mock.add_response(json=[{"url": written, "id": "1"}])
    httpx_mock.add_response(status_code=201, json={"url": "https://example.com/Webhook", "id": "2"})
    assert caller.ensure_webhook("https://example.com/Webhook").id == "2"


def test_ensure_knows_a_listener_that_is_written_in_another_way(caller: Caller, httpx_mock: HTTPXMock) -> None:
    for written in (
        "https://EXAMPLE.com:443/campaigns/?token=T%61",
        "https%3A%2F%2Fexample.com%2Fcampaigns%3Ftoken%3DTa",
    ):
        httpx_mock.add_response(json=[{"EventTypeID": 5, "ListenerURL": written}])
        assert caller.ensure_event_listener("https://example.com/campaigns?token=Ta").listener_url == written
    assert {request.method for request in httpx_mock.get_requests()} == {"GET"}


@pytest.mark.parametrize("call", ["create_webhook", "ensure_webhook"])
def test_another_url_than_was_asked_for_is_warned_of_without_its_query(
    caller: Caller, httpx_mock: HTTPXMock, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    if call == "ensure_webhook":
        httpx_mock.add_response(json=[])
    httpx_mock.add_response(status_code=201, json={"url": "https://u:pw@example.com/other?key=s3cret", "id": "1"})
    getattr(caller, call)("https://example.com/webhook?key=s3cret")
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "https://example.com/other" in warning
    assert "https://example.com/webhook" in warning
    assert "s3cret" not in warning
    assert "pw" not in warning


def test_a_url_that_optimove_writes_in_its_own_way_is_no_other_one(
    caller: Caller, httpx_mock: HTTPXMock, caplog: pytest.LogCaptureFixture
) -> None:
    httpx_mock.add_response(status_code=201, json={"url": "https://example.com/webhook/", "id": "1"})
    caller.create_webhook("https://Example.com:443/webhook")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_ensure_creates_only_what_is_missing(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(json=[{"url": "https://other.test", "id": "1"}])
    httpx_mock.add_response(status_code=201, json=WEBHOOK)
    assert caller.ensure_webhook("https://example.com/webhook").id == "webhook1"
    httpx_mock.add_response(json=[WEBHOOK])
    assert caller.ensure_webhook("https://example.com/webhook").id == "webhook1"
    assert [request.method for request in httpx_mock.get_requests()] == ["GET", "POST", "GET"]


@pytest.mark.parametrize("lost", [503, "lost"])
def test_ensure_looks_again_when_the_outcome_is_unknown(caller: Caller, httpx_mock: HTTPXMock, lost: int | str) -> None:
    httpx_mock.add_response(json=[])
    if isinstance(lost, int):
        httpx_mock.add_response(status_code=lost)
    else:
        httpx_mock.add_exception(httpx.ReadError("gone"))
    httpx_mock.add_response(json=[WEBHOOK])
    assert caller.ensure_webhook("https://example.com/webhook").id == "webhook1"
    assert [request.method for request in httpx_mock.get_requests()] == ["GET", "POST", "GET"]


def test_ensure_raises_what_creating_raised(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(json=[], is_reusable=True)
    httpx_mock.add_response(method="POST", status_code=500)
    with pytest.raises(ServerError):
        caller.ensure_webhook("https://example.com/webhook")
    httpx_mock.add_response(method="POST", status_code=400)
    with pytest.raises(APIError):
        caller.ensure_webhook("https://example.com/webhook")
    assert [request.method for request in httpx_mock.get_requests()] == ["GET", "POST", "GET", "GET", "POST"]


def test_ensure_tells_of_the_creation_when_looking_again_fails(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(json=[])
    httpx_mock.add_exception(httpx.ReadError("gone"), method="POST")
    httpx_mock.add_response(status_code=401)
    with pytest.raises(TransportError) as caught:
        caller.ensure_webhook("https://example.com/webhook")
    assert caught.value.request_sent is True


def test_ensure_finds_what_was_created_without_saying_so(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(json=[])
    httpx_mock.add_response(method="POST", status_code=201)
    httpx_mock.add_response(json=[WEBHOOK])
    assert caller.ensure_webhook("https://example.com/webhook").id == "webhook1"


# ---- secrets stay out


def test_nothing_secret_in_errors(caller: Caller, httpx_mock: HTTPXMock) -> None:
    secret = 'pa"ss\\wörd'
    httpx_mock.add_response(
        status_code=400, json={"message": f"bad {secret} for {KEY}", "secret": secret, "key": KEY}, is_reusable=True
    )
    approval = Approval(timestamp=1, request_uid="r", approved=True, additional_data={"mail": "dana@example.com"})
    calls: list[Callable[[], Any]] = [
        lambda: caller.update_webhook_settings(secret=secret),
        lambda: caller.send_webhook_approval(approval),
        caller.get_webhooks,
    ]
    for call in calls:
        with pytest.raises(APIError) as caught:
            call()
        error = caught.value
        shown = f"{error!r}{error}{error.message}{error.args}"
        if error.operation == "update_webhook_settings":
            shown += error.body.decode() + error.message
            assert "pa" not in error.body.decode()
        assert KEY not in shown + error.body.decode()
        assert "dana" not in shown
        if error.operation != "get_webhooks":
            assert error.message not in str(error)
    assert KEY not in repr(caller.client)


def test_errors_survive_pickling() -> None:
    for error in (
        RateLimitError("text", status=429, operation="x", retry_after=3.0, body=b"b", message="m"),
        DeadlineExceeded("text", request_sent=None, acknowledged=4),
        TransportError("text", request_sent=False),
        UnexpectedResponseError("text", status=200, operation="x"),
    ):
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert (str(copy), vars(copy)) == (str(error), vars(error))


# ---- settings


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("OPTIMOVE_API_KEY", "OPTIMOVE_BASE_URL", "OPTIMOVE_TIMEZONE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


CLIENTS: list[Any] = [OptimoveClient, AsyncOptimoveClient]


@pytest.mark.parametrize("client", CLIENTS)
def test_settings_come_from_the_environment(client: Any, bare_environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="OPTIMOVE_API_KEY"):
        client(base_url=BASE_URL)
    bare_environment.setenv("OPTIMOVE_API_KEY", "  key-from-env\n")
    with pytest.raises(ConfigurationError, match="OPTIMOVE_BASE_URL"):
        client()
    bare_environment.setenv("OPTIMOVE_BASE_URL", "https://api4.optimove.net/")
    assert repr(client()) == f"<{client.__name__} of https://api4.optimove.net>"
    assert client().timezone is None
    bare_environment.setenv("OPTIMOVE_TIMEZONE", "Europe/Malta")
    assert str(client().timezone) == "Europe/Malta"
    assert str(client(timezone="UTC").timezone) == "UTC"
    bare_environment.setenv("OPTIMOVE_TIMEZONE", "../etc/passwd")
    with pytest.raises(ConfigurationError, match="OPTIMOVE_TIMEZONE"):
        client()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"api_key": ""}, "OPTIMOVE_API_KEY"),
        ({"api_key": " "}, "OPTIMOVE_API_KEY"),
        ({"api_key": "two\nlines"}, "OPTIMOVE_API_KEY"),
        ({"api_key": "café"}, "OPTIMOVE_API_KEY"),
        ({"api_key": 5}, "OPTIMOVE_API_KEY"),
        ({"base_url": ""}, "OPTIMOVE_BASE_URL"),
        ({"base_url": "api5.optimove.net"}, "OPTIMOVE_BASE_URL"),
        ({"base_url": "ftp://api5.optimove.net"}, "OPTIMOVE_BASE_URL"),
        ({"base_url": "https://"}, "OPTIMOVE_BASE_URL"),
        ({"base_url": "https://h?q=1"}, "OPTIMOVE_BASE_URL"),
        ({"base_url": "https://user:pw-in-url@h"}, "OPTIMOVE_BASE_URL"),
        ({"base_url": "https://h:port"}, "OPTIMOVE_BASE_URL"),
        ({"base_url": "https://[::1"}, "OPTIMOVE_BASE_URL"),
        ({"base_url": "https://h ost"}, "OPTIMOVE_BASE_URL"),
        ({"timezone": "Mars/Olympus"}, "OPTIMOVE_TIMEZONE"),
        ({"timezone": ""}, "OPTIMOVE_TIMEZONE"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": "30"}, "timeout"),
        ({"timeout": None}, "timeout"),
        ({"retry": None}, "RetryPolicy"),
        ({"endpoints": None}, "Endpoints"),
        ({"rate_limit": 5}, "RateLimit"),
        ({"base_url": "https://x..y"}, "OPTIMOVE_BASE_URL"),
        ({"base_url": "https://h/?"}, "OPTIMOVE_BASE_URL"),
        ({"base_url": "https://h#"}, "OPTIMOVE_BASE_URL"),
        ({"http_client": object()}, "http_client"),
    ],
)
def test_settings_that_make_no_sense(make: Make, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as caught:
        make(**options)
    for value in ("café", "two", "pw-in-url"):
        assert value not in str(caught.value)


def test_policies_that_make_no_sense() -> None:
    policies: list[dict[str, Any]] = [
        {"attempts": 0},
        {"attempt_timeout": 0},
        {"first_pause": -1},
        {"longest_pause": -1},
    ]
    for options in policies:
        with pytest.raises(ConfigurationError):
            RetryPolicy(**options)
    for requests, per in ((0, 1.0), (1, 0.0), (1, -1.0), (1, float("nan"))):
        with pytest.raises(ConfigurationError):
            RateLimit(requests, per=per)


def test_the_key_in_clear_is_warned_about(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    make(base_url="http://127.0.0.1:1")
    assert not caplog.records
    make(base_url="http://api5.optimove.test")
    assert "not https" in caplog.text
    assert KEY not in caplog.text


def test_a_closed_client_says_so(make: Make) -> None:
    caller = make()
    caller.shut()
    with pytest.raises(ConfigurationError, match="closed"):
        caller.get_webhooks()


def test_your_own_httpx_client_stays_open(kind: str, make: Make) -> None:
    own: Any = httpx.Client() if kind == "sync" else httpx.AsyncClient()
    make(http_client=own).shut()
    assert not own.is_closed
    wrong: Any = httpx.AsyncClient() if kind == "sync" else httpx.Client()
    with pytest.raises(ConfigurationError, match="http_client"):
        make(http_client=wrong)


# ---- over real sockets


class Peer:
    """A TCP server on loopback whose behaviour is a function of the connection."""

    def __init__(self, behave: Callable[[socket.socket], None]) -> None:
        self._behave = behave
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.connections = 0
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._behave(connection)
            except OSError:
                return

    def stop_listening(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def close(self) -> None:
        self.stop_listening()
        self._thread.join(5)


@pytest.fixture
def peer() -> Iterator[Callable[[Callable[[socket.socket], None]], Peer]]:
    peers: list[Peer] = []

    def made(behave: Callable[[socket.socket], None]) -> Peer:
        peers.append(Peer(behave))
        return peers[-1]

    yield made
    for each in peers:
        each.close()


MakePeer = Callable[[Callable[[socket.socket], None]], Peer]


def hang(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def hang_up(connection: socket.socket) -> None:
    connection.recv(65_536)


def drip(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(1_200):
        connection.sendall(b" ")
        time.sleep(0.05)


def flood(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")


def good(connection: socket.socket) -> None:
    while connection.recv(65_536):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")


def busy(connection: socket.socket) -> None:
    while connection.recv(65_536):
        connection.sendall(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")


def test_a_server_that_hangs(make: Make, peer: MakePeer) -> None:
    caller = make(base_url=peer(hang).url, timeout=0.5)
    before = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        caller.get_webhooks()
    assert 0.45 < time.monotonic() - before < 15
    assert caught.value.request_sent is not False
    assert isinstance(caught.value, TimeoutError)


def test_a_try_that_hangs_is_repeated_within_the_deadline(make: Make, peer: MakePeer) -> None:
    server = peer(hang)
    caller = make(
        base_url=server.url, timeout=60, retry=RetryPolicy(attempts=3, attempt_timeout=0.4, first_pause=0.001)
    )
    with pytest.raises(TransportError) as caught:
        caller.get_webhooks()
    assert caught.value.request_sent is not False
    assert server.connections == 3


def test_a_server_that_drips_its_body(make: Make, peer: MakePeer) -> None:
    before = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        make(base_url=peer(drip).url, timeout=0.4).get_webhooks()
    assert time.monotonic() - before < 15


def test_a_server_that_never_ends(make: Make, peer: MakePeer) -> None:
    with pytest.raises(UnexpectedResponseError, match="longer than 8388608 bytes") as caught:
        make(base_url=peer(flood).url).get_webhooks()
    assert caught.value.body == b"x" * 2_048


def test_a_server_that_hangs_up(make: Make, peer: MakePeer) -> None:
    server = peer(hang_up)
    with pytest.raises(TransportError) as caught:
        make(base_url=server.url).get_webhooks()
    assert caught.value.request_sent is True
    assert server.connections == 4
    with pytest.raises(TransportError):
        make(base_url=server.url).create_webhook("u")
    assert server.connections == 5


def cut(connection: socket.socket) -> None:
    connection.recv(1_000)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_an_upload_that_breaks_off_may_have_arrived(make: Make, peer: MakePeer) -> None:
    server = peer(cut)
    caller = make(base_url=server.url, retry=RetryPolicy(attempts=1))
    long = Approval(timestamp=1, request_uid="r-1", approved=True, additional_data={"note": "x" * 32_000_000})
    with pytest.raises(TransportError) as caught:
        caller.send_webhook_approval(long)
    assert caught.value.request_sent is None
    assert server.connections == 1


def refuse_the_way(connection: socket.socket) -> None:
    assert connection.recv(65_536).startswith(b"CONNECT optimove.invalid:443 ")
    connection.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")


def hang_up_on_the_way(connection: socket.socket) -> None:
    connection.recv(65_536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    connection.recv(65_536)


@pytest.mark.parametrize("proxy", [hang, hang_up, refuse_the_way, hang_up_on_the_way])
def test_what_has_not_come_past_the_proxy_was_not_sent(
    make: Make, peer: MakePeer, monkeypatch: pytest.MonkeyPatch, proxy: Callable[[socket.socket], None]
) -> None:
    server = peer(proxy)
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    timeout = 1.0 if proxy is hang else 20.0
    caller = make(base_url="https://optimove.invalid", timeout=timeout, retry=RetryPolicy(attempts=1))
    with pytest.raises((TransportError, DeadlineExceeded)) as caught:
        caller.create_webhook("https://gate.example.com/optimove")
    error: Any = caught.value
    assert error.request_sent is False
    assert server.connections == 1


ECHO = KEY.encode()


@pytest.mark.parametrize("engine", ["httpx", "httpx2", "aiohttp"])
@pytest.mark.parametrize(
    "answer",
    [
        ECHO + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + ECHO + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Echo: " + ECHO + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + ECHO + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + ECHO + b"\r\n\r\n",
    ],
)
def test_an_echo_that_breaks_the_protocol_is_not_quoted(make: Make, peer: MakePeer, engine: str, answer: bytes) -> None:
    def echo(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)

    with pytest.raises(TransportError) as caught:
        make(base_url=peer(echo).url, engine=engine).get_webhooks()
    assert KEY not in "".join(traceback.format_exception(caught.value))
    assert ": )" not in str(caught.value)


def test_nobody_listens(make: Make) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    with pytest.raises(TransportError) as caught:
        make(base_url=f"http://127.0.0.1:{port}").get_webhooks()
    assert caught.value.request_sent is False


def test_one_connection_serves_many_calls(make: Make, peer: MakePeer) -> None:
    server = peer(good)
    caller = make(base_url=server.url)
    for _ in range(20):
        assert caller.get_webhooks() == []
    assert server.connections == 1


def test_a_deadline_that_has_passed_sends_nothing(make: Make, peer: MakePeer) -> None:
    server = peer(good)
    with pytest.raises(DeadlineExceeded) as caught:
        make(base_url=server.url).send_webhook_approval(APPROVAL, deadline=Deadline.after(-1))
    assert caught.value.request_sent is False
    assert server.connections == 0


def compressed(connection: socket.socket) -> None:
    asked = connection.recv(65_536).lower()
    assert b"accept-encoding: identity" in asked
    body = gzip.compress(gzip.compress(b" " * 20_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip, gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    connection.sendall(head + body)


def test_a_compressed_answer_is_not_unpacked(make: Make, peer: MakePeer) -> None:
    with pytest.raises(UnexpectedResponseError, match="compressed") as caught:
        make(base_url=peer(compressed).url).get_webhooks()
    assert caught.value.body[:2] == b"\x1f\x8b"


def test_a_try_that_drips_is_given_up_and_repeated(make: Make, peer: MakePeer) -> None:
    server = peer(drip)
    policy = RetryPolicy(attempts=2, attempt_timeout=0.4, first_pause=0.001)
    with pytest.raises(TransportError):
        make(base_url=server.url, retry=policy).get_webhooks()
    assert server.connections == 2


def test_your_own_hooks_do_not_hide_what_optimove_said(kind: str, make: Make) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json={"message": "no"})

    def judge(response: httpx.Response) -> None:
        response.raise_for_status()

    async def ajudge(response: httpx.Response) -> None:
        response.raise_for_status()

    def broken(response: httpx.Response) -> None:
        raise ValueError("quotes the key")

    async def abroken(response: httpx.Response) -> None:
        raise ValueError("quotes the key")

    transport = httpx.MockTransport(handle)
    hooks: list[Any] = [judge, broken] if kind == "sync" else [ajudge, abroken]
    client: Any = httpx.Client if kind == "sync" else httpx.AsyncClient
    with pytest.raises(AuthenticationError):
        make(http_client=client(transport=transport, event_hooks={"response": [hooks[0]]})).get_webhooks()
    with pytest.raises(TransportError, match="ValueError") as caught:
        make(http_client=client(transport=transport, event_hooks={"response": [hooks[1]]})).get_webhooks()
    assert "quotes" not in str(caught.value)


LOOPS = """
import asyncio, gc, sys, threading
from optimove_conditional_execution import AsyncOptimoveClient, ConfigurationError

async def use(client):
    assert await client.get_webhooks() == []
    assert await client.get_webhooks() == []

async def end(client):
    await client.aclose()
    try:
        await client.get_webhooks()
    except ConfigurationError as error:
        print(error)

for argument in sys.argv[1:]:
    engine, _, url = argument.partition("=")
    client = AsyncOptimoveClient("key", engine=engine, base_url=url)
    for _ in range(3):
        asyncio.run(use(client))
    threads = [threading.Thread(target=asyncio.run, args=(use(client),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    gc.collect()
    asyncio.run(end(client))
"""


def test_one_client_in_several_event_loops(peer: MakePeer) -> None:
    # In a process of its own: loops that end with open connections are warned about, at any time.
    servers = {engine: peer(good) for engine in ("httpx", "httpx2", "aiohttp")}
    arguments = [f"{engine}={server.url}" for engine, server in servers.items()]
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", LOOPS, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ["closed" in line for line in ended.stdout.splitlines()] == [True] * 3
    assert not ended.stderr
    assert [server.connections for server in servers.values()] == [6] * 3


def test_a_forked_child_has_connections_of_its_own(peer: MakePeer) -> None:
    server = peer(good)
    with OptimoveClient(KEY, base_url=server.url) as client:
        assert client.get_webhooks() == []
        assert child_status(lambda: client.get_webhooks() == []) == 0
        assert client.get_webhooks() == []
    assert server.connections == 2


@pytest.mark.parametrize(
    ("variable", "value"),
    [("HTTPS_PROXY", "foo://x"), ("HTTP_PROXY", "http://[::1"), ("SSL_CERT_FILE", "/nonexistent/ca.pem")],
)
def test_a_machine_whose_settings_make_no_sense(
    make: Make, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        make()


def test_the_rate_limit_never_waits_past_the_deadline(make: Make, peer: MakePeer) -> None:
    server = peer(good)
    caller = make(base_url=server.url, rate_limit=RateLimit(2, per=120.0), timeout=60.0)
    caller.get_webhooks()
    caller.get_webhooks()
    before = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="rate limit") as caught:
        caller.get_webhooks()
    assert time.monotonic() - before < 20  # of the minute that there is
    assert caught.value.request_sent is False
    caller.send_webhook_approval(APPROVAL)  # approvals have a limit of their own: none


def test_no_turn_left_after_a_429_ends_the_call_at_once(make: Make, peer: MakePeer) -> None:
    server = peer(busy)
    before = time.monotonic()
    with pytest.raises(RateLimitError):
        make(base_url=server.url, rate_limit=RateLimit(2, per=120.0), timeout=60.0).get_webhooks()
    assert time.monotonic() - before < 20
    with pytest.raises(RateLimitError):
        make(base_url=server.url, approval_rate_limit=RateLimit(2, per=120.0)).send_webhook_approval(
            APPROVAL, deadline=Deadline.after(60)
        )
    assert time.monotonic() - before < 40


def test_what_an_early_try_sent_stays_sent(make: Make, peer: MakePeer) -> None:
    # The server takes one request, hangs up, and is gone: no later try reaches it, yet the first one did.
    def once(connection: socket.socket) -> None:
        connection.recv(65_536)
        server.stop_listening()

    server = peer(once)
    with pytest.raises(TransportError) as caught:
        make(base_url=server.url).get_webhooks()
    assert caught.value.request_sent is True


def test_the_rate_limit_is_waited_for(make: Make, peer: MakePeer) -> None:
    caller = make(base_url=peer(good).url, rate_limit=RateLimit(1, per=0.2), approval_rate_limit=RateLimit(1, per=0.2))
    before = time.monotonic()
    for _ in range(3):
        caller.get_webhooks()
    assert 0.35 < time.monotonic() - before < 20
    before = time.monotonic()
    for _ in range(3):
        caller.send_webhook_approval(APPROVAL)
    assert 0.35 < time.monotonic() - before < 20


def test_context_managers(kind: str, peer: MakePeer) -> None:
    url = peer(good).url
    if kind == "sync":
        with OptimoveClient(KEY, base_url=url) as client:
            assert client.get_webhooks() == []
    else:

        async def use() -> None:
            async with AsyncOptimoveClient(KEY, base_url=url) as client:
                assert await client.get_webhooks() == []

        asyncio.run(use())


def test_every_error_is_ours() -> None:
    for error in (ConfigurationError, APIError, TransportError, DeadlineExceeded):
        assert issubclass(error, OptimoveError)
    assert issubclass(ConfigurationError, ValueError)
