"""PgBouncer for tests: it gives one connection of PostgreSQL to all of its clients, a transaction to each in turn."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.conftest import free_port
from tests.servers.postgres import Postgres
from tests.servers.processes import PATIENCE, ServerProcess, ordinary_user, own_folder, program

_SETTINGS = """
[databases]
postgres = host=127.0.0.1 port={server} user=postgres pool_size={size}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
"""


@contextlib.contextmanager
def running_pgbouncer(postgres: Postgres, mode: str, *, size: int = 1) -> Iterator[str]:
    """Run a PgBouncer before a PostgreSQL, as an ordinary user; yield how to connect."""
    path, user, port = program("pgbouncer", "pgbouncer", Path("/usr/sbin")), ordinary_user(), free_port()
    with own_folder(user) as folder:
        settings = folder / "pgbouncer.ini"
        settings.write_text(_SETTINGS.format(server=postgres.port, port=port, mode=mode, size=size))
        server = ServerProcess([path, str(settings)], folder=folder, user=user)
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        try:
            server.start()
            end = time.monotonic() + PATIENCE
            while True:
                server.check()
                try:
                    psycopg.connect(url).close()
                except psycopg.OperationalError:
                    assert time.monotonic() < end, "PgBouncer did not start in time"
                    time.sleep(0.05)
                else:
                    break
            yield url
        finally:
            server.stop()
