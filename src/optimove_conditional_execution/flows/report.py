"""What a review tells: while it runs, and when it is over."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, final

from ..errors import OptimoveError


@final
@dataclass(frozen=True, slots=True)
class Progress:
    """How far a review is. Plain values, for a display or a metric.

    Attributes:
        campaign_id: The campaign.
        rows: Rows that have come.
        reviewed: Customers whose batch has been answered for, or has failed.
        approved: Customers who are approved.
        denied: Customers who are not.
        failed: Customers whose batch raised.
        acknowledged: Customers whose status Optimove has taken.
        all_read: Whether the last row has come; until then nobody knows how many customers there are.
        rate: Customers reviewed in a second, so far.
        seconds: Seconds since the start.
        seconds_left: Seconds until clearance.
        slack: Seconds between the expected end of the work that is known and clearance; negative when it cannot be done
            in time; None before anything has been measured.
    """

    campaign_id: int
    rows: int
    reviewed: int
    approved: int
    denied: int
    failed: int
    acknowledged: int
    all_read: bool
    rate: float
    seconds: float
    seconds_left: float
    slack: float | None

    @property
    def behind(self) -> bool:
        """Whether the clearance cannot be met any more."""
        return self.slack is not None and self.slack < 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewReport:
    """What became of a review. Counts are distinct customers, over all runs of the review, unless they say otherwise.

    Attributes:
        campaign_id: The campaign.
        reviewed: Customers whom the reviewer was asked about: `approved + denied + failed`.
        approved: Customers whom it approved.
        denied: Customers whom it did not.
        failed: Customers whose batch raised or was answered with something odd. Not approved; a further run of the
            same event asks about them again.
        not_reached: Customers who came, but were not decided about before time was up. Not approved.
        acknowledged: Customers whose status Optimove took with a 2xx.
        rows: Rows that came, in this run.
        repeated_rows: Rows of customers who had come before, in this run: one a further channel, say.
        control_group_rows: Rows of the control group (`action_id` 1), in this run.
        chunks: Status updates that Optimove took, in this run.
        retries: Requests that were repeated, in this run.
        seconds: How long this run took.
        seconds_to_spare: Seconds between its end and clearance; negative when clearance was first.
        complete: Whether every customer was read and decided about, and every status to report acknowledged.
        finished_before_clearance: Whether it was complete by then.
        error: What kept customers from being read or statuses from being taken; None when nothing did.
        warnings: What somebody should look at, in plain words without personal data.
    """

    campaign_id: int
    reviewed: int = 0
    approved: int = 0
    denied: int = 0
    failed: int = 0
    not_reached: int = 0
    acknowledged: int = 0
    rows: int = 0
    repeated_rows: int = 0
    control_group_rows: int = 0
    chunks: int = 0
    retries: int = 0
    seconds: float = 0.0
    seconds_to_spare: float = 0.0
    complete: bool = False
    finished_before_clearance: bool = False
    error: OptimoveError | None = None
    warnings: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return the report as a JSON object; the error becomes its text."""
        values: dict[str, Any] = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        values["error"] = None if self.error is None else f"{type(self.error).__name__}: {self.error}"
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> ReviewReport:
        """Read a report that `to_json` wrote, such as `ReviewState.report`; unknown fields are ignored.

        Args:
            text: The JSON object. The error comes back as an `OptimoveError` with the same words.

        Raises:
            ValueError: It is not JSON.
        """
        names = {item.name for item in dataclasses.fields(cls)}
        values = {name: value for name, value in json.loads(text).items() if name in names}
        if values.get("error") is not None:
            values["error"] = OptimoveError(values["error"])
        values["warnings"] = tuple(values.get("warnings", ()))
        return cls(**values)
