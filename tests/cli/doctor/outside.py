"""`optimove-ce doctor --json` in this process, with nothing of this process's settings and proxies."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from click.testing import CliRunner

from optimove_conditional_execution.cli.app import program

KEY = "a-key-that-nobody-sees"


@dataclass
class Check:
    """One check, as `--json` prints it."""

    name: str
    state: str
    finding: str
    remedy: str


def examined(
    url: str | None = None,
    *options: str,
    key: str | None = KEY,
    seconds: float = 20.0,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Check]:
    """Run the doctor, and return its checks by their names.

    Args:
        url: Optimove's base URL.
        options: More options.
        key: The API key.
        seconds: How long a request may take.
        variables: More of the environment.
    """
    environment: dict[str, str | None] = {
        name: None
        for name in (*os.environ, "NO_PROXY", "no_proxy")
        if name.startswith("OPTIMOVE_") or name.lower().endswith("_proxy")
    }
    environment |= {"OPTIMOVE_BASE_URL": url, "OPTIMOVE_API_KEY": key, **(variables or {})}
    line = ["doctor", "--json", "--timeout", str(seconds), "--timeout-ms", "60000", *options]
    done = CliRunner().invoke(program, line, env=environment)
    assert done.stderr == ""
    assert KEY not in done.stdout
    told = json.loads(done.stdout)
    checks = [Check(**check) for check in told["checks"]]
    assert all(bool(check.remedy) == (check.state != "ok") for check in checks)
    assert done.exit_code == any(check.state == "problem" for check in checks)
    found = {check.name: check for check in checks}
    assert len(found) == len(checks)
    return found
