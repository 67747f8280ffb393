"""Connections of the stores: forks, event loops, clients of one's own, TLS, poolers; and how many there are."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import psycopg_pool
import pytest
import redis as redis_py
import trustme
from psycopg import sql
from psycopg.rows import dict_row
from redis.asyncio import Redis as AsyncRedis

from optimove_conditional_execution import AsyncWebhookReceiver, ConfigurationError, WebhookReceiver
from optimove_conditional_execution.errors import StoreError
from optimove_conditional_execution.stores import postgres as postgres_module
from optimove_conditional_execution.stores import postgres_connection
from optimove_conditional_execution.stores.postgres import PostgresClaims
from optimove_conditional_execution.stores.redis import RedisClaims
from optimove_conditional_execution.testing import FakeOptimove
from tests.cli.doctor.outside import examined
from tests.conftest import Child, forked, forked_untold, free_port
from tests.servers.claims import IN_URL, SECRET, Claims, Server, claims_of, clear
from tests.servers.journals import until
from tests.servers.pgbouncer import running_pgbouncer
from tests.servers.postgres import GUARDED, Postgres
from tests.servers.processes import PATIENCE, ordinary_user, own_folder
from tests.servers.redis import Redis
from tests.stores.claim_suite import DECIDED, SETTLED, Steps


def acquired_in_a_loop(store: Claims, *questions: str) -> list[bool]:
    """Acquire all at once, in an event loop of their own."""

    async def run() -> list[bool]:
        acquire: Any = store.asynchronous.acquire
        return [claim.mine for claim in await asyncio.gather(*(acquire(each, "a", 60.0, 60.0) for each in questions))]

    return asyncio.run(run())


# ---- receivers


def test_replicas_of_both_kinds_ask_once(server: Server) -> None:
    asked: list[str] = []
    optimove = FakeOptimove()

    def may_receive(notification: Any, deadline: Any) -> bool:
        asked.append(notification.user.user_id)
        return True

    one, two = claims_of(server.url), claims_of(server.url)
    sync = WebhookReceiver(may_receive, client=optimove.client(), secrets=optimove.secrets, claims=one)
    twin = AsyncWebhookReceiver(may_receive, client=optimove.async_client(), secrets=optimove.secrets, claims=two)
    assert optimove.notify(sync, "C1", request_uid="r-1").approved
    assert asyncio.run(optimove.anotify(twin, "C1", request_uid="r-1")).responses[-1].status == 200
    assert asyncio.run(optimove.anotify(twin, "C2", request_uid="r-2")).approved
    assert optimove.notify(sync, "C2", request_uid="r-2").responses[-1].status == 200
    assert asked == ["C1", "C2"]
    assert len(optimove.calls_of("send_webhook_approval")) == 2
    one.close()
    two.close()


def test_an_async_receiver_calls_the_store_in_its_loop(server: Server) -> None:
    optimove = FakeOptimove()
    store = claims_of(server.url)
    receiver = AsyncWebhookReceiver(
        lambda notification, deadline: True, client=optimove.async_client(), secrets=optimove.secrets, claims=store
    )
    before = set(threading.enumerate())
    assert asyncio.run(optimove.anotify(receiver, "C1")).approved
    assert {thread.name for thread in set(threading.enumerate()) - before} <= {"optimove-handler"}
    store.close()


# ---- forks and event loops


@pytest.mark.parametrize("fork", [forked, forked_untold])
def test_a_fork_shares_no_connection(server: Server, claims: Claims, fork: Callable[[], int]) -> None:
    acquire: Any = claims.asynchronous.acquire

    async def run() -> None:
        assert claims.acquire("parent's", "a", 60.0, 60.0).mine
        assert (await acquire("parent's in a loop", "a", 60.0, 60.0)).mine
        child = Child(in_child, fork)
        for number in range(20):
            assert claims.acquire(f"p{number}", "a", 60.0, 60.0).mine
            assert (await acquire(f"pl{number}", "a", 60.0, 60.0)).mine
        assert await asyncio.to_thread(child.status) == 0
        assert not claims.acquire("c0", "a", 60.0, 60.0).mine
        assert (await acquire("after", "a", 60.0, 60.0)).mine

    def in_child() -> bool:
        done: list[bool] = []

        def work() -> None:
            done.extend(claims.acquire(f"c{number}", "b", 60.0, 60.0).mine for number in range(20))
            done.extend(acquired_in_a_loop(claims, *(f"cl{number}" for number in range(20))))

        thread = threading.Thread(target=work)  # the child has inherited a running loop in this one
        thread.start()
        thread.join(60)
        return done == [True] * 40

    asyncio.run(run())


def test_event_loops_after_and_beside_each_other(server: Server, claims: Claims) -> None:
    for turn in range(3):
        assert all(acquired_in_a_loop(claims, *(f"{turn}-{number}" for number in range(20))))
    beside: list[bool] = []
    threads = [
        threading.Thread(target=lambda name=name: beside.extend(acquired_in_a_loop(claims, f"{name}-1", f"{name}-2")))
        for name in "abc"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert beside == [True] * 6
    claims.close()
    end = time.monotonic() + PATIENCE
    while connections(server):  # the server takes a moment to see that a connection is closed
        assert time.monotonic() < end
        time.sleep(0.05)


def connections(server: Server) -> int:
    """Return how many clients a server has beside the one that asks."""
    if isinstance(server, Redis):
        with redis_py.Redis.from_url(server.url) as client:
            return len(client.client_list()) - 1
    with psycopg.connect(server.conninfo) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE client_port IS NOT NULL AND pid <> pg_backend_pid()"
        (count,) = connection.execute(query).fetchone() or (-1,)
        return int(count)


@pytest.mark.parametrize("server", ["redis"], indirect=True)
def test_what_a_loop_asks_at_once_goes_in_one_pipeline(server: Redis, claims: Claims) -> None:
    async def run() -> int:
        acquire: Any = claims.asynchronous.acquire
        await asyncio.gather(*(acquire(f"q{number}", "a", 60.0, 60.0) for number in range(200)))
        return await asyncio.to_thread(connections, server)

    assert asyncio.run(run()) == 1


def test_many_threads_share_few_connections(server: Server, claims: Claims) -> None:
    Steps(claims).acquire_together([f"owner-{number}" for number in range(40)])
    assert 1 <= connections(server) <= 16


# ---- clients of one's own


@pytest.mark.parametrize("decode", [False, True])
def test_clients_of_redis_py(redis: Redis, decode: bool) -> None:
    with redis_py.Redis.from_url(redis.url, decode_responses=decode) as client:
        client.flushall()
        store = RedisClaims(client, prefix="mine:")
        assert store.acquire("q", "a", 60.0, 60.0).mine
        assert store.update("q", "a", DECIDED, 0.0, 60.0)
        assert store.asynchronous is store  # so an event loop calls it in threads
        store.close()
        assert client.exists("mine:q")

    async def run() -> None:
        async with AsyncRedis.from_url(redis.url, decode_responses=decode) as given:
            claims = RedisClaims(given, prefix="mine:")
            claim = await claims.asynchronous.acquire("q", "b", 60.0, 60.0)  # type: ignore[misc]
            assert claim.approval == DECIDED.approval
            with pytest.raises(ConfigurationError, match="for AsyncWebhookReceiver only"):
                claims.acquire("q", "b", 60.0, 60.0)

    asyncio.run(run())


@pytest.mark.parametrize("autocommit", [False, True])
def test_pools_of_psycopg(postgres: Postgres, autocommit: bool) -> None:
    given = {"row_factory": dict_row, "autocommit": autocommit}
    with psycopg_pool.ConnectionPool(postgres.conninfo, kwargs=given, min_size=1, open=True) as pool:
        with pool.connection() as connection:
            connection.execute("DROP TABLE IF EXISTS optimove_claims")
        store = PostgresClaims(pool)
        assert store.asynchronous is store
        assert store.acquire("q", "a", 60.0, 60.0).mine
        assert store.update("q", "a", DECIDED, 0.0, 60.0)
        store.close()
        assert not pool.closed

    async def run() -> None:
        async with psycopg_pool.AsyncConnectionPool(postgres.conninfo, kwargs=given, min_size=1, open=False) as pool:
            claims = PostgresClaims(pool)
            claim = await claims.asynchronous.acquire("q", "b", 60.0, 60.0)  # type: ignore[misc]
            assert claim.approval == DECIDED.approval
            with pytest.raises(ConfigurationError, match="for AsyncWebhookReceiver only"):
                claims.acquire("q", "b", 60.0, 60.0)
            claims.close()
            assert not pool.closed

    asyncio.run(run())


def test_a_server_that_is_gone_is_noticed_soon(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a sign of life, the system closes a connection after five seconds, not after two hours."""
    connections: list[psycopg.Connection[Any]] = []
    connect = psycopg.connect

    def connected(*arguments: Any, **options: Any) -> Any:
        connections.append(connect(*arguments, **options))
        return connections[-1]

    monkeypatch.setattr(psycopg, "connect", connected)
    store = PostgresClaims(postgres.conninfo)
    store.acquire("gone", "a", 0.01, 0.01)
    (connection,) = connections
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as copy:
        wanted = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
        assert copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert [copy.getsockopt(socket.IPPROTO_TCP, each) for each in wanted] == [2, 1, 3, 2_000]
    store.close()


def test_a_connection_that_fails_at_once_is_closed(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose server is killed just then; psycopg would warn of it, and the server keep it."""
    made: list[psycopg.Connection[Any] | psycopg.AsyncConnection[Any]] = []

    def fails(connection: Any, _backend: object) -> bool:
        made.append(connection)
        raise psycopg.OperationalError("the connection is lost")

    monkeypatch.setattr(postgres_connection, "is_direct", fails)
    store = PostgresClaims(postgres.conninfo)
    with pytest.raises(StoreError):
        store.acquire("q", "a", 1.0, 1.0)
    with pytest.raises(StoreError):
        acquired_in_a_loop(store, "q")
    assert [connection.closed for connection in made] == [True, True]
    store.close()


# ---- PostgreSQL's table


def test_expired_rows_are_deleted(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    clear(postgres)
    store = PostgresClaims(postgres.conninfo)
    monkeypatch.setattr(postgres_module, "_FORGET_EVERY", 0.0)
    eager = PostgresClaims(postgres.conninfo)
    query = "SELECT count(*) FROM optimove_claims WHERE expires < clock_timestamp()"
    with psycopg.connect(postgres.conninfo, autocommit=True) as connection:
        for acquire in (lambda: eager.acquire("q", "a", 60.0, 60.0), lambda: acquired_in_a_loop(eager, "q2")):
            store.acquire("old", "a", 0.01, 0.01)
            until(lambda: connection.execute(query).fetchone() == (1,))
            acquire()
            assert connection.execute(query).fetchone() == (0,)
    store.close()
    eager.close()


def test_only_what_must_not_be_lost_waits_for_the_disk(postgres: Postgres) -> None:
    clear(postgres)
    store = PostgresClaims(postgres.conninfo)
    store.acquire("q", "a", 60.0, 60.0)
    with psycopg.connect(postgres.conninfo) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS commits (state text, setting text)")
        connection.execute(
            """CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO commits VALUES (NEW.state, current_setting('synchronous_commit')); RETURN NEW; END $$"""
        )
        connection.execute(
            """CREATE CONSTRAINT TRIGGER note AFTER INSERT OR UPDATE ON optimove_claims DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION note()"""
        )
    store.acquire("q", "a", 60.0, 60.0)
    store.update("q", "a", DECIDED, 60.0, 60.0)
    store.update("q", "a", SETTLED, 0.0, 60.0)
    store.acquire("another", "a", 60.0, 60.0)
    with psycopg.connect(postgres.conninfo) as connection:
        kept = connection.execute("SELECT state, setting FROM commits").fetchall()
        connection.execute("DROP TABLE optimove_claims, commits")
    assert kept == [("open", "on"), ("undelivered", "on"), ("settled", "off"), ("open", "on")]
    store.close()


# ---- poolers


def test_a_pooler_that_gives_one_connection_to_all(postgres: Postgres) -> None:
    clear(postgres)
    with running_pgbouncer(postgres, "transaction", size=2) as url:
        stores = [PostgresClaims(url), PostgresClaims(url)]
        for turn in range(3):
            for number, store in enumerate(stores):
                assert store.acquire(f"pooled-{turn}-{number}", "a", 60.0, 60.0).mine
                assert store.renew(f"pooled-{turn}-{number}", "a", 60.0, 60.0)
                assert store.update(f"pooled-{turn}-{number}", "a", DECIDED, 60.0, 60.0)
        assert all(acquired_in_a_loop(stores[0], *(f"pooled-{number}" for number in range(40))))
        for store in stores:
            store.close()


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_the_doctor_finds_a_pooler(postgres: Postgres, mode: str) -> None:
    with running_pgbouncer(postgres, mode, size=4) as url:
        found = examined(None, "--claims", url)["pooler"]
    assert f"in {mode} mode" in found.finding


# ---- TLS and passwords


@pytest.fixture
def certificates() -> Iterator[Path]:
    """A folder with an authority's certificate, and a server's and its key, that the server can read."""
    user, authority = ordinary_user(), trustme.CA()
    server = authority.issue_cert("localhost")
    with own_folder(user) as folder:
        authority.cert_pem.write_to_path(str(folder / "authority.pem"))
        server.cert_chain_pems[0].write_to_path(str(folder / "server.pem"))
        server.private_key_pem.write_to_path(str(folder / "key.pem"))
        (folder / "key.pem").chmod(0o600)
        if user is not None:
            shutil.chown(folder / "key.pem", user)
        yield folder


def test_redis_over_tls_with_a_password(redis: Redis, certificates: Path) -> None:
    port = free_port()
    with redis_py.Redis.from_url(redis.url) as client:
        client.execute_command("ACL", "SETUSER", GUARDED, "on", f">{SECRET}", "~*", "+@all")
        client.config_set(
            "tls-cert-file", str(certificates / "server.pem"),
            "tls-key-file", str(certificates / "key.pem"),
            "tls-ca-cert-file", str(certificates / "authority.pem"),
            "tls-auth-clients", "no",
            "tls-port", str(port),
        )  # fmt: skip
        try:
            address = f"rediss://{GUARDED}:{IN_URL}@localhost:{port}/0"
            uses(RedisClaims(f"{address}?ssl_ca_certs={certificates / 'authority.pem'}"))
            with pytest.raises(ConfigurationError, match="ssl_ca_certs"):
                RedisClaims(address).acquire("q", "a", 1.0, 1.0)  # nobody vouches for the server
        finally:
            client.config_set("tls-port", "0")
            client.execute_command("ACL", "DELUSER", GUARDED)


def test_postgresql_over_tls_with_a_password(postgres: Postgres, certificates: Path) -> None:
    with psycopg.connect(postgres.conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {GUARDED} LOGIN SUPERUSER PASSWORD '{SECRET}'")
        for name, value in (
            ("ssl_cert_file", certificates / "server.pem"), ("ssl_key_file", certificates / "key.pem"), ("ssl", "on"),
        ):  # fmt: skip
            connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), str(value)))
        try:
            connection.execute("SELECT pg_reload_conf()")
            address = f"postgresql://{GUARDED}:{IN_URL}@localhost:{postgres.port}/postgres?sslmode=verify-full"
            store = PostgresClaims(f"{address}&sslrootcert={certificates / 'authority.pem'}")
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    uses(store)
                except ConfigurationError:  # until it has read its settings
                    assert time.monotonic() < end
                    time.sleep(0.05)
                else:
                    break
            with pytest.raises(ConfigurationError, match="agree on no TLS"):
                PostgresClaims(f"{address}&sslrootcert={certificates / 'missing.pem'}").acquire("q", "a", 1.0, 1.0)
        finally:
            for name in ("ssl", "ssl_cert_file", "ssl_key_file"):
                connection.execute(sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name)))
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(f"DROP OWNED BY {GUARDED}")
            connection.execute(f"DROP ROLE {GUARDED}")


def uses(store: Claims) -> None:
    """Take a step in a thread and one in an event loop."""
    assert store.acquire("over TLS", "a", 1.0, 1.0).mine
    assert acquired_in_a_loop(store, "over TLS in a loop") == [True]
    store.close()
