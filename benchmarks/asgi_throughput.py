"""Notifications a second through the ASGI adapter, against a raw ASGI app that does the same work by hand.

Both apps verify the signature, parse the notification with pydantic, decide `True` and post the approval to a server on
loopback (a raw asyncio one, in a process of its own) with `httpx.AsyncClient` or aiohttp. Both run under the same
uvicorn, in a process of their own; one keep-alive client process has 32 notifications in flight. Rounds alternate, and
the median of each counts.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import json
import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import httpx
import uvicorn
from pydantic import BaseModel

from benchmarks.result import Result
from optimove_conditional_execution import (
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    Deadline,
    WebhookNotification,
    sign,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.testing import notification

SECRET = "abcdefg"
CONNECTIONS = 32
REQUESTS = 320
ROUNDS = 5
GOALS = {"httpx": 0.2, "httpx2": 0.28, "aiohttp": 0.75}
"""Of the throughput of a raw ASGI app with aiohttp: what checks, bounds and records may cost."""

BY_HAND = 2.0
"""With httpx, of the throughput of a raw ASGI app with httpx, whose pool looks at all connections at every request."""

PATH = "/conditional-execution/v2/triggered/approval"


class _User(BaseModel):
    user_id: str


class _Asked(BaseModel):
    """What a program by hand would write down of a notification."""

    timestamp: int
    conditional_execution_approval_deadline: int
    request_uid: str
    user: _User
    occurrence: dict[str, Any] | None = None
    trigger_context: dict[str, Any] | None = None


async def _decide(notification: WebhookNotification, deadline: Deadline) -> bool:
    return True


def sdk_app(optimove: str, engine: Any = "httpx") -> Any:
    client = AsyncOptimoveClient("key", base_url=optimove, engine=engine)
    return ASGIApp(AsyncWebhookReceiver(_decide, client=client, secrets=SECRET))


def raw_app(optimove: str, library: str = "httpx") -> Any:
    client = httpx.AsyncClient(timeout=5.0)
    session: aiohttp.ClientSession | None = None
    key = SECRET.encode()

    async def post(answer: dict[str, object]) -> bool:
        nonlocal session
        if library == "httpx":
            return (await client.post(optimove + PATH, json=answer, headers={"X-API-KEY": "key"})).is_success
        if session is None:
            session = aiohttp.ClientSession()
        async with session.post(optimove + PATH, json=answer, headers={"X-API-KEY": "key"}) as response:
            await response.read()
            return response.ok

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            while True:
                message = await receive()
                await send({"type": f"{message['type']}.complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        signature = dict(scope["headers"])[b"optimove-signature-content"].decode()
        if not hmac.compare_digest(hmac.digest(key, body, "sha256").hex(), signature):
            raise ValueError
        asked = _Asked.model_validate_json(body)
        answer = {
            "timestamp": round(time.time() * 1000),
            "request_uid": asked.request_uid,
            "approved": True,
            "additional_data": {},
        }
        status = 200 if await post(answer) else 503
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    return app


APPS: dict[str, Callable[[str], Any]] = {
    "sdk": sdk_app,
    "sdk httpx2": functools.partial(sdk_app, engine="httpx2"),
    "sdk aiohttp": functools.partial(sdk_app, engine="aiohttp"),
    "raw": raw_app,
    "raw aiohttp": functools.partial(raw_app, library="aiohttp"),
}


def listening() -> socket.socket:
    """Return a listener that says it is TCP; only then asyncio turns Nagle's algorithm off."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    return listener


def serve(name: str, optimove: str, listener: socket.socket) -> None:
    config = uvicorn.Config(APPS[name](optimove), log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


def optimove_server(listener: socket.socket) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:")
                await reader.readexactly(length)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, sock=listener)
        await server.serve_forever()

    asyncio.run(main())


async def load(port: int, *, requests: int = REQUESTS, connections: int = CONNECTIONS) -> tuple[float, float]:
    """Send the notifications; return how many a second were answered, and the p99 of the seconds each took."""
    seconds: list[float] = []

    async def connection(count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(count):
            body = json.dumps(notification()).encode()
            head = (
                f"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
                f"optimove-signature-content: {sign(body, secret=SECRET)}\r\n\r\n"
            )
            asked = time.perf_counter()
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer.decode())
            seconds.append(time.perf_counter() - asked)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(connection(requests // connections) for _ in range(connections)))
    return requests / (time.perf_counter() - began), sorted(seconds)[round(0.99 * len(seconds)) - 1]


def measure() -> list[Result]:
    context = multiprocessing.get_context("fork")
    listeners = {name: listening() for name in ("optimove", *APPS)}
    ports = {name: listener.getsockname()[1] for name, listener in listeners.items()}
    url = f"http://127.0.0.1:{ports['optimove']}"
    processes = [context.Process(target=optimove_server, args=(listeners["optimove"],), daemon=True)]
    processes += [context.Process(target=serve, args=(name, url, listeners[name]), daemon=True) for name in APPS]
    for process in processes:
        process.start()
    try:
        rates: dict[str, list[float]] = {name: [] for name in APPS}
        slowest: dict[str, list[float]] = {name: [] for name in APPS}
        for turn in range(ROUNDS + 1):
            for name in APPS:
                rate, slow = asyncio.run(load(ports[name]))
                if turn:  # the first round warms up
                    rates[name].append(rate)
                    slowest[name].append(slow)
    finally:
        for process in processes:
            process.terminate()
            process.join(5)
        for listener in listeners.values():
            listener.close()
    middle = {name: statistics.median(values) for name, values in rates.items()}
    p99 = {name: statistics.median(values) * 1e3 for name, values in slowest.items()}
    what = "end to end, engine httpx / raw ASGI + httpx"
    results = [Result(what, "/s", middle["sdk"], middle["raw"], BY_HAND, more_is_better=True)]
    for name in ("sdk", "sdk httpx2", "sdk aiohttp"):
        engine = name.removeprefix("sdk").strip() or "httpx"
        what = f"end to end, engine {engine} / raw ASGI + aiohttp"
        results.append(Result(what, "/s", middle[name], middle["raw aiohttp"], GOALS[engine], more_is_better=True))
        results.append(Result("  its p99", "ms", p99[name], p99["raw aiohttp"], 1 / GOALS[engine]))
    return results
