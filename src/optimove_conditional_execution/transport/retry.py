"""Which failed tries are repeated, and when. The only module that knows tenacity."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypedDict, TypeVar, final

from typing_extensions import Unpack

from optimove_conditional_execution import validation
from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import (
    TRANSIENT_STATUSES,
    APIError,
    RateLimitError,
    ServerError,
    TransportError,
)
from optimove_conditional_execution.operations import Operation

if TYPE_CHECKING:
    import tenacity

T = TypeVar("T")

_SHORTEST_FIRST_TRY: Final = 0.5
"""Seconds; what a new TLS connection and an answer take over an ocean. A first try is not cut below that."""

_SHORTEST_CEILING: Final = 0.005
"""Seconds; without it a policy without pauses, or a deadline that is near, would send tries as fast as it can."""


@final
@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failed tries of a call are repeated, inside the one deadline of the call.

    A 429 is always repeated, and does not count as a try. A 5xx, 408, 421, 425 and a lost connection are repeated when
    the call is idempotent, up to `attempts` tries; an approval that was given a deadline until that. So is any other
    4xx with a web page, when the call was given a deadline. `attempts=1` repeats nothing but a 429.

    Attributes:
        attempts: Tries of a call at most, 1 or more.
        attempt_timeout: Seconds that a single try may take. A first try takes less when less than three times as much
            is left of the call, so that one that is lost on a dead connection leaves time for another. One of a status
            update, whose answer takes as long as 10,000 customers do, may take what is left of its deadline less this,
            up to 300 s.
        first_pause: Seconds; the pause before try n is a random part of `first_pause * 2 ** (n - 2)`.
        longest_pause: Seconds; no pause is longer, unless Optimove asks for it.
        max_retry_after: Seconds; the longest `Retry-After` that is believed. When Optimove asks for more, a warning is
            logged, and after this time one request tries whether it is taken.
    """

    attempts: int = 4
    attempt_timeout: float = 10.0
    first_pause: float = 0.1
    longest_pause: float = 2.0
    max_retry_after: float = 60.0

    def __post_init__(self) -> None:
        """Refuse numbers that would never send anything."""
        validation.integer("RetryPolicy.attempts", self.attempts)
        validation.seconds("RetryPolicy.attempt_timeout", self.attempt_timeout, above_zero=True)
        validation.seconds("RetryPolicy.first_pause", self.first_pause)
        validation.seconds("RetryPolicy.longest_pause", self.longest_pause)
        validation.seconds("RetryPolicy.max_retry_after", self.max_retry_after)


class Strategy(TypedDict):
    """The keyword arguments that tenacity's sync and async engines share."""

    retry: Callable[[tenacity.RetryCallState], bool]
    stop: Callable[[tenacity.RetryCallState], bool]
    wait: Callable[[tenacity.RetryCallState], float]
    reraise: bool


def strategy(
    policy: RetryPolicy,
    operation: Operation[Any],
    deadline: Deadline,
    *,
    persistent: bool,
    has_deadline: bool,
    is_over: Callable[[], bool],
) -> Strategy:
    """Return how one call is repeated; the same for threads and for asyncio.

    No try starts that cannot end: when the pause would outlast the deadline, the last error stands.

    Args:
        policy: The client's policy.
        operation: What is sent.
        deadline: The end of the whole call.
        persistent: Whether only the deadline ends the tries.
        has_deadline: Whether the caller gave one; else it is the client's `timeout`.
        is_over: Whether it is known already that no further try can begin in time.
    """
    counted = 0
    endless = persistent and policy.attempts > 1

    def retry(state: tenacity.RetryCallState) -> bool:
        nonlocal counted
        error = _error(state)
        if is_over():
            return False
        if isinstance(error, RateLimitError):
            return True
        counted += 1
        if isinstance(error, APIError):
            if not error.is_transient:
                return False
            # A wrong URL leads to a web page as well: who waits without a deadline hears of it at once.
            is_status = isinstance(error, ServerError) or error.status in TRANSIENT_STATUSES
            if not is_status and not has_deadline:
                return False
        elif not isinstance(error, TransportError):
            return False
        return operation.idempotent or (isinstance(error, TransportError) and error.request_sent is False)

    def wait(state: tenacity.RetryCallState) -> float:
        error = _error(state)
        asked = error.retry_after if isinstance(error, APIError) else None
        # A pause of our own choice never costs the call: half of the time that is left remains for the try.
        # After a 429 all callers hold back together (pacing.py), so a short one of one's own is enough.
        longest = policy.first_pause if isinstance(error, RateLimitError) else policy.longest_pause
        ceiling = min(
            longest,
            policy.first_pause * 2.0 ** min(state.attempt_number - 1, 30),
            deadline.remaining() / 2,
        )
        # Full jitter, so that the tries of many callers do not come back as one wave.
        pause = random.uniform(0.0, max(ceiling, _SHORTEST_CEILING))  # noqa: S311 - spreads load, protects nothing
        return pause if asked is None else min(asked, policy.max_retry_after) + pause

    def stop(state: tenacity.RetryCallState) -> bool:
        error = _error(state)
        if counted >= policy.attempts and not endless and not isinstance(error, RateLimitError):
            return True
        # tenacity has asked `wait` before `stop`.
        return state.upcoming_sleep >= deadline.remaining()

    return {"retry": retry, "stop": stop, "wait": wait, "reraise": True}


def first_try(operation: Operation[Any], policy: RetryPolicy, deadline: Deadline) -> float:
    """Return the seconds that the first try may take, so that a second one can follow; `math.inf` for any number.

    Args:
        operation: What is sent.
        policy: The client's policy.
        deadline: The end of the whole call.
    """
    if not operation.idempotent or policy.attempts == 1 or operation.first_try_share >= 1:
        return math.inf
    return max(deadline.remaining() * operation.first_try_share, _SHORTEST_FIRST_TRY)


@final
class Replay(Generic[T]):
    """A function whose first call has been made already, and failed."""

    def __init__(self, error: BaseException, function: Callable[[], T]) -> None:
        self._error: BaseException | None = error
        self._function = function

    def __call__(self) -> T:
        """Raise the error of the first call; from then on call the function."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # a frame that holds its own exception is garbage only the collector finds
        return self._function()


@final
class AsyncReplay(Generic[T]):
    """A coroutine function whose first call has been made already, and failed."""

    def __init__(self, error: BaseException, function: Callable[[], Awaitable[T]]) -> None:
        self._error: BaseException | None = error
        self._function = function

    async def __call__(self) -> T:
        """Raise the error of the first call; from then on call the function."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # a frame that holds its own exception is garbage only the collector finds
        return await self._function()


def load() -> None:
    """Import tenacity; a client does it when it is made, so that neither importing the SDK nor a first call waits."""
    import tenacity  # noqa: F401 - loaded early on purpose


def retrying(**options: Unpack[Strategy]) -> tenacity.Retrying:
    """Return tenacity's engine for threads."""
    import tenacity

    return tenacity.Retrying(**options)


def async_retrying(**options: Unpack[Strategy]) -> tenacity.AsyncRetrying:
    """Return tenacity's engine for asyncio."""
    import tenacity

    return tenacity.AsyncRetrying(**options)


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
