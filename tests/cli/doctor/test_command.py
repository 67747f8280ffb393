"""`optimove-ce doctor` as people run it: a process of its own, against the stand-in over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from optimove_conditional_execution import Request, Response
from optimove_conditional_execution.cli.app import program
from optimove_conditional_execution.testing import FakeOptimove
from tests.cli.conftest import COMMAND, PATIENCE, Run, environment
from tests.cli.doctor.servers import answering, silent
from tests.docs.pages import DOCS

NAMES = ["key", "url", "name", "connection", "tls", "access", "prefix", "endpoints", "clock", "budget", "webhooks",
         "listener", "secret", "token", "timezone", "versions"]  # fmt: skip
TOKEN = "a-token-that-nobody-sees"


def closed(request: Request) -> Response:
    return Response(401 if request.method == "POST" else 405)


@pytest.fixture
def service() -> Iterator[str]:
    with answering(closed) as server:
        yield server.url


@pytest.fixture
def variables(fake_optimove: FakeOptimove, optimove_url: str) -> dict[str, str]:
    """What a tenant that is well has set."""
    fake_optimove.api_key = "a-key-that-nobody-sees"
    return {
        "OPTIMOVE_API_KEY": fake_optimove.api_key,
        "OPTIMOVE_BASE_URL": optimove_url,
        "OPTIMOVE_WEBHOOK_SECRET": "a-secret-that-nobody-sees",
        "OPTIMOVE_LISTENER_TOKEN": TOKEN,
        "OPTIMOVE_TIMEZONE": "Europe/London",
    }


@pytest.fixture
def registered(fake_optimove: FakeOptimove, service: str) -> list[str]:
    """Register the service, and return the options that name it."""
    fake_optimove.webhooks["webhook1"] = f"{service}/gate"
    fake_optimove.listeners[5, None] = f"{service}/campaigns?token={TOKEN}"
    return ["--webhook", f"{service}/gate", "--listener", f"{service}/campaigns"]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command in this process, which spares most tests a second; with these variables and no others."""
    for name in list(os.environ):
        if name.startswith("OPTIMOVE_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, variables: dict[str, str] | None = None) -> Result:
        return CliRunner().invoke(program, arguments, env=variables or {})

    return run


def checks_of(stdout: str) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(stdout)["checks"]}


def test_a_tenant_that_is_well(
    optimove_ce: Run, fake_optimove: FakeOptimove, variables: dict[str, str], registered: list[str]
) -> None:
    # A generous deadline for answers: the machine may be busy.
    done = optimove_ce("doctor", "--strict", "--json", "--timeout-ms", "60000", *registered, variables=variables)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    told = json.loads(done.stdout)
    assert (told["ok"], told["problems"], told["warnings"]) == (True, 0, 0)
    assert [check["name"] for check in told["checks"]] == [*NAMES[:12], "own-webhook", "own-listener", *NAMES[12:]]
    assert {check["state"] for check in told["checks"]} == {"ok"}
    named = {call.operation for call in fake_optimove.calls} - {""}  # paths that are looked for have no name
    assert named == {"get_webhooks", "get_webhook_by_id", "get_registered_event_listeners"}
    assert {call.request.method for call in fake_optimove.calls} == {"GET"}


def test_lines_for_people(typed: Callable[..., Result], variables: dict[str, str]) -> None:
    done = typed("doctor", "--timeout-ms", "60000", variables=variables)
    assert (done.exit_code, done.stderr) == (0, "")
    heads = re.findall(r"^(ok|warning|problem|not checked) +(\S+)  ", done.stdout, re.MULTILINE)
    assert [name for _, name in heads] == NAMES
    assert [name for state, name in heads if state == "warning"] == ["webhooks", "listener"]
    assert done.stdout.count("\n" + " " * 27 + "-> ") == 2
    assert done.stdout.endswith("\n0 problems, 2 warnings.\n")


def test_strict_lets_warnings_fail(typed: Callable[..., Result], variables: dict[str, str]) -> None:
    done = typed("doctor", "--strict", "--json", "--timeout-ms", "60000", variables=variables)
    assert done.exit_code == 1
    told = json.loads(done.stdout)
    assert (told["ok"], told["problems"], told["warnings"]) == (False, 0, 2)


def test_nothing_private_is_printed(
    typed: Callable[..., Result], fake_optimove: FakeOptimove, variables: dict[str, str], service: str
) -> None:
    fake_optimove.webhooks["webhook1"] = f"{service}/gate?key=private-query"
    fake_optimove.listeners[5, None] = f"{service}/private-path?token={TOKEN}"
    private = ["private-query", "private-path", *(f"a-{what}-that-nobody-sees" for what in ("key", "secret", "token"))]
    wrong = {name: f'"{value}" ' for name, value in variables.items() if name != "OPTIMOVE_BASE_URL"}
    for given in (variables, {**variables, **wrong}):
        for options in ([], ["--json"]):
            options += ["--listener", f"{service}/private-path?token={TOKEN}"]
            done = typed("doctor", *options, variables=given)
            assert not [text for text in private if text in done.output]
    assert done.exit_code == 1


def test_no_settings_at_all(typed: Callable[..., Result]) -> None:
    done = typed("doctor", "--json")
    assert (done.exit_code, done.stderr) == (1, "")
    checks = checks_of(done.stdout)
    assert list(checks) == NAMES
    assert {name for name, check in checks.items() if check["state"] == "problem"} == {"key", "url"}
    assert {checks[name]["state"] for name in NAMES[2:12]} == {"not checked"}
    people = typed("doctor").stdout
    assert people.count("Fix the problems above") == 1
    assert people.endswith("\n2 problems, 2 warnings.\n")


def test_a_certificate_file_that_is_not_there(typed: Callable[..., Result], tmp_path: Path) -> None:
    variables = {"OPTIMOVE_API_KEY": "key", "OPTIMOVE_BASE_URL": "https://127.0.0.1:9"}
    done = typed("doctor", "--json", variables={**variables, "SSL_CERT_FILE": str(tmp_path / "none.pem")})
    assert (done.exit_code, done.stderr) == (1, "")
    checks = checks_of(done.stdout)
    assert checks["connection"]["state"] == "problem"
    assert "SSL_CERT_FILE" in checks["connection"]["remedy"]


def test_a_scheduled_campaign_needs_the_zone(
    typed: Callable[..., Result], fake_optimove: FakeOptimove, variables: dict[str, str], registered: list[str]
) -> None:
    del variables["OPTIMOVE_TIMEZONE"]
    assert checks_of(typed("doctor", "--json", variables=variables).stdout)["timezone"]["state"] == "problem"
    fake_optimove.listeners.clear()
    assert checks_of(typed("doctor", "--json", variables=variables).stdout)["timezone"]["state"] == "warning"


def test_a_key_that_travels_in_clear_is_told_once(typed: Callable[..., Result]) -> None:
    with answering(closed) as proxy:
        variables = {
            "OPTIMOVE_API_KEY": "key",
            "OPTIMOVE_BASE_URL": "http://api5.optimove.net",
            "HTTP_PROXY": proxy.url,
        }
        done = typed("doctor", "--json", variables=variables)
    assert (done.exit_code, done.stderr) == (1, "")
    checks = checks_of(done.stdout)
    assert "in clear" in checks["url"]["finding"]
    assert (checks["connection"]["state"], checks["access"]["state"]) == ("ok", "not checked")
    assert proxy.requests
    assert not any(request.header_values("x-api-key") for request in proxy.requests)


def test_what_a_server_says_does_not_reach_the_terminal_raw(
    typed: Callable[..., Result], fake_optimove: FakeOptimove, variables: dict[str, str]
) -> None:
    fake_optimove.webhooks["\x1b[2Jid\n"] = "https://gate.example.com/\x1b[2J"
    done = typed("doctor", variables=variables)
    assert "\x1b" not in done.stdout
    assert "?[2Jid?" in done.stdout


def test_the_simulator_is_well(typed: Callable[..., Result], started: Callable[..., subprocess.Popen[str]]) -> None:
    simulator = started("simulate", "--json")
    assert simulator.stdout is not None
    settings: dict[str, Any] = json.loads(simulator.stdout.readline())["environment"]
    done = typed("doctor", "--json", "--timeout-ms", "60000", variables=settings)
    assert done.exit_code == 0
    warned = {name for name, check in checks_of(done.stdout).items() if check["state"] == "warning"}
    # On a machine that is overloaded the Date header of uvicorn, which a timer sets, is late.
    assert warned - {"clock"} == {"webhooks", "listener"}


def test_ctrl_c_ends_it_in_one_line() -> None:
    with silent() as port:
        process = subprocess.Popen(
            [*COMMAND, "doctor", "--timeout", "60"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(OPTIMOVE_API_KEY="key", OPTIMOVE_BASE_URL=f"http://127.0.0.1:{port}", PYTHONUNBUFFERED="1"),
        )
        try:
            assert process.stdout is not None
            # Once this stands there, the next thing is the request that is never answered.
            while " url " not in process.stdout.readline():
                assert process.poll() is None
            os.kill(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.communicate()
    assert (process.returncode, errors) == (130, "Interrupted.\n")


@pytest.mark.parametrize(
    "line",
    [
        "doctor --timeout 0",
        "doctor --timeout-ms x",
        "doctor --webhook gate.example.com",
        "doctor --listener /campaigns",
        "doctor --path-prefix current",
        "doctor extra",
    ],
)
def test_what_makes_no_sense_is_status_2(line: str) -> None:
    done = CliRunner().invoke(program, line.split())
    assert (done.exit_code, done.stdout) == (2, "")


def test_help_has_an_example() -> None:
    done = CliRunner().invoke(program, ["doctor", "--help"])
    assert done.exit_code == 0
    assert "  optimove-ce doctor" in done.output.partition("Example")[2]


def test_the_reference_names_every_check() -> None:
    page = (DOCS / "reference" / "command-line.md").read_text("utf-8")
    table = page.partition("| check | what it looks at |\n| --- | --- |\n")[2].partition("\n\n")[0]
    named = [name for row in table.splitlines() for name in row.split("|")[1].strip().split(", ")]
    of_claims = ["claims", "claims-clock", "claims-kept", "pooler"]
    assert sorted(named) == sorted([*NAMES, "own-webhook", "own-listener", *of_claims])
