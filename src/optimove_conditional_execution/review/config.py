"""Settings of a review, validated once, and its logger. A file of its own, since all parts of a review use them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from zoneinfo import ZoneInfo

from .. import validation
from ..deadline import Clock
from ..errors import ConfigurationError
from ..flows.report import Progress, ReviewReport
from ..models.events import CampaignReadyEvent
from ..observers import SafeLogger
from ..operations import MAX_STATUSES

LOGGER: Final = SafeLogger("review")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewConfig:
    """Settings of a review; `CampaignReview` says what each means."""

    timezone: ZoneInfo
    batch_size: int
    concurrency: int
    batch_timeout: float | None
    batch_attempts: int
    safety_margin: float
    report_denied: bool
    progress: Callable[[Progress], None] | None
    on_report: Callable[[ReviewReport], None] | None
    customer_attributes: tuple[str, ...]
    page_size: int | None
    chunk_size: int
    control_group: Literal["ask", "skip"]
    wall_clock: Clock

    def __post_init__(self) -> None:
        """Reject settings that are invalid.

        Raises:
            ConfigurationError: A setting is; the message names it.
        """
        validation.integer("batch_size", self.batch_size)
        validation.integer("concurrency", self.concurrency)
        validation.integer("batch_attempts", self.batch_attempts)
        if self.batch_timeout is not None:
            validation.seconds("batch_timeout", self.batch_timeout, above_zero=True)
        validation.seconds("safety_margin", self.safety_margin)
        if self.page_size is not None:
            validation.integer("page_size", self.page_size)
        if validation.integer("chunk_size", self.chunk_size) > MAX_STATUSES:
            raise ConfigurationError(f"chunk_size must be {MAX_STATUSES} at most: Optimove takes no more in a call.")
        if self.control_group not in ("ask", "skip"):
            raise ConfigurationError('control_group must be "ask" or "skip".')

    @property
    def reviewer_threads(self) -> int:
        """How many calls of the reviewer can run at the same time, those included that have been abandoned."""
        return self.concurrency * (1 if self.batch_timeout is None else self.batch_attempts)

    def local_time(self) -> datetime:
        """Return the current time in the tenant's zone, as a naive datetime."""
        return datetime.fromtimestamp(self.wall_clock(), self.timezone).replace(tzinfo=None, microsecond=0)

    def seconds_left(self, event: CampaignReadyEvent) -> float:
        """Return the seconds until an event's clearance on the wall clock; negative after it."""
        now = self.wall_clock()
        clearance, _ = event.clearance(self.timezone, now=now)
        return clearance.timestamp() - now

    def margin(self, left: float) -> float:
        """Return the safety margin when `left` seconds are left: half of them at most."""
        return min(self.safety_margin, left / 2)
