"""What goes over the wire, to the letter: method, path, headers, JSON; and what is made of the answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from pytest_httpx import HTTPXMock

from optimove_conditional_execution import (
    Approval,
    CampaignDetails,
    ConfigurationError,
    Endpoint,
    Endpoints,
    Operation,
    PayloadError,
    Response,
    TenantSettings,
    UnexpectedResponseError,
    Webhook,
)
from optimove_conditional_execution.operations import send_webhook_approval
from tests.client.conftest import BASE_URL, KEY, Caller, Make

Sample = Callable[[str], bytes]
WEBHOOKS = f"{BASE_URL}/conditional-execution/v2/triggered/webhooks"
WEBHOOK = {"url": "https://example.com/webhook", "id": "webhook1"}


def only_request(httpx_mock: HTTPXMock) -> httpx.Request:
    (request,) = httpx_mock.get_requests()
    return request


def check_headers(request: httpx.Request, *, has_body: bool) -> None:
    assert request.headers.get_list("X-API-KEY") == [KEY]
    assert request.headers["Accept"] == "application/json"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["User-Agent"].startswith("optimove-conditional-execution/")
    assert request.headers.get("Content-Type") == ("application/json" if has_body else None)
    assert KEY not in str(request.url)


def test_create_webhook(caller: Caller, httpx_mock: HTTPXMock, sample: Sample) -> None:
    httpx_mock.add_response(status_code=201, content=sample("create-webhook-response-201.json"))
    created = caller.create_webhook("string")
    request = only_request(httpx_mock)
    assert (request.method, str(request.url)) == ("POST", f"{WEBHOOKS}/")
    assert json.loads(request.content) == json.loads(sample("create-webhook-request.json"))
    assert request.content == b'{"url":"string"}'
    check_headers(request, has_body=True)
    assert created == Webhook(**WEBHOOK)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ([WEBHOOK, {**WEBHOOK, "id": 2}], ["webhook1", "2"]),
        ({"webhooks": [WEBHOOK], "total": 1}, ["webhook1"]),
        ([], []),
        (None, []),
    ],
)
def test_get_webhooks(caller: Caller, httpx_mock: HTTPXMock, body: Any, found: list[str]) -> None:
    httpx_mock.add_response(json=body)
    assert [webhook.id for webhook in caller.get_webhooks()] == found
    request = only_request(httpx_mock)
    assert (request.method, str(request.url), request.content) == ("GET", WEBHOOKS, b"")
    check_headers(request, has_body=False)


@pytest.mark.parametrize("status", [200, 204])
def test_no_webhooks_may_be_an_empty_body(caller: Caller, httpx_mock: HTTPXMock, status: int) -> None:
    httpx_mock.add_response(status_code=status)
    assert caller.get_webhooks() == []


def test_get_webhook_by_id(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(json={**WEBHOOK, "created": "today"})
    webhook = caller.get_webhook_by_id("a/b?c d%")
    assert webhook.model_extra == {"created": "today"}
    request = only_request(httpx_mock)
    assert (request.method, str(request.url)) == ("GET", f"{WEBHOOKS}/a%2Fb%3Fc%20d%25")
    check_headers(request, has_body=False)


@pytest.mark.parametrize(("status", "body"), [(204, b""), (200, b""), (200, b"OK"), (202, b'{"ResponseCode":200}')])
def test_delete_webhook(caller: Caller, httpx_mock: HTTPXMock, status: int, body: bytes) -> None:
    httpx_mock.add_response(status_code=status, content=body)
    assert caller.delete_webhook("webhook1") is None
    request = only_request(httpx_mock)
    assert (request.method, str(request.url), request.content) == ("DELETE", f"{WEBHOOKS}/webhook1", b"")
    check_headers(request, has_body=False)


def test_update_webhook_settings(caller: Caller, httpx_mock: HTTPXMock, sample: Sample) -> None:
    httpx_mock.add_response(content=sample("webhook-settings-response-200.json"))
    settings = caller.update_webhook_settings(secret="string")
    request = only_request(httpx_mock)
    assert (request.method, request.url.path) == ("PUT", "/conditional-execution/v2/triggered/settings")
    assert request.content == b'{"timeout":5000,"secret":"string"}'
    assert json.loads(request.content) == json.loads(sample("webhook-settings-request.json"))
    check_headers(request, has_body=True)
    assert settings.timeout_ms == 5000
    assert settings.secret.get_secret_value() == "string"


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"other":1}'])
def test_settings_without_an_echo_are_those_that_were_sent(
    caller: Caller, httpx_mock: HTTPXMock, answer: bytes
) -> None:
    httpx_mock.add_response(content=answer)
    settings = caller.update_webhook_settings(timeout_ms=800)
    assert only_request(httpx_mock).content == b'{"timeout":800}'
    assert isinstance(settings, TenantSettings)
    assert (settings.timeout_ms, settings.secret) == (800, None)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_send_webhook_approval(caller: Caller, httpx_mock: HTTPXMock, sample: Sample, status: int) -> None:
    httpx_mock.add_response(status_code=status, content=b"anything")
    caller.send_webhook_approval(Approval.from_json(sample("webhook-approval.json")))
    request = only_request(httpx_mock)
    assert (request.method, request.url.path) == ("POST", "/conditional-execution/v2/triggered/approval")
    assert request.content == b'{"timestamp":1234567890123,"request_uid":"string","approved":true,"additional_data":{}}'
    assert json.loads(request.content) == json.loads(sample("webhook-approval.json"))
    check_headers(request, has_body=True)


DETAILS: dict[str, Any] = {
    "TargetGroupID": 15, "CampaignType": "Test/Control", "Duration": 7, "LeadTime": 3, "Notes": "",
    "IsMultiChannel": "false", "IsRecurrence": "false", "Status": "Successful", "Error": "",
}  # fmt: skip


EXECUTED: list[dict[str, Any]] = [
    {
        "CustomerID": "C1", "ActionID": 19, "ChannelID": 504, "TemplateID": 7, "TemplateName": "Hello",
        "ScheduledTime": "2025-03-01 12:30:00", "PromoCode": "A,B", "CustomerAttributes": ["UA"],
    },
    {"CustomerID": 2, "actionId": "1"},
]  # fmt: skip


def test_get_customer_execution_details_by_campaign(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(json=EXECUTED)
    httpx_mock.add_response(json=[])
    options = {"channel_id": 504, "customer_attributes": ["Country"], "page_size": 100}
    one, two = caller.get_customer_execution_details_by_campaign(21, **options)
    first, second = httpx_mock.get_requests()
    url = f"{BASE_URL}/Customers/GetCustomerExecutionDetailsByCampaign"
    query = "CampaignID=21&ChannelID=504&CustomerAttributes=Country&$top=100&$skip="
    assert (first.method, str(first.url), first.content) == ("GET", f"{url}?{query}0", b"")
    assert str(second.url) == f"{url}?{query}2"
    check_headers(first, has_body=False)
    assert (one.customer_id, one.channel_id, one.template_name) == ("C1", 504, "Hello")
    assert (one.scheduled_time, one.promo_codes, one.customer_attributes) == (
        "2025-03-01 12:30:00",
        ("A", "B"),
        ("UA",),
    )
    assert (two.customer_id, two.is_control, two.template_name) == ("2", True, None)
    assert "C1" not in repr(one)
    for bad in ({"channel_id": -1}, {"page_size": 0}, {"customer_attributes": "Country"}):
        with pytest.raises(ConfigurationError):
            list(caller.get_customer_execution_details_by_campaign(21, **bad))


def test_get_campaign_details(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(json=DETAILS)
    details = caller.get_campaign_details(21)
    request = only_request(httpx_mock)
    url = f"{BASE_URL}/Actions/GetCampaignDetails?CampaignID=21"
    assert (request.method, str(request.url), request.content) == ("GET", url, b"")
    check_headers(request, has_body=False)
    assert details == CampaignDetails.model_validate(DETAILS)
    assert (details.target_group_id, details.campaign_type, details.duration) == (15, "Test/Control", 7)
    assert (details.is_multi_channel, details.is_recurrence) == (False, False)


def test_newer_details_and_those_of_a_failed_campaign(caller: Caller, httpx_mock: HTTPXMock) -> None:
    newer = {"targetgroupid": "15", "Channels": [{"ChannelID": 4}], "Tags": None, "IsRecurrence": True, "Brand": "b"}
    failed = {**DETAILS, "Status": "Failed", "Error": "ESP unavailable"}
    for body in (newer, failed):
        httpx_mock.add_response(json=body)
    details = caller.get_campaign_details(21)
    assert (details.target_group_id, details.channels, details.tags) == (15, ({"ChannelID": 4},), ())
    assert (details.is_recurrence, details.model_extra) == (True, {"Brand": "b"})
    details = caller.get_campaign_details(21)
    assert (details.status, details.error) == ("Failed", "ESP unavailable")


@pytest.mark.parametrize(
    "body", [b"", b"null", b"{}", b"[]", b'"x"', b"<html>", b'{"Brand": 1}', b'{"Status": "Failed", "Error": "no"}']
)
def test_an_answer_without_details_is_no_campaign(caller: Caller, httpx_mock: HTTPXMock, body: bytes) -> None:
    httpx_mock.add_response(content=body)
    with pytest.raises(UnexpectedResponseError) as caught:
        caller.get_campaign_details(21)
    assert caught.value.operation == "get_campaign_details"


@pytest.mark.parametrize("bad", [0, -1, True, "21", 1.5, None])
def test_a_campaign_is_a_number(caller: Caller, bad: Any) -> None:
    with pytest.raises(ConfigurationError, match="campaign_id"):
        caller.get_campaign_details(bad)


@pytest.mark.parametrize("uid", ["r-1", '\u00fc\u2028"\\', 7, 10**30], ids=range(4))
@pytest.mark.parametrize("approved", [True, False])
@pytest.mark.parametrize("more", [{}, {"additional_data": {}}, {"additional_data": {"a": 1.5}}, {"unknown": None}])
def test_the_body_of_an_approval_is_its_json(uid: Any, approved: bool, more: dict[str, Any]) -> None:
    approval = Approval.model_validate(
        {"timestamp": 1_767_225_600_123, "request_uid": uid, "approved": approved, **more}
    )
    body = send_webhook_approval(approval).body
    assert body == json.dumps(approval.model_dump(mode="json", by_alias=True), separators=(",", ":")).encode()


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b'"Request blocked"', b'  "x"'])
def test_a_page_or_a_message_is_no_acknowledgement(caller: Caller, httpx_mock: HTTPXMock, body: bytes) -> None:
    httpx_mock.add_response(content=body, is_reusable=True)
    with pytest.raises(UnexpectedResponseError):
        caller.send_webhook_approval(Approval(timestamp=1, request_uid="r", approved=True))
    with pytest.raises(UnexpectedResponseError):
        caller.delete_webhook("webhook1")


@pytest.mark.parametrize("path", ["v2/webhooks", ".evil.test/x", "@evil.test/x", "", None])
def test_an_endpoint_cannot_send_the_key_elsewhere(path: Any) -> None:
    with pytest.raises(ConfigurationError, match="slash"):
        Endpoint("GET", path)


@pytest.mark.parametrize("method", ["", None, "GET POST", "G\u00c9T", "GET\r\n"])
def test_an_endpoint_needs_a_method(method: Any) -> None:
    with pytest.raises(ConfigurationError, match="method"):
        Endpoint(method, "/x")


def test_every_endpoint_can_be_overridden(make: Make, httpx_mock: HTTPXMock) -> None:
    endpoints = Endpoints(
        create_webhook=Endpoint("PUT", "/a"),
        get_webhooks=Endpoint("POST", "/b/"),
        get_webhook_by_id=Endpoint("GET", "/c/{webhook_id}/x"),
        delete_webhook=Endpoint("POST", "/d/{webhook_id}"),
        update_webhook_settings=Endpoint("PATCH", "/e"),
        send_webhook_approval=Endpoint("PUT", "/f"),
    )
    caller = make(endpoints=endpoints, base_url=f"{BASE_URL}/tenant/")
    for _ in range(6):
        httpx_mock.add_response(json=WEBHOOK | {"webhooks": [], "timeout": 1})
    caller.create_webhook("u")
    caller.get_webhooks()
    caller.get_webhook_by_id("1")
    caller.delete_webhook("1")
    caller.update_webhook_settings()
    caller.send_webhook_approval(Approval(timestamp=1, request_uid="r", approved=False))
    assert [(request.method, request.url.path) for request in httpx_mock.get_requests()] == [
        ("PUT", "/tenant/a"),
        ("POST", "/tenant/b/"),
        ("GET", "/tenant/c/1/x"),
        ("POST", "/tenant/d/1"),
        ("PATCH", "/tenant/e"),
        ("PUT", "/tenant/f"),
    ]


def test_an_endpoint_with_an_unknown_parameter(make: Make) -> None:
    caller = make(endpoints=Endpoints(get_webhook_by_id=Endpoint("GET", "/webhooks/{hook}")))
    with pytest.raises(ConfigurationError, match="get_webhook_by_id"):
        caller.get_webhook_by_id("1")


def test_an_operation_of_your_own(caller: Caller, httpx_mock: HTTPXMock) -> None:
    httpx_mock.add_response(content=b"17")
    ask: Operation[int] = Operation(
        "get_answer",
        Endpoint("GET", "/answers/{name}"),
        parse=lambda response: int(response.body),
        path_parameters=(("name", "all things"),),
        query=(("$top", "5"), ("CustomerAttributes", "Alias;Country")),
    )
    assert caller.send(ask) == 17
    url = only_request(httpx_mock).url
    assert url.raw_path == b"/answers/all%20things?$top=5&CustomerAttributes=Alias%3BCountry"
    assert isinstance(ask.parse(Response(200, {}, b"1")), int)


@pytest.mark.parametrize("body", [b"<html>hello</html>", b'"Unauthorized"', b"{", b"[1]", b"[[]]", b"7", b"[" * 50_000])
def test_a_2xx_that_is_not_the_documented_shape(caller: Caller, httpx_mock: HTTPXMock, body: bytes) -> None:
    httpx_mock.add_response(content=body, is_reusable=True)
    calls: list[Callable[[], Any]] = [
        caller.get_webhooks,
        lambda: caller.get_webhook_by_id("1"),
        lambda: caller.create_webhook("u"),
    ]
    for call in calls:
        with pytest.raises(UnexpectedResponseError) as caught:
            call()
        assert caught.value.status == 200
        assert caught.value.body == body[:2_048]
    assert len(httpx_mock.get_requests()) == 3


@pytest.mark.parametrize("body", [b"", b"{}", b'{"url":"u"}', b'{"id":"","url":"u"}', b'{"id":null,"url":"u"}'])
def test_a_created_webhook_needs_an_id(caller: Caller, httpx_mock: HTTPXMock, body: bytes) -> None:
    httpx_mock.add_response(status_code=201, content=body)
    with pytest.raises(UnexpectedResponseError):
        caller.create_webhook("u")


@pytest.mark.parametrize("bad", ["", " ", None, 5, ".", "..", "a\ud800"])
def test_ids_that_would_address_something_else(caller: Caller, bad: Any) -> None:
    for call in (caller.get_webhook_by_id, caller.delete_webhook):
        with pytest.raises(ConfigurationError, match="webhook_id"):
            call(bad)


def test_arguments_that_make_no_sense(caller: Caller) -> None:
    for url in ("", "  ", None):
        with pytest.raises(ConfigurationError, match="url"):
            caller.create_webhook(url)
        with pytest.raises(ConfigurationError, match="url"):
            caller.ensure_webhook(url)
    for url in ("foo", "127.0.0.1:8001/optimove", "ftp://h/x", "https://", "http://["):
        with pytest.raises(ConfigurationError, match="absolute"):
            caller.ensure_webhook(url)
    for wrong in (None, {"approved": True}, True):
        with pytest.raises(PayloadError, match="Approval"):
            caller.send_webhook_approval(wrong)
    with pytest.raises(ConfigurationError, match="Deadline"):
        caller.send_webhook_approval(Approval(timestamp=1, request_uid="r", approved=True), deadline=5.0)
    for timeout in (0, -1, True, 1.5, "5000", None):
        with pytest.raises(ConfigurationError, match="timeout_ms"):
            caller.update_webhook_settings(timeout_ms=timeout)
    for secret in ("", " ", 7, b"abc", ["abc"]):
        with pytest.raises(ConfigurationError, match="secret"):
            caller.update_webhook_settings(secret=secret)
