"""Operations: API calls as values, and the table of endpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, Literal, TypeVar
from urllib.parse import quote

from pydantic import SecretStr

from ..errors import ConfigurationError
from ..messages import Response

T = TypeVar("T")

_WEBHOOKS: Final = "/conditional-execution/v2/triggered/webhooks"

FIRST_TRY_SHARE: Final = 1 / 3
"""Share of a call's time for its first try. If that is lost on a dead connection, the second one can take twice as
long, so that a slow server still has enough time."""

PREFIXED: Final = frozenset(
    {
        "register_event_listener",
        "unregister_event_listener",
        "get_registered_event_listeners",
        "get_campaign_details",
        "get_processed_campaign_customers",
        "get_customer_execution_details_by_campaign",
        "update_customer_promotion_status",
    }
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The method and path of a call.

    Attributes:
        method: The HTTP method, such as `GET`.
        path: The path below the base URL, with a leading slash, used verbatim; `{names}` in it are placeholders for the
            parameters of the call.

    Raises:
        ConfigurationError: The method is invalid, or the path does not begin with a slash.
    """

    method: str
    path: str

    def __post_init__(self) -> None:
        """Reject values that would send the API key to another server."""
        if not isinstance(self.path, str) or not self.path.startswith("/"):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError("An Endpoint's path must begin with a slash: it stands behind the base URL.")
        if not isinstance(self.method, str) or not (self.method.isascii() and self.method.isalpha()):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError("An Endpoint's method must be an HTTP method, such as GET.")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The method and path of every call; replace the ones that differ for your tenant.

    Of the webhooks' calls only the path of `create_webhook` is documented by Optimove, trailing slash included.
    `send_webhook_approval` is known from another program's summary; the others are guesses from the usual REST pattern.
    The calls for scheduled campaigns are in Optimove's reference. Ask your Customer Success Manager, and override what
    differs: `Endpoints(get_webhooks=Endpoint("GET", "/..."))`.

    Attributes:
        path_prefix: The prefix of the paths of the calls for scheduled campaigns: empty, or `/current`, as in
            Optimove's older samples.

    Raises:
        ConfigurationError: The prefix does not begin with a slash, or ends with one.
    """

    create_webhook: Endpoint = Endpoint("POST", f"{_WEBHOOKS}/")
    get_webhooks: Endpoint = Endpoint("GET", _WEBHOOKS)
    get_webhook_by_id: Endpoint = Endpoint("GET", f"{_WEBHOOKS}/{{webhook_id}}")
    delete_webhook: Endpoint = Endpoint("DELETE", f"{_WEBHOOKS}/{{webhook_id}}")
    update_webhook_settings: Endpoint = Endpoint("PUT", "/conditional-execution/v2/triggered/settings")
    send_webhook_approval: Endpoint = Endpoint("POST", "/conditional-execution/v2/triggered/approval")
    register_event_listener: Endpoint = Endpoint("POST", "/General/RegisterEventListener")
    unregister_event_listener: Endpoint = Endpoint("POST", "/General/UnregisterEventListener")
    get_registered_event_listeners: Endpoint = Endpoint("GET", "/General/GetRegisteredEventListeners")
    get_campaign_details: Endpoint = Endpoint("GET", "/Actions/GetCampaignDetails")
    get_processed_campaign_customers: Endpoint = Endpoint("GET", "/Customers/GetProcessedCampaignCustomers")
    get_customer_execution_details_by_campaign: Endpoint = Endpoint(
        "GET", "/Customers/GetCustomerExecutionDetailsByCampaign"
    )
    update_customer_promotion_status: Endpoint = Endpoint("POST", "/Integrations/UpdateCustomerPromotionStatus")
    path_prefix: str = ""

    def __post_init__(self) -> None:
        """Reject values that would send the API key to another server."""
        prefix: object = self.path_prefix
        if not isinstance(prefix, str) or (prefix and not prefix.startswith("/")) or prefix.endswith("/"):
            raise ConfigurationError(
                'path_prefix must be empty, or begin with a slash and not end with one: "/current".'
            )

    def bind(self, operation: Operation[T]) -> Operation[T]:
        """Return the operation with this table's endpoint; unknown operations are returned unchanged.

        Args:
            operation: Any operation; it is identified by its `name`.
        """
        name = operation.name
        mine: object = getattr(self, name, None)
        if not isinstance(mine, Endpoint):
            return operation
        if self.path_prefix and name in PREFIXED:
            mine = Endpoint(mine.method, self.path_prefix + mine.path)
        if mine is operation.endpoint or mine == operation.endpoint:
            return operation
        return dataclasses.replace(operation, endpoint=mine)

    def table(self) -> dict[str, Endpoint]:
        """Return every call's name and endpoint, with the prefix where it applies."""
        names = (field.name for field in dataclasses.fields(self) if field.name != "path_prefix")
        return {
            name: Endpoint(mine.method, self.path_prefix + mine.path) if name in PREFIXED else mine
            for name in names
            if (mine := getattr(self, name))
        }


ENDPOINTS: Final = Endpoints()

NO_ROUTE: Final = frozenset({301, 308, 404, 405})
"""Statuses for a path that does not exist, or not with that method."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """An API call as a value, to be sent by a client.

    Attributes:
        name: The name of the client's method.
        endpoint: Method and path pattern.
        parse: Parses a 2xx response. It may raise `PayloadError`, which the client turns into
            `UnexpectedResponseError`.
        path_parameters: Values for the `{names}` of the path.
        query: Query parameters, in order.
        body: The JSON body, or None.
        idempotent: Whether sending it twice does no more than sending it once. Decides about retries.
        gone_means_done: Whether a 404 to a repeated try means that the first try did it.
        long_running: Whether a response may take long: a try may then take most of the time that the call has left, and
            not only `RetryPolicy.attempt_timeout`.
        urgent: Whether a call with a deadline is retried until then, however many tries it takes.
        first_try_share: The share of the time that is left that the first try may take, so that a try that is lost
            leaves time for another; 1 for a call whose try may need all of it. No kept-alive connection is used for
            that.
        limit: Which rate limit it counts against.
        private: Whether bodies hold secrets or personal data; then no error message quotes Optimove's words.
        redact: Secrets that a response could echo; they are redacted from errors.
    """

    name: str
    endpoint: Endpoint
    parse: Callable[[Response], T] = field(repr=False)
    path_parameters: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes | None = field(default=None, repr=False)
    idempotent: bool = False
    gone_means_done: bool = False
    urgent: bool = False
    first_try_share: float = FIRST_TRY_SHARE
    long_running: bool = False
    limit: Literal["general", "approval"] = "general"
    private: bool = False
    redact: tuple[SecretStr, ...] = field(default=(), repr=False)

    @property
    def method(self) -> str:
        """The HTTP method."""
        return self.endpoint.method

    @property
    def path(self) -> str:
        """The path below the base URL, parameters filled in and percent-encoded.

        Raises:
            ConfigurationError: The endpoint's path names a parameter that the call does not have.
        """
        path = self.endpoint.path
        if not self.path_parameters and "{" not in path and "}" not in path:
            return path
        names = ", ".join(f"{{{name}}}" for name, _ in self.path_parameters) or "no parameters"
        try:
            return path.format_map({name: quote(value, safe="") for name, value in self.path_parameters})
        except UnicodeEncodeError:
            raise ConfigurationError(f"{self.name}: {names} must be valid Unicode text.") from None
        except (KeyError, ValueError, IndexError, AttributeError, TypeError):
            raise ConfigurationError(f"Endpoints.{self.name}: the path may hold {names} in braces, no more.") from None


def with_slash(operation: Operation[T]) -> Operation[T] | None:
    """Return GetWebhooks with a trailing slash in its path; None for any other call, or if it has one.

    Optimove prints the path of CreateWebhook with the slash, and both calls may share one path. A second request does
    no harm.

    Args:
        operation: Bound to its endpoint.
    """
    path = operation.endpoint.path
    if operation.name != "get_webhooks" or operation.method != "GET" or path.endswith("/"):
        return None
    return dataclasses.replace(operation, endpoint=Endpoint("GET", f"{path}/"))
