"""What the decision logs in tables do: a class of tests to derive from, with fixtures `log` and `change`."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from optimove_conditional_execution import ConfigurationError, PayloadError
from optimove_conditional_execution.flows.journal import FIRST_DENIAL
from optimove_conditional_execution.stores import (
    ChainFault,
    Completion,
    DecisionLog,
    DecisionRecord,
    Subject,
    chained_log,
    log_rows,
)
from optimove_conditional_execution.stores.chained_log import ChainedLog
from tests.conftest import child_status
from tests.stores.record_groups_suite import RecordGroupsSuite

Change = Callable[..., None]
"""Executes statements behind the log's back, on the tables `decision_log` and `head`, the number of the last entry."""

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


def fault_of(log: ChainedLog, *, head: str | None = None) -> int | None:
    fault = log.verify(head=head)
    return None if fault is None else fault.entry


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


def kinds(log: ChainedLog) -> dict[str | None, str | None]:
    return {
        logged.record.subject.customer_id: None if logged.completion is None else logged.completion.kind
        for logged in log.decisions()
    }


class DecisionLogSuite(RecordGroupsSuite):
    def test_the_protocol(self, log: ChainedLog) -> None:
        assert isinstance(log, DecisionLog)

    def test_a_decision_comes_back_as_it_was_recorded(self, log: ChainedLog) -> None:
        first = record()
        log.append([first])
        (logged,) = log.decisions()
        assert (logged.record, logged.completion, logged.erased) == (first, None, False)
        done = completion(
            first, kind="undelivered", taken=False, error="Optimove did not take the answer: TransportError"
        )
        log.append([done])
        (logged,) = log.decisions()
        assert (logged.record, logged.completion) == (first, done)
        assert log.verify() is None

    def test_a_request_about_which_nobody_was_asked(self, log: ChainedLog) -> None:
        forged = DecisionRecord(at=NOON, flow="triggered", kind="forged", error="The signature is wrong.")
        log.append([forged])
        (logged,) = log.decisions()
        assert (logged.record, logged.erased) == (forged, False)
        assert log.verify() is None

    @pytest.mark.parametrize("text", ["\0", "\ud800", '"\\u0041"', "\n", "ü\U0001f600", "", "\\ud800", "\x00\x00"])
    def test_any_text_can_be_kept(self, log: ChainedLog, text: str) -> None:
        first = record(
            id=f"id{text}",
            subject=Subject(customer_id=text, campaign=text),
            reason=text,
            evidence={text: text},
            error=text,
        )
        log.append([first, completion(first, error=text)])
        (logged,) = log.decisions(customer_id=text, campaign=text)
        assert logged.record == replace(first, error=text or None)
        assert logged.completion is not None
        assert log.verify() is None
        assert log.erase(text) == 1
        assert not list(log.decisions(customer_id=text))

    def test_a_record_that_is_appended_again_is_not_doubled(self, log: ChainedLog) -> None:
        records = [record(number) for number in range(5)]
        log.append(records[:3])
        log.append(records)
        log.append(records)
        assert [logged.record for logged in log.decisions()] == records
        assert log.verify() is None

    def test_a_batch_of_which_the_log_holds_a_part(self, log: ChainedLog) -> None:
        """As when a reply was lost; more than one statement inserts, and the same record twice in one batch."""
        records = [record(number, id=f"{number:03}") for number in range(200)]
        log.append([*records[10:20], records[150]])
        log.append([*records, records[150], records[3]])
        held = [*range(10, 20), 150]
        expected = [*held, *(number for number in range(200) if number not in held)]
        assert [(each.entry, int(each.record.id)) for each in log.decisions()] == list(enumerate(expected, 1))
        assert log.verify() is None

    def test_what_records_of_a_batch_have_in_common_is_written_as_for_each_alone(self, log: ChainedLog) -> None:
        """Equal values need not be the same JSON; whoever calls `append` may have passed any."""
        values: list[dict[str, object]] = [
            {"error": True, "seconds": {}},
            {"error": 1, "seconds": {}},
            {"error": 1.0, "seconds": {}},
            {"error": 1, "seconds": {"decide": 1}},
            {"error": None, "reason": None, "evidence": {}, "additional_data": {}, "subject": Subject()},
        ]
        records = [record(number, request_uid="r", **given) for number, given in enumerate(values * 3)]
        together = log_rows.contents_of(records, None)
        for each, content in zip(records, together, strict=True):
            alone = log_rows.of_record(each, None, content.salt or b"")
            assert content == alone
        assert len({content.entry for content in together}) == len(values)
        log.append(records)
        assert log.verify() is None

    def test_questions(self, log: ChainedLog) -> None:
        log.append(
            [record(number, subject=Subject(customer_id=f"C{number % 2}", campaign="29")) for number in range(4)]
        )
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

    def test_more_decisions_than_one_portion(self, log: ChainedLog) -> None:
        log.append([record(number) for number in range(1_201)])
        assert [logged.record.request_uid for logged in log.decisions()] == [f"r-{number}" for number in range(1_201)]
        assert log.verify() is None

    @pytest.mark.parametrize("removed", [1, 2, 3, 5])
    def test_what_is_removed_is_found(self, log: ChainedLog, change: Change, removed: int) -> None:
        log.append([record(number) for number in range(5)])
        change(f"DELETE FROM decision_log WHERE number = {removed}")
        assert log.verify() == ChainFault(removed, "was removed")
        log.append([record(9)])
        assert log.verify() == ChainFault(removed, "was removed")

    @pytest.mark.parametrize("head", [0, 2, 3])
    def test_what_is_cut_off_at_the_end_is_found_by_what_the_database_keeps(
        self, log: ChainedLog, change: Change, head: int
    ) -> None:
        log.append([record(number) for number in range(5)])
        change("DELETE FROM decision_log WHERE number > 3")
        assert log.verify() == ChainFault(4, "was removed")
        change(f"UPDATE head SET number = {head}")
        fault = log.verify()
        # SQLite keeps no hash of it, so one that names the last entry that is left fits.
        assert fault is None if head == 3 and log._table == "decision_log" else fault is not None
        if fault is not None:
            assert fault.problem == "is not the one that the database keeps as the last"

    def test_what_is_removed_and_closed_up_is_found(self, log: ChainedLog, change: Change) -> None:
        log.append([record(number) for number in range(4)])
        change(
            "DELETE FROM decision_log WHERE number = 2",
            "UPDATE decision_log SET number = number - 1 WHERE number > 2",
            "UPDATE head SET number = 3",
        )
        assert fault_of(log) == 2

    @pytest.mark.parametrize("number", [0, -1])
    def test_a_completion_where_no_check_looks_does_not_count(
        self, log: ChainedLog, change: Change, number: int
    ) -> None:
        first = record()
        log.append([first, completion(first)])
        forged = "UPDATE head SET number = 1"
        if log._table != "decision_log":  # PostgreSQL, where the head has the hash too
            forged += ", hash = (SELECT hash FROM decision_log WHERE number = 1)"
        change(f"UPDATE decision_log SET number = {number} WHERE type = 'completion'", forged)
        assert log.verify() is None
        (logged,) = log.decisions()
        assert logged.completion is None

    def test_what_is_reordered_is_found(self, log: ChainedLog, change: Change) -> None:
        log.append([record(number) for number in range(5)])
        change(
            "UPDATE decision_log SET number = 99 WHERE number = 2",
            "UPDATE decision_log SET number = 2 WHERE number = 3",
            "UPDATE decision_log SET number = 3 WHERE number = 99",
            "UPDATE head SET number = 5",
        )
        assert fault_of(log) == 2

    def test_a_log_without_any_entry_that_had_some(self, log: ChainedLog, change: Change) -> None:
        log.append([record()])
        change("DELETE FROM decision_log")
        assert log.verify() == ChainFault(1, "was removed")

    def test_prune_keeps_the_chain(self, log: ChainedLog, change: Change) -> None:
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
        change("DELETE FROM decision_log WHERE number = 13")
        assert fault_of(log) == 13
        with pytest.raises(ConfigurationError, match="before must have a zone"):
            log.prune(datetime(2026, 3, 3))

    def test_prune_deletes_in_portions_and_goes_on_after_a_crash(
        self, log: ChainedLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log.append([record(number) for number in range(10)])
        monkeypatch.setattr(chained_log, "_PRUNED_AT_ONCE", 3)
        portions: list[int] = []
        change = log._change

        def crash(work: Any) -> Any:
            portions.append(len(portions))
            if len(portions) == 4:  # after the mark and two portions
                raise KeyboardInterrupt
            return change(work)

        monkeypatch.setattr(log, "_change", crash)
        with pytest.raises(KeyboardInterrupt):
            log.prune(NOON + timedelta(minutes=8))
        assert [logged.entry for logged in log.decisions()] == [9, 10], "the rest is hidden"
        assert log.verify() is None
        log.append([record(11)])
        assert log.prune(NOON) == 2
        assert log.verify() is None
        assert [logged.entry for logged in log.decisions()] == [9, 10, 12]
        assert log.prune(NOON + timedelta(minutes=9)) == 1

    def test_a_pruning_that_points_behind_itself_hides_nothing(self, log: ChainedLog, change: Change) -> None:
        log.append([record(number) for number in range(5)])
        log.prune(NOON + timedelta(minutes=1))
        assert fault_of(log) is None
        change(
            "UPDATE decision_log SET entry = replace(entry, '\"through\":1', '\"through\":7') WHERE type = 'pruning'"
        )
        assert fault_of(log) is not None
        assert len(list(log.decisions())) == 4

    def test_a_log_that_is_pruned_to_the_end(self, log: ChainedLog, change: Change) -> None:
        log.append([record(number) for number in range(3)])
        assert log.prune(datetime.now(UTC) + timedelta(days=365)) == 3
        assert (list(log.decisions()), log.verify()) == ([], None)
        log.append([record(4)])
        assert log.verify() is None
        change("DELETE FROM decision_log WHERE type = 'pruning'")
        assert log.verify() is not None

    def test_a_pruning_to_a_kept_head_names_its_very_entry(self, log: ChainedLog) -> None:
        log.append([record(number) for number in range(3)])
        head = log.head()
        log.prune(datetime.now(UTC) + timedelta(days=365))
        assert log.verify(head=head) is None
        assert log.verify(head=f"3:{'0' * 64}") == ChainFault(3, "is not the one whose head was kept")

    def test_what_was_removed_cannot_be_passed_off_as_pruned(self, log: ChainedLog, change: Change) -> None:
        log.append([record(number) for number in range(5)])
        log.prune(NOON + timedelta(minutes=1))
        change(
            "DELETE FROM decision_log WHERE number = 2",
            "UPDATE decision_log SET entry = replace(entry, '\"through\":1', '\"through\":2') WHERE type = 'pruning'",
        )
        assert fault_of(log) == 3

    def test_erase_keeps_that_a_suppression_happened(self, log: ChainedLog, change: Change) -> None:
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

    def test_who_blanks_a_customer_without_erase_is_found(self, log: ChainedLog, change: Change) -> None:
        log.append([record(number) for number in range(4)])
        log.erase("C-1")
        change("UPDATE decision_log SET customer = NULL, personal = NULL, salt = NULL WHERE number = 3")
        assert log.verify() == ChainFault(3, "has lost its personal part, and no erasure says so")

    def test_an_erasure_that_was_pruned_with_what_it_erased(self, log: ChainedLog) -> None:
        log.append([record(number) for number in range(3)])
        log.erase("C-0")
        log.append([record(4, at=datetime.now(UTC) + timedelta(hours=1))])
        assert log.prune(datetime.now(UTC) + timedelta(minutes=1)) == 3
        assert log.verify() is None

    def test_what_cannot_be_kept_is_refused_and_nothing_is_written(self, log: ChainedLog) -> None:
        log.append([record()])
        head = log.head()
        for bad in (object, float("nan"), float("inf")):
            for field in ("evidence", "seconds"):
                with pytest.raises(PayloadError, match="cannot be written as JSON") as error:
                    log.append([record(1), record(2, **{field: {"at": bad}})])
                assert "C-2" not in str(error.value)
        with pytest.raises(ConfigurationError, match="must have a zone"):
            log.append([record(1), record(2, at=datetime(2026, 3, 3))])
        assert log.head() == head

    def test_nothing_personal_is_in_a_repr(self, log: ChainedLog) -> None:
        log.append([record()])
        (logged,) = log.decisions()
        shown = repr(logged) + repr(log) + repr(record())
        for hidden in ("C-0", "excluded", "R/7", "'decision'"):
            assert hidden not in shown

    def test_a_batch_is_completed_by_ranges(self, log: ChainedLog) -> None:
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

    def test_a_refusal_does_not_say_that_an_earlier_update_was_not_taken(self, log: ChainedLog) -> None:
        log.append([reviewed(0, "A")])
        log.append([of_range(0, 1, "undelivered", taken=None)])
        log.append([of_range(0, 1, "undelivered", taken=False)])
        (logged,) = log.decisions()
        assert logged.completion is not None
        assert (logged.completion.kind, logged.completion.taken) == ("undelivered", None)

    def test_what_a_crash_kept_out_of_the_journal_is_never_completed(self, log: ChainedLog) -> None:
        log.append([reviewed(0, "A"), reviewed(1, "B")])
        # The journal has A alone when the next run begins; then B is denied, and C has its number.
        log.append([of_range(1, FIRST_DENIAL, "discarded", taken=None), of_range(FIRST_DENIAL, 2**63 - 1, "discarded")])
        log.append([reviewed(FIRST_DENIAL, "B2", at=1), reviewed(1, "C", at=1)])
        log.append([of_range(0, 2), of_range(FIRST_DENIAL, FIRST_DENIAL + 1)])
        assert kinds(log) == {"A": "acknowledged", "B": "discarded", "B2": "acknowledged", "C": "acknowledged"}

    def test_a_campaign_is_read_in_flat_memory(self, log: ChainedLog) -> None:
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

    def test_threads_append_to_one_chain(self, log: ChainedLog) -> None:
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

    def test_an_entry_that_cannot_be_written_fails_no_other(self, log: ChainedLog) -> None:
        for number in (-1, 2**63, True, 1.5):
            with pytest.raises(PayloadError, match="number of a status"):
                log.append([replace(record(1), number=number)])  # type: ignore[arg-type]
            with pytest.raises(PayloadError, match="number of a status"):
                log.append([Completion(at=NOON, completes=EVENT, numbers=(0, number), kind="x")])  # type: ignore[arg-type]
        assert not list(log.decisions())

    def test_a_forked_child_appends_too(self, log: ChainedLog) -> None:
        log.append([record(0)])

        def appends() -> bool:
            log.append([record(1)])
            return True

        assert child_status(appends) == 0
        log.append([record(2)])
        assert len(list(log.decisions())) == 3
        assert log.verify() is None
