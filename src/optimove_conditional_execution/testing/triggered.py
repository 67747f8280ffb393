"""The half of the stand-in for triggered campaigns: webhooks, settings, notifications, approvals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import ValidationError

from optimove_conditional_execution.messages import Request, Response
from optimove_conditional_execution.models.approval import Approval
from optimove_conditional_execution.signature import UNSIGNED, Unsigned
from optimove_conditional_execution.testing.payloads import notification as make_notification
from optimove_conditional_execution.testing.payloads import signed_request
from optimove_conditional_execution.testing.records import Delivery, Question, Result
from optimove_conditional_execution.testing.service import AsyncReceiver, Receiver, Route, Service, Setup
from optimove_conditional_execution.testing.wire import decoded, error_response, json_response
from optimove_conditional_execution.validation import is_async


class TriggeredHalf(Service):
    """Keeps webhooks and settings, signs notifications, and holds answers against their deadline."""

    def __init__(self, setup: Setup, *, secret: str | None, timeout_ms: int) -> None:
        """Start without webhooks."""
        super().__init__(setup)
        self.secret = secret
        self.timeout_ms = timeout_ms
        self.webhooks: dict[str, str] = {}
        self.questions: dict[str, Question] = {}
        self._made_ids = 0
        endpoints = self._endpoints
        self._routes += [
            Route("create_webhook", endpoints.create_webhook, self._create_webhook),
            Route("get_webhooks", endpoints.get_webhooks, self._get_webhooks),
            Route("get_webhook_by_id", endpoints.get_webhook_by_id, self._get_webhook_by_id),
            Route("delete_webhook", endpoints.delete_webhook, self._delete_webhook),
            Route("update_webhook_settings", endpoints.update_webhook_settings, self._update_webhook_settings),
            Route("send_webhook_approval", endpoints.send_webhook_approval, self._send_webhook_approval),
        ]

    @property
    def secrets(self) -> str | Literal[Unsigned.UNSIGNED]:
        """What a receiver takes as `secrets=` to accept this fake's notifications."""
        return UNSIGNED if self.secret is None else self.secret

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
            uid = str(payload["request_uid"])  # a number is as good
            if uid not in self.questions:
                self.questions[uid] = Question(
                    uid,
                    str(payload["user"]["user_id"]),
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

    # ---- the API

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
