"""Base class of both clients: the settings, validated once."""

from __future__ import annotations

import abc
import logging
import math
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypedDict, TypeVar, get_args
from zoneinfo import ZoneInfo

from pydantic import SecretStr

from .. import validation
from ..deadline import Deadline
from ..errors import ConfigurationError
from ..installation import install_hint
from ..operations import DEFAULT_PAGE_SIZE, Endpoints
from ..settings import TIMEZONE_VARIABLE, ClientSettings
from ..tracebacks import sensitive_variables
from ..transport.connection_pool import MAX_CONNECTIONS
from ..transport.engine import Engine
from ..transport.instrumentation import OnCall
from ..transport.rate_limit import RateLimit
from ..transport.retry import RetryPolicy
from ..transport.send import ClientConfig, RequestCounter, Sender, read_customers
from ..transport.waiting import Alarm

if TYPE_CHECKING:  # not loaded by programs that read no customers
    from ..flows.paging import Pages
    from ..models.campaign import CampaignCustomer

C = TypeVar("C", bound="CampaignCustomer")

_LOGGER: Final = logging.getLogger("optimove_conditional_execution.client")

EngineName = Literal["httpx", "httpx2", "aiohttp"]

ENGINES: Final = get_args(EngineName)


class CustomerOptions(TypedDict, total=False):
    """The options of `get_processed_campaign_customers`."""

    customer_attributes: Sequence[str]
    page_size: int | None
    deadline: Deadline | None
    counter: RequestCounter | None
    wait_for_customers: float | None
    on_warning: Callable[[str], None] | None


class ExecutionOptions(CustomerOptions, total=False):
    """The options of `get_customer_execution_details_by_campaign`."""

    channel_id: int | None


class Client(abc.ABC):
    """Base class of both clients."""

    _alarm: type[Alarm]

    @sensitive_variables
    def __init__(
        self,
        api_key: str | SecretStr | None = None,
        *,
        base_url: str | None = None,
        timezone: str | ZoneInfo | None = None,
        timeout: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),
        rate_limit: RateLimit | None = RateLimit(50, per=10.0),
        approval_rate_limit: RateLimit | None = None,
        endpoints: Endpoints = Endpoints(),
        http_client: object | None = None,
        engine: EngineName = "httpx",
        max_connections: int = MAX_CONNECTIONS,
        on_call: OnCall | None = None,
    ) -> None:
        """Validate the settings and set up a connection pool; nothing is sent.

        Args:
            api_key: The tenant's key, as text or pydantic's `SecretStr`; unset, the environment variable
                `OPTIMOVE_API_KEY`.
            base_url: The tenant's API server, such as `https://api5.optimove.net`; unset, `OPTIMOVE_BASE_URL`.
            timezone: The zone of Optimove's time stamps that have none, as an IANA name; unset, `OPTIMOVE_TIMEZONE`.
                Triggered campaigns have none of those.
            timeout: Seconds for a whole call: waiting for the rate limit, all tries, all pauses. A `deadline=` replaces
                it.
            retry: Which failed tries are retried, and how long a single one may take.
            rate_limit: The limit for every call but approvals; None for no limit.
            approval_rate_limit: The limit for approvals. None by default, since Optimove does not say whether they are
                limited.
            endpoints: Methods and paths, for tenants where they differ.
            http_client: Your own client of httpx or httpx2 (proxies, CA bundles, event hooks). Closing it stays your
                task. Until this client is closed, the network backend of its connection pools is replaced by one that
                ends the calls of this client at their deadlines; its other requests are not touched. A call that is
                cancelled can leave a connection in the pool of an `httpx.AsyncClient` for ever: leave this out where
                calls are cancelled, since connections of the SDK's own clients are replaced then.
            engine: The HTTP library when there is no `http_client`. The extras `httpx2` and `aiohttp` install the
                others, which are faster when many approvals are in flight. For threads, `aiohttp` sends from an event
                loop in a daemon thread.
            max_connections: Concurrent requests, per event loop for asyncio; further ones wait in the order of arrival.
                Streams of customers are not counted.
            on_call: Called with a `CallRecord` after every call, in its thread or event loop; it must be quick. A
                method `around` wraps the call as well: see `CallObserver`.

        Raises:
            ConfigurationError: A setting is missing or invalid; the message names it.
        """
        settings = ClientSettings.of(api_key=api_key, base_url=base_url, timezone=timezone, environment=os.environ)
        self._config = ClientConfig(
            settings,
            endpoints=endpoints,
            timeout=timeout,
            retry=retry,
            rate_limit=rate_limit,
            approval_rate_limit=approval_rate_limit,
            on_call=on_call,
        )
        validation.integer("max_connections", max_connections)
        if engine not in ENGINES:
            raise ConfigurationError(f"engine must be one of {', '.join(ENGINES)}.")
        if http_client is not None and engine != "httpx":
            raise ConfigurationError("Pass http_client= or engine=, not both: a client of yours is an engine itself.")
        self._is_closed = False
        self._sender = Sender(self._config, self._engine(http_client, engine, max_connections), self._alarm)

    @abc.abstractmethod
    def _engine(self, http_client: object | None, name: EngineName, max_connections: int) -> Engine:
        """Return the HTTP engine."""

    @property
    def timezone(self) -> ZoneInfo | None:
        """The zone of Optimove's time stamps that have none, or None when it was not given."""
        return self._config.settings.timezone

    @property
    def rate_limit(self) -> RateLimit | None:
        """The limit for every call but approvals, or None."""
        return self._config.rate_limit

    @property
    def is_closed(self) -> bool:
        """Whether the client has been closed, so that it sends nothing any more."""
        return self._is_closed

    def _customers(
        self,
        paging: type[Pages[C]],
        campaign_id: int,
        *,
        page_size: int | None = DEFAULT_PAGE_SIZE,
        deadline: Deadline | None = None,
        counter: RequestCounter | None = None,
        wait_for_customers: float | None = None,
        on_warning: Callable[[str], None] | None = None,
        **options: Any,
    ) -> AsyncGenerator[list[C], None]:
        """Yield customers as they arrive, once the arguments are checked: see `get_processed_campaign_customers`."""
        pages = paging(
            campaign_id,
            page_size=page_size,
            waiting=_waiting(wait_for_customers, deadline),
            on_warning=_logging(campaign_id) if on_warning is None else on_warning,
            **options,
        )
        return read_customers(self._sender, pages, deadline, counter)

    def _wall_clock(self) -> Callable[[], datetime]:
        """Return a function of the current time as Optimove writes it: naive, in the client's zone."""
        zone = self.timezone
        if zone is None:
            raise ConfigurationError(
                f"The time zone of Optimove's time stamps is missing: set the variable {TIMEZONE_VARIABLE}, "
                "or pass timezone= to the client, such as Europe/London. Ask Optimove which one your tenant has."
            )
        return lambda: datetime.now(zone).replace(tzinfo=None)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled or copied: it holds connections and the API key. Make one in "
            "each process, from the same settings."
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._config.settings.base_url}>"


def _waiting(seconds: float | None, deadline: Deadline | None) -> Deadline:
    if seconds is None:
        from ..flows.paging import seconds_for_customers

        left = 0.0 if deadline is None else deadline.remaining()
        seconds = seconds_for_customers(left, until=left) if math.isfinite(left) else 0.0
    return Deadline.after(validation.seconds("wait_for_customers", seconds))


def _logging(campaign_id: int) -> Callable[[str], None]:
    return lambda text: _LOGGER.warning("campaign %d: %s", campaign_id, text)


def aiohttp_engine(max_connections: int, base_url: str, *, in_thread: bool) -> Engine:
    """Return the engine on aiohttp: for asyncio, or for threads, in an event loop in a thread of its own.

    Raises:
        ConfigurationError: aiohttp is not installed, or the machine's settings for proxies are invalid.
    """
    try:
        from ..transport.aiohttp_engine import AiohttpEngine, LoopThreadEngine
    except ImportError:
        raise ConfigurationError(
            f"engine='aiohttp' needs a package that is not installed: {install_hint('aiohttp')}."
        ) from None
    engine = AiohttpEngine(max_connections=max_connections, base_url=base_url)
    return LoopThreadEngine(engine) if in_thread else engine
