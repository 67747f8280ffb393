"""Claims in the memory of one process."""

from __future__ import annotations

import heapq
import threading
import time
from typing import Final, final

from optimove_conditional_execution import validation
from optimove_conditional_execution.deadline import Clock
from optimove_conditional_execution.errors import OptimoveError
from optimove_conditional_execution.flows.claims import Claim, ClaimState

_OPEN: Final = Claim(ClaimState.OPEN)


@final
class MemoryClaims:
    """Claims for one process; each is forgotten at its deadline. Safe for threads and for asyncio."""

    instant = True

    def __init__(self, *, capacity: int = 100_000, clock: Clock = time.monotonic) -> None:
        """Start empty.

        Args:
            capacity: Claims at most, all of them before their deadline. When it is full, new notifications are answered
                503 rather than decided twice.
            clock: Monotonic, in seconds.

        Raises:
            ConfigurationError: `capacity` is not a whole number of 1 or more.
        """
        self._capacity = validation.integer("capacity", capacity)
        self._clock = clock
        self._lock = threading.Lock()
        self._claims: dict[str, tuple[float, Claim]] = {}
        self._expiries: list[tuple[float, str]] = []

    def claim(self, question: str, seconds: float, /) -> Claim | None:
        """Take a notification; see `ClaimStore.claim`.

        Raises:
            OptimoveError: The store is full.
        """
        with self._lock:
            now = self._clock()
            self._forget(now)
            known = self._claims.get(question)
            if known is not None:
                expiry, claim = known
                if claim.state is ClaimState.UNDELIVERED:
                    self._claims[question] = (expiry, Claim(ClaimState.OPEN, claim.approval))
                return claim
            if len(self._claims) >= self._capacity:
                raise OptimoveError("MemoryClaims is full: too many notifications are before their deadline.")
            expiry = now + seconds
            self._claims[question] = (expiry, _OPEN)
            heapq.heappush(self._expiries, (expiry, question))
            return None

    def look(self, question: str, /) -> Claim | None:
        """Return what is known of a notification; see `ClaimStore.look`."""
        with self._lock:
            self._forget(self._clock())
            known = self._claims.get(question)
            return None if known is None else known[1]

    def record(self, question: str, claim: Claim, /) -> None:
        """Write down how far a notification has got; see `ClaimStore.record`."""
        with self._lock:
            known = self._claims.get(question)
            if known is not None:
                self._claims[question] = (known[0], claim)

    def release(self, question: str, /) -> None:
        """Forget a notification; see `ClaimStore.release`."""
        with self._lock:
            self._claims.pop(question, None)

    def __len__(self) -> int:
        """Return how many notifications are remembered."""
        with self._lock:
            self._forget(self._clock())
            return len(self._claims)

    def _forget(self, now: float) -> None:
        while self._expiries and self._expiries[0][0] <= now:
            expiry, question = heapq.heappop(self._expiries)
            known = self._claims.get(question)
            if known is not None and known[0] == expiry:
                del self._claims[question]
        # Released claims leave their expiry behind; start over before those outnumber the living.
        if len(self._expiries) > 2 * len(self._claims) + 64:
            self._expiries = [(expiry, question) for question, (expiry, _) in self._claims.items()]
            heapq.heapify(self._expiries)
