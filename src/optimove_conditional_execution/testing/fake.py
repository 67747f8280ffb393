"""A stand-in for Optimove: keeps what Optimove keeps, answers what Optimove answers, and remembers everything."""

from __future__ import annotations

import hmac
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import ValidationError

from optimove_conditional_execution.client import AsyncOptimoveClient, OptimoveClient
from optimove_conditional_execution.deadline import Clock
from optimove_conditional_execution.drivers import is_async
from optimove_conditional_execution.messages import Request, Response
from optimove_conditional_execution.models.approval import Approval
from optimove_conditional_execution.operations import DEFAULT_TIMEOUT_MS, ENDPOINTS, Endpoint, Endpoints
from optimove_conditional_execution.signature import UNSIGNED, Unsigned
from optimove_conditional_execution.testing.payloads import notification as make_notification
from optimove_conditional_execution.testing.payloads import signed_request
from optimove_conditional_execution.testing.records import Call, Delivery, Question, Result
from optimove_conditional_execution.testing.wire import decoded, error_response, json_response, parameter
from optimove_conditional_execution.transport.http import local_async_client, local_client

_MAX_BODY: Final = 1_048_576


class Receiver(Protocol):
    """A webhook in the same process, such as a `WebhookReceiver`."""

    def handle(self, request: Request) -> Response:
        """Answer a request."""
        ...


class AsyncReceiver(Protocol):
    """A webhook in the same process, such as an `AsyncWebhookReceiver`."""

    def handle(self, request: Request) -> Awaitable[Response]:
        """Answer a request."""
        ...


class FakeOptimove:
    """Optimove's side of triggered campaigns, without IO.

    It speaks `Request -> Response` (`handle`), so it fits into both clients without sockets (`client`, `async_client`)
    and behind any server. It keeps webhooks and settings, signs notifications, holds answers against their deadline,
    keeps the first answer, checks the API key, and records every call. Safe for threads.

    What Optimove does not document is this fake's own choice: an answer after the deadline gets 410, an unknown
    `request_uid` 404, a second answer 200 without effect.
    """

    def __init__(
        self,
        *,
        api_key: str = "fake-api-key",
        secret: str | None = "fake-secret",  # noqa: S107 - a stand-in's secret protects nothing
        timeout_ms: int = DEFAULT_TIMEOUT_MS,
        base_url: str = "https://optimove.test",
        endpoints: Endpoints = ENDPOINTS,
        wall_clock: Clock = time.time,
    ) -> None:
        """Start without webhooks.

        Args:
            api_key: The only key that is let in.
            secret: What notifications are signed with, until UpdateWebhookSettings says otherwise; None signs nothing.
            timeout_ms: How long an answer may take, until UpdateWebhookSettings says otherwise.
            base_url: What the clients of `client` and `async_client` are told.
            endpoints: Methods and paths, as your tenant has them.
            wall_clock: Seconds since 1970.
        """
        self.api_key = api_key
        self.secret = secret
        self.timeout_ms = timeout_ms
        self.base_url = base_url
        self.webhooks: dict[str, str] = {}
        self.questions: dict[str, Question] = {}
        self.calls: list[Call] = []
        self._endpoints = endpoints
        self._wall_clock = wall_clock
        self._lock = threading.RLock()
        self._made_ids = 0
        self._planned: deque[Response] = deque()
        self._routes: list[tuple[str, Endpoint, Callable[[Request, str], Response]]] = [
            ("create_webhook", endpoints.create_webhook, self._create_webhook),
            ("get_webhooks", endpoints.get_webhooks, self._get_webhooks),
            ("get_webhook_by_id", endpoints.get_webhook_by_id, self._get_webhook_by_id),
            ("delete_webhook", endpoints.delete_webhook, self._delete_webhook),
            ("update_webhook_settings", endpoints.update_webhook_settings, self._update_webhook_settings),
            ("send_webhook_approval", endpoints.send_webhook_approval, self._send_webhook_approval),
        ]

    def __repr__(self) -> str:
        return f"<FakeOptimove: {len(self.webhooks)} webhooks, {len(self.questions)} notifications>"

    # ---- the side of the integrator

    def client(self, **options: Any) -> OptimoveClient:
        """Return a client that talks to this fake without sockets.

        Args:
            options: Further arguments of `OptimoveClient`.
        """
        settings = {"base_url": self.base_url, "endpoints": self._endpoints, **options}
        return OptimoveClient(settings.pop("api_key", self.api_key), http_client=local_client(self.handle), **settings)

    def async_client(self, **options: Any) -> AsyncOptimoveClient:
        """Return an async client that talks to this fake without sockets.

        Args:
            options: Further arguments of `AsyncOptimoveClient`.
        """
        settings = {"base_url": self.base_url, "endpoints": self._endpoints, **options}
        return AsyncOptimoveClient(
            settings.pop("api_key", self.api_key), http_client=local_async_client(self.handle), **settings
        )

    @property
    def secrets(self) -> str | Literal[Unsigned.UNSIGNED]:
        """What a receiver takes as `secrets=` to accept this fake's notifications."""
        return UNSIGNED if self.secret is None else self.secret

    @property
    def max_body(self) -> int:
        """Bytes of a request at most, for the adapters."""
        return _MAX_BODY

    def too_large(self) -> Response:
        """Return the answer to a longer body."""
        return error_response(413, "Payload Too Large", "The body is too large.")

    def handle(self, request: Request) -> Response:
        """Answer a call to Optimove's API."""
        with self._lock:
            name, response = self._routed(request)
            if self._planned:
                response = self._planned.popleft()
            self.calls.append(Call(name, request, response.status, self._now_ms()))
            return response

    def answer_next(self, *responses: Response) -> None:
        """Answer the next calls with these responses instead; what the calls do to the fake happens all the same.

        Args:
            responses: One for each of the next calls, such as `Response(503)`.
        """
        with self._lock:
            self._planned.extend(responses)

    def calls_of(self, operation: str) -> list[Call]:
        """Return the recorded calls of one kind, such as `send_webhook_approval`."""
        with self._lock:
            return [call for call in self.calls if call.operation == operation]

    # ---- the side of Optimove

    def trigger(self, user_id: str = "C234638", **options: Any) -> tuple[Question, list[Delivery]]:
        """Make a campaign fire for one customer.

        Args:
            user_id: The customer.
            options: Further arguments of `testing.notification`.

        Returns:
            The question, and a delivery for each registered webhook. Nothing is sent: post them, or use `notify`.
        """
        with self._lock:
            payload = make_notification(
                user_id, **{"timeout_ms": self.timeout_ms, "timestamp_ms": self._now_ms(), **options}
            )
            return self.expect(payload), [self.delivery(url, payload) for url in self.webhooks.values()]

    def delivery(self, url: str, payload: Mapping[str, Any] | bytes) -> Delivery:
        """Return a notification for one URL, signed with the current secret.

        Args:
            url: Where to.
            payload: The notification, from `testing.notification`.
        """
        return Delivery(url, signed_request(payload, secret=self.secret, path=urlsplit(url).path or "/"))

    def expect(self, payload: Mapping[str, Any]) -> Question:
        """Accept answers to a notification that you send yourself.

        Args:
            payload: The notification, from `testing.notification`.

        Returns:
            The question; the same one when the notification is sent again.
        """
        with self._lock:
            uid = payload["request_uid"]
            if uid not in self.questions:
                self.questions[uid] = Question(
                    uid,
                    payload["user"]["user_id"],
                    payload["timestamp"],
                    payload["conditional_execution_approval_deadline"],
                )
            return self.questions[uid]

    def notify(self, receiver: Receiver, user_id: str = "C234638", **options: Any) -> Question:
        """Send a notification to a webhook in this process and return what became of it.

        Args:
            receiver: Your `WebhookReceiver`.
            user_id: The customer.
            options: Further arguments of `testing.notification`.

        Raises:
            TypeError: The receiver is an async one.
        """
        if is_async(receiver.handle):
            raise TypeError("notify needs a WebhookReceiver; for AsyncWebhookReceiver use: await anotify(...).")
        question, request = self._request(user_id, options)
        question.responses.append(receiver.handle(request))
        return question

    async def anotify(self, receiver: AsyncReceiver, user_id: str = "C234638", **options: Any) -> Question:
        """Do what `notify` does, for an `AsyncWebhookReceiver`.

        Raises:
            TypeError: The receiver is not an async one.
        """
        if not is_async(receiver.handle):
            raise TypeError("anotify needs an AsyncWebhookReceiver; for WebhookReceiver use notify(...).")
        question, request = self._request(user_id, options)
        question.responses.append(await receiver.handle(request))
        return question

    def result(self, request_uid: str) -> Result:
        """Return where a notification stands now.

        Args:
            request_uid: Its name.

        Raises:
            KeyError: It was never sent.
        """
        with self._lock:
            question = self.questions[request_uid]
            if question.answer is not None:
                return "approved" if question.answer.approved else "denied"
            return "pending" if self._now_ms() <= question.deadline_ms else "unanswered"

    def _request(self, user_id: str, options: Mapping[str, Any]) -> tuple[Question, Request]:
        with self._lock:
            payload = make_notification(
                user_id, **{"timeout_ms": self.timeout_ms, "timestamp_ms": self._now_ms(), **options}
            )
            return self.expect(payload), signed_request(payload, secret=self.secret)

    def _now_ms(self) -> int:
        return round(self._wall_clock() * 1000)

    # ---- the API

    def _routed(self, request: Request) -> tuple[str, Response]:
        keys = request.header_values("x-api-key")
        if len(keys) != 1 or not hmac.compare_digest(keys[0].encode(), self.api_key.encode()):
            return "", error_response(401, "Unauthorized", "The API key is missing or wrong.")
        allowed: set[str] = set()
        for name, endpoint, answer in self._routes:
            found = parameter(endpoint.path, request.path)
            if found is None:
                continue
            if endpoint.method == request.method:
                return name, answer(request, found)
            allowed.add(endpoint.method)
        if allowed:
            return "", error_response(405, "Method Not Allowed", f"Allowed: {', '.join(sorted(allowed))}.")
        return "", error_response(404, "Not Found", "There is no such path.")

    def _create_webhook(self, request: Request, _: str) -> Response:
        url = decoded(request).get("url")
        if not isinstance(url, str) or not url:
            return error_response(400, "Bad Request", "url must be a string.")
        self._made_ids += 1
        webhook_id = f"webhook{self._made_ids}"
        self.webhooks[webhook_id] = url
        return json_response(201, {"url": url, "id": webhook_id})

    def _get_webhooks(self, _request: Request, _: str) -> Response:
        return json_response(200, [{"url": url, "id": webhook_id} for webhook_id, url in self.webhooks.items()])

    def _get_webhook_by_id(self, _: Request, webhook_id: str) -> Response:
        if webhook_id not in self.webhooks:
            return error_response(404, "Not Found", "There is no such webhook.")
        return json_response(200, {"url": self.webhooks[webhook_id], "id": webhook_id})

    def _delete_webhook(self, _: Request, webhook_id: str) -> Response:
        if self.webhooks.pop(webhook_id, None) is None:
            return error_response(404, "Not Found", "There is no such webhook.")
        return Response(204)

    def _update_webhook_settings(self, request: Request, _: str) -> Response:
        settings = decoded(request)
        timeout, secret = settings.get("timeout"), settings.get("secret", self.secret)
        if isinstance(timeout, bool) or not isinstance(timeout, int) or timeout < 1:
            return error_response(400, "Bad Request", "timeout must be a number of milliseconds.")
        if secret is not None and not isinstance(secret, str):
            return error_response(400, "Bad Request", "secret must be a string.")
        self.timeout_ms, self.secret = timeout, secret or None
        return json_response(200, {"timeout": timeout, "secret": secret})

    def _send_webhook_approval(self, request: Request, _: str) -> Response:
        try:
            approval = Approval.model_validate(decoded(request))
        except ValidationError:
            return error_response(400, "Bad Request", "The approval is not of the documented shape.")
        question = self.questions.get(approval.request_uid)
        if question is None:
            return error_response(404, "Not Found", "No such request_uid was sent.")
        if question.answer is not None:
            question.ignored.append(approval)
            return Response(200)
        now = self._now_ms()
        if now > question.deadline_ms:
            question.ignored.append(approval)
            return error_response(410, "Gone", "The deadline of this request has passed.")
        question.answer, question.answered_ms = approval, now
        return Response(200)
