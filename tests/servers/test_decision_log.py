"""The decision log in PostgreSQL: what every log does, and what the server and several processes do to it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psycopg
import psycopg_pool
import pytest
from click.testing import CliRunner
from cryptography.fernet import Fernet
from psycopg.rows import dict_row

from optimove_conditional_execution import (
    AsyncCampaignReview,
    AsyncWebhookReceiver,
    CampaignCustomer,
    CampaignReview,
    ConfigurationError,
    Decision,
    WebhookReceiver,
)
from optimove_conditional_execution.cli.app import program
from optimove_conditional_execution.cli.tools import schema
from optimove_conditional_execution.replay import replay
from optimove_conditional_execution.stores import LoggedDecision, postgres_decisions
from optimove_conditional_execution.stores.hash_chain import GENESIS, ChainFault
from optimove_conditional_execution.stores.postgres import PostgresDecisionLog
from optimove_conditional_execution.testing import FakeOptimove
from tests.servers.claims import IN_URL, SECRET, guarded
from tests.servers.pgbouncer import running_pgbouncer
from tests.servers.postgres import GUARDED, Postgres
from tests.servers.processes import PATIENCE
from tests.stores.decision_log_suite import Change, DecisionLogSuite, completion, record
from tests.stores.journal_suite import in_threads

CUSTOMER = "C-0"  # of the first record
TABLES = "optimove_decision_log, optimove_decision_log_head"


@pytest.fixture
def server(postgres: Postgres) -> Postgres:
    """A PostgreSQL without the log's tables."""
    with psycopg.connect(postgres.conninfo) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {TABLES}")
    return postgres


@pytest.fixture
def log(server: Postgres) -> Iterator[PostgresDecisionLog]:
    with PostgresDecisionLog(server.url) as log:
        log.append([])  # which creates the tables
        yield log


class TestInPostgres(DecisionLogSuite):
    @pytest.fixture
    def change(self, server: Postgres) -> Change:
        def change(*statements: str) -> None:
            with psycopg.connect(server.conninfo) as connection:
                for statement in statements:
                    ours = statement.replace("decision_log", "optimove_decision_log")
                    connection.execute(ours.replace("UPDATE head", "UPDATE optimove_decision_log_head").encode())

        return change


# ---- one chain


APPENDS = """
import sys
from datetime import UTC, datetime
from optimove_conditional_execution.stores import DecisionRecord, Subject
from optimove_conditional_execution.stores.postgres import PostgresDecisionLog

with PostgresDecisionLog(sys.argv[1]) as log:
    log.append([])
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(50):
        subject = Subject(customer_id=f"C-{sys.argv[2]}-{number}")
        log.append([DecisionRecord(at=datetime.now(UTC), flow="triggered", kind="denied", subject=subject)])
"""


def test_processes_append_to_one_chain(server: Postgres) -> None:
    """From the beginning: they create the tables at the same time."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", APPENDS, server.url, str(mine)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for mine in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.communicate("go\n", timeout=PATIENCE)
        assert process.returncode == 0
    with PostgresDecisionLog(server.url) as log:
        assert log.verify() is None
        assert log.head().startswith("150:")
        customers = [logged.record.subject.customer_id for logged in log.decisions()]
    assert sorted(filter(None, customers)) == sorted(f"C-{mine}-{number}" for mine in range(3) for number in range(50))


def test_verifying_while_others_append(log: PostgresDecisionLog) -> None:
    over = threading.Event()

    def append() -> None:
        number = 0
        while not over.is_set():
            log.append([record(number), record(number + 1)])
            number += 2

    thread = threading.Thread(target=append)
    thread.start()
    try:
        faults = [log.verify(head=log.head()) for _ in range(20)]
    finally:
        over.set()
        thread.join(PATIENCE)
    assert faults == [None] * 20
    assert log.head() > "1"


def test_a_record_that_is_appended_again_with_others(log: PostgresDecisionLog) -> None:
    records = [record(number) for number in range(4)]
    log.append(records[:2])
    log.append([records[1], completion(records[1]), records[2], records[2], records[3]])
    assert [logged.record for logged in log.decisions()] == records
    assert [logged.completion is not None for logged in log.decisions()] == [False, True, False, False]
    assert log.verify() is None


def test_the_transaction_of_a_frozen_process_ends(server: Postgres, log: PostgresDecisionLog) -> None:
    told: list[Any] = []
    log._change(lambda execute, _: told.extend(execute("SHOW idle_in_transaction_session_timeout")))
    assert told == [("5s",)]


@pytest.mark.parametrize(("entry", "setting"), [(record(), "on"), (completion(record()), "off")])
def test_records_are_safe_when_append_returns(
    server: Postgres, log: PostgresDecisionLog, entry: Any, setting: str
) -> None:
    with psycopg.connect(server.conninfo) as connection:
        connection.execute("""
            CREATE OR REPLACE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN NEW.reason := current_setting('synchronous_commit'); RETURN NEW; END $$;
            ALTER TABLE optimove_decision_log_head ADD reason text;
            CREATE TRIGGER tell BEFORE UPDATE ON optimove_decision_log_head FOR EACH ROW EXECUTE FUNCTION tell();
            """)
    log.append([entry])
    with psycopg.connect(server.conninfo) as connection:
        assert connection.execute("SELECT reason FROM optimove_decision_log_head").fetchone() == (setting,)


def test_the_chain_begins_where_every_chain_does(server: Postgres, log: PostgresDecisionLog) -> None:
    with psycopg.connect(server.conninfo) as connection:
        assert connection.execute("SELECT number, hash FROM optimove_decision_log_head").fetchone() == (0, GENESIS)


def test_threads_share_a_transaction(server: Postgres, log: PostgresDecisionLog) -> None:
    with psycopg.connect(server.conninfo) as connection:
        connection.execute("SELECT FROM optimove_decision_log_head FOR UPDATE")
        threads = [threading.Thread(target=log.append, args=([record(number)],)) for number in range(6)]
        for thread in threads:
            thread.start()
        while len(log._group._waiting) < 5:
            threading.Event().wait(0.01)
    for thread in threads:
        thread.join(PATIENCE)
    with psycopg.connect(server.conninfo) as connection:
        query = "SELECT count(DISTINCT xmin::text), count(*) FROM optimove_decision_log"
        assert connection.execute(query).fetchone() == (2, 6)
    assert log.verify() is None


# ---- receivers and reviews


def half(customers: Sequence[CampaignCustomer], deadline: object) -> list[str]:
    return [customer.customer_id for customer in customers if int(customer.customer_id[1:]) % 2]


def told(log: PostgresDecisionLog) -> dict[str | None, tuple[str | None, str | None, bool | None]]:
    def entry(logged: LoggedDecision) -> tuple[str | None, str | None, bool | None]:
        done = logged.completion
        return logged.record.verdict, done and done.kind, done and done.taken

    return {logged.record.subject.customer_id: entry(logged) for logged in log.decisions()}


def test_a_receiver(log: PostgresDecisionLog) -> None:
    optimove = FakeOptimove()
    receiver = WebhookReceiver(
        lambda notification, deadline: Decision.deny("excluded", evidence={"rule": 4}),
        client=optimove.client(),
        secrets=optimove.secrets,
        decision_log=log,
    )
    optimove.notify(receiver, user_id="C1")
    assert told(log) == {"C1": ("deny", "denied", True)}
    (logged,) = log.decisions(customer_id="C1")
    assert (logged.record.reason, logged.record.evidence) == ("excluded", {"rule": 4})


def test_an_async_receiver_whose_loop_goes_on_while_the_log_is_locked(
    server: Postgres, log: PostgresDecisionLog
) -> None:
    optimove = FakeOptimove()

    async def go() -> int:
        async with optimove.async_client() as client:
            receiver = AsyncWebhookReceiver(
                lambda notification, deadline: Decision.approve(),
                client=client,
                secrets=optimove.secrets,
                decision_log=log,
            )
            with psycopg.connect(server.conninfo) as connection:
                connection.execute("SELECT FROM optimove_decision_log_head FOR UPDATE")
                answering = asyncio.ensure_future(optimove.anotify(receiver, user_id="C1"))
                turns = 0
                while not log._group._writer.locked():
                    await asyncio.sleep(0.01)
                for _ in range(20):
                    await asyncio.sleep(0)
                    turns += not answering.done()
            await answering
            return turns

    assert asyncio.run(go()) == 20
    assert told(log) == {"C1": ("approve", "approved", True)}


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_review(log: PostgresDecisionLog, asynchronous: bool) -> None:
    optimove = FakeOptimove()
    campaign = optimove.add_campaign([f"C{number}" for number in range(2_000)])

    async def review() -> None:
        async with optimove.async_client(timezone="UTC") as client:
            made = AsyncCampaignReview(half, client=client, decision_log=log, report_denied=True)
            assert (await made.run(campaign.event())).complete

    if asynchronous:
        asyncio.run(review())
    else:
        with optimove.client(timezone="UTC") as client:
            made = CampaignReview(half, client=client, decision_log=log, report_denied=True)
            assert made.run(campaign.event()).complete
    found = told(log)
    assert len(found) == 2_000
    assert set(found.values()) == {("approve", "acknowledged", True), ("deny", "acknowledged", True)}
    assert log.verify() is None
    assert log.erase("C7") == 1
    assert log.verify() is None


# ---- what is wrong with the server, or with what was given


def shown(error: Exception) -> str:
    text = "".join(traceback.format_exception(error))
    assert not any(secret in text for secret in (SECRET, IN_URL, GUARDED, "127.0.0.1", CUSTOMER)), text
    return str(error)


def refused(log: PostgresDecisionLog) -> str:
    """Return why a record is refused, and will be."""
    with log, pytest.raises(ConfigurationError) as caught:
        log.append([record()])
    return shown(caught.value)


def test_a_server_that_is_away_is_worth_another_try(server: Postgres, log: PostgresDecisionLog) -> None:
    first = record(0)
    log.append([first])
    server.stop()
    try:
        uses: list[Callable[[], object]] = [
            lambda: log.append([record(1)]), log.head, lambda: list(log.decisions()), lambda: log.erase(CUSTOMER),
        ]  # fmt: skip
        for use in uses:
            with pytest.raises(ConnectionError, match="cannot be reached") as caught:
                use()
            shown(caught.value)
    finally:
        server.start()
    log.append([record(1)])
    assert log.verify() is None
    assert len(list(log.decisions())) == 2


def test_a_wrong_password(server: Postgres) -> None:
    with guarded(server) as url:
        assert "refuses the user or the password" in refused(PostgresDecisionLog(url("wrong")))


def test_a_role_that_may_append_and_nothing_else(server: Postgres) -> None:
    printed = CliRunner().invoke(schema).output
    with guarded(server) as url:
        assert "optimove-ce schema" in refused(PostgresDecisionLog(url(IN_URL)))
        with psycopg.connect(server.conninfo) as connection:
            connection.execute(printed.encode())
        assert "GRANT SELECT, INSERT, UPDATE, DELETE" in refused(PostgresDecisionLog(url(IN_URL)))
        with psycopg.connect(server.conninfo) as connection:
            connection.execute(f"GRANT SELECT, INSERT ON optimove_decision_log TO {GUARDED}")
            connection.execute(f"GRANT SELECT, UPDATE ON optimove_decision_log_head TO {GUARDED}")
        with PostgresDecisionLog(url(IN_URL)) as log:
            first = record()
            log.append([first, completion(first)])
            assert log.verify(head=log.head()) is None
            changes: list[Callable[[], int]] = [
                lambda: log.erase(CUSTOMER),
                lambda: log.prune(first.at.replace(year=2100)),
            ]
            for change in changes:
                with pytest.raises(ConfigurationError, match="lacks a permission") as caught:
                    change()
                shown(caught.value)
            assert log.verify() is None
    with PostgresDecisionLog(server.url) as ours:
        assert ours.erase(CUSTOMER) == 1


def test_a_review_of_the_command_creates_the_tables_and_is_recorded(
    server: Postgres,
    fake_optimove: FakeOptimove,
    optimove_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "recorded_gate.py").write_text(
        "def half(customers, deadline):\n    return [customers[0].customer_id]\n"
    )
    (tmp_path / "event.json").write_text(json.dumps(fake_optimove.add_campaign(2).payload))
    settings = {
        "OPTIMOVE_API_KEY": fake_optimove.api_key,
        "OPTIMOVE_BASE_URL": optimove_url,
        "OPTIMOVE_TIMEZONE": "UTC",
        "OPTIMOVE_DECISION_LOG": server.url,
    }
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the command adds the folder
    command = ["review", "run", "recorded_gate:half", "event.json", "--journal", "reviews.db"]
    done = CliRunner().invoke(program, command, env=settings)
    assert done.exit_code == 0, done.output
    with PostgresDecisionLog(server.conninfo) as log:
        assert sorted(logged.record.kind for logged in log.decisions()) == ["approved", "denied"]


def test_tables_that_are_not_to_be_created(server: Postgres) -> None:
    missing = PostgresDecisionLog(server.url, create_tables=False)
    with pytest.raises(ConfigurationError, match="lacks the tables of this store"):
        list(missing.decisions())
    assert "optimove-ce schema" in refused(missing)


def test_tables_of_another_version(server: Postgres) -> None:
    with psycopg.connect(server.conninfo) as connection:
        connection.execute("CREATE TABLE optimove_decision_log_head (id integer)")
    assert "compare it with what `optimove-ce schema` prints" in refused(PostgresDecisionLog(server.url))


def test_a_head_that_was_lost(server: Postgres, log: PostgresDecisionLog) -> None:
    log.append([record()])
    with psycopg.connect(server.conninfo) as connection:
        connection.execute("DELETE FROM optimove_decision_log_head")
    assert "has lost its row" in refused(log)
    assert log.verify() == ChainFault(1, "is not the one that the database keeps as the last")
    with psycopg.connect(server.conninfo) as connection:
        connection.execute("DELETE FROM optimove_decision_log")
    assert log.verify() is not None


def test_a_foreign_entry_in_the_way(server: Postgres, log: PostgresDecisionLog) -> None:
    log.append([record()])
    with psycopg.connect(server.conninfo) as connection:
        connection.execute("UPDATE optimove_decision_log_head SET number = 0")
    with pytest.raises(ConnectionError, match="UniqueViolation") as caught:
        log.append([record(1)])
    shown(caught.value)


def test_a_read_only_server(server: Postgres, log: PostgresDecisionLog) -> None:
    log.append([record()])
    read_only = PostgresDecisionLog(f"{server.conninfo} options='-c default_transaction_read_only=on'")
    assert read_only.verify() is None
    assert "takes no writes, as a replica" in refused(read_only)


def test_a_pooler_may_stand_in_between(server: Postgres) -> None:
    with running_pgbouncer(server, "transaction", size=2) as url, PostgresDecisionLog(url) as log:

        def append() -> None:
            for number in range(10):
                log.append([record(number, id=f"{threading.get_ident()}/{number}")])

        in_threads(4, append)
        assert len(list(log.decisions())) == 40
        assert log.verify() is None


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_pool_of_psycopg(server: Postgres, autocommit: bool) -> None:
    given: dict[str, Any] = {"row_factory": dict_row, "autocommit": autocommit}
    with psycopg_pool.ConnectionPool(server.conninfo, kwargs=given, min_size=1, max_size=1, open=True) as pool:
        log = PostgresDecisionLog(pool)
        log.append([record(), completion(record())])
        assert log.erase(CUSTOMER) == 1
        assert [logged.erased for logged in log.decisions()] == [True]
        assert pool.get_stats()["pool_available"] == 1, "it is given back"
        log.close()
        assert not pool.closed


def test_what_cannot_be_a_log(server: Postgres) -> None:
    with pytest.raises(ConfigurationError, match="called in threads"):
        PostgresDecisionLog(psycopg_pool.AsyncConnectionPool(server.conninfo, open=False))  # type: ignore[arg-type]
    for invalid in ("", "postgresql://[", 5):
        with pytest.raises(ConfigurationError, match="conninfo"):
            PostgresDecisionLog(invalid)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="identify must be a secret"):
        PostgresDecisionLog(server.url, identify=" ")
    assert server.url not in repr(PostgresDecisionLog(server.url, identify="hush"))


# ---- payloads, and the command


def test_payloads(server: Postgres, log: PostgresDecisionLog) -> None:
    body, key = b'{"user": "Mr Gr\xff"}', Fernet.generate_key()
    with PostgresDecisionLog(server.url, keep_payloads=True) as plain:
        plain.append([record(0, payload=body)])
    with PostgresDecisionLog(server.url, keep_payloads=True, encryption_keys=key) as encrypted:
        encrypted.append([record(1, payload=body)])
        assert [(logged.record.payload, logged.sealed) for logged in encrypted.decisions()] == [(body, False)] * 2
    assert [(logged.record.payload, logged.sealed) for logged in log.decisions()] == [(body, False), (None, True)]
    head = log.head()
    assert log.erase(CUSTOMER) == 1
    assert log.verify(head=head) is None
    with psycopg.connect(server.conninfo) as connection:
        texts = connection.execute("SELECT row::text FROM optimove_decision_log AS row").fetchall()
    assert "Mr Gr" not in str(texts)


def test_a_replay(server: Postgres, log: PostgresDecisionLog) -> None:
    optimove = FakeOptimove()
    with PostgresDecisionLog(server.url, keep_payloads=True) as keeping:
        receiver = WebhookReceiver(
            lambda notification, deadline: notification.user.user_id != "C2",
            client=optimove.client(),
            secrets=optimove.secrets,
            decision_log=keeping,
        )
        for name in ("C1", "C2", "C3"):
            optimove.notify(receiver, user_id=name)
    report = replay(log.decisions(), handler=lambda notification, deadline: notification.user.user_id == "C1")
    assert (report.asked, report.changed) == (3, {("approve", "deny"): 1})


def test_the_command_takes_a_url(server: Postgres, log: PostgresDecisionLog, monkeypatch: pytest.MonkeyPatch) -> None:
    first = record()
    log.append([first, completion(first), record(1)])
    monkeypatch.setenv("OPTIMOVE_DECISION_LOG", server.url)

    def command(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(program, ["decisions", *arguments], prog_name="optimove-ce")
        return done.exit_code, done.output

    assert "Optimove was told no, and took it" in command("C-0", "--campaign", "29")[1]
    assert command("export", "--json")[1].count("\n") == 2
    assert command("verify")[0] == 0
    assert json.loads(command("erase", CUSTOMER, "--yes", "--json")[1]) == {"erased": 1}
    assert json.loads(command("prune", "--before", "2026-03-03T12:01", "--yes", "--json")[1]) == {"pruned": 1}
    assert [logged.entry for logged in log.decisions()] == [3]
    server.stop()
    try:
        status, printed = command("verify")
        assert (status, "The log cannot be used: PostgreSQL cannot be reached." in printed) == (2, True)
        assert str(server.port) not in printed
    finally:
        server.start()
    log.close()
    with psycopg.connect(server.conninfo) as connection:
        connection.execute(f"DROP TABLE {TABLES}")
    status, printed = command("export")
    assert (status, "PostgreSQL lacks the tables of this store" in printed) == (2, True), printed
    with psycopg.connect(server.conninfo) as connection:
        assert connection.execute("SELECT to_regclass('optimove_decision_log')").fetchone() == (None,)


def test_a_server_that_does_not_answer_does_not_hold_up_the_end(
    server: Postgres, log: PostgresDecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_decisions, "BUSY_SECONDS", 0.2)
    with psycopg.connect(server.conninfo) as another:
        another.execute("LOCK TABLE optimove_decision_log_head")
        submitted = log.submit([record(1)])
        log.close()
        assert isinstance(submitted, Future)
        with pytest.raises(ConnectionError):  # nothing was committed
            submitted.result(PATIENCE)
    log.append([record(2)])
    assert [each.record.request_uid for each in log.decisions()] == ["r-2"]
