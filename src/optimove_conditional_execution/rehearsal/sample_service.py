"""The sample service of the demo: a small compliance gate in a process of its own.

It is configured like any other: `OPTIMOVE_API_KEY`, `OPTIMOVE_BASE_URL`, `OPTIMOVE_WEBHOOK_SECRET`. It registers its
webhook, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Final

from .. import AsyncOptimoveClient, AsyncWebhookReceiver, Deadline, Decision, OptimoveError, WebhookNotification
from ..adapters.asgi import ASGIApp
from ..settings import SECRET_VARIABLE
from .base import served

# -P: a file of the working directory must not stand in for a module of ours.
COMMAND: Final = (sys.executable, "-P", "-m", "optimove_conditional_execution.rehearsal.sample_service")

_LOOK_UP_SECONDS: Final = 0.03


async def decide(notification: WebhookNotification, deadline: Deadline) -> Decision | bool:
    """Look a customer up in a simulated player register, which answers by the prefix of the id.

    Args:
        notification: Who would get which campaign.
        deadline: When the answer is due.

    Raises:
        ConnectionError: The register is down for this customer.
    """
    await asyncio.sleep(_LOOK_UP_SECONDS)
    match notification.user.user_id.partition("-")[0]:
        case "eligible":
            return Decision.approve({"rule": "active player"})
        case "excluded":
            return Decision.deny("self-excluded", {"rule": "self-exclusion"})
        case "slow":
            await asyncio.sleep(deadline.remaining() + 1.0)
            return True  # far too late: the SDK must not send it
        case "failing":
            raise ConnectionError("the player register is down")
        case _:
            return Decision.abstain("not our player")


async def serve() -> None:
    """Serve the gate until standard input ends."""
    async with AsyncOptimoveClient() as client:
        receiver = AsyncWebhookReceiver(decide, client=client, secrets=os.environ[SECRET_VARIABLE])
        async with served(ASGIApp(receiver)) as url:
            await client.ensure_webhook(f"{url}/optimove")
            await _end_of_input()


async def _end_of_input() -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wait() -> None:
        # Not sys.stdin: its lock, held by a daemon thread, would disturb the interpreter's end.
        while os.read(0, 1024):
            pass
        loop.call_soon_threadsafe(ended.set)

    threading.Thread(target=wait, name="end-of-input", daemon=True).start()
    await ended.wait()


if __name__ == "__main__":
    try:
        asyncio.run(serve())
    except OptimoveError as error:
        sys.exit(str(error))
