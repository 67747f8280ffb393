"""`examples/celery_review.py` as its first lines say: a Redis, a worker, and the command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import free_port
from tests.examples.commands import EXAMPLES, command_of, docstring
from tests.servers.celery_tasks import Worker
from tests.servers.processes import PATIENCE
from tests.servers.redis import running_redis


def test_the_command_of_the_example(tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLES, tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__"))
    assert "celery -A celery_review worker --concurrency 2 " in docstring("celery_review.py")
    command = re.sub(r"\b8000\b", str(free_port()), command_of("celery_review.py"))
    command = command.replace("optimove-ce campaign", "optimove-ce campaign --customers 20")
    command = command.replace("--lead 10 ", "--lead 5 ")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPTIMOVE_")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with running_redis(durable=False) as server:
        worker = Worker(server.url, "example", tmp_path / "worker", app="celery_review", directory=Path(folder))
        try:
            worker.wait()
            ran = subprocess.run(
                ["sh", "-c", command],
                cwd=folder,
                env={**environment, "REDIS_URL": server.url},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
        finally:
            worker.kill()
    said = ran.stdout + ran.stderr + (tmp_path / "worker").read_text()
    assert ran.returncode == 0, said
    facts = r"^updates +1$\n^largest update +19$\n^approved +19$\n^denied +0$\n^unknown +0$\n^late +0$"
    assert re.search(facts, ran.stdout, re.M), said
    assert "Traceback" not in said
