"""Journals: what was announced, decided and taken; over threads and processes, after a fork and a crash."""

from __future__ import annotations

import contextlib
import gc
import os
import sqlite3
import subprocess
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import ConfigurationError, StoreError, SupersededError
from optimove_conditional_execution.flows.journal import entry_of
from optimove_conditional_execution.stores import (
    DecidedBatch,
    Journal,
    MemoryJournal,
    OpenReview,
    SqliteJournal,
    StatusUpdate,
)
from tests.conftest import child_status
from tests.stores.journal_suite import ANOTHER, EVENT, KEY, JournalSuite, batch, event, opened, process_with, said


class TestInMemory(JournalSuite):
    @pytest.fixture
    def journal(self) -> Journal:
        return MemoryJournal()


class TestInSqlite(JournalSuite):
    @pytest.fixture
    def journal(self, tmp_path: Path) -> Iterator[Journal]:
        with SqliteJournal(tmp_path / "journal.sqlite") as journal:
            yield journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def without_times(path: Path) -> None:
    """Make the file as earlier versions wrote it: without times, and without the updates."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        rows = connection.execute("SELECT number, batch FROM batches").fetchall()
        for number, text in rows:
            entry = entry_of(text)
            if isinstance(entry, DecidedBatch):
                connection.execute("UPDATE batches SET batch = ? WHERE number = ?", (entry.to_json(), number))
            else:
                connection.execute("DELETE FROM batches WHERE number = ?", (number,))


def test_the_file_of_an_earlier_version_is_read_and_goes_on(path: Path) -> None:
    with SqliteJournal(path) as journal:
        run = opened(journal)
        journal.record(KEY, [batch(1), DecidedBatch(released=1)], run=run)
        journal.acknowledge(KEY, [(0, 2)], run=run)
    without_times(path)
    with SqliteJournal(path) as journal:
        old = list(journal.history(KEY))
        assert old == [batch(1), DecidedBatch(released=1)]
        assert [each.at for each in old] == [None, None]
        assert journal.acknowledged(KEY) == [(0, 2)]
        journal.record(KEY, [batch(1), batch(2)])  # what it has is known by its text, with or without a time
        journal.acknowledge(KEY, [(2, 4)])
        assert list(journal.history(KEY)) == [*old, batch(2), StatusUpdate(((2, 4),))]


# ---- memory


def test_memory_keeps_the_ids_of_the_last_reviews_only() -> None:
    journal = MemoryJournal()
    events = [event(campaign) for campaign in range(1, 11)]
    for each in events:
        journal.add(each)
        journal.record(each.key, [batch(1)])
        journal.finish(each.key, "{}")
    assert [len(list(journal.batches(each.key))) for each in events] == [0, 0, *[1] * 8]
    assert {(kept.decided, kept.approved, kept.report) for kept in journal.reviews()} == {(4, 2, "{}")}
    assert journal.prune(datetime(2100, 1, 1)) == 10
    assert journal.reviews() == []


# ---- SQLite


def another_process(program: str, path: Path) -> AbstractContextManager[subprocess.Popen[str]]:
    return process_with(f"SqliteJournal({str(path)!r})", program)


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(30)


def locks(path: Path) -> list[str]:
    return [each.name for each in path.parent.glob("*.lock")]


def test_sqlite_is_shared_and_survives(path: Path) -> None:
    with SqliteJournal(path) as one, SqliteJournal(str(path)) as other:
        assert one.add(EVENT)
        assert not other.add(EVENT)
        one.record(KEY, [batch(1)])
        other.record(KEY, [batch(1), batch(2)])
        other.acknowledge(KEY, [(0, 3)])
    with SqliteJournal(path) as again:
        assert again.unfinished() == [EVENT]
        assert list(again.batches(KEY)) == [batch(1), batch(2)]
        assert again.acknowledged(KEY) == [(0, 3)]
        again.close()
        again.finish(KEY, "{}")  # opened anew
        assert again.reviews()[0].report == "{}"


def test_sqlite_objects_of_one_process_exclude_each_other(path: Path) -> None:
    with SqliteJournal(path) as one:
        with SqliteJournal(path.parent / "." / path.name) as other:
            assert one.open(EVENT)
            for _ in range(3):
                assert not other.open(EVENT)
            other.unlock(KEY)
            assert not other.open(EVENT)
            with another_process("say(journal.open(EVENT))", path) as process:
                assert said(process) == "None"  # also after `other` has opened and closed the lock's file
            one.unlock(KEY)
            assert other.open(EVENT)
        assert one.open(EVENT)  # close() has left it
        assert len(locks(path)) == 1
    assert locks(path) == []


def test_a_relative_path_means_the_same_file_later(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with SqliteJournal("journal.sqlite") as one, SqliteJournal(path) as other:
        (path.parent / "elsewhere").mkdir()
        monkeypatch.chdir(path.parent / "elsewhere")
        one.close()
        assert one.add(EVENT)
        assert other.unfinished() == [EVENT]
        assert one.open(EVENT)
        assert not other.open(EVENT)


def test_a_killed_process_holds_nothing(path: Path) -> None:
    program = """
        journal.add(EVENT)
        assert journal.open(EVENT)
        journal.record(KEY, [DecidedBatch(("a",), ())])
        say("taken")
        time.sleep(60)
        """
    with another_process(program, path) as process, SqliteJournal(path) as journal:
        assert said(process) == "taken"
        assert not journal.open(EVENT)
        killed(process)
        assert journal.open(EVENT)
        assert journal.unfinished() == [EVENT]
        assert list(journal.batches(KEY)) == [DecidedBatch(("a",), ())]
        journal.unlock(KEY)
    assert locks(path) == []


def test_a_process_that_is_killed_while_it_records_leaves_whole_calls(path: Path) -> None:
    program = """
        journal.add(EVENT)
        say("ready")
        for turn in range(100_000):
            journal.record(KEY, [
                DecidedBatch(tuple(f"{turn}-{part}-{each}" for each in range(300)), ()) for part in range(3)
            ])
            say(turn)
        """
    for turns in (0, 6):
        with another_process(program, path) as process:
            assert said(process) == "ready"
            for turn in range(turns):
                assert said(process) == str(turn)
            killed(process)
        with SqliteJournal(path) as journal:
            stored = list(journal.batches(KEY))
            assert len(stored) >= 3 * turns
            assert len(stored) % 3 == 0
            assert {len(each.approved) for each in stored} <= {300}
            wanted = [f"{turn}-{part}-0" for turn in range(len(stored) // 3) for part in range(3)]
            assert [each.approved[0] for each in stored] == wanted
            assert journal.reviews()[0].approved == 300 * len(stored)
        for each in path.parent.iterdir():
            each.unlink()


def test_nobody_shares_a_review_however_often_it_changes_hands(path: Path) -> None:
    program = f"""
        import threading
        marker = {str(path.with_name("marker"))!r}
        won, shared = [], []
        def work():
            with SqliteJournal({str(path)!r}) as mine:
                for _ in range(100):
                    if mine.open(EVENT):
                        try:
                            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
                        except FileExistsError:
                            shared.append(1)
                        else:
                            os.unlink(marker)
                        won.append(1)
                        mine.unlock(KEY)
        say("ready")
        sys.stdin.readline()
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        say(f"{{len(won)}} {{len(shared)}}")
        """
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(another_process(program, path)) for _ in range(3)]
        assert [said(process) for process in processes] == ["ready"] * 3
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        told = [said(process).split() for process in processes]
    assert sum(int(won) for won, _ in told) > 0
    assert [shared for _, shared in told] == ["0"] * 3
    assert locks(path) == []


def test_a_forked_child_has_not_what_its_parent_took(path: Path) -> None:
    with SqliteJournal(path) as journal:
        journal.add(EVENT)
        assert journal.open(EVENT)

        def has_only_its_own() -> bool:
            refused = not journal.open(EVENT)
            journal.unlock(KEY)
            still = not journal.open(EVENT)
            own = journal.open(ANOTHER)
            journal.record(KEY, [batch(1)])
            return refused and still and bool(own)

        assert child_status(has_only_its_own) == 0
        assert list(journal.batches(KEY)) == [batch(1)]
        assert journal.open(ANOTHER)  # the child's, which is dead
        with another_process("say(journal.open(EVENT))", path) as process:
            assert said(process) == "None"
        journal.unlock(KEY)
        with another_process("say(journal.open(EVENT) is not None)", path) as process:
            assert said(process) == "True"


@pytest.mark.parametrize("looked_before", [True, False])
def test_a_forked_child_takes_over_from_its_dead_parent(path: Path, looked_before: bool) -> None:
    program = f"""
        assert journal.open(EVENT)
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(writer)
            if {looked_before}:
                say(journal.open(EVENT))
            else:
                say("None")
            os.read(reader, 1)  # until the parent is dead
            say(journal.open(EVENT) is not None)
            os._exit(0)
        time.sleep(60)
        """
    with another_process(program, path) as process:
        assert said(process) == "None"
        killed(process)
        assert said(process) == "True"


def test_a_fork_while_the_journal_is_in_use(path: Path) -> None:
    with SqliteJournal(path) as journal:
        journal.add(EVENT)
        with journal._file.connection():

            def records() -> bool:
                journal.record(KEY, [batch(1)])
                return list(journal.batches(KEY)) == [batch(1)]

            assert child_status(records) == 0
        assert list(journal.batches(KEY)) == [batch(1)]


def test_only_the_owner_can_read_the_files(path: Path) -> None:
    before = os.umask(0)
    try:
        with SqliteJournal(path) as journal:
            journal.add(EVENT)
            files = {each.name: each.stat().st_mode & 0o777 for each in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert files == {path.name: 0o600, f"{path.name}-wal": 0o600, f"{path.name}-shm": 0o600}


def test_the_mode_of_a_file_that_exists_is_its_owners_choice(path: Path) -> None:
    path.touch()
    path.chmod(0o640)
    with SqliteJournal(path) as journal:
        journal.add(EVENT)
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_is_forgotten_is_not_left_in_the_file(path: Path) -> None:
    with SqliteJournal(path) as journal:
        journal.add(EVENT)
        journal.record(KEY, [DecidedBatch(tuple(f"customer-{each}" for each in range(5_000)), ())])
        journal.finish(KEY, "{}")
    assert b"customer-4999" in path.read_bytes()
    with SqliteJournal(path) as journal:
        assert journal.prune(datetime(2100, 1, 1)) == 1
    assert b"customer-" not in path.read_bytes()


def test_reading_takes_flat_memory(path: Path) -> None:
    with SqliteJournal(path) as journal:
        journal.add(EVENT)
        journal.record(KEY, [batch(number, 1_000) for number in range(300)])
        tracemalloc.start()
        try:
            approved = sum(len(each.approved) for each in journal.batches(KEY))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert approved == 150_000
    assert peak < 2_000_000


def test_a_failed_call_leaves_nothing(path: Path) -> None:
    class Broken(list[DecidedBatch]):
        def __iter__(self) -> Iterator[DecidedBatch]:
            yield batch(2)
            raise RuntimeError("in the middle")

    with SqliteJournal(path) as journal:
        journal.add(EVENT)
        journal.record(KEY, [batch(1)])
        with pytest.raises(RuntimeError, match="middle"):
            journal.record(KEY, Broken())
        assert list(journal.batches(KEY)) == [batch(1)]
        assert journal.reviews()[0].decided == 4


def test_what_is_no_database_is_said_at_once(tmp_path: Path) -> None:
    broken = tmp_path / "text.sqlite"
    broken.write_text("this is no database, however long it may be " * 50)
    with pytest.raises(sqlite3.DatabaseError) as raised:
        SqliteJournal(broken)
    assert "however" not in str(raised.value)
    with pytest.raises(sqlite3.OperationalError):
        SqliteJournal(tmp_path / "no-such-folder" / "journal.sqlite")
    for path in (":memory:", ""):  # SQLite keeps an empty path in a file that it deletes
        with pytest.raises(ConfigurationError, match="MemoryJournal"):
            SqliteJournal(path)


def test_a_lock_that_cannot_be_made_is_an_error(path: Path) -> None:
    with SqliteJournal(path) as journal:
        assert journal.open(EVENT)
        (lock,) = locks(path)
        journal.unlock(KEY)
        (path.parent / lock).mkdir()
        with pytest.raises(sqlite3.OperationalError):
            journal.open(EVENT)


def test_a_lock_cannot_change_hands_while_it_is_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SqliteJournal(path) as first, SqliteJournal(path) as second, SqliteJournal(path) as late:
        assert first.open(EVENT)
        really = sqlite3.connect
        took: list[OpenReview | None] = []

        def change_hands() -> None:
            first.unlock(KEY)
            took.append(second.open(EVENT))

        changing = threading.Thread(target=change_hands)

        def connect(*args: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = really(*args, **options)
            monkeypatch.undo()
            changing.start()  # would remove the file that `late` has opened
            changing.join(0.2)
            assert changing.is_alive()
            return connection

        monkeypatch.setattr(sqlite3, "connect", connect)
        assert not late.open(EVENT)
        changing.join()
        assert took == [OpenReview(2)]
        second.unlock(KEY)
        assert late.open(EVENT)


# ---- locks and files that are removed


def test_the_lock_of_a_run_is_removed(path: Path) -> None:
    with SqliteJournal(path) as one, SqliteJournal(path) as other, SqliteJournal(path) as third:
        one.add(EVENT)
        first = opened(one)
        for lock in locks(path):
            (path.parent / lock).unlink()
        assert one.open(EVENT) is None  # it knows that it is at it
        second = opened(other)
        with pytest.raises(SupersededError):
            one.record(KEY, [batch(1)], run=first)
        one.unlock(KEY)
        assert len(locks(path)) == 1  # the other's
        assert third.open(EVENT) is None
        other.record(KEY, [batch(1)], run=second)


def test_processes_that_lose_their_lock_are_superseded(path: Path) -> None:
    program = """
        journal.add(EVENT)
        run = journal.open(EVENT).run
        journal.record(KEY, [DecidedBatch(("a",), ())], run=run)
        say("taken")
        sys.stdin.readline()
        try:
            journal.record(KEY, [DecidedBatch(("b",), ())], run=run)
        except Exception as error:
            say(type(error).__name__)
        """
    with another_process(program, path) as process, SqliteJournal(path) as journal:
        assert said(process) == "taken"
        for lock in locks(path):
            (path.parent / lock).unlink()
        opened(journal)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert said(process) == "SupersededError"
        assert list(journal.batches(KEY)) == [DecidedBatch(("a",), ())]


EARLIER_TABLES = """
CREATE TABLE reviews (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, event TEXT NOT NULL, clearance TEXT NOT NULL,
    decided INTEGER NOT NULL DEFAULT 0, approved INTEGER NOT NULL DEFAULT 0, report TEXT
);
CREATE TABLE batches (
    number INTEGER PRIMARY KEY, review INTEGER NOT NULL, digest BLOB NOT NULL, approved TEXT NOT NULL,
    denied TEXT NOT NULL, UNIQUE (review, digest)
);
CREATE INDEX batches_review ON batches (review);
CREATE TABLE acknowledged (
    review INTEGER NOT NULL, low INTEGER NOT NULL, high INTEGER NOT NULL, PRIMARY KEY (review, low)
) WITHOUT ROWID;
"""


def test_a_file_of_an_earlier_version_is_refused_and_kept(path: Path) -> None:
    old = sqlite3.connect(path)
    old.execute("PRAGMA journal_mode = WAL")
    old.executescript(EARLIER_TABLES)
    old.execute(
        "INSERT INTO reviews VALUES (1, ?, ?, ?, 2, 1, NULL)",
        (KEY, EVENT.model_dump_json(by_alias=True), EVENT.clearance_required_by.isoformat()),
    )
    old.execute("INSERT INTO batches VALUES (1, 1, x'00', '[\"a\"]', '[\"b\"]')")
    old.commit()
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"written by an earlier version.*use another file"):
            SqliteJournal(path)
    assert old.execute("SELECT approved, denied FROM batches").fetchall() == [('["a"]', '["b"]')]
    assert old.execute("SELECT key, decided, approved FROM reviews").fetchall() == [(KEY, 2, 1)]
    old.close()


def test_a_journal_that_is_collected_closes_the_locks_that_it_holds(path: Path) -> None:
    journal = SqliteJournal(path)
    journal.add(EVENT)
    opened(journal)
    cycle: list[object] = [journal]
    cycle.append(cycle)
    del journal, cycle
    gc.collect()  # a connection that is not closed warns, and fails the test
    with SqliteJournal(path) as another:
        opened(another)


def test_a_journal_whose_file_is_replaced_refuses_everything(path: Path) -> None:
    with SqliteJournal(path) as journal:
        journal.add(EVENT)
        run = opened(journal)
        journal.record(KEY, [batch(1)], run=run)
        path.rename(path.with_name("rotated"))
        uses: list[Callable[[], object]] = [
            lambda: journal.add(event(8)),
            lambda: journal.open(ANOTHER),
            lambda: journal.record(KEY, [batch(2)], run=run),
            lambda: list(journal.batches(KEY)),
            lambda: journal.acknowledge(KEY, [(0, 1)], run=run),
            lambda: journal.acknowledged(KEY),
            lambda: journal.finish(KEY, "{}", run=run),
            lambda: journal.keep_report(KEY, "{}", run=run),
            journal.unfinished,
            journal.reviews,
            lambda: journal.prune(datetime(2100, 1, 1)),
        ]
        for use in uses:
            with pytest.raises(StoreError, match="restart all processes"):
                use()
        assert not path.exists()
