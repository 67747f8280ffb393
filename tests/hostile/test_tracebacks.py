"""No error of ours gives a key, a secret, a token or a signature to those who record the variables of its frames."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from pydantic import SecretBytes, SecretStr

from optimove_conditional_execution import (
    Approval,
    AsyncListenerReceiver,
    AsyncWebhookReceiver,
    Deadline,
    Decision,
    ListenerReceiver,
    OptimoveClient,
    OptimoveError,
    Outcome,
    Request,
    Response,
    RetryPolicy,
    WebhookReceiver,
    operations,
    sign,
    verify,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.adapters.aws_lambda import lambda_handler
from optimove_conditional_execution.adapters.wsgi import WSGIApp
from optimove_conditional_execution.cli.app import program
from optimove_conditional_execution.signature import SIGNATURE_HEADER
from optimove_conditional_execution.testing import (
    FakeOptimove,
    Fault,
    FaultServer,
    faults,
    listener_request,
    notification,
    signed_request,
)
from optimove_conditional_execution.testing.faults import Connection
from tests.tracked import recorded
from tests.transport.engines import ENGINES, Caller

KEY = "hush-api-key-0123456789"
SECRET = "hush-secret-0123456789"
NEXT_SECRET = "hush-next-secret-0123456789"
TOKEN = "hush-token-0123456789"
PERSONAL = "hush-personal"
ADDITIONAL = "hush-additional-data"
BODY = json.dumps({"name": PERSONAL}).encode()
SIGNATURE = sign(BODY, secret=SECRET)
HIDDEN = (KEY, SECRET, NEXT_SECRET, TOKEN, PERSONAL, ADDITIONAL, SIGNATURE)

EVENT = {
    "EventTypeID": 5,
    "TimeStamp": "2026-01-01 10:00:00",
    "CampaignID": 7,
    "CampaignDuration": 1,
    "ClearanceRequiredBy": "2026-01-01 11:00:00",
}
ONCE = RetryPolicy(attempts=1)
HOOK = f"https://gate.example/hook?token={TOKEN}"


def assert_nothing_shown(error: BaseException, *, but: Sequence[str] = ()) -> None:
    lines = recorded(error)
    shown = [line[:300] for line in lines for hidden in HIDDEN if hidden in line and hidden not in but]
    assert not shown, "\n".join(shown)


def raised(call: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as caught:
        call()
    return caught.value


def test_the_walk_finds_what_is_there() -> None:
    def inner(given: dict[str, list[str]]) -> None:
        raise ValueError

    def outer() -> None:
        try:
            inner({"x": [SECRET]})
        except ValueError as error:
            raise KeyError from error

    assert any(SECRET in line for line in recorded(raised(outer), own_frames=True))


class TestSignatures:
    @pytest.mark.parametrize(
        "signature", [None, "0" * 64, SIGNATURE[:-1] + "x", SIGNATURE[:32], SIGNATURE.encode() + b"0", "\ud800" * 64]
    )
    @pytest.mark.parametrize(
        "secrets",
        [NEXT_SECRET, NEXT_SECRET.encode(), SecretStr(NEXT_SECRET), [NEXT_SECRET, SecretBytes(b"hush-another")]],
    )
    def test_that_do_not_fit(self, signature: Any, secrets: Any) -> None:
        assert_nothing_shown(raised(lambda: verify(BODY, signature=signature, secrets=secrets)))

    @pytest.mark.parametrize("secrets", [[SECRET, ""], [SECRET, None], f"{SECRET}\ud800", [SECRET, f"{SECRET}\ud800"]])
    def test_with_secrets_that_make_no_sense(self, secrets: Any) -> None:
        assert_nothing_shown(raised(lambda: verify(BODY, signature=SIGNATURE, secrets=secrets)))

    def test_of_a_body_that_is_no_bytes(self) -> None:
        assert_nothing_shown(raised(lambda: verify(BODY.decode(), signature=SIGNATURE, secrets=SECRET)))  # type: ignore[arg-type]
        assert_nothing_shown(raised(lambda: sign(BODY.decode(), secret=SECRET)))  # type: ignore[arg-type]

    def test_that_cannot_be_made(self) -> None:
        assert_nothing_shown(raised(lambda: sign(BODY, secret=f"{SECRET}\ud800")))
        assert_nothing_shown(raised(lambda: sign(BODY, secret=[SECRET])))  # type: ignore[arg-type]

    def test_what_was_being_handled_keeps_its_variables(self) -> None:
        """An exception of the integrator's own is not ours to empty."""

        def integrators_own() -> None:
            theirs = "still-here"
            raise KeyError(len(theirs))

        def checks() -> None:
            try:
                integrators_own()
            except KeyError:
                verify(BODY, signature="0" * 64, secrets=SECRET)

        assert any("still-here" in line for line in recorded(raised(checks), own_frames=True))


class TestSettings:
    def test_of_clients(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPTIMOVE_API_KEY", KEY)
        monkeypatch.setenv("OPTIMOVE_WEBHOOK_SECRET", SECRET)
        makers: list[Callable[[], object]] = [
            lambda: OptimoveClient(base_url=None),
            lambda: OptimoveClient(KEY),
            lambda: OptimoveClient(f"{KEY} {KEY}", base_url="https://optimove.test"),
            lambda: OptimoveClient(SecretStr(f"{KEY}\u00e9"), base_url="https://optimove.test"),
            lambda: OptimoveClient(KEY, base_url="https://optimove.test", timezone="Nowhere/Atall"),
            lambda: OptimoveClient(KEY, base_url="https://optimove.test", timeout=-1),
            lambda: OptimoveClient(KEY, base_url="https://optimove.test", http_client=object()),
        ]
        for make in makers:
            assert_nothing_shown(raised(make))

    @pytest.mark.parametrize("variable", ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"])
    @pytest.mark.parametrize("engine", ["httpx", "httpx2"])
    def test_of_a_proxy(self, variable: str, engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(variable, f"nonsense://user:{TOKEN}@proxy.test:99999999")
        error = raised(lambda: OptimoveClient(KEY, base_url="https://optimove.test", engine=engine))
        assert_nothing_shown(error)

    def test_of_receivers(self) -> None:
        client = FakeOptimove().client()
        handler = lambda *_: True  # noqa: E731
        makers: list[Callable[[], object]] = [
            lambda: WebhookReceiver(lambda: True, client=client, secrets=SECRET),  # type: ignore[arg-type]
            lambda: WebhookReceiver(handler, client=client, secrets=[SECRET, ""]),
            lambda: WebhookReceiver(handler, client=client, secrets=f"{SECRET}\ud800"),
            lambda: WebhookReceiver(handler, client=client, secrets=SECRET, max_body=0),
            lambda: AsyncWebhookReceiver(handler, client=client, secrets=SECRET),  # type: ignore[arg-type]
            lambda: ListenerReceiver(print, token=f"{TOKEN}\ud800"),
            lambda: ListenerReceiver(print, token=TOKEN, answer_within=-1),
            lambda: AsyncListenerReceiver(lambda: None, token=TOKEN),  # type: ignore[arg-type, misc]
        ]
        for make in makers:
            assert_nothing_shown(raised(make))


# ---- calls


def updates_settings(client: Any) -> Any:
    return client.update_webhook_settings(secret=NEXT_SECRET)


def sends_an_operation(client: Any) -> Any:
    return client.send(operations.update_webhook_settings(secret=SecretStr(NEXT_SECRET)))


def registers(client: Any) -> Any:
    return client.register_event_listener(HOOK)


def ensures_a_listener(client: Any) -> Any:
    return client.ensure_event_listener(HOOK)


def creates(client: Any) -> Any:
    return client.create_webhook(HOOK)


def ensures_a_webhook(client: Any) -> Any:
    return client.ensure_webhook(HOOK)


def answers(client: Any) -> Any:
    approval = Approval(timestamp=1, request_uid="u", approved=True, additional_data={"x": ADDITIONAL})
    return client.send_webhook_approval(approval, deadline=Deadline.after(0.15))


CALLS = [updates_settings, sends_an_operation, registers, ensures_a_listener, creates, ensures_a_webhook, answers]


def echoing(status: int, body: bytes = b"") -> Callable[[Request], Fault]:
    """Echo what a server gets to see with the call."""

    def chosen(request: Request) -> Fault:
        seen = {"settings": NEXT_SECRET, "webhooks": HOOK, "approval": ADDITIONAL}
        mine = next((text for part, text in seen.items() if part in request.path and request.method != "GET"), "")
        said = body or json.dumps({"message": f"{KEY} {mine}", "secret": KEY}).encode()
        return faults.answer(str(status), Response(status, {"content-type": "application/json"}, said))

    return chosen


def always(fault: Fault) -> Callable[[Request], Fault]:
    return lambda _: fault


async def _echo_in_the_head(line: Connection) -> None:
    await line.send(f"HTTP/1.1 200 OK\r\n{KEY} {NEXT_SECRET}\r\n\r\n".encode())


async def _echo_instead_of_a_head(line: Connection) -> None:
    await line.send(f"X-API-KEY: {KEY}\r\n\r\n".encode())


FAILURES: dict[str, Callable[[Request], Fault]] = {
    "401": echoing(401),
    "404": echoing(404),
    "429": echoing(429),
    "500": echoing(500),
    "not JSON": echoing(200, b"<html>"),
    "odd JSON": echoing(200, json.dumps({"timeout": KEY, "secret": [NEXT_SECRET], "url": [KEY]}).encode()),
    "hangs": always(faults.HANG),
    "resets": always(faults.RESET_AFTER_UPLOADING),
    "garbage": always(faults.GARBAGE),
    "a broken head": always(Fault("broken head", _echo_in_the_head)),
    "no head": always(Fault("no head", _echo_instead_of_a_head)),
    "drips": always(faults.drip_body()),
}

WAITS = {"429", "hangs", "drips"}
"""These take all the time that they get."""


@pytest.fixture
def hushed() -> FakeOptimove:
    return FakeOptimove(api_key=KEY, secret=SECRET)


@pytest.mark.parametrize("engine", ENGINES)
class TestCalls:
    @pytest.mark.parametrize("failure", FAILURES)
    def test_that_fail(self, engine: str, failure: str, hushed: FakeOptimove) -> None:
        with FaultServer(FAILURES[failure], optimove=hushed) as server:
            found = Caller(engine).call(server, *CALLS, retry=ONCE, timeout=0.06 if failure in WAITS else 0.25)
        errors = [error for error in found if isinstance(error, OptimoveError)]
        assert errors
        for error in errors:
            assert_nothing_shown(error)

    @pytest.mark.parametrize("where", ["http://127.0.0.1:9", "https://127.0.0.1", "http://no-such-host.invalid"])
    def test_that_reach_nobody(self, engine: str, where: str, hushed: FakeOptimove) -> None:
        with FaultServer(optimove=hushed) as server:
            url = where if where != "https://127.0.0.1" else server.https_url
            found = Caller(engine).call(server, *CALLS, retry=ONCE, timeout=2, base_url=url)
        for error in found:
            assert isinstance(error, OptimoveError)
            assert_nothing_shown(error)

    def test_that_a_proxy_refuses(self, engine: str, hushed: FakeOptimove, monkeypatch: pytest.MonkeyPatch) -> None:
        with FaultServer(FAILURES["500"], optimove=hushed) as proxy:
            for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv("no_proxy", "")
            monkeypatch.setenv("NO_PROXY", "")
            found = Caller(engine).call(proxy, *CALLS, retry=ONCE, timeout=1, base_url="https://optimove.test")
        for error in found:
            assert isinstance(error, OptimoveError)
            assert_nothing_shown(error)

    def test_with_arguments_that_make_no_sense(self, engine: str, hushed: FakeOptimove) -> None:
        wrong: list[Callable[[Any], Any]] = [
            lambda client: client.update_webhook_settings(timeout_ms=0, secret=NEXT_SECRET),
            lambda client: client.update_webhook_settings(secret=f"{NEXT_SECRET}\ud800"),
            lambda client: client.register_event_listener(HOOK, channel_id=1),
            lambda client: client.ensure_webhook(f"/hook?token={TOKEN}"),
            lambda client: client.ensure_event_listener(f"/hook?token={TOKEN}"),
        ]
        with FaultServer(optimove=hushed) as server:
            for error in Caller(engine).call(server, *wrong):
                assert isinstance(error, Exception)
                assert_nothing_shown(error)


@pytest.mark.parametrize("engine", ["httpx", "httpx2", "aiohttp"])
def test_calls_that_are_cancelled(engine: Any, hushed: FakeOptimove) -> None:
    """The libraries' frames hold the request in the clear, and what is reported is the integrator's own time-out."""

    async def go(call: Callable[[Any], Any]) -> BaseException:
        async with server.async_client(engine=engine) as client:
            try:
                async with asyncio.timeout(0.1):
                    await call(client)
            except TimeoutError as error:
                return error
        raise AssertionError("it was not cancelled")

    with FaultServer(lambda _: faults.HANG, optimove=hushed) as server:
        for call in CALLS:
            assert_nothing_shown(asyncio.run(go(call)))


@pytest.mark.parametrize("engine", ["httpx", "httpx2"])
def test_a_stream_that_breaks(engine: Any, hushed: FakeOptimove) -> None:
    with (
        FaultServer(echoing(500), optimove=hushed) as server,
        server.client(engine=engine, retry=ONCE) as client,
    ):
        assert_nothing_shown(raised(lambda: list(client.get_processed_campaign_customers(7))))


# ---- receivers


class Broken:
    """A store that cannot be reached."""

    instant = False

    def acquire(self, *arguments: Any, **options: Any) -> Any:
        raise OSError("no disk")

    renew = update = release = acquire


BROKEN: Any = Broken()


def asked(uid: str) -> dict[str, Any]:
    return notification(request_uid=uid, timeout_ms=1_500, personalization={"name": PERSONAL})


def raising(*_: object) -> bool:
    raise ValueError("odd")


async def raising_later(*_: object) -> bool:
    await asyncio.sleep(0)
    raise ValueError("odd")


def approving(*_: object) -> Decision:
    return Decision.approve({"x": ADDITIONAL})


SITUATIONS: dict[str, tuple[Callable[..., Any], Response | None, bool]] = {
    "the handler raises": (raising, None, False),
    "Optimove refuses": (approving, Response(400, {}, f"{KEY} {PERSONAL}".encode()), False),
    "Optimove does not know the key": (approving, Response(401, {}, KEY.encode()), False),
    "the store is broken": (approving, None, True),
}


@pytest.mark.parametrize("situation", SITUATIONS)
class TestOutcomes:
    def outcome(self, outcomes: list[Outcome]) -> BaseException:
        (outcome,) = outcomes
        assert outcome.exception is not None
        return outcome.exception

    def test_in_threads(self, situation: str, hushed: FakeOptimove) -> None:
        handler, answer, is_broken = SITUATIONS[situation]
        outcomes: list[Outcome] = []
        with hushed.client(retry=ONCE) as client:
            receiver = WebhookReceiver(
                handler,
                client=client,
                secrets=[NEXT_SECRET, SECRET],
                on_outcome=outcomes.append,
                claims=BROKEN if is_broken else None,
            )
            delivery = self.delivery(hushed)
            if answer is not None:
                hushed.answer_next(*[answer] * 3)
            receiver.handle(delivery)
        assert_nothing_shown(self.outcome(outcomes))

    @pytest.mark.parametrize("later", [False, True])
    def test_in_tasks(self, situation: str, later: bool, hushed: FakeOptimove) -> None:
        handler, answer, is_broken = SITUATIONS[situation]
        if later and handler is raising:
            handler = raising_later
        outcomes: list[Outcome] = []

        async def go() -> None:
            async with hushed.async_client(retry=ONCE) as client:
                receiver = AsyncWebhookReceiver(
                    handler,
                    client=client,
                    secrets=[NEXT_SECRET, SECRET],
                    on_outcome=outcomes.append,
                    claims=BROKEN if is_broken else None,
                )
                delivery = self.delivery(hushed)
                if answer is not None:
                    hushed.answer_next(*[answer] * 3)
                await receiver.handle(delivery)

        asyncio.run(go())
        assert_nothing_shown(self.outcome(outcomes))

    def delivery(self, fake: FakeOptimove) -> Request:
        payload = asked("u")
        fake.expect(payload)
        return signed_request(payload, secret=SECRET, path=f"/hook/{TOKEN}")


def test_a_request_that_is_no_request() -> None:
    with FakeOptimove().client() as client:
        receiver = WebhookReceiver(approving, client=client, secrets=SECRET)
        assert_nothing_shown(raised(lambda: receiver.handle(object())))  # type: ignore[arg-type]
    assert_nothing_shown(raised(lambda: ListenerReceiver(print, token=TOKEN).handle(object())))  # type: ignore[arg-type]


class TestAdapters:
    """Whatever raises around or below an adapter, its own frames show nothing of the request."""

    headers = ((SIGNATURE_HEADER.encode(), SIGNATURE.encode()), (b"content-length", str(len(BODY)).encode()))

    @pytest.mark.parametrize("where", ["receive", "send", "receiver"])
    def test_asgi(self, where: str) -> None:
        async def receive() -> dict[str, Any]:
            if where == "receive":
                raise LookupError
            return {"type": "http.request", "body": BODY, "more_body": False}

        async def send(message: object) -> None:
            if where == "send":
                raise LookupError

        class Receiver:
            max_body = 10_000
            too_large: Any = None

            async def handle(self, request: Request) -> Response:
                if where == "receiver":
                    raise LookupError
                return Response(200)

        scope = {
            "type": "http",
            "method": "POST",
            "path": f"/{TOKEN}",
            "query_string": f"token={TOKEN}".encode(),
            "headers": self.headers,
        }
        error = raised(lambda: asyncio.run(awaited(ASGIApp(Receiver())(scope, receive, send))))
        assert isinstance(error, LookupError)
        assert_nothing_shown(error)

    @pytest.mark.parametrize("where", ["start_response", "input", "receiver"])
    def test_wsgi(self, where: str) -> None:
        def start_response(*_: object) -> None:
            if where == "start_response":
                raise LookupError

        class Input(io.BytesIO):
            def read(self, size: int | None = -1, /) -> bytes:
                if where == "input":
                    raise LookupError
                return super().read(size)

        class Receiver:
            max_body = 10_000
            too_large: Any = None

            def handle(self, request: Request) -> Response:
                if where == "receiver":
                    raise LookupError
                return Response(200)

        environ = {
            "REQUEST_METHOD": "POST",
            "PATH_INFO": f"/{TOKEN}",
            "QUERY_STRING": f"token={TOKEN}",
            "CONTENT_LENGTH": str(len(BODY)),
            "HTTP_OPTIMOVE_SIGNATURE_CONTENT": SIGNATURE,
            "wsgi.input": Input(BODY),
        }
        error = raised(lambda: WSGIApp(Receiver())(environ, start_response))
        assert isinstance(error, LookupError)
        assert_nothing_shown(error)

    def test_aws_lambda(self) -> None:
        class Receiver:
            max_body = 10_000
            too_large: Any = None

            def handle(self, request: Request) -> Response:
                raise LookupError

        event = {
            "httpMethod": "POST",
            "rawPath": f"/{TOKEN}",
            "rawQueryString": f"token={TOKEN}",
            "headers": {SIGNATURE_HEADER: SIGNATURE},
            "body": BODY.decode(),
        }
        assert_nothing_shown(raised(lambda: lambda_handler(Receiver())(event, None)))


async def awaited(result: Awaitable[object]) -> None:
    await result


@pytest.mark.parametrize("place", [{"token": TOKEN}, {"path": f"/events/{TOKEN}"}])
def test_an_event_whose_request_is_cancelled(place: dict[str, str]) -> None:
    over = threading.Event()

    async def go() -> BaseException:
        receiver = AsyncListenerReceiver(lambda _: over.wait(60), token=TOKEN, answer_within=30)
        try:
            async with asyncio.timeout(0.1):
                await receiver.handle(listener_request(EVENT, **place))
        except TimeoutError as error:
            return error
        finally:
            over.set()
        raise AssertionError("it was not cancelled")

    assert_nothing_shown(asyncio.run(go()))


# ---- the command


@pytest.fixture
def command(hushed: FakeOptimove, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[str]], object]]:
    """Run a command of `optimove-ce` in this process, so that what it raises can be walked."""

    def run(arguments: list[str]) -> object:
        with program.make_context("optimove-ce", arguments) as context:
            return program.invoke(context)

    with FaultServer(echoing(401), optimove=hushed) as server:
        monkeypatch.setenv("OPTIMOVE_API_KEY", KEY)
        monkeypatch.setenv("OPTIMOVE_BASE_URL", server.url)
        monkeypatch.setenv("OPTIMOVE_WEBHOOK_SECRET", NEXT_SECRET)
        monkeypatch.setenv("OPTIMOVE_LISTENER_TOKEN", TOKEN)
        # The command extends it; afterwards it shall be as it was.
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield run


@pytest.mark.parametrize(
    "arguments",
    [
        ["settings", "set", "--timeout-ms", "5000", "--new-secret"],
        ["webhooks", "list"],
        ["webhooks", "create", "https://gate.example/hook"],
        ["listeners", "register", "https://gate.example/campaigns"],
        ["doctor"],
        ["trigger", "http://127.0.0.1:1/hook", "--", "/no/such/program"],
        ["verify", "--signature", "0" * 64, __file__],
    ],
)
def test_commands(
    arguments: list[str], command: Callable[[list[str]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    error = raised(lambda: command(arguments))
    assert type(error).__name__ in {"_Refusal", "Exit"}
    assert_nothing_shown(error)
    said = capsys.readouterr()
    assert not any(hidden in said.out + said.err for hidden in HIDDEN)
