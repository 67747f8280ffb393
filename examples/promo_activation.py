"""A scheduled campaign whose bonus must be activated first: only who has it gets the campaign.

Run it:    pip install .     (in a clone)
           cd examples && python promo_activation.py event.json     (the body that Optimove posted to the listener)
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_TIMEZONE, PROMOTIONS_DB (an SQLite file)
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    Deadline,
    OptimoveClient,
)
from optimove_conditional_execution.stores import SqliteJournal

SCHEMA = "CREATE TABLE IF NOT EXISTS bonuses (customer TEXT, code TEXT, PRIMARY KEY (customer, code))"


def activate(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    """Activate each promotion once, however often it is asked for, and approve who has all of theirs."""
    wanted = [(customer.customer_id, code) for customer in customers for code in customer.promo_codes]
    with closing(sqlite3.connect(os.environ["PROMOTIONS_DB"], timeout=deadline.remaining())) as promotions, promotions:
        promotions.execute(SCHEMA)
        promotions.executemany("INSERT OR IGNORE INTO bonuses VALUES (?, ?)", wanted)
    # Committed: if that had failed, it would have raised, and nobody in this batch would be approved.
    return [customer.customer_id for customer in customers if customer.promo_codes]


def main(event: str) -> int:
    """Review one campaign; 0 when everybody was reviewed in time."""
    with OptimoveClient() as client:
        review = CampaignReview(activate, client=client, journal=SqliteJournal("reviews.db"), concurrency=1)
        report = review.run(CampaignReadyEvent.from_json(Path(event).read_bytes()))
    print(f"approved {report.approved} of {report.reviewed}, {report.seconds_to_spare:.0f} s to spare")
    return 0 if report.complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
