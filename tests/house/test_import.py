"""Importing the SDK loads what it needs and nothing else."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

OPTIONAL = {
    "fastapi", "starlette", "flask", "django", "werkzeug", "uvicorn", "gunicorn", "click", "rich", "pygments",
    "aiohttp", "httpx2", "redis", "psycopg", "psycopg_pool",
    "opentelemetry", "pytest", "hypothesis", "tornado", "trio", "h2", "optimove_conditional_execution.cli",
    "optimove_conditional_execution.testing", "optimove_conditional_execution.adapters",
}  # fmt: skip


@functools.cache
def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names: list[str] = json.loads(run.stdout)
    return set(names)


def test_the_package_loads_nothing_optional() -> None:
    ours = loaded_by("from optimove_conditional_execution import *")
    # httpx itself loads click and rich where they are installed, for its own command line.
    extra = ours - loaded_by("import httpx, pydantic")
    assert {name for name in OPTIONAL if name in extra} == set()


def test_a_name_is_loaded_when_it_is_asked_for() -> None:
    heavy = {"httpx", "pydantic", "ssl", "asyncio", "optimove_conditional_execution.client"}
    assert not heavy & loaded_by("import optimove_conditional_execution")
    assert "pydantic" not in loaded_by("import optimove_conditional_execution.testing")
    assert "optimove_conditional_execution.client" in loaded_by(
        "import optimove_conditional_execution as sdk; sdk.OptimoveClient"
    )


NOT_NEEDED_AT_ONCE = {
    # Ours: what is for scheduled campaigns, for those who pass it to a receiver, or for several processes.
    "models.campaign", "models.events", "operations.scheduled",
    "flows.controls", "flows.decision_log", "flows.delivery_log", "flows.journal", "flows.listener", "flows.paging",
    "flows.switch",
    "receivers.listener", "reconciliation", "replay", "policy", "review", "shadow.shadow", "switch",
    "signature_diagnosis", "stores.decisions", "stores.journals", "stores.sqlite_file", "transport.http",
}  # fmt: skip
FOREIGN_NOT_NEEDED_AT_ONCE = {"httpx", "importlib.metadata", "sqlite3", "tenacity", "urllib.request", "zipfile"}


def test_a_receiver_and_a_client_load_what_they_need_and_no_more() -> None:
    ours = loaded_by("from optimove_conditional_execution import AsyncWebhookReceiver, AsyncOptimoveClient")
    assert {"optimove_conditional_execution.receivers.webhook", "optimove_conditional_execution.flows.webhook"} <= ours
    unneeded = {f"optimove_conditional_execution.{name}" for name in NOT_NEEDED_AT_ONCE} | FOREIGN_NOT_NEEDED_AT_ONCE
    assert unneeded & ours == set()


def test_what_a_first_notification_needs_is_loaded_before_it_comes() -> None:
    """A module that is loaded late would take its time from the first customer."""
    sample = Path(__file__).parent.parent / "payloads" / "webhook-notification.json"
    loaded_by(f"""
import pathlib, sys
import httpx
from optimove_conditional_execution import UNSIGNED, OptimoveClient, Request, WebhookReceiver
http = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200)))
outcomes = []
Log = type("Log", (), {{"append": lambda self, entries: None}})
receiver = WebhookReceiver(
    lambda notification, deadline: True,
    client=OptimoveClient("key", base_url="https://optimove.test", http_client=http), secrets=UNSIGNED,
    on_outcome=outcomes.append, switch=lambda: "ask", shadow=lambda notification, deadline: False, decision_log=Log(),
)
request = Request("POST", body=pathlib.Path({str(sample)!r}).read_bytes())
before = set(sys.modules)
receiver.handle(request)
assert [outcome.kind for outcome in outcomes] == ["approved"], outcomes
late = [name for name in set(sys.modules) - before if name.startswith("optimove_conditional_execution")]
assert not late, late
""")


def test_the_pytest_plugin_loads_nothing_of_the_sdk(tmp_path: Path) -> None:
    """It is loaded at the start of every run in the environment, also of projects that never use it."""
    (tmp_path / "test_nothing_of_it.py").write_text(
        "import sys\n\n\ndef test_it():\n"
        "    assert not {'httpx', 'pydantic', 'ssl', 'optimove_conditional_execution.client'} & set(sys.modules)\n"
    )
    (tmp_path / "test_with_it.py").write_text(
        "def test_it(fake_optimove):\n    assert type(fake_optimove).__name__ == 'FakeOptimove'\n"
    )
    plugin = next(
        entry for entry in metadata.entry_points(group="pytest11") if entry.name == "optimove_conditional_execution"
    )
    # Other plugins of this environment load what they like. The test that uses it runs last.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", plugin.value]
    run = subprocess.run(
        [*command, "test_nothing_of_it.py", "test_with_it.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
    assert "2 passed" in run.stdout


def test_help_loads_click_and_what_declares_the_options() -> None:
    # The list of commands imports the module of each.
    loaded = loaded_by("""
import contextlib, io, sys
from optimove_conditional_execution.cli import main
sys.argv = ["optimove-ce", "--help"]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
""")
    modules = {"app", "databases", "decisions", "doctor", "options", "rehearse", "review", "signals", "tenant", "tools"}
    assert {f"optimove_conditional_execution.cli.{name}" for name in modules} <= loaded
    heavy = {"asyncio", "httpx", "rich", "sqlite3", "uvicorn", "pydantic", "zoneinfo"}
    ours = {f"optimove_conditional_execution.{name}" for name in ("client", "models", "rehearsal", "review", "stores")}
    assert not (heavy | ours) & loaded
