"""What a reviewer was asked about one customer, as a decision log keeps it: the event, and the customer's rows."""

from __future__ import annotations

import json
from typing import Any, Final

from ..models.campaign import CampaignCustomer, CustomerRow
from ..models.events import CampaignReadyEvent
from .row_sets import row_of

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), default=repr)


def event_text(event: CampaignReadyEvent) -> str:
    """Return an event as JSON text, for `review_payload`."""
    return event.model_dump_json(by_alias=True)


def review_payload(event: str, customer: CampaignCustomer) -> bytes:
    """Return the payload of a customer: the row that the reviewer got, then the other ones that are known.

    Args:
        event: From `event_text`.
        customer: The customer, as the reviewer got it.
    """
    rows = [customer.model_dump(by_alias=True)]
    first = CustomerRow(*row_of(customer))
    rows += [
        {
            "CustomerID": customer.customer_id,
            "ActionID": row.action_id,
            "ChannelID": row.channel_id,
            "TemplateID": row.template_id,
            "PromoCode": row.promo_codes,
        }
        for row in customer.rows
        if row != first
    ]
    return f'{{"event":{event},"rows":{_ENCODER.encode(rows)}}}'.encode()


def read_review_payload(payload: bytes) -> tuple[CampaignReadyEvent, CampaignCustomer]:
    """Return the event, and the customer as the reviewer got it.

    Raises:
        ValueError: It is not a payload of a review.
    """
    given: dict[str, Any] = json.loads(payload)
    first, *others = [CampaignCustomer.model_validate(row) for row in given["rows"]]
    customer = first.with_rows([CustomerRow(*row_of(each)) for each in (first, *others)]) if others else first
    return CampaignReadyEvent.model_validate(given["event"]), customer
