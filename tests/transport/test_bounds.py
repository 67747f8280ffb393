"""Places, pacing, name lookups, engines that are not there."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import httpx2
import pytest

from optimove_conditional_execution import (
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    ConfigurationError,
    Deadline,
    DeadlineExceeded,
    OptimoveClient,
    OptimoveError,
    RateLimit,
    RetryPolicy,
    TransportError,
    WebhookNotification,
    WebhookReceiver,
    operations,
)
from optimove_conditional_execution.testing import FaultServer, faults, signed_request
from optimove_conditional_execution.testing import notification as make_notification
from optimove_conditional_execution.transport.addresses import Addresses
from optimove_conditional_execution.transport.connection_pool import MAX_CONNECTIONS, ConnectionPool
from optimove_conditional_execution.transport.http.httpx_deadline import install_deadlines, remove_deadlines
from optimove_conditional_execution.transport.rate_limit import AdaptiveThrottle, RateLimiter
from optimove_conditional_execution.transport.waiting import ThreadAlarm, run_blocking
from tests.conftest import child_status, forked, forked_untold

OPTIONS: dict[str, Any] = {"base_url": "http://optimove.invalid", "retry": RetryPolicy(attempts=1)}


# ---- three hundred at once


@pytest.mark.parametrize("engine", ["httpx", "httpx2", "aiohttp"])
def test_three_hundred_notifications_at_once_are_all_acknowledged(engine: Any) -> None:
    async def yes(notification: WebhookNotification, deadline: Deadline) -> bool:
        return True

    async def go(server: FaultServer) -> list[int]:
        async with server.async_client(engine=engine) as client:
            receiver = AsyncWebhookReceiver(yes, client=client, secrets="fake-secret", max_concurrency=300)
            return [answer.status for answer in await asyncio.gather(*map(receiver.handle, questions(server, 300)))]

    with FaultServer() as server:
        assert asyncio.run(go(server)) == [200] * 300
        assert sum(question.approved for question in server.optimove.notifications.values()) == 300
        assert len(server.optimove.calls_of("send_webhook_approval")) == 300
        assert server.connections <= MAX_CONNECTIONS


@pytest.mark.parametrize("engine", ["httpx", "aiohttp"])
def test_three_hundred_in_threads(engine: Any) -> None:
    statuses: list[int] = []
    with FaultServer() as server, server.client(engine=engine) as client:
        receiver = WebhookReceiver(
            lambda notification, deadline: True, client=client, secrets="fake-secret", max_concurrency=300
        )
        requests = questions(server, 300)
        threads = [
            threading.Thread(target=lambda request=request: statuses.append(receiver.handle(request).status))
            for request in requests
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert statuses == [200] * 300
    assert server.connections <= MAX_CONNECTIONS


def questions(server: FaultServer, count: int) -> list[Any]:
    asked = [make_notification(timeout_ms=60_000) for _ in range(count)]
    for payload in asked:
        server.optimove.expect(payload)
    return [signed_request(payload, secret="fake-secret") for payload in asked]


# ---- places


def test_places_go_to_those_who_came_first() -> None:
    pool = ConnectionPool(1, object)
    held = pool.acquire(Deadline.after(1))
    order: list[int] = []

    def wait(number: int) -> None:
        client = pool.acquire(Deadline.after(60))
        order.append(number)
        pool.release(client)

    threads = []
    for number in range(5):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        while len(pool._waiters) < number + 1:
            time.sleep(0.001)
    pool.release(held)
    for thread in threads:
        thread.join(60)
    assert order == [0, 1, 2, 3, 4]
    assert len(pool.clients()) == 1


def test_the_client_that_was_used_last_is_used_next() -> None:
    pool = ConnectionPool(3, object)
    first, second = pool.acquire(Deadline.after(1)), pool.acquire(Deadline.after(1))
    pool.release(first)
    pool.release(second)
    assert pool.acquire(Deadline.after(1)) is second


def test_a_place_that_comes_while_its_task_is_cancelled_is_not_lost() -> None:
    async def go() -> None:
        pool = ConnectionPool(1, object)
        held = await pool.aacquire(Deadline.after(1))
        waiting = asyncio.ensure_future(pool.aacquire(Deadline.after(10)))
        await asyncio.sleep(0)
        pool.release(held)  # is given to the one who waits,
        waiting.cancel()  # who gives up in the same moment
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert await pool.aacquire(Deadline.after(1)) is held

    asyncio.run(go())


def test_a_client_that_cannot_be_made_takes_no_place() -> None:
    made = iter([None, object()])

    def make() -> object:
        client = next(made)
        if client is None:
            raise LookupError
        return client

    pool = ConnectionPool(1, make)
    with pytest.raises(LookupError):
        pool.acquire(Deadline.after(1))
    assert pool.acquire(Deadline.after(1)) is not None


# ---- pacing


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_nobody_sends_before_the_moment_that_the_server_named() -> None:
    clock = Clock()
    throttle = AdaptiveThrottle(clock=clock)
    sent_at = run_blocking(throttle.acquire(Deadline.after(100), ThreadAlarm))
    assert sent_at == clock.now
    throttle.on_rate_limited(sent_at, 50.0)
    with pytest.raises(DeadlineExceeded, match="429") as caught:
        run_blocking(throttle.acquire(Deadline.after(49), ThreadAlarm))
    assert caught.value.request_sent is False
    clock.now += 50
    assert run_blocking(throttle.acquire(Deadline.after(1), ThreadAlarm)) == clock.now


def test_those_who_were_under_way_tell_nothing_new() -> None:
    clock = Clock()
    throttle = AdaptiveThrottle(clock=clock)
    sent_at = run_blocking(throttle.acquire(Deadline.after(100), ThreadAlarm))
    clock.now += 1
    for _ in range(100):
        throttle.on_rate_limited(sent_at, None)
    clock.now += 0.2  # the first guess, whatever the others said
    assert run_blocking(throttle.acquire(Deadline.after(0.05), ThreadAlarm)) == clock.now


def test_after_half_a_minute_everything_is_forgotten() -> None:
    clock = Clock()
    throttle = AdaptiveThrottle(clock=clock)
    for _ in range(5):
        throttle.on_success()
    throttle.on_rate_limited(run_blocking(throttle.acquire(Deadline.after(100), ThreadAlarm)), 1.0)
    clock.now += 31.1
    for _ in range(1_000):
        assert run_blocking(throttle.acquire(Deadline.after(0.01), ThreadAlarm)) == clock.now


# ---- names


@pytest.fixture
def slow_names(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A resolver that takes its time; the event ends it."""
    real, over = socket.getaddrinfo, threading.Event()

    def slow(host: Any, *given: Any, **more: Any) -> Any:
        if host == "optimove.invalid":
            over.wait(60)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    return over


@pytest.mark.parametrize("engine", ["httpx", "httpx2"])
def test_a_slow_name_lookup_does_not_hold_a_call(engine: Any, slow_names: threading.Event) -> None:
    with OptimoveClient("key", engine=engine, **OPTIONS) as client:
        begun = time.perf_counter()
        with pytest.raises(DeadlineExceeded) as caught:
            client.send(operations.get_webhooks(), deadline=Deadline.after(0.3))
        assert time.perf_counter() - begun < 15  # of the minute that the look-up takes
        slow_names.set()
        assert caught.value.request_sent is False


def test_a_name_that_is_not_there_is_told(slow_names: threading.Event) -> None:
    threading.Timer(1.0, slow_names.set).start()
    with OptimoveClient("key", **OPTIONS) as client, pytest.raises(TransportError, match="Name or service") as caught:
        client.get_webhooks()
    assert caught.value.request_sent is False
    assert "OPTIMOVE_BASE_URL" in str(caught.value)


def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def two(host: Any, port: Any, *given: Any, **more: Any) -> Any:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]

    with FaultServer() as server:
        port = server.url.rpartition(":")[2]
        with server.client(base_url=f"http://optimove.invalid:{port}") as client, monkeypatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", two)
            assert client.get_webhooks() == []


# ---- engines


@pytest.mark.parametrize("engine", ["httpx", "httpx2", "aiohttp"])
def test_a_call_that_is_cancelled_in_a_handshake_leaves_no_connection_open(engine: Any) -> None:
    async def main() -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            began.set()
            await reader.read()  # until the client closes the connection
            ended.set()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, AsyncOptimoveClient("key", base_url=url, engine=engine) as client:
            call = asyncio.create_task(client.get_webhooks())
            await asyncio.wait_for(began.wait(), 30)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await asyncio.wait_for(ended.wait(), 30)

    gc.disable()  # which would close it in the end
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def backends(client: Any) -> list[Any]:
    """Return what opens a client's connections, where httpx 0.28 and httpx2 keep it to themselves."""
    transports = [client._transport, *client._mounts.values()]
    return [transport._pool._network_backend for transport in transports if transport is not None]


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
@pytest.mark.parametrize("module", [httpx, httpx2])
def test_the_deadlines_find_their_place(module: Any, kind: str) -> None:
    """A version of these libraries that keeps it elsewhere must not go unnoticed."""
    for options in ({}, {"proxy": "http://127.0.0.1:1"}):
        client = getattr(module, kind)(**options)
        before = backends(client)
        assert before
        assert install_deadlines(client, Addresses())
        bounded = backends(client)
        assert not set(map(id, before)) & set(map(id, bounded))
        assert install_deadlines(client, Addresses())
        assert backends(client) == bounded, "twice is once"
        remove_deadlines(client)
        assert backends(client) == bounded, "the other one still needs them"
        remove_deadlines(client)
        assert backends(client) == before
    own = getattr(module, kind)(transport=module.MockTransport(lambda request: module.Response(200)))
    assert not install_deadlines(own, Addresses())
    remove_deadlines(own)


def test_a_client_of_yours_is_as_it_was_when_ours_is_closed() -> None:
    with FaultServer() as server, httpx.Client() as own:
        before = backends(own)
        first, second = server.client(http_client=own), server.client(http_client=own)
        assert first.get_webhooks() == []
        assert backends(own) != before
        first.close()
        first.close()
        with pytest.raises(ConfigurationError, match="closed"):
            first.get_webhooks()
        assert second.get_webhooks() == []
        assert backends(own) != before
        second.close()
        assert backends(own) == before
        assert own.get(server.url).status_code == 401
        with server.client(http_client=own) as third:
            assert third.get_webhooks() == []


def test_an_async_client_of_yours_is_as_it_was_when_ours_is_closed() -> None:
    async def go(server: FaultServer) -> None:
        async with httpx.AsyncClient() as own:
            before = backends(own)
            async with server.async_client(http_client=own) as first, server.async_client(http_client=own) as second:
                assert await first.get_webhooks() == await second.get_webhooks() == []
                await first.aclose()
                assert backends(own) != before
            assert backends(own) == before
            assert (await own.get(server.url)).status_code == 401
            with pytest.raises(ConfigurationError, match="closed"):
                await first.get_webhooks()

    with FaultServer() as server:
        asyncio.run(go(server))


@pytest.mark.parametrize("engine", ["httpx2", "aiohttp"])
def test_an_engine_that_is_not_installed_is_named_with_its_extra(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, engine, None)
    monkeypatch.delitem(sys.modules, "optimove_conditional_execution.transport.aiohttp_engine", raising=False)
    with pytest.raises(ConfigurationError, match=rf"pip install 'optimove-conditional-execution\[{engine}\]"):
        AsyncOptimoveClient("key", engine=engine, **OPTIONS)


def test_engines_that_make_no_sense() -> None:
    with pytest.raises(ConfigurationError, match="engine must be one of"):
        OptimoveClient("key", engine="curl", **OPTIONS)  # type: ignore[arg-type]
    with httpx.Client() as own, pytest.raises(ConfigurationError, match="not both"):
        OptimoveClient("key", engine="httpx2", http_client=own, **OPTIONS)
    for many in (0, True, 1.5):
        with pytest.raises(ConfigurationError, match="max_connections"):
            OptimoveClient("key", max_connections=many, **OPTIONS)  # type: ignore[arg-type]


def test_a_client_that_is_closed_ends_its_thread_and_its_calls() -> None:
    with FaultServer(lambda _: faults.HANG) as server:
        client = server.client(engine="aiohttp")
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(client.get_webhooks) for _ in range(2)]
            while server.connections < 2:
                time.sleep(0.01)
            client.close()
            for call in calls:
                assert isinstance(call.exception(60), OptimoveError)
        with pytest.raises(ConfigurationError, match="closed"):
            client.get_webhooks()
    assert not in_time(loop_threads)


@pytest.mark.parametrize("first", [None, faults.CLOSE_WITHOUT_ANSWER], ids=["shared", "of its own"])
def test_a_client_that_is_closed_closes_its_streams(first: Any) -> None:
    """Also one whose connection is its own, since a try before it was lost."""
    with FaultServer([first, *[faults.drip_body(0.05)] * 2]) as server:
        client = server.client(engine="aiohttp")
        if first is None:
            client.get_webhooks()
        opening = client._sender.open_stream(operations.get_processed_campaign_customers(7), None)
        stream = run_blocking(opening)
        assert run_blocking(stream.read())
        with warnings.catch_warnings(record=True) as unclosed:
            warnings.simplefilter("always")
            client.close()
            run_blocking(stream.aclose())
            del stream, client, opening
            gc.collect()
        assert [str(warning.message) for warning in unclosed] == []


def test_a_client_that_is_dropped_ends_its_thread() -> None:
    with FaultServer() as server:
        client: Any = server.client(engine="aiohttp")
        assert client.get_webhooks() == []
        assert len(loop_threads()) == 1
        del client
        gc.collect()
        assert not in_time(loop_threads)


def loop_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "optimove-aiohttp"]


def in_time(found: Callable[[], list[Any]]) -> list[Any]:
    """Return what is found when nothing is found any more, or after half a minute."""
    end = time.monotonic() + 30
    while (still := found()) and time.monotonic() < end:
        time.sleep(0.01)
    return still


def test_under_gevent_the_engine_of_threads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    patched = SimpleNamespace(is_module_patched=lambda name: name == "threading")
    monkeypatch.setitem(sys.modules, "gevent.monkey", patched)
    with pytest.raises(ConfigurationError, match="gevent"):
        OptimoveClient("key", engine="aiohttp", **OPTIONS)


def test_aiohttp_reads_the_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault server plays the proxy: what comes to it is a whole URL."""
    with FaultServer() as server:
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("no_proxy", "")

        async def go() -> None:
            async with server.async_client(base_url="http://optimove.invalid", engine="aiohttp", timeout=5) as client:
                with pytest.raises(Exception, match="404"):
                    await client.get_webhooks()

        asyncio.run(go())
        path = "http://optimove.invalid/conditional-execution/v2/triggered/webhooks"
        assert [met.path for met in server.met] == [path, f"{path}/"]


# ---- forks


by_any_fork = pytest.mark.parametrize("fork", [forked, forked_untold], ids=["told", "untold"])


@by_any_fork
def test_a_child_starts_without_the_connections_of_its_parent(fork: Callable[[], int]) -> None:
    with FaultServer() as server, server.client() as client:
        assert client.get_webhooks() == []
        engine: Any = client._sender.engine
        before = engine._requests

        def asks_over_its_own() -> bool:
            return client.get_webhooks() == [] and engine._requests is not before

        assert child_status(asks_over_its_own, fork) == 0
        assert server.connections == 2


@by_any_fork
def test_a_child_sends_from_an_event_loop_of_its_own(fork: Callable[[], int]) -> None:
    with FaultServer() as server, server.client(engine="aiohttp") as client:
        assert client.get_webhooks() == []
        for _ in range(2):
            assert child_status(lambda: client.get_webhooks() == [], fork) == 0
            assert client.get_webhooks() == []
        assert server.connections == 3


def test_a_client_of_yours_is_refused_child_status() -> None:
    def refused() -> bool:
        with pytest.raises(ConfigurationError, match="before a fork"):
            client.get_webhooks()
        return True

    with FaultServer() as server, httpx.Client() as own, server.client(http_client=own) as client:
        assert client.get_webhooks() == []
        assert child_status(refused) == 0
        assert client.get_webhooks() == []


@pytest.mark.parametrize("engine", ["httpx", "aiohttp"])
def test_a_child_of_an_event_loop_closes_nothing_of_its_parents(engine: Any) -> None:
    async def go(server: FaultServer) -> None:
        async with server.async_client(engine=engine) as client:
            assert await client.get_webhooks() == []
            pools = client._sender.engine._pools  # type: ignore[attr-defined]
            finalizer = pools.current().finalizer

            def finalized() -> bool:
                with pytest.raises(StopIteration):  # it awaits nothing
                    finalizer.aclose().send(None)
                return not pools._pools

            assert child_status(finalized) == 0
            assert await client.get_webhooks() == []

    with FaultServer() as server:
        asyncio.run(go(server))
        assert server.connections == 1


def test_a_lock_that_a_thread_holds_while_its_process_forks_holds_no_child() -> None:
    limiter, throttle = RateLimiter(RateLimit(2, per=60.0)), AdaptiveThrottle()
    run_blocking(limiter.acquire(Deadline.after(1), ThreadAlarm))
    waiting = limiter._reserve(Deadline.after(1))
    waiting.has_begun = False  # a thread that waits, and is not in the child

    def usable() -> bool:
        run_blocking(throttle.acquire(Deadline.after(1), ThreadAlarm))
        run_blocking(limiter.acquire(Deadline.after(1), ThreadAlarm))
        return True

    with limiter._lock, throttle._lock:
        assert child_status(usable) == 0
