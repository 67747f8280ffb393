"""The command that each example's docstring ends with is run to the letter, by a shell, in a copy of the folder."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.adapters.servers import PATIENCE
from tests.examples.commands import ALL, command_of
from tests.examples.test_examples import SERVERS, folder

__all__ = ["folder"]

FEW: Final = {"optimove-ce trigger": "--count 4", "optimove-ce campaign": "--customers 20"}
"""What is put into a command to make it quick, beside a free port."""

HALF: Final = r"^sent +4$\n^approved +2$\n^denied +2$\n^abstained +0$"

PRINTED: Final = {
    "fastapi_gate.py": HALF,
    "flask_gate.py": HALF,
    "django_gate.py": HALF,
    "lambda_gate.py": HALF,
    "lambda_local.py": HALF,
    "http_backend_gate.py": HALF,
    "load_shedding_gate.py": HALF,
    "evidence_gate.py": HALF,
    "production_gate.py": HALF,
    "player_service.py": r"^a player service at http://127\.0\.0\.1:\d+$",
    "script_gate.py": HALF,
    "test_fastapi_gate.py": r" 4 passed in ",
    "test_flask_gate.py": r" 3 passed in ",
    "test_django_gate.py": r" 4 passed in ",
    "test_lambda_gate.py": r" 4 passed in ",
    "test_script_gate.py": r" 4 passed in ",
    "manage_webhooks.py": r"^webhook1$",
    "fastapi_listener.py": r"HTTP 200; 20 rows$\n^1 update, of 19 at most: 19 approved, 0 denied, 0 unknown, 0 late",
    "promo_activation.py": r"HTTP 200; 20 rows$\n^1 update, of 20 at most: 20 approved, 0 denied, 0 unknown, 0 late",
    "compliance_review.py": r"^approved 1, denied 3, failed 0$",
    "process_pool_review.py": r"^approved 15\d\d, denied 4\d\d, complete$",
    "resume_reviews.py": r"^campaign \d+: approved 99, complete$",
}
"""What each command prints on standard output, among other lines."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_every_example_has_a_command() -> None:
    assert sorted({*PRINTED, *SERVERS}) == ALL


@pytest.mark.parametrize("name", PRINTED)
def test_the_command_does_what_it_says(name: str, folder: Path) -> None:
    command = re.sub(r"\b8000\b", str(free_port()), command_of(name))
    for start, option in FEW.items():
        command = command.replace(start, f"{start} {option}")
    # Nothing is set: neither Optimove's settings nor the examples' own.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPTIMOVE_")}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    ran = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=2 * PATIENCE
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(PRINTED[name], ran.stdout, re.MULTILINE), ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
