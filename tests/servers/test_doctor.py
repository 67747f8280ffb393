"""`optimove-ce doctor --claims` and `optimove-ce schema` with real servers."""

from __future__ import annotations

import psycopg
import pytest
import redis as redis_py
from click.testing import CliRunner

from optimove_conditional_execution.cli.app import program
from optimove_conditional_execution.stores.postgres import PostgresClaims
from tests.cli.doctor.outside import Check, examined
from tests.conftest import free_port
from tests.servers.claims import IN_URL, SECRET, Server, guarded
from tests.servers.postgres import GUARDED, Postgres
from tests.servers.redis import Redis, running_redis


def checked(url: str) -> dict[str, Check]:
    found = examined(None, "--claims", url)
    return {name: check for name, check in found.items() if name.startswith("claims") or name == "pooler"}


def left(server: Server) -> int:
    """Return how many claims there are."""
    if isinstance(server, Redis):
        with redis_py.Redis.from_url(server.url) as client:
            return len(client.keys("*"))
    with psycopg.connect(server.conninfo) as connection:
        (count,) = connection.execute("SELECT count(*) FROM optimove_claims").fetchone() or (-1,)
        return int(count)


def test_a_store_that_is_well(server: Server) -> None:
    found = checked(server.url)
    kind = "Redis" if isinstance(server, Redis) else "PostgreSQL"
    assert list(found) == ["claims", "claims-clock", "claims-kept"]
    assert found["claims"].state != "problem"
    assert found["claims"].finding.startswith(kind)
    assert "ms" in found["claims"].finding
    assert (found["claims-clock"].state, found["claims-clock"].finding.split()[-5:]) == (
        "ok",
        ["Leases", "count", "on", f"{kind}'s", "alone."],
    )
    assert left(server) == 0
    # The servers of these tests write to the disk what they have confirmed; PostgreSQL does not wait for it.
    assert found["claims-kept"].state == ("ok" if isinstance(server, Redis) else "warning")


def test_a_url_with_a_password_comes_from_the_environment(server: Server) -> None:
    with guarded(server) as url:
        found = examined(variables={"OPTIMOVE_CLAIMS_URL": url(IN_URL)})
    told = repr(found)
    assert found["claims"].state == "problem"  # it lacks a permission
    assert not any(secret in told for secret in (SECRET, IN_URL, GUARDED))


def test_a_redis_that_forgets() -> None:
    changes = {"appendonly": "no", "maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"}
    with running_redis() as server:  # its own, since to switch appendonly on again takes a while
        with redis_py.Redis.from_url(server.url) as client:
            for name, value in changes.items():
                client.config_set(name, value)
        kept = checked(server.url)["claims-kept"]
    assert kept.state == "warning"
    assert "Set appendonly yes." in kept.remedy
    assert "allkeys-lru" in kept.finding
    assert "noeviction" in kept.remedy


@pytest.mark.parametrize("server", ["redis"], indirect=True)
def test_a_read_only_replica(server: Redis) -> None:
    with redis_py.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", str(free_port()))
        try:
            found = checked(server.url)
        finally:
            client.replicaof("NO", "ONE")
    assert (found["claims"].finding, found["claims"].remedy) == (
        "This Redis is a read-only replica.",
        "Set the address of its master.",
    )
    assert {found[name].state for name in ("claims-clock", "claims-kept")} == {"not checked"}


@pytest.mark.parametrize("server", ["postgres"], indirect=True)
def test_a_postgresql_that_confirms_too_early(server: Postgres) -> None:
    kept = checked(f"{server.conninfo} options='-c synchronous_commit=off'")["claims-kept"]
    assert kept.state == "warning"
    assert "Set synchronous_commit on for the gate's role or database." in kept.remedy
    assert "Set fsync on." in kept.remedy  # the servers of these tests run without


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{}/0", "postgresql://127.0.0.1:{}/gate"])
def test_a_server_that_is_not_there(url: str) -> None:
    found = checked(url.format(free_port()))["claims"]
    assert found.state == "problem"
    assert "cannot be reached" in found.finding
    assert "Is the server started" in found.remedy


def test_what_is_no_claim_store() -> None:
    assert "redis://host/0" in checked("https://example.com")["claims"].remedy


@pytest.mark.parametrize("server", ["postgres"], indirect=True)
def test_the_printed_schema_is_what_the_store_needs(server: Postgres) -> None:
    printed = CliRunner().invoke(program, ["schema"]).stdout
    with guarded(server) as url:
        with psycopg.connect(server.conninfo) as connection:
            connection.execute(printed)
            connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON optimove_claims TO {GUARDED}")
        store = PostgresClaims(url(IN_URL))
        assert store.acquire("q", "owner", 1.0, 1.0).mine
        store.release("q", "owner")
        store.close()
