"""PostgreSQL for tests: an empty database that loses nothing but power."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.conftest import free_port
from tests.servers.processes import PATIENCE, ServerProcess, ordinary_user, own_folder, program

_DEBIAN = Path("/usr/lib/postgresql")
"""Where Debian keeps the programs of each version, outside of PATH."""

GUARDED = "guarded"


class Postgres:
    """A running PostgreSQL.

    Attributes:
        port: On loopback.
        conninfo: How to connect, as libpq wants it; anybody may.
        url: The same as a URL.
    """

    def __init__(self, server: ServerProcess, port: int) -> None:
        self.port = port
        self.conninfo = f"host=127.0.0.1 port={port} user=postgres dbname=postgres connect_timeout=10"
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        self._server = server

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._server.start()
        end = time.monotonic() + PATIENCE
        while True:
            self._server.check()
            try:
                psycopg.connect(self.conninfo).close()
            except psycopg.OperationalError:
                assert time.monotonic() < end, "PostgreSQL did not start in time"
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop it at once: every connection breaks, what was committed stays."""
        self._server.stop(signal.SIGQUIT)

    def restart(self) -> None:
        """Stop it at once, and start it."""
        self.stop()
        self.start()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Let it answer nothing about claims."""
        with psycopg.connect(self.conninfo) as connection:
            connection.execute("LOCK TABLE optimove_claims IN ACCESS EXCLUSIVE MODE")
            yield


@contextlib.contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a PostgreSQL of its own, as an ordinary user."""
    folders = sorted(_DEBIAN.glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    initdb, postgres = (program(name, "postgresql", *folders) for name in ("initdb", "postgres"))
    user, port = ordinary_user(), free_port()
    with own_folder(user) as folder:
        data = str(folder / "data")
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        server = ServerProcess([postgres, "-D", data, "-p", str(port), *options], folder=folder, user=user)
        server.run([initdb, "-D", data, "-U", "postgres", "-A", "trust", "--no-sync", "--encoding=UTF8"])
        # A role of this name needs a password, and may do what it is granted.
        hba = folder / "data" / "pg_hba.conf"
        hba.write_text(f"host all {GUARDED} 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
        running = Postgres(server, port)
        try:
            running.start()
            yield running
        finally:
            running.stop()
