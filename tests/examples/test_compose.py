"""The example with Docker: what can be checked without it. `tests/servers` run its command over a real Redis."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from tests.examples.commands import EXAMPLES

FOLDER = EXAMPLES / "compose"
SERVICES: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]
DOCKERFILE = (FOLDER / "Dockerfile").read_text("utf-8")


def gate_command() -> list[str]:
    """Return the command that the image runs."""
    return list(json.loads(DOCKERFILE.rpartition("CMD ")[2]))


def redis_command() -> list[str]:
    """Return the command that Redis is started with."""
    return str(SERVICES["redis"]["command"]).split()


def test_every_setting_of_the_gate_is_given() -> None:
    named = set(re.findall(r"\b(?:OPTIMOVE|CLAIMS)_[A-Z_]+", (FOLDER / "gate.py").read_text("utf-8")))
    assert named == set(SERVICES["gate"]["environment"])


def test_there_are_two_replicas_with_a_port_each() -> None:
    assert SERVICES["gate"]["deploy"]["replicas"] == 2
    (ports,) = SERVICES["gate"]["ports"]
    assert ports == f"127.0.0.1:8000-8001:{gate_command()[gate_command().index('--port') + 1]}"


def test_what_is_begun_is_ended_before_the_container_is_killed() -> None:
    graceful = int(gate_command()[gate_command().index("--timeout-graceful-shutdown") + 1])
    assert 5 < graceful < int(SERVICES["gate"]["stop_grace_period"].removesuffix("s"))


def test_redis_keeps_what_it_has_confirmed() -> None:
    assert redis_command() == ["redis-server", "--appendonly", "yes", "--maxmemory-policy", "noeviction"]


def test_the_image_has_what_it_runs() -> None:
    copied = re.findall(r"^COPY (\S+) \.$", DOCKERFILE, re.MULTILINE)
    assert {path.name for path in FOLDER.iterdir() if path.is_file()} == {"compose.yaml", "Dockerfile", *copied}
