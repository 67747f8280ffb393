"""The books of a review, against simple models: who was met, what an answer means, and runs that crash anywhere."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimove_conditional_execution import CampaignCustomer, Deadline, PayloadError
from optimove_conditional_execution.flows.id_set import IdSet
from optimove_conditional_execution.flows.journal import DecidedBatch
from optimove_conditional_execution.flows.ledger import Ledger
from optimove_conditional_execution.flows.reviewer_answer import Batch, InvalidAnswer, parse_answer
from optimove_conditional_execution.operations import update_customer_promotion_status

NOW = datetime(2026, 11, 23, 9)
FEW_IDS = st.sampled_from([f"C{number}" for number in range(12)])


def customers(*ids: str) -> list[CampaignCustomer]:
    return [CampaignCustomer.model_validate({"CustomerID": name}) for name in ids]


def batch(*ids: str) -> Batch:
    return Batch(tuple(customers(*ids)), ids)


@given(st.lists(st.lists(st.text(max_size=3))))
def test_seen_ids_are_a_set(parts: list[list[str]]) -> None:
    seen, model = IdSet(), set[str]()
    for part in parts:
        for name, is_new in zip(part, seen.add(part), strict=True):
            assert is_new == (name not in model) or name == ""
            model.add(name)
    assert all(name in seen for name in model if name)
    assert "never" not in seen


def test_seen_ids_grow() -> None:
    seen = IdSet()
    for start in range(0, 200_000, 5_000):
        assert all(seen.add([f"C{number}" for number in range(start, start + 5_000)]))
    assert len(seen) == 200_000
    assert not any(seen.add([f"C{number}" for number in range(0, 200_000, 7)]))
    assert len(seen) == 200_000
    assert all(f"C{number}" not in seen for number in range(200_000, 201_000))


class Text(str):
    """A string of a kind of its own, as numpy has one."""


class Int64(int):
    """A number of a kind of its own."""


@pytest.mark.parametrize(
    ("answer", "approved", "unknown"),
    [
        (["A", "B"], {"A", "B"}, 0),
        (("B",), {"B"}, 0),
        ({"A"}, {"A"}, 0),
        (frozenset(), set(), 0),
        (["A", "A"], {"A"}, 0),
        (["A", "Z", "Z"], {"A"}, 2),
        (["A", None, 7, True], {"A"}, 3),
        (["A", ["B"]], {"A"}, 1),
        ((name for name in ["A", "Z"]), {"A"}, 1),
        ({"A": True}.keys(), {"A"}, 0),
        ([Text("A")], {"A"}, 0),
        ([Text("A"), "Z"], {"A"}, 1),
    ],
    ids=range(12),
)
def test_answers(answer: Any, approved: set[str], unknown: int) -> None:
    read = parse_answer(batch("A", "B"), answer)
    assert read.approved == approved
    assert read.unknown_ids == unknown
    assert {type(name) for name in read.approved} <= {str, Text}


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ([1, 2], "type int"),
        ((number for number in (1, 2)), "type int"),
        ([Int64(1), Int64(2)], "type Int64"),
        ([1, 2, None], "type int and others"),
        (["Z"], "other strings"),
        (["Z", "Y", 1], "type str and others"),
        ([b"1"], "type bytes"),
        ([["1"]], "type list"),
    ],
    ids=range(8),
)
def test_an_answer_that_knows_nobody_of_the_batch_is_none(answer: Any, named: str) -> None:
    with pytest.raises(InvalidAnswer, match=f"{named}.*customer_id, which is a str"):
        parse_answer(batch("1", "2"), answer)


@pytest.mark.parametrize("answer", [None, True, "A", b"A", {"A": True}, 7, object()], ids=range(7))
def test_what_is_no_answer(answer: object) -> None:
    with pytest.raises(InvalidAnswer, match="must return"):
        parse_answer(batch("A"), answer)
    with pytest.raises(InvalidAnswer, match="customer_ids"):
        parse_answer(batch("A"), customers("A"))


def test_an_answer_without_an_end_is_none() -> None:
    with pytest.raises(InvalidAnswer, match="must return those of its batch"):
        parse_answer(batch("A"), itertools.repeat("A"))


def test_an_answer_is_read_until_the_deadline() -> None:
    clock = itertools.count()
    deadline = Deadline.after(10, clock=lambda: float(next(clock)))
    with pytest.raises(TimeoutError):
        parse_answer(batch("A"), itertools.repeat("A"), deadline)
    assert next(clock) < 20


IDS = st.text(min_size=1, max_size=6) | st.text('",\\n {}:x', min_size=1, max_size=8)


@given(st.dictionaries(IDS.filter(str.strip), st.booleans(), min_size=1))
def test_an_update_is_the_json_of_its_statuses(statuses: dict[str, bool]) -> None:
    try:
        body = update_customer_promotion_status(5, statuses, timestamp=NOW).body
    except PayloadError:
        assert any("\ud800" <= letter <= "\udfff" for name in statuses for letter in name)
        return
    assert body is not None
    read = json.loads(body)
    assert (read["TimeStamp"], read["CampaignID"]) == ("2026-11-23 09:00:00", 5)
    assert {each["CustomerID"]: each["Status"] for each in read["PromosUpdated"]} == statuses
    assert len(read["PromosUpdated"]) == len(statuses)


@pytest.mark.parametrize(
    "name",
    [
        ",",
        'a",',
        ",\n",
        '",\n "',
        '","',
        '\\","',
        '"',
        "\\",
        'a","Status":true},{"CustomerID":"b',
        "\u2028x",
        "\x00",
    ],
)
def test_an_id_cannot_break_out_of_an_update(name: str) -> None:
    statuses = {name: True, "first": False, f"{name}x": False, f"{name}{name}": True, "last": True, f"x{name}": False}
    body = update_customer_promotion_status(5, statuses, timestamp=NOW).body
    assert body is not None
    assert json.loads(body)["PromosUpdated"] == [
        {"CustomerID": each, "Status": status} for each, status in statuses.items()
    ]


@pytest.mark.parametrize("statuses", [{"A": 1}, {"A": None}, {" ": True}, {"": True}, {7: True}, {b"A": True}])
def test_odd_statuses_are_refused(statuses: Any) -> None:
    with pytest.raises(PayloadError, match="ids that are not blank, each with True or False"):
        update_customer_promotion_status(5, statuses, timestamp=NOW)


@final
class Crash(Exception):  # noqa: N818 - an event of the model
    """The process died here."""


@final
class Disk:
    """What survives a crash, and what Optimove has been told."""

    def __init__(self, crashes: Sequence[int]) -> None:
        self.log: list[DecidedBatch] = []
        self.taken: list[tuple[int, int]] = []
        self.told: list[dict[str, bool]] = []
        self.asked: Counter[str] = Counter()
        self.decided_on_disk: set[str] = set()
        self._crashes = list(crashes)
        self._steps = 0

    def step(self) -> None:
        self._steps += 1
        if self._crashes and self._steps >= self._crashes[0]:
            self._steps = 0
            del self._crashes[0]
            raise Crash


def run(disk: Disk, pages: list[list[str]], *, size: int, chunk: int, report_denied: bool) -> Ledger:
    """Do what the pipeline does, one thing after the other, with a crash between any two of them."""
    ledger = Ledger(chunk_size=chunk, report_denied=report_denied, skip_control_group=False, taken=disk.taken)

    def send(*, flush: bool = False) -> None:
        while (update := ledger.next_chunk(flush=flush)) is not None:
            disk.step()
            disk.told.append(update.statuses)
            ledger.mark_acknowledged(update)
            disk.step()
            for start, end in update.ranges:
                disk.taken = sorted([*disk.taken, (start, end)])
                disk.step()

    for decided in disk.log:
        ledger.restore(decided)
        send()
    for page in pages:
        ledger.add_rows(customers(*page))
        while (asked := ledger.next_batch(size, flush=page is pages[-1])) is not None:
            disk.asked.update(asked.ids)
            assert not disk.decided_on_disk & set(asked.ids), "decided about twice"
            answer = parse_answer(asked, [name for name in asked.ids if sum(map(ord, name)) % 2])
            disk.step()
            disk.log.append(ledger.apply(asked, answer))
            disk.decided_on_disk.update(asked.ids)
            disk.step()
            ledger.mark_recorded([disk.log[-1]])
            send()
    send(flush=True)
    return ledger


@settings(max_examples=300, deadline=None)
@given(
    pages=st.lists(st.lists(FEW_IDS, max_size=6), min_size=1, max_size=5),
    size=st.integers(1, 5),
    chunk=st.integers(1, 4),
    reporting=st.lists(st.booleans(), min_size=1, max_size=4),
    crashes=st.lists(st.integers(1, 12), max_size=6),
)
def test_runs_that_crash_anywhere(
    pages: list[list[str]], size: int, chunk: int, reporting: list[bool], crashes: list[int]
) -> None:
    """Whether denials are reported may change with every run: what was not reported is not taken for reported."""
    disk = Disk(crashes)
    runs = 0
    while True:
        report_denied = reporting[min(runs, len(reporting) - 1)]
        runs += 1
        try:
            ledger = run(disk, pages, size=size, chunk=chunk, report_denied=report_denied)
        except Crash:
            continue
        break
    everybody = {name for page in pages for name in page}
    approved = {name for name in everybody if sum(map(ord, name)) % 2}
    wanted = {name: name in approved for name in everybody if report_denied or name in approved}
    told: dict[str, set[bool]] = {}
    for statuses in disk.told:
        assert len(statuses) <= chunk
        for name, status in statuses.items():
            told.setdefault(name, set()).add(status)
    assert told.items() >= {name: {status} for name, status in wanted.items()}.items()
    assert all(statuses == {name in approved} for name, statuses in told.items())
    if any(reporting) == all(reporting):
        assert told.keys() == wanted.keys()
    assert sum(map(len, disk.told)) <= len(told) + chunk * (runs - 1), "more than a chunk a crash was sent again"
    assert ledger.settled
    assert sum(end - start for start, end in disk.taken) == ledger.acknowledged <= len(told)
    assert (ledger.approved, ledger.denied) == (len(approved), len(everybody) - len(approved))
    assert ledger.waiting == ledger.unsent == ledger.failed == 0
    assert all(disk.asked[name] <= runs for name in everybody)
