"""The service: it serves the gate at /optimove, with one client a process, which it closes at shutdown."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from optimove_conditional_execution import AsyncOptimoveClient
from optimove_conditional_execution.adapters.asgi import ASGIApp
from starlette.routing import Route

from gate import create_receiver


def create_app(client: AsyncOptimoveClient | None = None) -> FastAPI:
    """Return the service. Tests give it the client of a `FakeOptimove`; without one, the environment says which."""
    logging.basicConfig()
    client = client or AsyncOptimoveClient()
    receiver = create_receiver(client)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield
            await receiver.drain()  # what is still being answered

    return FastAPI(lifespan=lifespan, routes=[Route("/optimove", ASGIApp(receiver), methods=["POST"])])
