"""Sliding-window rate limiter, and adaptive throttling after HTTP 429 and 503."""

from __future__ import annotations

import itertools
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from .. import validation
from ..deadline import Clock, Deadline
from ..errors import DeadlineExceeded
from ..fork import detect_fork, reset_after_fork
from ..observers import SafeLogger
from .retry import backoff
from .waiting import Alarm


@final
@dataclass(frozen=True, slots=True)
class RateLimit:
    """A rate limit: at most `requests` requests in any window of `per` seconds.

    Optimove allows 50 requests in 10 s for each API key.
    Source: developer.optimove.com/reference/understanding-api-rate-limits-at-optimove.

    Attributes:
        requests: The number of requests, 1 or more.
        per: The length of the sliding window, in seconds.
    """

    requests: int
    per: float

    def __post_init__(self) -> None:
        """Reject limits that would allow no requests."""
        validation.integer("RateLimit.requests", self.requests)
        validation.seconds("RateLimit.per", self.per, above_zero=True)


_LEEWAY: Final = 0.005
"""A share of the window, 50 ms of 10 s: clocks run at different speeds, and servers count with different resolution."""

_LONGEST_WAY: Final = 0.2
"""A share of the window, 2 s of 10 s. A request without a response after that has arrived long before."""


@final
class RateLimiter:
    """Sliding-window rate limiter, shared by all threads and tasks of a client.

    The server counts a request when it arrives, which is some time after it was started: connections are opened,
    machines are busy. It has certainly arrived when its response is received, so its slot in the window is free again
    one window after its response.

    Each request reserves the earliest moment at which the window has room, first come, first served. So no caller polls
    or starves, and a wait that would outlast its deadline fails at once. A cancelled caller returns its reservation,
    and all after it move up.
    """

    def __init__(self, limit: RateLimit, *, clock: Clock = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._queue: deque[Reservation] = deque()
        self._lock = threading.Lock()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Reset the lock and the reservations of the parent's threads; requests that were sent still count."""
        self._lock = threading.Lock()
        self._queue = deque(reservation for reservation in self._queue if reservation.has_begun)

    async def acquire(self, deadline: Deadline, alarm: type[Alarm]) -> Reservation:
        """Wait until a request may start, and return its reservation: call `complete` when the request has ended.

        A cancelled caller returns its reservation.

        Args:
            deadline: The deadline of the request.
            alarm: How to wait.

        Raises:
            DeadlineExceeded: It could only start after the deadline; nothing was sent.
        """
        reservation = self._reserve(deadline)
        if reservation.has_begun:
            return reservation
        waiting = alarm()
        reservation.on_change = waiting.ring
        try:
            while (pause := self._begin(reservation, deadline)) > 0:
                await waiting.wait(pause)
        except BaseException:
            self.give_back(reservation)
            raise
        return reservation

    def complete(self, reservation: Reservation) -> None:
        """Record that a request has ended: with a response, an error or a cancellation."""
        reservation.end = self._clock()

    def _reserve(self, deadline: Deadline) -> Reservation:
        detect_fork()
        with self._lock:
            now = self._clock()
            while self._queue and self._queue[0].has_begun and self._free_at(self._queue[0], now) <= now:
                self._queue.popleft()
            reservation = Reservation(self._earliest(len(self._queue), now))
            self._check(reservation, deadline, now)
            reservation.has_begun = reservation.at <= now
            self._queue.append(reservation)
            return reservation

    def _begin(self, reservation: Reservation, deadline: Deadline) -> float:
        """Start a reservation if its time has come, and return the seconds until then."""
        with self._lock:
            now = self._clock()
            if reservation.at <= now:
                # Earlier requests may have ended later than was estimated when it was made.
                reservation.at = self._earliest(self._queue.index(reservation), now)
                self._check(reservation, deadline, now)
                reservation.has_begun = reservation.at <= now
            return reservation.at - now

    def _check(self, reservation: Reservation, deadline: Deadline, now: float) -> None:
        if reservation.at - now > deadline.remaining():
            raise DeadlineExceeded(
                f"The rate limit of {self._limit.requests} requests in {self._limit.per:g} s allows no request before "
                "the deadline.",
                request_sent=False,
            )

    def give_back(self, reservation: Reservation) -> None:
        """Record that no request was sent; all reservations after this one move up."""
        with self._lock:
            now = self._clock()
            if reservation not in self._queue:
                return  # its window is over
            place = self._queue.index(reservation)
            del self._queue[place]
            for behind in range(place, len(self._queue)):
                self._queue[behind].move(self._earliest(behind, now))

    def _earliest(self, place: int, now: float) -> float:
        """Return when the reservation at this position of the queue may start."""
        start = now
        if place:
            start = max(start, self._queue[place - 1].at)  # never before the previous one
        ahead = place - self._limit.requests
        if ahead >= 0:
            start = max(start, self._free_at(self._queue[ahead], now))
            # Of requests in flight a later one can arrive first.
            for reservation in itertools.islice(self._queue, ahead):
                if not reservation.has_begun:
                    break
                start = max(start, self._free_at(reservation, now))
        return start

    def _free_at(self, reservation: Reservation, now: float) -> float:
        """Return when a reservation's slot in the window is free again, or the earliest possible time."""
        per = self._limit.per
        if reservation.at > now:
            arrived = reservation.at
        else:
            arrived = min(now if reservation.end is None else reservation.end, reservation.at + _LONGEST_WAY * per)
        return arrived + per * (1 + _LEEWAY)


@final
class Reservation:
    """A reserved start time of a request. `on_change` is called when it moves up."""

    __slots__ = ("at", "end", "has_begun", "on_change")

    def __init__(self, at: float) -> None:
        self.at = at
        self.end: float | None = None
        self.has_begun = False
        self.on_change: Callable[[], object] | None = None

    def move(self, at: float) -> None:
        """Move to an earlier time, and notify the waiting caller."""
        if at < self.at:
            self.at = at
            if self.on_change is not None:
                self.on_change()


_LOGGER: Final = SafeLogger("client")

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 2.0
_SHARE: Final = 0.8
"""Share of the time left for waiting at the learnt interval. A caller with less time starts as early as allowed."""

_GUESS_SHARE: Final = 0.125
"""Share of the time left for a pause that the server did not ask for."""

_CALM_SECONDS: Final = 30.0
"""Seconds without a 429 after which throttling ends."""

_IDLE_SECONDS: Final = 1.0
"""Seconds without a request after which a new burst begins."""

_PROBE_SECONDS: Final = 5.0
"""Seconds that callers wait for the result of a probe request; then the next one is sent."""

_LOOK_SECONDS: Final = 0.05
"""Seconds between two checks of its result."""

_HURRY_SECONDS: Final = 0.5
"""Seconds; a caller with less time left does not wait for a probe."""

_NEWS_SECONDS: Final = 1.0
"""Seconds; a smaller extension of the pause is not logged, so that concurrent 429s are logged once."""


_NEVER: Final = -math.inf


@dataclass(eq=False, slots=True)
class _Window:
    """A period without requests, and what follows it.

    Attributes:
        end: When it ends.
        gap: Seconds between requests after it.
        is_guess: Whether its length is a guess, since the server named none.
        probes: Whether a single probe request follows it, while the others wait for its result.
        probe_until: Until when they wait for a probe that was sent.
        lead: Seconds between the first request after it and the others.
    """

    end: float = _NEVER
    gap: float = 0.0
    is_guess: bool = False
    probes: bool = False
    probe_until: float = _NEVER
    lead: float = 0.0


@final
class AdaptiveThrottle:
    """Adaptive throttling after HTTP 429 and 503: one for each bucket of calls, shared by all callers of a client.

    If every caller retried on its own, most retries would fail. Here callers share what is learnt: no request is sent
    before the time that the server named, and from then on requests keep the interval at which it accepted them before.
    It costs nothing until a request is rejected.
    """

    def __init__(self, *, max_retry_after: float = 60.0, clock: Clock = time.monotonic) -> None:
        self._max_retry_after = max_retry_after
        self._clock = clock
        self._lock = threading.Lock()
        self._window = _Window()
        self._next = self._last_refusal = self._last_success = _NEVER
        self._refusals = self._burst = 0
        self._burst_began: float | None = None
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may have held."""
        self._lock = threading.Lock()

    async def acquire(self, deadline: Deadline, alarm: type[Alarm]) -> float:
        """Wait until a request may be sent, and return the time.

        Args:
            deadline: The deadline of the request.
            alarm: How to wait.

        Raises:
            DeadlineExceeded: The server asked for no requests until after the deadline; nothing was sent.
        """
        now = self._clock()
        if self._is_calm(now):
            return now
        while (pause := self._reserve(deadline)) > 0:
            await alarm().wait(pause)
            if self._may_send(deadline):
                break
        return self._clock()

    def _is_calm(self, now: float) -> bool:
        window = self._window  # read without the lock too: a refusal in the same moment could as well come later
        return not window.probes and now > max(self._last_refusal, window.end) + _CALM_SECONDS

    def on_success(self) -> None:
        """Record that a request was not rejected with 429 or 503."""
        now = self._clock()
        with self._lock:
            if now - self._last_success > _IDLE_SECONDS and now - self._last_refusal > _CALM_SECONDS:
                self._burst_began = now
                self._burst = 0
            self._last_success = now
            self._burst += 1
            self._refusals = 0
            if self._window.probes and now >= self._window.end:
                self._window.probes = False
                self._next = now

    def on_rate_limited(self, sent_at: float, retry_after: float | None) -> None:
        """Record that a request was rejected with 429.

        Args:
            sent_at: What `acquire` returned for it.
            retry_after: Seconds from `Retry-After`; None without one.
        """
        now = self._clock()
        with self._lock:
            if sent_at >= self._last_refusal:
                self._refusals += 1
                self._last_refusal = now
                self._burst_began = now if self._burst_began is None else self._burst_began
            elif retry_after is None:
                return  # it was in flight when another one was rejected
            window = self._window
            if retry_after is None:
                pause = backoff(self._refusals, first=_FIRST_PAUSE, longest=_LONGEST_PAUSE, jitter=0.5)
                if now + pause > window.end:
                    window.end = now + pause
                    window.is_guess = True
                # After a guess a probe is sent, and the others wait for its result.
                window.lead = pause / 2
            else:
                self._hold(now, retry_after)
                window.lead = 0.0
            if self._burst and self._burst_began is not None:
                # A pause that was cut short says nothing about the rate.
                ends = now if window.probes else window.end
                window.gap = (ends - self._burst_began) / self._burst
            else:
                window.gap = 0.0
            self._next = max(self._next, window.end)

    def on_unavailable(self, retry_after: float) -> None:
        """Record that a request was rejected with 503: that says when to retry, and nothing about the rate.

        Args:
            retry_after: Seconds from `Retry-After`.
        """
        with self._lock:
            self._hold(self._clock(), retry_after)
            self._next = max(self._next, self._window.end)
            self._window.probes = True

    def _hold(self, now: float, retry_after: float) -> None:
        """Pause all callers for as long as the server asks, up to `max_retry_after`."""
        window = self._window
        pause = min(retry_after, self._max_retry_after)
        if pause < retry_after:
            if now + pause > window.end + _NEWS_SECONDS:
                _LOGGER.warning(
                    "Optimove asks for no requests for %.0f s (Retry-After). At most %g s are waited: then one request "
                    "is sent as a probe. RetryPolicy(max_retry_after=...) sets that limit.",
                    retry_after,
                    self._max_retry_after,
                )
            window.probes = True
        if now + pause > window.end:
            window.end = now + pause
            window.is_guess = False
            window.probe_until = _NEVER

    def _reserve(self, deadline: Deadline) -> float:
        """Reserve the next time for a request, and return the seconds until then."""
        detect_fork()
        with self._lock:
            now = self._clock()
            window = self._window
            if window.probes and now >= window.end:
                if now < window.probe_until and deadline.remaining() > _HURRY_SECONDS:
                    return _LOOK_SECONDS
                window.probe_until = now + _PROBE_SECONDS
                return 0.0
            if self._is_calm(now):
                return 0.0
            left = deadline.remaining()
            end = window.end
            if window.is_guess:
                # A guess never fails a call: a caller with little time starts earlier.
                end = min(end, now + left * _GUESS_SHARE)
            if end - now >= left:
                raise DeadlineExceeded(
                    "Optimove rejects requests (429 or 503), and asks for none before the deadline.", request_sent=False
                )
            at = max(now, end, self._next)
            if at - now < _SHARE * left:
                self._next = at + window.gap + window.lead
                window.lead = 0.0
            else:
                # The interval is an estimate: better to be early than too late.
                first = max(now, end)
                at = random.uniform(first, max(first, now + left * _GUESS_SHARE))  # noqa: S311 - protects nothing
            return at - now

    def _may_send(self, deadline: Deadline) -> bool:
        """Whether the server has not asked for more time since the reservation."""
        with self._lock:
            if self._window.probes:
                return False
            wait = self._window.end - self._clock()
            return wait <= 0 or (self._window.is_guess and wait >= deadline.remaining() * _GUESS_SHARE)
