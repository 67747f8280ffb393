"""Resume reviews that a crash left unfinished, from cron, such as once a minute. Running reviews are skipped.

Run it:    pip install .     (in a clone)
           cd examples && python resume_reviews.py reviews.db
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_TIMEZONE; without a file none: it resumes a made-up campaign

python resume_reviews.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from optimove_conditional_execution import CampaignCustomer, CampaignReview, Deadline, OptimoveClient
from optimove_conditional_execution.stores import Journal, MemoryJournal, SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove


def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    """Replace this with your register: return the ids of those who may get the campaign."""
    excluded = {"C0000002"}
    return [customer.customer_id for customer in customers if customer.customer_id not in excluded]


def resume(client: OptimoveClient, journal: Journal) -> int:
    """Resume; 0 when every review is complete."""
    with client:
        reports = CampaignReview(reviewer, client=client, journal=journal).resume()
    for report in reports:
        state = "complete" if report.complete else f"incomplete ({report.error})"
        print(f"campaign {report.campaign_id}: approved {report.approved}, {state}")
    return 0 if all(report.complete for report in reports) else 1


def rehearse() -> int:
    """Resume a campaign that a simulator has announced, as if this process had crashed after that."""
    fake, journal = FakeOptimove(), MemoryJournal()
    journal.add(fake.add_campaign(100).event())
    return resume(fake.client(), journal)


def main(arguments: list[str]) -> int:
    """Resume what the journal of a file holds, or rehearse it."""
    if not arguments:
        return rehearse()
    with SqliteJournal(arguments[0]) as journal:
        return resume(OptimoveClient(), journal)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
