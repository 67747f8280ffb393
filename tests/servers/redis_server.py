"""Redis for tests: empty, in memory."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

import redis

from tests.servers.processes import PATIENCE, ServerProcess, free_port, ordinary_user, own_folder, program


class RedisServer:
    """A running Redis.

    Attributes:
        port: On loopback.
        url: How to connect.
    """

    def __init__(self, server: ServerProcess, port: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._server = server

    def connect(self) -> redis.Redis:
        """Return a client."""
        return redis.Redis(port=self.port)

    def start(self) -> None:
        """Start it, and wait until it takes commands."""
        self._server.start()
        end = time.monotonic() + PATIENCE
        with self.connect() as client:
            while True:
                self._server.check()
                try:
                    client.ping()
                except redis.ConnectionError:
                    assert time.monotonic() < end, "Redis did not start in time"
                    time.sleep(0.02)
                else:
                    return

    def stop(self) -> None:
        """Stop it at once; what it held is lost."""
        self._server.stop(signal.SIGKILL)


@contextlib.contextmanager
def running_redis() -> Iterator[RedisServer]:
    """Run a Redis of its own."""
    user, port = ordinary_user(), free_port()
    with own_folder(user) as folder:
        command = [program("redis-server", "redis-server"), "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
        running = RedisServer(ServerProcess(command, folder=folder, user=user), port)
        try:
            running.start()
            yield running
        finally:
            running.stop()
