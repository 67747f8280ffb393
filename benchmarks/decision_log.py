"""What a decision log costs a notification: end to end, and where nothing else takes time.

End to end: a client process posts signed notifications to uvicorn in a process of its own, whose handler says yes at
once, and whose approval goes to a server on loopback, over aiohttp; as `benchmarks.asgi_throughput`, whose parts these
are. That is what an operator feels. In the second, handler and client answer at once in the same process, so that the
log is compared with next to nothing. Rounds alternate; medians.

No log can be safe before the answer leaves without one flush to the disk. So of one notification at a time there is a
second ratio: to what it takes without a log, and one flush of a few pages.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from benchmarks.asgi_throughput import SECRET, _decide, listening, load, optimove_server
from benchmarks.receiver import CALLS, IN_FLIGHT, _answered, _receiver, _requests
from benchmarks.result import Result
from optimove_conditional_execution import AsyncOptimoveClient, AsyncWebhookReceiver
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.stores import SqliteDecisionLog

GOAL = 1.2
ROUNDS = 7
END_TO_END_ROUNDS = 25
"""Four processes share the cores, so that medians of fewer rounds differ by a tenth."""

FLUSHES = 50
FLUSHED_BYTES = 4 * 4096
"""What a commit of a record and a completion writes: a few pages."""


def serve(optimove: str, listener: Any, path: Path | None) -> None:
    client = AsyncOptimoveClient("key", base_url=optimove, engine="aiohttp")
    log = None if path is None else SqliteDecisionLog(path)
    app = ASGIApp(AsyncWebhookReceiver(_decide, client=client, secrets=SECRET, decision_log=log))
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listener])


@contextlib.contextmanager
def processes(*targets: Callable[[], None]) -> Iterator[None]:
    context = multiprocessing.get_context("fork")
    started = [context.Process(target=target, daemon=True) for target in targets]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.terminate()
            process.join(5)


def flush_seconds(folder: str) -> float:
    """Return the median of what flushing takes that is written over, as SQLite writes over its log."""
    seconds: list[float] = []
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(FLUSHES * FLUSHED_BYTES))
        file.flush()
        os.fsync(file.fileno())
        for number in range(FLUSHES):
            os.pwrite(file.fileno(), os.urandom(FLUSHED_BYTES), number * FLUSHED_BYTES)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def compared(what: str, unit: str, logged: float, bare: float, flushed: float) -> list[Result]:
    return [
        Result(f"{what} / without", unit, logged, bare, GOAL),
        Result("  the same / without, and one flush", unit, logged, bare + flushed, GOAL),
    ]


def end_to_end() -> list[Result]:
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder) / "log.db"
        optimove, bare, logged = (listening() for _ in range(3))
        url = f"http://127.0.0.1:{optimove.getsockname()[1]}"
        took: dict[tuple[int, Any], list[float]] = {}
        flushes: list[float] = []
        with processes(
            functools.partial(optimove_server, optimove),
            functools.partial(serve, url, bare, None),
            functools.partial(serve, url, logged, path),
        ):
            for turn in range(END_TO_END_ROUNDS + 1):
                flushes.append(flush_seconds(folder) * 1e3)
                for in_flight in (1, IN_FLIGHT):
                    for server in (logged, bare):
                        requests = 160 if in_flight == 1 else 640
                        port = server.getsockname()[1]
                        rate, _ = asyncio.run(load(port, requests=requests, connections=in_flight))
                        if turn:  # the first round warms up
                            took.setdefault((in_flight, server), []).append(1e3 / rate)
    many, one = (
        compared(
            f"end to end with a log, {in_flight} in flight",
            "ms",
            statistics.median(took[in_flight, logged]),
            statistics.median(took[in_flight, bare]),
            statistics.median(flushes),
        )
        for in_flight in (IN_FLIGHT, 1)
    )
    return [many[0], *one]  # those that are in flight together share a flush


async def at_once() -> list[Result]:
    results: list[Result] = []
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, SqliteDecisionLog(Path(folder) / "log.db") as log:
        bare, recording = _receiver(), _receiver(decision_log=log)
        for in_flight in (1, IN_FLIGHT):
            took: dict[AsyncWebhookReceiver, list[float]] = {bare: [], recording: []}
            flushes: list[float] = []
            for turn in range(ROUNDS + 1):
                flushes.append(flush_seconds(folder) * 1e6)
                for receiver, seconds in took.items():
                    each = await _answered(receiver, _requests(CALLS), in_flight)
                    if turn:
                        seconds.append(each * 1e6)
            results += compared(
                f"with a log, nothing else, {in_flight} in flight",
                "us",
                statistics.median(took[recording]),
                statistics.median(took[bare]),
                statistics.median(flushes),
            )[: 2 if in_flight == 1 else 1]
    return results


def measure() -> list[Result]:
    return [*end_to_end(), *asyncio.run(at_once())]
