"""Frameworks that cancel a request, because of a time-out or since the sender hangs up: the answer still gets out."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from aiohttp import web
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request as StarletteRequest
from starlette.responses import PlainTextResponse
from starlette.responses import Response as StarletteResponse
from starlette.routing import Route

from optimove_conditional_execution import AsyncWebhookReceiver, Request
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request
from tests.adapters.servers import PATIENCE, head, running, uvicorn_command
from tests.conftest import served


def signed(optimove: FakeOptimove, request_uid: str) -> Request:
    """Return a notification that the stand-in waits for an answer to."""
    payload = notification(request_uid=request_uid, timeout_ms=20_000)
    optimove.expect(payload)
    return signed_request(payload, secret=optimove.secret, path="/optimove")


def raw(request: Request) -> bytes:
    return head(request.path, *[(name, value) for name, value in request.headers if name != "host"]) + request.body


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_a_time_out_middleware_of_starlette_does_not_cost_the_answer(fake_optimove: FakeOptimove) -> None:
    kinds: list[str] = []

    async def slow(notification: Any, deadline: Any) -> bool:
        await asyncio.sleep(0.6)
        return True

    async def time_out(
        request: StarletteRequest, call_next: Callable[[StarletteRequest], Awaitable[StarletteResponse]]
    ) -> StarletteResponse:
        try:
            async with asyncio.timeout(0.2):
                return await call_next(request)
        except TimeoutError:
            return PlainTextResponse("too slow", 504)

    receiver = AsyncWebhookReceiver(
        slow,
        client=fake_optimove.async_client(),
        secrets=fake_optimove.secrets,
        on_outcome=lambda outcome: kinds.append(outcome.kind),
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await receiver.drain()

    app = Starlette(
        routes=[Route("/optimove", ASGIApp(receiver), methods=["POST"])],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=time_out)],
        lifespan=lifespan,
    )
    request = signed(fake_optimove, "r-1")
    with served(app) as url:
        answer = httpx.post(f"{url}/optimove", content=request.body, headers=list(request.headers))
        assert answer.status_code == 504
    assert kinds == ["approved"]  # the shutdown has waited for it
    assert fake_optimove.result("r-1") == "approved"


def test_a_sender_that_hangs_up_on_an_async_view_of_django_does_not_cost_the_answer(
    fake_optimove: FakeOptimove, optimove_url: str, tmp_path: Path
) -> None:
    environment = {
        "OPTIMOVE_API_KEY": fake_optimove.api_key,
        "OPTIMOVE_BASE_URL": optimove_url,
        "OPTIMOVE_WEBHOOK_SECRET": str(fake_optimove.secret),
        "PYTHONUNBUFFERED": "1",
    }
    command = uvicorn_command("tests.adapters.apps:django_async_view")
    with running(
        lambda fd: [option if option != "on" else "off" for option in command(fd)],  # Django knows no lifespan
        log=tmp_path / "log",
        environment=environment,
    ) as server:
        # A notification's time begins when it is made, so the server is up before.
        assert httpx.get(f"{server.url}/optimove", timeout=2 * PATIENCE).status_code == 405
        parts = urlsplit(server.url)
        with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE) as connection:
            connection.sendall(raw(signed(fake_optimove, "r-1")))
            wait_until(lambda: "asked" in server.printed())
        wait_until(lambda: "approved" in server.printed())
        assert "the view was cancelled" in server.printed()
        assert server.printed().index("the view was cancelled") < server.printed().index("approved")
    assert fake_optimove.result("r-1") == "approved"


def test_a_sender_that_hangs_up_on_aiohttp_does_not_cost_the_answer(fake_optimove: FakeOptimove) -> None:
    steps: list[str] = []

    async def main() -> None:
        entered = asyncio.Event()

        async def slow(notification: Any, deadline: Any) -> bool:
            entered.set()
            while not steps and not deadline.expired:
                await asyncio.sleep(0.01)
            return True

        receiver = AsyncWebhookReceiver(
            slow,
            client=fake_optimove.async_client(),
            secrets=fake_optimove.secrets,
            on_outcome=lambda outcome: steps.append(outcome.kind),
        )

        async def view(request: web.Request) -> web.Response:
            try:
                body = await request.read()
                answer = await receiver.handle(
                    Request(request.method, request.path, request.query_string, request.headers.items(), body)
                )
            except asyncio.CancelledError:
                steps.append("cancelled")
                raise
            return web.Response(body=answer.body, status=answer.status)

        app = web.Application()
        app.router.add_post("/optimove", view)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw(signed(fake_optimove, "r-1")))
        await entered.wait()
        writer.close()
        await writer.wait_closed()
        while not steps:
            await asyncio.sleep(0.01)
        assert await receiver.drain(within=PATIENCE)
        await runner.cleanup()

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
    assert steps == ["cancelled", "approved"]
    assert fake_optimove.result("r-1") == "approved"
