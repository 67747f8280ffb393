"""Redis for tests."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator

import redis

from tests.conftest import free_port
from tests.servers.processes import PATIENCE, ServerProcess, ordinary_user, own_folder, program


class Redis:
    """A running Redis.

    Attributes:
        port: On loopback.
        url: How to connect; anybody may.
    """

    def __init__(self, server: ServerProcess, port: int) -> None:
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"
        self._server = server

    def connect(self) -> redis.Redis:
        """Return a client."""
        return redis.Redis(port=self.port)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._server.start()
        end = time.monotonic() + PATIENCE
        with self.connect() as client:
            while True:
                self._server.check()
                try:
                    client.ping()
                except redis.ConnectionError:
                    assert time.monotonic() < end, "Redis did not start in time"
                    time.sleep(0.05)
                else:
                    return

    def stop(self) -> None:
        """Kill it: every connection breaks, what was confirmed stays."""
        self._server.stop(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it, and start it."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Let it keep its connections, and answer none."""
        self._server.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running_redis(*, durable: bool = True) -> Iterator[Redis]:
    """Run a Redis of its own, as an ordinary user; a durable one keeps what it has confirmed when it is killed."""
    server, user, port = program("redis-server", "redis-server"), ordinary_user(), free_port()
    with own_folder(user) as folder:
        # By default Redis confirms before it writes, for up to two seconds, while a disk is busy with an fsync.
        kept = ["--appendonly", "yes", "--appendfsync", "always"] if durable else []
        options = ["--bind", "127.0.0.1", "--dir", str(folder), "--save", "", *kept]
        running = Redis(ServerProcess([server, "--port", str(port), *options], folder=folder, user=user), port)
        try:
            running.start()
            yield running
        finally:
            running.stop()
