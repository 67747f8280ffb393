"""Entries that are queued: written together, before the answer leaves, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import AsyncWebhookReceiver, ConfigurationError, OptimoveError, PayloadError
from optimove_conditional_execution.flows.effects import Overloaded
from optimove_conditional_execution.stores import SqliteDecisionLog, group_commit
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request
from tests.conftest import child_status
from tests.stores.decision_log_suite import completion, record

FIRST = record(0)


@pytest.fixture
def locked(log: SqliteDecisionLog, path: Path) -> Iterator[sqlite3.Connection]:
    """Another process's transaction, which the test ends."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def wait(pending: object) -> None:
    assert isinstance(pending, concurrent.futures.Future)
    pending.result(30)


def raise_lost(error: Exception) -> None:
    raise AssertionError from error


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


def uids(log: SqliteDecisionLog) -> list[str | None]:
    assert log.verify() is None
    return [logged.record.request_uid for logged in log.decisions()]


def transactions(log: SqliteDecisionLog) -> list[str]:
    """Return a list of the statements that begin a transaction of their own, or are one."""
    begun: list[str] = []

    def trace(text: str) -> None:
        if text.startswith(("BEGIN", "INSERT")) and not connection.in_transaction:
            begun.append(text)

    with log._file.connection() as connection:
        connection.set_trace_callback(trace)
    return begun


@in_loop
async def test_what_waits_is_written_in_one_transaction(log: SqliteDecisionLog, locked: sqlite3.Connection) -> None:
    begun = transactions(log)
    first = log.submit([FIRST])
    while not log._group._writer.locked():
        await asyncio.sleep(0.001)
    more = [log.submit([record(number)]) for number in range(1, 30)]
    log.complete(completion(FIRST), raise_lost)
    assert not first.done()
    locked.execute("COMMIT")
    await asyncio.gather(*(asyncio.wrap_future(each) for each in (first, *more)))
    assert len(begun) == 2
    assert uids(log) == [f"r-{number}" for number in range(30)]
    assert len(begun) == 2


def test_a_completion_rides_with_the_next_record_and_reading_does_not_miss_it(log: SqliteDecisionLog) -> None:
    begun = transactions(log)
    wait(log.submit([FIRST]))
    log.complete(completion(FIRST), raise_lost)
    (logged,) = log.decisions()
    assert logged.completion is not None
    assert len(begun) == 2
    log.complete(completion(FIRST), raise_lost)
    end = time.monotonic() + 30
    while len(begun) < 3 and time.monotonic() < end:  # by itself, too
        time.sleep(0.005)
    assert len(begun) == 3


def test_logs_on_one_file_append_in_turns(log: SqliteDecisionLog, path: Path) -> None:
    with SqliteDecisionLog(path) as other:
        for number in range(4):
            (log, other)[number % 2].append([record(number)])
        log.append([record(4)])
        log.append([])
    assert uids(log) == [f"r-{number}" for number in range(5)]


ENDS = """
import sys
from datetime import UTC, datetime
from optimove_conditional_execution.stores import Completion, DecisionRecord, SqliteDecisionLog

log = SqliteDecisionLog(sys.argv[1])
record = DecisionRecord(at=datetime.now(UTC), flow="triggered", kind="approved")
log.submit([record]).result()
log.complete(Completion(at=record.at, completes=record.id, kind="approved"), print)
"""


def test_entries_that_wait_are_written_by_close_and_at_the_end_of_the_process(
    log: SqliteDecisionLog, path: Path
) -> None:
    log.submit([FIRST])
    log.complete(completion(FIRST), raise_lost)
    log.close()
    done = subprocess.run([sys.executable, "-c", ENDS, str(path)], check=True, capture_output=True, timeout=60)
    assert done.stdout + done.stderr == b""
    assert [logged.completion is not None for logged in log.decisions()] == [True, True]


def test_what_cannot_be_written_fails_all_of_its_group_and_none_after_it(
    log: SqliteDecisionLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optimove_conditional_execution.stores.decisions.COLUMNS", "nonsense")
    lost: list[Exception] = []
    log.complete(completion(FIRST), lost.append)
    with pytest.raises(sqlite3.OperationalError):
        wait(log.submit([FIRST]))
    log.flush()
    assert [type(error) for error in lost] == [sqlite3.OperationalError]
    monkeypatch.undo()
    wait(log.submit([record(1)]))
    assert uids(log) == ["r-1"]


@in_loop
async def test_an_entry_that_cannot_be_written_fails_no_other_of_its_group(log: SqliteDecisionLog) -> None:
    lost: list[Exception] = []
    good, bad = log.submit([record(0), record(1)]), log.submit([record(2), record(3, evidence={"C-3": object})])
    log.complete(completion(FIRST, at=datetime(2026, 3, 3)), lost.append)
    with pytest.raises(PayloadError, match="cannot be written as JSON") as error:
        await asyncio.wrap_future(bad)
    assert "C-3" not in str(error.value)
    await asyncio.wrap_future(good)
    assert [type(error) for error in lost] == [ConfigurationError]
    with pytest.raises(PayloadError):
        await asyncio.wrap_future(log.submit([record(4, seconds={"decide": float("nan")})]))
    assert uids(log) == ["r-0", "r-1"]


@in_loop
@pytest.mark.parametrize("raised", [SystemExit, StopIteration])
async def test_identify_that_raises_anything_fails_no_other_entry_of_its_group(
    path: Path, raised: type[BaseException]
) -> None:
    def identify(customer: str) -> str:
        if customer == "C-1":
            raise raised
        return f"~{customer}"

    with SqliteDecisionLog(path, identify=identify) as log:
        good, bad, too = (log.submit([record(number)]) for number in range(3))
        with pytest.raises(RuntimeError, match=raised.__name__):
            await asyncio.wait_for(asyncio.wrap_future(bad), 30)
        await asyncio.gather(asyncio.wrap_future(good), asyncio.wrap_future(too))
        assert uids(log) == ["r-0", "r-2"]


def test_an_interruption_of_who_appends_is_raised_when_the_entries_of_others_are_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def identify(customer: str) -> str:
        if customer == "C-1":
            raise KeyboardInterrupt  # as if it came in this moment
        return f"~{customer}"

    lost: list[Exception] = []
    with SqliteDecisionLog(path, identify=identify) as log:
        monkeypatch.setattr(log._group._pool, "submit", lambda *_: None)  # so that this thread writes both
        log.complete(record(1), lost.append)
        with pytest.raises(KeyboardInterrupt):
            log.append([record(0)])
        assert uids(log) == ["r-0"]
    assert [str(error) for error in lost] == ["KeyboardInterrupt"]


def test_nobody_waits_for_a_thread_that_cannot_be_started(
    log: SqliteDecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    others: list[concurrent.futures.Future[None]] = []
    lost: list[Exception] = []

    def no_more(thread: threading.Thread) -> None:
        pending = log.submit([record(1)])  # as another thread does at this moment
        assert isinstance(pending, concurrent.futures.Future)
        others.append(pending)
        log.complete(completion(FIRST), lost.append)
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        with pytest.raises(Overloaded):
            log.submit([FIRST])
        with pytest.raises(Overloaded):
            others[0].result(30)
    assert [type(error) for error in lost] == [Overloaded]
    assert uids(log) == []
    wait(log.submit([record(2)]))
    assert uids(log) == ["r-2"]


def test_what_comes_while_writing_is_interrupted_is_written_all_the_same(
    log: SqliteDecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, after = log._group._write, list[object]()

    def interrupted(contents: Any) -> None:
        if not after:
            after.append(log.submit([record(1)]))
            raise SystemExit
        write(contents)

    monkeypatch.setattr(log._group, "_write", interrupted)
    with pytest.raises(OptimoveError, match="interrupted"):
        wait(log.submit([FIRST]))
    wait(after[0])
    assert uids(log) == ["r-1"]


def test_what_comes_while_writing_is_interrupted_is_told_when_no_other_thread_can_be_had(
    log: SqliteDecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = list[object]()

    def no_more(*_: object) -> None:
        raise Overloaded

    def interrupted(_: object) -> None:
        after.append(log.submit([record(1)]))
        monkeypatch.setattr(log._group._pool, "submit", no_more)
        raise SystemExit

    monkeypatch.setattr(log._group, "_write", interrupted)
    with pytest.raises(OptimoveError, match="interrupted"):
        wait(log.submit([FIRST]))
    with pytest.raises(Overloaded):
        wait(after[0])
    monkeypatch.undo()
    wait(log.submit([record(2)]))
    assert uids(log) == ["r-2"]


def test_a_forked_child_leaves_to_its_parent_what_the_parent_has_queued(
    log: SqliteDecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "LINGER_SECONDS", 30.0)
    log.append([FIRST])
    log.complete(completion(FIRST), raise_lost)

    def appends() -> bool:
        wait(log.submit([record(1)]))
        return True

    assert child_status(appends) == 0
    assert uids(log) == ["r-0", "r-1"]
    assert [logged.completion is not None for logged in log.decisions()] == [True, False]


# ---- deliveries


async def approve(notification: object, deadline: object) -> bool:
    return True


async def answer_many(receiver: AsyncWebhookReceiver, optimove: FakeOptimove, count: int, **given: Any) -> list[int]:
    payloads = [notification(**given) for _ in range(count)]
    for payload in payloads:
        optimove.expect(payload)
    requests = [signed_request(payload, secret=optimove.secret) for payload in payloads]
    return [answer.status for answer in await asyncio.gather(*map(receiver.handle, requests))]


@in_loop
async def test_closed_while_deliveries_run(log: SqliteDecisionLog) -> None:
    optimove = FakeOptimove()
    receiver = AsyncWebhookReceiver(
        approve, client=optimove.async_client(), secrets=optimove.secrets, decision_log=log, max_concurrency=200
    )
    running = asyncio.ensure_future(answer_many(receiver, optimove, 40))
    while not running.done():
        await asyncio.to_thread(log.close)
    assert await running == [200] * 40
    assert len(uids(log)) == len(optimove.calls_of("send_webhook_approval")) == 40
    assert all(logged.completion is not None and logged.completion.taken for logged in log.decisions())


@in_loop
async def test_deliveries_while_another_process_locks_the_file(
    log: SqliteDecisionLog, locked: sqlite3.Connection
) -> None:
    optimove = FakeOptimove()
    outcomes: list[Any] = []
    receiver = AsyncWebhookReceiver(
        approve, client=optimove.async_client(), secrets=optimove.secrets, decision_log=log, on_outcome=outcomes.append
    )
    running = asyncio.ensure_future(answer_many(receiver, optimove, 3, timeout_ms=600))
    while len(outcomes) < 3:  # the event loop goes on: they give the log up in time, and wait for it no more than that
        await asyncio.sleep(0.01)
    assert optimove.calls_of("send_webhook_approval") == []
    locked.execute("COMMIT")
    await running
    assert {outcome.kind for outcome in outcomes} == {"failed"}
    assert {outcome.error for outcome in outcomes} == {"The decision log did not answer in time."}
    assert optimove.calls_of("send_webhook_approval") == []
    assert {logged.completion.kind for logged in log.decisions() if logged.completion is not None} == {"failed"}


@in_loop
async def test_a_completion_that_is_lost_is_an_error_line(
    log: SqliteDecisionLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    optimove = FakeOptimove()
    receiver = AsyncWebhookReceiver(approve, client=optimove.async_client(), secrets=optimove.secrets, decision_log=log)
    write = log._write

    def fails(contents: Any) -> None:
        if any(content.type == "completion" for content in contents):
            raise sqlite3.OperationalError("C234638")
        write(contents)

    monkeypatch.setattr(log._group, "_write", fails)
    assert await answer_many(receiver, optimove, 1) == [200]
    with caplog.at_level(logging.ERROR):
        await asyncio.to_thread(log.flush)
    (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert line.startswith("the decision log lost what became of request_uid=")
    assert line.endswith(": OperationalError")
    assert len(optimove.calls_of("send_webhook_approval")) == 1


ANSWERS = """
import asyncio, json, os, resource, sys
from optimove_conditional_execution import AsyncWebhookReceiver
from optimove_conditional_execution.stores import SqliteDecisionLog
from optimove_conditional_execution.testing import notification, signed_request

class Client:
    async def send(self, operation, *, deadline=None):
        os.write(1, json.loads(operation.body)["request_uid"].encode() + b"\\n")

async def approve(notification, deadline):
    return True

async def main(path, limit):
    log, kinds = SqliteDecisionLog(path), []
    receiver = AsyncWebhookReceiver(
        approve, client=Client(), secrets="s", decision_log=log, on_outcome=lambda outcome: kinds.append(outcome.kind)
    )

    async def answer():
        while limit != "none" or len(kinds) < 10_000:
            await receiver.handle(signed_request(notification(), secret="s"))
            if limit != "none" and kinds[-1] == "failed":
                return

    if limit != "none":
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path + "-wal") + 100_000, resource.RLIM_INFINITY))
    await asyncio.gather(*(answer() for _ in range(16)))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await receiver.handle(signed_request(notification(), secret="s"))
    assert kinds[-1] == "approved", kinds[-1]

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("after", [1, 40])
def test_killed_while_many_are_answered(log: SqliteDecisionLog, path: Path, after: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", ANSWERS, str(path), "none"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    sent = [process.stdout.readline() for _ in range(after)]
    process.kill()
    # Not `communicate`: it leaves out what has been read ahead of those lines.
    sent += process.stdout.read().splitlines(keepends=True)
    process.stdout.close()
    assert process.wait(60) == -9
    assert_recorded(log, sent)
    log.append([record(1)])
    assert log.verify() is None


def test_a_full_disk(log: SqliteDecisionLog, path: Path) -> None:
    """Nobody is approved while nothing can be written; when there is space again, it goes on."""
    done = subprocess.run(
        [sys.executable, "-c", ANSWERS, str(path), "small"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert_recorded(log, done.stdout.splitlines(keepends=True))


def assert_recorded(log: SqliteDecisionLog, sent: list[bytes]) -> None:
    """Every answer that left has its record; a line that was cut off has left, too."""
    recorded = {f"{uid}\n".encode() for uid in uids(log)}
    assert sent
    assert all(any(each.startswith(line) for each in recorded) for line in sent)
