"""What a receiver costs: alone, beside checking the signature and parsing.

The client takes every approval at once, so that nothing of the network is measured. Rounds alternate; medians.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from benchmarks.result import Result
from optimove_conditional_execution import AsyncWebhookReceiver, Deadline, Request, WebhookNotification
from optimove_conditional_execution.signature import SIGNATURE_HEADER, match, signing_keys
from optimove_conditional_execution.testing import notification, signed_request

SECRET = "abcdefg"
CALLS = 500
LOGGED_CALLS = 200
"""Each waits for the disk."""

ROUNDS = 25
IN_FLIGHT = 32


class Taken:
    """A client whose approvals are taken at once."""

    async def send(self, operation: Any, *, deadline: Deadline | None = None) -> None:
        """Take it."""


async def _approve(given: WebhookNotification, deadline: Deadline) -> bool:
    return True


def _receiver(**options: Any) -> AsyncWebhookReceiver:
    client: Any = Taken()
    return AsyncWebhookReceiver(_approve, client=client, secrets=SECRET, max_concurrency=1_000, **options)


def _requests(count: int) -> list[Request]:
    # As quick as notifications come and go, so that the claims of earlier rounds have expired.
    return [signed_request(notification(timeout_ms=5_000), secret=SECRET) for _ in range(count)]


async def _answered(receiver: AsyncWebhookReceiver, requests: list[Request], in_flight: int) -> float:
    """Return the seconds that a notification takes."""
    left = iter(requests)

    async def answer() -> None:
        for request in left:
            if (await receiver.handle(request)).status != 200:
                raise RuntimeError

    began = time.perf_counter()
    await asyncio.gather(*(answer() for _ in range(in_flight)))
    return (time.perf_counter() - began) / len(requests)


async def alone() -> Result:
    keys = signing_keys(SECRET)
    receiver = _receiver()
    ours: list[float] = []
    floor: list[float] = []
    for turn in range(ROUNDS + 3):
        requests = _requests(CALLS)
        took = await _answered(receiver, requests, 1)
        began = time.perf_counter()
        for request in requests:
            match(request.body, request.header_values(SIGNATURE_HEADER)[0], keys)
            WebhookNotification.from_json(request.body)
        parsed = (time.perf_counter() - began) / CALLS
        if turn >= 3:  # until then the code warms up
            ours.append(took)
            floor.append(parsed)
    return Result(
        "a receiver alone / verify + parse", "us", statistics.median(ours) * 1e6, statistics.median(floor) * 1e6, 4.5
    )


def measure() -> list[Result]:
    return [asyncio.run(alone())]
