"""A process that reviews one campaign, decides by chance, and is killed at some moment: see test_kill.py."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    Deadline,
    OptimoveClient,
)
from optimove_conditional_execution.stores import SqliteJournal


def main(url: str, key: str, journal: str, event: str) -> None:
    """Review a campaign; a second decision about a customer would most likely differ from the first."""
    chance = random.Random()

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        return [customer.customer_id for customer in customers if chance.random() < 0.5]

    print("begun", flush=True)
    with OptimoveClient(key, base_url=url, timezone="UTC", rate_limit=None) as client:
        review = CampaignReview(
            reviewer, client=client, journal=SqliteJournal(journal), batch_size=500, chunk_size=2_000
        )
        report = review.run(CampaignReadyEvent.from_json(event))
    print(report.to_json(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
