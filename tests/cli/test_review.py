"""`optimove-ce review` against Optimove's stand-in over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner

from optimove_conditional_execution.cli.app import program
from optimove_conditional_execution.stores import SqliteDecisionLog, SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove

GATE = """
def odd(customers, deadline):
    return [customer.customer_id for customer in customers if int(customer.customer_id[1:]) % 2]

async def odd_awaited(customers, deadline):
    return odd(customers, deadline)

def is_odd(customer):
    return int(customer.customer_id[1:]) % 2 == 1

def broken(customers, deadline):
    raise ValueError
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with reviewers in it."""
    (tmp_path / "gate.py").write_text(GATE)
    return tmp_path


def environment(fake: FakeOptimove, url: str) -> dict[str, str]:
    settings = {"OPTIMOVE_API_KEY": fake.api_key, "OPTIMOVE_BASE_URL": url, "OPTIMOVE_TIMEZONE": "UTC"}
    return {**os.environ, **settings}


def review(folder: Path, fake: FakeOptimove, url: str, *arguments: str, given: str = "") -> tuple[int, str, str]:
    """Run the command in this process: to start one takes longer than most of what it does."""
    names = ["gate", "broken"]  # of which other tests may have modules too
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    with (
        contextlib.chdir(folder),
        mock.patch.object(sys, "path", [*sys.path]),
        mock.patch.dict(os.environ, environment(fake, url), clear=True),
    ):
        done = CliRunner().invoke(program, ["review", *arguments], input=given, prog_name="optimove-ce")
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(others)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


def review_process(
    folder: Path, fake: FakeOptimove, url: str, *arguments: str, given: str = ""
) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "optimove_conditional_execution.cli", "review", *arguments],
        cwd=folder,
        env=environment(fake, url),
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("function", [["gate:odd"], ["gate:odd_awaited"], ["gate:is_odd", "--per-customer"]])
def test_run_reviews_a_campaign(
    function: list[str], folder: Path, fake_optimove: FakeOptimove, optimove_url: str
) -> None:
    campaign = fake_optimove.add_campaign(3_000)
    arguments = ["run", *function, "-", "--journal", "reviews.db"]
    given = json.dumps(campaign.payload)
    status, printed, complaints = review(folder, fake_optimove, optimove_url, *arguments, given=given)
    assert (status, complaints) == (0, "")
    assert re.search(r"reviewed +3,000\napproved +1,500\ndenied +1,500\n", printed)
    assert len(campaign.recipients()) == 1_500
    status, printed, _ = review(folder, fake_optimove, optimove_url, "status", "--journal", "reviews.db", "--json")
    assert status == 0
    (row,) = json.loads(printed)
    assert (row["campaign_id"], row["decided"], row["approved"], row["finished"]) == (
        campaign.campaign_id, 3_000, 1_500, True,
    )  # fmt: skip


def test_a_review_that_is_not_complete_is_resumed(folder: Path, fake_optimove: FakeOptimove, optimove_url: str) -> None:
    campaign = fake_optimove.add_campaign(100)
    (folder / "event.json").write_text(json.dumps(campaign.payload))
    journal = ["--journal", "reviews.db"]
    status, printed, _ = review(folder, fake_optimove, optimove_url, "run", "gate:broken", "event.json", *journal)
    assert status == 1
    assert "INCOMPLETE" in printed
    assert "ValueError" in printed
    status, printed, _ = review(folder, fake_optimove, optimove_url, "status", *journal)
    assert "unfinished" in printed
    status, printed, _ = review_process(folder, fake_optimove, optimove_url, "resume", "gate:odd", *journal, "--json")
    assert status == 0
    assert [(one["approved"], one["complete"]) for one in json.loads(printed)] == [(50, True)]
    status, printed, _ = review(folder, fake_optimove, optimove_url, "resume", "gate:odd", *journal)
    assert (status, printed) == (0, "Nothing is left to do.\n")
    assert len(SqliteJournal(folder / "reviews.db").reviews()) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "gate", "-"], "MODULE:FUNCTION"),
        (["run", "nowhere:odd", "-"], "no module nowhere"),
        (["run", "gate:nobody", "-"], "no function nobody"),
        (["run", "gate:is_odd", "-"], "per_customer"),
        (["resume", "gate:odd"], "no journal"),
        (["status"], "no journal"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    arguments: list[str], complaint: str, folder: Path, fake_optimove: FakeOptimove
) -> None:
    given = json.dumps(fake_optimove.add_campaign(1).payload)
    journal = ["--journal", "reviews.db"]
    status, printed, complaints = review(folder, fake_optimove, "http://127.0.0.1:1", *arguments, *journal, given=given)
    assert (status, printed) == (2, "")
    assert complaint in complaints
    assert "Traceback" not in complaints


def test_an_event_that_cannot_be_read_is_one_line(folder: Path, fake_optimove: FakeOptimove) -> None:
    arguments = ["run", "gate:odd", "-", "--journal", "reviews.db"]
    status, _, complaints = review(folder, fake_optimove, "http://127.0.0.1:1", *arguments, given="{}")
    assert status == 2
    assert "EventTypeID" in complaints


def test_an_event_in_utf_16_gets_a_hint(folder: Path, fake_optimove: FakeOptimove) -> None:
    (folder / "event.json").write_bytes('{"EventTypeID": 5}'.encode("utf-16"))
    code, _, complaint = review(
        folder, fake_optimove, "http://127.0.0.1:1", "run", "gate:odd", "event.json", "--journal", "reviews.db"
    )
    assert code == 2
    assert "UTF-16" in complaint
    assert "PowerShell" in complaint


def test_a_terminal_sees_how_far_a_review_is(folder: Path, fake_optimove: FakeOptimove, optimove_url: str) -> None:
    campaign = fake_optimove.add_campaign(3_000)
    (folder / "event.json").write_text(json.dumps(campaign.payload))
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "optimove_conditional_execution.cli", "review", "run", "gate:odd", "event.json"]
    done = subprocess.run(
        [*command, "--journal", "reviews.db"],
        cwd=folder,
        env={**environment(fake_optimove, optimove_url), "TERM": "xterm", "COLUMNS": "100"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=slave,
        timeout=60,
        check=True,
    )
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other end is closed
        while piece := os.read(master, 65_536):
            shown += piece
    os.close(master)
    assert b"\x1b[?25h" in shown
    assert b"3,000" in shown
    assert b"1,500" in shown
    assert b"\nComplete: every customer was decided" in done.stdout


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("from json import nothing", "ImportError"),
        ("def reviewer(:", "SyntaxError"),
        ("raise LookupError('no settings')", "LookupError: no settings"),
        ("import nowhere_to_be_found", "There is no module nowhere_to_be_found"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(
    module: str, says: str, folder: Path, fake_optimove: FakeOptimove, optimove_url: str
) -> None:
    (folder / "broken.py").write_text(module)
    campaign = fake_optimove.add_campaign(1)
    arguments = ["run", "broken:reviewer", "-", "--journal", "reviews.db"]
    given = json.dumps(campaign.payload)
    status, printed, complaint = review(folder, fake_optimove, optimove_url, *arguments, given=given)
    assert (status, printed) == (2, "")
    assert complaint.startswith("Error: ")
    assert complaint.count("\n") == 1
    assert says in complaint


def test_a_review_writes_a_decision_log(
    folder: Path, fake_optimove: FakeOptimove, optimove_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTIMOVE_DECISION_LOG_SECRET", "s3cr3t")
    campaign = fake_optimove.add_campaign(3)
    files = ["--journal", "reviews.db", "--log", "decisions.db"]
    given = json.dumps(campaign.payload)
    status, *_ = review(folder, fake_optimove, optimove_url, "run", "gate:broken", "-", *files, given=given)
    assert status == 1
    monkeypatch.setenv("OPTIMOVE_DECISION_LOG", "decisions.db")
    status, *_ = review(folder, fake_optimove, optimove_url, "resume", "gate:odd", *files[:2])
    assert status == 0
    odd = sorted(campaign.recipients())[0]
    with SqliteDecisionLog(folder / "decisions.db", identify="s3cr3t") as log:
        assert log.verify() is None
        *failed, approved = log.decisions(customer_id=odd)
    assert {each.record.kind for each in failed} == {"failed"}
    assert (approved.record.kind, approved.completion and approved.completion.taken) == ("approved", True)


def test_a_log_that_cannot_be_used_is_one_line_and_nobody_is_approved(
    folder: Path, fake_optimove: FakeOptimove, optimove_url: str
) -> None:
    (folder / "no.db").write_text("not a database " * 100)
    campaign = fake_optimove.add_campaign(1)
    for log in ("no.db", "nowhere/decisions.db", "host=127.0.0.1 password=s3cr3t", "host=db dbname=x", ""):
        arguments = ["run", "gate:odd", "-", "--journal", "reviews.db", "--log", log]
        given = json.dumps(campaign.payload)
        status, printed, complaint = review(folder, fake_optimove, optimove_url, *arguments, given=given)
        assert (status, printed) == (2, "")
        assert complaint.startswith("Error: The log " if log else "Error: SqliteDecisionLog needs a file")
        assert complaint.count("\n") == 1
        assert "s3cr3t" not in complaint
    assert not campaign.recipients()


@pytest.mark.parametrize("command", [["run", "gate:odd", "-"], ["resume", "gate:odd"], ["status"]])
def test_a_journal_that_is_none_is_one_line(
    command: list[str], folder: Path, fake_optimove: FakeOptimove, optimove_url: str
) -> None:
    (folder / "no.db").write_text("not a database " * 100)
    for journal in ("no.db", "nowhere/reviews.db"):
        given = json.dumps(fake_optimove.add_campaign(1).payload)
        arguments = [*command, "--journal", journal]
        status, printed, complaint = review(folder, fake_optimove, optimove_url, *arguments, given=given)
        assert (status, printed) == (2, "")
        assert complaint.startswith(("Error: The journal ", "Error: There is no journal "))
        assert complaint.count("\n") == 1


def test_a_review_of_another_process_is_not_called_done(
    folder: Path, fake_optimove: FakeOptimove, optimove_url: str
) -> None:
    event = fake_optimove.add_campaign(10).event()
    resume = ["resume", "gate:odd", "--report-denied", "--journal", "reviews.db"]
    with SqliteJournal(folder / "reviews.db") as journal:
        journal.add(event)
        assert journal.open(event)
        assert review(folder, fake_optimove, optimove_url, *resume)[:2] == (0, "Others are at 1 unfinished reviews.\n")
        journal.unlock(event.key)
    status, printed, _ = review(folder, fake_optimove, optimove_url, *resume)
    assert (status, "acknowledged 10\n" in printed) == (0, True)
    assert review(folder, fake_optimove, optimove_url, *resume)[:2] == (0, "Nothing is left to do.\n")
