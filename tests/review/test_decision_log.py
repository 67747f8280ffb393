"""Reviews and the decision log: recorded before the journal, completed after each update; nothing without it."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReview,
    ConfigurationError,
    Deadline,
    Decision,
    OptimoveError,
    PayloadError,
    Response,
    policy,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.flows.journal import FIRST_DENIAL
from optimove_conditional_execution.flows.review_log import Decided, RunRecords, read_review_payload
from optimove_conditional_execution.review.run_log import ReviewLog, RunLog
from optimove_conditional_execution.stores import (
    Completion,
    DecidedBatch,
    DecisionRecord,
    LoggedDecision,
    MemoryJournal,
    SqliteDecisionLog,
    SqliteJournal,
)
from optimove_conditional_execution.testing import FakeOptimove
from tests.conftest import OverHTTP, served
from tests.review.conftest import Rig, both_colours, everybody, odd
from tests.review.test_late_customers import answering
from tests.review.test_rows import EMAIL, PAGED, SMS, Asked, row

EXCLUDED = "C0000002"


class Keeping:
    """A log in memory, which can be down for decisions or for completions."""

    def __init__(self) -> None:
        self.entries: list[DecisionRecord | Completion] = []
        self.sizes: list[int] = []
        self.down_for: tuple[type, ...] = ()
        self.raises: Exception = ConnectionError(f"{EXCLUDED} cannot be recorded")
        self.before: Any = None

    def append(self, entries: Sequence[DecisionRecord | Completion], /) -> None:
        if any(isinstance(each, self.down_for) for each in entries):
            raise self.raises
        if self.before is not None and any(isinstance(each, DecisionRecord) for each in entries):
            self.before()
        self.sizes.append(len(entries))
        self.entries += entries

    def kinds(self) -> list[str]:
        return [each.kind for each in self.entries if isinstance(each, DecisionRecord)]

    def completions(self, kind: str) -> list[tuple[tuple[int, int] | None, bool | None]]:
        found = [each for each in self.entries if isinstance(each, Completion) and each.kind == kind]
        return [(each.numbers, each.taken) for each in found]


def told(logged: LoggedDecision) -> tuple[str, str | None, bool | None]:
    done = logged.completion
    return logged.record.kind, done and done.kind, done and done.taken


def may_play(customer: CampaignCustomer, deadline: Deadline) -> bool:
    return customer.customer_id != EXCLUDED


def test_a_policy_over_a_file(rig: Rig, tmp_path: Path) -> None:
    rules = policy.all_of(self_exclusion=policy.check(may_play, version="4"))
    campaign = rig.fake.add_campaign(5)
    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        report = rig.run(rules.reviewer, campaign.event(), decision_log=log, report_denied=True, batch_size=2)
        assert (report.complete, report.warnings) == (True, ())
        found = list(log.decisions(campaign=campaign.campaign_id))
        assert log.verify() is None
    assert len(found) == 5
    by_customer = {str(each.record.subject.customer_id): each for each in found}
    for name, each in by_customer.items():
        record, done = each.record, each.completion
        verdict = "deny" if name == EXCLUDED else "approve"
        assert (record.flow, record.verdict, record.event_key) == ("scheduled", verdict, campaign.event().key)
        assert record.evidence["checks"]["self_exclusion"]["version"] == "4"
        assert record.reason == ("self_exclusion" if name == EXCLUDED else None)
        assert record.subject.channels
        assert record.subject.action
        assert done is not None
        assert (done.kind, done.taken, done.told) == ("acknowledged", True, None)
        assert campaign.statuses[name] is (verdict == "approve")
    assert sorted(each.record.number or 0 for each in found) == [0, 1, 2, 3, FIRST_DENIAL]
    assert sorted(each.record.id for each in found) == [each.record.id for each in found]


def test_recorded_before_the_journal_and_in_batches(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(50, control_every=10)
    key, journal, log = campaign.event().key, MemoryJournal(), Keeping()
    known: set[str] = set()

    def before() -> None:
        known.update(name for batch in journal.batches(key) for name in (*batch.approved, *batch.denied))
        assert not campaign.updates

    log.before = before
    report = rig.run(
        odd, campaign.event(), journal=journal, decision_log=log, batch_size=10, chunk_size=7, control_group="skip"
    )
    assert report.complete
    records = [each for each in log.entries if isinstance(each, DecisionRecord)]
    assert len({record.id for record in records}) == len(records) == 50
    assert log.kinds().count("skipped") == 5
    assert max(log.sizes) <= 10
    approved = [str(each.subject.customer_id) for each in records if each.kind == "approved"]
    assert approved == [name for batch in journal.batches(key) for name in batch.approved]
    acknowledged = [numbers for numbers, taken in log.completions("acknowledged") if taken and numbers]
    assert sorted(acknowledged) == [(start, min(start + 7, len(approved))) for start in range(0, len(approved), 7)]
    assert log.completions("discarded") == [((0, FIRST_DENIAL), None), ((FIRST_DENIAL, 2**63 - 1), None)]


def test_all_that_a_reviewer_can_say(rig: Rig) -> None:
    campaign = rig.fake.add_campaign(["yes", "no", "abstains", "fails", "missing"])
    evidence = {"rule": 4}

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> dict[str, object]:
        said = {
            "yes": Decision.approve(reason="fine", evidence=evidence),
            "no": Decision.deny("excluded", evidence=evidence),
            "abstains": Decision.abstain("not ours", evidence=evidence),
            "fails": "maybe",
        }
        return {one.customer_id: said[one.customer_id] for one in customers if one.customer_id in said}

    log = Keeping()
    rig.run(reviewer, campaign.event(), decision_log=log, batch_attempts=1)
    records = {each.subject.customer_id: each for each in log.entries if isinstance(each, DecisionRecord)}
    assert {name: (each.kind, each.verdict, each.reason) for name, each in records.items()} == {
        "yes": ("approved", "approve", "fine"),
        "no": ("denied", "deny", "excluded"),
        "abstains": ("abstained", "abstain", "not ours"),
        "fails": ("failed", None, None),
        "missing": ("denied", "deny", None),
    }
    assert [name for name, each in records.items() if each.evidence == evidence] == ["yes", "no", "abstains"]
    assert records["fails"].error == "The reviewer's mapping holds a str; it must hold True, False or a Decision."
    assert records["abstains"].number is None


def test_those_whom_it_was_too_late_to_ask_about(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(30, lead_seconds=2)
    over = threading.Event()

    def hangs(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        over.wait(deadline.remaining() + 1.0)
        return everybody(customers, deadline)

    log = Keeping()
    with fake_optimove.client() as client:
        options: dict[str, Any] = {"batch_size": 10, "concurrency": 1, "safety_margin": 1.0}
        CampaignReview(hangs, client=client, decision_log=log, **options).run(campaign.event())
    over.set()
    assert log.kinds() == ["late"] * 10 + ["not_reached"] * 20


# ---- customers in several rows


@pytest.mark.parametrize("report_denied", [False, True])
def test_approved_by_one_row_and_revoked_by_another(rig: Rig, report_denied: bool, tmp_path: Path) -> None:
    names = ["both", "mail"]
    campaign = rig.fake.add_campaign([row(name, channel) for channel in (EMAIL, SMS) for name in names])
    missing = iter([Response(403)])
    answering(rig.fake, lambda skip: next(missing, None) if skip == 2 else None)
    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        options = {"journal": MemoryJournal(), "decision_log": log, "report_denied": report_denied, **PAGED}
        assert not rig.run(Asked(), campaign.event(), **options).complete
        (first,) = log.decisions(customer_id="mail")
        assert told(first) == ("approved", None, None)
        assert rig.run(Asked(), campaign.event(), **options).complete
        mail, both = list(log.decisions(customer_id="mail")), list(log.decisions(customer_id="both"))
        assert log.verify() is None
    assert campaign.statuses == {"both": True, **({"mail": False} if report_denied else {})}
    sent = ("acknowledged", True) if report_denied else (None, None)
    assert list(map(told, mail)) == [("approved", "revoked", None), ("denied", *sent)]
    assert [each.record.subject.channels for each in mail] == [("504",), ("504", "505")]
    # No status of its own: the approval that it confirms was sent.
    assert list(map(told, both)) == [("approved", "acknowledged", True), ("confirmed", None, None)]
    assert (both[1].record.verdict, both[1].record.number) == ("approve", None)


def test_the_rows_go_into_a_log_that_keeps_payloads(fake_optimove: FakeOptimove, tmp_path: Path) -> None:
    row = {"CustomerID": "A", "ActionID": 2, "PromoCode": "X,Y", "CustomerAttributes": "vip;7"}
    rows = [{**row, "ChannelID": 15}, {**row, "ChannelID": 16, "PromoCode": "Z"}, {"CustomerID": "B", "ActionID": 2}]
    campaign = fake_optimove.add_campaign(rows)
    seen: dict[str, CampaignCustomer] = {}

    def only_b(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        seen.update({each.customer_id: each for each in customers})
        return ["B"]

    with SqliteDecisionLog(tmp_path / "decisions.db", keep_payloads=True) as log, fake_optimove.client() as client:
        review = CampaignReview(only_b, client=client, decision_log=log, customer_attributes=["tier", "level"])
        assert review.run(campaign.event()).complete
        for name in ("A", "B"):
            (logged,) = log.decisions(customer_id=name)
            assert logged.record.payload is not None
            event, customer = read_review_payload(logged.record.payload)
            assert (event, customer) == (campaign.event(), seen[name])
            assert set(customer.rows) == set(seen[name].rows)
            assert customer.customer_attributes == seen[name].customer_attributes


# ---- when the log is down


@both_colours
@pytest.mark.parametrize("how", ["refuses", "hangs"])
def test_without_a_record_nothing_is_sent(rig: Rig, how: str) -> None:
    campaign, journal, log, free = rig.fake.add_campaign(10), MemoryJournal(), Keeping(), threading.Event()
    if how == "refuses":
        log.down_for = (DecisionRecord,)
    else:
        log.before = lambda: free.wait(60)
    report = rig.run(everybody, campaign.event(), journal=journal, decision_log=log, report_denied=True, seconds=4)
    free.set()
    assert not campaign.updates
    assert (report.complete, report.approved) == (False, 0)
    why = {"refuses": "raised ConnectionError", "hangs": "did not answer in time"}[how]
    assert str(report.error) == f"Decisions that the decision log refused are not sent: it {why}."
    assert not [batch for batch in journal.batches(campaign.event().key) if batch.approved]
    assert EXCLUDED not in report.to_json()


def test_a_log_that_is_there_again(rig: Rig) -> None:
    campaign, log = rig.fake.add_campaign(10), Keeping()
    failures = iter([ConnectionError(), ConnectionError()])

    def before() -> None:
        for error in failures:
            raise error

    log.before = before
    report = rig.run(everybody, campaign.event(), decision_log=log)
    assert (report.complete, len(campaign.recipients())) == (True, 10)
    assert report.warnings == ("The decision log raised ConnectionError; it was tried again.",)
    assert len(log.kinds()) == 10


def test_what_can_never_be_recorded_is_not_tried_again(rig: Rig) -> None:
    campaign, log = rig.fake.add_campaign(10), Keeping()
    log.down_for, log.raises = (DecisionRecord,), PayloadError("A record cannot be written as JSON.")
    report = rig.run(everybody, campaign.event(), decision_log=log)
    assert report.seconds < 30
    assert not campaign.updates
    assert "cannot be written as JSON" in str(report.error)


@both_colours
def test_those_who_see_it_otherwise(rig: Rig) -> None:
    campaign, log = rig.fake.add_campaign(10), Keeping()
    log.down_for = (DecisionRecord,)
    report = rig.run(everybody, campaign.event(), decision_log=log, on_log_failure="decide")
    assert (report.complete, len(campaign.recipients())) == (True, 10)
    (_, warning) = report.warnings
    assert warning.startswith("10 decisions may have no record, and count all the same")
    assert log.completions("acknowledged") == [((0, 10), True)]


# ---- what became of it


def test_not_taken_and_then_taken(rig: Rig) -> None:
    campaign, log, journal = rig.fake.add_campaign(10), Keeping(), MemoryJournal()
    handle, refusals = rig.fake.handle, iter([Response(400)])

    def answer(request: Any) -> Response:
        is_update = request.path.endswith("UpdateCustomerPromotionStatus")
        return (next(refusals, None) if is_update else None) or handle(request)

    rig.fake.handle = answer  # type: ignore[method-assign]
    assert not rig.run(everybody, campaign.event(), journal=journal, decision_log=log).complete
    assert log.completions("undelivered") == [((0, 10), False)]
    assert log.completions("acknowledged") == []
    assert rig.run(everybody, campaign.event(), journal=journal, decision_log=log).complete
    assert log.completions("acknowledged") == [((0, 10), True)]
    assert len(log.kinds()) == 10


def test_a_completion_that_was_lost_is_written_by_the_next_run(fake_optimove: FakeOptimove) -> None:
    campaign, log = fake_optimove.add_campaign(3), Keeping()
    log.down_for = (Completion,)
    answers: list[list[str]] = []

    def second_fails(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        answers.append(everybody(customers, deadline))
        if len(answers) == 2:
            raise LookupError
        return answers[-1]

    with fake_optimove.client() as client:
        review = CampaignReview(
            second_fails, client=client, decision_log=log, batch_size=2, concurrency=1, batch_attempts=1,
            on_log_failure="decide",
        )  # fmt: skip
        first = review.run(campaign.event())
        assert (first.complete, first.acknowledged) == (False, 2)
        assert any(warning.startswith("The decision log lost 1 entries") for warning in first.warnings)
        log.down_for = ()
        assert review.run(campaign.event()).complete
    assert log.completions("acknowledged") == [((0, 2), True), ((2, 3), True)]


KILLED = """
import json, os, signal, sys
from optimove_conditional_execution import CampaignReadyEvent, CampaignReview
from optimove_conditional_execution.stores import SqliteDecisionLog, SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove

class Killing(SqliteJournal):
    def record(self, *_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

directory, event = sys.argv[1:]
event = CampaignReadyEvent.from_json(event)
optimove = FakeOptimove()
optimove.add_campaign(["A", "B"], campaign_id=event.campaign_id)
review = CampaignReview(
    lambda customers, deadline: ["A"],
    client=optimove.client(),
    journal=Killing(directory + "/journal.db"),
    decision_log=SqliteDecisionLog(directory + "/decisions.db"),
)
review.run(event)
"""


def test_kill_between_the_log_and_the_journal(fake_optimove: FakeOptimove, tmp_path: Path) -> None:
    campaign = fake_optimove.add_campaign(["A", "B"])
    command = [sys.executable, "-c", KILLED, str(tmp_path), json.dumps(campaign.payload)]
    done = subprocess.run(command, timeout=60, check=False)
    assert done.returncode == -9
    journal = SqliteJournal(tmp_path / "journal.db")
    with closing(journal), SqliteDecisionLog(tmp_path / "decisions.db") as log:
        # The same numbers, the other way round: nobody may be taken for the other one.
        review = CampaignReview(
            lambda customers, deadline: ["B"],
            client=fake_optimove.client(),
            journal=journal,
            decision_log=log,
            report_denied=True,
        )
        report = review.run(campaign.event())
        assert report.complete
        a, b = list(log.decisions(customer_id="A")), list(log.decisions(customer_id="B"))
        assert log.verify() is None
    assert campaign.statuses == {"A": False, "B": True}
    assert list(map(told, a)) == [("approved", "discarded", None), ("denied", "acknowledged", True)]
    assert list(map(told, b)) == [("denied", "discarded", None), ("approved", "acknowledged", True)]


BY_CHANCE = """
import random, sys
from optimove_conditional_execution import CampaignReadyEvent, CampaignReview, OptimoveClient
from optimove_conditional_execution.stores import SqliteDecisionLog, SqliteJournal

def reviewer(customers, deadline):
    return [customer.customer_id for customer in customers if random.random() < 0.5]

url, key, journal, decisions, event = sys.argv[1:]
print("begun", flush=True)
with OptimoveClient(key, base_url=url, timezone="UTC", rate_limit=None) as client:
    review = CampaignReview(
        reviewer, client=client, journal=SqliteJournal(journal), decision_log=SqliteDecisionLog(decisions),
        batch_size=500, chunk_size=500,
    )
    print(review.run(CampaignReadyEvent.from_json(event)).to_json(), flush=True)
"""


def test_killed_at_random_moments_the_log_says_who_was_told_yes(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    fake = FakeOptimove()
    campaign = fake.add_campaign(1_500, channels=2, lead_seconds=600)
    journal, decisions = tmp_path / "journal.db", tmp_path / "decisions.db"
    with served(ASGIApp(OverHTTP(fake))) as url:
        command = [sys.executable, "-c", BY_CHANCE, url, fake.api_key, str(journal), str(decisions)]
        command.append(json.dumps(campaign.payload))
        for kill in (True, True, False):
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
                assert worker.stdout is not None
                assert worker.stdout.readline() == "begun\n", seed
                if not kill:
                    assert json.loads(worker.stdout.read())["complete"], seed
                    continue
                end = time.monotonic() + 30
                while worker.poll() is None and not decisions.exists() and time.monotonic() < end:
                    time.sleep(0.01)
                time.sleep(chance.uniform(0.0, 0.5))
                worker.kill()
    with SqliteDecisionLog(decisions) as log:
        assert log.verify() is None, seed
        found = list(log.decisions())
    taken = [each.record for each in found if each.completion is not None and each.completion.taken]
    assert all(record.verdict == "approve" for record in taken), seed
    assert sorted(str(record.subject.customer_id) for record in taken) == sorted(campaign.recipients()), seed
    assert len({each.record.subject.customer_id for each in found}) == 1_500, seed


def test_a_journal_that_was_lost_does_not_hide_later_decisions(rig: Rig, tmp_path: Path) -> None:
    campaign = rig.fake.add_campaign(["A", "B"])
    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        for _ in range(2):
            assert rig.run(everybody, campaign.event(), journal=MemoryJournal(), decision_log=log).complete
        assert len(list(log.decisions(customer_id="A"))) == 2


def test_a_call_that_hangs_writes_nothing_behind_the_back_of_the_next_run(
    fake_optimove: FakeOptimove,
) -> None:
    event = fake_optimove.add_campaign(2).event()
    free, log = threading.Event(), Keeping()
    log.before = lambda: free.wait(20)
    shared = ReviewLog(log, "refuse")
    errors: list[OptimoveError] = []
    groups = [Decided(DecidedBatch(approved=(name,), row_sets=("[[1,2,3,[]]]",))) for name in "AB"]

    def run_log(number: int, seconds: float) -> RunLog:
        records = RunRecords(event=event, run=number, wall_clock=lambda: 0.0)
        until = Deadline.after(seconds)
        return RunLog(shared=shared, records=records, record_until=until, on_error=errors.append, on_warning=print)

    async def go() -> None:
        first, second = run_log(1, 0.3), run_log(2, 20.0)
        assert not await first.record(groups, 0, FIRST_DENIAL)
        first.close()
        task = asyncio.ensure_future(second.record(groups[:1], 0, FIRST_DENIAL))
        await asyncio.sleep(0.1)
        assert len(log.entries) == 2
        free.set()
        assert await task

    asyncio.run(go())
    assert len(errors) == 1
    # What hung comes before what discards it, and the rest of its run is given up.
    assert [each.kind for each in log.entries] == ["discarded"] * 2 + ["approved"] + ["discarded"] * 2 + ["approved"]
    records = [each for each in log.entries if isinstance(each, DecisionRecord)]
    assert [each.id.split("/")[-2].split("-")[0] for each in records] == ["000001", "000002"]
    assert records[0].at == datetime.fromtimestamp(0, UTC)


# ---- settings


@pytest.mark.parametrize("options", [{"decision_log": "decisions.db"}, {"on_log_failure": "ignore"}])
def test_settings_that_are_refused(options: dict[str, Any], fake_optimove: FakeOptimove) -> None:
    (name,) = options
    with pytest.raises(ConfigurationError, match=name):
        CampaignReview(everybody, client=fake_optimove.client(), **options)


@pytest.mark.parametrize(("first", "taken"), [(503, None), (429, False)])
def test_an_update_that_is_refused_after_one_of_unknown_outcome(
    rig: Rig, tmp_path: Path, first: int, taken: bool | None
) -> None:
    campaign = rig.fake.add_campaign(3)

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> Any:
        rig.fake.answer_next(Response(first), Response(400))  # the last page has been read: of the update
        return [customer.customer_id for customer in customers]

    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        report = rig.run(reviewer, campaign.event(), decision_log=log)
        found = [told(each) for each in log.decisions()]
    assert not report.complete
    assert found == [("approved", "undelivered", taken)] * 3
