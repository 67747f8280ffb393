"""Send an operation: rate limit, tries, response; and stream a campaign's customers, page after page."""

from __future__ import annotations

import dataclasses
import inspect
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, final
from urllib.parse import urlencode

from pydantic import Secret

from .. import validation
from .._version import __version__
from ..deadline import Deadline
from ..errors import (
    APIError,
    ConfigurationError,
    DeadlineExceeded,
    HeldBackError,
    NotFoundError,
    OptimoveError,
    RateLimitError,
    TransportError,
    was_processed,
)
from ..fork import ForkLock
from ..messages import Response
from ..observers import SafeLogger
from ..operations import NO_ROUTE, Endpoints, Operation, with_slash
from ..settings import ClientSettings
from .engine import Engine, OutgoingRequest, Stream, read_all
from .instrumentation import OnCall, RecordedCall
from .rate_limit import AdaptiveThrottle, RateLimit, RateLimiter, Reservation
from .responses import parse_response
from .retry import Backoff, Retries, RetryPolicy, backoff, first_try_timeout
from .waiting import Alarm

if TYPE_CHECKING:
    from ..flows.paging import Pages
    from ..models.campaign import CampaignCustomer

T = TypeVar("T")
R = TypeVar("R")
C = TypeVar("C", bound="CampaignCustomer")

_LOGGER: Final = SafeLogger("client")

_HEADERS: Final = {
    "Accept": "application/json",
    # A compressed response could be a thousand times larger than the bytes counted on the wire.
    "Accept-Encoding": "identity",
    "User-Agent": f"optimove-conditional-execution/{__version__}",
}

_LONGEST_TRY: Final = 300.0
"""Seconds; without a response after that a request is lost: few load balancers keep a silent connection longer."""


@final
@dataclass(eq=False)
class ClientConfig:
    """Client settings, and the state that its calls share.

    Raises:
        ConfigurationError: One is invalid.
    """

    settings: ClientSettings
    endpoints: Endpoints
    timeout: float
    retry: RetryPolicy
    rate_limit: RateLimit | None
    approval_rate_limit: RateLimit | None
    on_call: OnCall | None

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.on_call is not None and not callable(self.on_call):
            raise ConfigurationError("on_call must be a function of one CallRecord, or None.")
        validation.seconds("timeout", self.timeout, above_zero=True)
        limits = {"general": self.rate_limit, "approval": self.approval_rate_limit}
        kinds = (
            (self.endpoints, Endpoints),
            (self.retry, RetryPolicy),
            *((limit, RateLimit) for limit in limits.values()),
        )
        for given, kind in kinds:
            if not isinstance(given, kind) and not (given is None and kind is RateLimit):
                raise ConfigurationError(
                    f"{type(given).__name__} is not a {kind.__name__}: check the client's arguments."
                )
        self.limiters = {bucket: RateLimiter(limit) if limit else None for bucket, limit in limits.items()}
        max_retry_after = self.retry.max_retry_after
        self.throttles = {bucket: AdaptiveThrottle(max_retry_after=max_retry_after) for bucket in limits}
        self.backoff = Backoff()
        self.headers, self.json_headers = (
            Secret[Mapping[str, str]]({"X-API-KEY": self.settings.api_key.get_secret_value(), **_HEADERS, **more})
            for more in ({}, {"Content-Type": "application/json"})
        )
        self._lock = ForkLock()

    def remember(self, operation: Operation[Any], *, instead_of: Operation[Any]) -> None:
        """Use the path that worked for GetWebhooks from now on, and log it."""
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
class RequestCounter:
    """Counts requests over several calls: `requests - calls` of them were retries. Not thread-safe."""

    calls: int = 0
    requests: int = 0


@final
class Sender:
    """Sends the operations of a client. Over an engine for threads its coroutines block: see `transport.waiting`."""

    def __init__(self, config: ClientConfig, engine: Engine, alarm: type[Alarm]) -> None:
        """Store what the calls share.

        Args:
            config: The client's settings.
            engine: Sends the requests.
            alarm: How calls wait: in threads or in tasks, as the engine does.
        """
        self.config = config
        self.engine = engine
        self._alarm = alarm

    def send(
        self,
        operation: Operation[T],
        deadline: Deadline | None,
        counter: RequestCounter | None = None,
        before_send: Callable[[], object] | None = None,
    ) -> Coroutine[Any, Any, T]:
        """Send an operation; see `OptimoveClient.send`."""
        return self._run(_Call(self.config, operation, deadline, counter, before_send=before_send), self._receive)

    def open_stream(
        self, operation: Operation[Any], deadline: Deadline | None, counter: RequestCounter | None = None
    ) -> Coroutine[Any, Any, Stream]:
        """Send an operation until the response is a 2xx, whose body the caller reads and closes.

        Reading ends at the deadline, if there is one. A try to open the stream takes `timeout` seconds at most, all
        tries together half as much again. Each wait for the next bytes takes `timeout` seconds at most.
        """
        return self._run(_Call(self.config, operation, deadline, counter, is_stream=True), self._open)

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds."""
        await self._alarm().wait(seconds)

    async def _run(self, call: _Call[T], attempt: Callable[[_Call[T]], Awaitable[R]]) -> R:
        with call:
            try:
                return await attempt(call)  # most calls succeed at once, and do not need tenacity
            except OptimoveError as error:
                pause = call.failed(error)
            await self.sleep(pause)
            return await self.config.backoff.run(attempt, call, call.failed, self.sleep)

    async def _receive(self, call: _Call[T]) -> T:
        try:
            while True:
                response = await self.engine.send(await self._permitted(call))
                if response.status not in NO_ROUTE or not call.tries_other_path(response):
                    return call.result(response)
        finally:
            call.end_request()

    async def _open(self, call: _Call[Any]) -> Stream:
        try:
            stream = await self.engine.open(await self._permitted(call))
            if stream.response.status // 100 != 2:
                call.result(await read_all(stream))
            try:
                call.result(stream.response)  # with the headers alone: an empty body is valid
            except BaseException:
                await stream.aclose()
                raise
            return stream
        finally:
            call.end_request()

    async def _permitted(self, call: _Call[Any]) -> OutgoingRequest:
        """Return the next request, once it may be sent."""
        if call.limiter is not None:
            call.reservation = await call.limiter.acquire(call.deadline, self._alarm)
        call.sent_at = await call.throttle.acquire(call.deadline, self._alarm)
        if call.before_send is not None and inspect.isawaitable(said := call.before_send()):
            await said
        return call.request()


@final
class _Call(RecordedCall, Generic[T]):
    """The state of one call, with all its tries."""

    # Of the try that is in flight.
    reservation: Reservation | None = None
    sent_at = 0.0
    _is_in_flight = False
    _try_began = 0.0
    _first_try_timeout = math.inf
    _read_until: Deadline | None = None
    # Of the tries before it.
    _elsewhere: tuple[Operation[T], Response] | None = None
    _last: OptimoveError | None = None
    _sent: bool | None = False
    _is_unknown = False
    _retries: Retries | None = None
    _leaves_time = True
    _heard_since = -math.inf

    def __init__(
        self,
        config: ClientConfig,
        operation: Operation[T],
        deadline: Deadline | None,
        counter: RequestCounter | None,
        *,
        is_stream: bool = False,
        before_send: Callable[[], object] | None = None,
    ) -> None:
        given: object = deadline
        if given is not None and not isinstance(given, Deadline):
            raise ConfigurationError("deadline must be a Deadline, such as Deadline.after(5), or None.")
        self.before_send = before_send
        self._config = config
        self._operation = config.endpoints.bind(operation)
        self._attempt_timeout = config.retry.attempt_timeout
        self._has_deadline = is_stream or deadline is not None
        if is_stream:
            self._read_until = deadline or Deadline.after(math.inf)
            self._attempt_timeout = config.timeout
            # A first try on a dead connection leaves a whole `timeout` for a second one.
            deadline = Deadline.after(min(config.timeout * 1.5, self._read_until.remaining()))
        elif deadline is None:
            deadline = Deadline.after(config.timeout)
        super().__init__(operation.name, deadline, config.on_call)
        self.limiter = config.limiters[operation.limit]
        self.throttle = config.throttles[operation.limit]
        self._counter = counter
        if counter is not None:
            counter.calls += 1

    def request(self) -> OutgoingRequest:
        operation, body = self._operation, self._operation.body
        if self._counter is not None:
            self._counter.requests += 1
        self.attempts += 1
        self.status = None
        self.bytes_sent += len(body or b"")
        self._is_in_flight = True
        self._try_began = time.monotonic()
        self._first_try_timeout = (
            first_try_timeout(operation, self._config.retry, self.deadline) if self._leaves_time else math.inf
        )
        if not operation.idempotent or operation.first_try_share >= 1:
            # It cannot be retried, or not in time: a dead kept-alive connection would fail the call.
            self._heard_since = self._try_began
        query = f"?{urlencode(operation.query, safe='$')}" if operation.query else ""
        return OutgoingRequest(
            operation.method,
            f"{self._config.settings.base_url}{operation.path}{query}",
            self._config.headers if body is None else self._config.json_headers,
            body,
            self.deadline,
            self._seconds_for_long_try() if operation.long_running else self._attempt_timeout,
            self._first_try_timeout,
            self._heard_since,
            self._read_until,
        )

    def _seconds_for_long_try(self) -> float:
        # Cut off, it would only start again. But a lost request leaves time for another try.
        left = self.deadline.remaining()
        return max(self._attempt_timeout, min(_LONGEST_TRY, max(left / 2, left - self._attempt_timeout)))

    def failed(self, error: OptimoveError) -> float:
        """Record a failed try, and return the seconds to wait before the next one.

        The error then describes the whole call: `request_sent` and `earlier_unknown` include earlier tries.

        Raises:
            OptimoveError: There is no next try; the error of this one, or of the one before if this one never began.
        """
        if isinstance(error, TransportError | DeadlineExceeded):
            if isinstance(error, DeadlineExceeded) and error.request_sent is False and self._last is not None:
                raise self._last from None
            self._is_unknown |= error.request_sent is not False
            # Connections kept alive when a try was lost may be dead too; and time is left for another try only once.
            self._heard_since = self._try_began
            took = time.monotonic() - self._try_began
            if took >= 0.9 * min(self._first_try_timeout, self._attempt_timeout):
                self._leaves_time = False
            if self._sent is True or error.request_sent is False:
                error.request_sent = self._sent
            self._sent = error.request_sent
        elif isinstance(error, HeldBackError):
            error.request_sent = self._sent
            raise error
        elif isinstance(error, APIError):
            error.earlier_unknown = self._is_unknown
            self._is_unknown = was_processed(error) is None
            if isinstance(error, RateLimitError):
                self.throttle.on_rate_limited(self.sent_at, error.retry_after)  # rejected: nothing was processed
            else:
                self._answered(error)
        elif isinstance(error, ConfigurationError) and self._sent is not False:  # the client was closed meanwhile
            error.request_sent = self._sent
        self._last = error
        if self._retries is None:
            self._retries = Retries(self._config.retry, self._operation, self.deadline, has_deadline=self._has_deadline)
        pause = self._retries.pause_after(error)
        if pause is None:
            raise error
        return pause

    def _answered(self, error: APIError) -> None:
        self._sent = True
        if error.status == HTTPStatus.SERVICE_UNAVAILABLE and error.retry_after is not None:
            self.throttle.on_unavailable(error.retry_after)
        else:
            self.throttle.on_success()

    def end_request(self) -> None:
        """Tell the limiter that the request has ended, or was never sent."""
        if self.limiter is not None and self.reservation is not None:
            (self.limiter.complete if self._is_in_flight else self.limiter.give_back)(self.reservation)
            self.reservation = None
        self._is_in_flight = False

    def tries_other_path(self, response: Response) -> bool:
        """Whether another path is to be tried next, after a response that says that the path does not exist."""
        other = None if self._elsewhere is not None else with_slash(self._operation)
        if other is None:
            return False
        self.status = response.status
        self.bytes_received += len(response.body)
        self.throttle.on_success()
        self.end_request()
        self._elsewhere = (self._operation, response)
        self._operation = other
        return True

    def _parsed(self, response: Response) -> T:
        secrets = (self._config.settings.api_key,)
        if self._elsewhere is None:
            return parse_response(self._operation, response, secrets=secrets)
        first, answered = self._elsewhere
        if response.status in NO_ROUTE:  # so the slash was not the reason
            return parse_response(first, answered, secrets=secrets)
        value = parse_response(self._operation, response, secrets=secrets)
        self._config.remember(self._operation, instead_of=first)
        return value

    def result(self, response: Response) -> T:
        """Return the result of a response; see `parse_response`."""
        self.status = response.status
        self.bytes_received += len(response.body)
        try:
            value = self._parsed(response)
        except NotFoundError as error:
            # `_sent` is about the tries before this one, whose response is a 404 from the API itself.
            if not error.is_transient and self._sent is not False and self._operation.gone_means_done:
                return self._operation.parse(Response(int(HTTPStatus.NO_CONTENT)))
            raise
        self.throttle.on_success()
        return value


# ---- streams of customers


async def read_customers(
    sender: Sender, paging: Pages[C], deadline: Deadline | None, counter: RequestCounter | None = None
) -> AsyncGenerator[list[C], None]:
    """Yield the customers, some hundreds at a time.

    Raises:
        OptimoveError: See `OptimoveClient.get_processed_campaign_customers`.
    """
    retry = _StreamRetry(sender.config.retry, paging, deadline)
    while (operation := paging.next_page()) is not None:
        try:
            stream = await sender.open_stream(operation, deadline, counter)
            try:
                while block := await stream.read():
                    if customers := paging.feed(block):
                        yield customers
            finally:
                await stream.aclose()
            if customers := paging.close_page(is_framed=stream.is_framed):
                yield customers
        except OptimoveError as error:
            paging.pause = retry.pause_after(error)
        if paging.pause:
            await sender.sleep(paging.pause)


@final
class _StreamRetry:
    """Retry policy of a stream: which failures of a page are final, and how long to wait after the others.

    Opening a page has its own retries. This policy is about truncated pages, and, with a deadline, about servers that
    are down for longer: reading is retried until then.
    """

    def __init__(self, policy: RetryPolicy, paging: Pages[Any], deadline: Deadline | None) -> None:
        self._policy = policy
        self._paging = paging
        self._deadline = deadline
        self._rows = 0
        self._failures = 0

    def pause_after(self, error: OptimoveError) -> float:
        """Return the seconds to wait before the next page.

        Raises:
            OptimoveError: The error, when it is final.
        """
        from ..flows.paging import is_from_api

        is_foreign = isinstance(error, NotFoundError) and not is_from_api(error)
        if isinstance(error, NotFoundError) and not is_foreign:
            self._paging.missing(error)
            if self._deadline is not None and self._paging.pause >= self._deadline.remaining():
                raise error  # no time to request it again, so it is unknown whether it is the end
            return self._paging.pause
        is_transient = isinstance(error, APIError) and error.is_transient
        if not (is_foreign or is_transient or isinstance(error, TransportError | DeadlineExceeded)):
            raise error
        if self._paging.rows > self._rows:
            self._failures = 0
        self._rows = self._paging.rows
        self._failures += 1
        if self._failures == 1 and self._deadline is not None:
            _LOGGER.warning("the customers of a campaign cannot be read now, which is tried again: %s", error)
        policy = self._policy
        pause = backoff(self._failures, first=policy.first_pause, longest=policy.longest_pause)
        if self._deadline is None:
            # A truncated page is retried, and so is a 404 that a proxy has sent; any other page that could not be
            # opened has had its retries.
            broke_off = isinstance(error, TransportError) and error.request_sent is not False
            if not (broke_off or is_foreign) or self._failures >= policy.attempts:
                raise error
        elif policy.attempts == 1 or pause >= self._deadline.remaining():
            raise error
        return pause
