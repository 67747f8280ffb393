r"""A listener in FastAPI: it responds to Optimove immediately, and reviews the campaign in the background.

Run it:    pip install . fastapi uvicorn     (in a clone)
           cd examples && uvicorn --factory fastapi_listener:create_app --no-access-log     (the URL holds a token)
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_TIMEZONE, OPTIMOVE_LISTENER_TOKEN
Register:  optimove-ce listeners register 'https://your.host/listener?token=...'

optimove-ce campaign --listener http://127.0.0.1:8000/listener --lead 5 -- \
    uvicorn --factory fastapi_listener:create_app --port 8000 --no-access-log
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.routing import Route

from optimove_conditional_execution import (
    AsyncCampaignReview,
    AsyncListenerReceiver,
    AsyncOptimoveClient,
    CampaignCustomer,
    Deadline,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.stores import SqliteJournal


async def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    """Replace this with your register: return the ids of those who may get the campaign."""
    excluded = {"C0000002"}
    return [customer.customer_id for customer in customers if customer.customer_id not in excluded]


def create_app(client: AsyncOptimoveClient | None = None) -> FastAPI:
    """Return the service; a setting that is missing stops it here. Tests give it the client of a `FakeOptimove`."""
    logging.basicConfig()
    logging.getLogger("optimove_conditional_execution").setLevel(logging.INFO)
    client = client or AsyncOptimoveClient()
    review = AsyncCampaignReview(reviewer, client=client, journal=SqliteJournal("reviews.db"))
    receiver = AsyncListenerReceiver(review.submit, token=os.environ["OPTIMOVE_LISTENER_TOKEN"])

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with client:
            resuming = asyncio.create_task(review.resume())  # reviews that a crash left unfinished
            yield
            resuming.cancel()  # the next start resumes what the journal holds

    return FastAPI(lifespan=lifespan, routes=[Route("/listener", ASGIApp(receiver), methods=["POST"])])
