"""Why there was no answer, as `TransportError.cause` says it over every engine."""

from __future__ import annotations

import asyncio
import datetime as dt
import http.server
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import aiohttp
import httpx
import pytest
import trustme
from pydantic import Secret

from optimove_conditional_execution import AsyncOptimoveClient, Deadline, OptimoveClient, RetryPolicy, TransportError
from optimove_conditional_execution.testing import FaultServer, faults
from optimove_conditional_execution.transport.aiohttp_engine import _AiohttpErrors, _Body
from optimove_conditional_execution.transport.engine import OutgoingRequest

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


def failure(engine: str, url: str, **options: Any) -> TransportError:
    """Return what a call to a URL raises."""
    given: dict[str, Any] = {"base_url": url, "timeout": 10, "retry": RetryPolicy(attempts=1), **options}
    if engine == "sync":
        with OptimoveClient("key", **given) as client, pytest.raises(TransportError) as caught:
            client.create_webhook("https://gate.example/")
        return caught.value

    async def go() -> TransportError:
        async with AsyncOptimoveClient("key", engine=engine, **given) as client:  # type: ignore[arg-type]
            with pytest.raises(TransportError) as caught:
                await client.create_webhook("https://gate.example/")
        return caught.value

    return asyncio.run(go())


@pytest.fixture(params=["sync", "httpx", "aiohttp"])
def engine(request: pytest.FixtureRequest) -> str:
    """An engine of each kind."""
    name: str = request.param
    return name


@pytest.fixture
def closed_url() -> Iterator[str]:
    """Where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


Serve = Callable[[trustme.LeafCert], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a TLS server with a certificate, and return its URL."""
    servers: list[http.server.HTTPServer] = []

    def start(certificate: trustme.LeafCert) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"https://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("names", "dates", "trusted", "reason"),
    [
        (["127.0.0.1"], {}, False, "unknown-issuer"),
        (["other.test"], {}, True, "other-host"),
        (["127.0.0.1"], {"not_before": NOW - 3 * DAY, "not_after": NOW - DAY}, True, "expired"),
        (["127.0.0.1"], {"not_before": NOW + DAY, "not_after": NOW + 3 * DAY}, True, "not-yet-valid"),
    ],
)
def test_certificates(
    engine: str,
    serve: Serve,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: list[str],
    dates: dict[str, Any],
    trusted: bool,
    reason: str,
) -> None:
    if trusted and engine == "aiohttp":
        engine = "httpx2"  # aiohttp reads SSL_CERT_FILE once, when it is imported
    authority = trustme.CA()
    if trusted:
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    else:
        monkeypatch.delenv("SSL_CERT_FILE")  # then it is the library's own list
    error = failure(engine, serve(authority.issue_cert(*names, **dates)))
    assert (error.cause, error.reason, error.request_sent) == ("tls", reason, False)
    assert error.detail


def test_no_tls(engine: str) -> None:
    with FaultServer() as server:
        error = failure(engine, server.https_url)
    assert (error.cause, error.request_sent) == ("tls", False)
    assert error.reason == "not-tls"


def test_nothing_listens(engine: str, closed_url: str) -> None:
    error = failure(engine, closed_url)
    assert (error.cause, error.detail, error.request_sent) == ("refused", "connection refused", False)


@pytest.mark.parametrize(("number", "reason"), [(socket.EAI_NONAME, ""), (socket.EAI_AGAIN, "temporary")])
def test_a_name_that_is_not_known(engine: str, number: int, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*given: Any, **options: Any) -> Any:
        raise socket.gaierror(number, "words of the system")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure(engine, "http://nowhere.invalid")
    assert (error.cause, error.reason, error.detail) == ("dns", reason, "words of the system")


def test_a_proxy_that_is_not_there(engine: str, closed_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", closed_url)
    monkeypatch.setenv("no_proxy", "")
    error = failure(engine, "http://optimove.invalid")
    assert (error.cause, error.reason, error.request_sent) == ("proxy", "", False)


@pytest.mark.parametrize(
    ("fault", "cause"),
    [(faults.HANG, "timeout"), (faults.CLOSE_WITHOUT_ANSWER, "broken"), (faults.GARBAGE, "broken")],
    ids=lambda value: getattr(value, "name", value),
)
def test_no_answer(engine: str, fault: Any, cause: str) -> None:
    with FaultServer([fault]) as server:
        error = failure(engine, server.url, retry=RetryPolicy(attempts=1, attempt_timeout=0.3))
    assert (error.cause, error.reason, error.request_sent) == (cause, "", True)


def test_a_body_is_sent_when_the_connection_has_taken_it() -> None:
    async def go() -> None:
        taken = asyncio.Event()

        class Full:
            async def write(self, data: bytes) -> None:
                await taken.wait()

        request = OutgoingRequest("POST", "http://optimove.invalid/", Secret({}), b"{}", Deadline.after(9), 9)
        errors, full = _AiohttpErrors(request), cast("Any", Full())
        seen: list[bool | None] = [errors.sent]
        body = _Body(b"{}", errors)
        has_length = hasattr(aiohttp.BytesPayload, "write_with_length")
        writing = asyncio.ensure_future(body.write_with_length(full, 2) if has_length else body.write(full))
        await asyncio.sleep(0)
        seen.append(errors.sent)
        taken.set()
        await writing
        assert [*seen, errors.sent] == [False, None, True]

    asyncio.run(go())


def test_a_hook_that_raises() -> None:
    def fails(request: httpx.Request) -> None:
        raise LookupError("personal data")

    with httpx.Client(event_hooks={"request": [fails]}) as own:
        error = failure("sync", "http://127.0.0.1:9", http_client=own)
    assert (error.cause, error.detail) == ("other", "")
    assert "personal data" not in str(error)


def test_what_the_caller_was_handling_is_no_cause(engine: str) -> None:
    with FaultServer([faults.CLOSE_WITHOUT_ANSWER]) as server:
        try:
            raise ConnectionRefusedError("the caller's own database")
        except ConnectionRefusedError:
            assert failure(engine, server.url).cause == "broken"
