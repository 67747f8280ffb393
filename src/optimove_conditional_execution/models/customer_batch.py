"""The batch of customers that a reviewer decides about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import final, overload

from .campaign import CampaignCustomer
from .events import CampaignReadyEvent


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
