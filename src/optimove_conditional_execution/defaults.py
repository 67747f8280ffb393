"""Defaults of arguments that stand in several signatures, and first values of what is measured."""

from __future__ import annotations

from typing import Final

DEFAULT_TIMEOUT_MS: Final = 5_000
"""How long Optimove waits for an answer unless told otherwise. Source: Optimove's Conditional Execution article."""

DEFAULT_PAGE_SIZE: Final = 10_000
"""Rows requested per page. How Optimove pages is not documented."""

FIRST_RESERVE: Final = 0.5
"""Seconds of a budget that are kept for the delivery of the answer, until deliveries have been measured."""

SMALLEST_RESERVE: Final = 0.05
"""Seconds that are kept at least, however quick the deliveries are."""

START_SECONDS: Final = 30.0
"""Seconds that a service which is rehearsed may take to listen."""

STOP_SECONDS: Final = 20.0
"""Seconds that a stop takes by default: Kubernetes kills a container 30 s after its SIGTERM."""

LOOPBACK: Final = "127.0.0.1"

SHORTEST_LEASE: Final = 0.5
"""Seconds of a claim's lease at least; by default it is a sixth of the budget."""
