"""Reads like a user's program; mypy strict and pyright strict accept it on the oldest and newest Python. Not run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import assert_type

from pydantic import SecretBytes, SecretStr

from optimove_conditional_execution import (
    UNSIGNED,
    APIError,
    Approval,
    AsyncCampaignReview,
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    CampaignCustomer,
    CampaignReview,
    ClaimStore,
    Deadline,
    DeadlineExceeded,
    Decision,
    Endpoint,
    Endpoints,
    ListenerReceiver,
    Operation,
    OptimoveClient,
    OptimoveError,
    Outcome,
    RateLimit,
    RateLimitError,
    Request,
    Response,
    RetryPolicy,
    TenantSettings,
    TransportError,
    Webhook,
    WebhookNotification,
    WebhookReceiver,
    operations,
    policy,
    sign,
    verify,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.adapters.aws_lambda import lambda_handler
from optimove_conditional_execution.adapters.wsgi import WSGIApp
from optimove_conditional_execution.shadow import Shadow, ShadowAnswer
from optimove_conditional_execution.stores import (
    Completion,
    DecisionLog,
    DecisionRecord,
    Journal,
    LoggedDecision,
    MemoryClaims,
    SqliteClaims,
    SqliteDecisionLog,
)
from optimove_conditional_execution.stores.postgres import PostgresClaims, PostgresJournal
from optimove_conditional_execution.stores.redis import RedisClaims
from optimove_conditional_execution.switch import SwitchState
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request

client = OptimoveClient(
    "key",
    base_url="https://api5.optimove.net",
    timezone="Europe/Malta",
    timeout=10,
    retry=RetryPolicy(attempts=2),
    rate_limit=RateLimit(50, per=10.0),
    approval_rate_limit=None,
    endpoints=Endpoints(get_webhooks=Endpoint("GET", "/hooks")),
)
aclient = AsyncOptimoveClient()


def decide(notification: WebhookNotification, deadline: Deadline) -> bool:
    assert_type(notification.request_uid, str)
    assert_type(notification.timestamp, int)
    assert_type(notification.sent_at, datetime)
    assert_type(notification.user.user_id, str)
    assert_type(deadline.remaining(), float)
    if notification.occurrence is not None and notification.occurrence.action is not None:
        for promotion in notification.occurrence.action.promotions:
            assert_type(promotion.code, int | str | None)
    return notification.user.user_id not in {"self-excluded"}


class Gate:
    """A handler with state."""

    async def __call__(self, notification: WebhookNotification, deadline: Deadline) -> Decision:
        if notification.user.is_visitor:
            return Decision.abstain("not a customer")
        return Decision.approve({"bonus": 7}) if deadline.remaining() > 1 else Decision.deny("no time")


def observe(outcome: Outcome) -> None:
    assert_type(outcome.request_uid, str | None)
    assert_type(outcome.decision, Decision | None)
    assert_type(outcome.total_seconds, float)


receiver = WebhookReceiver(decide, client=client, secrets="secret", on_outcome=observe, claims=SqliteClaims("c.sqlite"))
lenient = WebhookReceiver(
    lambda notification, deadline: True, client=client, secrets=["new", b"old"], on_failure="deny"
)
areceiver = AsyncWebhookReceiver(Gate(), client=aclient, secrets=UNSIGNED, claims=MemoryClaims(), reserve=0.3)
threaded = AsyncWebhookReceiver(decide, client=aclient, secrets="secret")
asgi, wsgi, handler = ASGIApp(areceiver), WSGIApp(receiver), lambda_handler(receiver)

shared: Sequence[ClaimStore] = [RedisClaims("redis://localhost", prefix="gate:"), PostgresClaims("postgresql:///gate")]
stores: Sequence[ClaimStore] = [MemoryClaims(), SqliteClaims("c.sqlite"), *shared]
journal: Journal = PostgresJournal("postgresql:///gate")


def use(optimove: OptimoveClient) -> None:
    assert_type(optimove.create_webhook("https://example.com/hook"), Webhook)
    assert_type(optimove.ensure_webhook("https://example.com/hook"), Webhook)
    assert_type(optimove.get_webhooks(), list[Webhook])
    assert_type(optimove.update_webhook_settings(timeout_ms=5_000, secret="new"), TenantSettings)
    assert_type(optimove.send(operations.get_webhooks(), deadline=Deadline.after(3)), list[Webhook])
    ask: Operation[int] = Operation("answer", Endpoint("GET", "/answer"), parse=lambda response: len(response.body))
    assert_type(optimove.send(ask), int)
    try:
        optimove.send_webhook_approval(
            Approval(timestamp=1, request_uid="r", approved=True), deadline=Deadline.after(1)
        )
    except RateLimitError as error:
        assert_type(error.retry_after, float | None)
    except APIError as error:
        assert_type(error.status, int)
    except TransportError as error:
        assert_type(error.request_sent, bool | None)
    except DeadlineExceeded as error:
        assert_type(error.acknowledged, int)
    except OptimoveError:
        raise


async def ause() -> None:
    async with AsyncOptimoveClient() as optimove:
        assert_type(await optimove.get_webhooks(), list[Webhook])
        assert_type(await optimove.send(operations.delete_webhook("1")), None)
    assert_type(await areceiver.handle(Request("POST", headers={"a": "b"}, body=b"{}")), Response)


def check(body: bytes) -> None:
    assert_type(sign(body, secret="secret"), str)
    assert_type(verify(body, signature=None, secrets=["a", b"b"]), int)
    fake = FakeOptimove()
    question = fake.notify(WebhookReceiver(decide, client=fake.client(), secrets=fake.secrets), "C1")
    assert_type(question.approved, bool)
    assert_type(receiver.handle(signed_request(notification("C1"), secret="secret")), Response)


def with_hidden_values(key: SecretStr, secret: SecretStr, older: SecretBytes, token: SecretStr) -> None:
    with OptimoveClient(key, base_url="https://api5.optimove.net") as client:
        WebhookReceiver(lambda _notification, _deadline: True, client=client, secrets=[secret, older, "oldest"])
        WebhookReceiver(lambda _notification, _deadline: True, client=client, secrets=secret)
        client.update_webhook_settings(secret=secret)
    ListenerReceiver(lambda _event: None, token=token)
    verify(b"{}", signature=sign(b"{}", secret=secret), secrets=older)


class OwnLog:
    def append(self, entries: Sequence[DecisionRecord | Completion], /) -> None: ...


def with_a_log(client: OptimoveClient, aclient: AsyncOptimoveClient) -> None:
    own: DecisionLog = OwnLog()
    log = SqliteDecisionLog("decisions.db", identify=SecretStr("secret"))
    for each in log.decisions(customer_id="C1", campaign=29):
        assert_type(each, LoggedDecision)
    Decision.approve(reason="fine", evidence={"rule": 4})

    @policy.chunked(1_000)
    def not_excluded(ids: Sequence[str], deadline: Deadline) -> dict[str, bool]:
        return dict.fromkeys(ids, True)

    rules = policy.all_of(register=not_excluded, ours=lambda asked, deadline: policy.Answer(True))
    WebhookReceiver(rules.handler, client=client, secrets="s", decision_log=log, on_log_failure="decide")
    AsyncWebhookReceiver(rules.async_handler, client=aclient, secrets="s", decision_log=own)
    CampaignReview(rules.reviewer, client=client)
    AsyncCampaignReview(rules.async_reviewer, client=aclient)


def with_controls(client: OptimoveClient, aclient: AsyncOptimoveClient) -> None:
    async def flag() -> SwitchState:
        return SwitchState(campaigns={"29": "deny"})

    async def arule(notification: WebhookNotification, deadline: Deadline) -> bool:
        return False

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        return []

    def told(answer: ShadowAnswer) -> None:
        assert_type(answer.differs, bool)

    shadow = Shadow(decide, on_answer=told)
    assert_type(shadow.counts, dict[tuple[str, str], int])
    WebhookReceiver(decide, client=client, secrets="s", switch=Path("switch"), shadow=shadow)
    WebhookReceiver(decide, client=client, secrets="s", switch=lambda: "ask", shadow=decide, observe=True)
    AsyncWebhookReceiver(decide, client=aclient, secrets="s", switch=flag, shadow=Shadow(arule))
    CampaignReview(reviewer, client=client, switch="switch", shadow=Shadow(reviewer))
    AsyncCampaignReview(reviewer, client=aclient, switch=flag, shadow=reviewer, observe=True)
