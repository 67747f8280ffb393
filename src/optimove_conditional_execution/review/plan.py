"""What a run of a review works from. A file of its own, since `pipeline.py` is long enough with what it does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import final

from optimove_conditional_execution.deadline import Deadline
from optimove_conditional_execution.flows.report import Progress
from optimove_conditional_execution.models.listener import CampaignReadyEvent


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What one run is given.

    Attributes:
        event: The campaign.
        clearance: When Optimove stops listening.
        asking: When the reviewer is not asked any more, so that there is time to send what it said.
        recording: When a journal that fails is not tried any more, so that there is time to send what it holds.
        batch_size: Customers that the reviewer gets at once.
        concurrency: Batches that it gets at the same time.
        page_size: Rows of a page; None when the server knows no pages.
        attributes: Names of customer attributes to ask for.
        now: The time in the tenant's zone, without it.
        clock_step: Seconds by which the wall clock has moved more than the monotonic one.
        progress: Told how far the review is.
        only_sending: Whether an earlier pass has read and decided about all customers.
    """

    event: CampaignReadyEvent
    clearance: Deadline
    asking: Deadline
    recording: Deadline
    batch_size: int
    concurrency: int
    page_size: int | None
    attributes: tuple[str, ...]
    now: Callable[[], datetime]
    clock_step: Callable[[], float]
    progress: Callable[[Progress], None] | None
    only_sending: bool = False
