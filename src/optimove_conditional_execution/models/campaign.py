"""A scheduled campaign: its details, its customers, the batches that reviewers get, and the statuses.

Source: Optimove's Conditional Execution article (the statuses), and `docs/explanation/optimove-api.md` for the other
fields, of which only `CustomerID` is sure.
"""

import contextlib
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from types import GenericAlias
from typing import Annotated, Any, ClassVar, Final, Self, TypeVar, cast, final, overload

from pydantic import AfterValidator, AliasChoices, Field, Strict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import from_json

from ..errors import PayloadError
from .base import (
    CaselessModel,
    EmptyIfNull,
    Id,
    Lenient,
    LenientNumber,
    Name,
    Otherwise,
    Unchecked,
    WireModel,
    field_names,
    holds_constant,
    known_keys,
    payload_error,
)
from .events import CampaignReadyEvent

CONTROL_GROUP: Final = 1
"""The action id of the control group. Source: developer.optimove.com/docs/customers-in-control-groups."""

_extra_of: Final = attrgetter("model_extra")


def _codes(value: object) -> object:
    """Return the codes of a list, or of text with a lone surrogate; any other value is kept unchanged."""
    if isinstance(value, str):
        return _codes_in(value)
    parts = value if isinstance(value, list | tuple) else [value]
    try:
        texts = [str(part) if type(part) is int else part for part in cast("Sequence[object]", parts)]
    except ValueError:  # thousands of digits
        return value
    if not all(part is None or isinstance(part, str) for part in texts):
        return value
    return tuple([code for part in cast("list[str | None]", texts) if part and (code := part.strip())])


@functools.lru_cache(maxsize=1_024)
def _codes_in(text: str) -> tuple[str, ...]:
    """Return the codes of comma-separated text; most customers of a campaign have the same few."""
    return tuple([code for part in text.split(",") if (code := part.strip())])


def _attributes(value: object) -> object:
    """Return the values of semicolon-separated text, in the order requested."""
    if value is None or value == "":
        return ()
    if isinstance(value, str):
        return tuple(value.split(";"))
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value


def _key(documented: str, *others: str) -> FieldInfo:
    """Return the field of a key that Optimove's pages also write as `customerID` and as `customerId`."""
    camel = documented[0].lower() + documented[1:]
    known = dict.fromkeys([documented, camel, camel.replace("ID", "Id"), documented.lower(), *others])
    return cast("FieldInfo", Field(alias=documented, validation_alias=AliasChoices(*known)))


@dataclass(frozen=True, slots=True)
class CustomerRow:
    """What one row of a customer says about the campaign.

    Attributes:
        channel_id: The channel.
        action_id: The action; 1 is the control group.
        template_id: The template.
        promo_codes: The promotions that the row promises.
    """

    channel_id: int | str | None
    action_id: int | str | None
    template_id: int | str | None
    promo_codes: tuple[str, ...] = field(repr=False)


class CampaignCustomer(WireModel):
    """A customer whom a scheduled campaign would reach: one row of GetProcessedCampaignCustomers.

    A customer can have several rows, such as one per channel; a review puts all that it knows into `rows`. Only
    `customer_id` is required; a value of an undocumented type is kept unchanged. Keys are case-insensitive. The repr
    shows no personal data.

    Attributes:
        customer_id: The customer's id; a number becomes text, nothing else is changed.
        action_id: The campaign's action; `is_control` is true for the control group.
        channel_id: The channel that the campaign goes out through.
        template_id: The template.
        promo_codes: The promotions that the campaign promises the customer.
        customer_attributes: The values of the requested attributes, in that order.
    """

    customer_id: Annotated[Id, _key("CustomerID")]
    action_id: Annotated[LenientNumber, _key("ActionID")] = None
    channel_id: Annotated[LenientNumber, _key("ChannelID")] = None
    template_id: Annotated[LenientNumber, _key("TemplateID")] = None
    promo_codes: Annotated[
        tuple[str, ...],
        Otherwise(_codes, first=Annotated[str, Strict(), AfterValidator(_codes_in)]),
        _key("PromoCode", "PromoCodes", "promoCodes"),
    ] = ()
    customer_attributes: Annotated[
        tuple[Any, ...], Strict(), Otherwise(_attributes), _key("CustomerAttributes", "CustomerAttribute")
    ] = ()

    _repr_fields: ClassVar[tuple[str, ...]] = ("action_id", "channel_id", "template_id")

    @functools.cached_property
    def rows(self) -> tuple[CustomerRow, ...]:
        """All rows of the customer that are known so far; outside of a review, this one alone."""
        return (CustomerRow(self.channel_id, self.action_id, self.template_id, self.promo_codes),)

    def with_rows(self, rows: Iterable[CustomerRow]) -> Self:
        """Return a copy with other `rows`, as a review makes it of a customer in several; for tests of a reviewer.

        Args:
            rows: All rows of the customer.
        """
        copied = self.model_copy()
        vars(copied)["rows"] = tuple(rows)  # where a cached property looks first
        return copied

    @property
    def is_control(self) -> bool:
        """Whether the customer is in the control group: measured, but not contacted."""
        return self.action_id == CONTROL_GROUP

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Validate a row.

        Args:
            obj: The row; its keys are case-insensitive.
            options: As in `pydantic.BaseModel.model_validate`.
        """
        return super().model_validate(known_keys(cls, obj), **options)

    @classmethod
    def from_json(cls, body: bytes | str) -> Self:
        """Parse a row from JSON text; see `WireModel.from_json`.

        Args:
            body: The bytes as received.

        Raises:
            PayloadError: It cannot be understood; `path` names the field. The error never quotes the payload.
        """
        return cls._from_decoded(body)


class CustomerExecution(CampaignCustomer):
    """A customer whom a scheduled campaign was sent to: one row of GetCustomerExecutionDetailsByCampaign.

    A customer can have several rows, such as one per channel. The fields are known from other programs; only
    `customer_id` is required. A row of the control group, if there is one, says that nothing was sent: see
    `is_control`.

    Attributes:
        template_name: The template's name.
        scheduled_time: When it was scheduled for, as Optimove writes it: without a zone.
    """

    template_name: Annotated[Unchecked[str | None], _key("TemplateName")] = None
    scheduled_time: Annotated[Unchecked[str | None], _key("ScheduledTime")] = None

    _repr_fields = ("action_id", "channel_id", "template_id", "scheduled_time")


@final
class CustomerBatch(Sequence[CampaignCustomer]):
    """Customers of a campaign, each once, and what they are about. A slice is a tuple.

    Attributes:
        event: The event that announced the campaign.
        number: The number of the batch in this run of the review, from 1; a batch that is asked about again keeps it.
        attempt: 1, or more when the reviewer is asked again about customers of the batch.
    """

    __slots__ = ("_customers", "attempt", "event", "number")

    def __init__(
        self, customers: Iterable[CampaignCustomer], *, event: CampaignReadyEvent, number: int = 1, attempt: int = 1
    ) -> None:
        """Make a batch, as a review does.

        Args:
            customers: The customers, each once.
            event: The event that announced the campaign.
            number: The number of the batch.
            attempt: How often the reviewer is asked about it, this time included.
        """
        self._customers = tuple(customers)
        self.event = event
        self.number = number
        self.attempt = attempt

    @property
    def campaign_id(self) -> int:
        """The campaign."""
        return self.event.campaign_id

    def __len__(self) -> int:
        return len(self._customers)

    @overload
    def __getitem__(self, index: int) -> CampaignCustomer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[CampaignCustomer, ...]: ...
    def __getitem__(self, index: int | slice) -> CampaignCustomer | tuple[CampaignCustomer, ...]:
        return self._customers[index]

    def __repr__(self) -> str:
        return (
            f"CustomerBatch({len(self._customers)} customers, campaign_id={self.campaign_id}, number={self.number}, "
            f"attempt={self.attempt})"
        )


C = TypeVar("C", bound=CampaignCustomer)


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row that names no customer.

    Attributes:
        error: The reason.
        row: The row as received.
    """

    error: PayloadError
    row: object = field(repr=False)


def read_customer(row: object, model: type[C]) -> C | UnreadableRow:
    """Convert a row that has been parsed from JSON."""
    try:
        return model.model_validate(row)
    except ValidationError as error:
        return UnreadableRow(payload_error(model.__name__, error), row)


def read_customers(text: bytes, model: type[C]) -> Sequence[C | UnreadableRow]:
    """Parse a JSON array of rows, with the results of `read_customer`, in half the time.

    Args:
        text: The JSON array.
        model: What each row is.

    Raises:
        ValueError: It is not an array, or holds what pydantic's parser does not accept.
    """
    if not holds_constant(text):
        with contextlib.suppress(ValidationError):  # perhaps of one row: the others are still parsed
            customers: list[C] = _adapter(model).validate_json(text)
            unknown = set[str]().union(*map(_extra_of, customers))
            if field_names(model).keys().isdisjoint(map(str.lower, unknown)):
                return customers
    rows: list[object] = from_json(text, cache_strings="keys", allow_inf_nan=False)
    return [read_customer(row, model) for row in rows]


@functools.cache
def _adapter(model: type[CampaignCustomer]) -> TypeAdapter[Any]:
    rows: Any = GenericAlias(list, (model,))
    return TypeAdapter(rows)


class CustomerPromotionStatus(WireModel):
    """Whether one customer may get the campaign.

    Source: Optimove's Conditional Execution article (UpdateCustomerPromotionStatus).

    Attributes:
        customer_id: The customer's id, as in `CampaignCustomer`.
        status: Only a real `True` approves.
    """

    customer_id: Annotated[Name, Field(alias="CustomerID")]
    status: Annotated[bool, Strict(), Field(alias="Status")]

    _repr_fields = ("status",)


class CampaignDetails(CaselessModel):
    """What Optimove knows of a campaign: the response of GetCampaignDetails.

    Each field may be missing; a value of an undocumented type is kept unchanged. Keys are case-insensitive.

    Attributes:
        target_group_id: Whom the campaign is for.
        campaign_type: Such as `Test/Control`.
        duration: Presumably days.
        lead_time: Presumably days.
        notes: What the marketer wrote; some pass parameters to their services here.
        is_multi_channel: Whether it goes out through several channels.
        is_recurrence: Whether it is repeated.
        status: Such as `Successful` or `Failed`.
        error: Why it has failed; empty when it has not.
        test_group_size: Customers in the test group.
        control_group_size: Customers in the control group.
        channels: An object for each channel; its keys are not documented.
        tags: The campaign's tags.
    """

    target_group_id: Annotated[LenientNumber, Field(alias="TargetGroupID")] = None
    campaign_type: Annotated[Unchecked[str | None], Field(alias="CampaignType")] = None
    duration: Annotated[LenientNumber, Field(alias="Duration")] = None
    lead_time: Annotated[LenientNumber, Field(alias="LeadTime")] = None
    notes: Annotated[Unchecked[str | None], Field(alias="Notes")] = None
    is_multi_channel: Annotated[Lenient[bool | None], Field(alias="IsMultiChannel")] = None
    is_recurrence: Annotated[Lenient[bool | None], Field(alias="IsRecurrence")] = None
    status: Annotated[Unchecked[str | None], Field(alias="Status")] = None
    error: Annotated[Unchecked[str | None], Field(alias="Error")] = None
    test_group_size: Annotated[LenientNumber, Field(alias="TestGroupSize")] = None
    control_group_size: Annotated[LenientNumber, Field(alias="ControlGroupSize")] = None
    channels: Annotated[EmptyIfNull[Any], Field(alias="Channels")] = ()
    tags: Annotated[EmptyIfNull[Any], Field(alias="Tags")] = ()

    _repr_fields = ("target_group_id", "campaign_type", "duration", "status")
