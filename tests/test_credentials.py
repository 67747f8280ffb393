"""What copying adds to a secret is named, and the secret is not."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from pydantic import SecretBytes, SecretStr

from optimove_conditional_execution import (
    AsyncListenerReceiver,
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    ConfigurationError,
    ListenerReceiver,
    OptimoveClient,
    WebhookReceiver,
    sign,
    verify,
)
from optimove_conditional_execution.credentials import copied_wrong
from optimove_conditional_execution.testing import FakeOptimove, listener_request, notification, signed_request

PLAIN = "k3y-of_the+tenant/with=padding=="

COPIED = {
    "white space": (f"{PLAIN}\n", "white space"),
    "byte order mark": (f"\ufeff{PLAIN}", "byte order mark"),
    "no-break space": (f"{PLAIN}\u00a0", "invisible character"),
    "zero-width space": (f"{PLAIN[:5]}\u200b{PLAIN[5:]}", "invisible character"),
    "typographic quotes": (f"\u201c{PLAIN}\u201d", "quotation mark"),
    "plain quotes": (f'"{PLAIN}"', "quotation mark"),
    "a name": (f"OPTIMOVE_WEBHOOK_SECRET={PLAIN}", "name of a variable"),
    "two": (f"{PLAIN},{PLAIN[::-1]}", "comma"),
}


def handler(*_: object) -> bool:
    return True


@pytest.mark.parametrize("name", COPIED)
@pytest.mark.parametrize("kind", ["webhook", "async webhook", "listener", "async listener"])
def test_a_receiver_warns_at_its_start(name: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    secret, word = COPIED[name]
    fake = FakeOptimove()
    with caplog.at_level(logging.WARNING, "optimove_conditional_execution"):
        if kind == "webhook":
            WebhookReceiver(handler, client=fake.client(), secrets=["another-secret", secret.encode()])
        elif kind == "async webhook":
            AsyncWebhookReceiver(handler, client=fake.async_client(), secrets=SecretStr(secret))
        elif kind == "listener":
            ListenerReceiver(print, token=secret)
        else:
            AsyncListenerReceiver(print, token=SecretStr(secret))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [message for message in warnings if word in message]
    assert not [message for message in warnings if PLAIN in message or PLAIN[:5] in message]


@pytest.mark.parametrize(
    "secret", [PLAIN, "a=b", "ABC=", "UPPER_CASE=", "it's", "a,b", "caf\u00e9", "s" * 64, "x_y-z=0"]
)
def test_what_is_right_is_no_mistake(secret: str) -> None:
    assert list(copied_wrong(secret.encode())) == []


def test_bytes_that_are_no_text_are_no_mistake() -> None:
    assert list(copied_wrong(bytes(range(128, 256)))) == []


@pytest.mark.parametrize("hide", [SecretStr, lambda text: SecretBytes(text.encode())])
def test_signatures_take_hidden_values(hide: Any) -> None:
    signature = sign(b"{}", secret=hide(PLAIN))
    assert signature == sign(b"{}", secret=PLAIN)
    assert verify(b"{}", signature=signature, secrets=hide(PLAIN)) == 0
    assert verify(b"{}", signature=signature, secrets=["another", hide(PLAIN)]) == 1
    with pytest.raises(ConfigurationError, match="empty or blank"):
        sign(b"{}", secret=hide(" "))


def test_clients_and_receivers_take_hidden_values() -> None:
    fake = FakeOptimove(api_key=SecretStr("a-key"), secret=SecretStr(PLAIN))
    with fake.client(api_key=SecretStr("a-key")) as client:
        assert client.get_webhooks() == []
        client.update_webhook_settings(secret=SecretStr("a-newer-secret"))
        assert fake.secret == "a-newer-secret"
        receiver = WebhookReceiver(handler, client=client, secrets=[SecretStr(PLAIN), SecretBytes(b"a-newer-secret")])
        payload = notification(request_uid="u")
        fake.expect(payload)
        assert receiver.handle(signed_request(payload, secret=SecretStr(PLAIN))).status == 200
        assert receiver.handle(signed_request(payload, secret="yet-another")).status == 401
    listener = ListenerReceiver(print, token=SecretStr("a-token"))
    assert listener.handle(listener_request({}, token="a-token")).status == 400
    assert listener.handle(listener_request({}, token="another")).status == 401


@pytest.mark.parametrize("kind", [OptimoveClient, AsyncOptimoveClient])
def test_a_hidden_key_is_checked_as_a_plain_one(kind: Any) -> None:
    for key in ("", "a key", "k\u00e9y"):
        with pytest.raises(ConfigurationError, match="API key"):
            kind(SecretStr(key), base_url="https://optimove.test")
