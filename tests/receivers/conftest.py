"""One test body for both receivers: `desk` makes a receiver over a fresh stand-in for Optimove."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from optimove_conditional_execution import (
    AsyncWebhookReceiver,
    Outcome,
    Request,
    Response,
    RetryPolicy,
    WebhookReceiver,
)
from optimove_conditional_execution.testing import FakeOptimove, SentNotification, notification, signed_request

QUICK = RetryPolicy(first_pause=0.001, longest_pause=0.002)


class Rig:
    """A receiver of either colour, the stand-in behind it, and the outcomes so far."""

    def __init__(self, kind: str, runner: asyncio.Runner, handler: Any, options: dict[str, Any]) -> None:
        self.kind = kind
        self.runner = runner
        self.optimove = FakeOptimove(wall_clock=options.pop("wall_clock", time.time))
        self.outcomes: list[Outcome] = []
        settings = {"secrets": self.optimove.secret, "on_outcome": self.outcomes.append, **options}
        retry = settings.pop("retry", QUICK)
        self.receiver: Any
        if kind == "sync":
            client = settings.pop("client", None) or self.optimove.client(retry=retry)
            self.receiver = WebhookReceiver(handler, client=client, **settings)
        else:
            aclient = settings.pop("client", None) or self.optimove.async_client(retry=retry)
            self.receiver = AsyncWebhookReceiver(handler, client=aclient, **settings)

    def handle(self, request: Request, **options: Any) -> Response:
        result = self.receiver.handle(request, **options)
        response: Response = self.runner.run(awaited(result)) if inspect.isawaitable(result) else result
        return response

    def send(self, payload: dict[str, Any] | bytes, *, secret: str | None = None) -> Response:
        return self.handle(signed_request(payload, secret=secret or self.optimove.secret))

    def notify(self, user_id: str = "C234638", **options: Any) -> SentNotification:
        """Make Optimove ask; return the question with the webhook's answer."""
        payload = notification(user_id, **options)
        question = self.optimove.expect(payload)
        question.responses.append(self.send(payload))
        return question

    @property
    def outcome(self) -> Outcome:
        """The only outcome so far."""
        (outcome,) = self.outcomes
        return outcome

    def approvals(self) -> list[dict[str, Any]]:
        """What was sent to Optimove, every try of it."""
        return [json.loads(call.request.body) for call in self.optimove.calls_of("send_webhook_approval")]


async def awaited(result: Any) -> Any:
    return await result


MakeRig = Callable[..., Rig]


@pytest.fixture(params=["sync", "async with a coroutine", "async with a function"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rig(kind: str) -> Iterator[MakeRig]:
    """Make a rig around a plain function; for the second kind it is turned into a coroutine function."""
    with asyncio.Runner() as runner:

        def made(handler: Any, **options: Any) -> Rig:
            if kind == "async with a coroutine" and not inspect.iscoroutinefunction(handler):

                async def coroutine(notification: Any, deadline: Any) -> Any:
                    return handler(notification, deadline)

                return Rig("async", runner, coroutine, options)
            return Rig(kind.split()[0], runner, handler, options)

        yield made
