"""Webhooks and the settings that all of a tenant's webhooks share."""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, SecretStr, Strict

from ..urls import without_query
from .base import Id, Number, WireModel


class Webhook(WireModel):
    """A registered webhook. All webhooks of a tenant get every notification; the first answer counts.

    Attributes:
        id: Its id at Optimove.
        url: Where Optimove posts notifications. The repr leaves out the query, which can hold a token.
    """

    id: Id
    url: Annotated[str, Strict()]

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        return [("id", self.id), ("url", without_query(self.url))]


class TenantSettings(WireModel):
    """The settings of UpdateWebhookSettings, for all webhooks of the tenant.

    Attributes:
        timeout_ms: How long Optimove waits for an answer, in milliseconds; the wire name is `timeout`.
        secret: The key that notifications are signed with, or None. Optimove echoes it in clear.
    """

    timeout_ms: Annotated[Number, Field(alias="timeout")]
    secret: SecretStr | None = None

    _repr_fields = ("timeout_ms",)
