"""Retry policy, and retries with tenacity. The only module that imports tenacity."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, final

from .. import validation
from ..deadline import Deadline
from ..errors import TRANSIENT_STATUSES, APIError, OptimoveError, RateLimitError, ServerError, TransportError
from ..operations import Operation

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")
C = TypeVar("C")

_SHORTEST_FIRST_TRY: Final = 0.5
"""Seconds for a new TLS connection and a response between continents. A first try is not cut below that."""

_SHORTEST_CEILING: Final = 0.005
"""Minimum pause in seconds, so that a policy without pauses, or a near deadline, does not cause a busy loop."""


@final
@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failed tries of a call are retried, within the deadline of the call.

    A 429 is always retried, and does not count as a try. A 5xx, 408, 421, 425 and a lost connection are retried when
    the call is idempotent, up to `attempts` tries; an approval with a deadline until that. So is any other 4xx with a
    web page, when the call has a deadline. `attempts=1` retries nothing but a 429.

    Attributes:
        attempts: The maximum number of tries of a call, 1 or more.
        attempt_timeout: Seconds that a single try may take. A first try may take less when less than three times as
            much is left of the call, so that a try on a dead connection leaves time for another. A try of a status
            update, whose response can take long for 10,000 customers, may take what is left of its deadline less this,
            up to 300 s.
        first_pause: Seconds; the pause before try n is a random part of `first_pause * 2 ** (n - 2)`.
        longest_pause: The longest pause in seconds, unless Optimove asks for a longer one.
        max_retry_after: The longest `Retry-After` that is honoured, in seconds. When Optimove asks for more, a warning
            is logged, and after this time a single request is sent as a probe.
    """

    attempts: int = 4
    attempt_timeout: float = 10.0
    first_pause: float = 0.1
    longest_pause: float = 2.0
    max_retry_after: float = 60.0

    def __post_init__(self) -> None:
        """Reject numbers that would allow no requests."""
        validation.integer("RetryPolicy.attempts", self.attempts)
        validation.seconds("RetryPolicy.attempt_timeout", self.attempt_timeout, above_zero=True)
        validation.seconds("RetryPolicy.first_pause", self.first_pause)
        validation.seconds("RetryPolicy.longest_pause", self.longest_pause)
        validation.seconds("RetryPolicy.max_retry_after", self.max_retry_after)


def backoff(failures: int, *, first: float, longest: float, jitter: float = 1.0) -> float:
    """Return the seconds to wait after a number of consecutive failures: exponential backoff with jitter.

    Jitter keeps the retries of many callers from coinciding.

    Args:
        failures: 1 or more.
        first: Seconds of the longest pause after the first failure; it doubles with each further one.
        longest: Seconds of the longest pause ever.
        jitter: The share of the pause that is random.
    """
    ceiling = max(min(longest, first * 2.0 ** min(failures - 1, 30)), _SHORTEST_CEILING)
    return random.uniform(ceiling * (1 - jitter), ceiling)  # noqa: S311 - spreads load, protects nothing


@final
class Retries:
    """The retries of one call. No try starts that cannot end before the deadline."""

    def __init__(
        self, policy: RetryPolicy, operation: Operation[Any], deadline: Deadline, *, has_deadline: bool
    ) -> None:
        """Start before the first try.

        Args:
            policy: The client's policy.
            operation: The operation.
            deadline: The deadline of the whole call.
            has_deadline: Whether the caller passed one; otherwise it is the client's `timeout`.
        """
        self._policy = policy
        self._operation = operation
        self._deadline = deadline
        self._has_deadline = has_deadline
        self._failures = 0
        self._counted = 0

    def pause_after(self, error: OptimoveError) -> float | None:
        """Return the seconds to wait before the next try, or None if the error is final."""
        policy = self._policy
        longest = policy.longest_pause
        self._failures += 1
        if isinstance(error, RateLimitError):
            longest = policy.first_pause  # `AdaptiveThrottle` pauses all callers together
        else:
            self._counted += 1
            endless = self._operation.urgent and self._has_deadline and policy.attempts > 1
            if not self._can_repeat(error) or (self._counted >= policy.attempts and not endless):
                return None
        left = self._deadline.remaining()
        # A pause of our own choice never fails the call: half of the time left remains for the try.
        pause = backoff(self._failures, first=policy.first_pause, longest=min(longest, left / 2))
        if isinstance(error, APIError) and error.retry_after is not None:
            pause += min(error.retry_after, policy.max_retry_after)
        return pause if pause < self._deadline.remaining() else None

    def _can_repeat(self, error: OptimoveError) -> bool:
        if isinstance(error, APIError):
            # A wrong URL leads to a web page as well: a caller without a deadline gets the error at once.
            is_status = isinstance(error, ServerError) or error.status in TRANSIENT_STATUSES
            return self._operation.idempotent and error.is_transient and (is_status or self._has_deadline)
        if isinstance(error, TransportError):
            return self._operation.idempotent or error.request_sent is False
        return False


def first_try_timeout(operation: Operation[Any], policy: RetryPolicy, deadline: Deadline) -> float:
    """Return the seconds that the first try may take, so that a second one can follow; `math.inf` for no limit.

    Args:
        operation: The operation.
        policy: The client's policy.
        deadline: The deadline of the whole call.
    """
    if not operation.idempotent or policy.attempts == 1 or operation.first_try_share >= 1:
        return math.inf
    return max(deadline.remaining() * operation.first_try_share, _SHORTEST_FIRST_TRY)


@final
class Backoff:
    """Retries with tenacity, imported when a client is made, so that the first failure does not wait for the import."""

    def __init__(self) -> None:
        import tenacity

        self._tenacity = tenacity

    async def run(
        self,
        attempt: Callable[[C], Awaitable[T]],
        call: C,
        failed: Callable[[OptimoveError], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> T:
        """Call `attempt` until it succeeds, after a first try that has failed.

        Args:
            attempt: One try, a coroutine function.
            call: Its argument.
            failed: Returns the seconds to wait after an error, or raises a final error.
            sleep: Waits for some seconds.
        """

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome and state.outcome.exception()
            assert isinstance(error, OptimoveError)  # noqa: S101 - nothing else is retried
            return failed(error)

        retried = self._tenacity.retry_if_exception_type(OptimoveError)
        return await self._tenacity.AsyncRetrying(sleep=sleep, retry=retried, wait=wait, reraise=True)(attempt, call)
