"""The table "Triggered: one notification", asked over HTTP: the same rows for every server and framework."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

import httpx

from optimove_conditional_execution import sign
from optimove_conditional_execution.testing import FakeOptimove, SentNotification, notification
from tests.adapters.servers import PATIENCE, head, talk

MAX_BODY = 65_536
"""Of the receivers that are asked."""

SECRET = "fake-secret"


@dataclass(frozen=True, slots=True)
class Row:
    """What was answered, and what had reached Optimove by then."""

    status: int
    sent: bool | None


class Table:
    """Asks one webhook, row after row."""

    def __init__(self, url: str, fake: FakeOptimove, http: httpx.Client) -> None:
        self.url = url
        self.fake = fake
        self.http = http

    def approved(self) -> Row:
        question, body = self.question("VIP-1")
        return self.answered(question, body)

    def denied(self) -> Row:
        question, body = self.question("C-2")
        return self.answered(question, body)

    def failing_handler(self) -> Row:
        question, body = self.question("BROKEN")
        return self.answered(question, body)

    def expired(self) -> Row:
        question, body = self.question("VIP-3", timeout_ms=0)
        return self.answered(question, body)

    def repeated(self) -> Row:
        question, body = self.question("VIP-4")
        self.answered(question, body)
        before = len(self.fake.calls)
        row = self.answered(question, body)
        assert len(self.fake.calls) == before, "a repeat was delivered again"
        return row

    def unknown_to_optimove(self) -> Row:
        _, body = self.question("VIP-5")
        self.fake.notifications.clear()
        return Row(self.post(body).status_code, None)

    def unsigned(self) -> Row:
        question, body = self.question("VIP-6")
        return self.answered(question, body, signatures=[])

    def forged(self) -> Row:
        question, body = self.question("VIP-7")
        return self.answered(question, body, signatures=[sign(body, secret="another secret")])

    def other_body(self) -> Row:
        question, body = self.question("VIP-8")
        return self.answered(question, body + b" ", signatures=[sign(body, secret=SECRET)])

    def signed_twice(self) -> Row:
        question, body = self.question("VIP-9")
        return self.answered(question, body, signatures=[sign(body, secret=SECRET)] * 2)

    def not_ascii(self) -> Row:
        question, body = self.question("VIP-10")
        return self.answered(question, body, signatures=["\xe9" * 64])

    def unreadable(self) -> Row:
        question, body = self.question("VIP-11")
        payload = json.loads(body)
        payload["user"]["user_id"] = None
        return self.answered(question, json.dumps(payload).encode())

    def not_json(self) -> Row:
        return Row(self.post(b"<xml/>").status_code, None)

    def fetched(self) -> Row:
        return Row(self.http.get(self.url).status_code, None)

    def too_long(self) -> Row:
        """Only the head is sent: the answer must not wait for the body."""
        reply = talk(self.url, [head(httpx.URL(self.url).path, ("Content-Length", str(MAX_BODY + 1)))])
        return Row(reply.status, None)

    def question(self, user_id: str, *, timeout_ms: int = 30_000) -> tuple[SentNotification, bytes]:
        """Let the fake ask about a customer; return what it would post."""
        question, deliveries = self.fake.trigger(user_id, timeout_ms=timeout_ms)
        assert not deliveries
        body = notification(
            user_id, request_uid=question.request_uid, timestamp_ms=question.sent_ms, timeout_ms=timeout_ms
        )
        return question, json.dumps(body).encode()

    def answered(self, question: SentNotification, body: bytes, *, signatures: list[str] | None = None) -> Row:
        """Post a body; return the answer and what Optimove knows."""
        status = self.post(body, signatures=signatures).status_code
        return Row(status, None if question.answer is None else question.answer.approved)

    def post(self, body: bytes | Iterable[bytes], *, signatures: list[str] | None = None) -> httpx.Response:
        """Post a body, signed unless told otherwise."""
        if signatures is None:
            assert isinstance(body, bytes)
            signatures = [sign(body, secret=SECRET)]
        headers = [(b"optimove-signature-content", signature.encode("latin-1")) for signature in signatures]
        return self.http.post(self.url, content=body, headers=[(b"content-type", b"application/json"), *headers])


ROWS: dict[str, Row] = {
    "approved": Row(200, True),
    "denied": Row(200, False),
    "failing_handler": Row(200, None),
    "expired": Row(200, None),
    "repeated": Row(200, True),
    "unknown_to_optimove": Row(503, None),
    "unsigned": Row(401, None),
    "forged": Row(401, None),
    "other_body": Row(401, None),
    "signed_twice": Row(401, None),
    "not_ascii": Row(401, None),
    "unreadable": Row(400, None),
    "not_json": Row(400, None),
    "fetched": Row(405, None),
    "too_long": Row(413, None),
}


def ask_every_row(url: str, fake: FakeOptimove) -> dict[str, Row]:
    """Ask every row of a webhook that decides with `apps.decide`; the result is to be compared with `ROWS`."""
    with httpx.Client(timeout=PATIENCE, trust_env=False) as http:
        table = Table(url, fake, http)
        return {name: getattr(table, name)() for name in ROWS}
