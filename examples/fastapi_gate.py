r"""A gate in FastAPI: Optimove asks before it sends a triggered campaign, `may_receive` decides.

Run it:    pip install "optimove-conditional-execution[cli]" fastapi uvicorn
           uvicorn --factory fastapi_gate:create_app
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL (such as https://api5.optimove.net), OPTIMOVE_WEBHOOK_SECRET
Register:  optimove-ce webhooks create https://your.host/optimove

optimove-ce trigger http://127.0.0.1:8000/optimove --user C234638 --user C100001 -- \
    uvicorn --factory fastapi_gate:create_app --port 8000
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.routing import Route

from optimove_conditional_execution import (
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    Deadline,
    Decision,
    WebhookNotification,
    webhook_secrets,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp


async def player_status(user_id: str, *, timeout: float) -> str | None:
    """Replace this with your register: a player's status, None for an unknown player, an error when it is down."""
    return {"C234638": "active", "C100001": "self-excluded", "C100002": "cooling-off"}.get(user_id)


async def may_receive(notification: WebhookNotification, deadline: Deadline) -> Decision:
    """Let campaigns through to active players only; an error or a late answer sends nothing."""
    if notification.is_hashed or notification.user.is_visitor:
        return Decision.abstain("not an id that the register knows")
    status = await player_status(notification.user.user_id, timeout=deadline.remaining())
    return Decision.approve() if status == "active" else Decision.deny(status or "unknown player")


def create_app(client: AsyncOptimoveClient | None = None) -> FastAPI:
    """Return the service; a setting that is missing stops it here. Tests give it the client of a `FakeOptimove`."""
    logging.basicConfig()
    logging.getLogger("optimove_conditional_execution").setLevel(logging.INFO)  # approved and denied too
    client = client or AsyncOptimoveClient()
    receiver = AsyncWebhookReceiver(may_receive, client=client, secrets=webhook_secrets(os.environ))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield
            await receiver.drain()  # what is still being answered

    return FastAPI(lifespan=lifespan, routes=[Route("/optimove", ASGIApp(receiver), methods=["POST"])])
