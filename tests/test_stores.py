"""Claims in memory and in SQLite: their bounds, over processes, after a fork, and questions.

What every store does is in `tests.stores.claim_suite`.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import (
    Approval,
    ConfigurationError,
    OptimoveError,
    StoreError,
    WebhookNotification,
    WebhookReceiver,
    fork,
)
from optimove_conditional_execution.flows.claims import Questions, question_of
from optimove_conditional_execution.stores import Claim, ClaimState, MemoryClaims, SqliteClaims
from optimove_conditional_execution.testing import FakeOptimove, notification
from tests.conftest import child_status, start_together

APPROVAL = Approval(timestamp=5, request_uid="r-1", approved=True, additional_data={"bonus": [7, None, "ü"]})


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def acquired(store: MemoryClaims | SqliteClaims, question: str, owner: str = "a", seconds: float = 60.0) -> bool:
    """Acquire a claim with a lease that lasts as long as the claim is kept; return whether it is the owner's."""
    return store.acquire(question, owner, seconds, seconds).mine


# ---- memory


def test_memory_is_never_unbounded(clock: Clock) -> None:
    store = MemoryClaims(capacity=100, clock=clock)
    for turn in range(100):
        assert acquired(store, f"r-{turn}", seconds=5.0)
    with pytest.raises(OptimoveError, match="full"):
        acquired(store, "one-more")
    assert not acquired(store, "r-7", "b")  # what is known stays known
    clock.now += 6
    assert acquired(store, "one-more")
    assert len(store) == 1
    with pytest.raises(ConfigurationError):
        MemoryClaims(capacity=0)


def test_memory_forgets_the_expiry_of_what_was_released(clock: Clock) -> None:
    store = MemoryClaims(clock=clock)
    for turn in range(10_000):
        acquired(store, f"r-{turn}", seconds=1e9)
        store.release(f"r-{turn}", "a")
    assert len(store) == 0
    assert len(store._expiries) < 100
    acquired(store, "r-1")
    for _ in range(1_000):
        clock.now += 1
        store.renew("r-1", "a", 60.0, 60.0)
    assert len(store._expiries) < 100
    clock.now += 61
    assert len(store) == 0


def test_a_full_store_answers_503() -> None:
    optimove = FakeOptimove()
    claims = MemoryClaims(capacity=1)
    receiver = WebhookReceiver(
        lambda notification, deadline: True, client=optimove.client(), secrets=optimove.secrets, claims=claims
    )
    assert optimove.notify(receiver).responses[0].status == 200
    refused = optimove.notify(receiver)
    assert refused.responses[0].status == 503
    assert not refused.approved


# ---- SQLite


def test_sqlite_is_shared_and_survives(tmp_path: Path) -> None:
    path = tmp_path / "claims.sqlite"
    with SqliteClaims(path) as one, SqliteClaims(str(path)) as other:
        assert acquired(one, "r-1")
        assert not acquired(other, "r-1", "b")
        other.update("r-1", "a", Claim(ClaimState.UNDELIVERED, APPROVAL), 60.0, 60.0)
    with SqliteClaims(path) as again:
        assert again.acquire("r-1", "a", 60.0, 60.0).approval == APPROVAL
        again.close()
        assert again.acquire("r-1", "b", 60.0, 60.0).state is ClaimState.UNDELIVERED  # opened anew


@pytest.mark.parametrize("path", [":memory:", ""])
def test_no_claims_that_no_other_process_sees(path: str) -> None:
    with pytest.raises(ConfigurationError, match="needs a file"):
        SqliteClaims(path)


@pytest.mark.parametrize("step", [3_600.0, -3_600.0])
def test_a_wall_clock_that_is_set_forgets_no_claim_before_its_time(tmp_path: Path, step: float) -> None:
    wall, monotonic = Clock(), Clock()
    monotonic.now = 5.0
    path = tmp_path / "claims.sqlite"
    stores = [SqliteClaims(path, wall_clock=wall, monotonic=monotonic) for _ in range(2)]
    assert acquired(stores[0], "u-1", seconds=5.0)
    wall.now += step
    assert not acquired(stores[1], "u-1", "b")  # neither its lease nor its time has run out
    assert acquired(stores[1], "u-2", seconds=5.0)  # and none that is made after it
    wall.now += 4.0
    monotonic.now += 4.0
    for number, store in enumerate(stores):
        assert not acquired(store, "u-2", f"c-{number}", seconds=1.0)
    wall.now += 1.5
    monotonic.now += 1.5
    for question, store in zip(("u-2", "u-3"), stores, strict=True):
        store.renew("u-3", "a", 1.0, 60.0)
        wall.now += 1.5
        monotonic.now += 1.5
        assert acquired(store, question, "d")  # leases that begin after the step run out in time
        store.close()


def test_sqlite_forgets_what_has_expired(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "claims.sqlite"
    with SqliteClaims(path, wall_clock=clock, monotonic=clock) as store:
        for turn in range(50):
            acquired(store, f"r-{turn}", seconds=5.0)
        clock.now += 6
        acquired(store, "later")
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM leased_claims").fetchone() == (1,)
    connection.close()


def test_sqlite_takes_over_what_an_earlier_version_has_left(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "claims.sqlite"
    with closing(sqlite3.connect(path)) as old, old:
        old.execute(
            "CREATE TABLE claims (request_uid TEXT PRIMARY KEY, expires REAL NOT NULL, state TEXT NOT NULL, "
            "approval TEXT) WITHOUT ROWID"
        )
        approval = APPROVAL.model_dump_json(by_alias=True)
        rows = [("open", None), ("undelivered", approval), ("settled", None)]
        old.executemany(
            "INSERT INTO claims VALUES (?, ?, ?, ?)", [(state, clock.now + 5, state, known) for state, known in rows]
        )
    for owner in ("a", "b"):
        with SqliteClaims(path, wall_clock=clock, monotonic=clock) as store:
            claims = {state: store.acquire(state, owner, 1.0, 5.0) for state, _ in rows}
        assert claims["settled"] == Claim(ClaimState.SETTLED)
        assert claims["open"].state is ClaimState.OPEN
        assert claims["undelivered"].state is ClaimState.UNDELIVERED
        assert claims["open"].mine is claims["undelivered"].mine is (owner == "a")
        assert claims["undelivered"].approval == (APPROVAL if owner == "a" else None)


def test_what_is_no_database_is_said_at_once(tmp_path: Path) -> None:
    broken = tmp_path / "text.sqlite"
    broken.write_text("this is no database, however long it may be " * 50)
    with pytest.raises(sqlite3.DatabaseError):
        SqliteClaims(broken)
    with pytest.raises(sqlite3.OperationalError):
        SqliteClaims(tmp_path / "no-such-folder" / "claims.sqlite")


RACE = """
import os, sys
from optimove_conditional_execution.stores import SqliteClaims

with SqliteClaims(sys.argv[1]) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    owner = str(os.getpid())
    print([turn for turn in range(40) if store.acquire(f"r-{turn}", owner, 60.0, 60.0).mine])
"""


def test_one_winner_among_processes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path / "claims.sqlite")]
    won: list[int] = []
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            for _ in range(3)
        ]
        start_together(processes)
        for process in processes:
            won += json.loads(process.communicate(timeout=60)[0])
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(won) == list(range(40))


def test_a_forked_child_opens_a_connection_of_its_own(tmp_path: Path) -> None:
    with SqliteClaims(tmp_path / "claims.sqlite") as store:
        acquired(store, "r-1")
        assert child_status(lambda: not acquired(store, "r-1", "b") and acquired(store, "r-2", "b")) == 0
        assert not acquired(store, "r-2")


def test_a_fork_waits_for_a_write_of_another_thread(tmp_path: Path) -> None:
    with SqliteClaims(tmp_path / "claims.sqlite") as store:
        began = threading.Event()

        def write() -> None:
            with store._file.writing():
                began.set()
                time.sleep(0.5)

        writer = threading.Thread(target=write)
        writer.start()
        assert began.wait(10)
        assert child_status(lambda: acquired(store, "r-1", "b")) == 0
        writer.join()
        assert not acquired(store, "r-1")
        assert acquired(store, "r-2")


def test_a_fork_in_a_thread_that_uses_the_file_does_not_wait_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork, "_REST_SECONDS", 3_600.0)
    with SqliteClaims(tmp_path / "claims.sqlite") as store:
        with store._file.connection():
            assert child_status(lambda: acquired(store, "r-1", "b")) == 0
        assert not acquired(store, "r-1")


def test_a_fork_within_the_wait_of_another_leaves_nothing_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a signal handler does it. Not with real forks: Python's own hooks may lock up then, those of its executors."""
    monkeypatch.setattr(fork, "_REST_SECONDS", 0.05)
    with SqliteClaims(tmp_path / "one.sqlite") as one, SqliteClaims(tmp_path / "two.sqlite") as two:
        locks = [each._file._mine().lock for each in (one, two)]
        fork._before_fork()
        assert [lock.locked() for lock in locks] == [True, True]
        fork._before_fork()
        fork._after_fork_in_parent()
        assert [lock.locked() for lock in locks] == [True, True]
        fork._after_fork_in_parent()
        assert [lock.locked() for lock in locks] == [False, False]


def test_a_fork_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork, "_REST_SECONDS", 0.05)
    with SqliteClaims(tmp_path / "claims.sqlite") as store, SqliteClaims(tmp_path / "other.sqlite") as other:
        acquired(store, "r-1")
        with store._file._mine().lock:
            assert child_status(lambda: not acquired(store, "r-1", "b") and acquired(other, "r-1", "b")) == 0
        assert not acquired(store, "r-1", "b")
        assert not acquired(other, "r-1")


def test_a_file_that_is_locked_for_a_moment(tmp_path: Path) -> None:
    path = tmp_path / "claims.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.2, other.execute, args=("COMMIT",))
    timer.start()
    with SqliteClaims(path) as store:
        assert acquired(store, "r-1")
    timer.join()
    other.close()


def test_two_replicas_decide_once(tmp_path: Path) -> None:
    optimove = FakeOptimove()
    asked: list[str] = []

    def handler(name: str) -> Callable[..., bool]:
        def decide(notification: Any, deadline: Any) -> bool:
            asked.append(name)
            return True

        return decide

    with SqliteClaims(tmp_path / "c.sqlite") as one, SqliteClaims(tmp_path / "c.sqlite") as two:
        replicas = [
            WebhookReceiver(handler(name), client=optimove.client(), secrets=optimove.secrets, claims=claims)
            for name, claims in (("one", one), ("two", two))
        ]
        for replica in replicas:
            assert optimove.notify(replica, request_uid="r-1").responses[-1].status == 200
    assert asked == ["one"]
    assert len(optimove.calls_of("send_webhook_approval")) == 1


# ---- questions


def test_a_question_is_ascii_and_names_no_customer() -> None:
    for uid in ("r-1", "\x00", "ü\u2028", "a b"):
        payload = notification("customer-5", request_uid=uid)
        asked = question_of(WebhookNotification.model_validate(payload))
        assert asked.isascii()
        assert asked.isprintable()
        assert "customer-5" not in asked


@pytest.mark.parametrize("odd", [10**5_000, [10**5_000], {"a": {"b": [1.5, True, None]}}, True, "x"], ids=range(5))
def test_whatever_stands_for_an_action_is_a_question(odd: Any) -> None:
    payloads = [
        notification("C1", request_uid="r", changes={"occurrence": {"action": each}}) for each in (odd, {"id": odd})
    ]
    asked = {question_of(WebhookNotification.model_validate(each)) for each in payloads}
    assert asked == {question_of(WebhookNotification.model_validate(each)) for each in payloads}
    assert question_of(WebhookNotification.model_validate(notification("C1", request_uid="r"))) not in asked


def test_questions_are_remembered_in_a_bounded_number() -> None:
    questions = Questions(capacity=3)
    assert not any(questions.contradict(f"r-{turn}", "a") for turn in range(4))
    assert questions.contradict("r-3", "b")
    assert not questions.contradict("r-3", "a")
    assert not questions.contradict("r-0", "b")  # forgotten


# ---- files that are removed or replaced

Vandal = Callable[[Path], None]


def _unlink(path: Path) -> None:
    path.unlink()


def _unlink_all(path: Path) -> None:
    for each in path.parent.iterdir():
        each.unlink()


def _unlink_wal(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def _unlink_shm(path: Path) -> None:
    path.with_name(f"{path.name}-shm").unlink()


def _replace(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(b"")
    copy.replace(path)


def _move_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


VANDALS = [_unlink, _unlink_all, _unlink_wal, _unlink_shm, _replace, _move_the_folder]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "of the stores"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("vandal", VANDALS)
def test_claims_whose_file_is_replaced_refuse_everything(folder: Path, vandal: Vandal) -> None:
    path = folder / "claims.db"
    with SqliteClaims(path) as store:
        acquired(store, "r-1")
        vandal(path)
        uses: list[Callable[[], object]] = [
            lambda: acquired(store, "r-2"),
            lambda: store.renew("r-1", "a", 60.0, 60.0),
            lambda: store.update("r-1", "a", Claim(ClaimState.SETTLED), 0.0, 60.0),
            lambda: store.release("r-1", "a"),
        ]
        for use in uses:
            with pytest.raises(StoreError, match=r"of the stores/claims\.db.* restart all processes"):
                use()


def test_a_store_that_was_closed_does_not_make_its_file_anew(folder: Path) -> None:
    path = folder / "claims.db"
    store = SqliteClaims(path)
    acquired(store, "r-1")
    store.close()
    path.unlink()
    with pytest.raises(StoreError):
        acquired(store, "r-1")
    assert not path.exists()


def test_a_file_that_is_put_back_is_used_again(folder: Path) -> None:
    path = folder / "claims.db"
    with SqliteClaims(path) as store:
        acquired(store, "r-1")
        folder.rename(folder.with_name("elsewhere"))
        with pytest.raises(StoreError):
            acquired(store, "r-1")
        folder.with_name("elsewhere").rename(folder)
        assert not acquired(store, "r-1", "b")


def test_a_link_that_is_pointed_elsewhere_is_noticed(folder: Path) -> None:
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    (folder / "current").symlink_to("one")
    with SqliteClaims(folder / "current" / "claims.db") as store:
        acquired(store, "r-1")
        (folder / "new").symlink_to("two")
        (folder / "new").replace(folder / "current")
        with pytest.raises(StoreError):
            acquired(store, "r-1")


def test_a_file_that_is_replaced_while_a_claim_waits_for_a_lock(folder: Path) -> None:
    path = folder / "claims.db"
    with SqliteClaims(path) as store:
        other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")

        def let_go() -> None:
            _unlink_all(path)
            other.execute("COMMIT")

        timer = threading.Timer(0.3, let_go)
        timer.start()
        with pytest.raises(StoreError):
            acquired(store, "r-1")
        timer.join()
        other.close()


def test_a_forked_child_does_not_make_the_file_anew(folder: Path) -> None:
    path = folder / "claims.db"
    with SqliteClaims(path) as store:
        acquired(store, "r-1")
        _unlink_all(path)

        def refused() -> bool:
            with pytest.raises(StoreError):
                acquired(store, "r-1")
            return True

        assert child_status(refused) == 0
        assert not path.exists()


def test_a_relative_path_means_the_same_claims_after_a_change_of_directory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    with SqliteClaims("claims.db") as store:
        acquired(store, "r-1")
        monkeypatch.chdir(folder.parent)
        assert not acquired(store, "r-1", "b")
        store.close()
        assert not acquired(store, "r-1", "b")
    assert not (folder.parent / "claims.db").exists()


def test_a_notification_is_not_answered_in_two_ways_after_the_file_was_removed(folder: Path) -> None:
    optimove = FakeOptimove()
    path = folder / "claims.db"

    def replica(answer: bool) -> WebhookReceiver:
        return WebhookReceiver(
            lambda notification, deadline: answer,
            client=optimove.client(),
            secrets=optimove.secrets,
            claims=SqliteClaims(path),
        )

    first = replica(True)
    assert optimove.notify(first).responses[-1].status == 200
    _unlink_all(path)
    second = replica(False)
    # The first one tries its store for as long as it believes that it has; Optimove still takes answers then.
    optimove.expect(notification("C234638", request_uid="after", timeout_ms=60_000))
    asked = optimove.notify(first, request_uid="after", timeout_ms=500)
    assert asked.responses[-1].status == 503
    assert optimove.notify(second, request_uid="after").responses[-1].status == 200
    assert not asked.approved


def test_an_error_names_the_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match=r"unable to open.*no-such-folder/claims\.db"):
        SqliteClaims(tmp_path / "no-such-folder" / "claims.db")
