"""The decision log: what it keeps, who can change it unseen (nobody), what is forgotten and what is not."""

from __future__ import annotations

import hmac
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from optimove_conditional_execution import ConfigurationError, StoreError, WebhookNotification
from optimove_conditional_execution.flows.subject import subject_of
from optimove_conditional_execution.stores import (
    ChainFault,
    SqliteDecisionLog,
    Subject,
)
from tests.conftest import let_go, start_together
from tests.stores.decision_log_suite import (
    NOON,
    Change,
    DecisionLogSuite,
    completion,
    fault_of,
    record,
)


def change(path: Path, *statements: str) -> None:
    """Change the file behind the log's back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement.replace("UPDATE head SET number", "UPDATE sqlite_sequence SET seq"))


class TestInSqlite(DecisionLogSuite):
    @pytest.fixture
    def change(self, path: Path) -> Change:
        return partial(change, path)


def test_what_is_erased_is_in_no_file(log: SqliteDecisionLog, path: Path) -> None:
    subject = Subject(customer_id="Mr Grey", campaign="29")
    log.append([record(0, subject=subject)])
    log.erase("Mr Grey")
    log.append([record(1, id="later", subject=subject)])
    log.erase("Mr Grey")
    everything = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"Mr Grey" not in everything
    assert b"r-0" in everything


COLUMNS = (
    "number", "hash", "type", "size", "id", "completes", "at", "campaign", "low", "high", "entry", "customer",
    "personal", "salt", "commitment",
)  # fmt: skip


def test_a_change_of_any_column_is_found(log: SqliteDecisionLog, path: Path) -> None:
    for number in range(3):
        first = record(number)
        log.append([first, completion(first)])
    found = 0
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert [each[1] for each in connection.execute("PRAGMA table_info(decision_log)")] == list(COLUMNS)
        for entry in (3, 4):  # a decision, a completion
            row = connection.execute("SELECT * FROM decision_log WHERE number = ?", (entry,)).fetchone()
            for index, column in enumerate(COLUMNS):
                for value in ("x", 7_777_777, None, "\0", b"\0", b"\0" * 32, ""):
                    if value == row[index]:
                        continue
                    try:
                        connection.execute(f"UPDATE decision_log SET {column} = ? WHERE number = ?", (value, entry))
                    except sqlite3.IntegrityError:  # SQLite refuses it by itself
                        continue
                    assert fault_of(log) == entry, (column, value)
                    found += 1
                    connection.execute("DELETE FROM decision_log WHERE number IN (?, 7777777)", (entry,))
                    connection.execute(f"INSERT INTO decision_log VALUES ({', '.join('?' * len(row))})", row)
                    connection.execute("UPDATE sqlite_sequence SET seq = 6")
        assert log.verify() is None
    assert found > 100


def test_a_customer_is_searched_by_an_index_and_in_the_rows_of_reviews_alone(log: SqliteDecisionLog) -> None:
    condition, values = log._about("C1")
    plan = log._query(
        lambda execute: execute(f"EXPLAIN QUERY PLAN SELECT 1 FROM decision_log WHERE {condition}", values)
    )
    walks = [text for *_, text in plan if text.startswith(("SEARCH", "SCAN"))]
    assert all("decision_log_customer (customer=?)" in text or "(rowid=?)" in text for text in walks[:-1])
    assert walks[-1].endswith("USING INDEX decision_log_group")


def test_a_change_inside_an_entry_is_found(log: SqliteDecisionLog, path: Path) -> None:
    """Whatever single value of what is kept as JSON changes."""
    log.append([record(0, error="an error"), record(1)])
    with closing(sqlite3.connect(path)) as connection:
        entry, personal = connection.execute("SELECT entry, personal FROM decision_log WHERE number = 1").fetchone()
    for column, text in (("entry", entry), ("personal", personal)):
        fields = json.loads(text)
        assert len(fields) >= 3
        for name in fields:
            changed = json.dumps({**fields, name: "other"})
            change(path, f"UPDATE decision_log SET {column} = '{changed}' WHERE number = 1")
            assert log.verify() == ChainFault(1, "was changed, or moved, or replaced by another one"), name
        change(path, f"UPDATE decision_log SET {column} = '{text}' WHERE number = 1")
        assert log.verify() is None


def test_a_chain_that_is_computed_anew_does_not_fit_a_head_that_was_kept(path: Path, tmp_path: Path) -> None:
    with SqliteDecisionLog(path) as log:
        log.append([record(0), record(1)])
        head = log.head()
        log.append([record(2)])
        assert log.verify(head=head) is None
    with SqliteDecisionLog(tmp_path / "another.db") as forgery:
        forgery.append([record(0)])
        assert fault_of(forgery, head=head) == 2  # it ends too early
        forgery.append([record(1, kind="approved")])
        assert forgery.verify() is None
        assert forgery.verify(head=head) == ChainFault(2, "is not the one whose head was kept")
        for nonsense in ("", "7", "x:00", "1:xyz"):
            with pytest.raises(ConfigurationError, match="head must be"):
                forgery.verify(head=nonsense)


@pytest.mark.parametrize("secret", ["hush", b"hush", SecretStr("hush")])
def test_ids_are_kept_as_an_hmac_for_those_who_must_not_keep_them(path: Path, secret: str | bytes | SecretStr) -> None:
    with SqliteDecisionLog(path, identify=secret) as log:
        log.append([record(0, reason=None, evidence={}, request_uid="r-1")])
        (logged,) = log.decisions(customer_id="C-0")
        kept = logged.record.subject.customer_id
        assert kept == hmac.digest(b"hush", b"C-0", "sha256").hex()
        assert b"C-0" not in b"".join(file.read_bytes() for file in path.parent.iterdir())
        assert "hush" not in repr(log)
    with SqliteDecisionLog(path, identify="another") as other:
        assert not list(other.decisions(customer_id="C-0"))
        assert other.verify() is None
    with SqliteDecisionLog(path, identify=secret) as log:
        assert log.erase("C-0") == 1


def test_identify_can_be_a_function(path: Path) -> None:
    with SqliteDecisionLog(path, identify=str.lower) as log:
        log.append([record()])
        assert [logged.record.subject.customer_id for logged in log.decisions(customer_id="C-0")] == ["c-0"]
    for nonsense in ("", " ", b"", 7):
        with pytest.raises(ConfigurationError, match="identify must be a secret"):
            SqliteDecisionLog(path, identify=nonsense)  # type: ignore[arg-type]


def test_a_file_only_for_its_owner(log: SqliteDecisionLog, path: Path) -> None:
    log.append([record()])
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_was_replaced(log: SqliteDecisionLog, path: Path) -> None:
    log.append([record()])
    path.unlink()
    with pytest.raises(StoreError, match="removed or replaced"):
        log.append([record(1)])


@pytest.mark.parametrize("path", [":memory:", ""])
def test_no_log_in_memory(path: str) -> None:
    with pytest.raises(ConfigurationError, match="needs a file"):
        SqliteDecisionLog(path)


# ---- reviews: numbers of statuses, completed by ranges


# ---- payloads


BODY = '{"request_uid": "r-1", "user": {"user_id": "Mr Gr\u00e9y"}}'.encode() + b"\xff\x00"
KEY, OLD_KEY = Fernet.generate_key(), SecretStr(Fernet.generate_key().decode())


def files(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


def payloads(path: Path, **settings: Any) -> list[tuple[bytes | None, bool]]:
    with SqliteDecisionLog(path, **settings) as log:
        assert log.verify() is None
        return [(logged.record.payload, logged.sealed) for logged in log.decisions()]


def test_a_payload_is_kept_only_when_that_is_asked_for(path: Path) -> None:
    for keep in (False, True):
        with SqliteDecisionLog(path, keep_payloads=keep) as log:
            log.append([record(int(keep), payload=BODY)])
    assert payloads(path) == [(None, False), (BODY, False)]
    with SqliteDecisionLog(path) as log:
        assert ["payload" in logged.as_json() for logged in log.decisions()] == [False, False]
        assert "Mr Gr" not in repr(list(log.decisions()))


def test_a_payload_is_erased_and_the_chain_stays_verifiable(path: Path) -> None:
    with SqliteDecisionLog(path, keep_payloads=True) as log:
        log.append([record(0, payload=BODY), record(1, payload=b"[]")])
        head = log.head()
        assert b"Mr Gr" in files(path)
        assert log.erase("C-0") == 1
        assert log.verify(head=head) is None
        assert b"Mr Gr" not in files(path)
        log.prune(NOON + timedelta(minutes=1))
        assert log.verify(head=head) is None
        assert [logged.record.payload for logged in log.decisions()] == [b"[]"]
    change(path, "UPDATE decision_log SET personal = replace(personal, '[]', '{}') WHERE number = 2")
    with SqliteDecisionLog(path) as log:
        assert log.verify() == ChainFault(2, "was changed, or moved, or replaced by another one")


def test_a_payload_is_encrypted_with_a_key(path: Path) -> None:
    with SqliteDecisionLog(path, keep_payloads=True, encryption_keys=OLD_KEY) as log:
        log.append([record(0, payload=BODY)])
        assert OLD_KEY.get_secret_value() not in repr(log) + repr(vars(log))
    assert b"Mr Gr" not in files(path)
    with SqliteDecisionLog(path, keep_payloads=True, encryption_keys=[KEY, OLD_KEY]) as log:
        log.append([record(1, payload=BODY)])
        assert KEY.decode() not in repr(log) + repr(vars(log))
    assert payloads(path, encryption_keys=[KEY, OLD_KEY]) == [(BODY, False)] * 2
    assert payloads(path, encryption_keys=KEY) == [(None, True), (BODY, False)]
    assert payloads(path) == [(None, True)] * 2


def test_keys_and_settings_that_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("", "hush", b"x" * 44, [], [KEY, "hush"], 7):
        with pytest.raises(ConfigurationError, match="generate_key") as caught:
            SqliteDecisionLog(path, encryption_keys=wrong)  # type: ignore[arg-type]
        assert "hush" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="payloads hold them"):
        SqliteDecisionLog(path, identify="a secret", keep_payloads=True)
    SqliteDecisionLog(path, identify="a secret", keep_payloads=True, encryption_keys=KEY).close()
    monkeypatch.setitem(sys.modules, "cryptography.fernet", None)
    with pytest.raises(ConfigurationError, match=r"\[encryption\]"):
        SqliteDecisionLog(path, encryption_keys=KEY)


# ---- several threads and processes


def test_threads_that_wait_for_the_file_are_written_together(log: SqliteDecisionLog, path: Path) -> None:
    log.append([record(0)])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        threads = [threading.Thread(target=log.append, args=([record(number)],)) for number in range(1, 6)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 5
        while len(log._group._waiting) < 4 and time.monotonic() < end:
            time.sleep(0.01)
        waiting = len(log._group._waiting)
        other.execute("COMMIT")
    for thread in threads:
        thread.join(60)
    assert waiting == 4  # one writes, and takes those with it who come later
    assert {logged.record.request_uid for logged in log.decisions()} == {f"r-{number}" for number in range(6)}
    assert log.verify() is None


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
def test_how_far_a_record_is_flushed(tmp_path: Path, synchronous: str) -> None:
    with SqliteDecisionLog(tmp_path / "decisions.db", synchronous=synchronous) as log:  # type: ignore[arg-type]
        log.append([record(0)])
        with log._file.connection() as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (2 if synchronous == "FULL" else 1,)
        log.append([completion(record(0))])
        with log._file.connection() as connection:
            assert connection.execute("PRAGMA synchronous").fetchone() == (1,)
    with pytest.raises(ConfigurationError, match="synchronous must be"):
        SqliteDecisionLog(tmp_path / "decisions.db", synchronous="OFF")  # type: ignore[arg-type]


APPENDS = """
import sys
from datetime import UTC, datetime
from optimove_conditional_execution.stores import Completion, DecisionRecord, SqliteDecisionLog, Subject

with SqliteDecisionLog(sys.argv[1]) as log:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(sys.argv[3])):
        subject = Subject(customer_id=f"C-{sys.argv[2]}-{number}", campaign="29")
        now = datetime.now(UTC)
        record = DecisionRecord(at=now, flow="triggered", kind="approved", subject=subject, verdict="approve")
        log.append([record])
        if len(sys.argv) > 4:
            print(record.id, flush=True)
            sys.stdin.readline()
        log.append([Completion(at=now, completes=record.id, kind="approved", told="approved", taken=True)])
"""


def start(path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", APPENDS, str(path), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_processes_append_to_one_chain(log: SqliteDecisionLog, path: Path) -> None:
    processes = [start(path, str(mine), "8", "wait") for mine in range(2)]
    start_together(processes)
    for _ in range(8):  # all append at the same time, again and again
        for process in processes:
            assert process.stdout is not None
            assert len(process.stdout.readline()) == 33
        let_go(processes)
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert log.verify() is None
    found = list(log.decisions())
    assert len({logged.record.subject.customer_id for logged in found}) == 16
    assert all(logged.completion is not None and logged.completion.taken for logged in found)


def test_kill_between_a_record_and_its_completion(log: SqliteDecisionLog, path: Path) -> None:
    process = start(path, "0", "5", "wait")
    start_together([process])
    assert process.stdout is not None
    ident = process.stdout.readline().strip()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    (logged,) = log.decisions(customer_id="C-0-0")
    assert (logged.record.id, logged.record.verdict, logged.completion) == (ident, "approve", None)
    assert log.verify() is None
    log.append([record(1)])
    assert log.verify() is None


# ---- what a notification asks about


def test_the_subject_of_the_sample(sample: Callable[[str], bytes]) -> None:
    notification = WebhookNotification.from_json(sample("webhook-notification.json"))
    subject = subject_of(notification)
    assert subject.customer_id == notification.user.user_id
    assert notification.occurrence is not None
    assert subject.campaign == str(notification.occurrence.series_id)
    assert subject.occurrence == str(notification.occurrence.occurrence_id)
    assert notification.occurrence.action is not None
    assert subject.action == str(notification.occurrence.action.id)
    assert subject.channels == tuple(str(channel.id) for channel in notification.occurrence.action.channels)
    assert len(subject.promotions) == len(notification.occurrence.action.promotions) > 0


@pytest.mark.parametrize(
    "occurrence",
    [None, 7, "x", [], {"action": 7}, {"action": {"channels": 7, "promotions": {"code": 1}, "id": []}},
     {"series_id": {}, "occurrence_id": True, "action": {"channels": [7, None, {"id": None}], "promotions": [None]}}],
)  # fmt: skip
def test_the_subject_of_an_odd_notification(occurrence: object) -> None:
    body = {
        "timestamp": 1, "conditional_execution_approval_deadline": 2, "request_uid": "r", "user": {"user_id": "C"},
        "occurrence": occurrence,
    }  # fmt: skip
    subject = subject_of(WebhookNotification.from_json(json.dumps(body).encode()))
    assert subject == Subject(customer_id="C")


def test_what_is_erased_is_flushed_though_a_completion_was_not(path: Path) -> None:
    def flushed(log: SqliteDecisionLog) -> bool:
        with log._file.connection() as connection:
            return bool(connection.execute("PRAGMA synchronous").fetchone() == (2,))

    with SqliteDecisionLog(path) as log:
        log.append([record()])
        assert flushed(log)
        log.append([completion(record())])
        assert not flushed(log)  # it is flushed with the next record
        log.erase("C-0")
        assert flushed(log)
