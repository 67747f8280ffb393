"""Customers in several rows: no channel's, promotion's or template's answer counts for another's."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReview,
    CustomerBatch,
    CustomerRow,
    Deadline,
    DeadlineExceeded,
    Response,
)
from optimove_conditional_execution.stores import DecidedBatch, MemoryJournal, SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove
from tests.review.conftest import Rig, both_colours, everybody

EMAIL, SMS, PUSH = 504, 505, 506
CONSENT = {EMAIL: {"both", "mail"}, SMS: {"both"}}


def row(name: str, channel: int = EMAIL, *, action: int = 19, template: int = 7, promo: str = "") -> dict[str, Any]:
    return {
        "CustomerID": name,
        "ActionID": action,
        "ChannelID": channel,
        "TemplateID": template,
        "PromoCode": promo,
    }


class Asked:
    """A reviewer that keeps what it was shown, and approves whoever consents to every channel that it is shown."""

    def __init__(self, consent: dict[int, set[str]] = CONSENT) -> None:
        self.consent = consent
        self.rows: defaultdict[str, list[tuple[CustomerRow, ...]]] = defaultdict(list)

    def __call__(self, customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        assert len({customer.customer_id for customer in customers}) == len(customers)
        for customer in customers:
            self.rows[customer.customer_id].append(customer.rows)
        return [
            customer.customer_id
            for customer in customers
            if all(customer.customer_id in self.consent.get(one.channel_id, ()) for one in customer.rows)  # type: ignore[arg-type]
        ]


PAGED: dict[str, Any] = {"page_size": 2, "batch_size": 1, "client_options": {"rate_limit": None}}


@pytest.mark.parametrize("report_denied", [False, True])
@pytest.mark.parametrize("first", [EMAIL, SMS])
def test_a_consent_for_one_channel_does_not_let_another_through(rig: Rig, first: int, report_denied: bool) -> None:
    second = SMS if first == EMAIL else EMAIL
    names = ["both", "mail"]
    campaign = rig.fake.add_campaign([row(name, channel) for channel in (first, second) for name in names])
    asked, journal = Asked(), MemoryJournal()
    # One batch at a time: of two at once the denial can be answered first, and nothing is revoked.
    report = rig.run(asked, campaign.event(), journal=journal, report_denied=report_denied, concurrency=1, **PAGED)
    assert campaign.statuses == {"both": True, **({"mail": False} if report_denied else {})}
    assert not campaign.twice
    assert (report.complete, report.rows, report.repeated_rows) == (True, 4, 2)
    assert (report.reviewed, report.approved, report.denied) == (2, 1, 1)
    assert max(asked.rows["both"], key=len) == (CustomerRow(first, 19, 7, ()), CustomerRow(second, 19, 7, ()))
    kept = list(journal.batches(campaign.event().key))
    was_asked_twice = len(asked.rows["mail"]) == 2  # not when both pages have come before the first batch
    revoked = [batch.revoked for batch in kept if batch.revoked]
    assert revoked == ([("mail",)] if first == EMAIL and was_asked_twice else [])
    assert [(state.decided, state.approved) for state in journal.reviews()] == [(2, 1)]
    at = next(index for index, batch in enumerate(kept) if batch.released)
    assert at == len(kept) - 1, "every answer is in the journal before anything is sent"


NEW = {
    "channel": row("A", SMS),
    "action": row("A", action=20),
    "template": row("A", template=8),
    "promo code": row("A", promo="WB24"),
    "one more promo code": row("A", promo="WB23,WB24"),
}


@pytest.mark.parametrize("what", NEW)
def test_a_row_that_brings_something_new_is_shown_with_all_that_are_known(rig: Rig, what: str) -> None:
    first, second = row("A", promo="WB23"), NEW[what]
    campaign = rig.fake.add_campaign([first, row("B"), second, row("C")])
    asked: list[CampaignCustomer] = []

    def denies_the_second(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        asked.extend(customers)
        return [one.customer_id for one in customers if len(one.rows) < 2]

    report = rig.run(denies_the_second, campaign.event(), **PAGED)
    assert sorted(campaign.recipients()) == ["B", "C"]
    assert (report.complete, report.denied) == (True, 1)
    shown = sorted((one for one in asked if one.customer_id == "A"), key=lambda one: len(one.rows))
    assert [len(one.rows) for one in shown] in ([1, 2], [2])
    assert shown[-1].rows[0] == CustomerRow(EMAIL, 19, 7, ("WB23",))
    assert shown[-1].rows[1] == CampaignCustomer.model_validate(second).rows[0]
    assert (shown[-1].channel_id, shown[-1].action_id) == (second["ChannelID"], second["ActionID"])


NOTHING_NEW = {
    "the same row": row("A", promo="WB23,WB24"),
    "fewer promo codes": row("A", promo="WB24"),
    "other order": row("A", promo="WB24,WB23"),
    "other attributes": {**row("A", promo="WB23,WB24"), "CustomerAttributes": ["x"], "Whatever": 1},
}


@pytest.mark.parametrize("what", NOTHING_NEW)
def test_a_row_that_brings_nothing_new_is_counted(rig: Rig, what: str) -> None:
    campaign = rig.fake.add_campaign([row("A", promo="WB23,WB24"), row("B"), NOTHING_NEW[what], row("C")])
    asked: list[str] = []

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        asked.extend(everybody(customers, deadline))
        return everybody(customers, deadline)

    report = rig.run(reviewer, campaign.event(), **PAGED)
    assert (report.complete, report.rows, report.repeated_rows, report.approved) == (True, 4, 1, 3)
    assert sorted(asked) == ["A", "B", "C"]


def test_rows_that_come_together_are_one_question(rig: Rig) -> None:
    campaign = rig.fake.add_campaign([row("A", EMAIL), row("A", SMS), row("B", EMAIL), row("A", PUSH)])
    asked = Asked()
    report = rig.run(asked, campaign.event())
    assert (report.complete, report.repeated_rows) == (True, 2)
    assert {name: list(map(len, rows)) for name, rows in asked.rows.items()} == {"A": [3], "B": [1]}


def test_many_customers_of_three_channels_are_sent_once(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(2_000, channels=3)
    asked: Counter[str] = Counter()

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        asked.update(everybody(customers, deadline))
        return [one.customer_id for one in customers if int(one.customer_id[1:]) % 7 or len(one.rows) < 3]

    report = rig.run(reviewer, campaign.event(), page_size=700, chunk_size=500)
    assert (report.rows, report.repeated_rows, report.reviewed) == (6_000, 4_000, 2_000)
    assert (report.approved, report.denied, report.acknowledged) == (1_715, 285, 1_715)
    assert set(asked.values()) <= {1, 2, 3}  # rows that are read together are one question
    assert len(campaign.recipients()) == 1_715
    assert not campaign.twice
    assert not any(int(name[1:]) % 7 == 0 for name in campaign.recipients())


@pytest.mark.parametrize(
    ("colour", "how"),
    [("sync", "raises"), ("async", "raises"), ("sync", "is late"), ("async, plain reviewer", "is late")],
)
def test_an_answer_that_is_missing_approves_nobody(colour: str, how: str, fake_optimove: FakeOptimove) -> None:
    rows = [row("A"), row("B"), row("A", SMS), row("B", EMAIL)]
    campaign = fake_optimove.add_campaign(rows, lead_seconds=3)
    let_go = threading.Event()

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        if len(customers[0].rows) > 1:
            if how == "raises":
                raise ConnectionError
            let_go.wait(10)
        return everybody(customers, deadline)

    report = Rig(colour, fake_optimove).run(reviewer, campaign.event(), **PAGED)
    let_go.set()
    assert campaign.recipients() == ["B"]
    assert not report.complete
    assert (report.approved, report.failed, report.not_reached) == ((1, 1, 0) if how == "raises" else (1, 0, 1))


@both_colours
def test_what_is_sent_while_pages_are_missing_is_a_warning(rig: Rig) -> None:
    campaign = rig.fake.add_campaign([row(f"A{number}") for number in range(6)])
    handle = rig.fake.handle

    def broken(request: Any) -> Response:
        return Response(503) if "skip=4" in request.query else handle(request)

    rig.fake.handle = broken  # type: ignore[method-assign]
    report = rig.run(everybody, campaign.event(), page_size=2, seconds=3)
    assert sorted(campaign.recipients()) == ["A0", "A1", "A2", "A3"]
    assert (report.complete, report.acknowledged) == (False, 4)
    assert report.error is not None
    assert any("4 approvals are sent though pages are missing" in warning for warning in report.warnings)


def test_who_was_sent_at_the_margin_is_not_asked_about_again(tmp_path: Path, fake_optimove: FakeOptimove) -> None:
    """The later page says no; but the status may have been sent, so it stays."""
    names = ["A", "B"]
    campaign = fake_optimove.add_campaign([row(one, each) for each in (EMAIL, SMS) for one in names], lead_seconds=4)
    handle, is_broken = fake_optimove.handle, True

    def broken(request: Any) -> Response:
        return Response(503) if is_broken and "skip=2" in request.query else handle(request)

    fake_optimove.handle = broken  # type: ignore[method-assign]
    consent = {EMAIL: {"A", "B"}, SMS: {"B"}}
    with SqliteJournal(tmp_path / "reviews.db") as journal, fake_optimove.client() as client:

        def run(asked: Asked) -> Any:
            review = CampaignReview(
                asked, client=client, journal=journal, report_denied=True, safety_margin=3.5, page_size=2, batch_size=2
            )
            return review.run(campaign.event())

        assert run(Asked(consent)).acknowledged == 2
        is_broken = False
        asked = Asked(consent)
        report = run(asked)
    assert not asked.rows
    assert (report.complete, report.approved, report.denied) == (True, 2, 0)
    assert any("2 rows were read too late" in warning for warning in report.warnings)
    assert campaign.statuses == {"A": True, "B": True}
    assert not campaign.contradictions


def test_a_run_goes_on_with_the_rows_that_earlier_ones_knew(tmp_path: Path, fake_optimove: FakeOptimove) -> None:
    """The first run ends before the channel that says no; the second one asks about that alone."""
    names = [f"A{number}" for number in range(4)]
    campaign = fake_optimove.add_campaign([row(one, each) for each in (EMAIL, SMS, PUSH) for one in names])
    consent = {EMAIL: set(names), SMS: set(names[1:]), PUSH: {*names[:1], *names[2:]}}
    handle, end = fake_optimove.handle, 4

    def broken(request: Any) -> Response:
        is_behind = int(request.query.rpartition("skip=")[2] or 0) >= end
        return Response(400, body=b"{}") if is_behind else handle(request)

    fake_optimove.handle = broken  # type: ignore[method-assign]
    reports, asked = [], [Asked(consent) for _ in range(3)]
    for number, reviewer in enumerate(asked):
        end = 4 * (number + 1) if number < 2 else 1_000
        with SqliteJournal(tmp_path / "reviews.db") as journal, fake_optimove.client() as client:
            review = CampaignReview(reviewer, client=client, journal=journal, page_size=2, batch_size=2)
            reports.append(review.run(campaign.event()))
            state = journal.reviews()[0]
    assert [report.complete for report in reports] == [False, False, True]
    assert [sum(map(len, one.rows.values())) for one in asked] == [4, 4, 4]
    assert {len(rows) for one in asked for (rows,) in [*one.rows.values()]} == {1, 2, 3}
    assert (reports[0].approved, reports[1].approved, reports[2].approved) == (4, 3, 2)
    assert (state.decided, state.approved, state.acknowledged) == (4, 2, 2)
    assert sorted(campaign.recipients()) == ["A2", "A3"]
    assert sum(campaign.calls) == 2


@both_colours
def test_nothing_is_sent_when_the_journal_lacks_the_answer_that_revokes(rig: Rig) -> None:
    class Full(MemoryJournal):  # type: ignore[misc]
        def record(self, key: str, batches: Sequence[DecidedBatch], /, *, run: int | None = None) -> None:
            if any(len(json.loads(each)) > 1 for batch in batches for each in batch.row_sets):
                raise OSError("disk full")
            super().record(key, batches, run=run)

    campaign = rig.fake.add_campaign([row("A"), row("B"), row("A", SMS), row("C")], lead_seconds=3)
    report = rig.run(Asked({EMAIL: {"A", "B", "C"}}), campaign.event(), journal=Full(), page_size=2, batch_size=2)
    assert "A" not in campaign.recipients()
    assert "disk full" not in str(report.error)
    assert not report.complete
    assert not isinstance(report.error, DeadlineExceeded)


def test_the_control_group_is_skipped_in_some_rows(rig: Rig) -> None:
    rows = [row("A", EMAIL, action=1), row("B", EMAIL), row("A", SMS), row("C", action=1)]
    campaign = rig.fake.add_campaign(rows)
    journal, asked = MemoryJournal(), Asked({EMAIL: {"A", "B"}, SMS: {"A"}})
    report = rig.run(asked, campaign.event(), journal=journal, control_group="skip", **PAGED)
    assert (report.complete, report.control_group_rows, report.approved) == (True, 2, 2)
    assert asked.rows["A"] == [(CustomerRow(SMS, 19, 7, ()),)]
    skipped = [name for batch in journal.batches(campaign.event().key) for name in batch.skipped]
    assert skipped == ["A", "C"]


def test_a_batch_says_what_it_is_about(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(25)
    batches: list[CustomerBatch] = []

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        batches.append(customers)
        if customers.number == 2 and customers.attempt < 3:
            raise ConnectionError
        return everybody(customers, deadline)

    report = rig.run(reviewer, campaign.event(), batch_size=10)
    assert (report.complete, report.approved) == (True, 25)
    assert sorted((each.number, each.attempt, len(each)) for each in batches) == [
        (1, 1, 10),
        (2, 1, 10),
        (2, 2, 10),
        (2, 3, 10),
        (3, 1, 5),
    ]
    first = next(each for each in batches if each.number == 1)
    assert first.event == campaign.event()
    assert first.campaign_id == campaign.campaign_id
    assert isinstance(first, Sequence)
    assert [one.customer_id for one in first[:2]] == ["C0000001", "C0000002"]
    assert first[-1].customer_id == "C0000010"
    assert "C0000" not in repr(first)
