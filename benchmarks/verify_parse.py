"""Verifying and parsing a notification, against `hmac.digest` and `json.loads` of the same bytes."""

from __future__ import annotations

import hmac
import json
from pathlib import Path

from benchmarks.result import Result, fastest
from optimove_conditional_execution import WebhookNotification, sign, verify
from optimove_conditional_execution.models.notification import read_notification
from optimove_conditional_execution.signature import match, signing_keys

SAMPLE = Path(__file__).parent.parent / "tests" / "payloads" / "webhook-notification.json"
SECRET = "abcdefg"


def measure() -> list[Result]:
    body = SAMPLE.read_bytes()
    signature = sign(body, secret=SECRET)
    key = SECRET.encode()

    keys = signing_keys(SECRET)

    def by_hand() -> object:
        verify(body, signature=signature, secrets=SECRET)
        return WebhookNotification.from_json(body)

    def in_a_receiver() -> object:
        # A receiver has checked its secrets once, when it was made.
        match(body, signature, keys)
        return WebhookNotification.from_json(body)

    def with_keys() -> object:
        # What receivers do on top: a key that stands twice makes a notification unreadable.
        match(body, signature, keys)
        return read_notification(body)

    def floor() -> object:
        if hmac.digest(key, body, "sha256").hex() != signature:
            raise ValueError
        return json.loads(body)

    receiver, hand, keyed, bare = fastest([in_a_receiver, by_hand, with_keys, floor], calls=1_000, rounds=60)
    return [
        Result("verify + parse the sample, in a receiver", "us", receiver * 1e6, bare * 1e6, 1.3),
        Result("the same, with the search for repeated keys", "us", keyed * 1e6, bare * 1e6, 1.6),
        Result("verify() + from_json() of the sample", "us", hand * 1e6, bare * 1e6, 1.25),
    ]
