"""Payloads of Optimove, for tests and rehearsals."""

from __future__ import annotations

import copy
import datetime as dt
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from ..credentials import Secret
from ..messages import Request
from ..operations import DEFAULT_TIMEOUT_MS
from ..signature import SIGNATURE_HEADER, sign

TIMESTAMP: Final = "%Y-%m-%d %H:%M:%S"

_NOTIFICATION: Final[dict[str, Any]] = {
    "timestamp": 0,
    "conditional_execution_approval_deadline": 0,
    "request_uid": "",
    "is_hashed": False,
    "user": {"user_id": "", "is_visitor": False, "personalization": {"first_name": "Dana", "country": "MT"}},
    "occurrence": {
        "date": "2026-11-23",
        "series_id": "1027",
        "occurrence_id": "88412",
        "target_group": {"id": 123, "name": "Lapsed depositors"},
        "notes": "",
        "tags": ["reactivation"],
        "communication_type": "triggered",
        "action": {
            "id": 19,
            "name": "Welcome back bonus",
            "is_control": False,
            "promotions": [{"name": "Welcome back bonus", "code": "WB23"}],
            "channels": [
                {"id": 504, "name": "Email", "brand_id": "main", "template": {"id": 7, "name": "Welcome back"}}
            ],
        },
    },
    "trigger_context": {
        "id": 31,
        "name": "Deposit failed",
        "events": [{"key": "deposit_failed", "timestamp": 0, "parameters": {"amount": "50", "currency": "EUR"}}],
    },
}
"""The fields of Optimove's Conditional Execution article's sample, with realistic values."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request for one webhook or listener, to be posted by the caller.

    Attributes:
        url: Where to.
        request: What to post, signed if it is a notification.
    """

    url: str
    request: Request


def notification(
    user_id: str | int = "C234638",
    *,
    request_uid: str | int | None = None,
    timeout_ms: int = DEFAULT_TIMEOUT_MS,
    timestamp_ms: int | None = None,
    personalization: Mapping[str, Any] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the JSON object of a notification.

    Args:
        user_id: The customer; a whole number is sent as one.
        request_uid: The question's name, text or a whole number; None makes a new one.
        timeout_ms: Milliseconds from time stamp to deadline; 0 or less makes one that has expired.
        timestamp_ms: Milliseconds since 1970; None is now.
        personalization: The customer's attributes, in place of the sample's.
        changes: Top-level fields to replace.
    """
    now = round(time.time() * 1000) if timestamp_ms is None else timestamp_ms
    payload = copy.deepcopy(_NOTIFICATION)
    payload["timestamp"] = now
    payload["conditional_execution_approval_deadline"] = now + timeout_ms
    payload["request_uid"] = str(uuid.uuid4()) if request_uid is None else request_uid
    payload["user"]["user_id"] = user_id
    if personalization is not None:
        payload["user"]["personalization"] = dict(personalization)
    payload["trigger_context"]["events"][0]["timestamp"] = now // 1000 - 2
    payload.update(changes or {})
    return payload


def signed_request(
    payload: Mapping[str, Any] | bytes, *, secret: Secret | None, path: str = "/", header: str = SIGNATURE_HEADER
) -> Request:
    """Return the request that Optimove would post.

    Args:
        payload: A JSON object, or the bytes of a body as they are.
        secret: What to sign with; None sends no signature.
        path: The path of the webhook's URL.
        header: The name of the signature's header.

    Raises:
        ConfigurationError: The secret is empty or blank.
    """
    request = _posted(payload, path, "")
    if secret is None:
        return request
    signed = (*request.headers, (header, sign(request.body, secret=secret)))
    return Request("POST", path, "", signed, request.body)


def campaign_ready(
    campaign_id: int = 1359,
    *,
    timestamp: dt.datetime | str,
    clearance_required_by: dt.datetime | str,
    duration: int = 7,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the JSON object of an event with EventTypeID 5: a campaign is on hold.

    Source: Optimove's Conditional Execution article.

    Args:
        campaign_id: The campaign.
        timestamp: When it was processed: a local time without a zone, or a text that is sent as it is.
        clearance_required_by: Until when statuses count, likewise.
        duration: The campaign's `CampaignDuration`.
        changes: Fields to replace or add.
    """
    return {
        "EventTypeID": 5,
        "TimeStamp": _written(timestamp),
        "CampaignID": campaign_id,
        "CampaignDuration": duration,
        "ClearanceRequiredBy": _written(clearance_required_by),
        **(changes or {}),
    }


def listener_request(
    payload: Mapping[str, Any] | bytes, *, token: str | None = None, path: str = "/", query: str = ""
) -> Request:
    """Return the request that Optimove would post to a listener; such requests have no signature.

    Args:
        payload: A JSON object, such as one from `campaign_ready`, or the bytes of a body as they are.
        token: Added to the query as `token`; None where the URL has it already.
        path: The path of the listener's URL.
        query: The query of the listener's URL.
    """
    parts = [query] if query else []
    if token is not None:
        parts.append(f"token={quote(token, safe='')}")
    return _posted(payload, path, "&".join(parts))


def _posted(payload: Mapping[str, Any] | bytes, path: str, query: str) -> Request:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return Request("POST", path, query, {"Content-Type": "application/json", "Content-Length": str(len(body))}, body)


def _written(moment: dt.datetime | str) -> str:
    return moment if isinstance(moment, str) else moment.strftime(TIMESTAMP)
