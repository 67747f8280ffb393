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

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReadyEvent,
    Deadline,
    Decision,
    PayloadError,
    Response,
    ServerError,
)
from optimove_conditional_execution.flows.journal import FIRST_DENIAL, DecidedBatch
from optimove_conditional_execution.flows.known_customers import Asked, KnownCustomers, Standing
from optimove_conditional_execution.flows.ledger import Answered, Ledger
from optimove_conditional_execution.flows.reviewer_answer import InvalidAnswer, failure_of, parse_answer
from optimove_conditional_execution.flows.row_sets import RowSets
from optimove_conditional_execution.operations import update_customer_promotion_status

NOW = datetime(2026, 11, 23, 9)
FEW_IDS = st.sampled_from([f"C{number}" for number in range(12)])


def customers(*ids: str) -> list[CampaignCustomer]:
    return [CampaignCustomer.model_validate({"CustomerID": name}) for name in ids]


EVENT = CampaignReadyEvent(event_type_id=5, timestamp=NOW, campaign_id=5, clearance_required_by=NOW)
ROWS = [(channel, 19, 7, codes) for channel in (504, 505, "x", None, [1]) for codes in ((), ("A",), ("A", "B"), ("B",))]


@given(st.lists(st.tuples(FEW_IDS, st.integers(0, len(ROWS) - 1)), max_size=40), st.integers(1, 5))
def test_who_is_asked_about_again(read: list[tuple[str, int]], block: int) -> None:
    """Against sets of pairs: a row brings something new when its channel, or a code for its channel, is not known."""
    sets = RowSets()
    known, model, numbers = KnownCustomers(sets), dict[str, set[tuple[str, str]]](), dict[str, int]()
    for start in range(0, len(read), block):
        part = read[start : start + block]
        asked = known.read([name for name, _ in part], [ROWS[index] for _, index in part]).asked
        for (name, index), number in zip(part, asked, strict=True):
            channel, _, _, codes = ROWS[index]
            pairs = {(str(channel), ""), *((str(channel), code) for code in codes)}
            assert bool(number) == bool(pairs - model.get(name, set()))
            model.setdefault(name, set()).update(pairs)
            numbers[name] = number or numbers[name]
    for name, number in numbers.items():
        rows = sets.rows(number)
        shown = {(str(one.channel_id), code) for one in rows for code in ("", *one.promo_codes)}
        assert shown == model[name]
        assert sets.rows(sets.number(sets.text(number))) == rows
    assert known.counts[Standing.OPEN] == len(known) == len(model)


def test_a_table_of_customers_grows_and_keeps_what_it_knows() -> None:
    sets = RowSets()
    known = KnownCustomers(sets)
    row = [(504, 19, 7, ())]
    for start in range(0, 200_000, 5_000):
        _, asked, _, again = known.read([f"C{number}" for number in range(start, start + 5_000)], row * 5_000)
        assert (set(asked), again) == ({1}, 0)
        if start == 10_000:
            names = tuple([f"C{number}" for number in range(15_000)])
            known.refuse(Asked(names, tuple(known.places(names)), (1,) * 15_000), Standing.DENIED)
    assert len(known) == 200_000
    everybody = [f"C{number}" for number in range(200_000)]
    read = known.read(everybody, row * 200_000)
    assert read == (list(range(1, 200_001)), [0] * 200_000, [False] * 200_000, 200_000)
    assert known.those_who(everybody, Standing.DENIED) == [number < 15_000 for number in range(200_000)]
    assert known.counts[: Standing.ABSTAINED] == [185_000, 0, 15_000]


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("values", [(1, True), (0, False), (1, "1"), (None, "null"), (1.0, True), ("", None)])
def test_values_of_other_types_are_other_rows(at: int, values: tuple[object, object]) -> None:
    """Each bring something new, whichever is read first; `True == 1` in Python."""
    rows: list[Any] = [(*[7] * at, value, *[7] * (3 - at)) for value in values]
    for first, second in itertools.permutations(rows):
        sets = RowSets()
        for _ in range(2):  # the second time from a cache
            number = sets.add(0, first)
            both = sets.add(number, second)
            assert len(sets.rows(both)) == 2
            assert sets.add(both, first) == sets.add(both, second) == both
            assert number == sets.add(0, first) != sets.add(0, second)


def test_a_promo_code_that_is_no_number_is_new_once() -> None:
    sets = RowSets()
    number = sets.add(0, (1, 2, 3, [float("nan")]))
    assert sets.add(number, (1, 2, 3, [float("nan")])) == number


def test_a_row_is_held_once_however_large_its_set_is() -> None:
    sets = RowSets()
    number = 0
    for channel in range(300):
        number = sets.add(number, (channel, 19, 7, ("A",)))
    assert [row.channel_id for row in sets.rows(number)] == list(range(300))
    assert len(sets._texts) == len(sets.text(number)) - len("[]") - 299  # commas
    assert sets.rows(number) is sets.rows(number)


def test_personal_promo_codes_do_not_confuse_anybody() -> None:
    """More sets than are shared, and than two bytes can number."""
    sets = RowSets()
    known = KnownCustomers(sets)
    names = tuple([f"C{number}" for number in range(70_000)])
    rows = [(504, 19, 7, (f"CODE-{number}",)) for number in range(70_000)]
    places, asked, _, _ = known.read(names, rows)
    first = tuple(asked)
    assert known.approve(Asked(names, tuple(places), first)) == [True] * 70_000
    assert set(known.read(names, rows).asked) == {0}
    second = known.read(names[-2:], [(505, 19, 7, ())] * 2).asked
    assert [len(sets.rows(number)) for number in second] == [2, 2]
    assert sets.rows(second[1])[0].promo_codes == ("CODE-69999",)
    assert known.counts[Standing.APPROVED] == 69_998
    restored = KnownCustomers(RowSets())
    numbers = tuple(map(restored._row_sets.number, map(sets.text, first)))
    assert restored.approve(Asked(names, tuple(restored.places(names)), numbers)) == [True] * 70_000
    assert set(restored.read(names, rows).asked) == {0}


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
    read = parse_answer(("A", "B"), answer)
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
        parse_answer(("1", "2"), answer)


MAPPINGS: list[tuple[dict[Any, Any], set[str], set[str], dict[str, str]]] = [
    ({}, set(), set(), {}),
    ({"A": True, "B": False}, {"A"}, set(), {}),
    ({"B": True}, {"B"}, set(), {}),
    ({"A": Decision.approve(reason="vip"), "B": Decision.deny("minor")}, {"A"}, set(), {"A": "vip", "B": "minor"}),
    ({"A": Decision.abstain("?"), "B": Decision.approve({"x": 1})}, {"B"}, {"A"}, {"A": "?"}),
]


@pytest.mark.parametrize(("answer", "approved", "abstained", "reasons"), MAPPINGS, ids=range(len(MAPPINGS)))
def test_mappings(answer: Any, approved: set[str], abstained: set[str], reasons: dict[str, str]) -> None:
    read = parse_answer(("A", "B"), answer)
    assert (read.approved, read.abstained, read.reasons, read.failed) == (approved, abstained, reasons, {})


@pytest.mark.parametrize(
    ("value", "named"),
    [(1, "int"), ("yes", "str"), ("approve", "str"), (None, "NoneType"), ([True], "list"), ((True, "x"), "tuple")],
)
def test_odd_values_of_a_mapping_fail_alone(value: object, named: str) -> None:
    read = parse_answer(("A", "B", "C"), {"A": value, "B": True, "Z": True})
    assert (set(read.approved), list(read.failed), read.unknown_ids) == ({"B"}, ["A"], 1)
    text = f"The reviewer's mapping holds a {named}; it must hold True, False or a Decision."
    assert read.failed["A"].text == text


class Refused(Exception):  # noqa: N818 - any
    response: Any = None
    status_code: Any = None


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({}, "Refused"),
        ({"status_code": 503}, "Refused 503"),
        ({"response": Response(429)}, "Refused 429"),
        ({"status": "ok"}, "Refused"),
        ({"status": True}, "Refused"),
        ({"status": 7}, "Refused"),
    ],
    ids=range(6),
)
def test_the_kind_of_a_failure_has_the_status_of_http(attributes: dict[str, Any], kind: str) -> None:
    error = Refused("customer-5")
    error.__dict__.update(attributes)
    failure = failure_of(error)
    assert (failure.kind, failure.text) == (kind, "The reviewer raised Refused.")
    assert failure_of(ServerError("", status=502, operation="")).kind == "ServerError 502"


@pytest.mark.parametrize("answer", [None, True, "A", b"A", {"Z": True}, {1: True}, 7, object()], ids=range(8))
def test_what_is_no_answer(answer: object) -> None:
    with pytest.raises(InvalidAnswer, match=r"must return|customer_id, which is a str"):
        parse_answer(("A",), answer)
    with pytest.raises(InvalidAnswer, match="customer_ids"):
        parse_answer(("A",), customers("A"))


def test_an_answer_without_an_end_is_none() -> None:
    with pytest.raises(InvalidAnswer, match="must return those of its batch"):
        parse_answer(("A",), itertools.repeat("A"))


def test_an_answer_is_read_until_the_deadline() -> None:
    clock = itertools.count()
    deadline = Deadline.after(10, clock=lambda: float(next(clock)))
    with pytest.raises(TimeoutError):
        parse_answer(("A",), itertools.repeat("A"), deadline)
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
        self.asked: Counter[tuple[str, int]] = Counter()
        self.decided_on_disk: set[tuple[str, Any]] = set()
        self.runs = 0
        self._crashes = list(crashes)
        self._steps = 0

    def step(self) -> None:
        self._steps += 1
        if self._crashes and self._steps >= self._crashes[0]:
            self._steps = 0
            del self._crashes[0]
            raise Crash

    def record(self, ledger: Ledger, batch: DecidedBatch) -> None:
        self.step()
        self.log.append(DecidedBatch.from_json(batch.to_json()))
        self.step()
        ledger.mark_recorded([batch])


Rows = list[tuple[str, int]]
"""Customers, each with a channel."""


def says_no(name: str, channels: set[Any]) -> bool:
    """Whether the reviewer denies: by the channels that it is shown, so that one of them can revoke another."""
    return any((sum(map(ord, name)) + channel) % 5 == 0 for channel in channels)


def run(disk: Disk, pages: list[Rows], *, size: int, chunk: int, report_denied: bool, missing: int) -> Ledger:
    """Do what the pipeline does, one thing after the other, with a crash between any two of them.

    Args:
        disk: What survives.
        pages: The rows of the campaign.
        size: Customers per batch.
        chunk: Statuses per update.
        report_denied: Whether denials are reported.
        missing: Pages that this run does not get: as at the safety margin, it sends all the same.
    """
    disk.runs += 1
    ledger = Ledger(
        event=EVENT,
        chunk_size=chunk,
        report_denied=report_denied,
        skip_control_group=False,
        taken=merged(disk.taken),
    )

    def send() -> None:
        while (update := ledger.next_chunk()) is not None:
            disk.step()
            disk.told.append(dict.fromkeys(update.ids, update.approves))
            ledger.mark_acknowledged(update)
            disk.step()
            disk.taken = sorted([*disk.taken, *update.ranges])
            disk.step()

    for decided in disk.log:
        ledger.restore(decided)
    ledger.send_released()
    send()
    come = pages[: len(pages) - missing]
    for page in come:
        rows = [{"CustomerID": name, "ChannelID": channel} for name, channel in page]
        ledger.add_rows([CampaignCustomer.model_validate(each) for each in rows])
        while (batch := ledger.next_batch(size, flush=page is come[-1])) is not None:
            for one in batch.customers:
                about = {(one.customer_id, row.channel_id) for row in one.rows}
                assert not about <= disk.decided_on_disk, "decided about twice"
                disk.asked[one.customer_id, len(one.rows)] += 1
            shown = {one.customer_id: {row.channel_id for row in one.rows} for one in batch.customers}
            answer = parse_answer(batch.asked.ids, [name for name in batch.asked.ids if not says_no(name, shown[name])])
            disk.step()
            disk.record(ledger, ledger.decide(Answered(batch.asked, answer)))
            disk.decided_on_disk |= {(name, channel) for name, channels in shown.items() for channel in channels}
    if ledger.unreleased:
        disk.record(ledger, DecidedBatch(released=disk.runs))
    ledger.send_all()
    send()
    return ledger


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges as a journal keeps them."""
    told: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if told and start <= told[-1][1]:
            told[-1] = (told[-1][0], max(end, told[-1][1]))
        else:
            told.append((start, end))
    return told


@pytest.mark.parametrize("crashed_after", [0, 1])
def test_what_a_later_run_approves_is_not_taken_for_sent(crashed_after: int) -> None:
    """The first run released its approvals, of which one is revoked, so there is a gap in their numbers."""

    def ledger() -> Ledger:
        taken = [(0, crashed_after)] if crashed_after else []
        return Ledger(event=EVENT, chunk_size=10, report_denied=False, skip_control_group=False, taken=taken)

    def decided(books: Ledger, rows: list[tuple[str, int]], approved: Sequence[str]) -> DecidedBatch:
        books.add_rows([CampaignCustomer.model_validate({"CustomerID": name, "ChannelID": at}) for name, at in rows])
        batch = books.next_batch(100, flush=True)
        assert batch is not None
        return books.decide(Answered(batch.asked, parse_answer(batch.asked.ids, approved)))

    before = ledger()
    log = [
        decided(before, [("A", 1), ("B", 1), ("C", 1)], ["A", "B", "C"]),
        decided(before, [("C", 2)], []),
        DecidedBatch(released=1),
    ]
    after = ledger()
    for batch in log:
        after.restore(batch)
    after.send_released()
    update = after.next_chunk()
    assert update is not None
    assert update.ids == ["A", "B"][crashed_after:]
    after.mark_acknowledged(update)
    after.mark_recorded([decided(after, [("D", 1), ("E", 1), ("F", 1)], ["D", "E", "F"])])
    assert (after.acknowledged, after.unsent) == (2, 3)
    after.send_all()
    update = after.next_chunk()
    assert update is not None
    assert update.ids == ["D", "E", "F"]
    after.mark_acknowledged(update)
    assert (after.acknowledged, after.settled, after.next_chunk()) == (5, True, None)


@settings(max_examples=200)
@given(
    pages=st.lists(st.lists(st.tuples(FEW_IDS, st.integers(1, 3)), max_size=6), min_size=1, max_size=5),
    size=st.integers(1, 5),
    chunk=st.integers(1, 4),
    reporting=st.lists(st.booleans(), min_size=1, max_size=4),
    missing=st.lists(st.integers(0, 2), max_size=3),
    crashes=st.lists(st.integers(1, 12), max_size=6),
)
def test_runs_that_crash_anywhere(
    pages: list[Rows],
    size: int,
    chunk: int,
    reporting: list[bool],
    missing: list[int],
    crashes: list[int],
) -> None:
    """Whether denials are reported, and how many pages come, may change with every run."""
    disk = Disk(crashes)
    runs = 0
    while True:
        report_denied = reporting[min(runs, len(reporting) - 1)]
        left_out = min(missing[runs], len(pages)) if runs < len(missing) else 0
        runs += 1
        try:
            ledger = run(disk, pages, size=size, chunk=chunk, report_denied=report_denied, missing=left_out)
        except Crash:
            continue
        if not left_out:
            break
    channels: dict[str, set[Any]] = {}
    for page in pages:
        for name, channel in page:
            channels.setdefault(name, set()).add(channel)
    told: dict[str, set[bool]] = {}
    for statuses in disk.told:
        assert 0 < len(statuses) <= chunk
        for name, status in statuses.items():
            told.setdefault(name, set()).add(status)
    assert all(len(statuses) == 1 for statuses in told.values()), "nobody is told two things"
    approved = {name for name, known in channels.items() if not says_no(name, known)}
    # Who was sent while pages were missing stays approved, whatever those pages say.
    too_early = {name for name, statuses in told.items() if statuses == {True}} - approved
    assert not too_early or any(missing)
    wanted = {name: name in approved | too_early for name in channels if report_denied or name in approved | too_early}
    assert told.items() >= {name: {status} for name, status in wanted.items()}.items()
    assert sum(map(len, disk.told)) <= len(told) + chunk * (runs - 1), "more than a chunk a crash was sent again"
    assert ledger.settled
    assert sum(end - start for start, end in merged(disk.taken)) == ledger.acknowledged <= len(told)
    assert (ledger.approved, ledger.denied) == (
        len(wanted_yes := approved | too_early),
        len(channels) - len(wanted_yes),
    )
    assert ledger.waiting == ledger.unsent == ledger.failed == ledger.unreleased == 0
    assert sum(batch.newly_decided for batch in disk.log) == len(channels)
    if not too_early:
        assert sum(batch.newly_approved for batch in disk.log) == len(approved)
    assert all(count <= runs for count in disk.asked.values())


def test_a_large_batch_leaves_in_small_updates() -> None:
    names = [f"C{number}" for number in range(9_000)]
    ledger = Ledger(event=EVENT, chunk_size=4, report_denied=True, skip_control_group=False)
    ledger.add_rows(customers(*names))
    batch = ledger.next_batch(len(names))
    assert batch is not None
    answer = parse_answer(names, names[:8_001])
    ledger.mark_recorded([ledger.decide(Answered(batch.asked, answer))])
    ledger.send_all()
    chunks = list(iter(ledger.next_chunk, None))
    told = [(name, chunk.approves) for chunk in chunks for name in chunk.ids]
    assert told == [(name, name in answer.approved) for name in names]
    assert [len(chunk.ids) for chunk in chunks] == [*[4] * 2_000, 1, *[4] * 249, 3]
    assert [chunks[number].ranges for number in (2_000, 2_001)] == [
        ((8_000, 8_001),),
        ((FIRST_DENIAL, FIRST_DENIAL + 4),),
    ]
