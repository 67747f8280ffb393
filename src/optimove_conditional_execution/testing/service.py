"""What the stand-in does with every request: check the key, find the call, answer it, remember it."""

from __future__ import annotations

import hmac
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, final
from zoneinfo import ZoneInfo

from optimove_conditional_execution.client import AsyncOptimoveClient, OptimoveClient
from optimove_conditional_execution.deadline import Clock, zone_of
from optimove_conditional_execution.messages import Request, Response
from optimove_conditional_execution.operations import ENDPOINTS, Endpoint, Endpoints
from optimove_conditional_execution.testing.records import Call
from optimove_conditional_execution.testing.wire import error_response, parameter
from optimove_conditional_execution.transport.http import local_async_client, local_client

_MAX_BODY: Final = 8_388_608
"""Bytes: ten thousand statuses with the longest ids that are likely."""

_KEPT_BODY: Final = 65_536
"""Bytes of a body that is remembered: a hundred full updates would take 40 MB."""


class Receiver(Protocol):
    """What takes Optimove's requests in the same process: a `WebhookReceiver`, a `ListenerReceiver`."""

    def handle(self, request: Request) -> Response:
        """Answer a request."""
        ...


class AsyncReceiver(Protocol):
    """What takes Optimove's requests in the same process: `AsyncWebhookReceiver`, `AsyncListenerReceiver`."""

    def handle(self, request: Request) -> Awaitable[Response]:
        """Answer a request."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Setup:
    """What both halves of the stand-in share.

    Attributes:
        api_key: The only key that is let in.
        base_url: What the clients of `client` and `async_client` are told.
        endpoints: Methods and paths.
        wall_clock: Seconds since 1970.
        timezone: The zone of time stamps that have none.
    """

    api_key: str = "fake-api-key"
    base_url: str = "https://optimove.test"
    endpoints: Endpoints = ENDPOINTS
    wall_clock: Clock = time.time
    timezone: ZoneInfo | str = "UTC"


@final
@dataclass(frozen=True, slots=True)
class Route:
    """A call that is understood.

    Attributes:
        name: Its name, as the client's method.
        endpoint: Method and path.
        answer: Takes the request and the path's parameter.
        any_case: Whether the case of the path's letters matters not.
    """

    name: str
    endpoint: Endpoint
    answer: Callable[[Request, str], Response]
    any_case: bool = False


class Service:
    """An API without IO: `Request -> Response`, with a record of what was called. Safe for threads."""

    def __init__(self, setup: Setup) -> None:
        """Understand no call yet: the halves add theirs to `_routes`."""
        self.api_key = setup.api_key
        self.base_url = setup.base_url
        self.timezone = zone_of(setup.timezone)
        self.calls: list[Call] = []
        self._endpoints = setup.endpoints
        self._wall_clock = setup.wall_clock
        self._lock = threading.RLock()
        self._planned: deque[Response] = deque()
        self._routes: list[Route] = []

    def client(self, **options: Any) -> OptimoveClient:
        """Return a client that talks to this fake without sockets, in this fake's time zone.

        Args:
            options: Further arguments of `OptimoveClient`.
        """
        settings = self._settings(options)
        return OptimoveClient(settings.pop("api_key"), http_client=local_client(self.handle), **settings)

    def async_client(self, **options: Any) -> AsyncOptimoveClient:
        """Return an async client that talks to this fake without sockets, in this fake's time zone.

        Args:
            options: Further arguments of `AsyncOptimoveClient`.
        """
        settings = self._settings(options)
        return AsyncOptimoveClient(settings.pop("api_key"), http_client=local_async_client(self.handle), **settings)

    def _settings(self, options: dict[str, Any]) -> dict[str, Any]:
        mine = {
            "api_key": self.api_key,
            "base_url": self.base_url,
            "timezone": self.timezone,
            "endpoints": self._endpoints,
        }
        return {**mine, **options}

    @property
    def max_body(self) -> int:
        """Bytes of a request at most, for the adapters."""
        return _MAX_BODY

    def too_large(self) -> Response:
        """Return the answer to a longer body."""
        return error_response(413, "Payload Too Large", "The body is too large.")

    def handle(self, request: Request) -> Response:
        """Answer a call to Optimove's API."""
        with self._lock:
            name, response = self._routed(request)
            if self._planned:
                response = self._planned.popleft()
            self.calls.append(Call(name, _kept(request), response.status, self._now_ms()))
            return response

    def answer_next(self, *responses: Response) -> None:
        """Answer the next calls with these responses instead; what the calls do to the fake happens all the same.

        Args:
            responses: One for each of the next calls, such as `Response(503)`.
        """
        with self._lock:
            self._planned.extend(responses)

    def calls_of(self, operation: str) -> list[Call]:
        """Return the recorded calls of one kind, such as `send_webhook_approval`."""
        with self._lock:
            return [call for call in self.calls if call.operation == operation]

    def _now_ms(self) -> int:
        return round(self._wall_clock() * 1000)

    def _routed(self, request: Request) -> tuple[str, Response]:
        keys = request.header_values("x-api-key")
        if len(keys) != 1 or not hmac.compare_digest(keys[0].encode(), self.api_key.encode()):
            return "", error_response(401, "Unauthorized", "The API key is missing or wrong.")
        allowed: set[str] = set()
        for route in self._routes:
            found = parameter(route.endpoint.path, request.path, any_case=route.any_case)
            if found is None:
                continue
            if route.endpoint.method == request.method:
                return route.name, route.answer(request, found)
            allowed.add(route.endpoint.method)
        if allowed:
            return "", error_response(405, "Method Not Allowed", f"Allowed: {', '.join(sorted(allowed))}.")
        return "", error_response(404, "Not Found", "There is no such path.")


def _kept(request: Request) -> Request:
    if len(request.body) <= _KEPT_BODY:
        return request
    return Request(request.method, request.path, request.query, request.headers)
