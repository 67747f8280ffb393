"""What every journal does: a class of tests to derive from, with a fixture `journal` of one's own."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from optimove_conditional_execution import ConfigurationError, OptimoveError, SupersededError
from optimove_conditional_execution.models.events import CampaignReadyEvent
from optimove_conditional_execution.stores import (
    DecidedBatch,
    Journal,
    JournalHistory,
    OpenReview,
    ReviewState,
    StatusUpdate,
)


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


def opened(journal: Journal, announced: CampaignReadyEvent = EVENT) -> int:
    review = journal.open(announced)
    assert review is not None
    return review.run


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


@contextlib.contextmanager
def process_with(journal: str, program: str, *, module: str = "stores") -> Iterator[subprocess.Popen[str]]:
    """Run a program that has `journal`, `EVENT` and `KEY`, and says what it has done line by line.

    Args:
        journal: The expression that makes it.
        program: Its lines.
        module: The module of the package that has its class.
    """
    prelude = f"""
        import os, sys, time
        from pathlib import Path
        from optimove_conditional_execution.models.events import CampaignReadyEvent
        from optimove_conditional_execution.stores import DecidedBatch
        from optimove_conditional_execution.{module} import *
        EVENT = CampaignReadyEvent.from_json({EVENT.model_dump_json(by_alias=True)!r})
        KEY = EVENT.key
        journal = {journal}
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
    """Return the next line of a process."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


class JournalSuite:
    """Derive from it."""

    def test_the_protocol(self, journal: Journal) -> None:
        assert isinstance(journal, Journal)

    def test_an_event_is_new_once(self, journal: Journal) -> None:
        odd = event(8, Whatever={"deep": [None, "ü"]})
        assert journal.add(odd)
        assert journal.add(EVENT)
        assert not journal.add(odd)
        assert not journal.add(event())
        assert journal.unfinished() == [odd, EVENT]
        assert [kept.key for kept in journal.unfinished()] == [odd.key, KEY]
        assert (journal.unfinished()[0].model_extra or {}) == {"Whatever": {"deep": [None, "ü"]}}

    def test_one_runs_a_review(self, journal: Journal) -> None:
        assert journal.open(EVENT)
        assert not journal.open(EVENT)
        assert journal.open(ANOTHER)
        journal.unlock(KEY)
        assert journal.open(EVENT)
        journal.unlock(KEY)
        journal.unlock(KEY)
        journal.unlock("never taken")
        assert not journal.open(ANOTHER)

    def test_batches_come_back_in_their_order(self, journal: Journal) -> None:
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

    def test_recording_twice_does_no_harm(self, journal: Journal) -> None:
        journal.add(EVENT)
        batches = [batch(1), batch(2), DecidedBatch((), ("d",)), DecidedBatch(("d",), ())]
        journal.record(KEY, batches)
        journal.record(KEY, batches)
        journal.record(KEY, [batch(2), batch(3), batch(3)])
        assert list(journal.batches(KEY)) == [*batches, batch(3)]
        assert [(kept.decided, kept.approved) for kept in journal.reviews()] == [(14, 7)]

    def test_any_id(self, journal: Journal) -> None:
        journal.add(EVENT)
        odd = DecidedBatch(
            ("", "\x00", "\ud800", "ü\u2028", "'; DROP TABLE batches; --", '"'), ("x" * 10_000, "a,b", "[]")
        )
        journal.record(KEY, [odd])
        assert list(journal.batches(KEY)) == [odd]

    def test_reading_while_writing(self, journal: Journal) -> None:
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

    def test_ranges_are_merged(self, journal: Journal) -> None:
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

    def test_ranges_in_any_order_say_what_was_said(self, journal: Journal) -> None:
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
    def test_what_is_no_range_is_refused(self, journal: Journal, start: int, end: int) -> None:
        journal.add(EVENT)
        with pytest.raises(OptimoveError, match="range"):
            journal.acknowledge(KEY, [(start, end)])
        assert journal.acknowledged(KEY) == []

    def test_unknown_reviews(self, journal: Journal) -> None:
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

    def test_two_reviews_of_one_campaign_are_apart(self, journal: Journal) -> None:
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

    def test_finished(self, journal: Journal) -> None:
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

    def test_forgetting(self, journal: Journal) -> None:
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

    def test_one_winner_among_threads(self, journal: Journal) -> None:
        won: list[int] = []
        barrier = threading.Barrier(8)

        def race() -> None:
            barrier.wait(10)
            won.extend(turn for turn in range(30) if journal.open(event(turn + 1)))

        in_threads(8, race)
        assert sorted(won) == list(range(30))

    def test_threads_lose_nothing(self, journal: Journal) -> None:
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

    def test_opening_tells_how_far_a_review_has_got(self, journal: Journal) -> None:
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

    def test_opening_tells_of_a_campaign_that_is_announced_twice(self, journal: Journal) -> None:
        journal.add(event(7, 1))  # another clearance
        journal.add(event(8, 0))  # another campaign
        review = journal.open(EVENT)
        assert review is not None
        assert not review.announced_twice
        again = journal.open(event(TimeStamp="2025-03-01 10:00:01"))
        assert again is not None
        assert again.announced_twice

    def test_a_run_that_is_superseded_writes_nothing(self, journal: Journal) -> None:
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

    def test_the_number_of_a_run_never_comes_again(self, journal: Journal) -> None:
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

    def test_a_batch_says_what_became_of_everybody(self, journal: Journal) -> None:
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

    def test_the_report_of_an_incomplete_run_is_kept_until_the_next(self, journal: Journal) -> None:
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

    def test_ranges_are_acknowledged_all_or_none(self, journal: Journal) -> None:
        journal.add(EVENT)
        journal.acknowledge(KEY, [(0, 3), (5, 6), (2**62, 2**62 + 4)])
        journal.acknowledge(KEY, [])
        with pytest.raises(OptimoveError, match="range"):
            journal.acknowledge(KEY, [(10, 12), (3, 3)])
        assert journal.acknowledged(KEY) == [(0, 3), (5, 6), (2**62, 2**62 + 4)]
        assert journal.reviews()[0].acknowledged == 8

    def test_a_repr_names_no_customer(self, journal: Journal) -> None:
        journal.add(EVENT)
        journal.record(KEY, [batch(1)])
        journal.finish(KEY, '{"error": "secret"}')
        assert "c-1" not in repr(batch(1))
        assert "secret" not in repr(journal.reviews())

    def test_the_history_says_what_was_recorded_when(self, journal: Journal) -> None:
        assert isinstance(journal, JournalHistory)
        begun = time.time()
        journal.add(EVENT)
        journal.add(ANOTHER)
        journal.record(KEY, [batch(1), DecidedBatch()])
        journal.record(KEY, [DecidedBatch(released=1)])
        journal.record(ANOTHER.key, [batch(2)])
        journal.acknowledge(KEY, [(0, 2)])
        journal.acknowledge(KEY, [(0, 2)])
        journal.acknowledge(KEY, [])
        journal.acknowledge(KEY, [(3, 4), (6, 7)])
        journal.record(KEY, [batch(3), batch(1)])
        history = list(journal.history(KEY))
        assert history == [
            batch(1),
            DecidedBatch(),
            DecidedBatch(released=1),
            StatusUpdate(((0, 2),)),
            StatusUpdate(((3, 4), (6, 7))),
            batch(3),
        ]
        times = [each.at for each in history]
        assert None not in times
        assert all(begun - 0.001 <= each <= time.time() + 0.001 for each in times if each is not None)
        assert list(journal.batches(KEY)) == [batch(1), DecidedBatch(), DecidedBatch(released=1), batch(3)]
        assert list(journal.history(ANOTHER.key)) == [batch(2)]
        journal.finish(KEY, "{}")
        assert journal.prune(datetime(2100, 1, 1)) == 1
        assert list(journal.history(KEY)) == []
