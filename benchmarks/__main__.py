"""Run every benchmark, or those that are named, and print one table."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterable

from benchmarks import (
    asgi_throughput,
    calls,
    celery_workers,
    decision_log,
    import_time,
    receiver,
    review,
    stores,
    verify_parse,
)
from benchmarks.comparison.tables import compared
from benchmarks.result import Result

BENCHMARKS: dict[str, Callable[[], Iterable[Result]]] = {
    "verify_parse": verify_parse.measure,
    "import_time": import_time.measure,
    "receiver": receiver.measure,
    "decision_log": decision_log.measure,
    "asgi_throughput": asgi_throughput.measure,
    "calls": calls.measure,
    "bursts": calls.measure_bursts,
    "review": review.measure,
    "stores": stores.measure,
    "celery_workers": celery_workers.measure,
}
NAMED_ONLY = {"celery_workers", "stores"}
"""They need servers of other projects: Redis, PostgreSQL."""

COMPARISON = "comparison"
"""It prints tables of its own, and runs only when it is named: it needs the dependency group of that name."""


def main() -> int:
    if sys.argv[1:] == [COMPARISON]:
        for table in compared():
            print(f"{table}\n", flush=True)
        return 0
    names = sys.argv[1:] or [name for name in BENCHMARKS if name not in NAMED_ONLY]
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        print(
            f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}, and alone {COMPARISON}",
            file=sys.stderr,
        )
        return 2
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}\n")
    print(f"{'what':44} {'ours':>12} {'floor':>12} {'ratio':>7}  goal")
    results: list[Result] = []
    for name in names:
        for result in BENCHMARKS[name]():
            results.append(result)
            print(result.row(), flush=True)
    return 0 if all(result.reached for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
