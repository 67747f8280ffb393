"""The stand-in for Optimove: it is part of the product, so it is tested like the rest."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import warnings
from typing import Any

import pytest

from optimove_conditional_execution import (
    UNSIGNED,
    APIError,
    Approval,
    AsyncWebhookReceiver,
    AuthenticationError,
    Deadline,
    Endpoint,
    Endpoints,
    NotFoundError,
    OptimoveClient,
    Request,
    Response,
    WebhookNotification,
    WebhookReceiver,
    verify,
)
from optimove_conditional_execution.testing import FakeOptimove, FaultServer, notification, signed_request
from tests.client.conftest import QUICK
from tests.conftest import PAYLOADS, child_status


def decide(notification: WebhookNotification, deadline: Deadline) -> bool:
    return notification.user.user_id != "self-excluded"


# This is what the documentation promises: an integrator's own test in five lines.
def test_my_gate(fake_optimove: FakeOptimove) -> None:
    receiver = WebhookReceiver(decide, client=fake_optimove.client(), secrets=fake_optimove.secrets)
    assert fake_optimove.notify(receiver, "C234638").approved
    assert not fake_optimove.notify(receiver, "self-excluded").approved


def test_the_plugin_is_an_entry_point(pytestconfig: pytest.Config) -> None:
    names = {entry.name for _, dist in pytestconfig.pluginmanager.list_plugin_distinfo() for entry in dist.entry_points}
    assert "optimove_conditional_execution" in names


def test_a_thread_in_the_simulator_blocks_no_forked_child(fake_optimove: FakeOptimove) -> None:
    with fake_optimove._lock:
        assert child_status(lambda: fake_optimove.trigger()[0].user_id == "C234638") == 0


def keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: keys(inner) for key, inner in value.items() if key not in ("personalization", "parameters")}
    return [keys(value[0])] if isinstance(value, list) and value else None


def test_the_factory_has_the_samples_shape() -> None:
    sample = json.loads((PAYLOADS / "webhook-notification.json").read_text())
    assert keys(notification()) == keys(sample)
    made = notification("C9", timeout_ms=800, timestamp_ms=1_000_000, request_uid="r", personalization={"a": 1})
    assert (made["conditional_execution_approval_deadline"], made["user"]["personalization"]) == (1_000_800, {"a": 1})
    assert notification()["request_uid"] != notification()["request_uid"]
    assert notification(changes={"is_hashed": True})["is_hashed"] is True


def test_signed_requests() -> None:
    request = signed_request(notification(), secret="s", path="/hook")
    assert (request.method, request.path) == ("POST", "/hook")
    assert verify(request.body, signature=request.header_values("optimove-signature-content")[0], secrets="s") == 0
    assert not signed_request(b"raw", secret=None).header_values("optimove-signature-content")
    assert signed_request(b"raw", secret=None).body == b"raw"


def test_webhooks_live_as_optimove_keeps_them(fake_optimove: FakeOptimove) -> None:
    with fake_optimove.client() as client:
        first = client.create_webhook("https://a.test/hook")
        second = client.ensure_webhook("https://b.test/hook")
        assert client.ensure_webhook("https://b.test/hook") == second
        assert client.get_webhooks() == [first, second]
        assert client.get_webhook_by_id(first.id) == first
        client.delete_webhook(first.id)
        for call in (client.delete_webhook, client.get_webhook_by_id):
            with pytest.raises(NotFoundError):
                call(first.id)
        assert [webhook.url for webhook in client.get_webhooks()] == ["https://b.test/hook"]
        settings = client.update_webhook_settings(timeout_ms=1_500, secret="new-secret")
    assert (settings.timeout_ms, fake_optimove.timeout_ms, fake_optimove.secret) == (1_500, 1_500, "new-secret")
    assert [call.operation for call in fake_optimove.calls][:3] == ["create_webhook", "get_webhooks", "create_webhook"]
    assert {call.status for call in fake_optimove.calls_of("create_webhook")} == {201}


def test_every_webhook_gets_every_notification(fake_optimove: FakeOptimove) -> None:
    with fake_optimove.client() as client:
        client.create_webhook("https://a.test/one?x=1")
        client.create_webhook("https://b.test/two")
    question, deliveries = fake_optimove.trigger("C1")
    assert [(delivery.url, delivery.request.path) for delivery in deliveries] == [
        ("https://a.test/one?x=1", "/one"),
        ("https://b.test/two", "/two"),
    ]
    assert len({delivery.request.body for delivery in deliveries}) == 1
    assert json.loads(deliveries[0].request.body)["request_uid"] == question.request_uid
    assert fake_optimove.result(question.request_uid) == "pending"


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def answer(question: Any, approved: bool) -> Approval:
    return Approval(timestamp=1, request_uid=question.request_uid, approved=approved)


def test_the_first_answer_counts(fake_optimove: FakeOptimove) -> None:
    question, _ = fake_optimove.trigger("C1")
    with fake_optimove.client() as client:
        client.send_webhook_approval(answer(question, False))
        client.send_webhook_approval(answer(question, True))
    assert fake_optimove.result(question.request_uid) == "denied"
    assert not question.approved
    assert question.ignored == [answer(question, True)]
    assert question.latency_ms is not None


def test_an_answer_after_the_deadline_does_not_count() -> None:
    clock = Clock()
    fake = FakeOptimove(wall_clock=clock)
    question, _ = fake.trigger("C1")
    clock.now += 5.0
    with fake.client() as client:
        client.send_webhook_approval(answer(question, True))
        assert question.latency_ms == 5_000
        late, _ = fake.trigger("C2")
        clock.now += 5.1
        with pytest.raises(APIError) as caught:
            client.send_webhook_approval(answer(late, True))
    assert caught.value.status == 410
    assert (fake.result(late.request_uid), late.approved, late.ignored) == ("unanswered", False, [answer(late, True)])


def test_unknown_questions_and_bad_bodies(fake_optimove: FakeOptimove) -> None:
    with fake_optimove.client(retry=QUICK) as client, pytest.raises(NotFoundError):
        client.send_webhook_approval(Approval(timestamp=1, request_uid="never-asked", approved=True))
    headers = {"X-API-KEY": fake_optimove.api_key}
    for path, method in (("/approval", "POST"), ("/webhooks/", "POST"), ("/settings", "PUT")):
        for body in (b"", b"[", b"[]", b"{}", b"7"):
            full = f"/conditional-execution/v2/triggered{path}"
            assert fake_optimove.handle(Request(method, full, headers=headers, body=body)).status == 400
    assert fake_optimove.handle(Request("GET", "/nowhere", headers=headers)).status == 404
    wrong_method = fake_optimove.handle(
        Request("PATCH", "/conditional-execution/v2/triggered/approval", headers=headers)
    )
    assert wrong_method.status == 405


def test_the_key_is_checked(fake_optimove: FakeOptimove) -> None:
    with fake_optimove.client(api_key="wrong") as client, pytest.raises(AuthenticationError):
        client.get_webhooks()
    for headers in ([], [("X-API-KEY", "é")], [("X-API-KEY", fake_optimove.api_key)] * 2):
        assert fake_optimove.handle(Request("GET", "/", headers=headers)).status == 401
    assert fake_optimove.api_key not in repr(fake_optimove)


def test_planned_answers(fake_optimove: FakeOptimove) -> None:
    fake_optimove.answer_next(Response(503), Response(429))
    with fake_optimove.client(retry=QUICK) as client:
        assert client.get_webhooks() == []
    assert [call.status for call in fake_optimove.calls] == [503, 429, 200]


def test_a_tenant_with_other_paths() -> None:
    endpoints = Endpoints(get_webhooks=Endpoint("POST", "/list"), delete_webhook=Endpoint("POST", "/{webhook_id}/drop"))
    fake = FakeOptimove(endpoints=endpoints)
    with fake.client() as client:
        webhook = client.create_webhook("https://a.test")
        assert client.get_webhooks() == [webhook]
        client.delete_webhook(webhook.id)
        assert client.get_webhooks() == []


def test_without_a_secret() -> None:
    fake = FakeOptimove(secret=None)
    assert fake.secrets is UNSIGNED
    receiver = WebhookReceiver(decide, client=fake.client(), secrets=fake.secrets)
    assert fake.notify(receiver).approved


def test_async_receivers(fake_optimove: FakeOptimove) -> None:
    async def main() -> None:
        async with fake_optimove.async_client() as client:
            receiver = AsyncWebhookReceiver(decide, client=client, secrets=fake_optimove.secrets)
            assert (await fake_optimove.anotify(receiver, "C1")).approved
            assert not (await fake_optimove.anotify(receiver, "self-excluded")).approved

    asyncio.run(main())


def test_a_test_cannot_pass_without_asking(fake_optimove: FakeOptimove) -> None:
    sync: Any = WebhookReceiver(decide, client=fake_optimove.client(), secrets=fake_optimove.secrets)
    twin: Any = AsyncWebhookReceiver(decide, client=fake_optimove.async_client(), secrets=fake_optimove.secrets)
    with pytest.raises(TypeError, match="anotify"):
        fake_optimove.notify(twin)
    with pytest.raises(TypeError, match="notify"):
        asyncio.run(fake_optimove.anotify(sync))


def test_over_real_http(fake_optimove: FakeOptimove, optimove_url: str) -> None:
    with OptimoveClient(fake_optimove.api_key, base_url=optimove_url) as client:
        webhook = client.ensure_webhook("https://a.test/hook")
        assert client.get_webhook_by_id(webhook.id) == webhook
        receiver = WebhookReceiver(decide, client=client, secrets=fake_optimove.secrets)
        assert fake_optimove.notify(receiver, "C1").approved
        client.delete_webhook(webhook.id)
        assert client.get_webhooks() == []
    with OptimoveClient("wrong", base_url=optimove_url) as client, pytest.raises(AuthenticationError):
        client.get_webhooks()


def test_ids_may_be_whole_numbers_as_in_real_payloads() -> None:
    fake = FakeOptimove(numeric_ids=True)
    client = fake.client()
    made = client.create_webhook("https://gate.example/hook")
    (call,) = fake.calls
    assert json.loads(fake.handle(call.request).body)["id"] == 2
    assert client.get_webhook_by_id(made.id) == made
    receiver = WebhookReceiver(decide, client=client, secrets=fake.secrets)
    question = fake.notify(receiver, 1234, request_uid=77)
    assert (question.approved, question.user_id, question.request_uid) == (True, "1234", "77")
    assert json.loads(fake.calls_of("send_webhook_approval")[0].request.body)["request_uid"] == 77
    campaign = fake.add_campaign([7, "007", {"CustomerID": 8}])
    assert b'"CustomerID":7,' in campaign.page(skip=0, top=None).body
    ids = [customer.customer_id for customer in client.get_processed_campaign_customers(campaign.campaign_id)]
    assert ids == ["7", "007", "8"]
    client.update_customer_promotion_status(campaign.campaign_id, dict.fromkeys(ids, True))
    assert campaign.recipients() == ids


def test_a_fault_server_that_ends_closes_the_connections_that_it_is_accepting() -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(20):
            with FaultServer([]) as server, socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))):
                server.close()
        gc.collect()
    assert [str(each.message) for each in warned] == []
