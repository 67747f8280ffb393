"""`optimove-ce campaign`, with a service of one's own on the other side of real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from optimove_conditional_execution import (
    AsyncListenerReceiver,
    AsyncOptimoveClient,
    CampaignReadyEvent,
    OptimoveClient,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from tests.cli.conftest import COMMAND, PATIENCE, Run, environment
from tests.conftest import free_port, served
from tests.services import uvicorn_command

KEY = {"OPTIMOVE_API_KEY": "key-of-the-tests"}
TOKEN = {"OPTIMOVE_LISTENER_TOKEN": "the-token"}


@contextlib.contextmanager
def reviewing(*, approves: bool = True) -> Iterator[tuple[str, str]]:
    """Serve a listener that approves even customers; yields its URL, and the port at which it looks for Optimove."""
    port = free_port()
    client = AsyncOptimoveClient(KEY["OPTIMOVE_API_KEY"], base_url=f"http://127.0.0.1:{port}", timezone="Asia/Kolkata")

    async def review(event: CampaignReadyEvent) -> None:
        found = client.get_processed_campaign_customers(event.campaign_id)
        ids = [customer.customer_id async for customer in found if int(customer.customer_id[1:]) % 2 == 0]
        if approves:
            await client.update_customer_promotion_status(event.campaign_id, dict.fromkeys(ids, True))

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with client:
            yield

    # The answer waits for the work, so that nobody has to wait longer than that.
    receiver = AsyncListenerReceiver(review, token="the-token", answer_within=PATIENCE)
    app = Starlette(routes=[Route("/campaigns", ASGIApp(receiver), methods=["POST"])], lifespan=lifespan)
    with served(app) as url:
        yield f"{url}/campaigns", str(port)


def test_a_review_of_ones_own(optimove_ce: Run, tmp_path: Path) -> None:
    file, report = tmp_path / "recipients.txt", tmp_path / "report.html"
    with reviewing() as (listener, port):
        done = optimove_ce(
            "campaign", "--listener", listener, "--port", port, "--customers", "12", "--wait", "0.1", "--json",
            "--campaign-id", "77", "--timezone", "Asia/Kolkata", "--recipients", str(file), "--report", str(report),
            variables=KEY | TOKEN,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ready, result = (json.loads(line) for line in done.stdout.splitlines())
    assert ready == {
        "event": "ready",
        "environment": {"OPTIMOVE_BASE_URL": f"http://127.0.0.1:{port}", "OPTIMOVE_TIMEZONE": "Asia/Kolkata"},
    }
    even = [f"C{number:07d}" for number in range(2, 13, 2)]
    assert result == {
        "event": "campaign", "campaign_id": 77, "listener_status": 200, "rows": 12, "updates": 1, "largest_update": 6,
        "approved": 6, "denied": 0, "unknown": 0, "late": 0, "twice": 0, "contradictions": 0,
        "first_recipients": even, "unmet": 0, "never_awaited": [], "findings": [],
    }  # fmt: skip
    assert file.read_text().split() == even
    page = report.read_text("utf-8")
    assert "6 customers reported in time." in page
    assert "6 statuses reported of 12 customers" in page
    assert KEY["OPTIMOVE_API_KEY"] not in page


def test_the_lines_for_people(optimove_ce: Run) -> None:
    with reviewing() as (listener, port):
        done = optimove_ce(
            "campaign", "--listener", listener, "--port", port, "--customers", "30", "--wait", "0.1",
            variables=KEY | TOKEN,
        )  # fmt: skip
    assert done.returncode == 0
    export, timezone, _, listener, *facts, recipients = done.stdout.splitlines()
    assert export == f"export OPTIMOVE_BASE_URL=http://127.0.0.1:{port}"
    assert timezone == "export OPTIMOVE_TIMEZONE=UTC"
    assert listener.split() == ["listener", "HTTP", "200"]
    numbers = {name: int(number) for line in facts[:9] for name, _, number in [line.rpartition(" ")]}
    assert {name.strip(): number for name, number in numbers.items()} == {
        "rows": 30, "updates": 1, "largest update": 15, "approved": 15, "denied": 0, "unknown": 0, "late": 0,
        "twice": 0, "contradictions": 0,
    }  # fmt: skip
    assert recipients.startswith("would get it: C0000002, C0000004, ")
    assert recipients.endswith("C0000020 and 5 more")
    assert facts[10] == "Customers over time, against clearance"
    assert facts[-1] == "15 customers reported in time."
    assert KEY["OPTIMOVE_API_KEY"] not in done.stdout


def test_nothing_reported_is_status_1(optimove_ce: Run) -> None:
    with reviewing(approves=False) as (listener, port):
        done = optimove_ce(
            "campaign", "--listener", listener, "--port", port, "--customers", "4", "--wait", "0.1", "--json",
            variables=KEY | TOKEN,
        )  # fmt: skip
    assert done.returncode == 1
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["listener_status"], result["updates"], result["first_recipients"]) == (200, 0, [])


def test_it_ends_after_clearance(optimove_ce: Run) -> None:
    with reviewing() as (listener, port):
        done = optimove_ce("campaign", "--listener", listener, "--port", port, "--lead", "0.5", variables=KEY | TOKEN)
    assert (done.returncode, "clearance in 0.5 s" in done.stderr) == (0, True)


@pytest.mark.parametrize(("name", "rows"), [
    ("rows.csv", "customerid,ActionID,PromoCode,Country\nC2,19,WB23,MT\nC3,19,,SE\nC4,19,WB23,MT\n"),
    ("rows.json", '[{"CustomerID": "C2", "ActionID": 19}, {"CustomerID": "C3"}, {"customerID": "C4"}]'),
    ("rows.jsonl", '{"CustomerID": "C2"}\n\n{"CustomerID": "C3"}\n{"CustomerID": "C4"}\n'),
])  # fmt: skip
def test_rows_of_ones_own_and_who_is_expected(name: str, rows: str, optimove_ce: Run, tmp_path: Path) -> None:
    (file := tmp_path / name).write_text(rows)
    with reviewing() as (listener, port):
        rehearse = ("campaign", "--listener", listener, "--port", port, "--rows", str(file), "--wait", "0.1")
        right = optimove_ce(*rehearse, "--expect", "C2=approved", "--expect", "C3=denied", variables=KEY | TOKEN)
        wrong = optimove_ce(
            *rehearse, "--campaign-id", "2", "--expect", "C2=denied", "--expect", "C3=approved", "--json",
            variables=KEY | TOKEN,
        )  # fmt: skip
    assert (right.returncode, "would get it: C2, C4" in right.stdout, "!" in right.stdout) == (0, True, False)
    assert wrong.returncode == 1
    result = json.loads(wrong.stdout.splitlines()[-1])
    assert (result["rows"], result["unmet"], result["unknown"]) == (3, 2, 0)
    assert result["findings"] == [
        "C2 should have been denied, and would get the campaign: a condition of the rule is true where it must not be, "
        "such as a coroutine without its await.",
        "C3 should have been approved, and no status was reported in time: the reviewer left the customer out, raised "
        "or was too slow.",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it(number: signal.Signals, started: Callable[..., subprocess.Popen[str]]) -> None:
    process = started("campaign")
    assert process.stdout is not None
    names = [process.stdout.readline().removeprefix("export ").partition("=")[0] for _ in range(3)]
    assert names == ["OPTIMOVE_BASE_URL", "OPTIMOVE_TIMEZONE", "OPTIMOVE_API_KEY"]
    process.send_signal(number)
    output, complaints = process.communicate(timeout=PATIENCE)
    assert (process.returncode, output) == (1, "")
    assert complaints == "Waiting for your listener: start your service with these settings.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--listener", "/campaigns"),
        ("--timezone", "Mars/Olympus"),
        ("--lead", "0"),
        ("--customers", "-1"),
        ("--listener", "http://no-such-machine.invalid/campaigns"),
        ("--expect", "C0000101=denied"),
        ("--expect", "C0000001=abstained"),
        ("--rows", "no-such-file.csv"),
    ],
)
def test_what_makes_no_sense_is_status_2(arguments: tuple[str, ...], optimove_ce: Run) -> None:
    done = optimove_ce("campaign", *arguments)
    assert done.returncode == 2
    assert "Error: " in done.stderr


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("campaigns?token=the-token", "The event was posted to the listener; clearance in 60 s."),
        (
            "campaigns?token=another-token",
            "Warning: the listener gave HTTP 401: its token is not the one in the URL; set OPTIMOVE_LISTENER_TOKEN "
            "alike; clearance in 60 s.",
        ),
        ("campaign?token=the-token", "Warning: the listener gave HTTP 404; clearance in 60 s."),
    ],
)
def test_people_hear_at_once_what_the_listener_said(path: str, said: str, optimove_ce: Run) -> None:
    async def ignore(event: CampaignReadyEvent) -> None: ...

    route = Route("/campaigns", ASGIApp(AsyncListenerReceiver(ignore, token="the-token")), methods=["POST"])
    with served(Starlette(routes=[route])) as url:
        done = optimove_ce("campaign", "--listener", f"{url}/{path}", "--customers", "2", "--wait", "0.1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == said
    assert "-token" not in done.stdout + done.stderr
    assert "No customer would get it." in done.stdout


# ---- a service that the command starts


@pytest.mark.parametrize(("registers", "token"), [(True, None), (False, "in-the-url")])
def test_a_service_that_is_started_here(registers: bool, token: str | None, optimove_ce: Run) -> None:
    port = free_port()
    query = f"?token={token}" if token else ""
    listener = () if registers else ("--listener", f"http://127.0.0.1:{port}/campaigns{query}")
    done = optimove_ce(
        "campaign", *listener, "--customers", "3", "--wait", "1", "--json", "--", *uvicorn_command("reviews", port),
        variables={"PORT": str(port)} if registers else {},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ready, result = (json.loads(line) for line in done.stdout.splitlines())
    assert set(ready["environment"]) == {"OPTIMOVE_BASE_URL", "OPTIMOVE_TIMEZONE"}
    assert (result["listener_status"], result["approved"], result["rows"]) == (200, 3, 3)
    assert "Uvicorn running on" in done.stderr
    assert "Warning" not in done.stderr


def test_a_service_that_dies(optimove_ce: Run) -> None:
    done = optimove_ce("campaign", "--", sys.executable, "-c", "import sys; sys.exit('no reviews today')")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        "Error: Your service ended, and did not listen for campaigns: exit status 1, at the end: no reviews today"
    )


def test_a_service_that_never_registers(optimove_ce: Run) -> None:
    sleeping = (sys.executable, "-c", "import time; time.sleep(600)")
    done = optimove_ce("campaign", "--start-within", "0.3", "--", *sleeping)
    assert done.returncode == 2
    assert "did not listen for campaigns within 0.3 s" in done.stderr


def test_a_service_has_the_default_signals_also_under_nohup() -> None:
    """A process inherits that a signal is ignored, and would keep it."""
    says = "import signal, sys; sys.exit(f'hangup {signal.getsignal(signal.SIGHUP)!r}')"
    line = shlex.join([*COMMAND, "campaign", "--", sys.executable, "-c", says])
    done = subprocess.run(
        ["sh", "-c", f"trap '' HUP; exec {line}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2
    assert "hangup <Handlers.SIG_DFL: 0>" in done.stderr


def test_a_reader_that_leaves_does_not_hold_it_up(tmp_path: Path) -> None:
    written = tmp_path / "written"
    # More than a pipe takes.
    script = (
        f"import pathlib, sys; sys.stderr.write(('x' * 99 + '\\n') * 6_000); pathlib.Path({str(written)!r}).touch()"
    )
    reading, writing = os.pipe()
    os.close(reading)
    try:
        url = f"http://127.0.0.1:{free_port()}/x"
        subprocess.run(
            [*COMMAND, "trigger", url, "--start-within", "20", "--", sys.executable, "-c", script],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=writing, env=environment(), timeout=PATIENCE,
            check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert written.exists()


# ---- simulate


def test_simulate_fires_campaigns_too(started: Callable[..., subprocess.Popen[str]]) -> None:
    with reviewing() as (listener, port):
        process = started(
            "simulate", "--campaign-every", "30", "--customers", "3", "--lead", "0.5", "--json", "--port", port
        )
        assert process.stdout is not None
        settings: dict[str, Any] = json.loads(process.stdout.readline())["environment"]
        with OptimoveClient(settings["OPTIMOVE_API_KEY"], base_url=settings["OPTIMOVE_BASE_URL"]) as client:
            client.register_event_listener(f"{listener}?token=the-token")
        result = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        summary, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    # The service has a key of its own, so nobody is reported.
    assert (result["event"], result["listener_status"], result["rows"]) == ("campaign", 503, 3)
    assert json.loads(summary)["event"] == "summary"
