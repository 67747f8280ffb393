"""Liveness and readiness behind real servers: what supervisors see, and what they never see."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from optimove_conditional_execution import (
    AsyncHealth,
    AsyncListenerReceiver,
    ConfigurationError,
    Health,
    ListenerReceiver,
    Request,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.adapters.wsgi import WSGIApp
from optimove_conditional_execution.receivers import health as module
from optimove_conditional_execution.stores import MemoryClaims, SqliteClaims, SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove
from tests.adapters.test_listener_mounts import werkzeug
from tests.conftest import served


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers are not given twice, except where a test wants that."""
    monkeypatch.setattr(module, "_KEPT_SECONDS", 0.0)


class Client:
    """Makes an answer of either class, over a client of its kind."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.fake = FakeOptimove()
        self.client: Any = self.fake.client() if kind == "sync" else self.fake.async_client()

    def health(self, **options: Any) -> Any:
        made = Health if self.kind == "sync" else AsyncHealth
        return made(client=self.client, **options)

    def close(self) -> None:
        if self.kind == "sync":
            self.client.close()
        else:
            asyncio.run(self.client.aclose())


def answer(health: Any, path: str = "/readyz", method: str = "GET") -> tuple[int, Any]:
    answered = health.handle(Request(method, path))
    response = asyncio.run(awaited(answered)) if asyncio.iscoroutine(answered) else answered
    return response.status, httpx.Response(response.status, content=response.body)


async def awaited(coroutine: Any) -> Any:
    return await coroutine


@pytest.fixture(params=["sync", "async"])
def made(request: pytest.FixtureRequest) -> Client:
    return Client(request.param)


class OtherSteps:
    instant = False

    def acquire(self, *_: Any) -> Any:
        raise AssertionError("a probe changes nothing")

    renew = update = acquire


class Broken(OtherSteps):
    def release(self, question: str, owner: str, /) -> None:
        raise ConnectionError("redis://:hush@store")


class Hanging:
    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.calls = 0

    def unfinished(self) -> list[Any]:
        self.calls += 1
        self.go_on.wait(30)
        return []


class AsyncClaims(OtherSteps):
    async def release(self, question: str, owner: str, /) -> None:
        raise TimeoutError


def test_ready(made: Client, tmp_path: Path) -> None:
    with SqliteClaims(tmp_path / "claims.db") as claims, SqliteJournal(tmp_path / "journal.db") as journal:
        health = made.health(claims=claims, journal=journal)
        status, body = answer(health)
        expected = {"status": "ready", "client": "ready", "claims": "ready", "journal": "ready"}
        assert (status, body.json()) == (200, expected)
        assert not made.fake.calls, "Optimove is not asked"
        made.close()
        status, body = answer(health)
        assert (status, body.json()) == (503, expected | {"status": "not ready", "client": "closed"})
        assert answer(health, "/healthz")[0] == 200


def test_what_is_not_ready_is_named_without_its_words(made: Client) -> None:
    hanging = Hanging()
    health = made.health(claims=Broken(), journal=hanging, timeout=0.3)
    begun = time.monotonic()
    status, body = answer(health)
    assert time.monotonic() - begun < 10
    expected = {"status": "not ready", "client": "ready", "claims": "ConnectionError", "journal": "no answer in time"}
    assert (status, body.json()) == (503, expected)
    assert answer(health, "/healthz")[0] == 200
    hanging.go_on.set()


def test_probes_do_not_pile_up_behind_a_store_that_hangs(made: Client) -> None:
    hanging = Hanging()
    health = made.health(journal=hanging, timeout=0.2)
    found: list[str] = []
    while found[-2:] != ["earlier checks hang"] * 2:
        found.append(answer(health)[1].json()["journal"])
        assert len(found) < 40, found  # a check that had no thread yet when time was up frees its place
    assert hanging.calls == 4
    hanging.go_on.set()


def test_many_probes_cause_few_calls(made: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_SECONDS", 60.0)
    counting = Hanging()
    counting.go_on.set()
    health = made.health(journal=counting)
    assert [answer(health)[0] for _ in range(10)] == [200] * 10
    assert counting.calls == 1


def test_a_store_with_coroutine_functions() -> None:
    claims: Any = AsyncClaims()
    status, body = answer(Client("async").health(claims=claims))
    assert (status, body.json()["claims"]) == (503, "TimeoutError")
    with pytest.raises(ConfigurationError, match="AsyncHealth"):
        Client("sync").health(claims=claims)


def test_a_store_with_a_flavour_for_event_loops() -> None:
    class Both(OtherSteps):
        asynchronous = AsyncClaims()

        def release(self, question: str, owner: str, /) -> None: ...

    both: Any = Both()
    assert answer(Client("async").health(claims=both))[1].json()["claims"] == "TimeoutError"
    assert answer(Client("sync").health(claims=both))[1].json()["claims"] == "ready"


def test_what_is_no_store(made: Client) -> None:
    wrong: Any
    for wrong in (MemoryClaims, object(), "claims.db"):
        with pytest.raises(ConfigurationError, match="claims must be a ClaimStore"):
            made.health(claims=wrong)


def test_paths_and_methods(made: Client) -> None:
    health = made.health(live="/live", ready="/ready")
    assert [answer(health, path)[0] for path in ("/live", "/ready", "/healthz", "/")] == [200, 200, 404, 404]
    assert [answer(health, "/ready", method)[0] for method in ("HEAD", "POST", "PUT")] == [200, 405, 405]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"live": "healthz"}, "live"),
        ({"ready": None}, "ready"),
        ({"live": "/x", "ready": "/x"}, "two paths"),
        ({"timeout": 0}, "timeout"),
        ({"client": None}, "client"),
    ],
)
def test_settings_that_make_no_sense(options: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Health(**{"client": FakeOptimove().client(), **options})


def test_an_adapter_takes_its_own_kind() -> None:
    sync: Any = Health(client=FakeOptimove().client())
    twin: Any = AsyncHealth(client=FakeOptimove().async_client())
    with pytest.raises(ConfigurationError, match="AsyncHealth"):
        ASGIApp(AsyncListenerReceiver(print, token="t"), health=sync)
    with pytest.raises(ConfigurationError, match="Health"):
        WSGIApp(ListenerReceiver(print, token="t"), health=twin)


# ---- behind servers


@contextlib.contextmanager
def mounted(made: Client, health: Any) -> Iterator[str]:
    """Serve a listener and its health, with uvicorn or werkzeug's server."""
    if made.kind == "async":
        with served(ASGIApp(AsyncListenerReceiver(print, token="t"), health=health)) as url:
            yield url
        return

    with werkzeug(WSGIApp(ListenerReceiver(print, token="t"), health=health)) as url:
        yield url.removesuffix("/listener")


def test_behind_a_server(made: Client) -> None:
    broken = Broken()
    with mounted(made, made.health(claims=broken, live="/live", ready="/ready")) as url, httpx.Client() as probe:
        live = probe.get(f"{url}/live")
        assert (live.status_code, live.json()) == (200, {"status": "live"})
        ready = probe.get(f"{url}/ready?x=1")
        assert (ready.status_code, ready.json()["claims"]) == (503, "ConnectionError")
        assert ready.headers["cache-control"] == "no-store"
        assert "hush" not in ready.text
        head = probe.head(f"{url}/ready")
        assert (head.status_code, head.content) == (503, b"")
        assert probe.post(f"{url}/ready", content=b"x").status_code == 405
        assert probe.get(f"{url}/healthz").status_code == 405, "all else is the receiver's"
        assert probe.post(f"{url}/listener?token=no").status_code == 401
