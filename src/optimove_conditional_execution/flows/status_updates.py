"""Status updates for any number of customers, split into several calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Final

from pydantic import ValidationError

from .. import models, operations
from ..deadline import Deadline
from ..errors import TOO_LARGE, APIError, DeadlineExceeded, OptimoveError, PayloadError, TransportError
from ..models.base import payload_error
from .effects import Call, Flow

Statuses = Iterable["models.CustomerPromotionStatus"] | Mapping[str, bool]

_NO_TIME: Final = 0.05
"""Seconds between the last try of a call and its deadline, when only the deadline ends the retries."""


_FEWEST: Final = 100
"""Statuses, about 6 kB: if so few are rejected for their size, fewer would be, too."""


def is_too_large(error: OptimoveError, count: int) -> bool:
    """Whether an update was rejected for its size (413), and is to be sent in two halves.

    Args:
        error: The error of the update.
        count: The number of its statuses.
    """
    return isinstance(error, APIError) and error.status == TOO_LARGE and count > _FEWEST


def update_statuses(
    campaign_id: int, statuses: Statuses, *, now: Callable[[], datetime], deadline: Deadline, urgent: bool
) -> Flow[int]:
    """Send statuses in parts of 10,000, one after the other; smaller ones after a 413.

    Args:
        campaign_id: The campaign.
        statuses: The statuses, iterated once, a part at a time.
        now: Returns the current time in Optimove's zone, as a naive datetime.
        deadline: The deadline of all parts together.
        urgent: Whether failed tries are retried until then, however many it takes.

    Returns:
        How many customers Optimove has acknowledged.
    """
    acknowledged = 0
    each = _each(statuses)
    size = operations.MAX_STATUSES
    halves: list[list[models.CustomerPromotionStatus]] = []
    try:
        while part := halves.pop() if halves else list(islice(each, size)):
            operation = operations.update_customer_promotion_status(campaign_id, part, timestamp=now())
            try:
                told: int = yield Call(operation if urgent else dataclasses.replace(operation, urgent=False))
            except APIError as error:
                if not is_too_large(error, len(part)):
                    raise
                size = len(part) // 2
                halves += [part[size:], part[:size]]
            else:
                acknowledged += told
    except DeadlineExceeded as error:
        error.acknowledged = acknowledged
        raise
    except (TransportError, APIError) as error:
        is_final = isinstance(error, APIError) and not error.is_transient
        if is_final or deadline.remaining() > _NO_TIME:
            error.add_note(_so_far(acknowledged))
            raise
        sent = error.request_sent if isinstance(error, TransportError) else True
        raise DeadlineExceeded(
            f"No time is left; the last try ended with: {error}", request_sent=sent, acknowledged=acknowledged
        ) from error
    except OptimoveError as error:
        error.add_note(_so_far(acknowledged))
        raise
    return acknowledged


def _so_far(acknowledged: int) -> str:
    return f"Optimove had acknowledged {acknowledged} customers before."


def _each(statuses: object) -> Iterator[models.CustomerPromotionStatus]:
    if isinstance(statuses, Mapping):
        return (_status(customer_id, status) for customer_id, status in statuses.items())
    if isinstance(statuses, Iterable) and not isinstance(statuses, str | bytes):
        return iter(statuses)
    raise PayloadError(
        "statuses must be CustomerPromotionStatus objects, or a dict of ids and booleans.", path="statuses"
    )


def _status(customer_id: object, status: object) -> models.CustomerPromotionStatus:
    try:
        return models.CustomerPromotionStatus.model_validate({"CustomerID": customer_id, "Status": status})
    except ValidationError as error:
        raise payload_error("statuses", error) from None
