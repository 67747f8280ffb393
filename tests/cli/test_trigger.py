"""`optimove-ce trigger` as a process, over real HTTP, against webhooks that are right and webhooks that are not."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from click.testing import CliRunner

from optimove_conditional_execution.cli.app import program
from optimove_conditional_execution.rehearsal import checks, service
from optimove_conditional_execution.testing import notification
from tests.cli.conftest import COMMAND, PATIENCE, Run, children_of, environment, is_gone
from tests.conftest import free_port, served
from tests.services import gate, gate_without_await, mistakes, uvicorn_command

KEY = "key-of-the-tests"
SECRET = "secret-of-the-tests"
GIVEN = {"OPTIMOVE_API_KEY": KEY, "OPTIMOVE_WEBHOOK_SECRET": SECRET}
ALL_FAULTS = ("--fault", "duplicate=20", "--fault", "late", "--fault", "forged=30", "--fault", "oversize")


@dataclasses.dataclass(frozen=True)
class Done:
    """What a run with `--json` printed."""

    status: int
    results: list[dict[str, Any]]
    summary: dict[str, Any]
    complaints: str


def rehearsed(*arguments: str, variables: dict[str, str] | None = None) -> Done:
    """Run `trigger --json` to its end, in this process."""
    with mock.patch.dict(os.environ, environment(**(variables or {})), clear=True):
        done = CliRunner().invoke(program, ["trigger", *arguments[:1], "--json", *arguments[1:]])
    assert done.stdout, done.stderr
    ready, *results, summary = (json.loads(line) for line in done.stdout.splitlines())
    assert (ready["event"], summary["event"]) == ("ready", "summary")
    return Done(done.exit_code, results, summary, done.stderr)


def rehearsed_here(*arguments: str) -> Done:
    """Do so with the key and the secret that the services of mistakes have."""
    return rehearsed(*arguments, variables=GIVEN)


@contextlib.contextmanager
def service_of_mistakes() -> Iterator[tuple[str, str]]:
    """Serve every mistake; yields the base URL, and the port at which it looks for Optimove."""
    port = free_port()
    with served(mistakes(f"http://127.0.0.1:{port}", key=KEY, secret=SECRET)) as url:
        yield url, str(port)


def test_a_good_gate_that_is_started_here() -> None:
    port = free_port()
    done = rehearsed(
        f"http://127.0.0.1:{port}/optimove", "--count", "10", "--rate", "50", "--deadline-ms", "3000", "--seed", "4",
        "--skew", "-86400", *ALL_FAULTS, "--", *uvicorn_command("gate", port), variables={"OPTIMOVE_API_KEY": KEY},
    )  # fmt: skip
    assert done.summary["findings"] == []
    assert (done.status, done.summary["ok"], done.summary["skew_seconds"]) == (0, True, -86_400.0)
    assert done.summary["faults"] == {
        "duplicate": {"sent": 2, "as_expected": 2},
        "late": {"sent": 1, "as_expected": 1},
        "forged": {"sent": 3, "as_expected": 3},
        "oversize": {"sent": 1, "as_expected": 1},
    }
    assert done.summary["sent"] == 12
    for result in done.results:
        number = int(result["user_id"][1:])
        if result["fault"] in (None, "duplicate"):
            # Whatever Optimove's clock shows, the same customers get the same answers.
            assert result["result"] == ("abstained" if number % 5 == 0 else "approved" if number % 2 == 0 else "denied")
    decided = sum(done.summary[name] for name in ("approved", "denied", "abstained"))
    assert decided == 5
    assert "Uvicorn running on" in done.complaints, "what the service writes is seen"
    assert KEY not in done.complaints


def test_a_good_gate_that_runs_already(optimove_ce: Run) -> None:
    with service_of_mistakes() as (url, port):
        done = optimove_ce(
            "trigger", f"{url}/good", "--port", port, "--count", "4", "--user", "C1", "--user", "C2",
            "--rate", "50", "--fault", "duplicate=50", "--seed", "7", "--skew", "600", variables=GIVEN,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    first, *rows = done.stdout.splitlines()
    assert first == f"export OPTIMOVE_BASE_URL=http://127.0.0.1:{port}", "what was given is not printed"
    assert sorted(row.split()[0] for row in rows[:4]) == ["C1", "C1", "C2", "C2"]
    assert sum("approved, unchanged" in row for row in rows[:4]) == 2
    shown = [row.split(maxsplit=1) for row in rows[5:]]
    assert ["sent", "6"] in shown
    assert ["approved", "4"] in shown
    assert ["duplicate", "2 of 2 changed nothing"] in shown
    assert rows[-1] == "All results are right (--seed 7 asks about the same customers again)."
    assert SECRET not in done.stdout
    assert KEY not in done.stdout


def test_the_report_and_the_picture(optimove_ce: Run, tmp_path: Path) -> None:
    report = tmp_path / "rehearsal.html"
    with service_of_mistakes() as (url, port):
        done = optimove_ce(
            "trigger", f"{url}/good", "--port", port, "--count", "4", "--rate", "50", "--user", "C1", "--user", "C2",
            "--report", str(report),
            variables=GIVEN,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Answers by latency" in done.stdout
    assert "deadline 5,000 ms" in done.stdout
    text = report.read_text(encoding="utf-8")
    assert "All results are right" in text
    assert "Answers by latency, in ms" in text
    assert SECRET not in text
    assert KEY not in text


MISTAKES = {
    "secret": "5 notifications, {}, each got 401 over HTTP instead of 200: the signature does not fit: "
    "OPTIMOVE_WEBHOOK_SECRET of the service is another one",
    "mounted": "5 notifications, {}, each got 307 over HTTP instead of 200: it redirects to ",
    "nowhere": "5 notifications, {}, each got 404 over HTTP instead of 200: there is no such route",
    "broken": "5 notifications, {}, each got 500 over HTTP instead of 200: the handler or what is around it raised",
    "page": "5 notifications, {}, each was answered with HTML: that is a web page",
    "hang": "5 notifications, {}, each got no HTTP answer in ",
    "tardy": "5 notifications, {}, each was approved after its deadline, too late to count: decide sooner",
}


@pytest.mark.parametrize("path", MISTAKES)
def test_a_mistake_is_named_with_its_remedy(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if path == "hang":  # the others have time to answer, on a busy machine too
        monkeypatch.setattr(checks, "_GRACE_SECONDS", 1.0)
    with service_of_mistakes() as (url, port):
        done = rehearsed_here(f"{url}/{path}", "--count", "5", "--rate", "50", "--deadline-ms", "400", "--port", port)
    assert (done.status, done.summary["ok"], done.summary["wrong"]) == (1, False, 5)
    (finding,) = done.summary["findings"]
    before, after = MISTAKES[path].split("{}")
    assert finding.startswith(before)
    assert after in finding
    assert {result["result"] for result in done.results} == {"wrong"}


def test_a_handler_that_approves_whatever_comes() -> None:
    with service_of_mistakes() as (url, port):
        done = rehearsed_here(
            f"{url}/naive", "--count", "10", "--rate", "50", "--deadline-ms", "20000", "--port", port, "--seed", "1",
            *ALL_FAULTS,
        )  # fmt: skip
    assert (done.status, done.summary["wrong"], done.summary["approved"]) == (1, 7, 5)
    assert {name: fault["as_expected"] for name, fault in done.summary["faults"].items()} == {
        "duplicate": 0, "late": 0, "forged": 0, "oversize": 0,
    }  # fmt: skip
    text = " ".join(done.summary["findings"])
    assert "(forged) had" in text
    assert "was approved nevertheless: verify the signature over the raw body before anything else" in text
    assert "had more than 262,144 bytes, and was approved nevertheless: limit the body" in text
    assert "came after its deadline, and was approved, too late to count" in text
    assert "was approved once more when it came again: store the answer by its request_uid" in text


def test_a_repeat_that_is_answered_differently() -> None:
    with service_of_mistakes() as (url, port):
        done = rehearsed_here(
            f"{url}/fickle", "--count", "4", "--rate", "50", "--port", port, "--fault", "duplicate=100"
        )
    assert done.status == 1
    # When both are posted together, either may come first.
    wrong = r" was (approved first, and denied|denied first, and approved) when it came again(: store the answer .*)?\."
    assert done.summary["findings"]
    assert all(re.search(wrong, finding) for finding in done.summary["findings"])
    assert done.summary["faults"] == {"duplicate": {"sent": 4, "as_expected": 0}}


def test_an_answer_that_does_not_get_through() -> None:
    with service_of_mistakes() as (url, port):
        done = rehearsed_here(f"{url}/key", "--count", "2", "--rate", "50", "--port", port)
    assert done.status == 1
    undelivered, calls = done.summary["findings"]
    assert "got 503 over HTTP instead of 200: it is overloaded" in undelivered
    assert calls == "The service called Optimove 2 times and got 401: OPTIMOVE_API_KEY of the service is another one."


def test_nothing_listens(optimove_ce: Run) -> None:
    done = optimove_ce("trigger", "http://127.0.0.1:9/optimove", "--start-within", "0", variables=GIVEN)
    assert (done.returncode, done.stderr) == (1, "")
    assert "! Nothing listens at http://127.0.0.1:9 (connection refused): start your service there" in done.stdout
    assert "sent        0" in done.stdout


def test_a_service_that_starts_later_with_what_was_printed(
    started: Callable[..., subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    # Customers about whom it decides: of those that are chosen at random it abstains from a fifth.
    users = ("--user", "C1", "--user", "C2")
    process = started("trigger", f"http://127.0.0.1:{port}/optimove", "--count", "2", "--rate", "50", *users)
    assert process.stdout is not None
    assert process.stderr is not None
    for _ in range(3):
        name, _, value = process.stdout.readline().removeprefix("export ").strip().partition("=")
        monkeypatch.setenv(name, value)
    assert process.stderr.readline() == "Waiting 30 s for your service: start it with these settings.\n"
    with served(gate(), on=port):
        output, complaints = process.communicate(timeout=PATIENCE)
    assert (process.returncode, complaints) == (0, ""), output
    assert "All results are right" in output


def test_a_service_that_cannot_know_the_secret_is_told() -> None:
    with service_of_mistakes() as (url, port):
        done = rehearsed(f"{url}/good", "--count", "1", "--port", port)
    assert done.status == 1
    assert done.complaints.startswith(f"What listens at {url} cannot know the new secret of this run")
    assert "OPTIMOVE_WEBHOOK_SECRET" in done.summary["findings"][0]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_it_and_the_service(
    number: signal.Signals, status: int, started: Callable[..., subprocess.Popen[str]]
) -> None:
    port = free_port()
    # A shell in between, as in a script of one's own: what it starts must end as well.
    command = f"{shlex.join(uvicorn_command('gate', port))} & wait"
    process = started(
        "trigger", f"http://127.0.0.1:{port}/optimove", "--count", "10000", "--rate", "20", "--json",
        "--", "sh", "-c", command,
    )  # fmt: skip
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["environment"] == {}
    assert json.loads(process.stdout.readline())["event"] == "result"
    (shell,) = children_of(process.pid)
    (server,) = children_of(shell)
    process.send_signal(number)
    output = process.stdout.read()  # not `communicate`: it leaves out what has been read ahead of those lines
    assert process.wait(PATIENCE) == status
    *_, summary = (json.loads(line) for line in output.splitlines())
    assert summary["event"] == "summary"
    assert 1 <= summary["sent"] < 10_000
    assert is_gone(shell)
    assert is_gone(server)


def test_a_service_that_does_not_want_to_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_END_SECONDS", 0.5)
    port = free_port()
    stubborn = (
        "import http.server, os, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(os.getpid(), file=sys.stderr, flush=True)\n"
        f"http.server.HTTPServer(('127.0.0.1', {port}), http.server.SimpleHTTPRequestHandler).serve_forever()\n"
    )
    done = rehearsed(f"http://127.0.0.1:{port}/", "--count", "1", "--", sys.executable, "-c", stubborn)
    assert (done.status, done.results[0]["statuses"]) == (1, [501])
    assert is_gone(int(done.complaints.splitlines()[0]))


def test_a_service_that_ends_before_it_listens(optimove_ce: Run) -> None:
    script = "import os, sys; print(os.environ['OPTIMOVE_BASE_URL'][:17]); sys.exit('no room for a gate')"
    url = f"http://127.0.0.1:{free_port()}/optimove"
    done = optimove_ce("trigger", url, "--", sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (2, "")
    said, cause, error = done.stderr.splitlines()
    assert {said, cause} == {"http://127.0.0.1:", "no room for a gate"}
    assert error == (
        f"Error: Your service ended, and did not listen at {url.removesuffix('/optimove')}: exit status 1, at the end: "
        "no room for a gate"
    )


def test_a_gate_that_lacks_an_await_is_not_as_it_should_be(
    optimove_ce: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = str(free_port())
    for name, value in {**GIVEN, "OPTIMOVE_BASE_URL": f"http://127.0.0.1:{port}"}.items():
        monkeypatch.setenv(name, value)
    with served(gate_without_await()) as url:
        done = optimove_ce(
            "trigger", f"{url}/optimove", "--port", port, "--count", "2", "--rate", "50", "--seed", "7",
            "--deadline-ms", "1000", variables=GIVEN,
        )  # fmt: skip
    assert done.returncode == 1
    assert "Is an await missing?" in caplog.text
    *_, hint, verdict = done.stdout.splitlines()
    assert hint.startswith("? No answer about any customer was sent to Optimove: ")
    assert verdict == "Nothing wrong, but no customer was decided (--seed 7 asks about the same customers again)."


def test_a_gate_with_a_condition_that_lacks_an_await() -> None:
    port = free_port()
    done = rehearsed(
        f"http://127.0.0.1:{port}/optimove", "--count", "2", "--rate", "50", "--expect", "C2=approved",
        "--expect", "C3=denied", "--", *uvicorn_command("gate_with_a_lazy_condition", port),
    )  # fmt: skip
    assert (done.status, done.summary["ok"], done.summary["approved"], done.summary["wrong"]) == (1, False, 1, 1)
    assert {result["user_id"]: result["expected"] for result in done.results} == {"C2": "approved", "C3": "denied"}
    assert done.summary["findings"] == [
        "The coroutine is_eligible was never awaited: write await before its call; until then a condition takes it for "
        "true, whatever it would return.",
        "C3 was approved, which must never happen: a condition of the rule is true where it must not be, such as a "
        "coroutine without its await.",
    ]


def test_payloads_of_ones_own_and_who_is_expected(tmp_path: Path, optimove_ce: Run) -> None:
    file = tmp_path / "recorded.jsonl"
    file.write_text("".join(json.dumps(notification(user_id, timestamp_ms=1)) + "\n" for user_id in ("C7", "C8", "C9")))
    with service_of_mistakes() as (url, port):
        done = optimove_ce(
            "trigger", f"{url}/good", "--port", port, "--rate", "50", "--payload", str(file),
            "--expect", "C9=abstained", "--fault", "forged=30", "--seed", "1", variables=GIVEN,
        )  # fmt: skip
    assert done.returncode == 1
    assert ["approved", "1"] in [row.split() for row in done.stdout.splitlines()]
    assert ["forged", "1", "of", "1", "refused"] in [row.split() for row in done.stdout.splitlines()]
    assert "! C9 was approved, which must never happen: a condition of the rule is true" in done.stdout


def test_a_service_that_ends_during_the_rehearsal() -> None:
    port = free_port()
    done = rehearsed(
        f"http://127.0.0.1:{port}/optimove", "--count", "3", "--rate", "5", "--", *uvicorn_command("dying_gate", port)
    )
    assert done.status == 1
    assert done.summary["findings"][0] == "Your service ended during the rehearsal, with exit status 7."
    assert {"broken", "refused"} >= {failure for result in done.results for failure in result["failures"]}


def test_a_command_that_is_none(optimove_ce: Run) -> None:
    done = optimove_ce("trigger", f"http://127.0.0.1:{free_port()}/x", "--", "no-such-command")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: Your service cannot be started: no-such-command: No such file or directory. "
        "Give its path, or activate the environment that it is installed in.\n"
    )


def test_a_service_that_takes_too_long(optimove_ce: Run) -> None:
    before = time.monotonic()
    sleeping = (sys.executable, "-c", "import time; time.sleep(600)")
    done = optimove_ce("trigger", f"http://127.0.0.1:{free_port()}/x", "--start-within", "0.3", "--", *sleeping)
    assert done.returncode == 2
    assert "within 0.3 s: give it another URL, or more time with --start-within." in done.stderr
    assert time.monotonic() - before < 60


def test_a_place_that_is_taken(optimove_ce: Run) -> None:
    with service_of_mistakes() as (url, _):
        done = optimove_ce("trigger", f"{url}/good", "--", sys.executable, "-c", "raise SystemExit")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: Something listens at {url} already: stop it, or leave COMMAND away")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--fault", "slow"), "'slow' is none of duplicate, late, forged, oversize."),
        (("--fault", "late=0"), "'0' is no percentage: late=20 means 20 of 100."),
        (("--fault", "late=x"), "'x' is no percentage"),
        (("--fault", "forged=60", "--fault", "oversize=60"), "24 of 20 notifications would have a fault"),
        (("--fault", "late=100"), "A late notification needs one that is in time before it"),
        (("--skew", "1e9"), "--skew"),
        (("--expect", "C1=perhaps"), "'C1=perhaps' is not ID=DECISION, with one of approved, denied, abstained."),
        (("--expect", "C1=denied", "--fault", "forged=100"), "1 customer with an expected decision would not be"),
        (("--count", "1", "--expect", "C1=denied", "--expect", "C2=denied"), "would not be asked about, C"),
        (("--expect", "C1=denied", "--expect", "C1=approved"), "names one of them twice, with different values"),
        (("--payload", "no-such-file"), "'no-such-file' does not exist"),
        (("--payload", __file__), "is neither JSON nor JSON lines: see line 1."),
        (("--undecided", "101"), "--undecided"),
    ],
)
def test_what_makes_no_sense_is_status_2(arguments: tuple[str, ...], complaint: str, optimove_ce: Run) -> None:
    done = optimove_ce("trigger", "http://127.0.0.1:9/x", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr


def test_a_blank_secret_is_status_2(optimove_ce: Run) -> None:
    done = optimove_ce("trigger", "http://127.0.0.1:9/x", variables={"OPTIMOVE_WEBHOOK_SECRET": " "})
    assert (done.returncode, done.stdout) == (2, "")
    assert "OPTIMOVE_WEBHOOK_SECRET is empty or blank" in done.stderr


@pytest.mark.parametrize("name", ["no-such-machine.invalid", "no..name", "a" * 64 + ".invalid"])
def test_a_machine_that_is_not_there(name: str, optimove_ce: Run) -> None:
    done = optimove_ce("trigger", f"http://{name}/x")
    assert done.returncode == 2
    assert done.stderr == f"Error: No machine is called {name}: check the URL.\n"


def test_the_reader_of_the_output_may_leave() -> None:
    reading, writing = os.pipe()
    with service_of_mistakes() as (url, port):
        process = subprocess.Popen(
            [*COMMAND, "trigger", f"{url}/good", "--count", "3", "--rate", "50", "--port", port],
            stdout=writing, stderr=subprocess.PIPE, text=True, env=environment(**GIVEN),
        )  # fmt: skip
        os.close(writing)
        os.close(reading)
        _, complaints = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "Traceback" not in complaints
