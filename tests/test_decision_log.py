"""The log of decisions: what it keeps, who can change it unseen (nobody), what is forgotten and what is not."""

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
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from optimove_conditional_execution import ConfigurationError, PayloadError, StoreError, WebhookNotification
from optimove_conditional_execution.flows.decision_log import subject_of
from optimove_conditional_execution.flows.journal import FIRST_DENIAL
from optimove_conditional_execution.stores import (
    ChainFault,
    Completion,
    DecisionLog,
    DecisionRecord,
    SqliteDecisionLog,
    Subject,
    hash_chain,
)
from tests.conftest import forked

NOON = datetime(2026, 3, 3, 12, tzinfo=UTC)
EVENT = "5:77:2026-03-03T12:00:00:2026-03-03T13:00:00"


def record(number: int = 0, **fields: object) -> DecisionRecord:
    given: dict[str, object] = {
        "at": NOON + timedelta(minutes=number),
        "flow": "triggered",
        "kind": "denied",
        "subject": Subject(
            customer_id=f"C-{number}",
            campaign="29",
            occurrence="19",
            action="2",
            channels=("15", "490"),
            promotions=("BONUS",),
        ),
        "request_uid": f"r-{number}",
        "verdict": "deny",
        "reason": f"excluded: {number}",
        "evidence": {"rule": "no self-excluded players", "version": 4, "register": {"reference": "R/7", "hit": True}},
        "additional_data": {"decision": number},
        "error": None,
        "seconds": {"decide": 0.25},
        **fields,
    }
    return DecisionRecord(**given)  # type: ignore[arg-type]


def completion(of: DecisionRecord, **fields: object) -> Completion:
    given: dict[str, object] = {
        "at": of.at + timedelta(seconds=1),
        "completes": of.id,
        "kind": of.kind,
        "told": "denied",
        "taken": True,
        "seconds": {"deliver": 0.5},
        **fields,
    }
    return Completion(**given)  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "decisions.db"


@pytest.fixture
def log(path: Path) -> Iterator[SqliteDecisionLog]:
    with SqliteDecisionLog(path) as log:
        yield log


def change(path: Path, *statements: str) -> None:
    """Change the file behind the log's back."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def fault_of(log: SqliteDecisionLog, *, head: str | None = None) -> int | None:
    fault = log.verify(head=head)
    return None if fault is None else fault.entry


def test_the_protocol(log: SqliteDecisionLog) -> None:
    assert isinstance(log, DecisionLog)


def test_a_decision_comes_back_as_it_was_recorded(log: SqliteDecisionLog) -> None:
    first = record()
    log.append([first])
    (logged,) = log.decisions()
    assert (logged.record, logged.completion, logged.erased) == (first, None, False)
    done = completion(first, kind="undelivered", taken=False, error="Optimove did not take the answer: TransportError")
    log.append([done])
    (logged,) = log.decisions()
    assert (logged.record, logged.completion) == (first, done)
    assert log.verify() is None


def test_a_request_about_which_nobody_was_asked(log: SqliteDecisionLog) -> None:
    forged = DecisionRecord(at=NOON, flow="triggered", kind="forged", error="The signature is wrong.")
    log.append([forged])
    (logged,) = log.decisions()
    assert (logged.record, logged.erased) == (forged, False)
    assert log.verify() is None


@pytest.mark.parametrize("text", ["\0", "\ud800", '"\\u0041"', "\n", "ü\U0001f600", "", "\\ud800", "\x00\x00"])
def test_any_text_can_be_kept(log: SqliteDecisionLog, text: str) -> None:
    first = record(
        id=f"id{text}", subject=Subject(customer_id=text, campaign=text), reason=text, evidence={text: text}, error=text
    )
    log.append([first, completion(first, error=text)])
    (logged,) = log.decisions(customer_id=text, campaign=text)
    assert logged.record == replace(first, error=text or None)
    assert logged.completion is not None
    assert log.verify() is None
    assert log.erase(text) == 1
    assert not list(log.decisions(customer_id=text))


def test_a_record_that_is_appended_again_is_not_doubled(log: SqliteDecisionLog) -> None:
    records = [record(number) for number in range(5)]
    log.append(records[:3])
    log.append(records)
    log.append(records)
    assert [logged.record for logged in log.decisions()] == records
    assert log.verify() is None


def test_a_batch_of_which_the_log_holds_a_part(log: SqliteDecisionLog) -> None:
    """As when a reply was lost; more than one statement inserts, and the same record twice in one batch."""
    records = [record(number, id=f"{number:03}") for number in range(200)]
    log.append([*records[10:20], records[150]])
    log.append([*records, records[150], records[3]])
    held = [*range(10, 20), 150]
    expected = [*held, *(number for number in range(200) if number not in held)]
    assert [(each.entry, int(each.record.id)) for each in log.decisions()] == list(enumerate(expected, 1))
    assert log.verify() is None


def test_what_records_of_a_batch_have_in_common_is_written_as_for_each_alone(log: SqliteDecisionLog) -> None:
    """Equal values need not be the same JSON; whoever calls `append` may have passed any."""
    values: list[dict[str, object]] = [
        {"error": True, "seconds": {}},
        {"error": 1, "seconds": {}},
        {"error": 1.0, "seconds": {}},
        {"error": 1, "seconds": {"decide": 1}},
        {"error": 1, "seconds": {"decide": True}},
        {"error": None, "reason": None, "evidence": {}, "additional_data": {}, "subject": Subject()},
    ]
    records = [record(number, request_uid="r", **given) for number, given in enumerate(values * 3)]
    together = hash_chain.contents_of(records, None)
    for each, content in zip(records, together, strict=True):
        alone = hash_chain.of_record(each, None, content.salt or b"")
        assert content == alone
    assert len({content.entry for content in together}) == len(values)
    log.append(records)
    assert log.verify() is None


def test_questions(log: SqliteDecisionLog) -> None:
    log.append([record(number, subject=Subject(customer_id=f"C{number % 2}", campaign="29")) for number in range(4)])
    log.append([record(9, subject=Subject(customer_id="C1", campaign="30"))])

    def uids(**asked: object) -> list[str | None]:
        return [logged.record.request_uid for logged in log.decisions(**asked)]  # type: ignore[arg-type]

    assert uids(customer_id="C1") == ["r-1", "r-3", "r-9"]
    assert uids(customer_id="C1", campaign=29) == ["r-1", "r-3"]
    assert uids(campaign="30") == ["r-9"]
    assert uids(since=NOON + timedelta(minutes=3)) == ["r-3", "r-9"]
    assert uids(until=NOON + timedelta(minutes=1)) == ["r-0"]
    assert uids(customer_id="nobody") == []
    for name in ("since", "until"):
        with pytest.raises(ConfigurationError, match=f"{name} must have a zone"):
            uids(**{name: datetime(2026, 3, 3)})


def test_more_decisions_than_one_portion(log: SqliteDecisionLog) -> None:
    log.append([record(number) for number in range(1_201)])
    assert [logged.record.request_uid for logged in log.decisions()] == [f"r-{number}" for number in range(1_201)]
    assert log.verify() is None


COLUMNS = (
    "number", "type", "id", "completes", "at", "campaign", "low", "high", "entry", "commitment", "customer",
    "personal", "salt", "hash",
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
                for value in ("x", 7_777_777, None, b"\0", b"\0" * 32, ""):
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


@pytest.mark.parametrize("removed", [1, 2, 3, 5])
def test_what_is_removed_is_found(log: SqliteDecisionLog, path: Path, removed: int) -> None:
    log.append([record(number) for number in range(5)])
    change(path, f"DELETE FROM decision_log WHERE number = {removed}")
    assert log.verify() == ChainFault(removed, "was removed")
    log.append([record(9)])
    assert log.verify() == ChainFault(removed, "was removed")


def test_what_is_removed_and_closed_up_is_found(log: SqliteDecisionLog, path: Path) -> None:
    log.append([record(number) for number in range(4)])
    change(
        path,
        "DELETE FROM decision_log WHERE number = 2",
        "UPDATE decision_log SET number = number - 1 WHERE number > 2",
        "UPDATE sqlite_sequence SET seq = 3 WHERE name = 'decision_log'",
    )
    assert fault_of(log) == 2


def test_what_is_reordered_is_found(log: SqliteDecisionLog, path: Path) -> None:
    log.append([record(number) for number in range(5)])
    change(
        path,
        "UPDATE decision_log SET number = 99 WHERE number = 2",
        "UPDATE decision_log SET number = 2 WHERE number = 3",
        "UPDATE decision_log SET number = 3 WHERE number = 99",
        "UPDATE sqlite_sequence SET seq = 5 WHERE name = 'decision_log'",
    )
    assert fault_of(log) == 2


def test_a_log_without_any_entry_that_had_some(log: SqliteDecisionLog, path: Path) -> None:
    log.append([record()])
    change(path, "DELETE FROM decision_log")
    assert log.verify() == ChainFault(1, "was removed")


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


def test_prune_keeps_the_chain(log: SqliteDecisionLog, path: Path) -> None:
    records = [record(number) for number in range(10)]
    for each in records:
        log.append([each, completion(each)])
    old = log.head()
    assert log.prune(NOON) == 0
    assert log.prune(NOON + timedelta(minutes=4)) == 4
    assert [logged.record for logged in log.decisions()] == records[4:]
    assert log.verify() is None
    assert log.verify(head=old) is None
    log.append([record(11)])
    assert log.prune(NOON + timedelta(minutes=6)) == 2
    assert log.verify() is None
    with pytest.raises(ConfigurationError, match="was pruned: the log begins with 13"):
        log.verify(head=f"3:{'0' * 64}")
    change(path, "DELETE FROM decision_log WHERE number = 13")
    assert fault_of(log) == 13
    with pytest.raises(ConfigurationError, match="before must have a zone"):
        log.prune(datetime(2026, 3, 3))


def test_a_log_that_is_pruned_to_the_end(log: SqliteDecisionLog, path: Path) -> None:
    log.append([record(number) for number in range(3)])
    assert log.prune(datetime.now(UTC) + timedelta(days=365)) == 3
    assert (list(log.decisions()), log.verify()) == ([], None)
    log.append([record(4)])
    assert log.verify() is None
    change(path, "DELETE FROM decision_log WHERE type = 'pruning'")
    assert log.verify() is not None


def test_what_was_removed_cannot_be_passed_off_as_pruned(log: SqliteDecisionLog, path: Path) -> None:
    log.append([record(number) for number in range(5)])
    log.prune(NOON + timedelta(minutes=1))
    change(
        path,
        "DELETE FROM decision_log WHERE number = 2",
        "UPDATE decision_log SET entry = replace(entry, '\"through\":1', '\"through\":2') WHERE type = 'pruning'",
    )
    assert fault_of(log) == 3


def test_erase_keeps_that_a_suppression_happened(log: SqliteDecisionLog, path: Path) -> None:
    mine = [record(number, subject=Subject(customer_id="Mr Grey", campaign="29")) for number in range(2)]
    log.append([mine[0], record(5), completion(mine[0]), mine[1]])
    assert log.erase("nobody") == 0
    assert log.erase("Mr Grey") == 2
    assert log.erase("Mr Grey") == 0
    assert log.verify() is None
    assert not list(log.decisions(customer_id="Mr Grey"))
    kept = [logged for logged in log.decisions() if logged.erased]
    assert [logged.entry for logged in kept] == [1, 4]
    first = kept[0]
    assert (first.record.verdict, first.record.kind, first.record.subject.campaign) == ("deny", "denied", "29")
    assert (first.record.subject.customer_id, first.record.reason) == (None, None)
    assert (first.record.evidence, first.record.additional_data) == ({}, {})
    assert first.completion is not None
    log.append([replace(mine[0], id="later")])
    assert len(list(log.decisions(customer_id="Mr Grey"))) == 1
    log.erase("Mr Grey")
    everything = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"Mr Grey" not in everything
    assert b"r-0" in everything


def test_who_blanks_a_customer_without_erase_is_found(log: SqliteDecisionLog, path: Path) -> None:
    log.append([record(number) for number in range(4)])
    log.erase("C-1")
    change(path, "UPDATE decision_log SET customer = NULL, personal = NULL, salt = NULL WHERE number = 3")
    assert log.verify() == ChainFault(3, "has lost its personal part, and no erasure says so")


def test_an_erasure_that_was_pruned_with_what_it_erased(log: SqliteDecisionLog) -> None:
    log.append([record(number) for number in range(3)])
    log.erase("C-0")
    log.append([record(4, at=datetime.now(UTC) + timedelta(hours=1))])
    assert log.prune(datetime.now(UTC) + timedelta(minutes=1)) == 3
    assert log.verify() is None


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


def test_what_cannot_be_kept_is_refused_and_nothing_is_written(log: SqliteDecisionLog) -> None:
    log.append([record()])
    head = log.head()
    for bad in ({"at": object}, {"at": float("nan")}):
        with pytest.raises(PayloadError, match="cannot be written as JSON") as error:
            log.append([record(1), record(2, evidence=bad)])
        assert "C-2" not in str(error.value)
    with pytest.raises(ConfigurationError, match="must have a zone"):
        log.append([record(1), record(2, at=datetime(2026, 3, 3))])
    assert log.head() == head


def test_nothing_personal_is_in_a_repr(log: SqliteDecisionLog) -> None:
    log.append([record()])
    (logged,) = log.decisions()
    shown = repr(logged) + repr(log) + repr(record())
    for hidden in ("C-0", "excluded", "R/7", "'decision'"):
        assert hidden not in shown


def test_a_file_only_for_its_owner(log: SqliteDecisionLog, path: Path) -> None:
    log.append([record()])
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_was_replaced(log: SqliteDecisionLog, path: Path) -> None:
    log.append([record()])
    path.unlink()
    with pytest.raises(StoreError, match="removed or replaced"):
        log.append([record(1)])


def test_no_log_in_memory() -> None:
    with pytest.raises(ConfigurationError, match="needs a file"):
        SqliteDecisionLog(":memory:")


# ---- reviews: numbers of statuses, completed by ranges


def reviewed(number: int, customer: str, at: int = 0) -> DecisionRecord:
    verdict = "deny" if number >= FIRST_DENIAL else "approve"
    return DecisionRecord(
        id=f"{EVENT}/{at}/{customer}",
        at=NOON + timedelta(minutes=at),
        flow="scheduled",
        kind="denied" if verdict == "deny" else "approved",
        subject=Subject(customer_id=customer, campaign="77"),
        event_key=EVENT,
        number=number,
        verdict=verdict,  # type: ignore[arg-type]
    )


def of_range(start: int, end: int, kind: str = "acknowledged", *, taken: bool | None = True) -> Completion:
    return Completion(at=NOON, completes=EVENT, numbers=(start, end), kind=kind, taken=taken)


def kinds(log: SqliteDecisionLog) -> dict[str | None, str | None]:
    return {
        logged.record.subject.customer_id: None if logged.completion is None else logged.completion.kind
        for logged in log.decisions()
    }


def test_a_batch_is_completed_by_ranges(log: SqliteDecisionLog) -> None:
    log.append([reviewed(0, "A"), reviewed(1, "B"), reviewed(2, "C"), reviewed(FIRST_DENIAL, "D")])
    log.append([of_range(0, 2)])
    assert kinds(log) == {"A": "acknowledged", "B": "acknowledged", "C": None, "D": None}
    log.append([of_range(2, 3, "undelivered", taken=False)])
    log.append([of_range(FIRST_DENIAL, FIRST_DENIAL + 1)])
    assert kinds(log)["C"] == "undelivered"
    log.append([of_range(0, 3)])  # a second attempt
    assert kinds(log) == dict.fromkeys("ABCD", "acknowledged")
    log.append([of_range(0, 3, "undelivered", taken=False)])  # and a third, which changes nothing
    assert kinds(log) == dict.fromkeys("ABCD", "acknowledged")
    assert log.verify() is None


def test_what_a_crash_kept_out_of_the_journal_is_never_completed(log: SqliteDecisionLog) -> None:
    log.append([reviewed(0, "A"), reviewed(1, "B")])
    # The journal has A alone when the next run begins; then B is denied, and C has its number.
    log.append([of_range(1, FIRST_DENIAL, "discarded", taken=None), of_range(FIRST_DENIAL, 2**63 - 1, "discarded")])
    log.append([reviewed(FIRST_DENIAL, "B2", at=1), reviewed(1, "C", at=1)])
    log.append([of_range(0, 2), of_range(FIRST_DENIAL, FIRST_DENIAL + 1)])
    assert kinds(log) == {"A": "acknowledged", "B": "discarded", "B2": "acknowledged", "C": "acknowledged"}


def test_a_campaign_is_read_in_flat_memory(log: SqliteDecisionLog) -> None:
    log.append([reviewed(number, f"C{number}") for number in range(2_000)])
    log.append([of_range(0, 2_000)])

    def peak(read: Callable[[], object]) -> int:
        tracemalloc.start()
        try:
            read()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    at_once = peak(lambda: list(log.decisions()))
    assert peak(lambda: all(logged.completion for logged in log.decisions())) < at_once / 1.5
    assert peak(log.verify) < at_once / 1.5


# ---- several threads and processes


def test_threads_append_to_one_chain(log: SqliteDecisionLog) -> None:
    def work(mine: int) -> None:
        for number in range(20):
            log.append([record(mine * 100 + number)])

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert log.verify() is None
    assert len({logged.record.request_uid for logged in log.decisions()}) == 80


def test_threads_that_wait_for_the_file_are_written_together(log: SqliteDecisionLog, path: Path) -> None:
    log.append([record(0)])
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        threads = [threading.Thread(target=log.append, args=([record(number)],)) for number in range(1, 6)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 5
        while len(log._waiting) < 4 and time.monotonic() < end:
            time.sleep(0.01)
        waiting = len(log._waiting)
        other.execute("COMMIT")
    for thread in threads:
        thread.join(60)
    assert waiting == 4  # one writes, and takes those with it who come later
    assert {logged.record.request_uid for logged in log.decisions()} == {f"r-{number}" for number in range(6)}
    assert log.verify() is None


def test_an_entry_that_cannot_be_written_fails_no_other(log: SqliteDecisionLog) -> None:
    for number in (-1, 2**63, True, 1.5):
        with pytest.raises(PayloadError, match="number of a status"):
            log.append([replace(record(1), number=number)])  # type: ignore[arg-type]
        with pytest.raises(PayloadError, match="number of a status"):
            log.append([Completion(at=NOON, completes=EVENT, numbers=(0, number), kind="x")])  # type: ignore[arg-type]
    assert not list(log.decisions())


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


def go(processes: Sequence[subprocess.Popen[str]]) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def test_processes_append_to_one_chain(log: SqliteDecisionLog, path: Path) -> None:
    processes = [start(path, str(mine), "8", "wait") for mine in range(2)]
    go(processes)
    for _ in range(8):  # all append at the same time, again and again
        for process in processes:
            assert process.stdout is not None
            assert len(process.stdout.readline()) == 33
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert log.verify() is None
    found = list(log.decisions())
    assert len({logged.record.subject.customer_id for logged in found}) == 16
    assert all(logged.completion is not None and logged.completion.taken for logged in found)


def test_kill_between_a_record_and_its_completion(log: SqliteDecisionLog, path: Path) -> None:
    process = start(path, "0", "5", "wait")
    go([process])
    assert process.stdout is not None
    ident = process.stdout.readline().strip()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    (logged,) = log.decisions(customer_id="C-0-0")
    assert (logged.record.id, logged.record.verdict, logged.completion) == (ident, "approve", None)
    assert log.verify() is None
    log.append([record(1)])
    assert log.verify() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_appends_too(log: SqliteDecisionLog) -> None:
    log.append([record(0)])
    child = forked()
    if child == 0:
        try:
            log.append([record(1)])
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    log.append([record(2)])
    assert len(list(log.decisions())) == 3
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
