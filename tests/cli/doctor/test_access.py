"""What servers that answer say: keys refused, firewalls, paths that differ. Each over real HTTP."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from optimove_conditional_execution import Endpoints, Request, Response
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.testing import FakeOptimove
from tests.cli.doctor.outside import KEY, examined
from tests.cli.doctor.servers import Server, answering
from tests.conftest import OverHTTP, served

WEBHOOKS = "/conditional-execution/v2/triggered/webhooks"
LISTENERS = "/General/GetRegisteredEventListeners"

React = Callable[[Request], Response]


@contextlib.contextmanager
def paths(answers: dict[str, Response]) -> Iterator[Server]:
    """Answer these paths, and 404 elsewhere."""
    with answering(lambda request: answers.get(request.path, Response(404, {}, b"Not Found"))) as server:
        yield server


EMPTY = Response(200, {"content-type": "application/json"}, b"[]")
PAGE = Response(200, {"content-type": "text/html"}, b"<!DOCTYPE html><html>Welcome</html>")


def everywhere(response: Response) -> React:
    return lambda _: response


def test_a_tenant_that_is_well() -> None:
    with paths({WEBHOOKS: EMPTY, LISTENERS: EMPTY}) as server:
        checks = examined(server.url)
    assert {name: checks[name].state for name in ("access", "prefix", "clock", "budget")} == dict.fromkeys(
        ("access", "prefix", "clock", "budget"), "ok"
    )
    assert {request.method for request in server.requests} == {"GET"}
    assert all(request.header_values("x-api-key") == (KEY,) for request in server.requests)
    asked = [request.path for request in server.requests]
    assert asked[:2] == [WEBHOOKS, LISTENERS]
    assert asked[-4:] == [WEBHOOKS] * 4


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_refused(status: int) -> None:
    with answering(everywhere(Response(status, {}, f'"{KEY} is unknown"'.encode()))) as server:
        checks = examined(server.url)
    assert checks["access"].state == "problem"
    assert f"answered {status}" in checks["access"].finding
    assert "type Admin" in checks["access"].remedy
    for name in ("prefix", "budget", "webhooks", "listener"):
        assert checks[name].state == "not checked"
    assert checks["clock"].state == "ok"
    assert len(server.requests) == 2


def test_a_key_of_the_wrong_type_opens_one_call_and_not_the_other() -> None:
    with paths({WEBHOOKS: Response(403), LISTENERS: EMPTY}) as server:
        checks = examined(server.url)
    assert checks["access"].state == "problem"
    assert "of a type" in checks["access"].remedy
    assert "get_registered_event_listeners" not in checks["access"].finding
    assert checks["prefix"].state == checks["budget"].state == "ok"
    assert checks["webhooks"].state == "not checked"


def test_without_a_key_the_way_is_looked_at_all_the_same() -> None:
    with answering(everywhere(Response(401))) as server:
        checks = examined(server.url, key=None)
    assert checks["key"].state == "problem"
    assert checks["connection"].state == checks["clock"].state == "ok"
    assert checks["access"].state == "not checked"
    assert not any(request.header_values("x-api-key") for request in server.requests)


@pytest.mark.parametrize("wrong", [Response(404), Response(405), PAGE, Response(200, {}, b'"No such function"')])
def test_calls_that_stand_below_current(wrong: Response) -> None:
    with paths({WEBHOOKS: EMPTY, LISTENERS: wrong, f"/current{LISTENERS}": EMPTY}) as server:
        checks = examined(server.url)
    assert checks["access"].state == "ok"
    assert checks["prefix"].state == "problem"
    assert 'Endpoints(path_prefix="/current")' in checks["prefix"].remedy
    # What is registered is looked at where it was found.
    assert checks["listener"].state == "warning"


def test_the_prefix_of_the_service_can_be_told() -> None:
    current = ("--path-prefix", "/current")
    with paths({WEBHOOKS: EMPTY, f"/current{LISTENERS}": EMPTY}) as server:
        assert examined(server.url, *current)["prefix"].state == "ok"
    with paths({WEBHOOKS: EMPTY, LISTENERS: EMPTY}) as server:
        check = examined(server.url, *current)["prefix"]
    assert check.state == "problem"
    assert 'Endpoints(path_prefix="")' in check.remedy


def test_the_stand_in_below_current() -> None:
    fake = FakeOptimove(api_key=KEY, endpoints=Endpoints(path_prefix="/current"))
    with served(ASGIApp(OverHTTP(fake))) as url:
        assert examined(url)["prefix"].state == "problem"
        assert examined(url, "--path-prefix", "/current")["prefix"].state == "ok"


def test_a_server_that_knows_no_call() -> None:
    with paths({}) as server:
        checks = examined(server.url)
    assert checks["access"].state == "problem"
    assert checks["access"].finding.count("answered 404") == 2
    assert "base_url" in checks["access"].remedy
    assert checks["prefix"].state == "not checked"


def test_webhooks_under_another_path_are_a_guess_and_no_problem() -> None:
    with paths({LISTENERS: EMPTY}) as server:
        checks = examined(server.url)
    assert checks["access"].state == "warning"
    assert "get_webhooks: " in checks["access"].finding
    assert "Endpoints" in checks["access"].remedy
    assert checks["budget"].state == "ok"


def test_listeners_under_no_path_matter_to_scheduled_campaigns() -> None:
    with paths({WEBHOOKS: EMPTY}) as server:
        checks = examined(server.url)
    assert checks["access"].state == "warning"
    assert "/current" in checks["access"].remedy
    assert checks["webhooks"].state == "warning"
    assert checks["listener"].state == "not checked"


IMPERVA = {"content-type": "text/html", "set-cookie": "incap_ses_1=x; path=/"}


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (Response(403, IMPERVA, b"<html>Request unsuccessful</html>"), "Imperva"),
        (Response(503, {"server": "cloudflare"}, b"<html>wait</html>"), "Cloudflare"),
        (PAGE, "web page"),
        (Response(200, {}, b"  <html>no type</html>"), "web page"),
    ],
)
def test_a_page_is_a_firewall_or_another_server(response: Response, said: str) -> None:
    with answering(everywhere(response)) as server:
        checks = examined(server.url)
    assert checks["access"].state == "problem"
    assert said in checks["access"].remedy
    assert "firewall" in checks["access"].remedy
    assert "API_KEY" not in checks["access"].remedy


@pytest.mark.parametrize(
    ("response", "state", "said"),
    [
        (Response(301, {"location": "https://elsewhere.test/x?private=1"}), "problem", "Redirects are not followed"),
        (Response(302, {"location": "/login"}), "problem", "Redirects are not followed"),
        (Response(429, {}, b'{"status": 429}'), "warning", "answered 429"),
        (Response(500, {}, b"<html>error</html>"), "problem", "answered 500"),
        (Response(400, {}, b'"Bad Request"'), "problem", "answered 400"),
        (Response(200, {}, b'"a message"'), "problem", "but the answer is not"),
        (Response(200, {}, b'[{"nothing": "known"}]'), "problem", "is missing"),
    ],
)
def test_other_answers(response: Response, state: str, said: str) -> None:
    with answering(everywhere(response)) as server:
        check = examined(server.url)["access"]
    assert check.state == state
    assert said in check.finding + check.remedy
    assert "private" not in repr(check)


# ---- endpoints

TRIGGERED = "/conditional-execution/v2/triggered"
ONE = Response(200, {"content-type": "application/json"}, b'[{"id": "a/b", "url": "https://gate.example.com/x"}]')
POST_ONLY = Response(405, {"allow": "POST"})


def test_the_paths_of_the_stand_in_all_exist() -> None:
    fake = FakeOptimove(api_key=KEY)
    fake.webhooks["webhook1"] = "https://gate.example.com/optimove"
    with served(ASGIApp(OverHTTP(fake))) as url:
        check = examined(url)["endpoints"]
    assert check.state == "ok"
    for name in ("get_webhooks", "get_webhook_by_id", "delete_webhook", "update_webhook_settings"):
        assert name in check.finding


def test_paths_that_stand_elsewhere_are_printed_to_paste() -> None:
    tenant = {
        f"{WEBHOOKS}/": ONE,
        f"{WEBHOOKS}/a%2Fb/": Response(200, {}, b"{}"),
        f"{TRIGGERED}/settings/": POST_ONLY,
        f"{WEBHOOKS}/approval": Response(400),
        LISTENERS: EMPTY,
    }
    with paths(tenant) as server:
        checks = examined(server.url)
    check = checks["endpoints"]
    assert check.state == "problem"
    for text in (
        f'get_webhooks=Endpoint("GET", "{WEBHOOKS}/")',
        f'get_webhook_by_id=Endpoint("GET", "{WEBHOOKS}/{{webhook_id}}/")',
        f'delete_webhook=Endpoint("DELETE", "{WEBHOOKS}/{{webhook_id}}/")',
        f'update_webhook_settings=Endpoint("POST", "{TRIGGERED}/settings/")',
        f'send_webhook_approval=Endpoint("POST", "{WEBHOOKS}/approval")',
    ):
        assert text in check.remedy
    assert checks["webhooks"].finding.startswith("https://gate.example.com/x (a/b) is registered")
    assert {request.method for request in server.requests} == {"GET"}


def test_paths_that_are_not_found_may_exist_all_the_same() -> None:
    with paths({WEBHOOKS: EMPTY, LISTENERS: EMPTY}) as server:
        check = examined(server.url)["endpoints"]
    assert check.state == "warning"
    assert "update_webhook_settings, send_webhook_approval" in check.finding
    assert "Customer Success Manager" in check.remedy


def test_what_is_taken_for_the_id_of_a_webhook_is_no_route() -> None:
    def react(request: Request) -> Response:
        if request.path in (WEBHOOKS, LISTENERS):
            return EMPTY
        return Response(400 if request.path.startswith(f"{WEBHOOKS}/") else 404)

    with answering(react) as server:
        check = examined(server.url)["endpoints"]
    assert check.state == "warning"
    assert "send_webhook_approval" in check.finding


def test_a_server_that_knows_every_path_tells_nothing_of_paths() -> None:
    known = {WEBHOOKS: EMPTY, LISTENERS: EMPTY}
    with answering(lambda request: known.get(request.path, Response(401))) as server:
        check = examined(server.url)["endpoints"]
    assert check.state == "not checked"
    assert "answers 401 to a path that cannot exist" in check.finding
