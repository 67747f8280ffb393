"""Event listeners, and what Optimove posts to them for scheduled campaigns.

Source: Optimove's Conditional Execution article (the event of type 5), and `docs/explanation/optimove-api.md` for keys
in other cases, time stamps without seconds and numbers in strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from optimove_conditional_execution.deadline import announced_instant, zone_of
from optimove_conditional_execution.models.caseless import CaselessModel, LenientNumber, Number

CAMPAIGN_READY: Final = 5
"""The event type of a scheduled campaign that waits for clearance."""

_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?", re.ASCII)
_ZONED: Final = re.compile(r".*\d\d:\d\d.*(Z|[+-]\d\d(:?\d\d)?|[A-Z]{3,})", re.ASCII | re.IGNORECASE | re.DOTALL)
_LONGEST_MOMENT: Final = 64


def _wall_time(value: object) -> datetime:
    if isinstance(value, str) and len(value) <= _LONGEST_MOMENT:
        text = value.strip()
        if _MOMENT.fullmatch(text):
            try:
                value = datetime.fromisoformat(text)
            except ValueError:
                value = None
        elif _ZONED.fullmatch(text):
            raise PydanticCustomError("zoned", "has a zone")
    if not isinstance(value, datetime):
        raise PydanticCustomError("wall_time", "is not a date and time")
    if value.tzinfo is not None:
        raise PydanticCustomError("zoned", "has a zone")
    return value


_TOO_LARGE: Final = 2**63


def _campaign(value: int) -> int:
    if not 0 <= value < _TOO_LARGE:
        raise PydanticCustomError("campaign", "not the number of a campaign")
    return value


def _campaign_ready(value: int) -> int:
    if value != CAMPAIGN_READY:
        raise PydanticCustomError("event_type", "is not 5")
    return value


WallTime = Annotated[
    datetime,
    BeforeValidator(_wall_time),
    PlainSerializer(lambda moment: moment.isoformat(sep=" "), return_type=str, when_used="json"),
]
"""A date and time without a zone, as Optimove writes them: `YYYY-MM-DD HH:MM:SS`."""


class ListenerEvent(CaselessModel):
    """Something that Optimove reports to a registered listener, of any event type.

    Attributes:
        event_type_id: What happened; 5 is a scheduled campaign that waits for clearance.
        timestamp: When, in Optimove's time zone for the tenant, which the payload does not name.
        campaign_id: The campaign, or None for events of another kind. One that is no number is kept as it came.
    """

    event_type_id: Annotated[Number, Field(alias="EventTypeID")]
    timestamp: Annotated[WallTime, Field(alias="TimeStamp")]
    campaign_id: Annotated[LenientNumber, Field(alias="CampaignID")] = None

    _shown = ("event_type_id", "timestamp", "campaign_id")


class CampaignReadyEvent(ListenerEvent):
    """A scheduled campaign was processed and waits until `clearance_required_by` for the customers who may get it.

    Source: Optimove's Conditional Execution article (event type 5).

    Attributes:
        event_type_id: Always 5.
        campaign_id: The campaign.
        campaign_duration: How long the campaign lasts; presumably days. None when it does not say.
        clearance_required_by: Until when statuses count, in the zone that `timestamp` is in.
    """

    event_type_id: Annotated[Number, Field(alias="EventTypeID"), AfterValidator(_campaign_ready)]
    campaign_id: Annotated[Number, Field(alias="CampaignID"), AfterValidator(_campaign)]  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]
    campaign_duration: Annotated[LenientNumber, Field(alias="CampaignDuration")] = None
    clearance_required_by: Annotated[WallTime, Field(alias="ClearanceRequiredBy")]

    _shown = ("campaign_id", "timestamp", "clearance_required_by")

    @property
    def key(self) -> str:
        """The name of this notification. A campaign can have several, so its id alone names none."""
        return (
            f"{self.event_type_id}:{self.campaign_id}"
            f":{self.timestamp.isoformat()}:{self.clearance_required_by.isoformat()}"
        )

    def clearance_deadline(self, timezone: ZoneInfo | str, *, now: datetime | None = None) -> datetime:
        """Return `clearance_required_by` as a moment in UTC.

        In the hour that a change of clocks repeats or leaves out, it is the earliest reading that is not before
        `timestamp`.

        Args:
            timezone: The zone that Optimove writes in, such as `Europe/London`. It is not documented: ask.
            now: A moment with a zone. It tells which of its two readings `timestamp` means when that falls into a
                repeated hour itself; None takes the earlier one.

        Raises:
            ConfigurationError: The zone is not known.
        """
        moment, _ = self.clearance(zone_of(timezone), now=None if now is None else now.timestamp())
        return moment

    def clearance(self, zone: ZoneInfo, *, now: float | None = None) -> tuple[datetime, bool]:
        """Return what `clearance_deadline` does, and whether there was more than one reading.

        Args:
            zone: The zone that Optimove writes in.
            now: Seconds since 1970, or None.
        """
        return announced_instant(self.clearance_required_by, zone, announced=self.timestamp, now=now)


class EventListener(CaselessModel):
    """A registered listener.

    Attributes:
        event_type_id: Which events it gets.
        listener_url: Where Optimove posts them; it may be percent-encoded as a whole. The repr shows its host only,
            since path and query can hold a token.
        channel_id: The channel that it was registered for, or None.
    """

    event_type_id: Annotated[Number, Field(alias="EventTypeID")]
    listener_url: Annotated[str, Field(alias="ListenerURL", strict=True)]
    channel_id: Annotated[LenientNumber, Field(alias="ChannelID")] = None

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        try:
            parts = urlsplit(unquote(self.listener_url))
            where = f"{parts.scheme}://{parts.hostname or ''}/..."
        except ValueError:
            where = "..."
        return [("event_type_id", self.event_type_id), ("listener_url", where), ("channel_id", self.channel_id)]
