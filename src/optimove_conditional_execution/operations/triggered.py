"""Operations for triggered campaigns: webhooks, their settings, approvals."""

from __future__ import annotations

from typing import Any, Final

from pydantic import SecretStr

from ..defaults import DEFAULT_TIMEOUT_MS
from ..errors import ConfigurationError, PayloadError
from ..messages import Response
from ..models.approval import Approval
from ..models.base import NumberAsText
from ..models.webhook import TenantSettings, Webhook
from ..observers import SafeLogger
from ..signature import signing_keys
from ..tracebacks import sensitive_variables
from ..urls import normalized, without_query
from ..validation import integer
from .codec import decoded, json_body, json_object, many, model_of, nothing, one, path_segment, refuse_error, required
from .endpoints import ENDPOINTS
from .operation import Operation

_LOGGER: Final = SafeLogger("client")


@sensitive_variables  # the URL can hold a token
def create_webhook(url: str) -> Operation[Webhook]:
    """CreateWebhook: register a URL for notifications. Not idempotent: a repeat may register it twice.

    Source: Optimove's Conditional Execution article (bodies, 201), developer.optimove.com/docs/advanced-activation-flow
    (path).

    Args:
        url: Where Optimove posts notifications.

    Raises:
        ConfigurationError: The URL is blank.
    """
    required("url", url)
    read = one(Webhook)

    def parse(response: Response) -> Webhook:
        webhook = read(response)
        if normalized(webhook.url) != normalized(url):
            _LOGGER.warning(
                "CreateWebhook registered %s, but %s was asked for: notifications may go elsewhere, and ensure_webhook "
                "would register yours again at the next start.",
                without_query(webhook.url),
                without_query(url),
            )
        return webhook

    query = url.partition("?")[2]
    return Operation(
        "create_webhook",
        ENDPOINTS.create_webhook,
        parse,
        body=json_body({"url": url}),
        redact=(SecretStr(query),) if query else (),
    )


def get_webhooks() -> Operation[list[Webhook]]:
    """GetWebhooks: list the registered webhooks.

    Source: Optimove's Conditional Execution article (name); path and response are guesses. A list, an object that wraps
    one, `null` and an empty body are accepted.
    """
    return Operation("get_webhooks", ENDPOINTS.get_webhooks, many(Webhook), idempotent=True)


def get_webhook_by_id(webhook_id: str) -> Operation[Webhook]:
    """GetWebhookById: look a webhook up.

    Source: Optimove's Conditional Execution article (name); path and response are guesses.

    Args:
        webhook_id: The `id` of a `Webhook`.

    Raises:
        ConfigurationError: The id is blank.
    """
    return Operation(
        "get_webhook_by_id",
        ENDPOINTS.get_webhook_by_id,
        one(Webhook),
        path_parameters=(("webhook_id", path_segment("webhook_id", webhook_id)),),
        idempotent=True,
    )


def delete_webhook(webhook_id: str) -> Operation[None]:
    """DeleteWebhook: stop notifications to a webhook.

    Source: Optimove's Conditional Execution article (name); the path is a guess.

    Args:
        webhook_id: The `id` of a `Webhook`.

    Raises:
        ConfigurationError: The id is blank.
    """
    return Operation(
        "delete_webhook",
        ENDPOINTS.delete_webhook,
        nothing,
        path_parameters=(("webhook_id", path_segment("webhook_id", webhook_id)),),
        idempotent=True,
        gone_means_done=True,
    )


@sensitive_variables
def update_webhook_settings(
    *, timeout_ms: int = DEFAULT_TIMEOUT_MS, secret: str | SecretStr | None = None
) -> Operation[TenantSettings]:
    """UpdateWebhookSettings: set how long Optimove waits, and the key that it signs with.

    Source: Optimove's Conditional Execution article (bodies); method and path are guesses.

    Args:
        timeout_ms: Milliseconds, 1 or more. The allowed range is not documented.
        secret: The new secret; None leaves the field out. Whether that clears or keeps the old one is not documented.

    Raises:
        ConfigurationError: The timeout is not a positive whole number, or the secret is empty or blank.
    """
    settings: dict[str, Any] = {"timeout": integer("timeout_ms", timeout_ms)}
    sent: dict[str, Any] = {"timeout": timeout_ms}
    if isinstance(secret, SecretStr):
        secret = secret.get_secret_value()
    if secret is not None:
        if not isinstance(secret, str):  # pyright: ignore[reportUnnecessaryIsInstance]  # callers may be untyped
            raise ConfigurationError("secret must be text: it is sent as JSON.")
        signing_keys(secret)
        settings["secret"], sent["secret"] = secret, SecretStr(secret)

    def parse(response: Response) -> TenantSettings:
        # Optimove may respond without a body; then the settings sent apply.
        answered = {} if decoded(response) is None else json_object(response)
        refuse_error(answered)
        return model_of(TenantSettings, {**sent, **answered})

    return Operation(
        "update_webhook_settings",
        ENDPOINTS.update_webhook_settings,
        parse,
        body=json_body(settings),
        idempotent=True,
        private=True,
        redact=() if secret is None else (SecretStr(secret),),
    )


_BARE: Final = b'{"timestamp":%d,"request_uid":%b,"approved":%b,"additional_data":{}}'
"""An approval without additional data, as `model_dump` and `json_body` write it, in a quarter of their time."""


def send_webhook_approval(approval: Approval) -> Operation[None]:
    """SendWebhookApproval: answer a notification. Idempotent, since the first answer counts.

    Source: Optimove's Conditional Execution article (body); path from a third party's summary, method inferred.

    Args:
        approval: The answer.

    Raises:
        PayloadError: It is not an `Approval`, or its `additional_data` has no JSON form.
    """
    given: object = approval
    if not isinstance(given, Approval):
        raise PayloadError("send_webhook_approval takes an Approval.", path="approval")
    try:
        if approval.additional_data or approval.model_extra:
            body = json_body(approval.model_dump(mode="json", by_alias=True))
        else:  # nearly always
            body = _BARE % (
                approval.timestamp,
                json_body(int(uid) if isinstance(uid := approval.request_uid, NumberAsText) else uid),
                b"true" if approval.approved is True else b"false",
            )
    except (ValueError, TypeError, RecursionError):
        raise PayloadError("The approval cannot be written as JSON.", path="additional_data") from None
    return Operation(
        "send_webhook_approval",
        ENDPOINTS.send_webhook_approval,
        nothing,
        body=body,
        idempotent=True,
        urgent=True,
        limit="approval",
        private=True,
    )
