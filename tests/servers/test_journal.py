"""The journal in PostgreSQL: what every journal does, and what the server and its connections do to it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReview,
    Deadline,
    ReviewReport,
    SupersededError,
)
from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.cli.app import program
from optimove_conditional_execution.stores import DecidedBatch, Journal, ReviewState
from optimove_conditional_execution.stores import postgres_journal as locks_module
from optimove_conditional_execution.stores.postgres import PostgresDecisionLog, PostgresJournal
from optimove_conditional_execution.testing import FakeOptimove
from tests.conftest import OverHTTP, child_status, forked, forked_untold, served
from tests.servers.journals import locks, terminate, until
from tests.servers.postgres import Postgres
from tests.servers.processes import PATIENCE
from tests.stores.journal_suite import (
    ANOTHER,
    EVENT,
    KEY,
    JournalSuite,
    batch,
    event,
    in_threads,
    opened,
    process_with,
    said,
)


@pytest.fixture
def server(journal_server: Postgres) -> Postgres:
    """A PostgreSQL without the journal's tables."""
    return journal_server


@pytest.fixture
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each write look whether the locks are lost."""
    monkeypatch.setattr(locks_module, "_LOOK_EVERY", 0.0)


class TestInPostgres(JournalSuite):
    @pytest.fixture
    def journal(self, server: Postgres) -> Iterator[Journal]:
        with PostgresJournal(server.conninfo) as journal:
            yield journal


# ---- locks


def test_journals_of_one_database_exclude_each_other(
    server: Postgres, journal: PostgresJournal, other: PostgresJournal
) -> None:
    assert opened(journal) == 1
    assert other.open(EVENT) is None
    other.unlock(KEY)
    assert other.open(EVENT) is None
    assert other.open(ANOTHER)
    journal.unlock(KEY)
    assert opened(other) == 3
    other.close()
    assert opened(journal) == 4
    assert journal.open(ANOTHER)
    assert len(set(locks(server))) == 1
    journal.close()
    until(lambda: not locks(server))
    assert journal.unfinished() == [EVENT, ANOTHER]  # it connects again


def test_a_campaign_is_reconciled_and_a_customer_explained_from_the_server(
    server: Postgres,
    journal: PostgresJournal,
    optimove_url: str,
    fake_optimove: FakeOptimove,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    campaign = fake_optimove.add_campaign(40)
    number = str(campaign.campaign_id)

    def odd(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        return [customer.customer_id for customer in customers if int(customer.customer_id[1:]) % 2]

    with PostgresDecisionLog(server.url) as log, fake_optimove.client() as client:
        review = CampaignReview(odd, client=client, journal=journal, decision_log=log, batch_size=10)
        assert review.run(campaign.event()).complete
    fake_optimove.execute(campaign, unapproved=["C0000002"], dropped=["C0000001"])

    def command(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(program, [*arguments, "--journal", server.url, "--json"], prog_name="optimove-ce")
        return done.exit_code, done.output

    monkeypatch.setenv("OPTIMOVE_API_KEY", fake_optimove.api_key)
    monkeypatch.setenv("OPTIMOVE_BASE_URL", optimove_url)
    status, printed = command("reconcile", number, "--log", server.url)
    told = json.loads(printed)
    assert (status, told["approved"], told["sent"]) == (1, 20, 20)
    assert (told["unapproved"], told["not_sent"], told["disagreeing"]) == (1, 1, 0)

    def explained() -> list[tuple[str, int | None, bool]]:
        status, printed = command("review", "explain", "C0000001", "--campaign", number)
        (told,) = json.loads(printed)
        assert (status, told["standing"], told["acknowledged"]) == (0, "approved", True)
        return [(step["what"], step["number"], step["at"] is not None) for step in told["steps"]]

    (what, batch_number, is_dated), *others = explained()
    assert (what, is_dated) == ("approved", True)
    assert others == [("released", None, True), ("acknowledged", 1, True)]
    # As an earlier version of the SDK left it: without times, and without the updates.
    with psycopg.connect(server.conninfo) as connection:
        connection.execute(
            """DELETE FROM optimove_review_batches WHERE batch LIKE '%"acknowledged"%';
            UPDATE optimove_review_batches SET batch = regexp_replace(batch, '"at": [0-9.]+, ', '')"""
        )
    steps = [("approved", batch_number, False), ("released", None, False), ("acknowledged", None, False)]
    assert explained() == steps


def test_one_winner_among_journals(server: Postgres) -> None:
    won: list[int] = []
    barrier = threading.Barrier(6)

    def race() -> None:
        with PostgresJournal(server.conninfo) as mine:
            barrier.wait(PATIENCE)
            won.extend(turn for turn in range(10) if mine.open(event(turn + 1)))
            barrier.wait(PATIENCE)

    in_threads(6, race)
    assert sorted(won) == list(range(10))


def test_journals_in_two_schemas_of_one_database_are_apart(server: Postgres) -> None:
    with psycopg.connect(server.conninfo) as connection:
        connection.execute("CREATE SCHEMA brand_a; CREATE SCHEMA brand_b")
    try:
        conninfos = [f"{server.conninfo} options='-c search_path={schema}'" for schema in ("brand_a", "brand_b")]
        with PostgresJournal(conninfos[0]) as one, PostgresJournal(conninfos[1]) as two:
            assert (opened(one), opened(two)) == (1, 1)
            one.record(KEY, [batch(1)])
            assert list(two.batches(KEY)) == []
    finally:
        with psycopg.connect(server.conninfo) as connection:
            connection.execute("DROP SCHEMA brand_a, brand_b CASCADE")


def test_a_lock_that_was_lost_is_acquired_again_when_nobody_took_over(
    server: Postgres,
    journal: PostgresJournal,
    other: PostgresJournal,
    looking: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = opened(journal)
    second = opened(journal, ANOTHER)
    terminate(server)
    journal.record(KEY, [batch(1)], run=run)
    assert other.open(EVENT) is None
    assert other.open(ANOTHER) is None
    assert journal.open(EVENT) is None, "its own run goes on"
    assert "held the locks of 2 open reviews was lost; 2 are locked again" in caplog.text
    journal.acknowledge(KEY, [(0, 1)], run=run)
    journal.record(ANOTHER.key, [batch(1)], run=second)
    journal.unlock(KEY)
    assert other.open(EVENT)
    assert other.open(ANOTHER) is None
    assert not any(each in caplog.text for each in ("127.0.0.1", str(server.port)))


def test_a_run_whose_lock_was_lost_is_superseded_by_who_took_over(
    server: Postgres, journal: PostgresJournal, other: PostgresJournal, looking: None
) -> None:
    first = opened(journal)
    journal.record(KEY, [batch(1)], run=first)
    terminate(server)
    second = opened(other)
    assert list(other.batches(KEY)) == [batch(1)]
    writes: list[Callable[[], object]] = [
        lambda: journal.acknowledged(KEY, run=first),
        lambda: journal.record(KEY, [batch(2)], run=first),
        lambda: journal.acknowledge(KEY, [(0, 1)], run=first),
        lambda: journal.keep_report(KEY, "{}", run=first),
        lambda: journal.finish(KEY, "{}", run=first),
    ]
    for write in writes:
        with pytest.raises(SupersededError):
            write()
    journal.unlock(KEY)
    assert journal.open(EVENT) is None, "the other's lock"
    other.record(KEY, [batch(2)], run=second)
    assert other.reviews() == [ReviewState(EVENT, 8, 4, 0, False, None)]


def test_another_review_is_opened_after_the_locks_were_lost(
    server: Postgres, journal: PostgresJournal, other: PostgresJournal
) -> None:
    opened(journal)
    terminate(server)
    assert journal.open(ANOTHER)
    assert other.open(EVENT) is None, "locked again with it"


# ---- processes


def another_process(program: str, server: Postgres) -> AbstractContextManager[subprocess.Popen[str]]:
    return process_with(f"PostgresJournal({server.url!r})", program, module="stores.postgres")


def test_a_killed_process_holds_nothing(server: Postgres, journal: PostgresJournal) -> None:
    source = """
        run = journal.open(EVENT).run
        journal.record(EVENT.key, [DecidedBatch(("a",), ())], run=run)
        say("taken")
        time.sleep(600)
        """
    with another_process(source, server) as process:
        assert said(process) == "taken"
        assert journal.open(EVENT) is None
        process.kill()
        process.wait(PATIENCE)
        until(lambda: journal.open(EVENT))
        assert list(journal.batches(KEY)) == [DecidedBatch(("a",), ())]


@pytest.mark.parametrize("fork", [forked, forked_untold])
def test_a_forked_child_has_not_what_its_parent_took(
    server: Postgres, journal: PostgresJournal, other: PostgresJournal, fork: Callable[[], int]
) -> None:
    run = opened(journal)

    def has_only_its_own() -> bool:
        refused = journal.open(EVENT) is None
        journal.unlock(KEY)
        still = journal.open(EVENT) is None
        own = journal.open(ANOTHER)
        journal.record(KEY, [batch(1)])
        return refused and still and bool(own)

    assert child_status(has_only_its_own, fork) == 0
    assert other.open(EVENT) is None
    journal.record(KEY, [batch(2)], run=run)
    assert list(journal.batches(KEY)) == [batch(1), batch(2)]
    until(lambda: other.open(ANOTHER))  # the child's, which is dead
    journal.unlock(KEY)
    assert other.open(EVENT)


def test_a_forked_child_takes_over_from_its_dead_parent(server: Postgres) -> None:
    source = """
        assert journal.open(EVENT)
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(writer)
            say(journal.open(EVENT))
            os.read(reader, 1)  # until the parent is dead
            end = time.monotonic() + 60
            while time.monotonic() < end:
                if journal.open(EVENT):
                    say("mine")
                    break
                time.sleep(0.02)
            os._exit(0)
        time.sleep(600)
        """
    with another_process(source, server) as process:
        assert said(process) == "None"
        process.kill()
        assert said(process) == "mine"


def test_the_server_notices_a_machine_that_vanished(server: Postgres) -> None:
    with locks_module.connect_directly(server.conninfo) as connection:
        names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count")
        seconds = [connection.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in names]
        assert seconds == [("10",), ("5",), ("3",)]
        idle = connection.execute("SHOW idle_in_transaction_session_timeout").fetchone()
        assert idle == ("1min",)


def test_the_server_ends_a_write_whose_process_is_frozen_in_the_middle(journal: PostgresJournal) -> None:
    told: list[object] = []
    run = opened(journal)
    ask = "SHOW idle_in_transaction_session_timeout"
    journal._write(KEY, run, lambda execute, _: told.append(execute(ask).fetchone()))
    assert told == [("1min",)]
    journal._transaction(lambda execute: told.append(execute(ask).fetchone()))
    assert told[1] != ("1min",), "it is of one transaction, since the connection may be the user's"


# ---- reviews


def reviewed(journal: Journal, fake: FakeOptimove, in_the_middle: Callable[[], object]) -> ReviewReport:
    """Review a campaign over HTTP; something happens before the third answer."""
    campaign = fake.add_campaign(4_000, lead_seconds=600)
    asked: list[str] = []
    answers = iter(range(100))

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        if next(answers) == 2:
            in_the_middle()
        asked.extend(customer.customer_id for customer in customers)
        return [customer.customer_id for customer in customers[::2]]

    with fake.client(timezone="UTC") as client:
        review = CampaignReview(
            reviewer, client=client, journal=journal, batch_size=500, chunk_size=1_000, concurrency=1
        )
        report = review.run(campaign.event())
    assert not campaign.contradictions
    assert sorted(asked) == sorted(set(asked))
    return report


def test_a_review_goes_on_after_a_restart_of_the_server(
    server: Postgres, journal: PostgresJournal, other: PostgresJournal, looking: None
) -> None:
    fake = FakeOptimove()
    report = reviewed(journal, fake, server.restart)
    assert (report.complete, report.approved, report.acknowledged) == (True, 2_000, 2_000)
    assert [kept.finished for kept in other.reviews()] == [True]
    until(lambda: not locks(server))


def test_a_review_whose_lock_is_lost_stops_when_another_has_taken_over(
    server: Postgres, journal: PostgresJournal, other: PostgresJournal
) -> None:
    fake = FakeOptimove()

    def take_over() -> None:
        (kept,) = other.unfinished()
        end = time.monotonic() + PATIENCE
        terminate(server)
        while other.open(kept) is None:  # the review was quicker, and has locked it again
            assert time.monotonic() < end
            terminate(server)

    report = reviewed(journal, fake, take_over)
    assert isinstance(report.error, SupersededError)
    assert (report.complete, report.acknowledged) == (False, 0)


def test_a_coordinator_is_killed_and_another_machine_resumes(server: Postgres, other: PostgresJournal) -> None:
    fake = FakeOptimove()
    campaign = fake.add_campaign(10_000, lead_seconds=600)
    key = campaign.event().key

    def decided() -> int:
        return sum(kept.decided for kept in other.reviews())

    with served(ASGIApp(OverHTTP(fake))) as url:
        command = [sys.executable, "-m", "tests.review.kill_worker", url, fake.api_key, server.url]

        def coordinator(pause: float) -> subprocess.Popen[str]:
            return subprocess.Popen(
                [*command, json.dumps(campaign.payload), str(pause)], stdout=subprocess.PIPE, encoding="utf-8"
            )

        with coordinator(pause=1.0) as killed:
            until(decided)
            killed.kill()
        assert 0 < decided() < 10_000, "killed in the middle"
        until(lambda: not locks(server))
        with coordinator(pause=0.0) as last:
            assert said(last) == "begun"
            report = json.loads(said(last))
    approved = {name for each in other.batches(key) for name in each.approved}
    assert report["complete"]
    assert report["approved"] == report["acknowledged"] == len(approved)
    assert set(campaign.recipients()) == approved
    assert not campaign.contradictions
    ever = [name for each in other.batches(key) for name in each.ids]
    assert len(ever) == len(set(ever)) == 10_000, "each is decided about once"


def test_the_command_takes_a_url(
    server: Postgres, other: PostgresJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeOptimove()
    campaign = fake.add_campaign(100, lead_seconds=600)
    other.add(campaign.event())
    (tmp_path / "pg_gate.py").write_text(
        "def everybody(customers, deadline):\n    return [c.customer_id for c in customers]\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])

    def command(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(program, ["review", *arguments, "--journal", server.url], prog_name="optimove-ce")
        return done.exit_code, done.output

    with served(ASGIApp(OverHTTP(fake))) as url:
        monkeypatch.setenv("OPTIMOVE_API_KEY", fake.api_key)
        monkeypatch.setenv("OPTIMOVE_BASE_URL", url)
        monkeypatch.setenv("OPTIMOVE_TIMEZONE", "UTC")
        assert command("resume", "pg_gate:everybody")[0] == 0
        assert len(campaign.recipients()) == 100
        status, printed = command("status", "--json")
        assert (status, json.loads(printed)[0]["finished"]) == (0, True)
        server.stop()
        try:
            for arguments in (["resume", "pg_gate:everybody"], ["status"]):
                status, printed = command(*arguments)
                assert status == 2
                assert "The journal cannot be used: PostgreSQL cannot be reached." in printed
                assert str(server.port) not in printed
        finally:
            server.start()
