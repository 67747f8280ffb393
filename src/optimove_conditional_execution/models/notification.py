"""The notification that Optimove posts to a webhook for each customer of a triggered campaign.

Source: Optimove's Conditional Execution article's sample, and `docs/explanation/optimove-api.md` for what may be null.
"""

import re
from datetime import UTC, datetime
from typing import Final

from ..errors import PayloadError
from .base import Attributes, EchoedId, EmptyIfNull, Id, Identifier, Lenient, Milliseconds, Unchecked, WireModel
from .json_text import is_ambiguous


class User(WireModel):
    """The customer or visitor.

    Attributes:
        user_id: The customer id, or a visitor id when `is_visitor`.
        is_visitor: Whether it is a visitor whom Optimove cannot yet identify as a customer.
        personalization: The attributes that the template uses; values of any JSON type.
    """

    user_id: Id
    is_visitor: Lenient[bool | None] = None
    personalization: Attributes = {}

    _repr_fields = ("is_visitor",)


class TargetGroup(WireModel):
    """The target group that the customer is in."""

    id: Unchecked[Identifier | None] = None
    name: Unchecked[str | None] = None

    _repr_fields = ("id",)


class Promotion(WireModel):
    """A promotion that the campaign promises."""

    name: Unchecked[str | None] = None
    code: Unchecked[Identifier | None] = None

    _repr_fields = ("code",)


class Template(WireModel):
    """The template of a channel."""

    id: Unchecked[Identifier | None] = None
    name: Unchecked[str | None] = None

    _repr_fields = ("id",)


class Channel(WireModel):
    """A channel that the campaign goes out through."""

    id: Unchecked[Identifier | None] = None
    name: Unchecked[str | None] = None
    brand_id: Unchecked[Identifier | None] = None
    template: Lenient[Template | None] = None

    _repr_fields = ("id",)


class Action(WireModel):
    """The campaign action.

    Attributes:
        is_control: Whether the customer is in the control group. Whether Optimove sends notifications for those at all
            is not known.
    """

    id: Unchecked[Identifier | None] = None
    name: Unchecked[str | None] = None
    is_control: Lenient[bool | None] = None
    promotions: EmptyIfNull[Promotion] = ()
    channels: EmptyIfNull[Channel] = ()

    _repr_fields = ("id", "is_control")


class Occurrence(WireModel):
    """The occurrence of the campaign that is about to be sent.

    Attributes:
        date: The date as text: Optimove's own sample holds the letters `YYYY-MM-DD`.
    """

    date: Unchecked[str | None] = None
    series_id: Unchecked[Identifier | None] = None
    occurrence_id: Unchecked[Identifier | None] = None
    target_group: Lenient[TargetGroup | None] = None
    notes: Unchecked[str | None] = None
    tags: EmptyIfNull[Unchecked[str]] = ()
    communication_type: Unchecked[str | None] = None
    action: Lenient[Action | None] = None

    _repr_fields = ("series_id", "occurrence_id")


class TriggerEvent(WireModel):
    """An event that triggered the campaign.

    Attributes:
        timestamp: **Seconds** since 1970, unlike the notification's own time stamps, which are milliseconds.
        parameters: The event's parameters; values of any JSON type.
    """

    key: Unchecked[str | None] = None
    timestamp: Unchecked[int | float | None] = None
    parameters: Attributes = {}

    _repr_fields = ("key",)

    @property
    def occurred_at(self) -> datetime | None:
        """The time of the event in UTC, or None without a valid time stamp.

        Optimove's sample has seconds (ten digits). A value that could only be milliseconds is read as such.
        """
        stamp: object = self.timestamp
        if isinstance(stamp, bool) or not isinstance(stamp, int | float):
            return None
        try:
            return datetime.fromtimestamp(stamp if abs(stamp) < _FIRST_MILLISECONDS else stamp / 1000, UTC)
        except (OverflowError, ValueError, OSError):
            return None


class TriggerContext(WireModel):
    """The trigger of the campaign, and its events."""

    id: Unchecked[Identifier | None] = None
    name: Unchecked[str | None] = None
    events: EmptyIfNull[TriggerEvent] = ()

    _repr_fields = ("id",)


class WebhookNotification(WireModel):
    """A notification: may one customer get one triggered campaign?

    Only `timestamp`, `conditional_execution_approval_deadline`, `request_uid` and `user.user_id` are required; every
    other field may be null or missing. A value of an undocumented type is kept unchanged.

    Attributes:
        timestamp: When Optimove made the notification, in milliseconds since 1970.
        conditional_execution_approval_deadline: Until when an answer counts, in milliseconds since 1970.
        request_uid: Identifies this question; the answer carries it back.
        is_hashed: Presumably whether `user_id` is hashed; Optimove does not say.
    """

    timestamp: Milliseconds
    conditional_execution_approval_deadline: Milliseconds
    request_uid: EchoedId
    is_hashed: Lenient[bool | None] = None
    user: User
    occurrence: Lenient[Occurrence | None] = None
    trigger_context: Lenient[TriggerContext | None] = None

    _repr_fields = ("request_uid", "timestamp", "conditional_execution_approval_deadline")

    @classmethod
    def _check_keys(cls, value: object) -> None:
        user: object = value.get("user") if isinstance(value, dict) else None
        for where, part in (("the body", value), ("user", user)):
            if is_ambiguous(part):
                raise PayloadError(
                    f"{cls.__name__}: a key stands twice in {where}.", path="" if part is value else where
                )

    @property
    def sent_at(self) -> datetime:
        """`timestamp` as a datetime in UTC."""
        return datetime.fromtimestamp(self.timestamp / 1000, UTC)

    @property
    def approval_deadline(self) -> datetime:
        """`conditional_execution_approval_deadline` as a datetime in UTC."""
        return datetime.fromtimestamp(self.conditional_execution_approval_deadline / 1000, UTC)


def read_notification(body: bytes) -> WebhookNotification:
    """Parse a notification as receivers do: a duplicate key in it, or in its `user`, makes it invalid.

    Two parsers could read such a text as two different questions. `WebhookNotification.from_json` keeps the last value.

    Args:
        body: The bytes as received.

    Raises:
        PayloadError: It cannot be understood; `path` names the field. The error never quotes the payload.
    """
    read = WebhookNotification.from_json(body)
    return WebhookNotification._from_decoded(body) if _may_repeat_a_key(body, read) else read


def _may_repeat_a_key(body: bytes, read: WebhookNotification) -> bool:
    # The parser that detects duplicates takes longer than all other parsing. So the text is searched for traces of a
    # repeated key, and that parser is used when in doubt. Searching for a letter that is rare in texts takes a tenth of
    # the time of searching for a word.
    find, count = body.find, body.count
    unknown = [*(read.model_extra or ()), *(read.user.model_extra or ())]
    if find(b"\\") >= 0 and (unknown or _ESCAPED_LETTER.search(body)):
        return True
    if find(b"q", find(b"q") + 1) >= 0 and count(b'"request_uid"') > 1:
        return True
    if find(b"x", find(b"x", find(b"x") + 1) + 1) >= 0 and (
        count(b'"conditional_execution_approval_deadline"') > 1 or count(b'"trigger_context"') > 1
    ):
        return True
    if find(b"z", find(b"z") + 1) >= 0 and count(b'"personalization"') > 1:
        return True
    if count(b'"user') > 2 and (count(b'"user"') > 1 or count(b'"user_id"') > 1):
        return True
    if count(b'"is_hashed"') > 1 or count(b'"is_visitor"') > 1 or count(b'"occurrence"') > 1:
        return True
    for key in unknown:
        if count(b'"%b"' % key.encode()) > 1:
            return True
    context: object = read.trigger_context
    events: object = context.events if isinstance(context, TriggerContext) else ()
    stamps = 1  # and one that each event may have
    if isinstance(events, tuple):
        for event in events:
            stamps += event.timestamp is not None
    return count(b'"timestamp"') > stamps


_ESCAPED_LETTER: Final = re.compile(rb"\\u00[4-7]")

_FIRST_MILLISECONDS: Final = 100_000_000_000
"""As seconds this is the year 5138, as milliseconds 1973: no event's seconds are above, no event's milliseconds
below."""


class NotificationEnvelope(WireModel):
    """The part of an invalid notification that is needed to answer it: the question and the deadline."""

    timestamp: Lenient[Milliseconds | None] = None
    conditional_execution_approval_deadline: Milliseconds
    request_uid: EchoedId

    _repr_fields = ("request_uid",)
    _refuses_repeated_keys = True
