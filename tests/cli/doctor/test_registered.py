"""What the doctor says of what is registered."""

from __future__ import annotations

import pytest

from optimove_conditional_execution import EventListener, Webhook
from optimove_conditional_execution.cli.doctor.check import Check
from optimove_conditional_execution.cli.doctor.registered import listener_check, webhooks_check

GATE = "https://gate.example.com/optimove"
CAMPAIGNS = "https://gate.example.com/campaigns"


def webhooks(*urls: str, expected: str | None = None, is_rehearsal: bool = False) -> Check:
    found = [Webhook(id=f"webhook{number}", url=url) for number, url in enumerate(urls, start=1)]
    return webhooks_check(found, expected=expected, is_rehearsal=is_rehearsal)


@pytest.mark.parametrize(
    ("urls", "expected", "state", "said"),
    [
        ((GATE,), None, "ok", f"{GATE} (webhook1) is registered."),
        ((GATE,), GATE, "ok", "is registered"),
        ((), None, "warning", "None is registered"),
        ((), GATE, "problem", "--webhook is not registered."),
        (("https://old.example.com/",), GATE, "problem", "--webhook is not registered."),
        (("https://GATE.example.com:443/optimove/",), GATE, "ok", "is registered"),
        (("https://gate.example.com/Optimove",), GATE, "problem", "differs in case or scheme"),
        (("http://gate.example.com/optimove",), GATE, "problem", "differs in case or scheme"),
        ((GATE, "https://old.example.com/x"), GATE, "warning", "the first answer wins, so a stale one can deny"),
        ((GATE, GATE), None, "warning", "is registered 2 times"),
        ((GATE, "https://GATE.example.com:443/optimove/"), None, "warning", f"{GATE} is registered 2 times"),
        ((GATE, "https://gate.example.com/Optimove"), None, "warning", "2 are registered"),
        (("http://gate.example.com/optimove",), None, "warning", "plain http"),
        (("http://127.0.0.1:8000/x",), None, "problem", "cannot reach"),
        (("https://10.1.2.3/x",), None, "problem", "cannot reach"),
        (("https://gate/x",), None, "problem", "cannot reach"),
        (("https://[::1]/x",), None, "problem", "cannot reach"),
        (("/optimove",), None, "problem", "no absolute URL"),
        (("https://[",), None, "problem", "no absolute URL"),
    ],
)
def test_webhooks(urls: tuple[str, ...], expected: str | None, state: str, said: str) -> None:
    check = webhooks(*urls, expected=expected)
    assert check.state == state
    assert said in check.finding
    assert bool(check.remedy) == (state != "ok")


def test_a_stand_in_on_loopback_reaches_loopback() -> None:
    assert webhooks("http://127.0.0.1:8000/x", is_rehearsal=True).state == "ok"


def test_several_webhooks_are_named_with_their_ids() -> None:
    check = webhooks(GATE, "https://old.example.com/x")
    assert "https://old.example.com/x (webhook2)" in check.finding
    assert "webhooks delete ID" in check.remedy


def test_what_can_be_private_in_a_url_is_not_shown() -> None:
    check = webhooks("https://me:private@gate.example.com/x?key=private", GATE)
    assert "private" not in check.finding + check.remedy


# ---- listeners


def listener(*registered: tuple[int, int | None, str], expected: str | None = None) -> Check:
    found = [
        EventListener(event_type_id=kind, channel_id=channel, listener_url=url) for kind, channel, url in registered
    ]
    return listener_check(found, expected=expected, is_rehearsal=False)


ENCODED = "https%3A%2F%2Fgate.example.com%2Fcampaigns%3Ftoken%3Dprivate"


@pytest.mark.parametrize(
    ("registered", "expected", "state", "said"),
    [
        ([(5, None, f"{CAMPAIGNS}?token=private")], None, "ok", "is registered for campaigns on hold"),
        ([(5, 0, f"{CAMPAIGNS}?token=private")], CAMPAIGNS, "ok", "is registered for campaigns on hold"),
        ([(5, None, CAMPAIGNS)], f"{CAMPAIGNS}?token=private", "ok", "is registered for campaigns on hold"),
        ([(5, None, "https://GATE.example.com:443/campaigns/?token=private")], CAMPAIGNS, "ok", "is registered"),
        ([], None, "warning", "None is registered for events of type 5"),
        ([(13, 504, CAMPAIGNS)], None, "warning", "None is registered for events of type 5"),
        ([], CAMPAIGNS, "problem", "--listener is not registered"),
        ([(5, None, "https://gate.example.com/old")], CAMPAIGNS, "problem", "--listener is not registered"),
        ([(5, 504, CAMPAIGNS)], None, "problem", "channel 504"),
        ([(5, None, CAMPAIGNS), (5, None, f"{CAMPAIGNS}/2")], None, "warning", "2 are registered"),
        ([(5, None, ENCODED)], CAMPAIGNS, "warning", "percent-encoded"),
        ([(5, None, "http://gate.example.com/campaigns")], None, "warning", "plain http"),
        ([(5, None, "https://192.168.0.9/campaigns")], None, "problem", "cannot reach"),
    ],
)
def test_listeners(registered: list[tuple[int, int | None, str]], expected: str | None, state: str, said: str) -> None:
    check = listener(*registered, expected=expected)
    assert check.state == state
    assert said in check.finding
    assert bool(check.remedy) == (state != "ok")
    assert "private" not in check.finding + check.remedy


def test_a_listener_with_a_channel_is_told_how_to_go() -> None:
    assert "listeners unregister --channel 504" in listener((5, 504, CAMPAIGNS)).remedy
