"""Send an operation: its turn at the limiter, its tries, its answer."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Generic, TypeVar, final
from urllib.parse import urlencode

from pydantic import SecretStr

from optimove_conditional_execution import validation
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
from optimove_conditional_execution.observers import SafeLogger
from optimove_conditional_execution.operations import NO_ROUTE, Endpoints, Operation, with_slash
from optimove_conditional_execution.settings import ClientSettings
from optimove_conditional_execution.transport.answers import interpret
from optimove_conditional_execution.transport.calls import OnCall, Watch
from optimove_conditional_execution.transport.exchange import AsyncEngine, AsyncStream, Engine, Exchange, Stream
from optimove_conditional_execution.transport.limiter import RateLimit, RateLimiter, Turn
from optimove_conditional_execution.transport.pacing import Pacing
from optimove_conditional_execution.transport.retry import (
    AsyncReplay,
    Replay,
    RetryPolicy,
    Strategy,
    async_retrying,
    first_try,
    retrying,
    strategy,
)

R = TypeVar("R")
T = TypeVar("T")

_LOGGER: Final = SafeLogger("client")

_LONGEST_TRY: Final = 300.0
"""Seconds; what has no answer after that is lost, since hardly a load balancer keeps a silent connection for longer."""

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
        validation.seconds("timeout", timeout, above_zero=True)
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
        self._lock = threading.Lock()
        self.pacings = {bucket: Pacing(max_retry_after=retry.max_retry_after) for bucket in self.limiters}

    def remember(self, operation: Operation[Any], *, instead_of: Operation[Any]) -> None:
        """Send GetWebhooks from now on to the path that worked, and name it in the log."""
        endpoint = operation.endpoint
        with self._lock:
            if self.endpoints.get_webhooks == endpoint:
                return
            self.endpoints = dataclasses.replace(self.endpoints, get_webhooks=endpoint)
        _LOGGER.warning(
            '%s: %s %s does not exist, but %s does. Pass endpoints=Endpoints(%s=Endpoint("%s", "%s")) to your client.',
            operation.name,
            instead_of.method,
            instead_of.path,
            operation.path,
            operation.name,
            endpoint.method,
            endpoint.path,
        )


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
            while True:
                if sending.limiter is not None:
                    sending.turn = sending.limiter.wait(sending.deadline)
                sending.sent_at = sending.pacing.wait(sending.deadline)
                response = engine.exchange(sending.exchange())
                if not sending.tries_other_path(response):
                    return sending.result(response)

    return _tried(sending, attempt)


async def asend(
    rules: Rules, engine: AsyncEngine, operation: Operation[T], deadline: Deadline | None, tally: Tally | None = None
) -> T:
    """Send an operation in this task; see `OptimoveClient.send`."""
    sending = _Sending(rules, operation, deadline, tally)

    async def attempt() -> T:
        with sending.accounted():
            while True:
                if sending.limiter is not None:
                    sending.turn = await sending.limiter.wait_async(sending.deadline)
                sending.sent_at = await sending.pacing.wait_async(sending.deadline)
                response = await engine.exchange(sending.exchange())
                if not sending.tries_other_path(response):
                    return sending.result(response)

    return await _atried(sending, attempt)


def open_stream(
    rules: Rules, engine: Engine, operation: Operation[Any], deadline: Deadline | None, tally: Tally | None = None
) -> Stream:
    """Send an operation in this thread until it is answered with a 2xx, whose body the caller reads and closes.

    Reading ends at the deadline; None for none. A try to open it takes `timeout` seconds at most, all tries together
    half as much again. Each wait for the next bytes takes `timeout` seconds at most.
    """
    sending = _Sending(rules, operation, _opening(rules, deadline), tally, longest=rules.timeout)

    def attempt() -> Stream:
        with sending.accounted():
            if sending.limiter is not None:
                sending.turn = sending.limiter.wait(sending.deadline)
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
                sending.turn = await sending.limiter.wait_async(sending.deadline)
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
    # A first try that is lost on a dead connection leaves a whole `timeout` for a second one.
    seconds = rules.timeout * 1.5
    return Deadline.after(seconds if deadline is None else min(seconds, deadline.remaining()))


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
        self._has_deadline = deadline is not None
        self._elsewhere: tuple[Operation[T], Response] | None = None
        self._last: OptimoveError | None = None
        self._sent: bool | None = False
        self._over = False
        self.deadline = Deadline.after(rules.timeout) if deadline is None else deadline
        self.limiter = rules.limiters[operation.limit]
        self.pacing = rules.pacings[operation.limit]
        self.turn: Turn | None = None
        self.sent_at = 0.0
        self.watch = Watch(operation.name, self.deadline, rules.on_call)
        self._longest = rules.retry.attempt_timeout if longest is None else longest
        self._began = 0.0
        self._first_try = math.inf
        self._leaves_time = True
        self._heard_since = -math.inf
        self._tally = Tally() if tally is None else tally
        self._tally.calls += 1

    def strategy(self) -> Strategy:
        return strategy(
            self._rules.retry,
            self._operation,
            self.deadline,
            persistent=self._operation.urgent and self._has_deadline,
            has_deadline=self._has_deadline,
            is_over=lambda: self._over,
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
        self._began = time.monotonic()
        self._first_try = first_try(operation, self._rules.retry, self.deadline) if self._leaves_time else math.inf
        if not operation.idempotent or operation.first_try_share >= 1:
            # It cannot be repeated, or not in time: a kept connection that has died would cost the call.
            self._heard_since = self._began
        query = f"?{urlencode(operation.query, safe='$')}" if operation.query else ""
        return Exchange(
            operation.method,
            f"{self._rules.settings.base_url}{operation.path}{query}",
            headers,
            operation.body,
            self.deadline,
            self._seconds_for_try(),
            self._first_try,
            self._heard_since,
        )

    def _seconds_for_try(self) -> float:
        """Return how long the next try may take."""
        if not self._operation.long_running:
            return self._longest
        # Cut off, it would only begin anew. But what was lost on its way has time for another try.
        left = self.deadline.remaining()
        return max(self._longest, min(_LONGEST_TRY, max(left / 2, left - self._longest)))

    @contextlib.contextmanager
    def accounted(self) -> Iterator[None]:
        """Let the error of a try speak for the whole call: what an earlier try sent stays sent."""
        try:
            yield
        except (TransportError, DeadlineExceeded) as error:
            if isinstance(error, DeadlineExceeded) and error.request_sent is False and self._last is not None:
                self._over = True
                raise self._last from None  # this try never began, so the last one tells more
            # What was kept while a try was lost may be as dead; and once is enough to have left time for another.
            self._heard_since = self._began
            self._leaves_time = self._leaves_time and time.monotonic() - self._began < 0.9 * min(
                self._first_try, self._longest
            )
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
                if error.status == HTTPStatus.SERVICE_UNAVAILABLE and error.retry_after is not None:
                    self.pacing.unavailable(error.retry_after)
                else:
                    self.pacing.taken()
            self._last = error
            raise
        finally:
            self._end_turn()

    def _end_turn(self) -> None:
        if self.limiter is not None and self.turn is not None:
            self.limiter.answered(self.turn)
            self.turn = None

    def tries_other_path(self, response: Response) -> bool:
        """Whether an answer says that the path does not exist, and there is another one, which is to be sent next."""
        other = with_slash(self._operation)
        if other is None or self._elsewhere is not None or response.status not in NO_ROUTE:
            return False
        self.watch.answered(response.status, len(response.body))
        self.pacing.taken()
        self._end_turn()
        self._elsewhere = (self._operation, response)
        self._operation = other
        return True

    def _interpreted(self, response: Response) -> T:
        secrets = (self._rules.settings.api_key,)
        if self._elsewhere is None:
            return interpret(self._operation, response, secrets=secrets)
        first, answered = self._elsewhere
        if response.status in NO_ROUTE:  # so it was not the slash
            return interpret(first, answered, secrets=secrets)
        value = interpret(self._operation, response, secrets=secrets)
        self._rules.remember(self._operation, instead_of=first)
        return value

    def result(self, response: Response) -> T:
        self.watch.answered(response.status, len(response.body))
        try:
            value = self._interpreted(response)
        except NotFoundError as error:
            # `_sent` speaks of the tries before this one, whose answer is a 404 of the API's own.
            if not error.is_transient and self._sent is not False and self._operation.gone_means_done:
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
