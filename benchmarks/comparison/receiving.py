"""One notification after the other, to gates that are built in different ways; faults on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from benchmarks.comparison.by_hand import Decide, Verify, create_app, verified_by
from benchmarks.comparison.words import KEY, NOT_ITS_JOB, SECRET, Table, logged, word
from optimove_conditional_execution import (
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    Deadline,
    WebhookNotification,
    sign,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.errors import ConfigurationError
from optimove_conditional_execution.rehearsal.base import served
from optimove_conditional_execution.testing import FakeOptimove, FaultServer, SentNotification, faults, notification
from optimove_conditional_execution.testing.fault_server import Faults

PLAYER: Final = "C234638"
PATIENCE: Final = 5.0
"""Seconds from a notification to the end of all waiting; its deadline is earlier."""

Mount = Callable[[Decide, str, str], contextlib.AbstractAsyncContextManager[str]]
"""Serves a gate: how it decides, Optimove's URL, the secret; yields the webhook's URL."""


@contextlib.asynccontextmanager
async def sdk(decide: Decide, base_url: str, secret: str) -> AsyncIterator[str]:
    async def handler(given: WebhookNotification, deadline: Deadline) -> Any:
        return await decide(given.user.user_id)

    async with AsyncOptimoveClient(KEY, base_url=base_url) as client:
        receiver = AsyncWebhookReceiver(handler, client=client, secrets=secret)
        async with served(ASGIApp(receiver)) as url:
            yield f"{url}/optimove"


@contextlib.asynccontextmanager
async def by_hand(decide: Decide, base_url: str, secret: str, *, verify: Verify | None = None) -> AsyncIterator[str]:
    app = create_app(decide, verify=verify or verified_by(secret), base_url=base_url, api_key=KEY)
    async with served(app) as url:
        yield f"{url}/optimove"


def library(module: str, prefix: str) -> Mount:
    """Return a gate by hand whose signatures a library checks, with what Optimove sends put where it looks."""

    def mount(decide: Decide, base_url: str, secret: str) -> contextlib.AbstractAsyncContextManager[str]:
        webhook = importlib.import_module(module).Webhook(secret.encode())

        def verify(body: bytes, headers: Mapping[str, str]) -> bool:
            signature = headers.get("optimove-signature-content", "")
            # Optimove sends neither a message id nor a time beside the body's; these are the nearest there is.
            given = json.loads(body)
            mapped = {
                f"{prefix}-id": given["request_uid"],
                f"{prefix}-timestamp": str(given["timestamp"] // 1000),
                f"{prefix}-signature": f"v1,{signature}",
            }
            try:
                webhook.verify(body, mapped)
            except Exception:  # noqa: BLE001 - whatever it raises, it does not take it for genuine
                return False
            return True

        return by_hand(decide, base_url, secret, verify=verify)

    return mount


GATES: Final[Mapping[str, Mount]] = {
    "this SDK": sdk,
    "by hand": by_hand,
    "standardwebhooks": library("standardwebhooks", "webhook"),
    "svix": library("svix.webhooks", "svix"),
}


@dataclass
class Scene:
    """A gate that is served, and Optimove on both sides of it."""

    url: str
    optimove: FakeOptimove
    http: httpx.AsyncClient
    asked: list[str] = field(default_factory=list)

    def question(self, *, timeout_ms: int = 2_000) -> tuple[SentNotification, bytes]:
        """Return a question, and the body that asks it."""
        payload = notification(PLAYER, timeout_ms=timeout_ms)
        return self.optimove.expect(payload), json.dumps(payload, indent=1).encode()

    async def post(self, body: bytes, signature: str | bytes | None = None) -> int:
        """Post a body, by default with its signature; return the status."""
        given = sign(body, secret=SECRET) if signature is None else signature
        headers: list[tuple[bytes, bytes]] = [
            (b"optimove-signature-content", given if isinstance(given, bytes) else given.encode())
        ]
        return (await self.http.post(self.url, content=body, headers=headers)).status_code

    @property
    def answers(self) -> int:
        """How many answers Optimove has had."""
        return len(self.optimove.calls_of("send_webhook_approval"))


@contextlib.asynccontextmanager
async def scene(mount: Mount, decision: object = True, *, given: Faults = ()) -> AsyncIterator[Scene]:
    """Serve a gate that answers with a decision, or with what a function of the player's id makes."""
    asked: list[str] = []

    async def decide(user_id: str) -> object:
        asked.append(user_id)
        return await decision(user_id) if callable(decision) else decision

    optimove = FakeOptimove(api_key=KEY, secret=SECRET)
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as http:
        with FaultServer(given, optimove=optimove) as server:
            async with mount(decide, server.url, SECRET) as url:
                yield Scene(url, optimove, http, asked)


async def genuine(mount: Mount) -> bool:
    async with scene(mount) as now:
        question, body = now.question()
        return await now.post(body) == 200 and question.approved


async def changed(mount: Mount) -> bool:
    async with scene(mount) as now:
        question, body = now.question()
        signature = sign(body, secret=SECRET)
        return await now.post(body.replace(PLAYER.encode(), b"C999999"), signature) == 401 and not question.approved


async def non_ascii(mount: Mount) -> bool:
    async with scene(mount) as now:
        return await now.post(now.question()[1], b"\xff\xfe") == 401


async def empty_secret(mount: Mount) -> bool:
    async def decide(_: str) -> bool:
        return True

    try:
        async with mount(decide, "http://127.0.0.1:9", ""):
            return False
    except ConfigurationError:
        return True


async def large(mount: Mount) -> bool:
    """Whether 5 MB are refused without being read: they are promised, and only a few bytes come."""
    async with scene(mount) as now:
        parts = httpx.URL(now.url)
        reader, writer = await asyncio.open_connection(parts.host, parts.port)
        try:
            head = f"POST {parts.path} HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\n\r\n"
            writer.write(head.encode() + b"x" * 1_000)
            async with asyncio.timeout(1.0):
                return b" 413 " in await reader.readline()
        except TimeoutError:
            return False
        finally:
            writer.close()


async def twice(mount: Mount) -> bool:
    async with scene(mount) as now:
        _, body = now.question()
        await now.post(body)
        await now.post(body)
        return len(now.asked) == now.answers == 1


async def raising(mount: Mount) -> bool:
    async def decide(user_id: str) -> object:
        raise LookupError(user_id)

    return await approves_nobody(mount, decide)


async def approves_nobody(mount: Mount, decision: object) -> bool:
    async with scene(mount, decision) as now:
        question, body = now.question()
        await now.post(body)
        return not question.approved


async def late(mount: Mount) -> bool:
    """Whether nothing is sent after the deadline by a gate that needs twice as long."""

    async def decide(_: str) -> bool:
        await asyncio.sleep(1.0)
        return True

    async with scene(mount, decide) as now:
        question, body = now.question(timeout_ms=500)
        await now.post(body)
        return now.answers == 0 and not question.approved


async def unavailable(mount: Mount) -> bool:
    async with scene(mount, given=[faults.unavailable()]) as now:
        question, body = now.question()
        await now.post(body)
        return question.approved


async def limited(mount: Mount) -> bool:
    times: list[float] = []

    def fault(_: object) -> faults.Fault | None:
        times.append(time.monotonic())
        return faults.rate_limited(1) if len(times) == 1 else None

    async with scene(mount, given=fault) as now:
        question, body = now.question(timeout_ms=4_000)
        await now.post(body)
        return question.approved and times[1] - times[0] >= 0.95


async def dripping(mount: Mount) -> bool:
    """Whether the webhook is answered by the deadline while Optimove's answer drips."""
    async with scene(mount, given=[faults.drip_body(0.05)]) as now:
        began = time.monotonic()
        with contextlib.suppress(httpx.TimeoutException):
            await now.post(now.question(timeout_ms=1_500)[1])
        return time.monotonic() - began < 3.0


async def overload(mount: Mount) -> bool:
    release = asyncio.Event()

    async def decide(_: str) -> bool:
        await release.wait()
        return False

    timeout_ms = round(800 * PATIENCE)
    async with scene(mount, decide) as now:
        posts = [asyncio.ensure_future(now.post(now.question(timeout_ms=timeout_ms)[1])) for _ in range(98)]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE / 5):
                while len(now.asked) < len(posts):
                    await asyncio.sleep(0.01)
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False, limits=limits) as now.http:
            posts += [asyncio.ensure_future(now.post(now.question(timeout_ms=timeout_ms)[1])) for _ in range(20)]
            await asyncio.wait(posts, timeout=PATIENCE / 3, return_when=asyncio.FIRST_COMPLETED)
            refused = [post for post in posts if post.done() and post.result() == 503]
            release.set()
            await asyncio.gather(*posts)
        return bool(refused)


async def keeps_secrets(mount: Mount) -> bool:
    with logged() as texts:
        async with scene(mount) as now:
            _, body = now.question()
            signature = sign(body, secret=SECRET)
            await now.post(body, signature)
        # What httpx logs for this program, which plays Optimove, is not the gate's.
        return not any(word in text for text in texts for word in (KEY, SECRET, signature))


async def keeps_persons(mount: Mount) -> bool:
    async def decide(user_id: str) -> object:
        raise LookupError(f"no player {user_id}")

    with logged() as texts:
        async with scene(mount, decide) as now:
            await now.post(now.question()[1])
        return not any(PLAYER in text for text in texts)


PROBES: Final[Mapping[str, Callable[[Mount], Awaitable[bool]]]] = {
    "takes Optimove's signature for genuine": genuine,
    "refuses a body that was changed, with 401": changed,
    "refuses a signature that is not ASCII, with 401": non_ascii,
    "refuses to start with an empty secret": empty_secret,
    "refuses 5 MB before they have come, with 413": large,
    "decides about a notification once when it comes twice": twice,
    "approves nobody when the decision raises": raising,
    "approves nobody when it returns `None`": lambda mount: approves_nobody(mount, None),
    'approves nobody when it returns `"no"`, or anything else that is truthy': lambda mount: approves_nobody(
        mount, "no"
    ),
    "sends nothing after the deadline when the decision is late": late,
    "delivers an approval after a 503": unavailable,
    "delivers it after a 429, not before `Retry-After`": limited,
    "answers the webhook by the deadline while Optimove's answer drips": dripping,
    "refuses at once, with 503, what is more than 100 at a time": overload,
    "logs no key, secret or signature, even at DEBUG": keeps_secrets,
    "logs nothing personal when the decision raises": keeps_persons,
}
"""What a webhook should do."""

FIRST: Final = "takes Optimove's signature for genuine"


async def compare(names: list[str] | None = None) -> Table:
    """Put every gate before every fault; one that takes no genuine notification has no further answers."""
    gates = {name: mount for name, mount in GATES.items() if names is None or name in names}
    cells: dict[str, list[str]] = {feature: [] for feature in PROBES}
    with logged():  # or tracebacks of the others would fill the terminal
        for mount in gates.values():
            takes = await genuine(mount)
            for feature, probe in PROBES.items():
                cells[feature].append(word(await probe(mount)) if takes else "no" if feature == FIRST else NOT_ITS_JOB)
    return Table("A webhook for triggered campaigns", list(gates), cells)
