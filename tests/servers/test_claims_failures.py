"""Claims in Redis and in PostgreSQL when their server misbehaves, or is not the right one."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import redis as redis_py

from optimove_conditional_execution import ConfigurationError, OptimoveError, StoreError
from optimove_conditional_execution.stores.postgres import PostgresClaims
from optimove_conditional_execution.stores.redis import RedisClaims
from tests.conftest import free_port
from tests.servers.claims import IN_URL, SECRET, Claims, Server, claims_of, guarded
from tests.servers.postgres import GUARDED, Postgres
from tests.servers.redis import Redis
from tests.stores.claim_suite import DECIDED, Steps

Colour = Callable[[Claims], Steps]


@pytest.fixture(params=["in threads", "in an event loop"])
def steps(request: pytest.FixtureRequest) -> Iterator[Colour]:
    """Call a store from threads, or from an event loop, which closes its connections."""
    kept: list[Claims] = []

    def in_loop(store: Claims) -> Steps:
        kept.append(store)
        return Steps(store.asynchronous, runner=runner)

    with asyncio.Runner() as runner:
        yield Steps if request.param == "in threads" else in_loop


def shown(error: OptimoveError) -> str:
    """Return the text of an error, which shows nothing of the URL."""
    text = "".join(traceback.format_exception(error))
    assert not any(secret in text for secret in (SECRET, IN_URL, GUARDED, "127.0.0.1", "localhost")), text
    return str(error)


def refusal(steps: Steps) -> str:
    """Return why a step is refused, and will be."""
    with pytest.raises(ConfigurationError) as caught:
        steps.acquire()
    return shown(caught.value)


# ---- outages


def test_a_server_that_is_killed_and_started_again(
    server: Server, claims: Claims, steps: Colour, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    caller = steps(claims)
    for number in range(3):
        assert caller.acquire("a", f"q{number}", lease=300, ttl=600).mine
    server.stop()
    try:
        for _ in range(3):
            with pytest.raises(StoreError, match="cannot be reached") as caught:
                caller.acquire()
            shown(caught.value)
    finally:
        server.start()
    # What it had confirmed is there.
    for number in range(3):
        assert caller.acquire("b", f"q{number}").state.value == "open"
        assert not caller.acquire("b", f"q{number}").mine
    assert caller.update(DECIDED, "a", "q0")
    assert not [record for record in caplog.records if record.levelno >= logging.INFO], caplog.text


def test_a_restart_between_two_steps_costs_none(server: Server, claims: Claims, steps: Colour) -> None:
    caller = steps(claims)
    caller.acquire_together([f"owner-{number}" for number in range(8)])  # several connections are open
    server.restart()
    for number in range(16):
        assert caller.acquire("a", f"q{number}").mine


@pytest.mark.parametrize("server", ["redis"], indirect=True)
def test_a_redis_that_hangs_is_given_up(server: Redis, claims: Claims, steps: Colour) -> None:
    caller = steps(claims)
    assert caller.acquire().mine
    began = time.monotonic()
    with server.hanging(), pytest.raises(StoreError, match="does not answer in time"):
        caller.acquire()
    assert time.monotonic() - began < 30
    assert caller.acquire("b", "another").mine


def test_an_event_loop_goes_on_while_the_server_hangs(server: Server, claims: Claims) -> None:
    async def run() -> None:
        acquire: Any = claims.asynchronous.acquire
        await acquire("q", "a", 5.0, 5.0)
        with server.hanging():
            step = asyncio.ensure_future(acquire("q", "b", 5.0, 5.0))
            for _ in range(20):
                await asyncio.sleep(0.001)
                assert not step.done()
        await step

    asyncio.run(run())


def test_a_step_of_an_event_loop_that_is_given_up_harms_no_other(server: Server, claims: Claims) -> None:
    async def run() -> None:
        acquire: Any = claims.asynchronous.acquire
        await acquire("q", "a", 5.0, 5.0)
        with server.hanging(), pytest.raises(TimeoutError):
            await asyncio.wait_for(acquire("q", "b", 5.0, 5.0), 0.2)
        results = await asyncio.gather(*(acquire(f"q{number}", "a", 5.0, 5.0) for number in range(40)))
        assert all(claim.mine for claim in results)

    asyncio.run(run())


# ---- what another try cannot change


def test_a_wrong_password(server: Server, steps: Colour) -> None:
    with guarded(server) as url:
        assert "refuses the user or the password: check them" in refusal(steps(claims_of(url("wrong"))))


def test_a_permission_that_is_missing(server: Server, steps: Colour) -> None:
    with guarded(server) as url:
        said = refusal(steps(claims_of(url(IN_URL))))
    assert ("allow EVAL" if isinstance(server, Redis) else "optimove-ce schema") in said


@pytest.mark.parametrize("server", ["postgres"], indirect=True)
def test_a_role_that_may_write_but_not_create(server: Postgres, steps: Colour) -> None:
    with guarded(server) as url:
        caller = steps(PostgresClaims(url(IN_URL)))
        assert "GRANT SELECT, INSERT, UPDATE, DELETE" in refusal(caller)
        steps(PostgresClaims(server.conninfo)).acquire()  # which creates the table
        assert "GRANT SELECT, INSERT, UPDATE, DELETE" in refusal(caller)
        with psycopg.connect(server.conninfo) as connection:
            connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON optimove_claims TO {GUARDED}")
        assert caller.acquire(question="another").mine


@pytest.mark.parametrize("server", ["postgres"], indirect=True)
def test_a_table_of_another_version(server: Postgres, steps: Colour) -> None:
    with psycopg.connect(server.conninfo) as connection:
        connection.execute("CREATE TABLE optimove_claims (question text PRIMARY KEY)")
    assert "compare it with what `optimove-ce schema` prints" in refusal(steps(PostgresClaims(server.conninfo)))


@pytest.mark.parametrize("server", ["redis"], indirect=True)
def test_a_read_only_redis(server: Redis, steps: Colour) -> None:
    with redis_py.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", str(free_port()))
        try:
            assert "read-only replica: set the address of its master" in refusal(steps(RedisClaims(server.url)))
        finally:
            client.replicaof("NO", "ONE")


@pytest.mark.parametrize("server", ["postgres"], indirect=True)
def test_a_read_only_postgresql(server: Postgres, steps: Colour) -> None:
    steps(PostgresClaims(server.conninfo)).acquire()
    store = PostgresClaims(f"{server.conninfo} options='-c default_transaction_read_only=on'")
    assert "takes no writes, as a replica: set the address of the primary" in refusal(steps(store))


def test_a_database_that_does_not_exist(server: Server, steps: Colour) -> None:
    url = server.url.rpartition("/")[0] + "/99"
    assert "no such database" in refusal(steps(claims_of(url)))


def test_a_server_that_speaks_no_tls(server: Server, steps: Colour) -> None:
    if isinstance(server, Redis):
        # Redis waits for the end of what it takes for a command.
        with pytest.raises(StoreError, match="does not answer in time"):
            steps(RedisClaims(server.url.replace("redis:", "rediss:"))).acquire()
    else:
        assert "agree on no TLS" in refusal(steps(PostgresClaims(f"{server.conninfo} sslmode=require")))


def test_a_redis_without_memory(redis: Redis, steps: Colour) -> None:
    with redis_py.Redis.from_url(redis.url) as client:
        client.config_set("maxmemory", "1")
        try:
            with pytest.raises(StoreError, match="out of memory"):
                steps(RedisClaims(redis.url)).acquire()
        finally:
            client.config_set("maxmemory", "0")
