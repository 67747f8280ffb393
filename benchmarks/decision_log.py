"""What a decision log costs a notification: end to end, and where nothing else takes time.

End to end: a client process posts signed notifications to uvicorn in a process of its own, whose handler says yes at
once, and whose approval goes to a server on loopback, over aiohttp; as `benchmarks.asgi_throughput`, whose parts these
are. That is the worst that an operator meets: a handler that asks a register takes longer than the log, and one at a
time is measured with such a handler, too. In the second part, handler and client answer at once in the same process, so
that the log is compared with next to nothing. Rounds alternate; medians.

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
from optimove_conditional_execution import (
    AsyncOptimoveClient,
    AsyncWebhookHandler,
    AsyncWebhookReceiver,
    Deadline,
    WebhookNotification,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.stores import SqliteDecisionLog

GOAL = 1.2
ROUNDS = 7
END_TO_END_ROUNDS = 25
"""Four processes share the cores, so that medians of fewer rounds differ by a tenth."""

HANDLER_SECONDS = 0.005
"""What a handler waits for one question to a register in the same network."""

FLUSHES = 50
FLUSHED_BYTES = 4 * 4096
"""What a commit of a record and a completion writes: a few pages."""


async def _ask_a_register(notification: WebhookNotification, deadline: Deadline) -> bool:
    await asyncio.sleep(HANDLER_SECONDS)
    return True


def serve(optimove: str, handler: AsyncWebhookHandler, listener: Any, path: Path | None) -> None:
    client = AsyncOptimoveClient("key", base_url=optimove, engine="aiohttp")
    log = None if path is None else SqliteDecisionLog(path)
    app = ASGIApp(AsyncWebhookReceiver(handler, client=client, secrets=SECRET, decision_log=log))
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


def end_to_end(handler: AsyncWebhookHandler, what: str, requests: dict[int, int]) -> dict[int, list[Result]]:
    """Measure a handler; `requests` is how many requests a round has, by how many are in flight."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder) / "log.db"
        optimove, bare, logged = (listening() for _ in range(3))
        url = f"http://127.0.0.1:{optimove.getsockname()[1]}"
        took: dict[tuple[int, Any], list[float]] = {}
        flushes: list[float] = []
        with processes(
            functools.partial(optimove_server, optimove),
            functools.partial(serve, url, handler, bare, None),
            functools.partial(serve, url, handler, logged, path),
        ):
            for turn in range(END_TO_END_ROUNDS + 1):
                flushes.append(flush_seconds(folder) * 1e3)
                for in_flight, count in requests.items():
                    for server in (logged, bare):
                        port = server.getsockname()[1]
                        rate, _ = asyncio.run(load(port, requests=count, connections=in_flight))
                        if turn:  # the first round warms up
                            took.setdefault((in_flight, server), []).append(1e3 / rate)
    return {
        in_flight: compared(
            f"{what}, {in_flight} in flight",
            "ms",
            statistics.median(took[in_flight, logged]),
            statistics.median(took[in_flight, bare]),
            statistics.median(flushes),
        )
        for in_flight in requests
    }


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
    answering = end_to_end(_decide, "end to end with a log", {1: 160, IN_FLIGHT: 640})
    (asking, _) = end_to_end(_ask_a_register, "the same, with a handler that takes 5 ms", {1: 40})[1]
    # Those that are in flight together share a flush.
    return [answering[IN_FLIGHT][0], *answering[1], asking, *asyncio.run(at_once())]
