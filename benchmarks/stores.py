"""What shared claims cost, and how soon another replica goes on when one is killed.

A notification goes through a receiver, from `handle` to the approval acknowledged by a server on loopback in a process
of its own, with 32 in flight; each store beside the one in memory. Rounds alternate, and the median counts. Then the
same over HTTP into four workers that share a store. Redis and PostgreSQL run on loopback as the tests run them: Redis
with `appendonly yes`, PostgreSQL with `fsync=off`, since the disk is not what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import random
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import uvicorn
from tests.servers.postgres import running_postgres
from tests.servers.redis import running_redis

from benchmarks.asgi_throughput import SECRET, listening, load
from benchmarks.calls import optimove, taken
from benchmarks.result import Result
from optimove_conditional_execution import (
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    Deadline,
    Request,
    WebhookNotification,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.flows.budget import default_lease
from optimove_conditional_execution.stores import ClaimStore, MemoryClaims, SqliteClaims
from optimove_conditional_execution.stores.postgres import PostgresClaims
from optimove_conditional_execution.stores.redis import RedisClaims
from optimove_conditional_execution.testing import notification, signed_request

IN_FLIGHT: Final = 32
NOTIFICATIONS: Final = 320
ROUNDS: Final = 5
WORKERS: Final = 4
LEASE: Final = default_lease(5.0)
"""Seconds, with the default timeout."""

TAKEN_OVER: Final = 20
"""Notifications that a replica is deciding when it is killed."""

LATE: Final = 0.2
"""Seconds that a takeover may come after the end of the lease."""

HANDLERS: Final = (0.0, 0.05)
GOALS: Final = {
    ("Redis", 0.0): 1.6,
    ("PostgreSQL", 0.0): 3.0,
    ("Redis", 0.05): 1.3,
    ("PostgreSQL", 0.05): 1.4,
}

Stores = dict[str, Callable[[], ClaimStore]]
Handler = Callable[[WebhookNotification, Deadline], Any]


@contextlib.contextmanager
def stores() -> Iterator[Stores]:
    """Run the servers; yield how to open each store."""
    with tempfile.TemporaryDirectory() as folder, running_redis() as redis, running_postgres() as postgres:
        yield {
            "memory": MemoryClaims,
            "SQLite": lambda: SqliteClaims(Path(folder) / "claims.db"),
            "Redis": lambda: RedisClaims(redis.url),
            "PostgreSQL": lambda: PostgresClaims(postgres.url),
        }


def asked(count: int) -> list[Request]:
    return [signed_request(notification(timeout_ms=60_000), secret=SECRET) for _ in range(count)]


def deciding(seconds: float) -> Handler:
    async def decide(given: WebhookNotification, deadline: Deadline) -> bool:
        if seconds:
            await asyncio.sleep(seconds)
        return True

    return decide


async def milliseconds(url: str, store: ClaimStore, seconds: float) -> float:
    """Return the milliseconds a notification, with a number of them in flight all the time."""
    async with AsyncOptimoveClient("key", base_url=url) as client:
        receiver = AsyncWebhookReceiver(deciding(seconds), client=client, secrets=SECRET, claims=store)

        async def answer(requests: list[Request]) -> None:
            while requests:
                taken((await receiver.handle(requests.pop())).status)

        async def burst(count: int) -> float:
            requests = asked(count)
            began = time.perf_counter()
            await asyncio.gather(*(answer(requests) for _ in range(IN_FLIGHT)))
            return (time.perf_counter() - began) / count * 1e3

        await burst(2 * IN_FLIGHT)  # which connects
        return await burst(NOTIFICATIONS)


def in_flight(url: str, opened: Stores) -> Iterator[Result]:
    for seconds in HANDLERS:
        took: dict[str, list[float]] = {name: [] for name in opened}
        for _ in range(ROUNDS):
            for name, make in opened.items():
                took[name].append(asyncio.run(milliseconds(url, make(), seconds)))
        medians = {name: statistics.median(each) for name, each in took.items()}
        for name, median in medians.items():
            if name != "memory":
                what = f"claims in {name} / in memory, {seconds * 1e3:.0f} ms"
                yield Result(what, "ms", median, medians["memory"], GOALS.get((name, seconds), float("inf")))


# ---- four workers


def serve(url: str, make: Callable[[], ClaimStore], listener: socket.socket) -> None:
    client = AsyncOptimoveClient("key", base_url=url)
    app = ASGIApp(AsyncWebhookReceiver(deciding(0), client=client, secrets=SECRET, claims=make()))
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


async def loads(ports: list[int]) -> float:
    """Return how many notifications a second the workers answer together."""
    began = time.perf_counter()
    await asyncio.gather(*(load(port, requests=NOTIFICATIONS) for port in ports))
    return len(ports) * NOTIFICATIONS / (time.perf_counter() - began)


def workers(url: str, opened: Stores) -> Iterator[Result]:
    context = multiprocessing.get_context("fork")
    ports: dict[str, list[int]] = {}
    processes = []
    for name, make in opened.items():
        if name == "SQLite":
            continue
        listeners = [listening() for _ in range(WORKERS)]
        ports[name] = [listener.getsockname()[1] for listener in listeners]
        for listener in listeners:
            processes.append(context.Process(target=serve, args=(url, make, listener), daemon=True))
            processes[-1].start()
            listener.close()
    try:
        rates: dict[str, list[float]] = {name: [] for name in ports}
        for turn in range(ROUNDS + 1):
            for name, each in ports.items():
                rate = asyncio.run(loads(each))
                if turn:  # the first round warms up
                    rates[name].append(rate)
    finally:
        for process in processes:
            process.kill()
            process.join()
    medians = {name: statistics.median(each) for name, each in rates.items()}
    for name in ("Redis", "PostgreSQL"):
        what = f"{WORKERS} workers share {name} / share nothing"
        goal = 1 / GOALS[name, 0.0]
        yield Result(what, "/s", medians[name], medians["memory"], goal, more_is_better=True)


# ---- takeover


def die(url: str, make: Callable[[], ClaimStore], requests: list[Request], started: Connection) -> None:
    """Ask a handler about notifications, which never answers."""

    async def never(given: WebhookNotification, deadline: Deadline) -> bool:
        started.send(None)
        await asyncio.sleep(60)
        return True

    async def main() -> None:
        async with AsyncOptimoveClient("key", base_url=url) as client:
            receiver = AsyncWebhookReceiver(never, client=client, secrets=SECRET, claims=make(), lease=LEASE)
            await asyncio.gather(*(receiver.handle(request) for request in requests))

    asyncio.run(main())


async def takeovers(
    url: str, make: Callable[[], ClaimStore], requests: list[Request], kill: Callable[[], None]
) -> list[float]:
    """Return the milliseconds from a kill to each handler that is asked in place of the one that died."""
    moments: list[float] = []

    async def decide(given: WebhookNotification, deadline: Deadline) -> bool:
        moments.append(time.perf_counter())
        return True

    async with AsyncOptimoveClient("key", base_url=url) as client:
        receiver = AsyncWebhookReceiver(decide, client=client, secrets=SECRET, claims=make(), lease=LEASE)
        waiting = [asyncio.create_task(receiver.handle(request)) for request in requests]
        await asyncio.sleep(random.uniform(0.5, 1.0))
        kill()
        killed = time.perf_counter()
        for answer in await asyncio.gather(*waiting):
            taken(answer.status)
    if len(moments) != len(requests) or min(moments) < killed:
        raise RuntimeError("not every notification was taken over, or one before its time")
    return [(moment - killed) * 1e3 for moment in moments]


def takeover(url: str, opened: Stores) -> Iterator[Result]:
    context = multiprocessing.get_context("fork")
    lease, goal = LEASE * 1e3, (LEASE + LATE) / LEASE
    for name, make in opened.items():
        if name == "memory":
            continue
        took: list[float] = []
        for _ in range(ROUNDS):
            requests = asked(TAKEN_OVER)
            receiving, sending = context.Pipe(duplex=False)
            victim = context.Process(target=die, args=(url, make, requests, sending), daemon=True)
            victim.start()
            try:
                for _ in requests:
                    receiving.recv()
                took += asyncio.run(takeovers(url, make, requests, victim.kill))
            finally:
                victim.kill()
                victim.join()
        yield Result(f"takeover in {name}, p50 / lease", "ms", statistics.median(took), lease, goal)
        yield Result(f"takeover in {name}, max / lease", "ms", max(took), lease, goal)


def measure() -> Iterator[Result]:
    with optimove() as url, stores() as opened:
        yield from in_flight(url, opened)
        yield from workers(url, opened)
        yield from takeover(url, opened)
