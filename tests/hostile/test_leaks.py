"""What nobody may read: in logs, in reprs, in errors and in HTTP answers, whatever happens to a notification."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from optimove_conditional_execution import (
    Approval,
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    CampaignCustomer,
    CustomerBatch,
    Decision,
    OptimoveClient,
    OptimoveError,
    Outcome,
    Request,
    Response,
    RetryPolicy,
    TenantSettings,
    Webhook,
    WebhookNotification,
    WebhookReceiver,
    operations,
    sign,
    verify,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.flows.known_customers import Asked
from optimove_conditional_execution.flows.ledger import Chunk
from optimove_conditional_execution.flows.reviewer_answer import Batch, BatchResult
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request
from tests.conftest import OverHTTP, served

SECRET = "hush-secret-hush"
NEXT_SECRET = 'hush-"next"-secret'
API_KEY = "hush-api-key"
PERSONAL = "hush-personal"
EVENT = "hush-event-parameter"
RAISED = "hush-exception-message"
DATA = "hush-additional-data"
REASON = "hush-reason"
TOKEN = "hush-url-token"
HIDDEN = [SECRET, NEXT_SECRET, json.dumps(NEXT_SECRET)[1:-1], API_KEY, PERSONAL, EVENT, RAISED, DATA, REASON, TOKEN]


class Everything(logging.Handler):
    """Keeps the whole content of every log record."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.texts: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        content = {name: value for name, value in record.__dict__.items() if name != "exc_info"}
        self.texts.append(f"{self.format(record)} {content!r} {content}")


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """All that any logger of the process says at level DEBUG."""
    root = logging.getLogger()
    everything, level = Everything(), root.level
    root.addHandler(everything)
    root.setLevel(logging.DEBUG)
    try:
        yield everything.texts
    finally:
        root.removeHandler(everything)
        root.setLevel(level)


def assert_hidden(*texts: object, signatures: tuple[str, ...] = ()) -> None:
    """Fail when a text, or an object's str or repr, holds what must not be read."""
    for text in texts:
        for shown in (str(text), repr(text)):
            for hidden in (*HIDDEN, *signatures):
                assert hidden not in shown, f"{hidden} stands in {shown[:300]}"
                assert hidden.upper() not in shown


def private(**options: Any) -> dict[str, Any]:
    """Return a notification that is full of what is nobody's business."""
    payload = notification(personalization={"name": PERSONAL, PERSONAL: [PERSONAL, {"x": PERSONAL}]}, **options)
    payload["trigger_context"]["events"][0]["parameters"] = {"amount": EVENT}
    payload["occurrence"]["notes"] = PERSONAL
    payload["occurrence"]["action"]["promotions"][0]["name"] = PERSONAL
    payload["unknown"] = {"x": PERSONAL}
    if "user" not in options.get("changes", {}):
        payload["user"]["unknown"] = {"x": PERSONAL}
    return payload


def raising(_: WebhookNotification, __: object) -> bool:
    raise ValueError(RAISED)


def chaining(notification: WebhookNotification, __: object) -> bool:
    try:
        raise KeyError(notification.user.personalization["name"])
    except KeyError as error:
        raise RuntimeError(RAISED) from error


HANDLERS: dict[str, Callable[..., Any]] = {
    "approves": lambda *_: Decision.approve({"x": DATA}),
    "denies": lambda *_: Decision.deny(REASON, {"x": DATA}),
    "abstains": lambda *_: Decision.abstain(REASON),
    "raises": raising,
    "raises from": chaining,
    "returns text": lambda *_: DATA,
    "returns the notification": lambda notification, _: notification,
    "sends no JSON": lambda *_: Decision.approve({"x": DATA, "y": object()}),
}

PLANS: dict[str, list[Response]] = {
    "takes it": [],
    "refuses and echoes": [
        Response(400, {"x": API_KEY}, json.dumps({"message": f"{DATA} {API_KEY} {SECRET}"}).encode())
    ],
    "denies access and echoes": [Response(401, {}, f"bad key {API_KEY} for {DATA}".encode())],
    "fails and echoes": [Response(502, {}, f"<html>{API_KEY} {DATA}</html>".encode())] * 9,
}


def requests_of(fake: FakeOptimove) -> dict[str, Request]:
    """Return deliveries of every class, by name."""

    def known(**options: Any) -> dict[str, Any]:
        question, _ = fake.trigger(timeout_ms=1_500)
        return private(request_uid=question.request_uid, timeout_ms=1_500, **options)

    broken = private(changes={"request_uid": None})
    odd = private(changes={"timestamp": PERSONAL, "user": {"user_id": [PERSONAL], "personalization": PERSONAL}})
    body = json.dumps(known()).encode()
    digest = sign(body, secret=SECRET)
    name = "optimove-signature-content"
    return {
        "good": signed_request(known(), secret=SECRET),
        "forged": signed_request(known(), secret=NEXT_SECRET),
        "unsigned": signed_request(known(), secret=None),
        "malformed": Request("POST", "/", "", [(name, f"{SECRET} {digest}")], body),
        "twice": Request("POST", "/", f"token={TOKEN}", [(name, digest), (name, digest)], body),
        "expired": signed_request(private(timeout_ms=-5), secret=SECRET),
        "broken": signed_request(broken, secret=SECRET),
        "odd": signed_request(odd, secret=SECRET),
        "not JSON": signed_request(f"{PERSONAL} {{".encode(), secret=SECRET),
        "too long": signed_request(json.dumps(PERSONAL * 30_000).encode(), secret=SECRET),
        "method": Request("PUT", "/", f"token={TOKEN}", [(name, digest)], body),
    }


def signatures_of(requests: dict[str, Request]) -> tuple[str, ...]:
    return tuple({value for request in requests.values() for key, value in request.headers if "signature" in key})


@pytest.mark.parametrize("plan", sorted(PLANS))
@pytest.mark.parametrize("name", sorted(HANDLERS))
class TestReceivers:
    def test_sync(self, name: str, plan: str, logged: list[str]) -> None:
        fake = FakeOptimove(api_key=API_KEY, secret=SECRET)
        requests = requests_of(fake)
        outcomes: list[Outcome] = []
        with fake.client() as client:
            for request in requests.values():
                fake.answer_next(*PLANS[plan])
                receiver = WebhookReceiver(HANDLERS[name], client=client, secrets=SECRET, on_outcome=outcomes.append)
                response = receiver.handle(request)
                fake._planned.clear()
                assert_hidden(request, response, dict(response.headers), response.body.decode(), receiver, client)
        assert len(outcomes) == len(requests) - 1
        assert_hidden(*outcomes, *[outcome.decision for outcome in outcomes], fake, *fake.calls)
        assert logged
        assert_hidden(*logged, signatures=signatures_of(requests))


@pytest.mark.parametrize("name", sorted(HANDLERS))
def test_async_over_http(name: str, logged: list[str]) -> None:
    """Both sides over loopback: uvicorn, asyncio, httpx and httpcore log what they like at level DEBUG."""
    fake = FakeOptimove(api_key=API_KEY, secret=SECRET)
    requests = requests_of(fake)
    outcomes: list[Outcome] = []
    bodies: list[str] = []

    async def deliver(base_url: str) -> None:
        async with AsyncOptimoveClient(API_KEY, base_url=base_url) as client:
            receiver = AsyncWebhookReceiver(
                HANDLERS[name], client=client, secrets=SECRET, on_outcome=outcomes.append, on_failure="deny"
            )
            transport = httpx.ASGITransport(ASGIApp(receiver))
            async with httpx.AsyncClient(transport=transport, base_url="http://gate.test") as http:
                for request in requests.values():
                    answer = await http.request(
                        request.method,
                        request.path,
                        headers=[(key.encode(), value.encode()) for key, value in request.headers],
                        content=request.body,
                    )
                    bodies.append(f"{answer.status_code} {answer.headers!r} {answer.text}")
            assert_hidden(receiver, client)

    with served(ASGIApp(OverHTTP(fake)), log_config=None, log_level="debug") as base_url:
        asyncio.run(deliver(base_url), debug=True)
    assert len(bodies) == len(requests)
    assert_hidden(*outcomes, *bodies, *logged, signatures=signatures_of(requests))


class TestValues:
    def test_models(self) -> None:
        read = WebhookNotification.from_json(json.dumps(private()).encode())
        assert read.occurrence is not None
        assert read.trigger_context is not None
        assert read.occurrence.action is not None
        assert_hidden(
            read,
            [read],
            read.user,
            read.occurrence,
            read.occurrence.action,
            read.occurrence.action.promotions,
            read.trigger_context,
            read.trigger_context.events,
            Approval(timestamp=1, request_uid="x", approved=True, additional_data={"x": DATA}),
            TenantSettings.model_validate({"timeout": 1, "secret": SECRET}),
            Webhook(id="w", url=f"https://gate.test/hook?token={TOKEN}"),
        )

    def test_requests_responses_and_operations(self) -> None:
        approval = Approval(timestamp=1, request_uid="x", approved=True, additional_data={"x": DATA})
        assert_hidden(
            Request("POST", "/", f"token={TOKEN}", {"x-api-key": API_KEY}, PERSONAL.encode()),
            Response(200, {"x": SECRET}, DATA.encode()),
            operations.send_webhook_approval(approval),
            operations.update_webhook_settings(timeout_ms=1, secret=SECRET),
            operations.create_webhook(f"https://gate.test/hook?token={TOKEN}"),
            Decision.deny(REASON, {"x": DATA}),
        )

    def test_the_fake(self) -> None:
        fake = FakeOptimove(api_key=API_KEY, secret=SECRET)
        fake.webhooks["w"] = f"https://gate.test/hook?token={TOKEN}"
        _, deliveries = fake.trigger()
        digest = dict(deliveries[0].request.headers)["optimove-signature-content"]
        assert_hidden(fake, deliveries[0].request, signatures=(digest,))


def shown(error: BaseException) -> list[str]:
    """Return an error as people and tools get to see it."""
    copies = [error, pickle.loads(pickle.dumps(error))] if isinstance(error, OptimoveError) else [error]
    return [*map(str, copies), *map(repr, copies), "".join(traceback.format_exception(error))]


class TestErrors:
    @pytest.mark.parametrize("status", [200, 201, 301, 400, 401, 403, 404, 409, 429, 500, 502])
    @pytest.mark.parametrize("shape", ["{}", "[]", '"{}"', '{{"message": "{}"}}', "<html>{}</html>", '{{"id": "{}"}}'])
    def test_of_calls_whose_answer_echoes_what_was_sent(self, status: int, shape: str, logged: list[str]) -> None:
        told = f"{API_KEY} {json.dumps(NEXT_SECRET)[1:-1]} {NEXT_SECRET} {DATA}"
        body = shape.format(told).encode()
        fake = FakeOptimove(api_key=API_KEY)
        client = fake.client(retry=RetryPolicy(attempts=1), timeout=0.2)
        approval = Approval(timestamp=1, request_uid="x", approved=True, additional_data={"x": DATA})
        calls: list[Callable[[], object]] = [
            lambda: client.send_webhook_approval(approval),
            lambda: client.update_webhook_settings(secret=NEXT_SECRET),
        ]
        for call in calls:
            fake._planned.clear()
            fake.answer_next(*[Response(status, {"content-type": "application/json"}, body)] * 9)
            try:
                assert_hidden(call())
            except OptimoveError as error:
                assert_hidden(*shown(error))
                said = f"{getattr(error, 'message', '')} {getattr(error, 'body', b'')!r}"
                assert API_KEY not in said
                if call is calls[1]:
                    assert NEXT_SECRET not in said
        assert_hidden(*logged)

    def test_of_signatures(self) -> None:
        body = PERSONAL.encode()
        digest = sign(body, secret=NEXT_SECRET)
        for signature in (None, digest, f"sha256={digest}", SECRET, f"{digest},{digest}", SECRET.encode(), "\ud800"):
            with pytest.raises(OptimoveError) as caught:
                verify(body, signature=signature, secrets=SECRET)
            assert_hidden(*shown(caught.value), signatures=(digest,))

    def test_of_payloads(self) -> None:
        for payload in (
            PERSONAL,
            [PERSONAL],
            {PERSONAL: PERSONAL},
            private(changes={"user": PERSONAL}),
            private(changes={"user": {"user_id": {PERSONAL: PERSONAL}}}),
            private(changes={"timestamp": PERSONAL}),
            private(changes={"request_uid": [PERSONAL]}),
        ):
            with pytest.raises(OptimoveError) as caught:
                WebhookNotification.from_json(json.dumps(payload).encode())
            assert_hidden(*shown(caught.value))
        with pytest.raises(OptimoveError) as caught:
            WebhookNotification.from_json(f'{{"{PERSONAL}": {PERSONAL}'.encode())
        assert_hidden(*shown(caught.value))

    def test_of_answers_that_are_no_json(self) -> None:
        for data in (
            {"x": object(), "y": DATA},
            {"x": DATA, "y": float("nan")},
            {DATA: {DATA: {1, DATA}, "z": object()}},
        ):
            with pytest.raises(OptimoveError) as caught:
                Decision.deny(REASON, data)
            assert_hidden(*shown(caught.value))
            with pytest.raises(ValidationError) as refused:
                Approval(timestamp=1, request_uid="x", approved=True, additional_data=data)
            assert_hidden(str(refused.value), repr(refused.value))

    def test_of_settings(self) -> None:
        makers: list[Callable[[], object]] = [
            lambda: OptimoveClient(f"{API_KEY}\n", base_url=f"https://{API_KEY}@optimove.test"),
            lambda: OptimoveClient(f"{API_KEY}\u00e9", base_url="https://optimove.test"),
            lambda: OptimoveClient(f"{API_KEY} {API_KEY}", base_url="https://optimove.test"),
            lambda: OptimoveClient(API_KEY, base_url=f"https://optimove.test/?key={API_KEY}"),
            lambda: OptimoveClient(API_KEY, base_url=f"{API_KEY}://optimove.test"),
            lambda: sign(b"", secret=f"{SECRET}\ud800"),
            lambda: verify(b"", signature="", secrets=[SECRET, ""]),
            lambda: WebhookReceiver(
                lambda *_: True, client=FakeOptimove().client(), secrets=[SECRET, f"{SECRET}\ud800"]
            ),
        ]
        for make in makers:
            with pytest.raises(OptimoveError) as caught:
                make()
            assert_hidden(*shown(caught.value))

    def test_of_a_server_that_cannot_be_reached(self, logged: list[str]) -> None:
        with OptimoveClient(
            API_KEY, base_url="http://127.0.0.1:1", retry=RetryPolicy(attempts=2, first_pause=0)
        ) as client:
            with pytest.raises(OptimoveError) as caught:
                client.update_webhook_settings(secret=SECRET)
            assert_hidden(*shown(caught.value), *logged)


def test_what_a_review_keeps_of_a_batch_shows_nobody_in_its_repr() -> None:
    name = "C0000001"
    asked = Asked((name,), (0,), (0,))
    result = BatchResult(approved={name}, reasons={name: "plays"}, evidence={name: {"rule": "active"}})
    event = FakeOptimove().add_campaign(1).event()
    batch = Batch(CustomerBatch([CampaignCustomer(customer_id=name)], event=event, number=1, attempt=1), asked)
    for kept in (asked, result, batch, Chunk(((0, 1),), [name])):
        shown = repr(kept)
        assert not any(text in shown for text in (name, "plays", "active"))
