"""The cost of a call over each HTTP library by hand, one after the other and many at a time; and bursts.

Every burst goes through a receiver: signature, notification, handler, approval over HTTP to a server on loopback in a
process of its own, acknowledged. The floors do the same by hand with `httpx.AsyncClient` as it is when nothing is set,
with httpx2's, and with aiohttp. Rounds alternate; medians, of bursts the quickest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import multiprocessing
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx
import httpx2

from benchmarks.asgi_throughput import PATH, SECRET, listening, optimove_server
from benchmarks.result import Result
from optimove_conditional_execution import (
    Approval,
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    Deadline,
    OptimoveClient,
    Request,
    WebhookNotification,
)
from optimove_conditional_execution.testing import notification, signed_request

CALLS = 100
ROUNDS = 5
THREADS = 32
IN_FLIGHT = 100
SUSTAINED = {"aiohttp": 1_000, "httpx": 400}
"""Calls; httpx by hand takes several milliseconds for each when so many are in flight."""

BURSTS = (1, 10, 100, 300)
ENGINES = ("httpx", "httpx2", "aiohttp")
HEADERS = {"X-API-KEY": "key", "Accept": "application/json", "Accept-Encoding": "identity"}

Answer = Callable[[Request], Awaitable[object]]


@contextlib.contextmanager
def optimove() -> Iterator[str]:
    """Run a server that takes every approval."""
    listener = listening()
    process = multiprocessing.get_context("fork").Process(target=optimove_server, args=(listener,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        process.kill()
        process.join()
        listener.close()


def taken(status: int) -> None:
    if status != 200:
        raise RuntimeError(f"{status}")


# ---- one after the other


def approval() -> Approval:
    return Approval(timestamp=1, request_uid="5f2c1c4e-7a52-4a7e-8f0c-0c8a1f2b3d4e", approved=True)


def body() -> dict[str, object]:
    uid = "5f2c1c4e-7a52-4a7e-8f0c-0c8a1f2b3d4e"
    return {"timestamp": 1, "request_uid": uid, "approved": True, "additional_data": {}}


def sdk_calls(url: str) -> float:
    wanted = approval()
    with OptimoveClient("key", base_url=url) as client:
        client.send_webhook_approval(wanted)
        began = time.perf_counter()
        for _ in range(CALLS):
            client.send_webhook_approval(wanted)
        return (time.perf_counter() - began) / CALLS


def bare_calls(url: str) -> float:
    with httpx.Client() as client:
        taken(client.post(url + PATH, json=body(), headers=HEADERS).status_code)
        began = time.perf_counter()
        for _ in range(CALLS):
            client.post(url + PATH, json=body(), headers=HEADERS).raise_for_status()
        return (time.perf_counter() - began) / CALLS


async def sdk_async_calls(url: str, engine: Any) -> float:
    wanted = approval()
    async with AsyncOptimoveClient("key", base_url=url, engine=engine) as client:
        await client.send_webhook_approval(wanted)
        began = time.perf_counter()
        for _ in range(CALLS):
            await client.send_webhook_approval(wanted)
        return (time.perf_counter() - began) / CALLS


async def bare_async_calls(url: str, library: Any) -> float:
    async with bare_client(library) as post:
        await post(url)
        began = time.perf_counter()
        for _ in range(CALLS):
            await post(url)
        return (time.perf_counter() - began) / CALLS


@contextlib.asynccontextmanager
async def bare_client(library: str) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Yield a function that posts an approval with a library by hand."""
    if library == "aiohttp":
        async with aiohttp.ClientSession() as session:

            async def post(url: str) -> None:
                async with session.post(url + PATH, json=body(), headers=HEADERS) as response:
                    await response.read()
                    taken(response.status)

            yield post
        return
    module: Any = httpx if library == "httpx" else httpx2
    async with module.AsyncClient(timeout=60) as client:

        async def send(url: str) -> None:
            taken((await client.post(url + PATH, json=body(), headers=HEADERS)).status_code)

        yield send


async def sustained(post: Callable[[], Awaitable[None]], calls: int) -> tuple[float, float]:
    """Keep `IN_FLIGHT` approvals in flight; return how many a second are taken, and the p99 of their seconds."""
    left = iter(range(calls))
    seconds: list[float] = []

    async def one() -> None:
        for _ in left:
            asked = time.perf_counter()
            await post()
            seconds.append(time.perf_counter() - asked)

    await asyncio.gather(*(post() for _ in range(IN_FLIGHT)))  # opens the connections
    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(IN_FLIGHT)))
    return calls / (time.perf_counter() - began), sorted(seconds)[round(0.99 * calls) - 1]


async def sdk_sustained(url: str, engine: Any) -> tuple[float, float]:
    wanted = approval()
    async with AsyncOptimoveClient("key", base_url=url, engine=engine) as client:
        return await sustained(lambda: client.send_webhook_approval(wanted), SUSTAINED[engine])


async def bare_sustained(url: str, library: str) -> tuple[float, float]:
    async with bare_client(library) as post:
        return await sustained(lambda: post(url), SUSTAINED[library])


def sdk_threads(url: str, engine: Any) -> float:
    """Return the seconds an approval takes when `THREADS` threads send on one client."""
    wanted = approval()
    with OptimoveClient("key", base_url=url, engine=engine) as client, ThreadPoolExecutor(THREADS) as pool:

        def send(_: object) -> None:
            client.send_webhook_approval(wanted)

        list(pool.map(send, range(THREADS)))
        began = time.perf_counter()
        list(pool.map(send, range(20 * THREADS)))
        return (time.perf_counter() - began) / (20 * THREADS)


# ---- bursts


async def _approve(given: WebhookNotification, deadline: Deadline) -> bool:
    return True


@contextlib.asynccontextmanager
async def sdk(url: str, engine: Any) -> AsyncIterator[Answer]:
    async with AsyncOptimoveClient("key", base_url=url, engine=engine) as client:
        receiver = AsyncWebhookReceiver(_approve, client=client, secrets=SECRET, max_concurrency=1_000)

        async def answer(request: Request) -> None:
            taken((await receiver.handle(request)).status)

        yield answer


def by_hand(request: Request) -> dict[str, object]:
    signature = dict(request.headers)["optimove-signature-content"]
    if not hmac.compare_digest(hmac.digest(SECRET.encode(), request.body, "sha256").hex(), signature):
        raise ValueError
    uid = json.loads(request.body)["request_uid"]
    return {"timestamp": round(time.time() * 1000), "request_uid": uid, "approved": True, "additional_data": {}}


@contextlib.asynccontextmanager
async def bare(url: str, library: str) -> AsyncIterator[Answer]:
    if library == "aiohttp":
        async with aiohttp.ClientSession() as session:

            async def post(request: Request) -> None:
                async with session.post(url + PATH, json=by_hand(request), headers=HEADERS) as response:
                    taken(response.status)
                    await response.read()

            yield post
        return
    module: Any = httpx if library == "httpx" else httpx2
    async with module.AsyncClient(timeout=60) as client:

        async def send(request: Request) -> None:
            taken((await client.post(url + PATH, json=by_hand(request), headers=HEADERS)).status_code)

        yield send


async def burst(way: contextlib.AbstractAsyncContextManager[Answer], size: int) -> float:
    """Return the p99 of the seconds from a notification to its acknowledgement; the rest of a small burst's worst."""
    requests = [signed_request(notification(timeout_ms=30_000), secret=SECRET) for _ in range(size + 1)]
    seconds: list[float] = []

    async with way as answer:

        async def one(request: Request) -> None:
            began = time.perf_counter()
            await answer(request)
            seconds.append(time.perf_counter() - began)

        await one(requests.pop())
        seconds.clear()
        await asyncio.gather(*(one(request) for request in requests))
    return sorted(seconds)[min(size - 1, round(0.99 * size))]


def one_at_a_time(url: str) -> list[Result]:
    took: dict[str, list[float]] = {}
    for _ in range(2 * ROUNDS):
        took.setdefault("sync", []).append(sdk_calls(url))
        took.setdefault("sync bare", []).append(bare_calls(url))
        for engine in ENGINES:
            took.setdefault(engine, []).append(asyncio.run(sdk_async_calls(url, engine)))
            took.setdefault(f"{engine} bare", []).append(asyncio.run(bare_async_calls(url, engine)))
    middle = {name: statistics.median(seconds) * 1e6 for name, seconds in took.items()}
    names = {"sync": "a call / httpx.Client"} | {engine: f"an awaited call / {engine}" for engine in ENGINES}
    return [Result(what, "us", middle[name], middle[f"{name} bare"], 1.1) for name, what in names.items()]


def many_in_flight(url: str) -> list[Result]:
    rates: dict[str, list[float]] = {}
    slowest: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for engine in ("aiohttp", "httpx"):
            for name, way in ((engine, sdk_sustained), (f"{engine} bare", bare_sustained)):
                per_second, slow = asyncio.run(way(url, engine))
                rates.setdefault(name, []).append(per_second)
                slowest.setdefault(name, []).append(slow)
    rate = {name: statistics.median(values) for name, values in rates.items()}
    p99 = {name: statistics.median(values) * 1e3 for name, values in slowest.items()}
    what = f"{IN_FLIGHT} approvals in flight"
    return [
        Result(f"{what} / bare aiohttp", "/s", rate["aiohttp"], rate["aiohttp bare"], 0.85, more_is_better=True),
        Result(f"{what}, p99 / bare httpx", "ms", p99["httpx"], p99["httpx bare"], 0.1),
    ]


def in_threads(url: str) -> list[Result]:
    took: dict[str, list[float]] = {"aiohttp": [], "httpx": []}
    for _ in range(ROUNDS):
        for engine, seconds in took.items():
            seconds.append(sdk_threads(url, engine))
    middle = {engine: statistics.median(seconds) * 1e6 for engine, seconds in took.items()}
    what = f"{THREADS} threads: engine aiohttp / engine httpx"
    return [Result(what, "us", middle["aiohttp"], middle["httpx"], 0.5)]


def measure() -> Iterator[Result]:
    with optimove() as url:
        for part in (one_at_a_time, many_in_flight, in_threads):
            yield from part(url)


def measure_bursts() -> Iterator[Result]:
    ways = {f"sdk {name}": (sdk, name) for name in ENGINES} | {f"bare {name}": (bare, name) for name in ENGINES}
    with optimove() as url:
        for size in BURSTS:
            best = dict.fromkeys(ways, float("inf"))
            for _ in range(ROUNDS):
                for name, (make, engine) in ways.items():
                    best[name] = min(best[name], asyncio.run(burst(make(url, engine), size)))
            floor = best["bare httpx"] * 1e3
            for name, seconds in best.items():
                if name != "bare httpx":
                    what = f"burst of {size}, p99: {name} / bare httpx"
                    yield Result(what, "ms", seconds * 1e3, floor, goal(name, size))


def goal(name: str, size: int) -> float:
    """Return what was aimed at: a third of bare httpx for 300 at once; the bare ones are there to compare with."""
    if name.startswith("bare"):
        return float("inf")
    return 0.34 if size == 300 else 1.3
