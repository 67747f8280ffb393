"""The customers of a scheduled campaign, and what Optimove is told about each.

Source: Optimove's Conditional Execution article (the statuses), and `docs/explanation/optimove-api.md` for the
customers' fields, of which only `CustomerID` is sure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, cast

from pydantic import BeforeValidator, Field, Strict

from optimove_conditional_execution.models.base import AsSent, Identifier, Name, WireModel
from optimove_conditional_execution.models.caseless import CaselessModel, number

CONTROL_GROUP: Final = 1
"""The action of customers who shall get nothing. Source: developer.optimove.com/docs/customers-in-control-groups."""


def _text(value: object) -> object:
    """Return a whole number as text, and anything else as it came."""
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return str(value)
        except ValueError:  # thousands of digits
            return value
    return value


def codes_of(value: object) -> object:
    """Return the codes of a list, or of text with commas in it; what is neither is kept as it came."""
    if value is None:
        return ()
    value = _text(value)
    if isinstance(value, str):
        return tuple([code for part in value.split(",") if (code := part.strip())])
    if isinstance(value, list | tuple):
        parts = [_text(part) for part in cast("list[object]", value) if part is not None]
        if all(isinstance(part, str) for part in parts):
            return tuple([code for part in cast("list[str]", parts) if (code := part.strip())])
    return value


def attributes_of(value: object) -> object:
    """Return the values of a list, or of text with semicolons in it, in the order asked for."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return tuple(value.split(";"))
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value


class CampaignCustomer(CaselessModel):
    """A customer whom a scheduled campaign would reach: one row of GetProcessedCampaignCustomers.

    A customer can stand in several rows, one a channel. Only `customer_id` must be there; a value of an undocumented
    type is kept as it came. The repr shows nothing personal.

    Attributes:
        customer_id: The customer; a number becomes text, nothing else is changed.
        action_id: The campaign's action; `is_control` tells the control group.
        channel_id: The channel that the campaign goes out through.
        template_id: The template.
        promo_codes: The promotions that the campaign promises the customer.
        customer_attributes: The values of the attributes that were asked for, in that order.
    """

    customer_id: Annotated[Name, BeforeValidator(_text), Field(alias="CustomerID")]
    action_id: Annotated[AsSent[Identifier | None], BeforeValidator(number), Field(alias="ActionID")] = None
    channel_id: Annotated[AsSent[Identifier | None], BeforeValidator(number), Field(alias="ChannelID")] = None
    template_id: Annotated[AsSent[Identifier | None], BeforeValidator(number), Field(alias="TemplateID")] = None
    promo_codes: Annotated[AsSent[tuple[str, ...]], BeforeValidator(codes_of), Field(alias="PromoCode")] = ()
    customer_attributes: Annotated[
        AsSent[tuple[Any, ...]], BeforeValidator(attributes_of), Field(alias="CustomerAttributes")
    ] = ()

    _also: ClassVar[Mapping[str, str]] = {"promocodes": "promo_codes", "customerattribute": "customer_attributes"}
    _shown = ("action_id", "channel_id", "template_id")

    @property
    def is_control(self) -> bool:
        """Whether the customer is in the control group: measured, but not to be reached."""
        return self.action_id == CONTROL_GROUP


class CustomerPromotionStatus(WireModel):
    """Whether one customer may get the campaign.

    Source: Optimove's Conditional Execution article (UpdateCustomerPromotionStatus).

    Attributes:
        customer_id: The customer, as `CampaignCustomer` names them.
        status: Only a real `True` approves.
    """

    customer_id: Annotated[Name, Field(alias="CustomerID")]
    status: Annotated[bool, Strict(), Field(alias="Status")]

    _shown = ("status",)
