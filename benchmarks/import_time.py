"""Importing the SDK, against importing what it cannot do without."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.result import Result

ROUNDS = 15


def _seconds(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - began


def measure() -> list[Result]:
    statements = ["import optimove_conditional_execution", "import pydantic, httpx"]
    for statement in statements:
        _seconds(statement)
    best = [float("inf")] * 2
    for _ in range(ROUNDS):
        best = [min(old, _seconds(statement)) for old, statement in zip(best, statements, strict=True)]
    return [Result("import the SDK / import pydantic, httpx", "ms", best[0] * 1e3, best[1] * 1e3, 1.3)]
