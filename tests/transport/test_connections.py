"""Connections that died without a word, addresses that swallow packets, name look-ups that hang."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import pytest

from optimove_conditional_execution import (
    Approval,
    AsyncOptimoveClient,
    Deadline,
    DeadlineExceeded,
    OptimoveClient,
    RateLimit,
    RetryPolicy,
    Webhook,
    operations,
)
from optimove_conditional_execution.testing import Fault, FaultServer, faults
from optimove_conditional_execution.transport.addresses import Addresses
from optimove_conditional_execution.transport.connection_pool import MAX_CONNECTIONS
from optimove_conditional_execution.transport.retry import first_try_timeout
from tests.transport.engines import FEW, Caller

APPROVAL = Approval(timestamp=1, request_uid="u", approved=True)
WEBHOOK = "https://gate.example/optimove"
KEPT = 4


@pytest.fixture(params=FEW)
def caller(request: pytest.FixtureRequest) -> Caller:
    """An engine of each kind, since a connection that has died costs seconds."""
    return Caller(request.param)


@pytest.fixture(params=["httpx", "httpx2", "aiohttp"])
def engine(request: pytest.FixtureRequest) -> Any:
    """Every library for asyncio."""
    return request.param


class Server:
    """Answers on connections until they are dead: from then on it takes what comes on them, and says nothing."""

    def __init__(self, *, pause: float = 0.0) -> None:
        self.requests: list[str] = []
        self.connections = 0
        self._pause = pause
        self._dead_up_to = 0
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def kill_connections(self) -> None:
        self._dead_up_to = self.connections

    def client(self, **options: Any) -> OptimoveClient:
        return OptimoveClient("key", **{"base_url": self.url, "timezone": "UTC", **options})

    def async_client(self, **options: Any) -> AsyncOptimoveClient:
        return AsyncOptimoveClient("key", **{"base_url": self.url, "timezone": "UTC", **options})

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._socket, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, ValueError), connection.makefile("rb") as stream:
            while line := stream.readline():
                length = 0
                while header := stream.readline().strip():
                    if header.lower().startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                stream.read(length)
                target = line.decode().split(" ")[1]
                self.requests.append(target)
                time.sleep(self._pause)
                if number > self._dead_up_to:
                    body = self._body(target)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def _body(self, target: str) -> bytes:
        if target.endswith("webhooks/"):
            return json.dumps({"id": "1", "url": WEBHOOK}).encode()
        if "GetProcessed" in target:
            return json.dumps([{"CustomerID": f"C{len(self.requests)}"}] if len(self.requests) < 4 else []).encode()
        return b"[]"


def approve(client: Any) -> Any:
    return client.send_webhook_approval(APPROVAL, deadline=Deadline.after(2.5))


def at_once(client: Any) -> Any:
    """Open some connections, and keep them."""
    if isinstance(client, OptimoveClient):
        with ThreadPoolExecutor(KEPT) as pool:
            return list(pool.map(lambda _: approve(client), range(KEPT)))

    async def go() -> Any:
        return await asyncio.gather(*(approve(client) for _ in range(KEPT)))

    return go()


def killing(server: Server, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def killed(client: Any) -> Any:
        server.kill_connections()
        return call(client)

    return killed


# ---- kept connections


def test_an_approval_goes_out_though_every_kept_connection_has_died(caller: Caller) -> None:
    with Server(pause=0.2) as server:
        opened, lost = caller.call(server, at_once, killing(server, approve))  # type: ignore[arg-type]
        assert opened == [None] * KEPT
        assert lost is None
        assert server.connections == KEPT + 1
        assert len(server.requests) == KEPT + 2


def test_a_call_with_the_default_timeout_leaves_time_for_another_try(caller: Caller) -> None:
    with FaultServer([None, faults.HANG]) as server:
        results = caller.call(server, *[lambda client: client.get_webhooks()] * 2, timeout=2)
        assert results == [[], []]
        assert [met.fault for met in server.met] == [None, "hang", None]


def test_what_cannot_be_repeated_takes_a_new_connection(caller: Caller) -> None:
    with Server() as server:
        create = killing(server, lambda client: client.create_webhook(WEBHOOK))
        _, webhook = caller.call(server, approve, create, timeout=5)  # type: ignore[arg-type]
        assert isinstance(webhook, Webhook)
        assert server.requests[1:] == ["/conditional-execution/v2/triggered/webhooks/"]
        assert server.connections == 2


def test_statuses_take_a_new_connection_since_a_try_may_need_all_the_time(caller: Caller) -> None:
    with Server() as server:

        def tell(client: Any) -> Any:
            return client.update_customer_promotion_status(1, {"C1": True}, deadline=Deadline.after(5))

        _, told = caller.call(server, approve, killing(server, tell))  # type: ignore[arg-type]
        assert told == 1
        assert len(server.requests) == 2


def test_a_page_is_asked_for_again_when_its_connection_has_died(caller: Caller) -> None:
    with Server() as server:

        def read(client: Any) -> Any:
            rows = client.get_processed_campaign_customers(1)
            if isinstance(client, OptimoveClient):
                found = []
                for row in rows:
                    found.append(row.customer_id)
                    server.kill_connections()
                return found

            async def go() -> Any:
                found = []
                async for row in rows:
                    found.append(row.customer_id)
                    server.kill_connections()
                return found

            return go()

        (found,) = caller.call(server, read, timeout=2.0, rate_limit=RateLimit(100, per=1))  # type: ignore[arg-type]
        assert found == ["C1", "C3"]


def test_a_first_try_that_is_short_does_not_shorten_the_waits_for_bytes(caller: Caller) -> None:
    """The head of a page comes at once, its rows after more than half of `timeout`."""
    with slow_rows(1.3) as server:

        def read(client: Any) -> Any:
            rows = client.get_processed_campaign_customers(1, page_size=None)
            if isinstance(client, OptimoveClient):
                return [row.customer_id for row in rows]

            async def go() -> Any:
                return [row.customer_id async for row in rows]

            return go()

        assert caller.call(server, read, timeout=2.0) == [["C1"]]
        assert len(server.met) == 1


@contextlib.contextmanager
def slow_rows(seconds: float) -> Iterator[FaultServer]:
    async def play(line: faults.Connection) -> None:
        body = b'[{"CustomerID": "C1"}]'
        await line.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n[" % len(body))
        await asyncio.sleep(seconds)
        await line.send(body[1:])

    with FaultServer([Fault("slow_rows", play)]) as server:
        yield server


@pytest.mark.parametrize(
    ("left", "expected"), [(30.0, 10.0), (4.0, 4 / 3), (1.0, 0.5), (0.3, 0.5)], ids=lambda value: f"{value:.3g}"
)
def test_the_first_try_takes_a_third_and_not_less_than_half_a_second(left: float, expected: float) -> None:
    deadline = Deadline.after(left, clock=lambda: 0.0)
    assert first_try_timeout(operations.get_webhooks(), RetryPolicy(), deadline) == pytest.approx(expected)


def test_a_first_try_that_nothing_can_follow_takes_all_the_time() -> None:
    deadline = Deadline.after(4)
    assert first_try_timeout(operations.get_webhooks(), RetryPolicy(attempts=1), deadline) == float("inf")
    assert first_try_timeout(operations.create_webhook(WEBHOOK), RetryPolicy(), deadline) == float("inf")


# ---- addresses


@pytest.fixture
def dead_first(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose name has two addresses, of which the first swallows packets."""
    with Server() as server, contextlib.ExitStack() as stack:
        port = int(server.url.rpartition(":")[2])
        hole = stack.enter_context(socket.socket())
        hole.bind(("127.0.0.2", port))
        hole.listen(0)
        for _ in range(4):  # its queue is full: further connections get no answer
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.2", port))
        resolve(monkeypatch, lambda: ["127.0.0.2", "127.0.0.1"])
        yield server


def resolve(monkeypatch: pytest.MonkeyPatch, found: Callable[[], list[str]]) -> None:
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *given: Any, **options: Any) -> Any:
        if host not in ("optimove.invalid", b"optimove.invalid"):
            return real(host, port, *given, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in found()]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def by_name(server: Server) -> str:
    return server.url.replace("127.0.0.1", "optimove.invalid")


def test_an_address_that_swallows_packets_does_not_hold_the_others(caller: Caller, dead_first: Server) -> None:
    (result,) = caller.call(dead_first, approve, base_url=by_name(dead_first))  # type: ignore[arg-type]
    assert result is None
    assert len(dead_first.requests) == 1


class Connection:
    """What `connect` returns."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.is_closed = threading.Event()

    def close(self) -> None:
        self.is_closed.set()

    async def aclose(self) -> None:
        self.is_closed.set()


def test_the_address_that_was_good_is_tried_first(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, lambda: ["192.0.2.1", "192.0.2.2", "192.0.2.3"])
    tried: list[str] = []

    def connect(address: str) -> Connection:
        tried.append(address)
        if address != "192.0.2.3":
            raise ConnectionRefusedError
        return Connection(address)

    addresses = Addresses()
    for _ in range(2):
        assert addresses.connect("optimove.invalid", 1, connect, lambda seconds: seconds).address == "192.0.2.3"
    assert tried == ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.3"]


def test_a_burst_finds_the_address_that_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many attempts hang at the first one."""
    resolve(monkeypatch, lambda: ["192.0.2.1", "192.0.2.2"])
    hanging, all_hang, go_on = threading.Semaphore(0), threading.Event(), threading.Event()

    def connect(address: str) -> Connection:
        if address == "192.0.2.1":
            hanging.release()
            go_on.wait(60)
        all_hang.wait(60)  # until then no call learns which address is good
        return Connection(address)

    addresses = Addresses()

    def find(_: int) -> str:
        return addresses.connect("optimove.invalid", 1, connect, lambda seconds: seconds).address

    with ThreadPoolExecutor(MAX_CONNECTIONS) as callers:
        found = [callers.submit(find, number) for number in range(MAX_CONNECTIONS)]
        try:
            assert all(hanging.acquire(timeout=30) for _ in found)
            all_hang.set()
            assert {each.result(30) for each in found} == {"192.0.2.2"}
        finally:
            all_hang.set()
            go_on.set()


def test_a_connection_that_comes_about_too_late_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, lambda: ["192.0.2.1", "192.0.2.2"])
    go_on = threading.Event()
    late = Connection("192.0.2.1")

    def connect(address: str) -> Connection:
        if address == "192.0.2.1":
            go_on.wait(60)
            return late
        return Connection(address)

    assert Addresses().connect("optimove.invalid", 1, connect, lambda seconds: seconds).address == "192.0.2.2"
    assert not late.is_closed.is_set()
    go_on.set()
    assert late.is_closed.wait(60)


def test_when_no_address_is_good_the_error_is_that_of_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, lambda: ["192.0.2.1", "192.0.2.2"])

    def connect(address: str) -> Connection:
        raise ConnectionRefusedError(address)

    async def aconnect(address: str) -> Connection:
        return connect(address)

    with pytest.raises(ConnectionRefusedError, match=r"192\.0\.2\.2"):
        Addresses().connect("optimove.invalid", 1, connect, lambda seconds: seconds)
    with pytest.raises(ConnectionRefusedError, match=r"192\.0\.2\.2"):
        asyncio.run(Addresses().aconnect("optimove.invalid", 1, aconnect))


# ---- look-ups


def test_a_lookup_that_hangs_does_not_hold_the_end_of_an_event_loop(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = threading.Event()

    def found() -> list[str]:
        released.wait(60)
        return []

    resolve(monkeypatch, found)

    async def go() -> None:
        async with AsyncOptimoveClient("key", base_url="http://optimove.invalid", engine=engine) as client:
            with pytest.raises(DeadlineExceeded):
                await client.send(operations.get_webhooks(), deadline=Deadline.after(0.5))

    begun = time.monotonic()
    asyncio.run(go())
    took = time.monotonic() - begun
    released.set()
    assert took < 30


def test_a_lookup_that_hangs_does_not_hold_other_calls(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    lookups: list[int] = []

    def found() -> list[str]:
        lookups.append(1)
        if len(lookups) == 1:
            released.wait(60)
        return ["127.0.0.1"]

    async def go(server: Server) -> Any:
        async with server.async_client(base_url=by_name(server), engine=engine) as client:
            hung = asyncio.create_task(client.get_webhooks())
            while not lookups:
                await asyncio.sleep(0.01)
            begun = time.monotonic()
            assert await client.get_webhooks() == []
            took = time.monotonic() - begun
            hung.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await hung
            return took

    resolve(monkeypatch, found)
    with Server() as server:
        took = asyncio.run(go(server))
    released.set()
    assert took < 30


@pytest.mark.parametrize("kind", [OptimoveClient, AsyncOptimoveClient])
def test_a_client_that_is_pickled_says_why_not(kind: Any) -> None:
    client = kind("the-key", base_url="https://optimove.test")
    with pytest.raises(TypeError, match=r"holds connections.*Make one in each process") as caught:
        pickle.dumps(client)
    assert "the-key" not in str(caught.value)


async def acknowledge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request with 200, over one connection after the other."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@pytest.mark.parametrize("engine", ["httpx", "httpx2", "aiohttp"])
@pytest.mark.parametrize("is_warm", [False, True])
def test_a_call_that_is_cancelled_at_any_moment_costs_no_later_one(engine: Any, is_warm: bool) -> None:
    approval, once = operations.send_webhook_approval(APPROVAL), RetryPolicy(attempts=1)

    async def run() -> None:
        connections = set[asyncio.Task[None]]()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.add(asyncio.ensure_future(acknowledge(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        moments = range(1, 21)
        for of_one_client in [moments] if is_warm else [[turns] for turns in moments]:
            async with AsyncOptimoveClient("a-key", base_url=url, engine=engine, retry=once) as client:
                if is_warm:
                    await client.send(approval)
                for turns in of_one_client:
                    sending = asyncio.ensure_future(client.send(approval))
                    for _ in range(turns):
                        await asyncio.sleep(0)
                    sending.cancel()
                    await asyncio.wait([sending])
                    await client.send(approval, deadline=Deadline.after(20))
        await asyncio.wait(connections, timeout=60)
        server.close()

    asyncio.run(run())
