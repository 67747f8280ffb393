"""The integrator's side of `optimove-ce demo`: a small compliance gate, as a service of its own.

It is configured like any other: `OPTIMOVE_API_KEY`, `OPTIMOVE_BASE_URL`, `OPTIMOVE_WEBHOOK_SECRET`. It writes the URL
of its webhook as its first line and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import Final

from optimove_conditional_execution import (
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    Deadline,
    Decision,
    OptimoveError,
    WebhookNotification,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.cli.secret_variables import webhook_secrets
from optimove_conditional_execution.cli.servers import served

_LOOK_UP_SECONDS: Final = 0.03


async def decide(notification: WebhookNotification, deadline: Deadline) -> Decision | bool:
    """Ask a pretended player register, whose customers carry in their ids how it will answer.

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
    (_, secret), *_ = webhook_secrets(os.environ)
    async with AsyncOptimoveClient() as client:
        receiver = AsyncWebhookReceiver(decide, client=client, secrets=secret)
        async with served(ASGIApp(receiver)) as url:
            print(f"{url}/optimove", flush=True)
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
    except KeyboardInterrupt:
        sys.exit(130)
