"""The stores over the servers of these tests, and a user of those who has a password and few permissions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import psycopg
import redis as redis_py

from optimove_conditional_execution.stores.postgres import PostgresClaims
from optimove_conditional_execution.stores.redis import RedisClaims
from tests.servers.postgres import GUARDED, Postgres
from tests.servers.redis import Redis

Claims = RedisClaims | PostgresClaims
Server = Redis | Postgres

SECRET = "p/ss:w@rd"  # what a URL must percent-encode
IN_URL = "p%2Fss%3Aw%40rd"


def claims_of(url: str) -> Claims:
    """Return a store on the server of a URL."""
    return RedisClaims(url) if url.startswith("redis") else PostgresClaims(url)


def clear(server: Server) -> None:
    """Remove all claims, and PostgreSQL's table."""
    if isinstance(server, Redis):
        with redis_py.Redis.from_url(server.url) as client:
            client.flushall()
    else:
        with psycopg.connect(server.conninfo) as connection:
            connection.execute("DROP TABLE IF EXISTS optimove_claims")


_ELAPSE = """
for _, key in ipairs(redis.call('KEYS', '*')) do
  redis.call('HSET', key, 'lease', string.format('%.0f', redis.call('HGET', key, 'lease') - ARGV[1]))
  redis.call('PEXPIRE', key, redis.call('PTTL', key) - ARGV[1])
end
"""


def elapse(server: Server, seconds: float) -> None:
    """Let leases and claims have so many seconds less, as if that time had passed."""
    if isinstance(server, Redis):
        with server.connect() as client:
            client.eval(_ELAPSE, 0, str(round(seconds * 1000)))
    else:
        with psycopg.connect(server.conninfo) as connection:
            connection.execute(
                "UPDATE optimove_claims SET lease = lease - make_interval(secs => %(seconds)s),"
                " expires = expires - make_interval(secs => %(seconds)s)",
                {"seconds": seconds},
            )


@contextlib.contextmanager
def guarded(server: Server) -> Iterator[Callable[[str], str]]:
    """Make the user; return a function that makes its URL of a password."""
    if isinstance(server, Redis):
        with redis_py.Redis.from_url(server.url) as client:
            client.execute_command("ACL", "SETUSER", GUARDED, "on", f">{SECRET}", "~*", "+get")
            yield lambda password: f"redis://{GUARDED}:{password}@127.0.0.1:{server.port}/0"
            client.execute_command("ACL", "DELUSER", GUARDED)
        return
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {GUARDED} LOGIN PASSWORD '{SECRET}'")
        yield lambda password: f"postgresql://{GUARDED}:{password}@127.0.0.1:{server.port}/postgres"
        connection.execute(f"DROP OWNED BY {GUARDED}")
        connection.execute(f"DROP ROLE {GUARDED}")
