"""A gate that shares its claims with its replicas; `compose.yaml` runs two of them, and Redis.

Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_WEBHOOK_SECRET; CLAIMS_URL, such as redis://redis:6379/0
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from optimove_conditional_execution import AsyncOptimoveClient, AsyncWebhookReceiver, Deadline, WebhookNotification
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.stores.redis import RedisClaims


async def may_receive(notification: WebhookNotification, deadline: Deadline) -> bool:
    """Replace this with your register; an error or a late answer sends nothing."""
    return notification.user.user_id == "C234638"


async def ready(_: Request) -> PlainTextResponse:
    """Say that this process takes requests. Not more: without Redis no other replica would do better."""
    return PlainTextResponse("ready")


def create_app() -> Starlette:
    """Return the service; a setting that is missing stops it here."""
    logging.basicConfig()
    logging.getLogger("optimove_conditional_execution").setLevel(logging.INFO)  # approved and denied too
    client = AsyncOptimoveClient()
    receiver = AsyncWebhookReceiver(
        may_receive,
        client=client,
        secrets=os.environ["OPTIMOVE_WEBHOOK_SECRET"],
        claims=RedisClaims(os.environ["CLAIMS_URL"]),
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield
            await receiver.drain()  # what is still being answered

    routes = [Route("/optimove", ASGIApp(receiver), methods=["POST"]), Route("/ready", ready)]
    return Starlette(routes=routes, lifespan=lifespan)
