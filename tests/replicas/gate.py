"""A gate that one of several replicas runs: it answers at random, and writes down what it was asked.

A second decision about a notification shows as a second line, and half of the time as another answer.

`python -m tests.replicas.gate FD...` serves one replica for each listening socket, in a process of its own, until its
standard input ends. It forks them, since on a loaded machine eight interpreters take half a minute to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HTTPRequest
from starlette.responses import Response as HTTPResponse
from starlette.routing import Route

from optimove_conditional_execution import (
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    Deadline,
    OptimoveClient,
    Outcome,
    Request,
    WebhookNotification,
    WebhookReceiver,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.stores import Claim, ClaimStore, SqliteClaims

UID: Final = "x-request-uid"
"""The header with the name of a notification, which is also in its body."""

_STALLED: Final = 0.1
"""Seconds that an event loop is late before the replica counts as frozen: a loaded machine freezes processes too."""


def claims_of(url: str) -> ClaimStore | None:
    """Return the store of a URL; None when nothing is shared."""
    if url == "none":
        return None
    if url.startswith("sqlite:"):
        return SqliteClaims(url.removeprefix("sqlite:"))
    from tests.servers import claims  # which needs the extras

    return claims.claims_of(url)


class Diary:
    """A file that all replicas append to, a line at a time."""

    def __init__(self, replica: int) -> None:
        self._file = os.open(os.environ["REPLICA_DIARY"], os.O_WRONLY | os.O_APPEND)
        self._replica = replica

    def write(self, what: str, **details: object) -> None:
        """Append a line; it is there when this returns, even if the process is killed."""
        line = {"replica": self._replica, "what": what, "at": time.monotonic(), **details}
        os.write(self._file, f"{json.dumps(line)}\n".encode())

    def outcome(self, outcome: Outcome) -> None:
        """Append an outcome."""
        self.write("outcome", uid=outcome.request_uid, kind=outcome.kind, status=outcome.status, error=outcome.error)


class Watched:
    """A claim store whose diary tells which leases it has certainly given: a reply can be lost."""

    def __init__(self, store: ClaimStore, diary: Diary) -> None:
        self.instant = store.instant
        self._diary = diary
        self.acquire, self.renew = self._noted(store.acquire), self._noted(store.renew)
        self.update, self.release = self._noted(store.update), store.release

    def _noted(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def note(since: float, result: Any, question: str, *arguments: Any) -> Any:
            if result.mine if isinstance(result, Claim) else result:
                # It runs from the step on, so since then at least.
                self._diary.write("leased", uid=question.split()[0], since=since, lease=arguments[-2])
            return result

        if not inspect.iscoroutinefunction(step):
            return lambda *arguments: note(time.monotonic(), step(*arguments), *arguments)

        async def astep(*arguments: Any) -> Any:
            since = time.monotonic()
            return note(since, await step(*arguments), *arguments)

        return astep


async def stalls(note: Callable[[float, float], object]) -> None:
    """Note each time at which this process did not run: its beginning and its end, on the monotonic clock."""
    while True:
        before = time.monotonic()
        await asyncio.sleep(0.02)
        now = time.monotonic()
        if now - before > _STALLED:
            note(before, now)


def create_app(replica: int) -> Any:
    """Return the gate of a replica, configured by its environment."""
    diary = Diary(replica)
    secret = os.environ["OPTIMOVE_WEBHOOK_SECRET"]
    is_async = os.environ["REPLICA_RECEIVER"] == "async"
    claims = claims_of(os.environ["REPLICA_CLAIMS"])
    if claims is not None:
        claims = Watched(getattr(claims, "asynchronous", claims) if is_async else claims, diary)

    def asked(notification: WebhookNotification) -> float:
        diary.write("asked", uid=notification.request_uid)
        return float(notification.user.personalization["seconds"])

    async def decide(notification: WebhookNotification, deadline: Deadline) -> bool:
        await asyncio.sleep(asked(notification))
        return random.random() < 0.5

    def decide_in_a_thread(notification: WebhookNotification, deadline: Deadline) -> bool:
        time.sleep(asked(notification))
        return random.random() < 0.5

    endpoint: Any
    if is_async:
        client = AsyncOptimoveClient()
        endpoint = ASGIApp(
            AsyncWebhookReceiver(decide, client=client, secrets=secret, claims=claims, on_outcome=diary.outcome)
        )
    else:
        receiver = WebhookReceiver(
            decide_in_a_thread, client=OptimoveClient(), secrets=secret, claims=claims, on_outcome=diary.outcome
        )

        async def endpoint(http: HTTPRequest) -> HTTPResponse:
            request = Request(http.method, http.url.path, "", dict(http.headers), await http.body())
            answer = await asyncio.to_thread(receiver.handle, request)
            return HTTPResponse(answer.body, answer.status, dict(answer.headers))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(stalls(lambda since, until: diary.write("stalled", since=since, until=until)))
        yield
        watching.cancel()

    gate = Starlette(routes=[Route("/optimove", endpoint, methods=["POST"])], lifespan=lifespan)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            diary.write("came", uid=dict(scope["headers"])[UID.encode()].decode())
        await gate(scope, receive, send)

    return app


def main() -> None:
    """Serve the sockets of the command line, and print the id of each process."""
    OptimoveClient().close()  # which imports what it needs, once for all
    children: list[int] = []
    for replica, descriptor in enumerate(map(int, sys.argv[1:])):
        child = os.fork()
        if child == 0:
            uvicorn.run(create_app(replica), fd=descriptor, lifespan="on", access_log=False)
            os._exit(0)
        children.append(child)
    print(*children, flush=True)
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
