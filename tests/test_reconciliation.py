"""Reconciliation over HTTP: what Optimove has sent against the journal and the log, in both colours."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from optimove_conditional_execution import (
    AsyncOptimoveClient,
    CampaignCustomer,
    CampaignReview,
    ConfigurationError,
    Deadline,
    NotFoundError,
    OptimoveClient,
    Reconciliation,
    ServerError,
    areconcile,
    reconcile,
)
from optimove_conditional_execution.flows import switch
from optimove_conditional_execution.messages import Request, Response
from optimove_conditional_execution.reconciliation import Difference
from optimove_conditional_execution.review import updates
from optimove_conditional_execution.stores import (
    Completion,
    DecidedBatch,
    DecisionRecord,
    MemoryJournal,
    SqliteDecisionLog,
    SqliteJournal,
    Subject,
)
from optimove_conditional_execution.testing import Campaign, FakeOptimove

SENT = ("sent", "unknown", "discarded", "revoked", "later denied", "triggered")
AT = datetime(2026, 3, 3, 12, tzinfo=UTC)


@dataclass
class Rig:
    """Compares in one of the colours, over HTTP."""

    colour: str
    fake: FakeOptimove
    url: str
    stack: ExitStack

    def __call__(self, campaign: Campaign | int, **options: Any) -> Reconciliation:
        number = campaign if isinstance(campaign, int) else campaign.campaign_id
        settings: dict[str, Any] = {"base_url": self.url, "timezone": "UTC"}
        if self.colour == "sync":
            with OptimoveClient(self.fake.api_key, **settings) as client:
                return self.stack.enter_context(reconcile(client, number, **options))

        async def go() -> Reconciliation:
            async with AsyncOptimoveClient(self.fake.api_key, **settings) as client:
                return await areconcile(client, number, **options)

        return self.stack.enter_context(asyncio.run(go()))

    def review(self, campaign: Campaign, **options: Any) -> None:
        with self.fake.client() as client:
            assert CampaignReview(odd, client=client, batch_size=10, **options).run(campaign.event()).complete


def odd(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return [customer.customer_id for customer in customers if int(customer.customer_id[1:]) % 2]


@pytest.fixture(params=["sync", "async"])
def rig(request: pytest.FixtureRequest, fake_optimove: FakeOptimove, optimove_url: str) -> Iterator[Rig]:
    with ExitStack() as stack:
        yield Rig(request.param, fake_optimove, optimove_url, stack)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    with SqliteJournal(tmp_path / "journal.db") as journal:
        yield journal


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteDecisionLog]:
    with SqliteDecisionLog(tmp_path / "log.db") as log:
        yield log


def differences(result: Reconciliation) -> dict[str, list[str]]:
    """Return the ids of each difference; their numbers are the counts."""
    found = {name: sorted(result.ids(name)) for name in get_args(Difference)}
    assert {name: len(ids) for name, ids in found.items()} == {name: getattr(result, name) for name in found}
    return {name: ids for name, ids in found.items() if ids}


@pytest.mark.parametrize("sources", [["journal"], ["log"], ["journal", "log"]])
def test_what_is_sent_as_approved_is_no_difference(
    sources: list[str], rig: Rig, journal: SqliteJournal, log: SqliteDecisionLog
) -> None:
    campaign = rig.fake.add_campaign(60, channels=2, control_every=15, page_cap=17)
    rig.review(campaign, journal=journal, decision_log=log, control_group="skip")
    rig.fake.execute(campaign)
    given = {"journal": journal, "decision_log": log}
    result = rig(campaign, **{name: each for name, each in given.items() if name.removeprefix("decision_") in sources})
    assert result.ok
    assert differences(result) == {}
    assert (result.approved, result.acknowledged, result.sent, result.rows) == (28, 28, 28, 56)
    assert (result.reviews, result.records >= 60) == ("journal" in sources, "log" in sources)
    assert result.as_json() == {
        "ok": True, "campaign_id": campaign.campaign_id, "reviews": result.reviews, "records": result.records,
        "erased": 0, "rows": 56, "control_group_rows": 0, "approved": 28, "acknowledged": 28, "held_back": 0,
        "sent": 28, "unapproved": 0, "not_sent": 0, "unacknowledged": 0, "disagreeing": 0,
    }  # fmt: skip


@pytest.mark.parametrize("sources", [["journal"], ["log"], ["journal", "log"]])
def test_the_faults_of_the_sender_are_found(
    sources: list[str], rig: Rig, journal: SqliteJournal, log: SqliteDecisionLog
) -> None:
    campaign = rig.fake.add_campaign(40)
    rig.review(campaign, journal=journal, decision_log=log)
    rig.fake.execute(campaign, unapproved=["C0000002", "not of it"], dropped=["C0000001", "C0000003"])
    given = {"journal": journal, "decision_log": log}
    result = rig(campaign, **{name: each for name, each in given.items() if name.removeprefix("decision_") in sources})
    assert not result.ok
    assert differences(result) == {
        "unapproved": ["C0000002", "not of it"],
        "not_sent": ["C0000001", "C0000003"],
    }
    assert (result.approved, result.sent, result.unapproved) == (20, 20, 2)
    assert not any("C0000002" in repr(each) for each in (result, result.as_json()))


def test_a_log_of_pseudonyms(rig: Rig, journal: SqliteJournal, tmp_path: Path) -> None:
    campaign = rig.fake.add_campaign(20)
    with SqliteDecisionLog(tmp_path / "pseudonyms.db", identify="a secret") as log:
        rig.review(campaign, journal=journal, decision_log=log)
        rig.fake.execute(campaign, unapproved=["C0000002"], dropped=["C0000001"])
        both = rig(campaign, journal=journal, decision_log=log)
        assert differences(both) == {"unapproved": ["C0000002"], "not_sent": ["C0000001"]}
        alone = differences(rig(campaign, decision_log=log))
        assert alone == {"unapproved": ["C0000002"], "not_sent": [log.pseudonym("C0000001")]}


@pytest.mark.parametrize("opened_with", [None, "another secret", str.lower])
@pytest.mark.parametrize("has_journal", [True, False])
def test_a_secret_that_does_not_fit_is_an_error_and_no_alarm(
    rig: Rig, journal: SqliteJournal, tmp_path: Path, opened_with: Any, has_journal: bool
) -> None:
    campaign = rig.fake.add_campaign(1)
    sources: dict[str, Any] = {"journal": journal} if has_journal else {}
    path = tmp_path / "pseudonyms.db"
    with SqliteDecisionLog(path, identify="a secret") as log:
        rig.review(campaign, journal=journal, decision_log=log)
    rig.fake.execute(campaign)
    with SqliteDecisionLog(path, identify=opened_with) as log:
        with pytest.raises(ConfigurationError, match=r"identify= .* OPTIMOVE_DECISION_LOG_SECRET"):
            rig(campaign, decision_log=log, **sources)
        # What it cannot read about other campaigns is no obstacle.
        other = rig.fake.add_campaign(1)
        rig.review(other, journal=journal, decision_log=log)
        rig.fake.execute(other)
        assert rig(other, decision_log=log, **sources).ok
    with SqliteDecisionLog(path, identify="a secret") as log:
        assert rig(campaign, decision_log=log, **sources).ok
        assert log.verify() is None


def test_a_log_of_ids_does_not_fit_a_secret(rig: Rig, log: SqliteDecisionLog, tmp_path: Path) -> None:
    campaign = rig.fake.add_campaign(1)
    rig.review(campaign, decision_log=log)
    other = SqliteDecisionLog(tmp_path / "log.db", identify="a secret")
    with other, pytest.raises(ConfigurationError, match=r"identify="):
        rig(campaign, decision_log=other)


@pytest.mark.parametrize("sources", [["journal"], ["log"], ["journal", "log"]])
def test_what_the_switch_held_back_is_not_approved(
    sources: list[str], rig: Rig, journal: SqliteJournal, log: SqliteDecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switch, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(updates, "UPDATES_AT_ONCE", 1)
    campaign = rig.fake.add_campaign(12)
    options: dict[str, Any] = {"journal": journal, "decision_log": log, "chunk_size": 1}
    with rig.fake.client() as client:

        def says() -> str:
            return "ask" if len(campaign.updates) < 2 else "deny"

        report = CampaignReview(odd, client=client, switch=says, **options).run(campaign.event())
    assert (report.approved, report.acknowledged, report.held_back) == (6, 2, 4)
    rig.fake.execute(campaign)
    given = {"journal": journal, "decision_log": log}
    given = {name: each for name, each in given.items() if name.removeprefix("decision_") in sources}
    result = rig(campaign, **given)
    assert (result.ok, result.approved, result.acknowledged, result.held_back, result.sent) == (True, 2, 2, 4, 2)
    assert differences(result) == {}
    rig.fake.execute(campaign, unapproved=["C0000011"])
    result = rig(campaign, **given)
    assert differences(result) == {"unapproved": ["C0000011"]}
    # It says ask again: they are approved.
    with rig.fake.client() as client:
        assert CampaignReview(odd, client=client, **options).run(campaign.event()).complete
    result = rig(campaign, **given)
    assert (result.ok, result.approved, result.held_back) == (True, 6, 0)


def test_who_is_erased_from_the_log_is_approved_by_the_journal_alone(
    rig: Rig, journal: SqliteJournal, log: SqliteDecisionLog
) -> None:
    campaign = rig.fake.add_campaign(20)
    rig.review(campaign, journal=journal, decision_log=log)
    rig.fake.execute(campaign)
    log.erase("C0000003")
    result = rig(campaign, journal=journal, decision_log=log)
    assert (result.erased, result.ok) == (1, False)
    assert differences(result) == {"unapproved": ["C0000003"], "disagreeing": ["C0000003"]}
    assert rig(campaign, journal=journal).ok


def test_the_journal_is_read_as_a_run_that_goes_on_reads_it(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(["approved", "revoked", "reopened", "unsent", "denied", "failed"])
    event, journal = campaign.event(), MemoryJournal()
    journal.add(event)
    rows = ('[[504,19,7,["WB23"]]]', '[[504,19,7,["WB23"]],[505,19,7,["WB23"]]]')
    batches = [
        DecidedBatch(approved=("approved", "revoked", "reopened"), denied=("denied",), row_sets=rows[:1]),
        DecidedBatch(abstained=("revoked",), revoked=("revoked",), row_sets=rows[1:]),
        DecidedBatch(not_reached=("reopened",), row_sets=rows[1:]),
        DecidedBatch(approved=("unsent",), failed={"KeyError": ("failed",)}, row_sets=rows[:1]),
        DecidedBatch(released=1),
    ]
    journal.record(event.key, batches)
    journal.acknowledge(event.key, [(0, 1)])
    result = rig(campaign, journal=journal)
    assert (result.approved, result.acknowledged, result.sent) == (2, 1, 0)
    assert differences(result) == {"not_sent": ["approved"], "unacknowledged": ["unsent"]}
    rig.fake.execute(campaign, unapproved=["approved", "revoked", "reopened", "unsent", "denied", "failed"])
    result = rig(campaign, journal=journal)
    assert differences(result) == {"unapproved": ["denied", "failed", "reopened", "revoked"]}


def test_the_log_is_read_with_what_became_of_each_record(rig: Rig, log: SqliteDecisionLog) -> None:
    campaign = rig.fake.add_campaign(1)
    number = str(campaign.campaign_id)

    def record(name: str, kind: str, at: int | None = None, flow: Any = "scheduled") -> DecisionRecord:
        about = Subject(customer_id=name, campaign=number)
        key = campaign.event().key if flow == "scheduled" else None
        return DecisionRecord(at=AT, flow=flow, kind=kind, subject=about, event_key=key, number=at)

    def completion(kind: str, low: int, high: int, *, taken: bool | None) -> Completion:
        return Completion(at=AT, completes=campaign.event().key, numbers=(low, high), kind=kind, taken=taken)

    log.append(
        [
            record("discarded", "approved", 0),
            completion("discarded", 0, 2**62, taken=None),
            record("sent", "approved", 0),
            record("revoked", "approved", 1),
            record("later denied", "approved", 2),
            record("unknown", "approved", 3),
            record("later denied", "denied", 2**62),
            record("sent", "denied", 2**62 + 1),  # of a later event of the campaign
            record("triggered", "approved", flow="triggered"),
            completion("acknowledged", 0, 1, taken=True),
            completion("revoked", 1, 2, taken=None),
            completion("undelivered", 3, 4, taken=None),
            record("held back", "approved", 4),
            record("held back again", "approved", 5),
            completion("undelivered", 5, 6, taken=None),  # it may have been taken, whatever a later run did not send
            *[replace(completion("undelivered", low, low + 1, taken=False), told="nothing") for low in (4, 5)],
        ]
    )
    rig.fake.execute(campaign, unapproved=[*SENT, "held back", "held back again"])
    result = rig(campaign, decision_log=log)
    assert differences(result) == {"unapproved": ["discarded", "held back", "later denied", "revoked", "triggered"]}
    assert (result.approved, result.acknowledged, result.held_back) == (3, 1, 1)


def test_a_source_that_knows_nothing_of_the_campaign_is_left_out_if_the_other_does(
    rig: Rig, journal: SqliteJournal, log: SqliteDecisionLog
) -> None:
    campaign = rig.fake.add_campaign(10)
    rig.review(campaign, journal=journal)
    rig.fake.execute(campaign)
    assert rig(campaign, journal=journal, decision_log=log).ok
    nothing = rig(campaign, journal=MemoryJournal(), decision_log=log)
    assert (nothing.reviews, nothing.records, nothing.sent, nothing.unapproved) == (0, 0, 5, 5)


def test_a_journal_that_has_forgotten_the_ids_is_an_error_and_no_alarm(rig: Rig) -> None:
    journal = MemoryJournal()
    campaigns = [rig.fake.add_campaign(1) for _ in range(9)]
    for campaign in campaigns:
        rig.review(campaign, journal=journal)
    assert rig(campaigns[1], journal=journal).approved == 1
    with pytest.raises(ConfigurationError, match="does not hold any more"):
        rig(campaigns[0], journal=journal)


def before_each_page(rig: Rig, monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Let something happen before each page of whom the campaign was sent to."""
    handle, pages = rig.fake.handle, list[Request]()

    def handled(request: Request) -> Response:
        if "GetCustomerExecutionDetailsByCampaign" in request.path:
            pages.append(request)
            act(len(pages))
        return handle(request)

    monkeypatch.setattr(rig.fake, "handle", handled)


def test_a_campaign_that_is_still_being_sent_is_no_alarm(
    rig: Rig, journal: SqliteJournal, log: SqliteDecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = rig.fake.add_campaign(60, page_cap=7)
    rig.review(campaign, journal=journal, decision_log=log)
    waiting = sorted(name for name, status in campaign.statuses.items() if status)
    # Three more with each page, up to half of them.
    before_each_page(rig, monkeypatch, lambda page: rig.fake.execute(campaign, dropped=waiting[min(3 * page, 15) :]))
    result = rig(campaign, journal=journal, decision_log=log)
    assert (result.ok, result.approved, result.disagreeing, result.unacknowledged) == (True, 30, 0, 0)
    assert (result.sent, result.not_sent) == (15, 15)


@pytest.mark.parametrize("sources", [["journal"], ["log"], ["journal", "log"]])
def test_a_review_that_still_runs_is_no_alarm(
    sources: list[str], rig: Rig, journal: SqliteJournal, log: SqliteDecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = rig.fake.add_campaign(20)

    def act(page: int) -> None:
        if page == 1:  # it decides and sends, and it is sent, after the comparison has begun
            review = threading.Thread(target=rig.review, args=[campaign], kwargs={"journal": journal, **logged})
            review.start()
            review.join()
            rig.fake.execute(campaign)

    logged: dict[str, Any] = {"decision_log": log}
    before_each_page(rig, monkeypatch, act)
    given = {"journal": journal, **logged}
    result = rig(campaign, **{name: each for name, each in given.items() if name.removeprefix("decision_") in sources})
    assert differences(result) == {}
    assert (result.approved, result.sent) == (10, 10)


def test_two_reviews_of_one_campaign_can_each_approve(rig: Rig, journal: SqliteJournal) -> None:
    for size in (4, 8):
        campaign = rig.fake.add_campaign(size, campaign_id=7, lead_seconds=1_800 + size)
        rig.review(campaign, journal=journal)
    rig.fake.execute(campaign)
    result = rig(7, journal=journal)
    assert (result.ok, result.reviews, result.approved, result.sent) == (True, 2, 4, 4)


def test_what_cannot_be_compared_is_an_error(rig: Rig, journal: SqliteJournal) -> None:
    campaign = rig.fake.add_campaign(10)
    with pytest.raises(NotFoundError):
        rig(1, journal=journal)
    for options in ({}, {"decision_log": object()}):
        with pytest.raises(ConfigurationError, match=r"decision_log"):
            rig(campaign, **options)
    with pytest.raises(ConfigurationError, match="campaign_id"):
        rig(0, journal=journal)
    rig.fake.answer_next(*[Response(503)] * 8)
    with pytest.raises(ServerError):
        rig(campaign, journal=journal)
    client: Any = rig.fake.client()
    awaited: Any = rig.fake.async_client()
    with pytest.raises(ConfigurationError, match="areconcile"):
        reconcile(awaited, 7, journal=journal)
    with pytest.raises(ConfigurationError, match="call reconcile"):
        asyncio.run(areconcile(client, 7, journal=journal))


def test_the_ids_are_there_until_it_is_closed(rig: Rig, journal: SqliteJournal) -> None:
    campaign = rig.fake.add_campaign(2_500)
    rig.review(campaign, journal=journal)
    rig.fake.execute(campaign, unapproved=[f"C{number:07d}" for number in range(1, 2_501)])
    result = rig(campaign, journal=journal)
    assert len(set(result.ids("unapproved"))) == result.unapproved == 1_250
    with pytest.raises(ConfigurationError, match="difference"):
        result.ids("sent")  # type: ignore[arg-type]
    half_read = result.ids("unapproved")
    next(half_read)
    result.close()
    with pytest.raises(ConfigurationError, match="closed"):
        list(half_read)
    with pytest.raises(ConfigurationError, match="closed"):
        list(result.ids("not_sent"))


def traced(customers: int, journal: SqliteJournal) -> int:
    """Return the bytes of Python's objects that a comparison takes at the most."""
    fake = FakeOptimove()
    campaign = fake.add_campaign(customers, page_cap=500)
    event = campaign.event()
    journal.add(event)
    rows = ('[[504,19,7,["WB23"]]]',)
    for start in range(0, customers, 500):
        ids = tuple([f"C{number + 1:07d}" for number in range(start, start + 500)])
        journal.record(event.key, [DecidedBatch(approved=ids, row_sets=rows)])
        campaign.take([(name, True) for name in ids], timestamp="", at_ms=campaign.added_ms)
    journal.acknowledge(event.key, [(0, customers)])
    fake.execute(campaign)
    with fake.client(rate_limit=None) as client:
        gc.collect()  # what earlier tests have left would be counted, or taken away, at any time
        tracemalloc.start()
        try:
            with reconcile(client, campaign.campaign_id, journal=journal) as result:
                assert (result.sent, result.not_sent) == (customers, 0)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


def test_memory_is_flat(tmp_path: Path) -> None:
    def peak(customers: int) -> int:
        # A journal each: within a second the campaigns of new simulators are the same one.
        with SqliteJournal(tmp_path / f"{customers}.db") as journal:
            return traced(customers, journal)

    peak(500)  # what is made once
    # The ids are in a file. As objects of Python, in a set for each side, they would be 200 bytes a customer and more.
    # What is allowed is for the simulator, which runs in this process, and for pages that come and go.
    few, many = peak(3_000), peak(9_000)
    assert many - few < 6_000 * 110
