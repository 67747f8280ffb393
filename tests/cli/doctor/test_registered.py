"""What the doctor says of what is registered, as a server lists it; through a proxy, so that it is no rehearsal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from optimove_conditional_execution import Request, Response
from tests.cli.doctor.outside import Check, examined
from tests.cli.doctor.servers import answering

GATE = "https://gate.example.com/optimove"
CAMPAIGNS = "https://gate.example.com/campaigns"


def checked(webhooks: list[dict[str, Any]], listeners: list[dict[str, Any]], *options: str) -> dict[str, Check]:
    def react(request: Request) -> Response:
        listed = webhooks if request.path.endswith("/webhooks") else listeners
        return Response(200, {"content-type": "application/json"}, json.dumps(listed).encode())

    with answering(react) as server:
        proxies = {"HTTP_PROXY": server.url, "HTTPS_PROXY": server.url}
        return examined("http://optimove.test", *options, seconds=1, variables=proxies)


def webhooks(*urls: str, expected: str | None = None) -> Check:
    found = [{"id": f"webhook{number}", "url": url} for number, url in enumerate(urls, start=1)]
    return checked(found, [], *([] if expected is None else ["--webhook", expected]))["webhooks"]


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
        ((GATE, "https://old.example.com/x"), GATE, "warning", "https://old.example.com/x (webhook2)"),
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


def test_a_stand_in_on_loopback_reaches_loopback() -> None:
    listed = b'[{"id": "webhook1", "url": "http://127.0.0.1:8000/x"}]'
    with answering(lambda _: Response(200, {"content-type": "application/json"}, listed)) as server:
        assert examined(server.url)["webhooks"].state == "ok"


def test_what_can_be_private_in_a_url_is_not_shown() -> None:
    check = webhooks("https://me:private@gate.example.com/x?key=private", GATE)
    assert "private" not in check.finding + check.remedy


# ---- listeners

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
    found = [{"EventTypeID": kind, "ChannelID": channel, "ListenerURL": url} for kind, channel, url in registered]
    checks = checked([], found, *([] if expected is None else ["--listener", expected]))
    check = checks["listener"]
    assert check.state == state
    assert said in check.finding
    assert "private" not in repr(checks)
    assert "channel 504" not in said or "listeners unregister --channel 504" in check.remedy


# ---- the token

LONG = "a-long-and-private-text"


@pytest.mark.parametrize(
    ("token", "urls", "state", "said"),
    [
        (None, (), "not checked", "is not set"),
        (None, ("https://a.test/x?token=t",), "warning", "cannot be compared"),
        (None, ("https://a.test/x",), "warning", "has no ?token="),
        (LONG, (), "ok", "is set."),
        (LONG, (f"https://a.test/x?token={LONG}",), "ok", "the registered URL has it"),
        (LONG, (f"https://a.test/x/{LONG}",), "ok", "the registered URL has it"),
        (LONG, (f"https%3A%2F%2Fa.test%2Fx%3Ftoken%3D{LONG}",), "ok", "the registered URL has it"),
        (LONG, ("https://a.test/x?token=another",), "problem", "401"),
        (LONG, ("https://a.test/x",), "problem", "401"),
        (LONG, (f"https://a.test/x?token={LONG}", "https://a.test/y"), "problem", "401"),
        ("", (), "problem", "empty, blank"),
        (f"{LONG}\n", (), "problem", "line break"),
        (f'"{LONG}"', (), "problem", "quotation mark"),
        ("short", ("https://a.test/x?token=short",), "warning", "less than 16"),
    ],
)
def test_the_token(token: str | None, urls: tuple[str, ...], state: str, said: str) -> None:
    listeners = [{"EventTypeID": 5, "ListenerURL": url} for url in urls]
    # Listeners of other events have tokens of their own.
    listeners.append({"EventTypeID": 13, "ListenerURL": "https://a.test/sent"})
    variables = {} if token is None else {"OPTIMOVE_LISTENER_TOKEN": token}
    with answering(
        lambda _: Response(200, {"content-type": "application/json"}, json.dumps(listeners).encode())
    ) as server:
        checks = examined(server.url, variables=variables)
    assert checks["token"].state == state
    assert said in checks["token"].finding
    assert LONG not in repr(checks)
