"""A proxy in front of PostgreSQL that lets a transaction commit, and kills its backend before the reply arrives."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator

import psycopg

from tests.servers.journals import until
from tests.servers.postgres import Postgres

_READY: bytes = b"Z\x00\x00\x00\x05I"
"""ReadyForQuery outside of a transaction: what was sent before is committed.

Source: PostgreSQL's documentation, "Message Formats".
"""


class LostReply:
    """A running proxy.

    Attributes:
        conninfo: How to connect through it.
        url: The same as a URL.
        killed: How many backends were killed.
    """

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.conninfo = server.conninfo.replace(f"port={server.port}", f"port={port}")
        self.url = server.url.replace(f":{server.port}/", f":{port}/")
        self.killed = 0
        self._wanted: bytes | None = None
        self._lock = threading.Lock()

    def after(self, statement: bytes) -> None:
        """Lose the reply to the next transaction that has this in a statement."""
        self._wanted = statement

    def serve(self) -> None:
        """Accept connections until the proxy is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _connect(self, client: socket.socket) -> None:
        armed = threading.Event()
        with client, contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._server.port)) as server:
            threading.Thread(target=self._requests, args=(client, server, armed), daemon=True).start()
            try:
                while data := server.recv(65_536):
                    if armed.is_set() and data.endswith(_READY):
                        self._kill(server.getsockname()[1])
                        break
                    client.sendall(data)
            finally:
                # Also when the server has reset the connection, since it ended with a request unread. The other thread
                # still reads it, so closing it would not end it: the client would wait for its reply for ever.
                client.shutdown(socket.SHUT_RDWR)

    def _requests(self, client: socket.socket, server: socket.socket, armed: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                with self._lock:
                    if self._wanted is not None and self._wanted in data:
                        self._wanted = None
                        armed.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _kill(self, port: int) -> None:
        with psycopg.connect(self._server.conninfo) as connection:
            query = "SELECT pid FROM pg_stat_activity WHERE client_port = %s"
            ((pid,),) = connection.execute(query, (port,)).fetchall()
        os.kill(pid, signal.SIGKILL)
        # PostgreSQL then ends all its processes, and starts anew.
        until(lambda: _is_up(self._server, pid))
        self.killed += 1


def _is_up(server: Postgres, killed: int) -> bool:
    try:
        with psycopg.connect(server.conninfo) as connection:
            return connection.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (killed,)).fetchone() is None
    except psycopg.OperationalError:
        return False


@contextlib.contextmanager
def losing_replies(server: Postgres) -> Iterator[LostReply]:
    """Run a proxy."""
    proxy = LostReply(server)
    threading.Thread(target=proxy.serve, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.close()
