"""Which failed tries are repeated, and when. The only module that knows tenacity."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict, final

import tenacity
from typing_extensions import Unpack

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.errors import (
    ConfigurationError,
    RateLimitError,
    ServerError,
    TransportError,
)
from optimove_conditional_execution.operations import Operation


@final
@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failed tries of a call are repeated, inside the one deadline of the call.

    A 429 is always repeated, and does not count as a try. A 5xx and a lost connection are repeated when the call is
    idempotent, up to `attempts` tries; an approval that was given a deadline until that. `attempts=1` repeats nothing
    but a 429.

    Attributes:
        attempts: Tries of a call at most, 1 or more.
        attempt_timeout: Seconds that a single try may take.
        first_pause: Seconds; the pause before try n is a random part of `first_pause * 2 ** (n - 2)`.
        longest_pause: Seconds; no pause is longer, unless Optimove asks for it.
    """

    attempts: int = 4
    attempt_timeout: float = 10.0
    first_pause: float = 0.1
    longest_pause: float = 2.0

    def __post_init__(self) -> None:
        """Refuse numbers that would never send anything."""
        if self.attempts < 1 or not self.attempt_timeout > 0 or self.first_pause < 0 or self.longest_pause < 0:
            raise ConfigurationError(
                "RetryPolicy needs attempts of 1 or more, an attempt_timeout above 0, and no negative pause."
            )


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
    is_over: Callable[[], bool],
) -> Strategy:
    """Return how one call is repeated; the same for threads and for asyncio.

    No try starts that cannot end: when the pause would outlast the deadline, the last error stands.

    Args:
        policy: The client's policy.
        operation: What is sent.
        deadline: The end of the whole call.
        persistent: Whether only the deadline ends the tries.
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
        if not isinstance(error, ServerError | TransportError):
            return False
        return operation.idempotent or (isinstance(error, TransportError) and error.request_sent is False)

    def wait(state: tenacity.RetryCallState) -> float:
        error = _error(state)
        ceiling = min(policy.longest_pause, policy.first_pause * 2.0 ** min(state.attempt_number - 1, 30))
        # Full jitter, so that the tries of many callers do not come back as one wave.
        pause = random.uniform(0.0, ceiling)  # noqa: S311 - spreads load, protects nothing
        asked = error.retry_after if isinstance(error, RateLimitError) else None
        return pause if asked is None else asked + pause

    def stop(state: tenacity.RetryCallState) -> bool:
        error = _error(state)
        if counted >= policy.attempts and not endless and not isinstance(error, RateLimitError):
            return True
        # tenacity has asked `wait` before `stop`.
        return state.upcoming_sleep >= deadline.remaining()

    return {"retry": retry, "stop": stop, "wait": wait, "reraise": True}


def retrying(**options: Unpack[Strategy]) -> tenacity.Retrying:
    """Return tenacity's engine for threads."""
    return tenacity.Retrying(**options)


def async_retrying(**options: Unpack[Strategy]) -> tenacity.AsyncRetrying:
    """Return tenacity's engine for asyncio."""
    return tenacity.AsyncRetrying(**options)


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
