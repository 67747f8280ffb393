"""Servers in processes of their own, and HTTP by hand for what no well-behaved client would send."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent.parent
PATIENCE = 30.0
"""Seconds; only a broken test waits so long."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that runs."""

    url: str
    pid: int
    log: Path

    def printed(self) -> str:
        """Return what it wrote to stdout and stderr up to now."""
        return self.log.read_text(errors="replace")

    def memory(self, name: str = "VmRSS") -> int:
        """Return a figure of its memory in bytes: VmRSS is now, VmHWM the most there has been."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) * 1024


@contextlib.contextmanager
def running(
    command: Callable[[int], list[str]], *, log: Path, environment: Mapping[str, str], directory: Path = ROOT
) -> Iterator[Running]:
    """Run a Python server on a free loopback port.

    It inherits a socket that listens already: requests that come before it accepts wait in the socket's queue, so
    nobody has to guess when it has started.

    Args:
        command: Python's arguments, made from the number of the file descriptor to serve.
        log: Where stdout and stderr go.
        environment: Variables to add.
        directory: Where to run it.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        listener.set_inheritable(True)
        # Accepted sockets inherit this. asyncio sets it only on sockets whose protocol it can see, which hides behind a
        # file descriptor; without it every answer in two pieces waits 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        process = subprocess.Popen(
            [sys.executable, *command(listener.fileno())],
            cwd=directory,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    # Our copy of the socket is closed now, so a server that dies refuses connections instead of keeping them waiting.
    try:
        yield Running(url, process.pid, log)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()


def uvicorn_command(factory: str) -> Callable[[int], list[str]]:
    """Return how to serve an ASGI factory with uvicorn and h11."""
    return lambda fd: ["-m", "uvicorn", "--http", "h11", "--lifespan", "on", "--fd", str(fd), "--factory", factory]


def gunicorn_command(application: str) -> Callable[[int], list[str]]:
    """Return how to serve a WSGI application with one gunicorn worker of four threads."""
    options = ["--threads", "4", "--keep-alive", "30", "--graceful-timeout", "2", "--worker-tmp-dir", "/dev/shm"]
    return lambda fd: ["-m", "gunicorn", *options, "--bind", f"fd://{fd}", application]


def wsgiref_command(*factories: str) -> Callable[[int], list[str]]:
    """Return how to serve WSGI factories of `apps.py` with the standard library's server, under its validator."""
    return lambda fd: ["-m", "tests.adapters.wsgiref_server", str(fd), *factories]


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back over a socket.

    Attributes:
        status: The HTTP status; 0 when the server closed without a word.
        headers: By lower-case name.
        body: The bytes.
        sent: How many bytes of the request had gone out when the answer came.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent: int


def talk(url: str, pieces: Iterable[bytes]) -> Reply:
    """Send bytes as they are until an answer comes, and read it."""
    parts = urlsplit(url)
    received = bytearray()
    sent = 0
    with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE) as connection:
        connection.setblocking(False)
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                rest = memoryview(piece)
                while rest and not _ready(connection, write=True):
                    count = connection.send(rest)
                    rest = rest[count:]
                    sent += count
                if rest:
                    break
        with contextlib.suppress(ConnectionError):
            while not _complete(received) and _ready(connection, write=False):
                data = connection.recv(65_536)
                if not data:
                    break
                received += data
    return _reply(bytes(received), sent)


def hang_up(url: str, data: bytes) -> None:
    """Send bytes as they are and close the connection."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=PATIENCE) as connection:
        connection.sendall(data)


def _ready(connection: socket.socket, *, write: bool) -> bool:
    """Wait until there is something to read, or, if wanted, room to write; tell whether it is to read."""
    readable, writable, _ = select.select([connection], [connection] if write else [], [], PATIENCE)
    assert readable or writable, "nothing moved"
    return bool(readable)


def _complete(received: bytes | bytearray) -> bool:
    reply = _reply(bytes(received), 0)
    return reply.status != 0 and len(reply.body) >= int(reply.headers.get("content-length", sys.maxsize))


def _reply(received: bytes, sent: int) -> Reply:
    head, blank, body = received.partition(b"\r\n\r\n")
    if not blank:
        return Reply(0, {}, b"", sent)
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Reply(int(first.split()[1]), headers, body, sent)


def head(path: str, *headers: tuple[str, str], method: str = "POST") -> bytes:
    """Return the first lines of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunks(total: int, *, size: int = 65_536) -> Iterator[bytes]:
    """Yield a body of so many bytes in chunked transfer coding, the last chunk included."""
    chunk = b"%x\r\n%b\r\n" % (size, b"x" * size)
    for _ in range(total // size):
        yield chunk
    yield b"0\r\n\r\n"
