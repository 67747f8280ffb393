"""A scheduled campaign that only compliant players may get: minimum deposit, account status, country.

Run it:    pip install .     (in a clone)
           cd examples && python compliance_review.py event.json     (the body that Optimove posted to the listener)
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_TIMEZONE; without event.json none: it reviews made-up players

python compliance_review.py
"""

from __future__ import annotations

import sys
from pathlib import Path

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    OptimoveClient,
    per_customer,
)
from optimove_conditional_execution.stores import Journal, MemoryJournal, SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove

ATTRIBUTES = ["TotalDeposits", "AccountStatus", "Country"]
"""Attributes of your tenant. Their values come in this order."""

MINIMUM_DEPOSIT, LICENSED = 10, {"GB", "MT", "SE"}
MADE_UP = {"good": ["25.5", "active", "GB"], "poor": ["5", "active", "GB"], "abroad": ["25", "active", "US"]}


def may_receive(customer: CampaignCustomer) -> bool:
    """Approve only when all three are known and right; an unreadable value raises, and is not approved."""
    deposits, status, country = customer.customer_attributes
    return float(deposits) >= MINIMUM_DEPOSIT and status == "active" and country in LICENSED


def main(arguments: list[str]) -> int:
    """Review one campaign; 0 when all customers were reviewed in time."""
    journal: Journal = MemoryJournal()
    if arguments:
        event = CampaignReadyEvent.from_json(Path(arguments[0]).read_bytes())
        client, journal = OptimoveClient(), SqliteJournal("reviews.db")
    else:
        fake = FakeOptimove()
        rows = [{"CustomerID": who, "CustomerAttributes": values} for who, values in MADE_UP.items()]
        event, client = fake.add_campaign(rows).event(), fake.client()
    reviewer = per_customer(may_receive, concurrency=8)
    with client:
        review = CampaignReview(reviewer, client=client, journal=journal, customer_attributes=ATTRIBUTES)
        report = review.run(event)
    print(f"approved {report.approved}, denied {report.denied}, failed {report.failed}")
    return 0 if report.complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
