"""Journals: what was announced, decided and taken; over threads and processes, after a fork and a crash."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import sqlite3
import subprocess
import sys
import textwrap
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import ConfigurationError, OptimoveError, StoreError, SupersededError
from optimove_conditional_execution.models.events import CampaignReadyEvent
from optimove_conditional_execution.stores import (
    DecidedBatch,
    Journal,
    MemoryJournal,
    OpenReview,
    ReviewState,
    SqliteJournal,
)
from tests.conftest import forked

Store = MemoryJournal | SqliteJournal


def event(campaign: int = 7, minute: int = 0, **more: object) -> CampaignReadyEvent:
    body = {
        "EventTypeID": 5,
        "TimeStamp": f"2025-03-01 10:{minute:02}:00",
        "CampaignID": campaign,
        "CampaignDuration": 3,
        "ClearanceRequiredBy": f"2025-03-01 12:{minute:02}:00",
    }
    return CampaignReadyEvent.from_json(json.dumps(body | more))


EVENT = event()
KEY = EVENT.key
ANOTHER = event(8)


def batch(number: int, size: int = 4) -> DecidedBatch:
    ids = [f"c-{number}-{each}" for each in range(size)]
    return DecidedBatch(tuple(ids[::2]), tuple(ids[1::2]))


@pytest.fixture(params=["memory", "sqlite"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryJournal()
        return
    with SqliteJournal(tmp_path / "journal.sqlite") as sqlite_journal:
        yield sqlite_journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def in_threads(count: int, work: Callable[[], None]) -> None:
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - handed to the test
            raised.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not raised, raised


# ---- both


def test_the_protocol(journal: Store) -> None:
    assert isinstance(journal, Journal)


def test_an_event_is_new_once(journal: Store) -> None:
    odd = event(8, Whatever={"deep": [None, "ü"]})
    assert journal.add(odd)
    assert journal.add(EVENT)
    assert not journal.add(odd)
    assert not journal.add(event())
    assert journal.unfinished() == [odd, EVENT]
    assert [kept.key for kept in journal.unfinished()] == [odd.key, KEY]
    assert (journal.unfinished()[0].model_extra or {}) == {"Whatever": {"deep": [None, "ü"]}}


def test_one_runs_a_review(journal: Store) -> None:
    assert journal.open(EVENT)
    assert not journal.open(EVENT)
    assert journal.open(ANOTHER)
    journal.unlock(KEY)
    assert journal.open(EVENT)
    journal.unlock(KEY)
    journal.unlock(KEY)
    journal.unlock("never taken")
    assert not journal.open(ANOTHER)


def test_batches_come_back_in_their_order(journal: Store) -> None:
    journal.add(EVENT)
    batches = [batch(number) for number in range(100)]
    random.Random(5).shuffle(batches)
    journal.record(KEY, batches[:1])
    journal.record(KEY, batches[1:60])
    journal.record(KEY, [])
    journal.record(KEY, batches[60:])
    assert list(journal.batches(KEY)) == batches
    assert journal.reviews() == [
        ReviewState(EVENT, decided=400, approved=200, acknowledged=0, finished=False, report=None)
    ]


def test_recording_twice_does_no_harm(journal: Store) -> None:
    journal.add(EVENT)
    batches = [batch(1), batch(2), DecidedBatch((), ("d",)), DecidedBatch(("d",), ())]
    journal.record(KEY, batches)
    journal.record(KEY, batches)
    journal.record(KEY, [batch(2), batch(3), batch(3)])
    assert list(journal.batches(KEY)) == [*batches, batch(3)]
    assert [(kept.decided, kept.approved) for kept in journal.reviews()] == [(14, 7)]


def test_any_id(journal: Store) -> None:
    journal.add(EVENT)
    odd = DecidedBatch(("", "\x00", "\ud800", "ü\u2028", "'; DROP TABLE batches; --", '"'), ("x" * 10_000, "a,b", "[]"))
    journal.record(KEY, [odd])
    assert list(journal.batches(KEY)) == [odd]


def test_reading_while_writing(journal: Store) -> None:
    journal.add(EVENT)
    journal.record(KEY, [batch(number) for number in range(50)])
    seen = []
    for number, each in enumerate(journal.batches(KEY)):
        journal.acknowledge(KEY, [(2 * number, 2 * number + 2)])
        seen.append(each)
    assert seen == [batch(number) for number in range(50)]
    assert journal.acknowledged(KEY) == [(0, 100)]
    half_read = journal.batches(KEY)
    next(half_read)
    journal.record(KEY, [batch(50)])


def test_ranges_are_merged(journal: Store) -> None:
    journal.add(EVENT)
    assert journal.acknowledged(KEY) == []
    for start, end, now in [
        (100, 200, [(100, 200)]),
        (300, 400, [(100, 200), (300, 400)]),
        (0, 50, [(0, 50), (100, 200), (300, 400)]),
        (50, 60, [(0, 60), (100, 200), (300, 400)]),
        (120, 130, [(0, 60), (100, 200), (300, 400)]),
        (100, 200, [(0, 60), (100, 200), (300, 400)]),
        (90, 100, [(0, 60), (90, 200), (300, 400)]),
        (199, 301, [(0, 60), (90, 400)]),
        (401, 402, [(0, 60), (90, 400), (401, 402)]),
        (0, 1_000_000, [(0, 1_000_000)]),
    ]:
        journal.acknowledge(KEY, [(start, end)])
        assert journal.acknowledged(KEY) == now
        assert journal.reviews()[0].acknowledged == sum(high - low for low, high in now)


def test_ranges_in_any_order_say_what_was_said(journal: Store) -> None:
    journal.add(EVENT)
    dice = random.Random(11)
    taken: set[int] = set()
    for _ in range(150):
        start = dice.randrange(300)
        end = start + dice.randrange(1, 12)
        taken |= set(range(start, end))
        journal.acknowledge(KEY, [(start, end)])
    ranges = journal.acknowledged(KEY)
    assert {position for start, end in ranges for position in range(start, end)} == taken
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(ranges))


@pytest.mark.parametrize(("start", "end"), [(5, 5), (6, 5), (-1, 5)])
def test_what_is_no_range_is_refused(journal: Store, start: int, end: int) -> None:
    journal.add(EVENT)
    with pytest.raises(OptimoveError, match="range"):
        journal.acknowledge(KEY, [(start, end)])
    assert journal.acknowledged(KEY) == []


def test_unknown_reviews(journal: Store) -> None:
    writes: list[Callable[[], None]] = [
        lambda: journal.record("unknown", [batch(1)]),
        lambda: journal.record("unknown", []),
        lambda: journal.acknowledge("unknown", [(0, 1)]),
        lambda: journal.finish("unknown", "{}"),
        lambda: journal.keep_report("unknown", "{}"),
    ]
    for write in writes:
        with pytest.raises(OptimoveError, match="No such review"):
            write()
    assert list(journal.batches("unknown")) == []
    assert journal.acknowledged("unknown") == []
    assert journal.unfinished() == []
    assert journal.reviews() == []
    assert journal.prune(datetime(2100, 1, 1)) == 0


def test_two_reviews_of_one_campaign_are_apart(journal: Store) -> None:
    first, second = event(7, 0), event(7, 1)
    assert journal.add(first)
    assert journal.add(second)
    journal.record(first.key, [batch(1)])
    journal.record(second.key, [batch(2)])
    journal.record(first.key, [batch(2)])
    journal.acknowledge(first.key, [(0, 4)])
    journal.acknowledge(second.key, [(1, 2)])
    journal.finish(second.key, "{}")
    assert list(journal.batches(first.key)) == [batch(1), batch(2)]
    assert list(journal.batches(second.key)) == [batch(2)]
    assert journal.acknowledged(first.key) == [(0, 4)]
    assert journal.acknowledged(second.key) == [(1, 2)]
    assert journal.unfinished() == [first]
    assert journal.reviews() == [ReviewState(first, 8, 4, 4, False, None), ReviewState(second, 4, 2, 1, True, "{}")]
    assert journal.open(first)
    assert journal.open(second)


def test_finished(journal: Store) -> None:
    journal.add(EVENT)
    journal.record(KEY, [batch(1)])
    assert journal.reviews()[0].report is None
    journal.finish(KEY, '{"campaign_id": 7}')
    journal.finish(KEY, '{"campaign_id": 8}')
    assert journal.reviews()[0].report == '{"campaign_id": 7}'
    assert journal.unfinished() == []
    assert not journal.add(EVENT)
    assert journal.unfinished() == []
    assert list(journal.batches(KEY)) == [batch(1)]


def test_forgetting(journal: Store) -> None:
    events = [event(7, minute) for minute in range(4)]
    for each in events:
        journal.add(each)
        journal.record(each.key, [batch(1)])
        journal.acknowledge(each.key, [(0, 2)])
    for each in events[1:]:
        journal.finish(each.key, "{}")
    assert journal.prune(datetime(2025, 3, 1, 12, 3)) == 2
    assert [kept.event for kept in journal.reviews()] == [events[0], events[3]]
    assert list(journal.batches(events[1].key)) == []
    assert journal.acknowledged(events[1].key) == []
    assert list(journal.batches(events[3].key)) == [batch(1)]
    assert journal.add(events[1])
    assert list(journal.batches(events[1].key)) == []
    assert journal.acknowledged(events[1].key) == []
    assert journal.prune(datetime(2025, 3, 1, 12, 3, 0, 1)) == 1
    assert journal.unfinished() == [events[0], events[1]]
    with pytest.raises(ConfigurationError, match="zone"):
        journal.prune(datetime(2025, 3, 1, tzinfo=UTC))


def test_one_winner_among_threads(journal: Store) -> None:
    won: list[int] = []
    barrier = threading.Barrier(8)

    def race() -> None:
        barrier.wait(10)
        won.extend(turn for turn in range(30) if journal.open(event(turn + 1)))

    in_threads(8, race)
    assert sorted(won) == list(range(30))


def test_threads_lose_nothing(journal: Store) -> None:
    journal.add(EVENT)
    numbers = iter(range(40))

    def work() -> None:
        for number in numbers:
            journal.record(KEY, [batch(2 * number), batch(2 * number + 1)])
            journal.acknowledge(KEY, [(4 * number, 4 * number + 4)])
            journal.acknowledged(KEY)

    in_threads(4, work)
    stored = list(journal.batches(KEY))
    assert set(stored) == {batch(number) for number in range(80)}
    pairs = [first.approved[0].split("-")[1] for first in stored[::2]]
    assert [f"c-{int(number) + 1}-0" for number in pairs] == [second.approved[0] for second in stored[1::2]]
    assert journal.acknowledged(KEY) == [(0, 160)]
    assert journal.reviews() == [ReviewState(EVENT, 320, 160, 160, False, None)]


def opened(journal: Store, announced: CampaignReadyEvent = EVENT) -> int:
    review = journal.open(announced)
    assert review is not None
    return review.run


def test_opening_tells_how_far_a_review_has_got(journal: Store) -> None:
    assert journal.open(EVENT) == OpenReview(1)
    journal.record(KEY, [batch(1)])
    journal.acknowledge(KEY, [(0, 2)])
    journal.unlock(KEY)
    review = journal.open(EVENT)
    assert review is not None
    assert (review.run, list(review.acknowledged), review.report) == (2, [(0, 2)], None)
    journal.finish(KEY, "{}", run=2)
    journal.unlock(KEY)
    review = journal.open(EVENT)
    assert review is not None
    assert (review.run, review.report) == (3, "{}")
    assert journal.reviews() == [ReviewState(EVENT, 4, 2, 2, True, "{}")]


def test_opening_tells_of_a_campaign_that_is_announced_twice(journal: Store) -> None:
    journal.add(event(7, 1))  # another clearance
    journal.add(event(8, 0))  # another campaign
    review = journal.open(EVENT)
    assert review is not None
    assert not review.announced_twice
    again = journal.open(event(TimeStamp="2025-03-01 10:00:01"))
    assert again is not None
    assert again.announced_twice


def test_a_run_that_is_superseded_writes_nothing(journal: Store) -> None:
    journal.add(EVENT)
    first = opened(journal)
    journal.record(KEY, [batch(1)], run=first)
    journal.acknowledge(KEY, [(0, 1)], run=first)
    journal.unlock(KEY)
    journal.record(KEY, [batch(2)], run=first)  # nobody else has taken it yet
    second = opened(journal)
    late: list[Callable[[], object]] = [
        lambda: journal.record(KEY, [batch(3)], run=first),
        lambda: journal.record(KEY, [], run=first),
        lambda: journal.acknowledge(KEY, [(1, 2)], run=first),
        lambda: journal.acknowledged(KEY, run=first),
        lambda: journal.finish(KEY, "{}", run=first),
    ]
    for write in late:
        with pytest.raises(SupersededError):
            write()
    assert list(journal.batches(KEY)) == [batch(1), batch(2)]
    assert journal.acknowledged(KEY, run=second) == [(0, 1)]
    journal.record(KEY, [batch(3)], run=second)
    journal.acknowledge(KEY, [(1, 2)], run=second)
    journal.finish(KEY, "{}", run=second)
    assert journal.reviews()[0].report == "{}"


def test_the_number_of_a_run_never_comes_again(journal: Store) -> None:
    runs = []
    for _ in range(3):
        journal.add(EVENT)
        for each in (EVENT, ANOTHER):
            runs.append(opened(journal, each))
            journal.unlock(each.key)
        journal.finish(KEY, "{}")
        assert journal.prune(datetime(2100, 1, 1)) == 1
    assert runs == sorted(set(runs))
    assert runs[0] >= 1
    journal.add(EVENT)
    with pytest.raises(SupersededError):
        journal.record(KEY, [batch(1)], run=runs[-1])


WHOLE = DecidedBatch(
    approved=("a",),
    denied=("b", "d"),
    abstained=("c",),
    confirmed=("e",),
    revoked=("b",),
    failed={"ServerError 503": ("f", "g"), "KeyError": ("h",)},
    unanswered=("i",),
    not_reached=("j",),
    skipped=("k",),
    reasons={"b": "self-excluded \ud800"},
    row_sets=('[[504,19,7,["WB23"]]]', "[[504,19,7,[]],[505,19,7,[]]]"),
    row_set_of=(0, 0, 1, 0, 1, 0, 0, 0, 0, 0),
)


def test_a_batch_says_what_became_of_everybody(journal: Store) -> None:
    assert WHOLE.ids == tuple("abdcefghij")
    journal.add(EVENT)
    journal.record(KEY, [DecidedBatch(("b",))])
    journal.record(KEY, [WHOLE])
    journal.record(KEY, [DecidedBatch(released=1)])
    journal.record(KEY, [DecidedBatch(released=1), DecidedBatch(released=2)])
    assert list(journal.batches(KEY)) == [
        DecidedBatch(("b",)),
        WHOLE,
        DecidedBatch(released=1),
        DecidedBatch(released=2),
    ]
    (kept,) = journal.reviews()
    assert (kept.decided, kept.approved) == (4, 1), "a, b, c and d are decided about, and b is revoked"
    assert not any(word in repr(WHOLE) for word in ("self-excluded", "504", "503"))


def test_the_report_of_an_incomplete_run_is_kept_until_the_next(journal: Store) -> None:
    journal.add(EVENT)
    first = opened(journal)
    journal.keep_report(KEY, '{"failed": 1}', run=first)
    assert journal.reviews() == [ReviewState(EVENT, 0, 0, 0, False, '{"failed": 1}')]
    assert journal.unfinished() == [EVENT]
    journal.unlock(KEY)
    review = journal.open(EVENT)
    assert review is not None
    assert review.report is None
    with pytest.raises(SupersededError):
        journal.keep_report(KEY, "{}", run=first)
    journal.keep_report(KEY, '{"failed": 2}', run=review.run)
    journal.finish(KEY, '{"failed": 0}', run=review.run)
    journal.keep_report(KEY, '{"failed": 3}', run=review.run)
    assert journal.reviews()[0].report == '{"failed": 0}'
    assert journal.prune(datetime(2100, 1, 1)) == 1


def test_ranges_are_acknowledged_all_or_none(journal: Store) -> None:
    journal.add(EVENT)
    journal.acknowledge(KEY, [(0, 3), (5, 6), (2**62, 2**62 + 4)])
    journal.acknowledge(KEY, [])
    with pytest.raises(OptimoveError, match="range"):
        journal.acknowledge(KEY, [(10, 12), (3, 3)])
    assert journal.acknowledged(KEY) == [(0, 3), (5, 6), (2**62, 2**62 + 4)]
    assert journal.reviews()[0].acknowledged == 8


def test_a_repr_names_no_customer(journal: Store) -> None:
    journal.add(EVENT)
    journal.record(KEY, [batch(1)])
    journal.finish(KEY, '{"error": "secret"}')
    assert "c-1" not in repr(batch(1))
    assert "secret" not in repr(journal.reviews())


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


@contextlib.contextmanager
def another_process(program: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program that has `journal` over `path`, `EVENT` and `KEY`, and says what it has done line by line."""
    prelude = f"""
        import os, sys, time
        from pathlib import Path
        from optimove_conditional_execution.models.events import CampaignReadyEvent
        from optimove_conditional_execution.stores import DecidedBatch, SqliteJournal
        EVENT = CampaignReadyEvent.from_json({EVENT.model_dump_json(by_alias=True)!r})
        KEY = EVENT.key
        journal = SqliteJournal({str(path)!r})
        def say(word):
            print(word, flush=True)
        """
    source = textwrap.dedent(prelude) + textwrap.dedent(program)
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


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
        child = forked()
        if child == 0:
            refused = not journal.open(EVENT)
            journal.unlock(KEY)
            still = not journal.open(EVENT)
            own = journal.open(ANOTHER)
            journal.record(KEY, [batch(1)])
            os._exit(0 if refused and still and own else 1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
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


def test_a_fork_while_another_thread_uses_the_journal(path: Path) -> None:
    with SqliteJournal(path) as journal:
        journal.add(EVENT)
        with journal._file.connection():
            child = forked()
            if child == 0:
                journal.record(KEY, [batch(1)])
                os._exit(0 if list(journal.batches(KEY)) == [batch(1)] else 1)
            _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
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
    with pytest.raises(ConfigurationError, match="MemoryJournal"):
        SqliteJournal(":memory:")


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
