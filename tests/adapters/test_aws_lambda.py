"""AWS Lambda: the events of REST APIs, HTTP APIs, function URLs and load balancers."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from optimove_conditional_execution import (
    UNSIGNED,
    AsyncWebhookReceiver,
    ConfigurationError,
    ListenerReceiver,
    OptimoveClient,
    Outcome,
    Request,
    Response,
    WebhookReceiver,
    sign,
)
from optimove_conditional_execution.adapters.aws_lambda import lambda_handler
from optimove_conditional_execution.testing import FakeOptimove, SentNotification, notification
from tests.adapters.apps import decide
from tests.adapters.table import MAX_BODY, SECRET
from tests.conftest import Looking

Headers = list[tuple[str, str]]
Shape = Callable[[Any, Headers], dict[str, Any]]
Handler = Callable[[Any, Any], dict[str, Any]]


def rest(body: Any, headers: Headers, *, method: str = "POST") -> dict[str, Any]:
    """Return an event of an API Gateway REST API, format 1.0: the last of each header, and all of them."""
    several: dict[str, list[str]] = {}
    for name, value in headers:
        several.setdefault(name, []).append(value)
    return {
        "version": "1.0",
        "resource": "/optimove",
        "path": "/optimove",
        "httpMethod": method,
        "headers": dict(headers),
        "multiValueHeaders": several,
        "queryStringParameters": None,
        "multiValueQueryStringParameters": None,
        "requestContext": {"httpMethod": method, "path": "/prod/optimove", "stage": "prod"},
        "body": body,
        "isBase64Encoded": False,
    }


def http_api(body: Any, headers: Headers, *, method: str = "POST") -> dict[str, Any]:
    """Return an event of an API Gateway HTTP API, format 2.0: header names in lower case, repeated ones joined."""
    joined: dict[str, str] = {}
    for name, value in headers:
        joined[name.lower()] = f"{joined[name.lower()]},{value}" if name.lower() in joined else value
    return {
        "version": "2.0",
        "routeKey": "POST /optimove",
        "rawPath": "/optimove",
        "rawQueryString": "",
        "headers": joined,
        "requestContext": {
            "http": {"method": method, "path": "/optimove", "protocol": "HTTP/1.1"},
            "stage": "$default",
        },
        "body": body,
        "isBase64Encoded": False,
    }


def function_url(body: Any, headers: Headers, *, method: str = "POST") -> dict[str, Any]:
    """Return an event of a function URL: format 2.0, and the body in base64 unless its type is known to be text."""
    event = http_api(body, headers, method=method)
    event["requestContext"]["domainName"] = "abc.lambda-url.eu-west-1.on.aws"
    event["rawPath"] = "/"
    return {**event, "body": _encoded(body), "isBase64Encoded": True}


def load_balancer(body: Any, headers: Headers, *, method: str = "POST") -> dict[str, Any]:
    """Return an event of an application load balancer with a target group that has no multi-value headers."""
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:..."}},
        "httpMethod": method,
        "path": "/optimove",
        "queryStringParameters": {},
        "headers": {name.lower(): value for name, value in headers},
        "body": _encoded(body),
        "isBase64Encoded": True,
    }


def balancer_with_lists(body: Any, headers: Headers, *, method: str = "POST") -> dict[str, Any]:
    """Return an event of an application load balancer whose target group has multi-value headers."""
    event = load_balancer(body, headers, method=method)
    del event["headers"], event["queryStringParameters"]
    several: dict[str, list[str]] = {}
    for name, value in headers:
        several.setdefault(name.lower(), []).append(value)
    return {**event, "multiValueHeaders": several, "multiValueQueryStringParameters": {}}


def lattice_v1(body: Any, headers: Headers, *, method: str = "POST") -> dict[str, Any]:
    """Return an event of VPC Lattice, version V1: names in snake case, repeated headers joined by commas.

    Source: docs.aws.amazon.com/vpc-lattice/latest/ug/lambda-functions.html, and the sample events of AWS Powertools.
    """
    joined = http_api(body, headers)["headers"]
    return {
        "raw_path": "/optimove",
        "method": method,
        "headers": joined,
        "query_string_parameters": {},
        "body": _encoded(body),
        "is_base64_encoded": True,
    }


def lattice_v2(body: Any, headers: Headers, *, method: str = "POST") -> dict[str, Any]:
    """Return an event of VPC Lattice, version V2: lists of values, and no method in the request's context."""
    several: dict[str, list[str]] = {}
    for name, value in headers:
        several.setdefault(name.lower(), []).append(value)
    return {
        "version": "2.0",
        "path": "/optimove",
        "method": method,
        "headers": several,
        "queryStringParameters": {},
        "body": body,
        "isBase64Encoded": False,
        "requestContext": {
            "serviceNetworkArn": "arn:aws:vpc-lattice:eu-west-1:000000000000:servicenetwork/sn-0",
            "serviceArn": "arn:aws:vpc-lattice:eu-west-1:000000000000:service/svc-0",
            "targetGroupArn": "arn:aws:vpc-lattice:eu-west-1:000000000000:targetgroup/tg-0",
            "identity": {"sourceVpcArn": "arn:aws:ec2:eu-west-1:000000000000:vpc/vpc-0"},
            "region": "eu-west-1",
            "timeEpoch": "1690497599177430",
        },
    }


def _encoded(body: Any) -> Any:
    return base64.b64encode(body.encode()).decode() if isinstance(body, str) else body


SHAPES = pytest.mark.parametrize(
    "shape", [rest, http_api, function_url, load_balancer, balancer_with_lists, lattice_v1, lattice_v2]
)


def headers_of(answer: dict[str, Any]) -> dict[str, str]:
    """Return an answer's headers, whichever form it has."""
    if "multiValueHeaders" not in answer:
        return dict(answer["headers"])
    return {name: value for name, (value,) in answer["multiValueHeaders"].items()}


@pytest.fixture
def handler(fake_optimove: FakeOptimove) -> Handler:
    client = fake_optimove.client()
    return lambda_handler(WebhookReceiver(decide, client=client, secrets=SECRET, max_body=MAX_BODY))


def asked(fake: FakeOptimove, user_id: str = "VIP", *, name: str = "Dana") -> tuple[SentNotification, str]:
    question, _ = fake.trigger(user_id, timeout_ms=30_000)
    payload = notification(
        user_id, request_uid=question.request_uid, timeout_ms=30_000, personalization={"first_name": name}
    )
    return question, json.dumps(payload, ensure_ascii=False)


def signed(body: str, name: str = "Optimove-Signature-Content") -> Headers:
    return [("Content-Type", "application/json"), (name, sign(body.encode(), secret=SECRET))]


@SHAPES
class TestEveryShape:
    def test_approved(self, shape: Shape, handler: Handler, fake_optimove: FakeOptimove) -> None:
        question, body = asked(fake_optimove)
        answer = handler(shape(body, signed(body)), None)
        assert (answer["statusCode"], answer["body"], answer["isBase64Encoded"]) == (200, "", False)
        assert question.approved

    def test_letters_outside_ascii_keep_their_bytes(
        self, shape: Shape, handler: Handler, fake_optimove: FakeOptimove
    ) -> None:
        question, body = asked(fake_optimove, name="Jos\N{LATIN SMALL LETTER E WITH ACUTE} \N{SLOT MACHINE}")
        assert handler(shape(body, signed(body)), None)["statusCode"] == 200
        assert question.approved

    def test_denied(self, shape: Shape, handler: Handler, fake_optimove: FakeOptimove) -> None:
        question, body = asked(fake_optimove, "C-2")
        assert handler(shape(body, signed(body)), None)["statusCode"] == 200
        assert question.answer is not None
        assert not question.answer.approved

    def test_forged(self, shape: Shape, handler: Handler, fake_optimove: FakeOptimove) -> None:
        question, body = asked(fake_optimove)
        assert handler(shape(body, []), None)["statusCode"] == 401
        assert handler(shape(body, signed(body + " ")), None)["statusCode"] == 401
        assert handler(shape(body, signed(body, "optimove-signature")), None)["statusCode"] == 401
        assert question.answer is None

    def test_unreadable(self, shape: Shape, handler: Handler, fake_optimove: FakeOptimove) -> None:
        answer = handler(shape("[]", signed("[]")), None)
        assert answer["statusCode"] == 400
        assert headers_of(answer)["content-type"] == "text/plain; charset=utf-8"
        assert fake_optimove.calls == []

    def test_no_body(self, shape: Shape, handler: Handler, fake_optimove: FakeOptimove) -> None:
        assert handler(shape(None, signed("")), None)["statusCode"] == 400

    def test_other_methods(self, shape: Any, handler: Handler, fake_optimove: FakeOptimove) -> None:
        question, body = asked(fake_optimove)
        answer = handler(shape(body, signed(body), method="GET"), None)
        assert (answer["statusCode"], headers_of(answer)["allow"]) == (405, "POST")
        assert question.answer is None

    def test_too_long(self, shape: Shape, handler: Handler, fake_optimove: FakeOptimove) -> None:
        longest = '"' + "x" * (MAX_BODY - 2) + '"'
        assert handler(shape(longest, signed(longest)), None)["statusCode"] == 400
        assert handler(shape(longest + " ", signed(longest + " ")), None)["statusCode"] == 413
        wide = "\N{SLOT MACHINE}" * (MAX_BODY // 2)
        assert handler(shape(wide, signed(wide)), None)["statusCode"] == 413

    def test_optimove_refuses(self, shape: Shape, handler: Handler, fake_optimove: FakeOptimove) -> None:
        _, body = asked(fake_optimove)
        fake_optimove.notifications.clear()
        assert handler(shape(body, signed(body)), None)["statusCode"] == 503

    def test_signed_twice(self, shape: Shape, handler: Handler, fake_optimove: FakeOptimove) -> None:
        if shape is load_balancer:  # which keeps one of two equal headers, so nothing is there to be seen
            return
        question, body = asked(fake_optimove)
        assert handler(shape(body, signed(body) * 2), None)["statusCode"] == 401
        assert question.answer is None

    def test_the_answer_is_json(self, shape: Shape, handler: Handler, fake_optimove: FakeOptimove) -> None:
        for body in ("", "{}", "x" * (MAX_BODY + 1)):
            answer = handler(shape(body, signed(body)), None)
            assert json.loads(json.dumps(answer)) == answer

    def test_the_answers_headers_have_the_form_that_is_read(self, shape: Shape, handler: Handler) -> None:
        event = shape("[]", signed("[]"))
        answer = handler(event, None)
        assert ("multiValueHeaders" in answer) == ("multiValueHeaders" in event)
        assert ("headers" in answer) == ("headers" in event)
        if "headers" in answer:
            assert all(isinstance(value, str) for value in answer["headers"].values())

    def test_the_function_ends_in_time_to_answer_optimove(self, shape: Shape, fake_optimove: FakeOptimove) -> None:
        looking = Looking()
        function = lambda_handler(WebhookReceiver(looking, client=fake_optimove.client(), secrets=SECRET))
        question, body = asked(fake_optimove)
        assert function(shape(body, signed(body)), Context(12_000))["statusCode"] == 200
        assert question.approved
        assert 0 < looking.left[0] <= 11.3  # less the time to return, and the reserve

    def test_a_body_that_did_not_come_is_named(self, shape: Shape, fake_optimove: FakeOptimove) -> None:
        outcomes: list[Outcome] = []
        client = fake_optimove.client()
        function = lambda_handler(WebhookReceiver(decide, client=client, secrets=SECRET, on_outcome=outcomes.append))
        headers = [*signed("{}"), ("Content-Length", "2")]
        assert function(shape(None, headers), None)["statusCode"] == 401
        assert "empty, though 2 bytes were announced" in str(outcomes[0].error)


class Context:
    """Lambda's, as far as it tells the time."""

    def __init__(self, milliseconds: Any) -> None:
        self._milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> Any:
        return self._milliseconds


class TestTheTimeThatIsLeft:
    @pytest.mark.parametrize(
        "context", [None, object(), Context(None), Context("5"), Context(True), Context(900_000), MagicMock()]
    )
    def test_without_one_or_with_more_than_enough_nothing_changes(
        self, context: Any, fake_optimove: FakeOptimove
    ) -> None:
        looking = Looking()
        function = lambda_handler(WebhookReceiver(looking, client=fake_optimove.client(), secrets=SECRET))
        _, body = asked(fake_optimove)
        assert function(http_api(body, signed(body)), context)["statusCode"] == 200
        assert 12.0 < looking.left[0] <= 29.5

    @pytest.mark.parametrize("milliseconds", [0, -5, 100, 150.5])
    def test_too_little_to_ask_is_a_503(self, milliseconds: float, fake_optimove: FakeOptimove) -> None:
        looking = Looking()
        function = lambda_handler(WebhookReceiver(looking, client=fake_optimove.client(), secrets=SECRET))
        question, body = asked(fake_optimove)
        assert function(http_api(body, signed(body)), Context(milliseconds))["statusCode"] == 503
        assert (question.answer, looking.left) == (None, [])

    def test_a_listener_has_it_too(self) -> None:
        go_on = threading.Event()
        receiver = ListenerReceiver(lambda event: go_on.wait(30), token=UNSIGNED, answer_within=30.0)
        event = http_api('{"EventTypeID":5,"TimeStamp":"2026-11-23 08:30:00","CampaignID":1,'
                         '"CampaignDuration":7,"ClearanceRequiredBy":"2026-11-23 09:30:00"}', [])  # fmt: skip
        before = time.monotonic()
        assert lambda_handler(receiver)(event, Context(500))["statusCode"] == 503
        assert time.monotonic() - before < 15
        go_on.set()

    def test_a_receiver_of_ones_own_need_not_know_it(self, fake_optimove: FakeOptimove) -> None:
        inner = WebhookReceiver(decide, client=fake_optimove.client(), secrets=SECRET)

        class Capture:
            max_body = inner.max_body
            too_large = inner.too_large

            def handle(self, request: Request) -> Response:
                return inner.handle(request)

        question, body = asked(fake_optimove)
        assert lambda_handler(Capture())(http_api(body, signed(body)), Context(3_000))["statusCode"] == 200
        assert question.approved


@pytest.mark.parametrize(
    ("changes", "path", "query"),
    [
        ({}, "/optimove", ""),
        ({"raw_path": "/hook?token=a%2Fb", "query_string_parameters": {"token": "a/b"}}, "/hook", "token=a%2Fb"),
        ({"raw_path": "/hook", "query_string_parameters": {"token": "a b"}}, "/hook", "token=a+b"),
        ({"raw_path": "?x=1"}, "/", "x=1"),
        ({"raw_path": None}, "/", ""),
    ],
)
def test_path_and_query_of_vpc_lattice(changes: dict[str, Any], path: str, query: str) -> None:
    came: list[Request] = []

    class Keeping:
        max_body = 1_000

        def too_large(self) -> Response:
            return Response(413)

        def handle(self, request: Request) -> Response:
            came.append(request)
            return Response(200)

    handler = lambda_handler(Keeping())
    assert handler({**lattice_v1("{}", []), **changes}, None)["statusCode"] == 200
    assert (came[0].method, came[0].path, came[0].query, came[0].body) == ("POST", path, query, b"{}")
    event = {**lattice_v2("{}", []), "queryStringParameters": {"token": ["a", "b"]}}
    assert handler(event, None)["statusCode"] == 200
    assert (came[1].path, came[1].query) == ("/optimove", "token=a&token=b")


def test_over_http(fake_optimove: FakeOptimove, optimove_url: str) -> None:
    question, body = asked(fake_optimove)
    with OptimoveClient("fake-api-key", base_url=optimove_url) as client:
        handler = lambda_handler(WebhookReceiver(decide, client=client, secrets=SECRET))
        assert handler(http_api(body, signed(body)), None)["statusCode"] == 200
    assert question.approved


@pytest.mark.parametrize("text", ["%%%", "YQ", "YQ==\n", "e30=e30=", "\N{SLOT MACHINE}", "Y Q = ="])
def test_bad_base64(text: str, handler: Handler, fake_optimove: FakeOptimove) -> None:
    event = {**http_api("", signed("{}")), "body": text, "isBase64Encoded": True}
    assert handler(event, None)["statusCode"] == 400
    assert fake_optimove.calls == []


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (None, 400),
        ("POST", 400),
        (b"{}", 400),
        ([], 400),
        (7, 400),
        ({}, 405),
        ({"Records": [{"eventSource": "aws:sqs", "body": "{}"}]}, 405),
        ({"httpMethod": None, "requestContext": "x"}, 405),
        ({"requestContext": {"http": "POST"}}, 405),
        ({"requestContext": {"http": {"method": ["POST"]}}}, 405),
        ({"httpMethod": "POST"}, 401),
        ({"httpMethod": "post", "body": "{}"}, 401),
        ({"httpMethod": "POST", "body": 5}, 400),
        ({"httpMethod": "POST", "body": {"a": 1}}, 400),
        ({"httpMethod": "POST", "body": b"{}"}, 400),
        ({"httpMethod": "POST", "body": "\ud800"}, 400),
        ({"httpMethod": "POST", "body": "\ud800", "isBase64Encoded": True}, 400),
        ({"httpMethod": "POST", "body": "", "headers": "x"}, 401),
        ({"httpMethod": "POST", "body": "", "headers": {"optimove-signature-content": None}}, 401),
        ({"httpMethod": "POST", "body": "", "headers": {1: 2}, "multiValueHeaders": None}, 401),
        ({"httpMethod": "POST", "body": "", "multiValueHeaders": {"optimove-signature-content": [None, 3]}}, 401),
        ({"httpMethod": "POST", "body": "", "multiValueHeaders": {"optimove-signature-content": "x"}}, 401),
        ({"httpMethod": "POST", "rawPath": 5, "rawQueryString": {}, "headers": []}, 401),
        ({"httpMethod": "POST", "queryStringParameters": {"token": "\ud800"}}, 401),
        ({"httpMethod": "POST", "multiValueQueryStringParameters": {"\ud800": ["\ud800", None]}}, 401),
    ],
)
def test_events_that_are_no_request_of_optimoves(
    event: Any, status: int, handler: Handler, fake_optimove: FakeOptimove
) -> None:
    assert handler(event, None)["statusCode"] == status
    assert fake_optimove.calls == []


def test_an_async_receiver_is_refused_at_once(fake_optimove: FakeOptimove) -> None:
    receiver: Any = AsyncWebhookReceiver(decide, client=fake_optimove.async_client(), secrets=SECRET)
    with pytest.raises(ConfigurationError, match="WebhookReceiver"):
        lambda_handler(receiver)
