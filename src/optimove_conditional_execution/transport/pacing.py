"""What a server teaches that turns requests away with 429: when to come back, and how fast to go on.

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


@final
class Pacing:
    """One for each bucket of calls, shared by all threads and tasks of a client. It costs nothing until a 429 comes."""

    def __init__(self, *, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held = self._next = self._last_refusal = -1e9
        self._gap = self._probing = 0.0
        self._is_guess = False
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

    def refused(self, sent_at: float, retry_after: float | None) -> None:
        """Take in that a request was turned away.

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
            pause = self._guess() if retry_after is None else retry_after
            if now + pause > self._held:
                self._held = now + pause
                self._is_guess = retry_after is None
            self._gap = (self._held - self._burst_began) / self._taken if self._taken else 0.0
            self._next = max(self._next, self._held)
            # After a guess one request goes ahead, and the others wait for what becomes of it.
            self._probing = pause / 2 if retry_after is None else 0.0

    def _guess(self) -> float:
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._refusals - 1, 30))
        return random.uniform(longest / 2, longest)  # noqa: S311 - spreads load, protects nothing

    def _reserve(self, deadline: Deadline) -> float:
        """Take the next turn, and return how far it is."""
        with self._lock:
            now = self._clock()
            if now > max(self._last_refusal, self._held) + _CALM_SECONDS:
                return 0.0
            left = deadline.remaining()
            held = self._held
            if self._is_guess:
                # A guess never costs a call: whoever has little time comes earlier.
                held = min(held, now + left * _GUESS_SHARE)
            if held - now >= left:
                raise DeadlineExceeded(
                    "Optimove turns requests away (429), and wants none before the deadline.", request_sent=False
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
            wait = self._held - self._clock()
            return wait <= 0 or (self._is_guess and wait >= deadline.remaining() * _GUESS_SHARE)
