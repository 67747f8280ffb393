"""Importing the SDK loads what it needs and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

OPTIONAL = {
    "fastapi", "starlette", "flask", "django", "werkzeug", "uvicorn", "gunicorn", "click", "rich", "pygments",
    "aiohttp", "httpx2",
    "opentelemetry", "pytest", "hypothesis", "tornado", "trio", "h2", "optimove_conditional_execution.cli",
    "optimove_conditional_execution.testing", "optimove_conditional_execution.adapters",
}  # fmt: skip


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names: list[str] = json.loads(run.stdout)
    return set(names)


def test_the_package_loads_nothing_optional() -> None:
    ours = loaded_by("import optimove_conditional_execution")
    # httpx itself loads click and rich where they are installed, for its own command line.
    extra = ours - loaded_by("import httpx, pydantic")
    assert {name for name in OPTIONAL if name in extra} == set()


def test_the_command_says_what_is_missing_instead_of_loading_it() -> None:
    assert "rich" not in loaded_by("import optimove_conditional_execution.cli") - loaded_by("import httpx, pydantic")
