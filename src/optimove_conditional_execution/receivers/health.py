"""Liveness and readiness for supervisors such as Kubernetes, over HTTP, sync and async."""

from __future__ import annotations

import abc
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

from ..client import AsyncOptimoveClient, OptimoveClient
from ..deadline import Deadline
from ..drivers import Pools, arun, run
from ..errors import ConfigurationError
from ..flows.claims import ClaimStore
from ..flows.effects import Ask, Flow, Late, Overloaded, exception_name
from ..flows.journal import Journal
from ..messages import Request, Response, plain
from ..validation import is_async, seconds
from ..worker_pool import DaemonThreadPool
from .base import BaseReceiver, check_store, flavour_for_loop

C = TypeVar("C", OptimoveClient, AsyncOptimoveClient)

_CHECKS_AT_ONCE: Final = 4
"""Threads; further checks are not ready, so that probes cannot pile up behind a store that hangs."""

_KEPT_SECONDS: Final = 0.5
"""Seconds for which a readiness answer is given again, so that many probes cause few calls to the stores."""

_QUESTION: Final = "optimove-ce health"
"""A name that no notification has: releasing what nobody holds changes nothing."""


class _Health(BaseReceiver, Generic[C]):
    """Base class of both."""

    def __init__(
        self,
        *,
        client: C,
        claims: ClaimStore | None = None,
        journal: Journal | None = None,
        live: str = "/healthz",
        ready: str = "/readyz",
        timeout: float = 1.0,
    ) -> None:
        """Set up the checks; nothing is called yet.

        Args:
            client: Ready while it is not closed. Nothing is sent: a failure of Optimove's must not take your service
                out of its load balancer.
            claims: The claim store of your gate; ready when it answers. None where there is none to reach.
            journal: The journal of your reviews; ready when it can be read.
            live: The path of the liveness answer: 200 as soon as the process answers requests at all.
            ready: The path of the readiness answer: 200 when all of the above are ready, 503 when one is not.
            timeout: Seconds for all checks together.

        Raises:
            ConfigurationError: A setting is invalid.
        """
        if isinstance(client, type) or not isinstance(getattr(client, "is_closed", None), bool):
            raise ConfigurationError("client must be an OptimoveClient or an AsyncOptimoveClient.")
        for name, path in (("live", live), ("ready", ready)):
            if not isinstance(path, str) or not path.startswith("/"):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
                raise ConfigurationError(f"{name} must be a path that begins with a slash.")
        if live == ready:
            raise ConfigurationError("live and ready must be two paths.")
        self._live = live
        self._ready = ready
        self._timeout = seconds("timeout", timeout, above_zero=True)
        self._max_body = 0
        self._checks: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        if claims is not None:
            check_store(claims)
            self._checks["claims"] = (self._flavour_of(claims).release, (_QUESTION, secrets.token_hex(16)))
        if journal is not None:
            self._checks["journal"] = (journal.unfinished, ())
        self._client: C = client
        self._last: tuple[float, Response] | None = None
        self._check()
        pool = DaemonThreadPool(_CHECKS_AT_ONCE, on_full="refuse", name="optimove-health")
        self._pools = Pools(pool, pool, pool)

    @abc.abstractmethod
    def _check(self) -> None:
        """Reject a store that only the other class can call."""

    def _flavour_of(self, claims: ClaimStore) -> ClaimStore:
        """Return the store as this class calls it."""
        return claims

    def handles(self, path: str) -> bool:
        """Return whether a path is one of the two.

        Args:
            path: The path of a request.
        """
        return path in (self._live, self._ready)

    def too_large(self) -> Response:
        """Return the response to a request with a body."""
        return plain(413, "No body is expected here.")

    def _answer(self, request: Request) -> Flow[Response]:
        if not self.handles(request.path):
            return plain(404, "There is no such path.")
        if request.method not in ("GET", "HEAD"):
            return plain(405, "Only GET and HEAD are allowed.", headers={"allow": "GET, HEAD"})
        if request.path == self._live:
            return _json(200, {"status": "live"})
        now = time.monotonic()
        if self._last is not None and now - self._last[0] < _KEPT_SECONDS and not self._client.is_closed:
            return self._last[1]
        if self._last is not None:
            self._last = now, self._last[1]  # given to others while this one checks
        found = {"client": "closed" if self._client.is_closed else "ready"}
        deadline = Deadline.after(self._timeout)
        for number, (name, (function, arguments)) in enumerate(self._checks.items()):
            # Each gets an equal share of what is left, so that one that hangs leaves time for the others.
            share = Deadline.after(deadline.remaining() / (len(self._checks) - number))
            found[name] = yield from _state(function, arguments, share)
        is_ready = all(state == "ready" for state in found.values())
        response = _json(200 if is_ready else 503, {"status": "ready" if is_ready else "not ready", **found})
        self._last = time.monotonic(), response
        return response


def _state(function: Callable[..., Any], arguments: tuple[Any, ...], deadline: Deadline) -> Flow[str]:
    try:
        yield Ask(function, arguments, deadline, "handler")
    except Late:
        return "no answer in time"
    except Overloaded:
        return "earlier checks hang"
    except Exception as error:  # noqa: BLE001 - a store may raise anything; its message may hold a URL
        return exception_name(error)
    return "ready"


def _json(status: int, value: Mapping[str, str]) -> Response:
    body = json.dumps(value).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), "cache-control": "no-store"}
    return Response(status, headers, body)


class Health(_Health[OptimoveClient]):
    """Answers a supervisor's probes: liveness and readiness.

    Pass it to `adapters.wsgi.WSGIApp` as `health=`, or call `handle` in views of your framework. The answer names what
    is not ready and the class of the exception, and holds neither secrets nor ids, but it is for your supervisor: do
    not make it public. Nothing is written.
    """

    def _check(self) -> None:
        if any(is_async(function) for function, _ in self._checks.values()):
            raise ConfigurationError("A store with coroutine functions needs AsyncHealth.")

    def handle(self, request: Request) -> Response:
        """Answer a probe; blocks for `timeout` at most.

        Args:
            request: Its method and path.
        """
        return run(self._answer(request), pools=self._pools)


class AsyncHealth(_Health[AsyncOptimoveClient]):
    """Answers a supervisor's probes in an event loop: see `Health`. Pass it to `adapters.asgi.ASGIApp` as `health=`."""

    def _check(self) -> None:
        """Stores of both kinds can be called."""

    def _flavour_of(self, claims: ClaimStore) -> ClaimStore:
        return flavour_for_loop(claims)

    async def handle(self, request: Request) -> Response:
        """Answer a probe, within `timeout`.

        Args:
            request: Its method and path.
        """
        return await arun(self._answer(request), pools=self._pools)
