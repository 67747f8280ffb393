"""Claims in Redis, shared by replicas on any number of machines (extra `redis`). The only module that imports it."""

from __future__ import annotations

import asyncio
import math
import os
import re
from contextlib import suppress
from typing import Any, Final, final
from urllib.parse import urlsplit

from ..deadline import Deadline
from ..errors import ConfigurationError, DeadlineExceeded, StoreError
from ..tracebacks import sensitive_variables
from ..transport.connection_pool import PoolPerLoop
from .remote import (
    ALL_IN_USE,
    MAX_CONNECTIONS,
    STEP_SECONDS,
    AsyncRemoteClaims,
    RemoteClaims,
    ServerFacts,
    Step,
    async_only,
)

try:
    import redis
    import redis.asyncio
    from redis import exceptions
    from redis.asyncio.retry import Retry as AsyncRetry
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError:
    from ..installation import install_hint

    raise ImportError(f"RedisClaims needs redis: {install_hint('redis')}", name="redis") from None

# KEYS: the claim. ARGV: owner, milliseconds of the lease and until it may be forgotten, state, approval.
_PROLOGUE: Final = """
local key, owner, lease, ttl = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state, holder, till, approval = unpack(redis.call('HMGET', key, 'state', 'owner', 'lease', 'approval'))
local function write(changed, answer)
  redis.call('HSET', key, 'state', changed, 'owner', owner, 'lease', string.format('%.0f', now + lease))
  if answer ~= '' then redis.call('HSET', key, 'approval', answer) else redis.call('HDEL', key, 'approval') end
  if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
end
"""

_SCRIPTS: Final = {
    "acquire": _PROLOGUE
    + """
if state == 'settled' then return {state, 0, '', 0} end
if state and holder ~= owner and tonumber(till) > now then return {state, 0, '', till - now} end
write(state or 'open', approval or '')
return {state or 'open', 1, approval or '', lease}
""",
    "renew": _PROLOGUE
    + """
if state and (holder ~= owner or state == 'settled') then return 0 end
write(state or 'open', approval or '')
return 1
""",
    "update": _PROLOGUE
    + """
if state and (holder ~= owner or state == 'settled' and ARGV[4] ~= 'settled') then return 0 end
write(ARGV[4], ARGV[5])
return 1
""",
    "release": """
local state, holder = unpack(redis.call('HMGET', KEYS[1], 'state', 'owner'))
if state == 'open' and holder == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
""",
}

_OPTIONS: Final[dict[str, Any]] = {
    "socket_timeout": STEP_SECONDS,
    "socket_connect_timeout": STEP_SECONDS,
    "socket_keepalive": True,
    "health_check_interval": 0,
    "retry_on_error": [exceptions.ConnectionError],
}
_RETRY: Final = (NoBackoff(), 1, (exceptions.ConnectionError,))
"""At once and once, on a new connection: Redis may have ended an idle one. The receiver tries again with pauses."""

_PATH: Final = re.compile("/?[0-9]*")
"""redis-py takes another path for that of database 0."""

_BATCH_STEPS: Final = 4_096
"""Steps of an event loop that wait for Redis at once; more wait for their turn."""


@final
class RedisClaims(RemoteClaims):
    """A claim store in Redis 5 or later, or Valkey: for `WebhookReceiver` and for `AsyncWebhookReceiver`.

    Each step is one Lua script on one key, which Redis expires by itself; leases count on Redis' clock. The keys hold
    the answers that Optimove has not accepted yet, `additional_data` included, until half a minute after their
    deadline. Redis must keep what it has confirmed (`appendonly yes`), and must not evict keys (`maxmemory-policy
    noeviction`): what it forgets is decided again. Safe for threads, any number of event loops, and forks.

    Attributes:
        asynchronous: The same claims for an event loop; `AsyncWebhookReceiver` takes it by itself.
    """

    @sensitive_variables
    def __init__(self, url_or_client: str | redis.Redis | redis.asyncio.Redis, *, prefix: str = "optimove-ce:") -> None:
        """Lazy: nothing is connected until first use.

        Args:
            url_or_client: `redis://[user:password@]host[:port][/database]`, `rediss://` for TLS, or `unix://`. Options
                of redis-py can follow, such as `?ssl_ca_certs=/path&socket_timeout=0.5`. Or a client of your own: a
                `redis.Redis`, or a `redis.asyncio.Redis` for an `AsyncWebhookReceiver`. Set its time limits:
                earlier versions of redis-py have none by default.
            prefix: The start of each key. Gates of several tenants in one Redis need one each.

        Raises:
            ConfigurationError: Here, that the URL is invalid; at first use, that Redis refuses it: a wrong password, a
                database or a permission that is missing, a read-only replica.
            StoreError: In all methods: Redis cannot be reached, or does not take the claim. It can be tried again.
        """
        if not isinstance(prefix, str):
            raise ConfigurationError("prefix must be text.")
        self._prefix = prefix
        self._client: redis.Redis | None = None
        self.asynchronous: RedisClaims | AsyncRedisClaims = self
        if isinstance(url_or_client, redis.Redis):
            self._client = url_or_client
        elif isinstance(url_or_client, redis.asyncio.Redis):
            given = url_or_client
            self.asynchronous = AsyncRedisClaims(lambda: _Batches(given), _leave_open, prefix)
        else:
            self._client, make = _clients(url_or_client)
            self.asynchronous = AsyncRedisClaims(make, _Batches.aclose, prefix)

    def _perform(self, step: Step) -> Any:
        if self._client is None:
            raise async_only("A redis.asyncio client")
        try:
            return self._client.eval(*_arguments(step, self._prefix))
        except (exceptions.RedisError, OSError) as error:
            raise _translated(error) from None

    def close(self) -> None:
        """Close the connections of this process's threads; the next use opens new ones."""
        if self._client is not None and self.asynchronous is not self:
            self._client.connection_pool.disconnect()


@sensitive_variables
def redis_facts(url: str) -> ServerFacts:
    """Return what `optimove-ce doctor` wants to know of a Redis; raises as a step does."""
    client, _ = _clients(url)
    try:
        seconds, microseconds = client.time()
        told: dict[str, Any] = {}
        with suppress(exceptions.ResponseError):  # a user who may not ask
            for section in ("persistence", "memory"):
                told |= client.info(section)
        names = ("aof_enabled", "aof_last_write_status", "maxmemory", "maxmemory_policy")
        return ServerFacts(
            seconds + microseconds / 1_000_000, {name: str(told[name]) for name in names if name in told}
        )
    except (exceptions.RedisError, OSError) as error:
        raise _translated(error) from None
    finally:
        client.connection_pool.disconnect()


@final
class AsyncRedisClaims(AsyncRemoteClaims):
    """The claims of a `RedisClaims` for an event loop: the steps of one tick of the loop are sent together."""

    def __init__(self, make: Any, aclose: Any, prefix: str) -> None:
        """As `RedisClaims.asynchronous`."""
        self._prefix = prefix
        self._pools: PoolPerLoop[_Batches] = PoolPerLoop(make, aclose, max_connections=_BATCH_STEPS, is_shared=True)

    async def _perform(self, step: Step) -> Any:
        pool = self._pools.current().requests
        try:
            batches = await pool.aacquire(Deadline.after(STEP_SECONDS))
        except DeadlineExceeded:
            raise StoreError(ALL_IN_USE) from None
        try:
            return await batches.run(_arguments(step, self._prefix))
        except (exceptions.RedisError, OSError) as error:
            raise _translated(error) from None
        finally:
            pool.release(batches)


_INHERITED: Final[list[object]] = []


class _Batches:
    """The client of one event loop."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._steps: list[tuple[tuple[Any, ...], asyncio.Future[Any]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._pid = os.getpid()

    def run(self, arguments: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Send a step with the others of this tick."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._steps.append((arguments, future))
        if len(self._steps) == 1:
            loop.call_soon(self._start)
        return future

    def _start(self) -> None:
        steps, self._steps = self._steps, []
        task = asyncio.get_running_loop().create_task(self._send(steps))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, steps: list[tuple[tuple[Any, ...], asyncio.Future[Any]]]) -> None:
        replies: list[Any]
        try:
            async with self._client.pipeline(transaction=False) as pipeline:
                for arguments, _ in steps:
                    pipeline.eval(*arguments)
                replies = await pipeline.execute(raise_on_error=False)
        except Exception as error:  # noqa: BLE001 - it is set on the futures
            replies = [error] * len(steps)
        except BaseException:
            for _, future in steps:
                future.cancel()
            raise
        for (_, future), reply in zip(steps, replies, strict=True):
            if future.done():
                continue  # its delivery was cancelled
            if isinstance(reply, BaseException):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    async def aclose(self) -> None:
        """Close the connections, at the end of the event loop."""
        await self._client.connection_pool.disconnect()

    def __del__(self) -> None:
        # A forked child must not close its parent's connections, as redis-py would when they are collected.
        if self._pid != os.getpid():
            _INHERITED.append(self._client)


async def _leave_open(_: _Batches) -> None:
    """Leave the user's client open."""


def _clients(url: object) -> tuple[redis.Redis, Any]:
    if not isinstance(url, str):
        raise ConfigurationError("RedisClaims needs a URL, such as redis://127.0.0.1:6379/0, or a client of redis-py.")

    def make() -> _Batches:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=STEP_SECONDS,
            retry=AsyncRetry(*_RETRY),
            **_OPTIONS,
        )
        return _Batches(redis.asyncio.Redis(connection_pool=pool))

    try:
        if not _PATH.fullmatch(urlsplit(url).path) and not url.startswith("unix:"):
            raise ValueError
        pool = redis.BlockingConnectionPool.from_url(
            url, max_connections=MAX_CONNECTIONS, timeout=STEP_SECONDS, retry=Retry(*_RETRY), **_OPTIONS
        )
        pool.make_connection()  # type: ignore[no-untyped-call]  # it looks at the options, and does not connect
    except (ValueError, TypeError, exceptions.RedisError):
        raise ConfigurationError(
            "The URL of Redis is invalid: it must be redis://[user:password@]host[:port][/database], rediss:// for "
            "TLS, or unix:///path. Percent-encode what stands in user and password other than letters and digits."
        ) from None
    return redis.Redis(connection_pool=pool), make


def _arguments(step: Step, prefix: str) -> tuple[Any, ...]:
    lease, ttl = math.ceil(step.lease * 1000), math.ceil(step.ttl * 1000)
    key = f"{prefix}{step.question}"
    if step.name == "release":
        return _SCRIPTS[step.name], 1, key, step.owner
    return _SCRIPTS[step.name], 1, key, step.owner, lease, ttl, step.state, step.approval or b""


_LOGIN: Final = "Redis refuses the user or the password: check them in the URL, and percent-encode them."
_REFUSED: Final[tuple[tuple[type[Exception], str], ...]] = (
    (exceptions.AuthenticationError, _LOGIN),
    (exceptions.AuthenticationWrongNumberOfArgsError, _LOGIN),
    (
        exceptions.NoPermissionError,
        "The user of Redis lacks a permission: allow EVAL, TIME, HMGET, HSET, HDEL, PTTL, PEXPIRE and DEL on the keys "
        "of the prefix.",
    ),
    (exceptions.ReadOnlyError, "This Redis is a read-only replica: set the address of its master."),
    (exceptions.MovedError, "This Redis is part of a cluster: use a Redis that is none."),
)
"""What another try cannot change."""


def _translated(error: Exception) -> ConfigurationError | StoreError:
    """Return our error for one of redis-py, whose text can hold host, port and key."""
    for kind, remedy in _REFUSED:
        if isinstance(error, kind):
            return ConfigurationError(remedy)
    text = str(error)
    if "READONLY" in text:  # before Redis 7 a script's errors come in the text of another
        return ConfigurationError(_REFUSED[-2][1])
    if "DB index" in text:
        return ConfigurationError("Redis has no such database: correct the number at the end of the URL's path.")
    if "certificate verify failed" in text.lower():
        return ConfigurationError("Redis' certificate is not accepted: name its authority by ssl_ca_certs in the URL.")
    if isinstance(error, exceptions.TimeoutError):
        return StoreError("Redis does not answer in time.")
    if isinstance(error, exceptions.BusyLoadingError):
        return StoreError("Redis is loading its data.")
    if isinstance(error, exceptions.OutOfMemoryError):
        return StoreError("Redis is out of memory: raise maxmemory.")
    if isinstance(error, exceptions.ResponseError):
        # The first word of Redis' error, such as MISCONF, names no key.
        return StoreError(f"Redis does not take the claim: {text.split(' ', 1)[0][:40]}.")
    return StoreError("Redis cannot be reached.")
