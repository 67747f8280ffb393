"""The demo's run: a simulator, a sample service in its own process, and notifications over real HTTP between them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, final

from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.cli.judgement import Observation
from optimove_conditional_execution.cli.postman import Postman, until_over
from optimove_conditional_execution.cli.scenarios import Part
from optimove_conditional_execution.cli.secret_variables import SECRET_VARIABLE
from optimove_conditional_execution.cli.servers import Simulator, served
from optimove_conditional_execution.cli.service_process import SAMPLE_SERVICE, service_process
from optimove_conditional_execution.client import AsyncOptimoveClient
from optimove_conditional_execution.settings import API_KEY_VARIABLE, BASE_URL_VARIABLE
from optimove_conditional_execution.testing import FakeOptimove, SentNotification, signed_request
from optimove_conditional_execution.transport.http import AsyncHttpEngine

_SPREAD_SECONDS: Final = 3.0
_LONGEST_PAUSE: Final = 0.1
_SHORTEST_PAUSE: Final = 0.02


@final
@dataclass(slots=True)
class Visit:
    """One part while it is played.

    Attributes:
        part: Who, and what kind.
        question: What the simulator knows of it.
        statuses: What the webhook has answered so far.
        over: Whether nothing more is waited for.
    """

    part: Part
    question: SentNotification
    statuses: list[int | None] = field(default_factory=list)
    over: bool = False

    def observation(self) -> Observation:
        """Return what has been seen so far."""
        answer = self.question.answer
        return Observation(
            scenario=self.part.scenario,
            user_id=self.part.user_id,
            statuses=tuple(self.statuses),
            answer=None if answer is None else answer.approved,
            ignored=tuple(approval.approved for approval in self.question.ignored),
            latency_ms=self.question.latency_ms,
        )


async def rehearse(
    parts: Sequence[Part],
    *,
    timeout_ms: int,
    on_change: Callable[[Visit], None],
    command: Sequence[str] = SAMPLE_SERVICE,
) -> list[Observation]:
    """Play the parts to their end.

    Args:
        parts: From `scenarios.cast`.
        timeout_ms: Milliseconds that an answer may take.
        on_change: Called when a visit begins, and when more of it is known.
        command: How to start the service; see `service_process`.

    Returns:
        What was seen of each part, after all deadlines.

    Raises:
        ConfigurationError: A server or the service did not start.
        OptimoveError: The webhook could not be registered.
    """
    fake = FakeOptimove(api_key=secrets.token_urlsafe(24), secret=None, timeout_ms=timeout_ms)
    secret = secrets.token_urlsafe(32)
    async with contextlib.AsyncExitStack() as stack:
        base_url = await stack.enter_async_context(served(ASGIApp(Simulator(fake))))
        settings = {API_KEY_VARIABLE: fake.api_key, BASE_URL_VARIABLE: base_url, SECRET_VARIABLE: secret}
        url = await stack.enter_async_context(service_process(settings, command=command))
        client = await stack.enter_async_context(AsyncOptimoveClient(fake.api_key, base_url=base_url))
        await client.ensure_webhook(url)
        await client.update_webhook_settings(timeout_ms=timeout_ms, secret=secret)
        engine = await stack.enter_async_context(contextlib.aclosing(AsyncHttpEngine()))
        visits = await _Stage(fake, Postman(engine), on_change).play(parts)
        return [visit.observation() for visit in visits]


@final
@dataclass(frozen=True, slots=True)
class _Stage:
    fake: FakeOptimove
    postman: Postman
    on_change: Callable[[Visit], None]

    async def play(self, parts: Sequence[Part]) -> list[Visit]:
        pause = min(max(_SPREAD_SECONDS / max(1, len(parts)), _SHORTEST_PAUSE), _LONGEST_PAUSE)
        async with asyncio.TaskGroup() as group:
            running = []
            for part in parts:
                running.append(group.create_task(self._visit(part)))
                await asyncio.sleep(pause)
        return [task.result() for task in running]

    async def _visit(self, part: Part) -> Visit:
        question, (delivery, *_) = self.fake.trigger(part.user_id, personalization=part.personalization)
        if part.scenario.forged:
            request = delivery.request
            forged = signed_request(request.body, secret=secrets.token_urlsafe(32), path=request.path)
            delivery = replace(delivery, request=forged)
        visit = Visit(part, question)
        self.on_change(visit)
        for _ in range(part.scenario.copies):
            reply = await self.postman.post(delivery, timeout_ms=self.fake.timeout_ms)
            visit.statuses.append(reply.status)
            self.on_change(visit)
        await until_over(question)
        visit.over = True
        self.on_change(visit)
        return visit
