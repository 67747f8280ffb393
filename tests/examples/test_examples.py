"""Every example is run as a user would run it: copied to a folder of its own, with Optimove's stand-in over HTTP."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from optimove_conditional_execution import sign
from optimove_conditional_execution.stores import SqliteDecisionLog
from optimove_conditional_execution.testing import FakeOptimove, SentNotification, notification
from tests.adapters.servers import PATIENCE, gunicorn_command, head, running, talk, uvicorn_command
from tests.examples.commands import ALL, EXAMPLES, command_of, docstring, the_table

SECRET = "the secret of a rehearsal"

GATES: dict[str, Callable[[int], list[str]]] = {
    "fastapi_gate.py": uvicorn_command("fastapi_gate:create_app"),
    "flask_gate.py": gunicorn_command("flask_gate:create_app()"),
    "django_gate.py": gunicorn_command("django_gate:application"),
    "load_shedding_gate.py": uvicorn_command("load_shedding_gate:create_app"),
    "evidence_gate.py": gunicorn_command("evidence_gate:create_app()"),
    "production_gate.py": uvicorn_command("production_gate:create_app"),
}
SCRIPTS = {"lambda_gate.py", "manage_webhooks.py"}
COMMANDS = {"script_gate.py"}
"""Run by `test_commands.py`, and by their own tests."""

OWN_TESTS = {f"test_{kind}_gate.py" for kind in ("fastapi", "flask", "django", "lambda", "script")}
BACKENDS = {"http_backend_gate.py", "player_service.py", "lambda_local.py"}
SERVERS = {"celery_review.py"}
"""Run by `tests/servers`, since they need servers of other projects."""

REVIEWS = {
    "process_pool_review.py",
    "promo_activation.py",
    "compliance_review.py",
    "fastapi_listener.py",
    "resume_reviews.py",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the examples, away from this repository's settings."""
    return Path(shutil.copytree(EXAMPLES, tmp_path / "copied", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.fixture
def environment(fake_optimove: FakeOptimove, optimove_url: str) -> dict[str, str]:
    """The variables that every example reads."""
    fake_optimove.secret = SECRET
    return {
        "OPTIMOVE_API_KEY": fake_optimove.api_key,
        "OPTIMOVE_BASE_URL": optimove_url,
        "OPTIMOVE_WEBHOOK_SECRET": SECRET,
    }


def asked(fake: FakeOptimove, user_id: str, *, is_visitor: bool = False) -> tuple[SentNotification, bytes]:
    """Let the fake ask about a customer; return what it would post."""
    question, _ = fake.trigger(user_id, timeout_ms=30_000)
    payload = notification(user_id, request_uid=question.request_uid, timeout_ms=30_000)
    payload["user"]["is_visitor"] = is_visitor
    return question, json.dumps(payload).encode()


def test_every_file_is_run_by_a_test_of_this_folder() -> None:
    assert set(ALL) == {*GATES, *SCRIPTS, *REVIEWS, *BACKENDS, *COMMANDS, *OWN_TESTS, *SERVERS}


def test_the_readme_has_a_row_for_every_file_with_its_command() -> None:
    assert the_table() == {name: command_of(name) for name in ALL}


@pytest.mark.parametrize("name", ALL)
class TestEveryExample:
    def test_is_short(self, name: str) -> None:
        assert len((EXAMPLES / name).read_text().splitlines()) < 85

    def test_says_how_to_run_it(self, name: str) -> None:
        assert "Run it:" in docstring(name)
        assert command_of(name).startswith(("optimove-ce ", "python "))
        assert name.removesuffix(".py") in command_of(name)

    def test_names_no_setting_that_the_sdk_does_not_have(self, name: str) -> None:
        named = set(re.findall(r"OPTIMOVE_[A-Z_]+", (EXAMPLES / name).read_text()))
        assert named <= {
            "OPTIMOVE_API_KEY", "OPTIMOVE_BASE_URL", "OPTIMOVE_WEBHOOK_SECRET", "OPTIMOVE_TIMEZONE",
            "OPTIMOVE_LISTENER_TOKEN",
        }  # fmt: skip


def test_all_can_be_imported_without_a_network(folder: Path) -> None:
    """In one process: each start of one takes longer than the imports."""
    program = (
        "import importlib, socket, sys\n"
        "def refuse(*_): raise AssertionError('an example used the network when it was imported')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
    )
    settings = {"OPTIMOVE_API_KEY": "k", "OPTIMOVE_BASE_URL": "https://optimove.test"}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *(name.removesuffix(".py") for name in ALL)],
        cwd=folder,
        env={**os.environ, **settings, "OPTIMOVE_WEBHOOK_SECRET": SECRET},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_a_missing_setting_stops_each_gate_at_its_start(folder: Path, environment: dict[str, str]) -> None:
    program = (
        "import importlib, os, sys\n"
        "from optimove_conditional_execution import ConfigurationError\n"
        f"for name in {sorted(name.removesuffix('.py') for name in GATES)!r}:\n"
        f"    for variable in {sorted(environment)!r}:\n"
        "        value, os.environ[variable] = os.environ[variable], ''\n"
        "        if not hasattr(sys.modules.get(name), 'create_app'):\n"
        "            sys.modules.pop(name, None)\n"
        "        try:\n"
        "            getattr(importlib.import_module(name), 'create_app', lambda: None)()\n"
        "            print(name, 'starts without', variable)\n"
        "        except ConfigurationError:\n"
        "            os.environ[variable] = value\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
    )
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr


@pytest.mark.parametrize("name", sorted(GATES))
class TestEveryGate:
    def test_over_http(
        self, name: str, folder: Path, tmp_path: Path, fake_optimove: FakeOptimove, environment: dict[str, str]
    ) -> None:
        approved, approved_body = asked(fake_optimove, "C234638")
        denied, denied_body = asked(fake_optimove, "C100001")
        visitor, visitor_body = asked(fake_optimove, "C234638", is_visitor=True)
        unknown, unknown_body = asked(fake_optimove, "C999999")
        forged, forged_body = asked(fake_optimove, "C234638")
        with (
            running(GATES[name], log=tmp_path / "log", environment=environment, directory=folder) as server,
            httpx.Client(base_url=server.url, timeout=PATIENCE, trust_env=False) as http,
        ):

            def post(body: bytes, *, secret: str = SECRET) -> int:
                headers = {"optimove-signature-content": sign(body, secret=secret)}
                return http.post("/optimove", content=body, headers=headers).status_code

            assert post(approved_body) == 200
            assert approved.approved
            assert post(denied_body) == 200
            assert denied.answer is not None
            assert not denied.approved
            assert post(visitor_body) == 200
            assert not visitor.approved
            assert post(unknown_body) == 200
            assert not unknown.approved
            assert post(forged_body, secret="another secret") == 401
            assert http.post("/optimove", content=forged_body).status_code == 401
            assert forged.answer is None
            assert post(b"[]") == 400
            assert http.get("/optimove").status_code == 405
            assert talk(f"{server.url}/optimove", [head("/optimove", ("Content-Length", "300000"))]).status == 413
        assert "Traceback" not in server.printed()


def test_the_production_gate_over_two_workers(
    folder: Path, tmp_path: Path, fake_optimove: FakeOptimove, environment: dict[str, str]
) -> None:
    for name in ("metrics", "data"):
        (tmp_path / name).mkdir()
    environment |= {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "metrics"), "GATE_DATA": str(tmp_path / "data")}

    def command(fd: int) -> list[str]:
        # Without a log of its own: then each line is one of the gate's.
        return [*GATES["production_gate.py"](fd), "--workers", "2", "--log-level", "critical"]

    with running(command, log=tmp_path / "log", environment=environment, directory=folder) as server:
        for customer in ("C234638", "C100001") * 5:
            body = asked(fake_optimove, customer)[1]
            headers = {"optimove-signature-content": sign(body, secret=SECRET)}
            # A connection each, so that both workers get some.
            answer = httpx.post(
                f"{server.url}/optimove", content=body, headers=headers, timeout=PATIENCE, trust_env=False
            )
            assert answer.status_code == 200
        seen = [httpx.get(f"{server.url}/metrics/", timeout=PATIENCE, trust_env=False).text for _ in range(6)]
        probes = [
            httpx.get(f"{server.url}/{path}", timeout=PATIENCE, trust_env=False) for path in ("healthz", "readyz")
        ]
    for text in seen:
        assert 'gate_notifications_total{kind="approved"} 5.0' in text
        assert 'gate_notifications_total{kind="denied"} 5.0' in text
        assert "gate_seconds_to_spare_count 10.0" in text
    assert [probe.status_code for probe in probes] == [200, 200]
    lines = [json.loads(line) for line in server.printed().splitlines()]
    assert sorted(line["optimove_kind"] for line in lines) == ["approved"] * 5 + ["denied"] * 5
    with SqliteDecisionLog(tmp_path / "data" / "decisions.sqlite") as log:
        assert sorted(str(logged.record.verdict) for logged in log.decisions()) == ["approve"] * 5 + ["deny"] * 5
        assert log.verify() is None


def test_lambda_gate(folder: Path, fake_optimove: FakeOptimove, environment: dict[str, str]) -> None:
    def event(body: bytes, *, secret: str = SECRET) -> dict[str, object]:
        return {
            "version": "2.0",
            "rawPath": "/",
            "headers": {"optimove-signature-content": sign(body, secret=secret)},
            "requestContext": {"http": {"method": "POST"}},
            "body": body.decode(),
            "isBase64Encoded": False,
        }

    approved, approved_body = asked(fake_optimove, "C234638")
    denied, denied_body = asked(fake_optimove, "C100001")
    visitor, visitor_body = asked(fake_optimove, "C234638", is_visitor=True)
    unknown, unknown_body = asked(fake_optimove, "C999999")
    forged, forged_body = asked(fake_optimove, "C234638")
    genuine = [event(body) for body in (approved_body, denied_body, visitor_body, unknown_body)]
    program = (
        "import json, sys, lambda_gate\n"
        "print([lambda_gate.handler(event, None)['statusCode'] for event in json.load(sys.stdin)])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, **environment},
        input=json.dumps([*genuine, event(forged_body, secret="another secret")]),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert ran.stdout == "[200, 200, 200, 200, 401]\n", ran.stderr
    assert approved.approved
    assert [question.approved for question in (denied, visitor, unknown)] == [False] * 3
    assert denied.answer is not None
    assert forged.answer is None


class TestManageWebhooks:
    """In this process: to start one takes longer than all that it does. `test_commands.py` starts it once."""

    @pytest.fixture
    def run(
        self,
        folder: Path,
        environment: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> Callable[..., str]:
        """Run the script as `python manage_webhooks.py` does; return what it prints."""

        def run(*arguments: str, **variables: str) -> str:
            monkeypatch.setattr(sys, "argv", ["manage_webhooks.py", *arguments])
            for name, value in {**environment, **variables}.items():
                monkeypatch.setenv(name, value)
            runpy.run_path(str(folder / "manage_webhooks.py"), run_name="__main__")
            return capsys.readouterr().out

        return run

    def test_from_registering_to_deleting(self, fake_optimove: FakeOptimove, run: Callable[..., str]) -> None:
        url = "https://your.host/optimove"
        assert run("list") == "no webhooks\n"
        assert run("ensure", url) == "webhook1\n"
        assert run("ensure", url) == "webhook1\n"
        assert fake_optimove.webhooks == {"webhook1": url}
        assert run("list") == f"webhook1  {url}\n"
        assert run("delete", "webhook1") == "webhook1 is deleted\n"
        assert fake_optimove.webhooks == {}

    def test_settings(self, fake_optimove: FakeOptimove, run: Callable[..., str]) -> None:
        printed = run("settings", "--timeout-ms", "3000", OPTIMOVE_WEBHOOK_SECRET="the next secret")
        assert printed == "timeout 3000 ms, and the new secret is set\n"
        assert (fake_optimove.timeout_ms, fake_optimove.secret) == (3_000, "the next secret")

    @pytest.mark.parametrize(
        ("arguments", "variables", "message"),
        [
            (["delete", "webhook9"], {}, "NotFoundError: "),
            (["list"], {"OPTIMOVE_API_KEY": "a wrong key"}, "ConfigurationError: "),
            (["list"], {"OPTIMOVE_API_KEY": "wrong"}, "AuthenticationError: "),
            (["settings"], {"OPTIMOVE_WEBHOOK_SECRET": ""}, "OPTIMOVE_WEBHOOK_SECRET is not set"),
        ],
    )
    def test_errors_are_a_line_and_not_a_traceback(
        self,
        arguments: list[str],
        variables: dict[str, str],
        message: str,
        fake_optimove: FakeOptimove,
        run: Callable[..., str],
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            run(*arguments, **variables)
        # A text, which Python prints as a line on stderr before it exits with status 1.
        assert str(ended.value.code).startswith(message)
        assert type(ended.value.code) is str
        assert SECRET not in ended.value.code
        assert fake_optimove.secret == SECRET

    def test_the_line_is_printed_and_the_status_is_1(self, folder: Path, environment: dict[str, str]) -> None:
        ran = subprocess.run(
            [sys.executable, "manage_webhooks.py", "delete", "webhook9"],
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert (ran.returncode, ran.stdout) == (1, "")
        assert re.fullmatch(r"NotFoundError: .+\n", ran.stderr)
