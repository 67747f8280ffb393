"""A call to Optimove that is not sent yet, and where every call goes."""

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
"""Of the time of a call, for its first try. When that is lost on a dead connection, the second one can take twice as
long, so that a server that is slow, and not dead, still gets its time."""

PREFIXED: Final = frozenset(
    {
        "register_event_listener",
        "unregister_event_listener",
        "get_registered_event_listeners",
        "get_processed_campaign_customers",
        "update_customer_promotion_status",
    }
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a call goes.

    Attributes:
        method: The HTTP method, such as `GET`.
        path: The path below the base URL, with a slash at its beginning, kept to the letter; `{names}` in it stand for
            the parameters of the call.

    Raises:
        ConfigurationError: The method is none, or the path does not begin with a slash.
    """

    method: str
    path: str

    def __post_init__(self) -> None:
        """Refuse what would send the API key somewhere else."""
        if not isinstance(self.path, str) or not self.path.startswith("/"):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError("An Endpoint's path must begin with a slash: it stands behind the base URL.")
        if not isinstance(self.method, str) or not (self.method.isascii() and self.method.isalpha()):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError("An Endpoint's method must be an HTTP method, such as GET.")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The method and path of every call; replace the ones that differ for your tenant.

    Of the webhooks' calls only the path of `create_webhook` is documented by Optimove, trailing slash included.
    `send_webhook_approval` is known from another program's summary; the others are guesses from the usual REST pattern.
    The calls for scheduled campaigns stand in Optimove's reference. Ask your Customer Success Manager, and override
    what differs: `Endpoints(get_webhooks=Endpoint("GET", "/..."))`.

    Attributes:
        path_prefix: What stands before the paths of the calls for scheduled campaigns: empty, or `/current`, which
            Optimove's older samples have.

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
    get_processed_campaign_customers: Endpoint = Endpoint("GET", "/Customers/GetProcessedCampaignCustomers")
    update_customer_promotion_status: Endpoint = Endpoint("POST", "/Integrations/UpdateCustomerPromotionStatus")
    path_prefix: str = ""

    def __post_init__(self) -> None:
        """Refuse what would send the API key somewhere else."""
        prefix: object = self.path_prefix
        if not isinstance(prefix, str) or (prefix and not prefix.startswith("/")) or prefix.endswith("/"):
            raise ConfigurationError(
                'path_prefix must be empty, or begin with a slash and not end with one: "/current".'
            )

    def bind(self, operation: Operation[T]) -> Operation[T]:
        """Return the operation with this table's endpoint; operations that the table does not know stay as they are.

        Args:
            operation: Any; it is recognised by its `name`.
        """
        mine = self.table().get(operation.name, operation.endpoint)
        return operation if mine == operation.endpoint else dataclasses.replace(operation, endpoint=mine)

    def table(self) -> dict[str, Endpoint]:
        """Return every call's name and endpoint, with the prefix where it belongs."""
        names = (field.name for field in dataclasses.fields(self) if field.name != "path_prefix")
        return {
            name: Endpoint(mine.method, self.path_prefix + mine.path) if name in PREFIXED else mine
            for name in names
            if (mine := getattr(self, name))
        }


ENDPOINTS: Final = Endpoints()

NO_ROUTE: Final = frozenset({301, 308, 404, 405})
"""Statuses of a path that does not exist as it was written, or not with that method."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One call to Optimove, not sent yet.

    Attributes:
        name: The call's name, as the client's method.
        endpoint: Method and path pattern.
        parse: Reads a 2xx answer. It may raise `PayloadError`, which the client turns into `UnexpectedResponseError`.
        path_parameters: Fill the `{names}` of the path.
        query: Query parameters, in order.
        body: The JSON body, or None.
        idempotent: Whether sending it twice does no more than sending it once. Decides about retries.
        gone_means_done: Whether a 404 to a repeated try means that the first try did it.
        long_running: Whether an answer may take long: a try may then take most of the time that the call has left, and
            not only `RetryPolicy.attempt_timeout`.
        urgent: Whether, with a deadline of its own, it is retried until that, however many tries it takes.
        first_try_share: The share of the time that is left that the first try may take, so that a try that is lost
            leaves time for another; 1 for a call whose try may need all of it. No kept connection is used for that.
        limit: Which rate limit it counts against.
        private: Whether bodies hold secrets or personal data; then no error message quotes Optimove's words.
        redact: Secrets that an answer could echo; they are struck out of errors.
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
        names = ", ".join(f"{{{name}}}" for name, _ in self.path_parameters) or "no parameters"
        try:
            return self.endpoint.path.format_map({name: quote(value, safe="") for name, value in self.path_parameters})
        except UnicodeEncodeError:
            raise ConfigurationError(f"{self.name}: {names} must be valid Unicode text.") from None
        except (KeyError, ValueError, IndexError, AttributeError, TypeError):
            raise ConfigurationError(f"Endpoints.{self.name}: the path may hold {names} in braces, no more.") from None


def with_slash(operation: Operation[T]) -> Operation[T] | None:
    """Return GetWebhooks at the path with a slash at its end, None for any other call and when it has one.

    Optimove prints the path of CreateWebhook with the slash, and both calls may share one path. Asking costs nothing.

    Args:
        operation: Bound to its endpoint.
    """
    path = operation.endpoint.path
    if operation.name != "get_webhooks" or operation.method != "GET" or path.endswith("/"):
        return None
    return dataclasses.replace(operation, endpoint=Endpoint("GET", f"{path}/"))
