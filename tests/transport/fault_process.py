"""A fault server in a process of its own, which ends with its standard input: `-m tests.transport.fault_process`."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from optimove_conditional_execution.testing import FaultServer, faults

CYCLE = (
    faults.HANG,
    None,
    faults.GARBAGE,
    faults.CLOSE_WITHOUT_ANSWER,
    faults.drip_headers(0.005),
    faults.TRUNCATED_BODY,
    faults.HTML_502,
    faults.RESET_AFTER_UPLOADING,
    faults.drip_body(0.005),
    faults.gzip_bomb(20 * 1024 * 1024),
)


@contextlib.contextmanager
def fault_process() -> Iterator[str]:
    """Run the server, and yield its URL."""
    root = Path(__file__).parent.parent.parent
    with subprocess.Popen(
        [sys.executable, "-m", "tests.transport.fault_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


if __name__ == "__main__":
    with FaultServer(itertools.cycle(CYCLE)) as server:
        print(server.url, flush=True)
        sys.stdin.read()
