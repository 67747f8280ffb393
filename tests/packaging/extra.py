"""Use what one extra brings, where nothing else is installed: `python extra.py NAME`.

It runs in an environment that has the wheel, one of its extras, and nothing of the test suite's.
"""

from __future__ import annotations

import asyncio
import ctypes.util
import importlib
import importlib.util
import pkgutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from wsgiref.simple_server import WSGIRequestHandler, make_server

import optimove_conditional_execution as package
from optimove_conditional_execution import Approval, AsyncOptimoveClient, OptimoveClient, WebhookReceiver
from optimove_conditional_execution.adapters.wsgi import WSGIApp
from optimove_conditional_execution.testing import FakeOptimove

BRINGS: Final = {
    "nothing": set[str](),
    "aiohttp": {"aiohttp"},
    "httpx2": {"httpx2"},
    "otel": {"opentelemetry"},
    "redis": {"redis"},
    "encryption": {"cryptography"},
    "postgres": {"psycopg", "psycopg_pool"},
    "celery": {"celery", "click"},
    "cli": {"click", "rich", "uvicorn"},
}
URL: Final = "https://api4.optimove.net"
NEEDS: Final = {
    f"{package.__name__}.cli": "cli",
    f"{package.__name__}.integrations.celery": "celery",
    f"{package.__name__}.rehearsal": "cli",
    f"{package.__name__}.telemetry": "otel",
    f"{package.__name__}.stores.redis": "redis",
    # The extra `postgres` has libpq only where the system does.
    **{
        f"{package.__name__}.stores.postgres{part}": "libpq"
        for part in ("", "_connection", "_decisions", "_journal", "_locks")
    },
    f"{package.__name__}.transport.aiohttp_engine": "aiohttp",
    f"{package.__name__}.testing.pytest_plugin": "pytest",
}


def main(extra: str) -> None:
    present = {name for names in BRINGS.values() for name in names if importlib.util.find_spec(name)}
    assert present == BRINGS[extra], f"[{extra}] brings {sorted(present)}"
    assert not importlib.util.find_spec("pytest"), "the test suite's packages would hide what is missing"
    imported = import_everything(extra)
    fake = FakeOptimove()
    receiver = WebhookReceiver(lambda notification, deadline: True, client=fake.client(), secrets="fake-secret")
    assert fake.notify(receiver, "C100").approved
    use = {"redis": redis, "postgres": postgres, "celery": celery, "cli": cli, "encryption": encryption}
    {"nothing": no_extra, "aiohttp": aiohttp, "httpx2": httpx2, "otel": otel, **use}[extra]()
    print(f"[{extra}] works: {imported} modules imported, {', '.join(sorted(present)) or 'no package'} used")


def import_everything(extra: str) -> int:
    names = [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    own = [name for name in names if not name.endswith("__main__")]
    for name in own:
        needs = {needed for prefix, needed in NEEDS.items() if name == prefix or name.startswith(f"{prefix}.")}
        if needs <= {extra}:
            importlib.import_module(name)
    return sum(name in sys.modules for name in own)


@contextmanager
def optimove() -> Iterator[tuple[FakeOptimove, str]]:
    """Serve the stand-in with the standard library's server."""

    class Quiet(WSGIRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the library's name
            pass

    fake = FakeOptimove()
    with make_server("127.0.0.1", 0, WSGIApp(fake), handler_class=Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield fake, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def approval(fake: FakeOptimove) -> Approval:
    question, _ = fake.trigger("C100")
    return Approval(timestamp=round(time.time() * 1000), request_uid=question.request_uid, approved=True)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", f"{package.__name__}.cli", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


def no_extra() -> None:
    with optimove() as (fake, url), OptimoveClient(fake.api_key, base_url=url) as client:
        client.ensure_webhook("https://gate.example.com/optimove")
        client.send_webhook_approval(approval(fake))
    answered = command("--help")
    assert answered.returncode == 2, answered
    assert "optimove-ce needs click: pip install 'optimove-conditional-execution[cli] @ file:///" in answered.stderr
    assert "[cli]" in refusal(lambda: importlib.import_module(f"{package.__name__}.rehearsal"))
    assert "[redis]" in refusal(lambda: importlib.import_module(f"{package.__name__}.stores.redis"))
    assert "[postgres]" in refusal(lambda: importlib.import_module(f"{package.__name__}.stores.postgres"))
    decision_log = importlib.import_module(f"{package.__name__}.stores").SqliteDecisionLog
    assert "[encryption]" in refusal(lambda: decision_log("decisions.db", encryption_keys="x"))
    assert "[aiohttp]" in refusal(lambda: AsyncOptimoveClient("key", base_url=URL, engine="aiohttp"))
    assert "[httpx2]" in refusal(lambda: OptimoveClient("key", base_url=URL, engine="httpx2"))


def refusal(make: Callable[[], object]) -> str:
    try:
        make()
    except (package.OptimoveError, ImportError) as error:
        return str(error)
    raise AssertionError("it was accepted without its package")


def aiohttp() -> None:
    async def run() -> None:
        with optimove() as (fake, url):
            async with AsyncOptimoveClient(fake.api_key, base_url=url, engine="aiohttp") as client:
                await client.ensure_webhook("https://gate.example.com/optimove")
                await client.send_webhook_approval(approval(fake))

    asyncio.run(run())


def httpx2() -> None:
    with optimove() as (fake, url), OptimoveClient(fake.api_key, base_url=url, engine="httpx2") as client:
        client.ensure_webhook("https://gate.example.com/optimove")
        client.send_webhook_approval(approval(fake))


def otel() -> None:
    telemetry = importlib.import_module(f"{package.__name__}.telemetry").Telemetry()
    with optimove() as (fake, url), OptimoveClient(fake.api_key, base_url=url, on_call=telemetry.on_call) as client:
        client.ensure_webhook("https://gate.example.com/optimove")


def unused_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port: int = tried.getsockname()[1]
        return port


def encryption() -> None:
    stores = importlib.import_module(f"{package.__name__}.stores")
    key = importlib.import_module("cryptography.fernet").Fernet.generate_key()
    with tempfile.TemporaryDirectory() as folder:
        settings = {"keep_payloads": True, "encryption_keys": key}
        with stores.SqliteDecisionLog(f"{folder}/decisions.db", **settings) as log:
            fake = FakeOptimove()
            receiver = WebhookReceiver(lambda *_: True, client=fake.client(), secrets="fake-secret", decision_log=log)
            fake.notify(receiver, "C100")
            (logged,) = log.decisions(customer_id="C100")
            assert b"C100" in logged.record.payload


def redis() -> None:
    stores = importlib.import_module(f"{package.__name__}.stores.redis")
    claims = stores.RedisClaims(f"redis://127.0.0.1:{unused_port()}")
    assert refusal(lambda: claims.acquire("q", "owner", 1.0, 1.0)) == "Redis cannot be reached."


def postgres() -> None:
    name = f"{package.__name__}.stores.postgres"
    if ctypes.util.find_library("pq") is None:
        assert "psycopg[binary]" in refusal(lambda: importlib.import_module(name))
        return
    claims = importlib.import_module(name).PostgresClaims(f"postgresql://127.0.0.1:{unused_port()}/none")
    assert refusal(lambda: claims.acquire("q", "owner", 1.0, 1.0)) == "PostgreSQL cannot be reached."


def celery() -> None:
    app = importlib.import_module("celery").Celery("extra", task_always_eager=True)
    task = app.task(approve_all)
    reviewer = importlib.import_module(f"{package.__name__}.integrations.celery").CeleryReviewer(task)
    fake = FakeOptimove()
    campaign = fake.add_campaign(3)
    with fake.client() as client:
        report = package.CampaignReview(reviewer, client=client).run(campaign.event())
    assert (report.complete, report.approved) == (True, 3), report


def approve_all(customer_ids: list[str]) -> list[str]:
    return customer_ids


def cli() -> None:
    shown = command("--version")
    assert shown.stdout.strip() == f"optimove-ce {package.__version__}", shown
    with tempfile.TemporaryDirectory() as folder:
        written = command("init", "script", f"{folder}/gate")
        assert written.returncode == 0, written
        python = fresh_environment(Path(folder, "fresh environment"))
        listed = Path(folder, "gate", "requirements.txt")
        # pytest is what the project wants besides: it is on any index.
        listed.write_text(listed.read_text().replace("pytest\n", ""))
        pip = ("-m", "pip", "install", "--no-index", "--disable-pip-version-check", "--requirement", str(listed))
        installed = subprocess.run([str(python), *pip], capture_output=True, text=True, check=False, timeout=300)
        assert installed.returncode == 0, installed
        version = [str(python.with_name("optimove-ce")), "--version"]
        assert subprocess.run(version, capture_output=True, text=True, check=True).stdout == shown.stdout


def fresh_environment(folder: Path) -> Path:
    """Make an environment that has the packages of this one, but not the SDK; returns its Python."""
    venv.create(folder, with_pip=True)
    others = folder / "others"
    others.mkdir()
    for path in sys.path:
        for entry in Path(path).iterdir() if path.endswith("site-packages") else ():
            link = others / entry.name
            if not entry.name.startswith(package.__name__) and not link.exists():
                link.symlink_to(entry)
    (packages,) = (folder / "lib").glob("python*/site-packages")
    (packages / "others.pth").write_text(f"{others}\n")
    return folder / "bin" / "python"


if __name__ == "__main__":
    main(sys.argv[1])
