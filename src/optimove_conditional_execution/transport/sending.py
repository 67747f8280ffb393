"""Send an operation: its turn at the limiter, its tries, its answer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final, Generic, TypeVar, final
from urllib.parse import urlencode

from optimove_conditional_execution._version import __version__
from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import (
    APIError,
    ConfigurationError,
    DeadlineExceeded,
    NotFoundError,
    OptimoveError,
    RateLimitError,
    TransportError,
)
from optimove_conditional_execution.messages import Response
from optimove_conditional_execution.operations import Endpoints, Operation
from optimove_conditional_execution.settings import ClientSettings, seconds
from optimove_conditional_execution.transport.answers import interpret
from optimove_conditional_execution.transport.exchange import AsyncEngine, Engine, Exchange
from optimove_conditional_execution.transport.limiter import RateLimit, RateLimiter
from optimove_conditional_execution.transport.retry import RetryPolicy, Strategy, async_retrying, retrying, strategy

T = TypeVar("T")

_USER_AGENT: Final = f"optimove-conditional-execution/{__version__}"


@final
class Rules:
    """What holds for every call of a client, sync or async."""

    def __init__(
        self,
        settings: ClientSettings,
        *,
        endpoints: Endpoints,
        timeout: float,
        retry: RetryPolicy,
        rate_limit: RateLimit | None,
        approval_rate_limit: RateLimit | None,
    ) -> None:
        """Keep the rules, and start counting requests.

        Raises:
            ConfigurationError: `timeout` is not a number above 0.
        """
        seconds("timeout", timeout, above_zero=True)
        kinds = (
            (endpoints, Endpoints),
            (retry, RetryPolicy),
            (rate_limit, RateLimit),
            (approval_rate_limit, RateLimit),
        )
        for given, kind in kinds:
            if not isinstance(given, kind) and not (given is None and kind is RateLimit):
                raise ConfigurationError(
                    f"{type(given).__name__} is not a {kind.__name__}: check the client's arguments."
                )
        self.settings = settings
        self.endpoints = endpoints
        self.timeout = timeout
        self.retry = retry
        self.limiters: dict[str, RateLimiter | None] = {
            "general": None if rate_limit is None else RateLimiter(rate_limit),
            "approval": None if approval_rate_limit is None else RateLimiter(approval_rate_limit),
        }


def send(rules: Rules, engine: Engine, operation: Operation[T], deadline: Deadline | None) -> T:
    """Send an operation in this thread; see `OptimoveClient.send`."""
    sending = _Sending(rules, operation, deadline)

    def attempt() -> T:
        with sending.accounted():
            if sending.limiter is not None:
                sending.limiter.wait(sending.deadline)
            return sending.result(engine.exchange(sending.exchange()))

    return retrying(**sending.strategy())(attempt)


async def asend(rules: Rules, engine: AsyncEngine, operation: Operation[T], deadline: Deadline | None) -> T:
    """Send an operation in this task; see `OptimoveClient.send`."""
    sending = _Sending(rules, operation, deadline)

    async def attempt() -> T:
        with sending.accounted():
            if sending.limiter is not None:
                await sending.limiter.wait_async(sending.deadline)
            return sending.result(await engine.exchange(sending.exchange()))

    return await async_retrying(**sending.strategy())(attempt)


@final
class _Sending(Generic[T]):
    """One call on its way, over all its tries."""

    def __init__(self, rules: Rules, operation: Operation[T], deadline: Deadline | None) -> None:
        given: object = deadline
        if given is not None and not isinstance(given, Deadline):
            raise ConfigurationError("deadline must be a Deadline, such as Deadline.after(5), or None.")
        self._rules = rules
        self._operation = rules.endpoints.bind(operation)
        self._persistent = operation.urgent and deadline is not None
        self._last: OptimoveError | None = None
        self._sent: bool | None = False
        self._over = False
        self.deadline = Deadline.after(rules.timeout) if deadline is None else deadline
        self.limiter = rules.limiters[operation.limit]

    def strategy(self) -> Strategy:
        return strategy(
            self._rules.retry, self._operation, self.deadline, persistent=self._persistent, is_over=lambda: self._over
        )

    def exchange(self) -> Exchange:
        operation = self._operation
        headers = {
            "X-API-KEY": self._rules.settings.api_key,
            "Accept": "application/json",
            # A compressed answer could be a thousand times longer than what was counted on the wire.
            "Accept-Encoding": "identity",
            "User-Agent": _USER_AGENT,
        }
        if operation.body is not None:
            headers["Content-Type"] = "application/json"
        query = f"?{urlencode(operation.query)}" if operation.query else ""
        return Exchange(
            operation.method,
            f"{self._rules.settings.base_url}{operation.path}{query}",
            headers,
            operation.body,
            self.deadline,
            self._rules.retry.attempt_timeout,
        )

    @contextlib.contextmanager
    def accounted(self) -> Iterator[None]:
        """Let the error of a try speak for the whole call: what an earlier try sent stays sent."""
        try:
            yield
        except (TransportError, DeadlineExceeded) as error:
            if isinstance(error, DeadlineExceeded) and error.request_sent is False and self._last is not None:
                self._over = True
                raise self._last from None  # this try never began, so the last one tells more
            if self._sent is True or error.request_sent is False:
                error.request_sent = self._sent
            self._sent = error.request_sent
            self._last = error
            raise
        except APIError as error:
            # A 429 was turned away at the door; after any other error the request may have had its effect.
            if not isinstance(error, RateLimitError):
                self._sent = True
            self._last = error
            raise

    def result(self, response: Response) -> T:
        try:
            return interpret(self._operation, response, secrets=(self._rules.settings.api_key,))
        except NotFoundError:
            # `_sent` speaks of the tries before this one, whose answer is a 404.
            if self._sent is not False and self._operation.gone_means_done:
                return self._operation.parse(Response(int(HTTPStatus.NO_CONTENT)))
            raise
