"""Send an operation: its turn at the limiter, its tries, its answer."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar, final
from urllib.parse import urlencode

from pydantic import SecretStr

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
from optimove_conditional_execution.transport.calls import OnCall, Watch
from optimove_conditional_execution.transport.exchange import AsyncEngine, AsyncStream, Engine, Exchange, Stream
from optimove_conditional_execution.transport.limiter import RateLimit, RateLimiter
from optimove_conditional_execution.transport.pacing import Pacing
from optimove_conditional_execution.transport.retry import (
    AsyncReplay,
    Replay,
    RetryPolicy,
    Strategy,
    async_retrying,
    retrying,
    strategy,
)

R = TypeVar("R")
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
        on_call: OnCall | None = None,
    ) -> None:
        """Keep the rules, and start counting requests.

        Raises:
            ConfigurationError: `timeout` is not a number above 0, or `on_call` cannot be called.
        """
        if on_call is not None and not callable(on_call):
            raise ConfigurationError("on_call must be a function of one CallRecord, or None.")
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
        self.rate_limit = rate_limit
        self.on_call = on_call
        self.limiters: dict[str, RateLimiter | None] = {
            "general": None if rate_limit is None else RateLimiter(rate_limit),
            "approval": None if approval_rate_limit is None else RateLimiter(approval_rate_limit),
        }
        self.pacings = {bucket: Pacing() for bucket in self.limiters}


@final
@dataclass(slots=True)
class Tally:
    """Counts requests over several calls: `requests - calls` of them were repeats. Not safe for threads."""

    calls: int = 0
    requests: int = 0


def send(
    rules: Rules, engine: Engine, operation: Operation[T], deadline: Deadline | None, tally: Tally | None = None
) -> T:
    """Send an operation in this thread; see `OptimoveClient.send`."""
    sending = _Sending(rules, operation, deadline, tally)

    def attempt() -> T:
        with sending.accounted():
            if sending.limiter is not None:
                sending.limiter.wait(sending.deadline)
            sending.sent_at = sending.pacing.wait(sending.deadline)
            return sending.result(engine.exchange(sending.exchange()))

    return _tried(sending, attempt)


async def asend(
    rules: Rules, engine: AsyncEngine, operation: Operation[T], deadline: Deadline | None, tally: Tally | None = None
) -> T:
    """Send an operation in this task; see `OptimoveClient.send`."""
    sending = _Sending(rules, operation, deadline, tally)

    async def attempt() -> T:
        with sending.accounted():
            if sending.limiter is not None:
                await sending.limiter.wait_async(sending.deadline)
            sending.sent_at = await sending.pacing.wait_async(sending.deadline)
            return sending.result(await engine.exchange(sending.exchange()))

    return await _atried(sending, attempt)


def open_stream(
    rules: Rules, engine: Engine, operation: Operation[Any], deadline: Deadline | None, tally: Tally | None = None
) -> Stream:
    """Send an operation in this thread until it is answered with a 2xx, whose body the caller reads and closes.

    Reading ends at the deadline; None for none. Opening takes `timeout` seconds at most, and so does each wait for the
    next bytes.
    """
    sending = _Sending(rules, operation, _opening(rules, deadline), tally, longest=rules.timeout)

    def attempt() -> Stream:
        with sending.accounted():
            if sending.limiter is not None:
                sending.limiter.wait(sending.deadline)
            sending.sent_at = sending.pacing.wait(sending.deadline)
            stream = engine.stream(sending.exchange(), deadline or Deadline.after(math.inf))
            try:
                sending.head(stream.response)
            except BaseException:
                stream.close()
                raise
            return stream

    return _tried(sending, attempt)


async def aopen_stream(
    rules: Rules, engine: AsyncEngine, operation: Operation[Any], deadline: Deadline | None, tally: Tally | None = None
) -> AsyncStream:
    """Send an operation in this task until it is answered with a 2xx; see `open_stream`."""
    sending = _Sending(rules, operation, _opening(rules, deadline), tally, longest=rules.timeout)

    async def attempt() -> AsyncStream:
        with sending.accounted():
            if sending.limiter is not None:
                await sending.limiter.wait_async(sending.deadline)
            sending.sent_at = await sending.pacing.wait_async(sending.deadline)
            stream = await engine.stream(sending.exchange(), deadline or Deadline.after(math.inf))
            try:
                sending.head(stream.response)
            except BaseException:
                await stream.aclose()
                raise
            return stream

    return await _atried(sending, attempt)


def _tried(sending: _Sending[Any], attempt: Callable[[], R]) -> R:
    """Try once, and only after a failure set up what repeats tries: most calls succeed at once."""
    with sending.watch:
        try:
            return attempt()
        except OptimoveError as error:
            replay = Replay(error, attempt)
        return retrying(**sending.strategy())(replay)


async def _atried(sending: _Sending[Any], attempt: Callable[[], Awaitable[R]]) -> R:
    """Do what `_tried` does, for asyncio."""
    with sending.watch:
        try:
            return await attempt()
        except OptimoveError as error:
            replay = AsyncReplay(error, attempt)
        return await async_retrying(**sending.strategy())(replay)


def _opening(rules: Rules, deadline: Deadline | None) -> Deadline:
    return Deadline.after(rules.timeout if deadline is None else min(rules.timeout, deadline.remaining()))


@final
class _Sending(Generic[T]):
    """One call on its way, over all its tries."""

    def __init__(
        self,
        rules: Rules,
        operation: Operation[T],
        deadline: Deadline | None,
        tally: Tally | None,
        *,
        longest: float | None = None,
    ) -> None:
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
        self.pacing = rules.pacings[operation.limit]
        self.sent_at = 0.0
        self.watch = Watch(operation.name, self.deadline, rules.on_call)
        self._longest = rules.retry.attempt_timeout if longest is None else longest
        self._tally = Tally() if tally is None else tally
        self._tally.calls += 1

    def strategy(self) -> Strategy:
        return strategy(
            self._rules.retry, self._operation, self.deadline, persistent=self._persistent, is_over=lambda: self._over
        )

    def exchange(self) -> Exchange:
        self._tally.requests += 1
        operation = self._operation
        self.watch.asked(operation.body)
        headers: dict[str, str | SecretStr] = {
            "X-API-KEY": self._rules.settings.api_key,
            "Accept": "application/json",
            # A compressed answer could be a thousand times longer than what was counted on the wire.
            "Accept-Encoding": "identity",
            "User-Agent": _USER_AGENT,
        }
        if operation.body is not None:
            headers["Content-Type"] = "application/json"
        query = f"?{urlencode(operation.query, safe='$')}" if operation.query else ""
        return Exchange(
            operation.method,
            f"{self._rules.settings.base_url}{operation.path}{query}",
            headers,
            operation.body,
            self.deadline,
            self._longest,
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
            if isinstance(error, RateLimitError):
                self.pacing.refused(self.sent_at, error.retry_after)
            else:
                self._sent = True
                self.pacing.taken()
            self._last = error
            raise

    def result(self, response: Response) -> T:
        self.watch.answered(response.status, len(response.body))
        try:
            value = interpret(self._operation, response, secrets=(self._rules.settings.api_key,))
        except NotFoundError:
            # `_sent` speaks of the tries before this one, whose answer is a 404.
            if self._sent is not False and self._operation.gone_means_done:
                return self._operation.parse(Response(int(HTTPStatus.NO_CONTENT)))
            raise
        self.pacing.taken()
        return value

    def head(self, response: Response) -> None:
        """Check the answer to a stream, whose body is still to be read unless it is an error."""
        self.watch.answered(response.status, len(response.body))
        bodiless = response if not 200 <= response.status < 300 else Response(response.status, response.headers)
        interpret(self._operation, bodiless, secrets=(self._rules.settings.api_key,))
        self.pacing.taken()
