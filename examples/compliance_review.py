"""A scheduled campaign that only compliant players may get: minimum deposit, account status, country.

Run it:    pip install .     (in a clone)
           cd examples && python compliance_review.py event.json     (the body that Optimove posted to the listener)
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_TIMEZONE
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
from optimove_conditional_execution.stores import SqliteJournal

ATTRIBUTES = ["TotalDeposits", "AccountStatus", "Country"]
"""Attributes of your tenant. Their values come in this order."""

MINIMUM_DEPOSIT = 10
LICENSED = {"GB", "MT", "SE"}


def may_receive(customer: CampaignCustomer) -> bool:
    """Say yes only when all three are known and right; what cannot be read raises, and is not approved."""
    deposits, status, country = customer.customer_attributes
    return float(deposits) >= MINIMUM_DEPOSIT and status == "active" and country in LICENSED


def main(event: str) -> int:
    """Review one campaign; 0 when everybody was reviewed in time."""
    with OptimoveClient() as client:
        review = CampaignReview(
            per_customer(may_receive, concurrency=8),
            client=client,
            journal=SqliteJournal("reviews.db"),
            customer_attributes=ATTRIBUTES,
        )
        report = review.run(CampaignReadyEvent.from_json(Path(event).read_bytes()))
    print(f"approved {report.approved}, denied {report.denied}, failed {report.failed}")
    return 0 if report.complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
