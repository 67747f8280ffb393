"""The simulator with a real service that registers itself, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from optimove_conditional_execution import (
    AsyncOptimoveClient,
    AsyncWebhookReceiver,
    Deadline,
    Decision,
    WebhookNotification,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.rehearsal import checks
from optimove_conditional_execution.rehearsal.base import served
from tests.cli.conftest import COMMAND, PATIENCE, Run, children_of, environment
from tests.conftest import served as running
from tests.services import mistakes


async def decide(notification: WebhookNotification, deadline: Deadline) -> Decision | bool:
    match notification.user.user_id:
        case "yes":
            return True
        case "no":
            return False
        case _:
            return Decision.abstain()


def test_a_service_of_ones_own() -> None:
    async def run() -> tuple[int | None, list[dict[str, Any]]]:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, "simulate", "--json", "--count", "3", "--rate", "20", "--timeout-ms", "60000",
            "--user", "yes", "--user", "no", "--user", "perhaps",
            stdout=subprocess.PIPE, env=environment(),
        )  # fmt: skip
        assert process.stdout is not None
        ready = json.loads(await process.stdout.readline())
        assert ready["event"] == "ready"
        settings = ready["environment"]
        async with AsyncOptimoveClient(settings["OPTIMOVE_API_KEY"], base_url=settings["OPTIMOVE_BASE_URL"]) as client:
            receiver = AsyncWebhookReceiver(decide, client=client, secrets=settings["OPTIMOVE_WEBHOOK_SECRET"])
            async with served(ASGIApp(receiver)) as url:
                # An answer that is not given takes the whole timeout to tell.
                await client.update_webhook_settings(timeout_ms=3000, secret=settings["OPTIMOVE_WEBHOOK_SECRET"])
                await client.ensure_webhook(f"{url}/optimove")
                async with asyncio.timeout(PATIENCE):
                    output, _ = await process.communicate()
        return process.returncode, [json.loads(line) for line in output.splitlines()]

    status, (*results, summary) = asyncio.run(run())
    assert status == 0
    assert {(result["user_id"], result["result"], *result["statuses"]) for result in results} == {
        ("yes", "approved", 200),
        ("no", "denied", 200),
        ("perhaps", "unanswered", 200),
    }
    assert all(result["event"] == "result" and result["deadline_ms"] == 3000 for result in results)
    assert summary["event"] == "summary"
    assert (summary["sent"], summary["approved"], summary["denied"], summary["unanswered"]) == (3, 1, 1, 1)
    assert (summary["late"], summary["pending"]) == (0, 0)
    assert 0 <= summary["latency_ms"]["max"] <= 3000


def test_a_signal_ends_it_with_a_summary(started: Callable[..., subprocess.Popen[str]]) -> None:
    process = started("simulate")
    assert process.stdout is not None
    settings = [process.stdout.readline() for _ in range(3)]
    names = [line.removeprefix("export ").partition("=")[0] for line in settings]
    assert names == ["OPTIMOVE_BASE_URL", "OPTIMOVE_API_KEY", "OPTIMOVE_WEBHOOK_SECRET"]
    assert children_of(process.pid) == []
    process.send_signal(signal.SIGTERM)  # SIGINT ends it in the next test
    output, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "0 sent" in output
    assert complaints == "Waiting for a webhook: your service calls client.ensure_webhook(url).\n"


def test_what_is_under_way_does_not_hold_it_up(started: Callable[..., subprocess.Popen[str]]) -> None:
    # Nothing listens on port 9 of loopback, so no answer will come, for an hour.
    process = started(
        "simulate", "--json", "--webhook", "http://127.0.0.1:9/x", "--rate", "50", "--timeout-ms", "3600000"
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["webhooks"] == ["http://127.0.0.1:9/x"]
    process.send_signal(signal.SIGINT)
    output, complaints = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaints) == (0, "")
    summary = json.loads(output)
    assert summary["pending"] == summary["sent"]


def test_a_webhook_that_is_not_there(optimove_ce: Run) -> None:
    done = optimove_ce(
        "simulate", "--count", "2", "--rate", "50", "--timeout-ms", "100", "--webhook", "http://127.0.0.1:9/x"
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line for line in done.stdout.splitlines() if "HTTP" in line]
    assert len(rows) == 2
    assert all("refused" in row and "unanswered" in row for row in rows)
    assert "2 sent: 0 approved, 0 denied, 2 unanswered, 0 late, 0 pending" in done.stdout


def test_what_a_newcomer_gets_wrong_is_said_once(optimove_ce: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong secret, a mounted application, a handler that hangs, and nothing that listens."""
    monkeypatch.setattr(checks, "_GRACE_SECONDS", 2.0)  # for which the handler that hangs is waited
    key, secret = "key-of-the-tests", "secret-of-the-tests"
    with running(mistakes("http://127.0.0.1:9", key=key, secret=secret)) as url:
        webhooks = [f"{url}/secret", f"{url}/mounted", f"{url}/hang", "http://127.0.0.1:9/x"]
        registered = [word for webhook in webhooks for word in ("--webhook", webhook)]
        done = optimove_ce("simulate", "--json", "--count", "2", "--rate", "50", "--timeout-ms", "200", *registered)
    _, *results, _ = (json.loads(line) for line in done.stdout.splitlines())
    assert [result["statuses"] for result in results] == [[401, 307, None, None]] * 2
    assert [result["failures"] for result in results] == [[None, None, "timeout", "refused"]] * 2
    secret_hint, mount_hint = done.stderr.splitlines()
    assert secret_hint.startswith("HTTP 401: the signature does not fit: OPTIMOVE_WEBHOOK_SECRET")
    assert mount_hint.startswith(f"HTTP 307: it redirects to {url}/mounted/, ")


def test_a_port_that_is_taken(optimove_ce: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = optimove_ce("simulate", "--port", str(listener.getsockname()[1]))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Cannot listen on 127.0.0.1 port ")
    assert done.stderr.count("\n") == 1
