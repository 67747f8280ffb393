"""What several test modules share: the samples, and Optimove's stand-in served on loopback."""

from __future__ import annotations

import contextlib
import faulthandler
import fcntl
import gc
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest
import uvicorn
from hypothesis import HealthCheck, settings

from optimove_conditional_execution import Deadline, Request, Response, WebhookNotification, fork
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.flows import switch
from optimove_conditional_execution.testing import FakeOptimove

PAYLOADS = Path(__file__).parent / "payloads"

_HANGS_SECONDS: Final = 60
"""A forked child that takes longer hangs."""

_PORTS: Final = range(20_000, 30_000)
"""Below the ports that the system gives to outgoing connections, and to servers that let it choose.

One of those could be given to another test before the process listens for which it was found, or during a restart.
"""


@pytest.fixture(autouse=True, scope="session")
def no_resolver() -> Iterator[None]:
    """Let names below `.invalid`, which do not exist, be unknown at once: a machine's resolver may take its time.

    Source: RFC 2606, section 2.
    """
    real = socket.getaddrinfo

    def look_up(host: Any, *given: Any, **more: Any) -> Any:
        name = host.encode("idna") if isinstance(host, str) else host or b""  # an error for what is no name
        if name.endswith(b".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *given, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", look_up)
        yield


@pytest.fixture
def sample() -> Callable[[str], bytes]:
    """Return the bytes of a sample payload by its file name."""
    return lambda name: (PAYLOADS / name).read_bytes()


def pytest_configure() -> None:
    """Prepare this process, and with it those that tests start.

    They trust one authority. A client loads those it trusts, which takes the hundred or more of a machine longer than
    most tests: 50 ms for each client.

    They have the default signals, also under `nohup` or as a shell's background job. There the suite is started with
    signals ignored, which processes inherit. A handler is not inherited.

    No property has a bound on time, since the machine may be busy.

    A test that hangs fails with its stack after 240 s, many times what the slowest takes on a busy machine. This is not
    in pyproject.toml: pytest would refuse to run a new user's tests in a clone without pytest-timeout.
    """
    settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy machine")
    os.environ.setdefault("PYTEST_TIMEOUT", "240")
    os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "authority.pem")
    os.environ.pop("SSL_CERT_DIR", None)
    for name in ("SIGINT", "SIGHUP", "SIGQUIT", "SIGTERM"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


@pytest.fixture
def patient_switch(monkeypatch: pytest.MonkeyPatch) -> float:
    """Give a kill switch more than its half second, which is returned: a busy machine may hold it up for as long."""
    seconds = switch._ANSWER_SECONDS
    monkeypatch.setattr(switch, "_ANSWER_SECONDS", 5.0)
    return seconds


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect at half the price.

    pytest compiles each test module with its assertions rewritten, and keeps the result. So xdist's workers collect one
    after the other: the first compiles, the others read. Together each would compile all of them.

    There is no garbage to collect meanwhile: all that is made stays. So the collector need not look at it afterwards
    either; otherwise each full collection of a test takes a tenth of a second.
    """
    gc.disable()
    try:
        with Path(__file__).open() as lock:
            if "PYTEST_XDIST_WORKER" in os.environ and not sys.dont_write_bytecode:
                fcntl.flock(lock, fcntl.LOCK_EX)
            return (yield)
    finally:
        gc.freeze()
        gc.enable()


class OverHTTP:
    """Lets an ASGI server serve a fake: its `handle`, awaited."""

    max_body = 1_048_576

    def __init__(self, fake: FakeOptimove) -> None:
        self._fake = fake

    def too_large(self) -> Response:
        return self._fake.too_large()

    async def handle(self, request: Request) -> Response:
        return self._fake.handle(request)


@contextlib.contextmanager
def served(app: Any, *, on: int = 0, **options: Any) -> Iterator[str]:
    """Serve an ASGI application with uvicorn on a loopback port, a free one unless told; yields the base URL."""
    # asyncio turns Nagle's algorithm off only for sockets that say they are TCP; with it, answers wait for 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", on))
    server = uvicorn.Server(uvicorn.Config(app, **{"log_level": "warning", "lifespan": "on", **options}))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "uvicorn did not start"
        assert time.monotonic() < end, "uvicorn did not start in time"
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("No port is free.")


@pytest.fixture
def optimove_url(fake_optimove: FakeOptimove) -> Iterator[str]:
    """The base URL of the test's `fake_optimove`, served on loopback."""
    with served(ASGIApp(OverHTTP(fake_optimove))) as url:
        yield url


def forked() -> int:
    """Fork; Python 3.12 warns that threads and forks mix badly, which is what the tests of forking are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def forked_untold() -> int:
    """Fork without the hook of the SDK, as when uWSGI forks its workers: it does so in C, where Python runs no hooks.

    Not in C here: of a process in which other threads work, that leaves Python itself halfway.
    """
    lock, reset = fork._lock, fork._reset
    fork._reset = lambda: None
    try:
        process = forked()
    finally:
        fork._reset = reset
    if process == 0:
        fork._lock = lock
    return process


class Child:
    """A forked child that checks something.

    Its exit status is 0 when the check is true there, and -SIGALRM when it hangs, with the stacks of its threads on
    stderr if they can be had. One that raises never goes on as its parent.
    """

    def __init__(self, check: Callable[[], object], fork: Callable[[], int] = forked) -> None:
        self._process = fork()
        if self._process == 0:
            self._check(check)

    def _check(self, check: Callable[[], object]) -> NoReturn:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            faulthandler.register(signal.SIGALRM, file=2, chain=True)
            signal.alarm(_HANGS_SECONDS)
            status = 0 if check() else 2
        except BaseException:  # noqa: BLE001 - what it is stands in the output of the test
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(status)

    def status(self) -> int:
        """Wait for its end, and return its exit status."""
        end = time.monotonic() + _HANGS_SECONDS + 5
        while True:
            ended, status = os.waitpid(self._process, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:  # it did not get as far as its alarm
                os.kill(self._process, signal.SIGKILL)
                os.waitpid(self._process, 0)
                return -signal.SIGALRM
            time.sleep(0.01)


def child_status(check: Callable[[], object], fork: Callable[[], int] = forked) -> int:
    """Return the exit status of a `Child`."""
    return Child(check, fork).status()


def start_together(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Wait until all have said that they are ready, and let them go."""
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    let_go(processes)


def let_go(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Let processes go on that wait for a line."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


class Looking:
    """A handler that approves, and keeps how long it was given."""

    def __init__(self) -> None:
        self.left: list[float] = []

    def __call__(self, notification: WebhookNotification, deadline: Deadline) -> bool:
        self.left.append(deadline.remaining())
        return True
