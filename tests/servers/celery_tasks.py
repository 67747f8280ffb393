"""Tasks and workers for the tests of `integrations.celery`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis
from celery import Celery

from tests.adapters.servers import ROOT
from tests.servers.processes import PATIENCE

app = Celery("tests.servers.celery_tasks", broker=os.environ.get("REDIS_URL"), backend=os.environ.get("REDIS_URL"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"visibility_timeout": 3},
)


def even(customer_id: str) -> bool:
    return int(customer_id[1:]) % 2 == 0


@app.task
def approve_even(customer_ids: list[str]) -> list[str]:
    return [customer_id for customer_id in customer_ids if even(customer_id)]


@app.task
def approve_channel(rows: list[dict[str, Any]]) -> list[str]:
    def all_rows(customer: dict[str, Any]) -> bool:
        return all(row["ChannelID"] == 504 and row["PromoCode"] == ["WB23"] for row in customer["Rows"])

    return [row["CustomerID"] for row in rows if row["ChannelID"] == 504 and all_rows(row)]


@app.task
def mapping(customer_ids: list[str]) -> dict[str, bool]:
    return {customer_id: even(customer_id) for customer_id in customer_ids}


@app.task
def odd_mapping(customer_ids: list[str]) -> dict[str, str]:
    return dict.fromkeys(customer_ids, "yes")


@app.task
def sleep(customer_ids: list[str]) -> list[str]:
    time.sleep(0.2)
    return customer_ids


@app.task
def count(customer_ids: list[str]) -> list[str]:
    """Approve all, slowly; Redis counts how often each batch is decided."""
    time.sleep(0.1)
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        client.hincrby("decided", customer_ids[0], 1)
    return customer_ids


@app.task
def hang(customer_ids: list[str]) -> list[str]:
    time.sleep(60)
    return customer_ids


@app.task
def fail(customer_ids: list[str]) -> list[str]:
    raise ValueError(f"about {customer_ids[0]}")


@app.task
def pairs(customer_ids: list[str]) -> list[tuple[str, bool]]:
    return [(customer_id, True) for customer_id in customer_ids]


@app.task
def nothing(customer_ids: list[str]) -> None:
    return None


@app.task(acks_late=False)
def kill_worker(customer_ids: list[str]) -> list[str]:
    os.kill(os.getpid(), signal.SIGKILL)
    return customer_ids


class Worker:
    """A `celery worker` in processes of its own."""

    def __init__(
        self, url: str, name: str, log: Path, *, concurrency: int = 2, app: str = __name__, directory: Path = ROOT
    ) -> None:
        command = ["-m", "celery", "-A", app, "worker", "--concurrency", str(concurrency), "--hostname", f"{name}@test"]
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *command, "--without-gossip", "--without-mingle", "--loglevel", "INFO"],
                cwd=directory,
                env={**os.environ, "REDIS_URL": url},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it takes tasks."""
        end = time.monotonic() + PATIENCE
        while " ready." not in (said := self._log.read_text(errors="replace")):
            assert self._process.poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill all of its processes, as a lost machine would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)


@contextlib.contextmanager
def workers(url: str, count: int, folder: Path, *, concurrency: int = 1) -> Iterator[list[Worker]]:
    """Run some workers."""
    started: list[Worker] = []
    try:
        for number in range(count):
            started.append(Worker(url, f"{folder.name}-{number}", folder / f"worker{number}", concurrency=concurrency))
        for worker in started:
            worker.wait()
        yield started
    finally:
        for worker in started:
            worker.kill()
