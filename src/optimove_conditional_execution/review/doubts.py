"""Doubts about the times of an event: a change of clocks, another offset, probably a wrong time zone.

A file of its own, since nothing else of a review is about them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from ..deadline import readings
from ..models.events import CampaignReadyEvent
from .config import LOGGER, ReviewConfig

WRONG_ZONE_SECONDS: Final = 2_700.0
"""Seconds between a fresh event's time stamp and now, above which its zone must be another one; most differ by 1 h."""


def doubts_about(
    event: CampaignReadyEvent, clearance: datetime | None, config: ReviewConfig, *, fresh: bool
) -> list[str]:
    """Return warnings about an event's times, and log them.

    Args:
        event: The event.
        clearance: The chosen reading when there are several.
        config: The review's settings.
        fresh: Whether the event has just come.
    """
    zone = config.timezone
    doubts: list[str] = []
    if clearance is not None:
        doubts.append(
            f"ClearanceRequiredBy falls into a change of clocks in {zone.key}, so it has two readings. "
            "The earliest that is not before the event's TimeStamp is used: "
            f"{clearance.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC."
        )
    if event.contradicts(zone):
        doubts.append(
            f"ClearanceRequiredBy names another UTC offset than {zone.key} has then; the event's own counts. "
            "Check timezone=, which statuses are stamped in."
        )
    now = config.wall_clock()
    stamps = readings(event.timestamp, event.timestamp_zone(zone))
    off = min((stamp.timestamp() - now for stamp in stamps), key=abs)
    if fresh and abs(off) >= WRONG_ZONE_SECONDS:
        doubts.append(
            f"The event's TimeStamp is {abs(off) / 3600:.1f} h {'ahead of' if off > 0 else 'behind'} now in "
            f"{zone.key}: probably the time zone is wrong, and with it the clearance. Check timezone=."
        )
    for doubt in doubts:
        LOGGER.warning("campaign %d: %s", event.campaign_id, doubt)
    return doubts
