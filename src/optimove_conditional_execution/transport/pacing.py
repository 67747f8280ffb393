"""What a server teaches that turns requests away, with 429 or 503: when to come back, and how fast to go on.

Every caller alone would try again soon, and most of them in vain. Here all callers of a bucket learn together: nobody
sends before the moment that the server named, and from then on requests keep the distance at which it took them so far.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import Final, final

from optimove_conditional_execution.deadline import Clock, Deadline
from optimove_conditional_execution.errors import DeadlineExceeded
from optimove_conditional_execution.observers import SafeLogger

_LOGGER: Final = SafeLogger("client")

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 2.0
_SHARE: Final = 0.8
"""Of the time that is left, for waiting at the distance that was learnt; who has less comes as early as allowed."""

_GUESS_SHARE: Final = 0.125
"""Of the time that is left, for a pause that the server did not ask for."""

_CALM_SECONDS: Final = 30.0
"""After so long without a 429 nothing is held back any more."""

_IDLE_SECONDS: Final = 1.0
"""After so long without a request a new burst begins."""

_PROBE_SECONDS: Final = 5.0
"""How long the others wait for what becomes of the one request that goes ahead; then the next one does."""

_LOOK_SECONDS: Final = 0.05
"""Between two looks at what became of it."""

_HURRY_SECONDS: Final = 0.5
"""Who has no more time left waits for nobody's outcome."""

_NEWS_SECONDS: Final = 1.0
"""A wave of requests that are turned away together is logged once: each moves the end of the pause by less."""


@final
class Pacing:
    """One for each bucket of calls, shared by all threads and tasks of a client.

    It costs nothing until a request is turned away.
    """

    def __init__(self, *, max_retry_after: float = 60.0, clock: Clock = time.monotonic) -> None:
        self._max_retry_after = max_retry_after
        self._clock = clock
        self._lock = threading.Lock()
        self._held = self._next = self._last_refusal = -1e9
        self._gap = self._probing = 0.0
        self._is_guess = self._must_probe = False
        self._probe_until = -1e9
        self._refusals = 0
        self._burst_began = self._last_taken = -1e9
        self._taken = 0

    def wait(self, deadline: Deadline) -> float:
        """Block until a request may be sent, and return the moment.

        Raises:
            DeadlineExceeded: The server wants to be left alone until after the deadline; nothing was sent.
        """
        while (pause := self._reserve(deadline)) > 0:
            time.sleep(pause)
            if self._is_still_good(deadline):
                break
        return self._clock()

    async def wait_async(self, deadline: Deadline) -> float:
        """Do what `wait` does, without blocking the event loop."""
        while (pause := self._reserve(deadline)) > 0:
            await asyncio.sleep(pause)
            if self._is_still_good(deadline):
                break
        return self._clock()

    def taken(self) -> None:
        """Take in that a request was not turned away."""
        now = self._clock()
        with self._lock:
            if now - self._last_taken > _IDLE_SECONDS and now - self._last_refusal > _CALM_SECONDS:
                self._burst_began = now
                self._taken = 0
            self._last_taken = now
            self._taken += 1
            self._refusals = 0
            if self._must_probe and now >= self._held:
                self._must_probe = False
                self._next = now

    def refused(self, sent_at: float, retry_after: float | None) -> None:
        """Take in that a request was turned away with 429.

        Args:
            sent_at: What `wait` returned for it.
            retry_after: Seconds that the server asks for; None when it does not say.
        """
        now = self._clock()
        with self._lock:
            if sent_at >= self._last_refusal:
                self._refusals += 1
                self._last_refusal = now
                if self._burst_began < 0:
                    self._burst_began = now
            elif retry_after is None:
                return  # it was under way when another one told the same
            pause = self._guess() if retry_after is None else self._hold(now, retry_after)
            if retry_after is None and now + pause > self._held:
                self._held = now + pause
                self._is_guess = True
            # A pause that was cut short tells nothing of the rate.
            window_ends = now if self._must_probe else self._held
            self._gap = (window_ends - self._burst_began) / self._taken if self._taken else 0.0
            self._next = max(self._next, self._held)
            # After a guess one request goes ahead, and the others wait for what becomes of it.
            self._probing = pause / 2 if retry_after is None else 0.0

    def unavailable(self, retry_after: float) -> None:
        """Take in that a request was turned away with 503: that tells when to come back, and nothing of the rate.

        Args:
            retry_after: Seconds that the server asks for.
        """
        now = self._clock()
        with self._lock:
            self._hold(now, retry_after)
            self._next = max(self._next, self._held)
            self._must_probe = True

    def _hold(self, now: float, retry_after: float) -> float:
        """Hold everybody back for as long as the server asks, within reason, and return the seconds."""
        pause = min(retry_after, self._max_retry_after)
        if pause < retry_after:
            if now + pause > self._held + _NEWS_SECONDS:
                _LOGGER.warning(
                    "Optimove asks for no requests for %.0f s (Retry-After). More than %g s are not believed: then one "
                    "request tries. RetryPolicy(max_retry_after=...) sets how much is.",
                    retry_after,
                    self._max_retry_after,
                )
            self._must_probe = True
        if now + pause > self._held:
            self._held = now + pause
            self._is_guess = False
            self._probe_until = -1e9
        return pause

    def _guess(self) -> float:
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._refusals - 1, 30))
        return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, protects nothing

    def _reserve(self, deadline: Deadline) -> float:
        """Take the next turn, and return how far it is."""
        with self._lock:
            now = self._clock()
            if self._must_probe and now >= self._held:
                if now < self._probe_until and deadline.remaining() > _HURRY_SECONDS:
                    return _LOOK_SECONDS
                self._probe_until = now + _PROBE_SECONDS
                return 0.0
            if now > max(self._last_refusal, self._held) + _CALM_SECONDS:
                return 0.0
            left = deadline.remaining()
            held = self._held
            if self._is_guess:
                # A guess never costs a call: whoever has little time comes earlier.
                held = min(held, now + left * _GUESS_SHARE)
            if held - now >= left:
                raise DeadlineExceeded(
                    "Optimove turns requests away (429 or 503), and wants none before the deadline.", request_sent=False
                )
            turn = max(now, held, self._next)
            if turn - now < _SHARE * left:
                self._next = turn + self._gap + self._probing
                self._probing = 0.0
            else:
                # The distance is an estimate: better to come early than too late.
                first = max(now, held)
                turn = random.uniform(first, max(first, now + left * _GUESS_SHARE))  # noqa: S311 - protects nothing
            return turn - now

    def _is_still_good(self, deadline: Deadline) -> bool:
        with self._lock:
            if self._must_probe:
                return False
            wait = self._held - self._clock()
            return wait <= 0 or (self._is_guess and wait >= deadline.remaining() * _GUESS_SHARE)
