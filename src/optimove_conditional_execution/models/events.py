"""Event listeners, and the events that Optimove posts to them for scheduled campaigns.

Source: Optimove's Conditional Execution article (the event of type 5), and `docs/explanation/optimove-api.md` for keys
in other cases, time stamps without seconds and numbers in strings.
"""

import re
from collections.abc import Iterable
from datetime import datetime, timedelta, tzinfo
from datetime import timezone as fixed_zone
from typing import Annotated, Any, Final
from urllib.parse import unquote
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator
from pydantic_core import PydanticCustomError

from ..deadline import announced_instant, zone_of
from ..urls import origin
from .base import CaselessModel, LenientNumber, Number, known_keys

CAMPAIGN_READY: Final = 5
"""The event type of a scheduled campaign that waits for clearance."""

_MOMENT: Final = re.compile(
    r"(?P<wall>\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)"
    r"(?: ?(?P<zone>Z|UTC|GMT|[+-]\d\d(?::?\d\d)?))?",
    re.ASCII | re.IGNORECASE,
)
_ZONED: Final = re.compile(r".*\d\d:\d\d.*([+-]\d\d(:?\d\d)?|[A-Z]{3,})", re.ASCII | re.IGNORECASE | re.DOTALL)
_LONGEST_MOMENT: Final = 64
_DAY: Final = timedelta(days=1)


def _moment(value: object) -> tuple[object, timedelta | None]:
    """Split a time stamp into the local time and the UTC offset that follows it."""
    if isinstance(value, str) and len(value) <= _LONGEST_MOMENT and (found := _MOMENT.fullmatch(value.strip())):
        zone = found["zone"] or ""
        try:
            # Fractional digits after the sixth are cut.
            aware = datetime.fromisoformat(found["wall"] + ("Z" if zone.isalpha() else zone))
        except ValueError:
            return value, None
        return aware.replace(tzinfo=None), aware.utcoffset()
    if isinstance(value, datetime):
        return value.replace(tzinfo=None), value.utcoffset()
    return value, None


def _wall_time(value: object) -> datetime:
    wall, _ = _moment(value)
    if not isinstance(wall, datetime):
        is_zoned = isinstance(value, str) and len(value) <= _LONGEST_MOMENT and _ZONED.fullmatch(value.strip())
        raise PydanticCustomError(*(("zoned", "has a zone") if is_zoned else ("wall_time", "is not a date and time")))
    return wall


def _offset(value: object) -> timedelta | None:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _DAY.total_seconds():
        value = timedelta(seconds=value)
    if value is None or (isinstance(value, timedelta) and abs(value) < _DAY):
        return value
    raise PydanticCustomError("offset", "is not a UTC offset")


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

Offset = Annotated[
    timedelta | None,
    BeforeValidator(_offset),
    PlainSerializer(
        lambda offset: None if offset is None else round(offset.total_seconds()),
        return_type=int | None,
        when_used="json",
    ),
]
"""A UTC offset; in JSON, a number of seconds."""


class ListenerEvent(CaselessModel):
    """An event that Optimove posts to a registered listener, of any type.

    Attributes:
        event_type_id: The type of event; 5 is a scheduled campaign that waits for clearance.
        timestamp: The time of the event, as local time in Optimove's time zone for the tenant, which the payload
            usually does not name. None when it is missing.
        campaign_id: The campaign, or None for events of another kind. A value that is not a number is kept unchanged.
        timestamp_offset: The UTC offset that follows `timestamp` (`Z`, `+02:00`, ` UTC`); None without one.
    """

    event_type_id: Annotated[Number, Field(alias="EventTypeID")]
    timestamp: Annotated[WallTime | None, Field(alias="TimeStamp")] = None
    campaign_id: Annotated[LenientNumber, Field(alias="CampaignID")] = None
    timestamp_offset: Annotated[Offset, Field(alias="TimeStampOffset")] = None

    _repr_fields = ("event_type_id", "timestamp", "campaign_id")
    _refuses_repeated_keys = True

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, given: Any) -> Any:
        """Read the keys case-insensitively, and keep the UTC offset of a time stamp."""
        found = known_keys(cls, given)
        if isinstance(found, dict):
            for key, beside in (("TimeStamp", "TimeStampOffset"), ("ClearanceRequiredBy", "ClearanceOffset")):
                _, offset = _moment(found.get(key))
                if offset is not None:
                    found[beside] = offset
        return found


class CampaignReadyEvent(ListenerEvent):
    """A scheduled campaign was processed and waits until `clearance_required_by` for the customers who may get it.

    Source: Optimove's Conditional Execution article (event type 5).

    Attributes:
        event_type_id: Always 5.
        campaign_id: The campaign.
        campaign_duration: How long the campaign lasts; presumably in days. None when it is missing.
        clearance_required_by: Until when statuses count, in the zone that `timestamp` is in.
        clearance_offset: The UTC offset that follows `clearance_required_by`; None without one.
    """

    event_type_id: Annotated[Number, Field(alias="EventTypeID"), AfterValidator(_campaign_ready)]
    timestamp: Annotated[WallTime, Field(alias="TimeStamp")]  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]  # narrower, and read-only
    campaign_id: Annotated[Number, Field(alias="CampaignID"), AfterValidator(_campaign)]  # pyright: ignore[reportGeneralTypeIssues, reportIncompatibleVariableOverride]  # narrower, and read-only
    campaign_duration: Annotated[LenientNumber, Field(alias="CampaignDuration")] = None
    clearance_required_by: Annotated[WallTime, Field(alias="ClearanceRequiredBy")]
    clearance_offset: Annotated[Offset, Field(alias="ClearanceOffset")] = None

    _repr_fields = ("campaign_id", "timestamp", "clearance_required_by")

    @property
    def key(self) -> str:
        """The key that identifies this event. A campaign can have several events, so its id is not enough."""
        offset = "" if self.clearance_offset is None else f"{self.clearance_offset.total_seconds():+.0f}"
        return (
            f"{self.event_type_id}:{self.campaign_id}"
            f":{self.timestamp.isoformat()}:{self.clearance_required_by.isoformat()}{offset}"
        )

    def clearance_zone(self, timezone: ZoneInfo | str) -> tzinfo:
        """Return the zone that `clearance_required_by` is in: the event's own offset, or else `timezone`.

        Args:
            timezone: Optimove's zone for the tenant, such as `Europe/London`, for events without an offset.

        Raises:
            ConfigurationError: The zone is unknown.
        """
        return _zone(self.clearance_offset, timezone)

    def timestamp_zone(self, timezone: ZoneInfo | str) -> tzinfo:
        """Return the zone that `timestamp` is in; see `clearance_zone`.

        Args:
            timezone: Optimove's zone for the tenant, for events without an offset.

        Raises:
            ConfigurationError: The zone is unknown.
        """
        return _zone(self.timestamp_offset, timezone)

    def contradicts(self, timezone: ZoneInfo | str) -> bool:
        """Return whether the event's own UTC offset differs from that of a zone at its clearance.

        Args:
            timezone: The zone that is configured as Optimove's.

        Raises:
            ConfigurationError: The zone is unknown.
        """
        zone = zone_of(timezone)
        moment, _ = self.clearance(zone)
        return self.clearance_offset is not None and moment.astimezone(zone).utcoffset() != self.clearance_offset

    def clearance_deadline(self, timezone: ZoneInfo | str, *, now: datetime | None = None) -> datetime:
        """Return `clearance_required_by` as a moment in UTC.

        A local time that is ambiguous or skipped at a change of clocks is read as the earliest moment that is not
        before `timestamp`. The event's own offset, such as `+02:00`, takes precedence over `timezone`.

        Args:
            timezone: Optimove's zone for the tenant, such as `Europe/London`. It is not documented: ask Optimove.
            now: The current time, as an aware datetime. It decides which of two readings `timestamp` means when it is
                ambiguous itself; None takes the earlier one.

        Raises:
            ConfigurationError: The zone is unknown.
        """
        moment, _ = self.clearance(zone_of(timezone), now=None if now is None else now.timestamp())
        return moment

    def clearance(self, zone: ZoneInfo, *, now: float | None = None) -> tuple[datetime, bool]:
        """Return what `clearance_deadline` does, and whether there was more than one reading.

        Args:
            zone: Optimove's zone for the tenant, for events without an offset.
            now: Seconds since 1970, or None.
        """
        return announced_instant(
            self.clearance_required_by,
            self.clearance_zone(zone),
            announced=self.timestamp,
            announced_zone=self.timestamp_zone(zone),
            now=now,
        )


def _zone(offset: timedelta | None, timezone: ZoneInfo | str) -> tzinfo:
    zone = zone_of(timezone)
    return zone if offset is None else fixed_zone(offset)


class EventListener(CaselessModel):
    """A registered listener.

    Attributes:
        event_type_id: The type of events that it gets.
        listener_url: Where Optimove posts them; it may be percent-encoded as a whole. The repr shows its host only,
            since path and query can hold a token.
        channel_id: The channel that it was registered for, or None.
    """

    event_type_id: Annotated[Number, Field(alias="EventTypeID")]
    listener_url: Annotated[str, Field(alias="ListenerURL", strict=True)]
    channel_id: Annotated[LenientNumber, Field(alias="ChannelID")] = None

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        where = f"{origin(unquote(self.listener_url))}/..."
        return [("event_type_id", self.event_type_id), ("listener_url", where), ("channel_id", self.channel_id)]
