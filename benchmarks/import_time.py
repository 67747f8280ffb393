"""Importing the SDK, against importing what it cannot do without."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from benchmarks.result import Result

ROUNDS = 15


def _seconds(statement: str, environment: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, env=environment)
    return time.perf_counter() - began


def measure() -> list[Result]:
    # The first is what a gate imports; the second is every name, of which nobody needs all.
    gate = "from optimove_conditional_execution import AsyncOptimoveClient, AsyncWebhookReceiver, Decision"
    statements = [gate, "from optimove_conditional_execution import *", "import pydantic, httpx"]
    best = [float("inf")] * len(statements)
    with tempfile.TemporaryDirectory() as cache:
        # Compiled, as pip leaves what it installs, even where this clone may not be written into.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for statement in statements:
            _seconds(statement, environment)
        for _ in range(ROUNDS):
            took = [_seconds(statement, environment) for statement in statements]
            best = [min(old, new) for old, new in zip(best, took, strict=True)]
    receiver, everything, floor = (seconds * 1e3 for seconds in best)
    return [
        Result("import a receiver / import pydantic, httpx", "ms", receiver, floor, 1.2),
        Result("import every name / import pydantic, httpx", "ms", everything, floor, 1.2),
    ]
