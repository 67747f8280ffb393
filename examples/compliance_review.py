"""A scheduled campaign that only compliant players may get, as named rules, with a log that can answer a regulator.

Run it:    pip install .     (in a clone)
           cd examples && python compliance_review.py event.json     (the body that Optimove posted to the listener)
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_TIMEZONE; without event.json none: it reviews made-up players

python compliance_review.py
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReadyEvent,
    CampaignReview,
    Deadline,
    OptimoveClient,
    policy,
)
from optimove_conditional_execution.stores import SqliteDecisionLog, SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove

ATTRIBUTES = ["TotalDeposits", "Country"]
"""Attributes of your tenant. Their values come in this order."""

MINIMUM_DEPOSIT, LICENSED = 10, {"GB", "MT", "SE"}
MADE_UP = {"good": ["25.5", "GB"], "poor": ["5", "GB"], "abroad": ["25", "US"], "excluded": ["90", "SE"]}


@policy.chunked(1_000)  # the register takes so many ids a call
def not_excluded(ids: Sequence[str], deadline: Deadline) -> dict[str, policy.Answer]:
    """Replace this with your register; whom it does not know, or an error, is not a yes."""
    return {one: policy.Answer(one != "excluded", reference=f"R-{one}") for one in ids}


def enough_deposits(customer: CampaignCustomer, deadline: Deadline) -> bool:
    """Whether the player has paid in enough; an unreadable value raises, and is not a yes."""
    return float(customer.customer_attributes[0]) >= MINIMUM_DEPOSIT


def licensed(customer: CampaignCustomer, deadline: Deadline) -> bool:
    """Whether we hold a licence where the player lives."""
    return customer.customer_attributes[1] in LICENSED


rules = policy.all_of(
    self_exclusion=not_excluded,
    deposits=policy.check(enough_deposits, version="2026-01"),
    licence=policy.check(licensed, version="7"),
)


def main(arguments: list[str]) -> int:
    """Review one campaign; 0 when all customers were reviewed in time."""
    if arguments:
        event, client = CampaignReadyEvent.from_json(Path(arguments[0]).read_bytes()), OptimoveClient()
    else:
        fake = FakeOptimove()
        rows = [{"CustomerID": who, "CustomerAttributes": values} for who, values in MADE_UP.items()]
        event, client = fake.add_campaign(rows).event(), fake.client()
    name = Path(arguments[0]).stem if arguments else "made-up"
    with client, SqliteJournal(f"{name}.reviews.db") as journal, SqliteDecisionLog(f"{name}.decisions.db") as log:
        review = CampaignReview(
            rules.reviewer, client=client, journal=journal, decision_log=log, customer_attributes=ATTRIBUTES
        )
        report = review.run(event)
        records = (logged.record for logged in log.decisions(campaign=event.campaign_id))
        reasons = Counter(record.reason for record in records if record.reason)
    print(f"approved {report.approved}, denied {report.denied}, failed {report.failed}")
    print(*(f"{reason}: {number}" for reason, number in sorted(reasons.items())), sep="\n")
    return 0 if report.complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
