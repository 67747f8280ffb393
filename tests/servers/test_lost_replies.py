"""PostgreSQL killed between a commit and its reply: whoever asks again must neither lose nor double anything."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReview,
    CustomerBatch,
    Deadline,
    Outcome,
    ReviewReport,
    WebhookReceiver,
)
from optimove_conditional_execution.stores import StatusUpdate
from optimove_conditional_execution.stores.postgres import PostgresClaims, PostgresDecisionLog, PostgresJournal
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request
from tests.servers.journals import TABLES
from tests.servers.lost_reply import LostReply, losing_replies
from tests.servers.postgres import Postgres
from tests.servers.processes import PATIENCE
from tests.stores.decision_log_suite import record
from tests.stores.journal_suite import EVENT, KEY, batch, opened

LOG_TABLES = "optimove_decision_log, optimove_decision_log_head"


@pytest.fixture
def proxy(postgres: Postgres) -> Iterator[LostReply]:
    """A proxy in front of a PostgreSQL without tables."""
    with psycopg.connect(postgres.conninfo) as connection:
        connection.execute(f"DROP TABLE IF EXISTS optimove_claims, {TABLES}, {LOG_TABLES}")
    with losing_replies(postgres) as proxy:
        yield proxy


def again(proxy: LostReply, statement: bytes, work: Callable[[], object]) -> object:
    """Call a function whose reply is lost, then again until it returns."""
    proxy.after(statement)
    with pytest.raises(ConnectionError):
        work()
    assert proxy.killed == 1
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return work()
        except ConnectionError:
            assert time.monotonic() < end
            time.sleep(0.05)


# ---- single steps


def test_batches_and_marks_of_a_journal(proxy: LostReply) -> None:
    with PostgresJournal(proxy.url) as journal:
        run = opened(journal)
        again(proxy, b"INSERT INTO optimove_review_batches", lambda: journal.record(KEY, [batch(1)], run=run))
        assert list(journal.batches(KEY)) == [batch(1)]
        (state,) = journal.reviews()
        assert (state.decided, state.approved) == (4, 2)
        proxy.killed = 0
        again(proxy, b"SET acknowledged", lambda: journal.acknowledge(KEY, [(0, 2)], run=run))
        assert list(journal.acknowledged(KEY)) == [(0, 2)]
        assert len([each for each in journal.history(KEY) if isinstance(each, StatusUpdate)]) == 1
        proxy.killed = 0
        again(proxy, b"SET report", lambda: journal.finish(KEY, "{}", run=run))
        assert [each.finished for each in journal.reviews()] == [True]


def test_the_start_of_a_run(proxy: LostReply) -> None:
    with PostgresJournal(proxy.url) as journal:
        journal.add(EVENT)
        opened_again: Any = again(proxy, b"SET run = DEFAULT", lambda: journal.open(EVENT))
        journal.record(KEY, [batch(1)], run=opened_again.run)
        assert list(journal.batches(KEY)) == [batch(1)]


def test_records_of_a_log(proxy: LostReply) -> None:
    with PostgresDecisionLog(proxy.url) as log:
        log.append([record(1)])
        records = [record(2), record(3)]
        again(proxy, b"INSERT INTO optimove_decision_log", lambda: log.append(records))
        log.append([record(4)])
        assert [each.record.request_uid for each in log.decisions()] == ["r-1", "r-2", "r-3", "r-4"]
        assert log.verify() is None


# ---- whole flows


@pytest.mark.parametrize("state", [b"\x00\x00\x00\x04open", b"\x00\x00\x00\x0bundelivered", b"\x00\x00\x00\x07settled"])
def test_a_notification_is_decided_and_answered_once(proxy: LostReply, state: bytes) -> None:
    fake, asked, outcomes = FakeOptimove(), list[str](), list[Outcome]()

    def handler(given: Any, deadline: Deadline) -> bool:
        asked.append(given.request_uid)
        return True

    payload = notification(timeout_ms=60_000)
    question = fake.expect(payload)
    with (
        fake.client() as client,
        contextlib.closing(PostgresClaims(proxy.url)) as claims,
        PostgresDecisionLog(proxy.url) as log,
    ):
        receiver = WebhookReceiver(
            handler,
            client=client,
            secrets=fake.secrets,
            claims=claims,
            decision_log=log,
            on_outcome=outcomes.append,
        )
        other = fake.expect(earlier := notification("another", timeout_ms=60_000))
        assert receiver.handle(signed_request(earlier, secret=fake.secret)).status == 200  # the tables are there now
        assert other.approved
        proxy.after(state)
        statuses = [receiver.handle(signed_request(payload, secret=fake.secret)).status for _ in range(2)]
        assert proxy.killed == 1
        assert log.verify() is None
    assert question.approved
    assert statuses == [200, 200]
    assert asked.count(payload["request_uid"]) == 1
    assert [each.kind for each in outcomes[1:]] == ["approved", "duplicate"]


@pytest.mark.parametrize(
    "statement",
    [
        b"SET run = DEFAULT",
        b"INSERT INTO optimove_review_batches",
        b"INSERT INTO optimove_decision_log",
        b"SET acknowledged",
        b"SET report",
    ],
    ids=["open", "record", "log", "acknowledge", "finish"],
)
def test_a_review_is_completed_and_nobody_is_told_twice_differently(proxy: LostReply, statement: bytes) -> None:
    fake, reports, asked = FakeOptimove(), list[ReviewReport](), list[str]()
    campaign = fake.add_campaign(40, lead_seconds=120)

    def reviewer(customers: CustomerBatch, deadline: Deadline) -> list[str]:
        asked.extend(each.customer_id for each in customers)
        return [each.customer_id for each in customers if is_odd(each)]

    with (
        fake.client() as client,
        PostgresJournal(proxy.url) as journal,
        PostgresDecisionLog(proxy.url) as log,
    ):
        log.append([])
        journal.add(EVENT)
        options: dict[str, Any] = {"journal": journal, "decision_log": log, "report_denied": True}
        proxy.after(statement)
        with CampaignReview(
            reviewer, client=client, batch_size=10, on_report=reports.append, safety_margin=5.0, **options
        ) as review:
            review.submit(campaign.event())
        assert proxy.killed == 1
        assert log.verify() is None
        approved = [each for each in log.decisions() if each.record.kind == "approved"]
        states = {each.event.campaign_id: each for each in journal.reviews()}
    (report,) = reports
    assert (report.complete, report.approved, report.denied, report.acknowledged) == (True, 20, 20, 40)
    assert campaign.statuses == {name: is_odd_name(name) for name in campaign.statuses}
    assert (len(campaign.statuses), campaign.contradictions) == (40, set())
    assert len(asked) == 40
    assert len({each.record.subject.customer_id for each in approved}) == len(approved) == 20
    assert states[campaign.campaign_id].finished


def is_odd(customer: CampaignCustomer) -> bool:
    return is_odd_name(customer.customer_id)


def is_odd_name(name: str) -> bool:
    return int(name[1:]) % 2 == 1
