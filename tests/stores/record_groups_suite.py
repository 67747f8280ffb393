"""What a decision log does with records of a review that share a row: the same as with a row for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from optimove_conditional_execution import ConfigurationError, PayloadError
from optimove_conditional_execution.flows.decision_log import RecordGroup, RecordGroups
from optimove_conditional_execution.stores import ChainFault, Completion, DecisionRecord, Subject, log_rows
from optimove_conditional_execution.stores.chained_log import ChainedLog

NOON = datetime(2026, 3, 3, 12, tzinfo=UTC)
KEY = "5:77:2026-03-03T12:00:00:2026-03-03T13:00:00"
CHANGED = "was changed, or moved, or replaced by another one"
HARD = ("", "\\", "\n", '"', "\0", "\ud800", "ü\U0001f600", "\\ud800", "C1", "C11", "1")

MAIL, SMS = (Subject(campaign="77", action="2", channels=(channel,)) for channel in ("15", "490"))


def group(customers: Sequence[str], first: int = 0, **given: Any) -> RecordGroup:
    common = DecisionRecord(
        id=f"{KEY}/000001-00/", at=NOON, flow="scheduled", kind="approved", event_key=KEY, number=first,
        verdict="approve",
    )  # fmt: skip
    fields = {"common": common, "subjects": [MAIL] * len(customers), **given}
    return RecordGroup(first=first, customers=customers, **fields)


def names(count: int, start: int = 0) -> list[str]:
    return [f"C{number}" for number in range(start, start + count)]


def of_range(start: int, end: int, kind: str = "acknowledged") -> Completion:
    return Completion(at=NOON, completes=KEY, numbers=(start, end), kind=kind, taken=True)


def fault(log: ChainedLog) -> int | None:
    found = log.verify()
    return None if found is None else found.entry


class RecordGroupsSuite:
    def test_records_that_share_a_row_come_back_as_each_alone(self, log: ChainedLog) -> None:
        given = group(
            HARD,
            subjects=[(MAIL, SMS)[number % 3 == 0] for number in range(len(HARD))],
            reasons={"C1": "excluded", "\n": "\ud800\n"},
            evidence={"C11": {"version": 4}},
        )
        log.append(RecordGroups([given]))
        assert "C11" not in repr(given)
        assert [logged.record for logged in log.decisions()] == list(given)
        assert [logged.entry for logged in log.decisions()] == list(range(1, len(HARD) + 1))
        for number, name in enumerate(HARD):
            (logged,) = log.decisions(customer_id=name, campaign=77)
            assert (logged.entry, logged.record.subject.customer_id) == (number + 1, name)
        assert not list(log.decisions(customer_id="C"))
        assert not list(log.decisions(customer_id="C1", until=NOON))
        assert log.verify() is None

    def test_a_batch_of_any_size_and_other_entries_are_one_chain(self, log: ChainedLog) -> None:
        log.append([of_range(0, 1, "discarded")])
        log.append(RecordGroups([group([])]))
        log.append(RecordGroups([group(names(2_003)), group(["X"], 2_003)]))
        log.append([of_range(0, 2_004)])
        found = list(log.decisions())
        assert [logged.entry for logged in found] == list(range(2, 2_006))
        assert [logged.record.number for logged in found] == list(range(2_004))
        assert len({logged.record.id for logged in found}) == 2_004
        assert all(logged.completion is not None and logged.completion.taken for logged in found)
        assert log.verify() is None
        assert log.head().startswith("2006:")

    def test_a_completion_is_about_those_in_its_range(self, log: ChainedLog) -> None:
        log.append(RecordGroups([group(names(5), 10)]))
        log.append([of_range(0, 12), of_range(13, 20, "undelivered")])
        kinds = [logged.completion and logged.completion.kind for logged in log.decisions()]
        assert kinds == ["acknowledged", "acknowledged", None, "undelivered", "undelivered"]

    def test_groups_that_are_appended_again_are_not_doubled(self, log: ChainedLog) -> None:
        first, second = group(names(1_005)), group(names(5, 2_000), 2_000)
        log.append(RecordGroups([first]))
        log.append(RecordGroups([first, second]))
        log.append(RecordGroups([first, second]))
        assert [logged.record for logged in log.decisions()] == [*first, *second]
        assert log.verify() is None

    @pytest.mark.parametrize(
        ("set_to", "entry"),
        [
            ("customer = replace(customer, 'C3', 'C9')", 5),
            ("customer = replace(customer, 'C3', '')", 5),
            ("customer = replace(customer, 'C3', 'C3\n')", 6),
            ("customer = replace(customer, 'C5', 'C5\nC6')", 7),
            ("customer = replace(customer, '\nC5', '')", 7),
            ("customer = customer || 'C6\n'", 7),
            ("customer = NULL", 2),
            ("personal = replace(personal, 'excluded', 'included')", 4),
            ("personal = personal || '\n'", 7),
            ("personal = NULL", 2),
            ("entry = replace(entry, '490', '491')", 3),
            ("entry = replace(entry, '[1,2]', '[1,3]')", 5),
            ("entry = entry || '\n'", 7),
            ("entry = '[[0,1000000000]]'", 2),
            (f"entry = '[[0,{'9' * 30}]]'", 2),
            (f"entry = '{'[' * 100_000}'", 2),
            ("entry = 'x'", 2),
            ("at = '2026-03-03T12:00:00.000001+00:00'", 2),
            ("campaign = '78'", 2),
            ("low = 7", 2),
            ("low = NULL", 2),
            ("high = 7", 2),
            ("completes = 'x'", 2),
            ("id = 'x'", 2),
            ("id = NULL", 2),
            ("type = 'decision'", 2),
            ("size = 5", 2),
            ("size = 7", 2),
            ("salt = hash", 2),
            ("salt = NULL", 2),
            ("commitment = hash", 2),
            ("commitment = NULL", 7),
            ("hash = (SELECT hash FROM decision_log WHERE number = 1)", 7),
            ("number = 9", 2),
        ],
    )
    def test_the_first_record_that_was_changed_is_named(
        self, log: ChainedLog, change: Callable[..., None], set_to: str, entry: int
    ) -> None:
        subjects = [MAIL, SMS, SMS, MAIL, MAIL, MAIL]
        log.append([of_range(0, 0)])
        log.append(RecordGroups([group(names(6), subjects=subjects, reasons={"C2": "excluded"})]))
        log.append([of_range(0, 6)])
        assert log.verify() is None
        change(f"UPDATE decision_log SET {set_to} WHERE type = 'group'")
        assert fault(log) == entry

    def test_a_head_inside_of_a_row_is_not_the_one_that_was_kept(self, log: ChainedLog) -> None:
        log.append(RecordGroups([group(names(6))]))
        assert log.verify(head=log.head()) is None
        assert log.verify(head=f"3:{'0' * 64}") == ChainFault(6, "is not the one whose head was kept")

    def test_one_of_many_is_erased(self, log: ChainedLog, change: Callable[..., None]) -> None:
        given = group(names(6), reasons={"C2": "excluded"})
        log.append(RecordGroups([given]))
        log.append([of_range(0, 6), replace(next(iter(given)), id="single", subject=Subject(customer_id="C2"))])
        head = log.head()
        assert log.erase("C2") == 2
        assert log.erase("C2") == 0
        assert log.verify(head=head) is None
        assert [logged.entry for logged in log.decisions() if logged.erased] == [3, 8]
        third = list(log.decisions())[2]
        assert (third.record.subject, third.record.reason) == (MAIL, None)
        assert (third.record.verdict, third.completion and third.completion.taken) == ("approve", True)
        assert not list(log.decisions(customer_id="C2"))
        assert len(list(log.decisions(customer_id="C3"))) == 1
        change("DELETE FROM decision_log WHERE type = 'erasure'", "UPDATE head SET number = 8")
        assert fault(log) is not None

    def test_who_blanks_one_of_many_without_erase_is_found(self, log: ChainedLog, change: Callable[..., None]) -> None:
        log.append(RecordGroups([group(names(6))]))
        log.erase("C4")
        # As `erase` does it; only who knows the salt can.
        (row,) = log._query(lambda execute: log._rows(execute, "type = 'group'", ()))

        content, numbers = log_rows.without(row, "C1")
        assert numbers == [2]
        log._change(
            lambda execute, _: execute(
                f"UPDATE {log._table} SET customer = ?, salt = ? WHERE type = 'group'", (content.customer, content.salt)
            )
        )
        assert log.verify() == ChainFault(2, "has lost its personal part, and no erasure says so")

    def test_groups_are_pruned(self, log: ChainedLog) -> None:
        later = replace(group([]).common, at=NOON + timedelta(hours=1))
        log.append(RecordGroups([group(names(1_200))]))
        log.append(RecordGroups([group(names(3), 1_200, common=later)]))
        assert log.prune(NOON + timedelta(minutes=1)) == 1_200
        assert [logged.entry for logged in log.decisions()] == [1_201, 1_202, 1_203]
        assert log.verify() is None
        with pytest.raises(ConfigurationError, match="was pruned: the log begins with 1201"):
            log.verify(head=f"3:{'0' * 64}")

    def test_what_differs_in_more_has_a_row_each(self, log: ChainedLog) -> None:
        given = [
            group(names(3), others=lambda name: {"observed": "denied" if name == "C1" else None}),
            group(names(2, 3), 3, subjects=[MAIL, replace(MAIL, campaign="78")]),
        ]
        log.append(RecordGroups(given))
        assert [logged.record for logged in log.decisions()] == [record for each in given for record in each]
        assert log.verify() is None

    def test_a_group_that_cannot_be_written_is_refused(self, log: ChainedLog) -> None:
        for number in (-1, 2**63 - 2):
            with pytest.raises(PayloadError, match="number of a status"):
                log.append(RecordGroups([group(names(3), common=replace(group([]).common, number=number))]))
        with pytest.raises(PayloadError, match="cannot be written as JSON"):
            log.append(RecordGroups([group(names(3), evidence={"C1": {"at": object}})]))
        assert not list(log.decisions())
