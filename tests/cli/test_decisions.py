"""`optimove-ce decisions`: a timeline in plain words, an export, and whether the log was changed."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from optimove_conditional_execution.stores import (
    Completion,
    DecisionRecord,
    SqliteDecisionLog,
    SqliteJournal,
    Subject,
)
from optimove_conditional_execution.testing import FakeOptimove
from tests.cli.conftest import COMMAND, PATIENCE, Run, environment

NOON = datetime(2026, 3, 3, 12, tzinfo=UTC)
ASKED = Subject(
    customer_id="C7", campaign="29", occurrence="19", action="2", channels=("15", "490"), promotions=("BONUS",)
)
NONE = "The log holds no such decision.\n"
EVENT = "5:77:2026-03-03T12:00:00:2026-03-03T13:00:00"


def record(minute: int, kind: str, verdict: str | None = None, **fields: object) -> DecisionRecord:
    given = {"flow": "triggered", "subject": ASKED, **fields}
    return DecisionRecord(at=NOON + timedelta(minutes=minute), kind=kind, verdict=verdict, **given)  # type: ignore[arg-type]


def completion(of: DecisionRecord, kind: str, told: str | None, taken: bool | None, **fields: object) -> Completion:
    return Completion(at=of.at, completes=of.id, kind=kind, told=told, taken=taken, **fields)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "decisions.db"
    denied = record(0, "denied", "deny", reason="self_exclusion", evidence={"rule": 4, "name": "ü"})
    approved, undelivered = record(1, "approved", "approve"), record(2, "approved", "approve")
    again, superseded = record(3, "approved", "approve", redelivered=True), record(4, "approved", "approve")
    late = record(5, "late", "abstain", error="The handler did not answer in time.")
    scheduled = record(
        8, "approved", "approve", flow="scheduled", subject=Subject(customer_id="C7", campaign="77"),
        event_key=EVENT, number=0,
    )  # fmt: skip
    with SqliteDecisionLog(path) as log:
        log.append([denied, completion(denied, "denied", "denied", True)])
        log.append([approved, completion(approved, "approved", "approved", True), undelivered])
        log.append(
            [completion(undelivered, "undelivered", "approved", False, error="ServerError: 500"), again, superseded]
        )
        log.append([completion(superseded, "superseded", "nothing", None), late])
        log.append([completion(late, "late", "nothing", None)])
        log.append([record(6, "overloaded", subject=Subject(customer_id="C8")), record(7, "forged", subject=Subject())])
        log.append([scheduled, Completion(at=NOON, completes=EVENT, numbers=(0, 1), kind="discarded")])
    return path


TIMELINE = """\
2026-03-03 12:00:00 UTC  {asked}: denied (self_exclusion). Optimove was told no, and took it.
    evidence: {{"rule": 4, "name": "ü"}}
2026-03-03 12:01:00 UTC  {asked}: approved. Optimove was told yes, and took it.
2026-03-03 12:02:00 UTC  {asked}: approved. Optimove did not take the yes: ServerError: 500.
2026-03-03 12:03:00 UTC  {asked}: the same answer was given again: approved. Whether Optimove was told is not known: it is being answered, or the process ended.
2026-03-03 12:04:00 UTC  {asked}: approved. It was not sent: another replica had taken over.
2026-03-03 12:05:00 UTC  {asked}: the rule did not answer in time: The handler did not answer in time. Optimove was told nothing.
2026-03-03 12:08:00 UTC  campaign 77: approved. It was never sent: the process ended first, and the customer was asked about again.
""".format(asked="campaign 29, occurrence 19, action 2, channels 15, 490, promotions BONUS")  # noqa: E501


def test_a_timeline_in_plain_words(optimove_ce: Run, path: Path) -> None:
    done = optimove_ce("decisions", "C7", "--log", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == TIMELINE
    assert optimove_ce("decisions", "show", "C7", "--log", str(path)).stdout == TIMELINE
    assert optimove_ce("decisions", "--log", str(path), "C7").stdout == TIMELINE


OF_REVIEW = """\
approved. It was not sent: a later answer about the customer was no.
denied. Optimove was not told yes.
asked again about further rows, the rule said yes. The earlier decision stands.
of the control group, so nobody was asked. Optimove was told nothing.
approved. Whether Optimove took the yes is not known: TransportError: x.
approved. There is no word yet that Optimove was told.
"""


def test_the_timeline_of_a_review(optimove_ce: Run, tmp_path: Path) -> None:
    def of_review(kind: str, verdict: str | None = None, number: int | None = None) -> DecisionRecord:
        subject = Subject(customer_id="C7", campaign="78")
        return record(1, kind, verdict, flow="scheduled", subject=subject, event_key=EVENT, number=number)

    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        log.append([of_review("approved", "approve", 0), of_review("denied", "deny", 2**62)])
        log.append([of_review("confirmed", "approve"), of_review("skipped")])
        log.append([of_review("approved", "approve", 1), of_review("approved", "approve", 2)])
        log.append([Completion(at=NOON, completes=EVENT, numbers=(0, 1), kind="revoked")])
        unknown = Completion(at=NOON, completes=EVENT, numbers=(1, 2), kind="undelivered", error="TransportError: x")
        log.append([unknown])
    done = optimove_ce("decisions", "C7", "--log", str(tmp_path / "decisions.db"))
    assert [line.partition("campaign 78: ")[2] for line in done.stdout.splitlines()] == OF_REVIEW.splitlines()


def test_a_part_of_the_timeline(optimove_ce: Run, path: Path) -> None:
    log = ("--log", str(path))
    assert optimove_ce("decisions", "C7", *log, "--campaign", "77").stdout == TIMELINE.splitlines(keepends=True)[-1]
    assert optimove_ce("decisions", "C7", *log, "--since", "2026-03-03T13:08+01:00").stdout.count("UTC") == 1
    assert optimove_ce("decisions", "C7", *log, "--since", "2026-03-04").stdout == NONE
    assert optimove_ce("decisions", "C9", *log).stdout == NONE
    wrong = optimove_ce("decisions", "C7", *log, "--since", "yesterday")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "must be a date" in wrong.stderr


def test_json(optimove_ce: Run, path: Path) -> None:
    first, *_, last = json.loads(optimove_ce("decisions", "C7", "--log", str(path), "--json").stdout)
    assert (first["customer_id"], first["campaign"], first["channels"]) == ("C7", "29", ["15", "490"])
    assert (first["reason"], first["evidence"]["rule"], first["at"]) == ("self_exclusion", 4, NOON.isoformat())
    assert (first["completion"]["told"], first["completion"]["taken"]) == ("denied", True)
    assert last["completion"]["kind"] == "discarded"
    with SqliteDecisionLog(path) as log:
        assert next(log.decisions(customer_id="C7")).as_json() == first


def test_export(optimove_ce: Run, path: Path) -> None:
    done = optimove_ce("decisions", "export", "--csv", "--log", str(path))
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert len(rows) == 9
    assert (rows[0]["customer_id"], rows[0]["channels"], rows[0]["told"], rows[0]["taken"]) == (
        "C7", "15, 490", "denied", "True",
    )  # fmt: skip
    assert json.loads(rows[0]["evidence"]) == {"rule": 4, "name": "ü"}
    assert [row["kind"] for row in rows if not row["customer_id"]] == ["forged"]
    lines = optimove_ce("decisions", "export", "--json", "--log", str(path), "--campaign", "77").stdout.splitlines()
    assert [json.loads(line)["event_key"] for line in lines] == [EVENT]
    assert optimove_ce("decisions", "export", "--json", "--csv", "--log", str(path)).returncode == 2


def test_what_the_encoding_of_a_pipe_lacks_is_no_error(optimove_ce_process: Run, tmp_path: Path) -> None:
    path, name = tmp_path / "names.db", "Жулия"
    with SqliteDecisionLog(path) as log:
        log.append([record(0, "denied", "deny", subject=Subject(customer_id=name), reason=name)])
    variables = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    exported = optimove_ce_process("decisions", "export", "--log", str(path), variables=variables)
    assert (exported.returncode, exported.stderr) == (0, "")
    (row,) = csv.DictReader(io.StringIO(exported.stdout))
    assert (row["customer_id"], row["reason"]) == (name, name)
    told = optimove_ce_process("decisions", name, "--log", str(path), variables={"PYTHONIOENCODING": "cp1252"})
    assert (told.returncode, told.stderr) == (0, "")
    assert "denied (\\u0416\\u0443" in told.stdout


def test_export_has_what_optimove_was_sent_along_and_whether_it_was_sent_again(
    optimove_ce: Run, tmp_path: Path
) -> None:
    path = tmp_path / "again.db"
    with SqliteDecisionLog(path) as log:
        log.append([record(0, "approved", "approve", additional_data={"bonus": 5}, redelivered=True)])
    (row,) = csv.DictReader(io.StringIO(optimove_ce("decisions", "export", "--log", str(path)).stdout))
    assert (row["additional_data"], row["redelivered"], row["evidence"]) == ('{"bonus": 5}', "True", "")


def test_a_failure_is_not_said_to_be_that_of_the_rule(optimove_ce: Run, tmp_path: Path) -> None:
    path = tmp_path / "failed.db"
    with SqliteDecisionLog(path) as log:
        log.append([record(0, "failed", error="The claim store is unreachable: OSError")])
    told = optimove_ce("decisions", "C7", "--log", str(path)).stdout
    assert "BONUS: the decision failed: The claim store is unreachable: OSError. Optimove was told nothing." in told


@pytest.mark.parametrize("given", ["=HYPERLINK(1)", "+44", "-3", "@SUM", "\tC7", "\rC7", "\nC7", "\uff1d1"])
def test_no_cell_of_an_export_is_a_formula_of_a_spreadsheet(optimove_ce: Run, tmp_path: Path, given: str) -> None:
    path = tmp_path / "formulas.db"
    with SqliteDecisionLog(path) as log:
        log.append([record(0, "denied", "deny", subject=Subject(customer_id=given), reason=given)])
    exported = optimove_ce("decisions", "export", "--csv", "--log", str(path)).stdout
    (row,) = csv.DictReader(io.StringIO(exported, newline=""))
    assert (row["customer_id"], row["reason"], row["entry"]) == (f"'{given}", f"'{given}", "1")
    told = json.loads(optimove_ce("decisions", "export", "--json", "--log", str(path)).stdout)
    assert (told["customer_id"], told["reason"]) == (given, given)


def test_verify(optimove_ce: Run, path: Path) -> None:
    log = ("--log", str(path))
    done = optimove_ce("decisions", "verify", *log)
    assert done.returncode == 0
    head = done.stdout.removeprefix("The log is intact. Its head is ").strip()
    assert json.loads(optimove_ce("decisions", "verify", *log, "--head", head, "--json").stdout) == {
        "ok": True, "entry": None, "problem": None, "head": head,
    }  # fmt: skip
    assert optimove_ce("decisions", "verify", *log, "--head", "7").returncode == 2
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE decision_log SET entry = replace(entry, 'approve', 'deny') WHERE number = 3")
    done = optimove_ce("decisions", "verify", *log)
    assert (done.returncode, done.stdout) == (1, "Entry 3 was changed, or moved, or replaced by another one.\n")
    assert json.loads(optimove_ce("decisions", "verify", *log, "--json").stdout)["entry"] == 3


def test_an_entry_that_cannot_be_read_any_more(optimove_ce: Run, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE decision_log SET entry = '{' WHERE number = 1")
    done = optimove_ce("decisions", "C7", "--log", str(path))
    assert done.returncode == 2
    assert "optimove-ce decisions verify" in done.stderr


def test_files_that_are_no_log(optimove_ce: Run, tmp_path: Path) -> None:
    missing = optimove_ce("decisions", "C7", "--log", str(tmp_path / "missing.db"))
    assert (missing.returncode, (tmp_path / "missing.db").exists()) == (2, False)
    assert "There is no log" in missing.stderr
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at" * 50)
    other = optimove_ce("decisions", "verify", "--log", str(tmp_path / "text.db"))
    assert other.returncode == 2
    assert "must be an SQLite file of ours" in other.stderr


def test_a_log_of_pseudonyms(optimove_ce: Run, tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    with SqliteDecisionLog(path, identify="hush") as log:
        log.append([record(0, "denied", "deny")])
    asked = ("decisions", "C7", "--log", str(path))
    right = {"OPTIMOVE_DECISION_LOG_SECRET": "hush"}
    for command in (asked, (*asked, "--json"), ("decisions", "erase", "C7", "--yes", *asked[2:])):
        for variables in ({}, {"OPTIMOVE_DECISION_LOG_SECRET": "another"}):
            refused = optimove_ce(*command, variables=variables)
            assert (refused.returncode, refused.stdout) == (2, "")
            assert "Set OPTIMOVE_DECISION_LOG_SECRET to the identify=" in refused.stderr
    assert "denied" in optimove_ce(*asked, variables=right).stdout
    assert optimove_ce("decisions", "C8", *asked[2:], variables=right).stdout == NONE
    erased = optimove_ce("decisions", "erase", "C7", "--yes", *asked[2:], variables=right)
    assert (erased.returncode, erased.stdout.partition(" erased")[0]) == (0, "1 decision was")


def test_a_secret_for_a_log_of_ids(optimove_ce: Run, path: Path) -> None:
    refused = optimove_ce("decisions", "C7", "--log", str(path), variables={"OPTIMOVE_DECISION_LOG_SECRET": "hush"})
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "or to nothing if it holds ids" in refused.stderr


def test_text_cannot_steer_the_terminal(optimove_ce: Run, tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    with SqliteDecisionLog(path) as log:
        log.append([record(0, "denied", "deny", reason="\x1b[2J\nC8: approved\ud800")])
    lines = optimove_ce("decisions", "C7", "--log", str(path)).stdout.splitlines()
    assert len(lines) == 1
    assert "(?[2J?C8: approved?)" in lines[0]
    exported = optimove_ce("decisions", "export", "--log", str(path)).stdout
    assert "approved\\ud800" in exported


def test_a_part_by_its_end(optimove_ce: Run, path: Path) -> None:
    log = ("--log", str(path), "--until", "2026-03-03T12:02")
    assert optimove_ce("decisions", "C7", *log).stdout == "".join(TIMELINE.splitlines(keepends=True)[:3])
    assert optimove_ce("decisions", "export", *log).stdout.count("\n") == 3


def test_the_log_from_the_environment(optimove_ce: Run, path: Path) -> None:
    assert optimove_ce("decisions", "C7", variables={"OPTIMOVE_DECISION_LOG": str(path)}).stdout == TIMELINE
    missing = optimove_ce("decisions", "C7")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "OPTIMOVE_DECISION_LOG" in missing.stderr


def test_erase(optimove_ce: Run, path: Path) -> None:
    log = ("--log", str(path))
    unsure = optimove_ce("decisions", "erase", "C7", *log)
    assert (unsure.returncode, unsure.stdout) == (2, "")
    assert "--yes" in unsure.stderr
    assert optimove_ce("decisions", "C7", *log).stdout == TIMELINE
    done = optimove_ce("decisions", "erase", "C7", *log, "--yes")
    assert done.returncode == 0
    assert done.stdout.startswith("7 decisions were erased")
    assert "The log keeps that they were made" in done.stdout
    again = optimove_ce("decisions", "erase", "C7", *log, "--yes")
    assert (again.returncode, again.stdout) == (0, "The log holds nothing about this customer.\n")
    assert optimove_ce("decisions", "C7", *log).stdout == NONE
    rows = list(csv.DictReader(io.StringIO(optimove_ce("decisions", "export", *log).stdout)))
    assert [(row["verdict"], row["campaign"], row["erased"]) for row in rows][:1] == [("deny", "29", "True")]
    assert optimove_ce("decisions", "verify", *log).returncode == 0
    assert json.loads(optimove_ce("decisions", "erase", "C8", *log, "--yes", "--json").stdout) == {"erased": 1}


def test_prune(optimove_ce: Run, path: Path) -> None:
    log = ("--log", str(path))
    assert optimove_ce("decisions", "prune", *log, "--yes").returncode == 2
    assert optimove_ce("decisions", "prune", *log, "--before", "2026-03-03T13:02+01:00").returncode == 2
    done = optimove_ce("decisions", "prune", *log, "--before", "2026-03-03T13:02+01:00", "--yes")
    assert (done.returncode, done.stdout) == (
        0,
        "2 decisions from before 2026-03-03 12:02:00 UTC were deleted. The log keeps that it was pruned, and where.\n",
    )
    assert optimove_ce("decisions", "C7", *log).stdout == "".join(TIMELINE.splitlines(keepends=True)[3:])
    told = optimove_ce("decisions", "prune", *log, "--before", "2026-03-03T12:02", "--yes", "--json").stdout
    assert json.loads(told) == {"pruned": 0}
    assert optimove_ce("decisions", "verify", *log).returncode == 0


@pytest.mark.parametrize("answer", ["y", "n"])
def test_erase_asks_on_a_terminal(
    started: Callable[..., subprocess.Popen[str]], optimove_ce: Run, path: Path, answer: str
) -> None:
    master, slave = pty.openpty()
    process = started("decisions", "erase", "C7", "--log", str(path), "--json", stdin=slave)
    os.write(master, f"{answer}\n".encode())
    output, errors = process.communicate(timeout=PATIENCE)
    os.close(slave)
    os.close(master)
    assert "That decisions were made is kept" in errors
    if answer == "y":
        assert (process.returncode, json.loads(output)) == (0, {"erased": 7})
        return
    assert (process.returncode, output) == (1, "")
    assert errors.endswith("Nothing was deleted.\n")
    assert optimove_ce("decisions", "C7", "--log", str(path)).stdout == TIMELINE


@pytest.mark.parametrize("command", [(), ("show",), ("export",), ("verify",), ("prune",), ("erase",)])
def test_help(optimove_ce: Run, command: tuple[str, ...]) -> None:
    done = optimove_ce("decisions", *command, "--help")
    assert done.returncode == 0
    assert "optimove-ce decisions" in done.stdout


def test_what_does_not_count_is_said_and_listed(optimove_ce: Run, tmp_path: Path) -> None:
    path = tmp_path / "decisions.db"
    shadow = record(1, "shadow", observed="denied", decided="approved", reason="new rule")
    alike = record(2, "shadow", observed="approved", decided="approved")
    observed = record(3, "abstained", "abstain", observed="approved")
    with SqliteDecisionLog(path) as log:
        log.append([record(0, "approved", "approve"), shadow, alike, observed])
        log.append([completion(observed, "abstained", "nothing", None)])
    result = optimove_ce("decisions", "C7", "--log", str(path))
    lines = [line.rpartition("BONUS: ")[2] for line in result.stdout.splitlines()]
    assert lines[1:] == [
        "a shadow was asked, and it said denied where the rule that counts said approved (new rule). "
        "A shadow's answer never counts.",
        "a shadow was asked, and it said approved where the rule that counts said approved. "
        "A shadow's answer never counts.",
        "abstained, and the rule said approved, which does not count. Optimove was told nothing.",
    ]
    result = optimove_ce("decisions", "export", "--log", str(path), "--differences")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [(row["kind"], row["observed"], row["decided"]) for row in rows] == [
        ("shadow", "denied", "approved"),
        ("abstained", "approved", ""),
    ]


@pytest.mark.parametrize(
    "given",
    [
        "postgresql+psycopg://gate:s3cr3t@127.0.0.1/gate",
        "PostgreSQL://gate:s3cr3t@127.0.0.1/gate",
        "host=127.0.0.1 user=gate password = s3cr3t",
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        ("decisions", "verify", "--log"),
        ("replay", "--log"),
        ("review", "status", "--journal"),
        ("review", "explain", "C7", "--journal"),
        ("review", "run", "json:loads", "-", "--journal"),
        ("reconcile", "77", "--journal"),
    ],
)
def test_a_password_in_what_is_no_url_of_ours_is_not_shown(
    optimove_ce: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = optimove_ce(
        *command,
        given,
        body=FakeOptimove().add_campaign(1).event().model_dump_json(by_alias=True).encode(),
        variables={"OPTIMOVE_API_KEY": "k", "OPTIMOVE_BASE_URL": "http://127.0.0.1:1"},
    )
    assert done.returncode == 2
    assert "s3cr3t" not in done.stdout + done.stderr
    assert "begins with postgresql://" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_file_of_another_kind_is_not_called_intact_nor_finished(optimove_ce: Run, tmp_path: Path, path: Path) -> None:
    empty, journal = tmp_path / "empty.db", tmp_path / "reviews.db"
    empty.touch()
    SqliteJournal(journal).close()
    for other in (empty, journal):
        before = other.read_bytes()
        done = optimove_ce("decisions", "verify", "--log", str(other))
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{other} is no log" in done.stderr
        assert other.read_bytes() == before
    for other in (empty, path):
        done = optimove_ce("review", "status", "--journal", str(other))
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{other} is no journal" in done.stderr
    assert optimove_ce("decisions", "verify", "--log", str(path)).returncode == 0


@pytest.mark.parametrize("command", [("export",), ("verify",), ("prune", "--before", "2030-01-01", "--yes")])
def test_a_damaged_file(optimove_ce: Run, tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "decisions.db"
    with SqliteDecisionLog(path) as log:
        log.append([record(0, "denied", "deny") for _ in range(1_000)])
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 20_000] = b"U" * 20_000
    path.write_bytes(content)
    done = optimove_ce("decisions", *command, "--log", str(path))
    assert done.returncode == 2
    assert "restore it from a backup" in done.stderr


@pytest.mark.parametrize("moment", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00"])
@pytest.mark.parametrize("command", [("show", "C7", "--since"), ("prune", "--yes", "--before")])
def test_a_moment_out_of_range(optimove_ce: Run, path: Path, command: tuple[str, ...], moment: str) -> None:
    done = optimove_ce("decisions", *command, moment, "--log", str(path))
    assert done.returncode == 2
    assert "between the years 1 and 9999" in done.stderr


@pytest.mark.parametrize("command", [("C7",), ("export",), ("export", "--json")])
def test_whoever_has_read_enough_is_no_error_of_the_log(tmp_path: Path, command: tuple[str, ...]) -> None:
    path = tmp_path / "decisions.db"
    with SqliteDecisionLog(path) as log:
        log.append([record(0, "denied", "deny", reason="x" * 100) for _ in range(1_500)])
    with subprocess.Popen(
        [*COMMAND, "decisions", *command, "--log", str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_output_that_finds_no_space_is_one_line(path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, "decisions", "verify", "--log", str(path)],
            stdout=full, stderr=subprocess.PIPE, env=environment(), text=True, timeout=PATIENCE,
        )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "Error: What is printed or written is not complete: No space left on device.\n"
