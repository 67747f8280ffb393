"""Two clients, as two processes have them, with one API key whose limit Optimove counts."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from optimove_conditional_execution import OptimoveClient, RateLimit, Request
from optimove_conditional_execution.testing import FaultServer, faults

ALLOWED, WINDOW = 10, 0.5
CALLS = 15


class Window:
    """What Optimove does: it counts the requests of a key."""

    def __init__(self) -> None:
        self.refused = 0
        self._lock = threading.Lock()
        self._accepted: list[float] = []

    def __call__(self, request: Request) -> faults.Fault | None:
        with self._lock:
            now = time.monotonic()
            self._accepted = [at for at in self._accepted if at > now - WINDOW]
            if len(self._accepted) < ALLOWED:
                self._accepted.append(now)
                return None
            self.refused += 1
            return faults.rate_limited(WINDOW)


@pytest.mark.parametrize(("share", "is_refused"), [(ALLOWED, True), (ALLOWED // 2, False)], ids=["whole", "half"])
def test_clients_that_share_a_key_lose_nothing(share: int, is_refused: bool) -> None:
    window = Window()

    def calls(server: FaultServer) -> int:
        client: OptimoveClient
        with server.client(rate_limit=RateLimit(share, per=WINDOW), timeout=30.0) as client:
            return sum(client.get_webhooks() == [] for _ in range(CALLS))

    with FaultServer(window) as server, ThreadPoolExecutor(2) as processes:
        assert list(processes.map(calls, [server, server])) == [CALLS, CALLS]
    assert (window.refused > 0) == is_refused
