r"""A gate that asks your player service over HTTP, with its own timeout: without a valid answer nothing is sent.

Run it:    pip install . uvicorn     (in a clone)
           cd examples && uvicorn --factory http_backend_gate:create_app
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_WEBHOOK_SECRET, PLAYER_SERVICE_URL
Try it:    (player_service.py simulates your player service)

optimove-ce trigger http://127.0.0.1:8000/optimove --user C234638 --user C100001 -- \
    python player_service.py uvicorn --factory http_backend_gate:create_app --port 8000
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from urllib.parse import quote

import httpx

import optimove_conditional_execution as optimove_ce
from optimove_conditional_execution import Decision
from optimove_conditional_execution.adapters.asgi import ASGIApp

PATIENCE = 1.5  # seconds: a player service that takes longer is ill, however much time Optimove gives
NOT_NOW = ("self-excluded", "cooling-off", "closed")


async def may_receive(
    players: httpx.AsyncClient, notification: optimove_ce.WebhookNotification, deadline: optimove_ce.Deadline
) -> Decision:
    """Approve active players, deny those known to be inactive; a timeout, an error or an invalid answer abstains."""
    if notification.is_hashed or notification.user.is_visitor:
        return Decision.abstain("not an id that the player service knows")
    try:
        # httpx's own timeout bounds each wait for bytes; this bounds the whole call.
        async with asyncio.timeout(min(PATIENCE, deadline.remaining())):
            answer = await players.get(f"/players/{quote(notification.user.user_id, safe='')}")
        status = answer.raise_for_status().json()["status"]  # a 404 may be a wrong path, so it is no answer either
    except (TimeoutError, httpx.HTTPError, ValueError, LookupError, TypeError) as error:
        return Decision.abstain(f"no answer from the player service: {type(error).__name__}")
    if status == "active":
        return Decision.approve()
    return Decision.deny(status) if status in NOT_NOW else Decision.abstain("a status that this gate does not know")


def create_app() -> ASGIApp:
    """Return the service; a setting that is missing stops it here."""
    players, client = httpx.AsyncClient(base_url=os.environ["PLAYER_SERVICE_URL"]), optimove_ce.AsyncOptimoveClient()
    gate, secret = partial(may_receive, players), os.environ["OPTIMOVE_WEBHOOK_SECRET"]
    return ASGIApp(optimove_ce.AsyncWebhookReceiver(gate, client=client, secrets=secret))
