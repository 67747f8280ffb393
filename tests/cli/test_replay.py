"""`optimove-ce replay`: counts, a file with the ids, and an exit status."""

from __future__ import annotations

import csv
import json
import stat
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from optimove_conditional_execution import WebhookReceiver
from optimove_conditional_execution.stores import SqliteDecisionLog
from optimove_conditional_execution.testing import FakeOptimove
from tests.cli.conftest import Run

GATE = """
class Rules:
    async def handler(self, notification, deadline):
        return same(notification, deadline)

rules = Rules()

def same(notification, deadline):
    return notification.user.user_id != "C1"

def other(notification, deadline):
    if notification.user.user_id == "C3":
        raise KeyError
    return notification.user.user_id != "C2"
"""
KEY = Fernet.generate_key().decode()


def recorded(path: Path, *, encrypted: bool = False, keep: bool = True) -> Path:
    """Write a log in which C1 of four was denied."""
    optimove = FakeOptimove()
    settings = {"encryption_keys": KEY} if encrypted else {}
    with SqliteDecisionLog(path, keep_payloads=keep, **settings) as log:  # type: ignore[arg-type]
        receiver = WebhookReceiver(
            lambda notification, deadline: notification.user.user_id != "C1",
            client=optimove.client(),
            secrets=optimove.secrets,
            decision_log=log,
        )
        for number in range(4):
            optimove.notify(receiver, user_id=f"C{number}")
    return path


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "replay_gate.py").write_text(GATE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "replay_gate", raising=False)


@pytest.mark.usefixtures("gate")
def test_what_differs(optimove_ce: Run, tmp_path: Path) -> None:
    path, file = recorded(tmp_path / "decisions.db"), tmp_path / "changed.csv"
    done = optimove_ce("replay", "--log", str(path), "--handler", "replay_gate:other", "--csv", str(file))
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines() == [
        "Asked about 4 decisions: 1 as before, 2 different, 1 failed.",
        "         1  deny -> approve",
        "         1  approve -> deny",
        "         1  The handler raised KeyError.",
        f"Who they are is in {file}.",
    ]
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [(row["customer_id"], row["before"], row["after"], row["error"]) for row in rows] == [
        ("C1", "deny", "approve", ""),
        ("C2", "approve", "deny", ""),
        ("C3", "approve", "", "The handler raised KeyError."),
    ]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.usefixtures("gate")
def test_no_cell_of_its_file_is_a_formula_of_a_spreadsheet(optimove_ce: Run, tmp_path: Path) -> None:
    optimove, path, file = FakeOptimove(), tmp_path / "decisions.db", tmp_path / "changed.csv"
    with SqliteDecisionLog(path, keep_payloads=True) as log:
        receiver = WebhookReceiver(
            lambda *_: False, client=optimove.client(), secrets=optimove.secrets, decision_log=log
        )
        optimove.notify(receiver, user_id="=C1")
    optimove_ce("replay", "--log", str(path), "--handler", "replay_gate:same", "--csv", str(file))
    (row,) = csv.DictReader(file.read_text().splitlines())
    assert row["customer_id"] == "'=C1"


@pytest.mark.usefixtures("gate")
def test_json(optimove_ce: Run, tmp_path: Path) -> None:
    path = recorded(tmp_path / "decisions.db")
    log = {"OPTIMOVE_DECISION_LOG": str(path)}
    done = optimove_ce("replay", "--handler", "replay_gate:other", "--json", variables=log)
    assert done.returncode == 1
    assert json.loads(done.stdout) == {
        "asked": 4,
        "unchanged": 1,
        "changed": [
            {"before": "deny", "after": "approve", "count": 1},
            {"before": "approve", "after": "deny", "count": 1},
        ],
        "failed": {"The handler raised KeyError.": 1},
        "left_out": {"without_payload": 0, "erased": 0, "not_decided": 0, "no_rule": 0},
    }


@pytest.mark.usefixtures("gate")
@pytest.mark.parametrize("rule", ["replay_gate:same", "replay_gate:rules.handler"])
def test_nothing_differs(optimove_ce: Run, tmp_path: Path, rule: str) -> None:
    done = optimove_ce("replay", "--log", str(recorded(tmp_path / "decisions.db")), "--handler", rule)
    assert (done.returncode, done.stdout) == (0, "Asked about 4 decisions: 4 as before, 0 different, 0 failed.\n")


@pytest.mark.usefixtures("gate")
def test_an_encrypted_log(optimove_ce: Run, tmp_path: Path) -> None:
    command = (
        "replay",
        "--log",
        str(recorded(tmp_path / "decisions.db", encrypted=True)),
        "--handler",
        "replay_gate:same",
    )
    locked = optimove_ce(*command)
    assert (locked.returncode, locked.stdout) == (2, "")
    assert "OPTIMOVE_DECISION_LOG_KEY" in locked.stderr
    keys = f"{Fernet.generate_key().decode()}, {KEY}"
    assert optimove_ce(*command, variables={"OPTIMOVE_DECISION_LOG_KEY": keys}).returncode == 0


@pytest.mark.usefixtures("gate")
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "needs handler= or reviewer="),
        (("--handler", "replay_gate"), "given as MODULE:FUNCTION, such as gate:handler"),
        (("--handler", "replay_gate:missing"), "has no function missing"),
        (("--handler", "replay_gate:same", "--since", "2200-01-01"), "There was nothing to ask about. The log"),
        (("--reviewer", "replay_gate:same"), "There was nothing to ask about: 4 of the other kind of campaign."),
        (("--handler", "replay_gate:same", "--csv", "/no/such/folder/x.csv"), "cannot be written"),
    ],
)
def test_what_cannot_be_replayed(optimove_ce: Run, tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    done = optimove_ce("replay", "--log", str(recorded(tmp_path / "decisions.db")), *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


@pytest.mark.usefixtures("gate")
def test_a_log_without_payloads(optimove_ce: Run, tmp_path: Path) -> None:
    path = recorded(tmp_path / "decisions.db", keep=False)
    done = optimove_ce("replay", "--log", str(path), "--handler", "replay_gate:same")
    assert done.returncode == 2
    assert "4 without a payload. The log must be written with keep_payloads=True" in done.stderr


@pytest.mark.usefixtures("gate")
def test_an_older_file_that_all_can_read_is_replaced_when_the_new_one_is_complete(
    optimove_ce: Run, tmp_path: Path
) -> None:
    file = tmp_path / "changed.csv"
    file.write_text("older")
    file.chmod(0o644)
    log = recorded(tmp_path / "decisions.db")
    missing = optimove_ce(
        "replay", "--log", str(log), "--reviewer", "replay_gate:same", "--since", "x", "--csv", str(file)
    )
    assert (missing.returncode, file.read_text()) == (2, "older")
    optimove_ce("replay", "--log", str(log), "--handler", "replay_gate:other", "--csv", str(file))
    assert "C2" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
