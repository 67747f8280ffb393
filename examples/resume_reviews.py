"""Run what a crash left unfinished, from cron: once a minute, say. A review that somebody is at is left alone.

Run it:    pip install .     (in a clone)
           cd examples && python resume_reviews.py reviews.db
Settings:  OPTIMOVE_API_KEY, OPTIMOVE_BASE_URL, OPTIMOVE_TIMEZONE
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from optimove_conditional_execution import CampaignCustomer, CampaignReview, Deadline, OptimoveClient
from optimove_conditional_execution.stores import SqliteJournal


def reviewer(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    """Replace this with your register: return the ids of those who may get the campaign."""
    excluded = {"C0000002"}
    return [customer.customer_id for customer in customers if customer.customer_id not in excluded]


def main(journal: str) -> int:
    """Resume; 0 when every review is complete."""
    with OptimoveClient() as client:
        reports = CampaignReview(reviewer, client=client, journal=SqliteJournal(journal)).resume()
    for report in reports:
        state = "complete" if report.complete else f"incomplete ({report.error})"
        print(f"campaign {report.campaign_id}: approved {report.approved}, {state}")
    return 0 if all(report.complete for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
