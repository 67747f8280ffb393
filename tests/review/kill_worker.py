"""A process that reviews one campaign, decides by chance, and is killed at some moment: see test_kill.py."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    Deadline,
    OptimoveClient,
)
from optimove_conditional_execution.stores import Journal, SqliteJournal


def journal_of(place: str) -> Journal:
    """Return the journal in a file, or in the PostgreSQL of a URL."""
    if "://" not in place:
        return SqliteJournal(place)
    from optimove_conditional_execution.stores.postgres import PostgresJournal

    return PostgresJournal(place)


def main(url: str, key: str, journal: str, event: str, pause: str = "0") -> None:
    """Review a campaign; a second decision about a customer would most likely differ from the first."""
    chance = random.Random()

    def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
        time.sleep(float(pause))
        return [customer.customer_id for customer in customers if chance.random() < 0.5]

    print("begun", flush=True)
    with OptimoveClient(key, base_url=url, timezone="UTC", rate_limit=None) as client:
        review = CampaignReview(reviewer, client=client, journal=journal_of(journal), batch_size=500, chunk_size=2_000)
        report = review.run(CampaignReadyEvent.from_json(event))
    print(report.to_json(), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
