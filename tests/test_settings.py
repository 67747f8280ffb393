"""Webhook secrets of an environment, for receivers and for `verify`."""

from __future__ import annotations

import os

import pytest

from optimove_conditional_execution import ConfigurationError, sign, verify, webhook_secrets

SECRET = "OPTIMOVE_WEBHOOK_SECRET"


def test_secrets_come_in_the_order_of_their_numbers() -> None:
    environment = {f"{SECRET}_10": "tenth", f"{SECRET}_2": "second", SECRET: "first", f"{SECRET}_OLD": "unread"}
    secrets = webhook_secrets(environment)
    assert [secret.get_secret_value() for secret in secrets] == [b"first", b"second", b"tenth"]
    assert verify(b"body", signature=sign(b"body", secret="second"), secrets=secrets) == 1
    assert "first" not in repr(secrets)


def test_they_are_the_bytes_that_were_set() -> None:
    (secret,) = webhook_secrets({SECRET: os.fsdecode(b" \xff\n")})
    assert secret.get_secret_value() == b" \xff\n"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, f"set the environment variable {SECRET}"),
        ({f"{SECRET}_1": "unread"}, f"set the environment variable {SECRET}"),
        ({SECRET: ""}, f"^{SECRET} is empty or blank"),
        ({SECRET: "first", f"{SECRET}_3": " \n"}, f"^{SECRET}_3 is empty or blank"),
    ],
)
def test_none_and_blank_ones_are_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        webhook_secrets(environment)
