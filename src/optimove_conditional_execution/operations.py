"""Every call to Optimove as a value: what to send, how to read the answer, and whether it may be repeated.

One function an endpoint, named as the client's method. To add a call, add its endpoint to `Endpoints` and a function
here; sending, retries, limits and errors come with `client.send(operation)`.

Paths, methods and bodies: `docs/explanation/optimove-api.md`, with the source of each. What is not documented is a
default in `Endpoints` that a tenant can override.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeVar, final
from urllib.parse import quote

from pydantic import ValidationError

from optimove_conditional_execution.errors import ConfigurationError, PayloadError
from optimove_conditional_execution.messages import Response
from optimove_conditional_execution.models.approval import Approval
from optimove_conditional_execution.models.base import WireModel, payload_error
from optimove_conditional_execution.models.webhook import TenantSettings, Webhook
from optimove_conditional_execution.signature import signing_keys

T = TypeVar("T")
M = TypeVar("M", bound=WireModel)

DEFAULT_TIMEOUT_MS: Final = 5_000
"""How long Optimove waits for an answer unless told otherwise. Source: Optimove's Conditional Execution article."""

_WEBHOOKS: Final = "/conditional-execution/v2/triggered/webhooks"


@final
@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a call goes: the method, and the path below the base URL, with `{names}` for its parameters."""

    method: str
    path: str

    def __post_init__(self) -> None:
        """Refuse what would send the API key somewhere else."""
        if not isinstance(self.path, str) or not self.path.startswith("/"):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError("An Endpoint's path must begin with a slash: it stands behind the base URL.")
        if not isinstance(self.method, str) or not (self.method.isascii() and self.method.isalpha()):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError("An Endpoint's method must be an HTTP method, such as GET.")


@final
@dataclass(frozen=True, slots=True)
class Endpoints:
    """The method and path of every call; replace the ones that differ for your tenant.

    Only the path of `create_webhook` is documented by Optimove, trailing slash included. `send_webhook_approval` is
    known from another program's summary; the others are guesses from the usual REST pattern. Ask your Customer Success
    Manager, and override what differs: `Endpoints(get_webhooks=Endpoint("GET", "/..."))`.
    """

    create_webhook: Endpoint = Endpoint("POST", f"{_WEBHOOKS}/")
    get_webhooks: Endpoint = Endpoint("GET", _WEBHOOKS)
    get_webhook_by_id: Endpoint = Endpoint("GET", f"{_WEBHOOKS}/{{webhook_id}}")
    delete_webhook: Endpoint = Endpoint("DELETE", f"{_WEBHOOKS}/{{webhook_id}}")
    update_webhook_settings: Endpoint = Endpoint("PUT", "/conditional-execution/v2/triggered/settings")
    send_webhook_approval: Endpoint = Endpoint("POST", "/conditional-execution/v2/triggered/approval")

    def bind(self, operation: Operation[T]) -> Operation[T]:
        """Return the operation with this table's endpoint; operations that the table does not know stay as they are."""
        mine = getattr(self, operation.name, None)
        if not isinstance(mine, Endpoint) or mine == operation.endpoint:
            return operation
        return dataclasses.replace(operation, endpoint=mine)


ENDPOINTS: Final = Endpoints()


@final
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
        urgent: Whether, with a deadline of its own, it is retried until that, however many tries it takes.
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
    limit: Literal["general", "approval"] = "general"
    private: bool = False
    redact: tuple[str, ...] = field(default=(), repr=False)

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


def create_webhook(url: str) -> Operation[Webhook]:
    """CreateWebhook: register a URL for notifications. Not idempotent: a repeat may register it twice.

    Source: Optimove's Conditional Execution article (bodies, 201), developer.optimove.com/docs/advanced-activation-flow
    (path).

    Raises:
        ConfigurationError: The URL is blank.
    """
    _required("url", url)
    return Operation("create_webhook", ENDPOINTS.create_webhook, _one(Webhook), body=_json({"url": url}))


def get_webhooks() -> Operation[list[Webhook]]:
    """GetWebhooks: list the registered webhooks.

    Source: Optimove's Conditional Execution article (name); path and answer are guesses. A list, an object that wraps
    one, `null` and an empty body are understood.
    """
    return Operation("get_webhooks", ENDPOINTS.get_webhooks, _many(Webhook), idempotent=True)


def get_webhook_by_id(webhook_id: str) -> Operation[Webhook]:
    """GetWebhookById: look a webhook up.

    Source: Optimove's Conditional Execution article (name); path and answer are guesses.

    Raises:
        ConfigurationError: The id is blank.
    """
    return Operation(
        "get_webhook_by_id",
        ENDPOINTS.get_webhook_by_id,
        _one(Webhook),
        path_parameters=(("webhook_id", _path_segment("webhook_id", webhook_id)),),
        idempotent=True,
    )


def delete_webhook(webhook_id: str) -> Operation[None]:
    """DeleteWebhook: stop notifications to a webhook.

    Source: Optimove's Conditional Execution article (name); the path is a guess.

    Raises:
        ConfigurationError: The id is blank.
    """
    return Operation(
        "delete_webhook",
        ENDPOINTS.delete_webhook,
        _nothing,
        path_parameters=(("webhook_id", _path_segment("webhook_id", webhook_id)),),
        idempotent=True,
        gone_means_done=True,
    )


def update_webhook_settings(
    *, timeout_ms: int = DEFAULT_TIMEOUT_MS, secret: str | None = None
) -> Operation[TenantSettings]:
    """UpdateWebhookSettings: set how long Optimove waits, and the key that it signs with.

    Source: Optimove's Conditional Execution article (bodies); method and path are guesses.

    Args:
        timeout_ms: Milliseconds, 1 or more. The allowed range is not documented.
        secret: The new secret; None leaves the field out. Whether that clears or keeps the old one is not documented.

    Raises:
        ConfigurationError: The timeout is not a positive whole number, or the secret is empty or blank.
    """
    if isinstance(timeout_ms, bool) or not isinstance(timeout_ms, int) or timeout_ms < 1:
        raise ConfigurationError("timeout_ms must be a whole number of milliseconds, 1 or more.")
    settings: dict[str, Any] = {"timeout": timeout_ms}
    if secret is not None:
        if not isinstance(secret, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError("secret must be text: it is sent as JSON.")
        signing_keys(secret)
        settings["secret"] = secret

    def parse(response: Response) -> TenantSettings:
        # Optimove may answer without a body; what was sent is then what holds.
        answered = _object(response) if response.body.strip() else {}
        return _model(TenantSettings, {**settings, **answered})

    return Operation(
        "update_webhook_settings",
        ENDPOINTS.update_webhook_settings,
        parse,
        body=_json(settings),
        idempotent=True,
        private=True,
        redact=() if secret is None else (secret,),
    )


def send_webhook_approval(approval: Approval) -> Operation[None]:
    """SendWebhookApproval: answer a notification. Idempotent, since the first answer counts.

    Source: Optimove's Conditional Execution article (body); path from a third party's summary, method inferred.

    Raises:
        PayloadError: `additional_data` has no JSON form.
    """
    given: object = approval
    if not isinstance(given, Approval):
        raise PayloadError("send_webhook_approval takes an Approval.", path="approval")
    try:
        body = _json(approval.model_dump(mode="json", by_alias=True))
    except (ValueError, TypeError, RecursionError):
        raise PayloadError("The approval cannot be written as JSON.", path="additional_data") from None
    return Operation(
        "send_webhook_approval",
        ENDPOINTS.send_webhook_approval,
        _nothing,
        body=body,
        idempotent=True,
        urgent=True,
        limit="approval",
        private=True,
    )


def _required(name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} must be a string that is not blank.")
    return value


def _path_segment(name: str, value: object) -> str:
    # "" would address the whole collection, and dots another one.
    text = _required(name, value)
    if text in {".", ".."}:
        raise ConfigurationError(f"{name} must be an id, not a dot.")
    return text


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


# ---- how answers are read


def _nothing(response: Response) -> None:
    """Accept what an API says when it has nothing to say; a page of HTML or a message in quotes is somebody else's."""
    text = response.body.strip()
    if text.startswith((b"<", b'"')):
        raise PayloadError("the answer is a page or a message, not an acknowledgement")


def _decoded(response: Response) -> object:
    if not response.body.strip():
        return None
    try:
        return json.loads(response.body)
    except (ValueError, RecursionError):
        raise PayloadError("the answer is not JSON") from None


def _object(response: Response) -> dict[str, Any]:
    decoded = _decoded(response)
    if not isinstance(decoded, dict):
        raise PayloadError("the answer is not a JSON object")
    return decoded


def _model(model: type[M], value: Mapping[str, Any]) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise payload_error(model.__name__, error) from None


def _one(model: type[M]) -> Callable[[Response], M]:
    return lambda response: _model(model, _object(response))


def _many(model: type[M]) -> Callable[[Response], list[M]]:
    def parse(response: Response) -> list[M]:
        decoded = _decoded(response)
        if isinstance(decoded, dict):
            lists = [value for value in decoded.values() if isinstance(value, list)]
            if len(lists) != 1:
                raise PayloadError("the answer is neither a list nor an object that wraps one")
            decoded = lists[0]
        if decoded is None:
            return []
        if not isinstance(decoded, list):
            raise PayloadError("the answer is not a list")
        return [_model(model, value) for value in decoded]

    return parse
