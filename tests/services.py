"""Webhooks as integrators write them, right and wrong, for uvicorn: in this process, or by a command line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.routing import Mount, Route

from optimove_conditional_execution import (
    AsyncListenerReceiver,
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    CampaignReadyEvent,
    Deadline,
    Decision,
    WebhookNotification,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp

ROOT = Path(__file__).parents[1]
APPROVAL = "/conditional-execution/v2/triggered/approval"


def uvicorn_command(factory: str, port: int) -> list[str]:
    """Return the command line that serves one of the applications below."""
    return [
        sys.executable, "-m", "uvicorn", "--app-dir", str(ROOT), "--port", str(port),
        "--factory", f"tests.services:{factory}",
    ]  # fmt: skip


async def decide(notification: WebhookNotification, deadline: Deadline) -> Decision | bool:
    number = int(notification.user.user_id[1:])
    return Decision.abstain() if number % 5 == 0 else number % 2 == 0


async def approve(notification: WebhookNotification, deadline: Deadline) -> bool:
    return True


def gate(handler: Any = decide) -> Starlette:
    """A good gate, configured by its environment."""
    client = AsyncOptimoveClient()

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    receiver = AsyncWebhookReceiver(handler, client=client, secrets=os.environ["OPTIMOVE_WEBHOOK_SECRET"])
    return Starlette(routes=[Route("/optimove", ASGIApp(receiver), methods=["POST"])], lifespan=lifespan)


def gate_without_await() -> Starlette:
    """A gate whose handler hands on a coroutine instead of its result."""

    async def forgetful(notification: WebhookNotification, deadline: Deadline) -> Any:
        return approve(notification, deadline)

    return gate(forgetful)


async def is_eligible(user_id: str) -> bool:
    return int(user_id[1:]) % 2 == 0


def gate_with_a_lazy_condition() -> Starlette:
    """A gate that forgets to await a condition, so that it approves everybody."""

    async def forgetful(notification: WebhookNotification, deadline: Deadline) -> Decision:
        # The check on types tells: an ignore that is not needed is an error of its own.
        if is_eligible(notification.user.user_id):  # type: ignore[truthy-bool]
            return Decision.approve()
        return Decision.deny()

    return gate(forgetful)


def dying_gate() -> Starlette:
    """A gate that ends at its first notification."""

    async def end(request: Request) -> PlainTextResponse:
        os._exit(7)

    return Starlette(routes=[Route("/optimove", end, methods=["POST"])])


def reviews() -> Starlette:
    """A service that registers its listener itself, if PORT is set, and approves every customer of a campaign."""
    client = AsyncOptimoveClient()
    token = os.environ["OPTIMOVE_LISTENER_TOKEN"]

    async def review(event: CampaignReadyEvent) -> None:
        ids = [one.customer_id async for one in client.get_processed_campaign_customers(event.campaign_id)]
        await client.update_customer_promotion_status(event.campaign_id, dict.fromkeys(ids, True))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        port = os.environ.get("PORT")
        if port is not None:
            await client.ensure_event_listener(f"http://127.0.0.1:{port}/campaigns?token={token}")
        async with client:
            yield

    receiver = AsyncListenerReceiver(review, token=token)
    return Starlette(routes=[Route("/campaigns", ASGIApp(receiver), methods=["POST"])], lifespan=lifespan)


def mistakes(base_url: str, *, key: str, secret: str) -> Starlette:
    """One route for each mistake, in a service that is otherwise configured right."""

    clients: list[AsyncOptimoveClient] = []

    def receiver(secret: str = secret, key: str = key) -> ASGIApp:
        clients.append(AsyncOptimoveClient(key, base_url=base_url))
        return ASGIApp(AsyncWebhookReceiver(approve, client=clients[-1], secrets=secret))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        for client in clients:
            await client.aclose()

    async def tell(request: Request, *, approved: bool) -> None:
        asked = json.loads(await request.body())
        answer = {"timestamp": asked["timestamp"], "request_uid": asked["request_uid"], "approved": approved}
        async with httpx.AsyncClient() as client:
            await client.post(f"{base_url}{APPROVAL}", headers={"X-API-KEY": key}, json=answer)

    async def naive(request: Request) -> PlainTextResponse:
        await tell(request, approved=True)
        return PlainTextResponse("")

    repeats: set[str] = set()
    in_turn = asyncio.Lock()

    async def fickle(request: Request) -> PlainTextResponse:
        uid = json.loads(await request.body())["request_uid"]
        async with in_turn:  # a repeat can come before the first is answered
            await tell(request, approved=uid not in repeats)
            repeats.add(uid)
        return PlainTextResponse("")

    async def tardy(request: Request) -> PlainTextResponse:
        await asyncio.sleep(0.8)
        await tell(request, approved=True)
        return PlainTextResponse("")

    async def hang(request: Request) -> PlainTextResponse:
        while not await request.is_disconnected():
            await asyncio.sleep(0.05)
        return PlainTextResponse("")

    async def broken(request: Request) -> PlainTextResponse:
        return PlainTextResponse("", status_code=500)

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>Log in</title>")

    views = {"naive": naive, "fickle": fickle, "tardy": tardy, "hang": hang, "broken": broken, "page": page}
    apps = {"good": receiver(), "secret": receiver(secret="another"), "key": receiver(key="another")}
    return Starlette(
        routes=[
            *(Route(f"/{name}", view, methods=["POST"]) for name, view in views.items()),
            *(Route(f"/{name}", app, methods=["POST"]) for name, app in apps.items()),
            Mount("/mounted", receiver()),
        ],
        lifespan=lifespan,
    )
