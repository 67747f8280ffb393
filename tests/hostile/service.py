"""The service that hostile deliveries are sent to, for a server process of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route

from optimove_conditional_execution import AsyncOptimoveClient, AsyncWebhookReceiver, Deadline, WebhookNotification
from optimove_conditional_execution.adapters.asgi import ASGIApp


async def approve_everybody(notification: WebhookNotification, deadline: Deadline) -> bool:
    """The most careless handler there is."""
    return True


def create_app() -> Starlette:
    """Return the service, set up from the environment."""
    client = AsyncOptimoveClient()
    receiver = AsyncWebhookReceiver(
        approve_everybody, client=client, secrets=os.environ["OPTIMOVE_WEBHOOK_SECRET"], on_failure="deny"
    )

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with client:
            yield

    return Starlette(lifespan=lifespan, routes=[Route("/optimove", ASGIApp(receiver))])
