"""The engineer's own service: real receivers under a real server, and services that are not well."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from optimove_conditional_execution import (
    UNSIGNED,
    AsyncListenerReceiver,
    AsyncWebhookReceiver,
    CampaignReadyEvent,
    Deadline,
    Decision,
    Request,
    Response,
    WebhookNotification,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.testing import FakeOptimove
from tests.cli.doctor.outside import Check, examined
from tests.cli.doctor.servers import answering, closed_port
from tests.conftest import served


def knocked(url: str, name: str = "own-webhook", *, base_url: str = "http://127.0.0.1:9") -> Check:
    option = {"own-webhook": "--webhook", "own-listener": "--listener"}[name]
    return examined(base_url, option, url, variables={"OPTIMOVE_LISTENER_TOKEN": "a-private-token"})[name]


async def approve(notification: WebhookNotification, deadline: Deadline) -> Decision:
    return Decision.approve()


async def note(event: CampaignReadyEvent) -> None:
    """Do nothing: no event gets here."""


def test_receivers_of_this_sdk_are_closed() -> None:
    client = FakeOptimove().async_client()
    gate = ASGIApp(AsyncWebhookReceiver(approve, client=client, secrets="a-secret"))
    campaigns = ASGIApp(AsyncListenerReceiver(note, token="a-token"))
    app = Starlette(routes=[Route("/gate", gate), Route("/campaigns", campaigns)])
    with served(app) as url:
        for path, name in (("/gate", "own-webhook"), ("/campaigns", "own-listener")):
            check = knocked(f"{url}{path}", name)
            assert check.state == "ok", check
            assert "401" in check.finding


def test_receivers_that_ask_for_no_proof_are_a_problem() -> None:
    client = FakeOptimove().async_client()
    gate = ASGIApp(AsyncWebhookReceiver(approve, client=client, secrets=UNSIGNED))
    campaigns = ASGIApp(AsyncListenerReceiver(note, token=UNSIGNED))
    app = Starlette(routes=[Route("/gate", gate), Route("/campaigns", campaigns)])
    with served(app) as url:
        for path, name in (("/gate", "own-webhook"), ("/campaigns", "own-listener")):
            check = knocked(f"{url}{path}", name)
            assert check.state == "problem"
            assert "not UNSIGNED" in check.remedy


def test_a_mounted_receiver_redirects_and_the_remedy_is_named() -> None:
    gate = ASGIApp(AsyncWebhookReceiver(approve, client=FakeOptimove().async_client(), secrets="a-secret"))
    with served(Starlette(routes=[Mount("/gate", app=gate)])) as url:
        check = knocked(f"{url}/gate")
    assert check.state == "problem"
    assert "to a slash at the end" in check.finding
    assert "add_route" in check.remedy


def react(post: Response, get: Response | None = None) -> Callable[[Request], Response]:
    return lambda request: post if request.method == "POST" else get or Response(405)


@pytest.mark.parametrize(
    ("post", "state", "said"),
    [
        (Response(200), "problem", "forged notifications are accepted"),
        (Response(202), "problem", "forged notifications are accepted"),
        (Response(400), "problem", "although a signature is missing"),
        (Response(422), "problem", "although a signature is missing"),
        (Response(403), "warning", "CSRF"),
        (Response(404), "problem", "nothing is mounted"),
        (Response(405), "problem", "takes no POST"),
        (Response(415), "problem", "not the receiver's 401"),
        (Response(500), "problem", "fails"),
        (
            Response(302, {"location": "https://login.test/?next=private"}),
            "problem",
            "to https://login.test/...",
        ),
        (Response(302, {"location": "/login"}), "problem", "perhaps to a log-in"),
        (Response(302), "problem", "perhaps to a log-in"),
        (Response(302, {"location": "https://["}), "problem", "perhaps to a log-in"),
    ],
)
def test_other_answers_to_a_post(post: Response, state: str, said: str) -> None:
    with answering(react(post)) as server:
        check = knocked(f"{server.url}/gate")
    assert check.state == state
    assert said in check.finding
    assert check.remedy
    assert "private" not in repr(check)


def test_a_redirect_to_https_is_told() -> None:
    with answering(lambda request: Response(308, {"location": f"https://127.0.0.1{request.path}"})) as server:
        check = knocked(f"{server.url}/gate")
    assert check.state == "problem"
    assert "redirected (308) to https://127.0.0.1/..." in check.finding
    assert "Register the URL that answers" in check.remedy


@pytest.mark.parametrize("get", [Response(200), Response(404), Response(302, {"location": "/"})])
def test_a_get_must_get_405(get: Response) -> None:
    with answering(react(Response(401), get)) as server:
        check = knocked(f"{server.url}/gate")
    assert check.state == "warning"
    assert f"A GET gets {get.status}" in check.finding


def test_what_is_posted_can_do_no_harm() -> None:
    with answering(react(Response(401))) as server:
        assert knocked(f"{server.url}/gate").state == "ok"
    post, get = server.requests
    assert (post.method, post.body, get.method, get.body) == ("POST", b"{}", "GET", b"")
    names = {name for request in server.requests for name, _ in request.headers}
    assert not {name for name in names if "key" in name or "signature" in name}


def test_a_service_that_does_not_run() -> None:
    check = knocked(f"http://127.0.0.1:{closed_port()}/gate")
    assert check.state == "problem"
    assert "Does the service run" in check.remedy


def test_a_service_on_loopback_is_out_of_the_reach_of_the_real_optimove() -> None:
    with answering(react(Response(401))) as server:
        check = knocked(f"{server.url}/gate", base_url="https://api5.optimove.invalid")
    assert check.state == "problem"
    assert "cannot reach" in check.finding


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/x", "/x?"),
        ("/x?token=a-private-token", "/x?"),
        ("/x?brand=b&token=a-private-token", "/x?brand=b"),
        ("/x/a-private-token", "/x/no-token?"),
        ("/x/a-private-token/", "/x/no-token?"),
    ],
)
def test_the_token_of_a_listener_is_left_away(path: str, asked: str) -> None:
    with answering(react(Response(401))) as server:
        url = f"{server.url}{path}"
        assert knocked(url, "own-listener").state == "ok"
    assert [f"{request.path}?{request.query}" for request in server.requests] == [asked, asked]
