"""Switch and shadow under gevent's monkey patch, and after a fork: see test_controls.py. Prints JSON."""

from __future__ import annotations

from gevent import monkey

if __name__ == "__main__":
    monkey.patch_all()

import json
import os
import time
from collections.abc import Sequence

import gevent

from optimove_conditional_execution import (
    CampaignCustomer,
    CampaignReview,
    Deadline,
    WebhookNotification,
    WebhookReceiver,
)
from optimove_conditional_execution.shadow import Shadow
from optimove_conditional_execution.testing import FakeOptimove


def everybody(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return [customer.customer_id for customer in customers]


def nobody(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    time.sleep(0.01)
    return []


def approve(notification: WebhookNotification, deadline: Deadline) -> bool:
    return True


def says_ask() -> str:
    time.sleep(0.01)
    return "ask"


def beat() -> None:
    while True:  # as a server does: gevent ends a wait that no greenlet of its thread could end
        gevent.sleep(0.01)


def main() -> None:
    gevent.spawn(beat)
    fake = FakeOptimove()
    beside, rule = Shadow(nobody, max_concurrency=2), Shadow(approve, max_concurrency=1)
    campaign = fake.add_campaign(500)
    with fake.client() as client:
        review = CampaignReview(everybody, client=client, batch_size=10, shadow=beside, switch=says_ask)
        approved = review.run(campaign.event()).approved
        receiver = WebhookReceiver(approve, client=client, secrets=fake.secrets, shadow=rule, switch=says_ask)
        kinds = [fake.notify(receiver).approved for _ in range(3)]
        idle = beside.wait() and rule.wait()
        rule._busy = 1  # as a call that runs
        child = os.fork()
        if not child:  # pragma: no cover - in another process
            fake.notify(receiver)
            os._exit(0 if rule.wait() and not rule.dropped else 1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    counts = {observed: count for (_, observed), count in beside.counts.items()}
    print(json.dumps({"approved": approved, "kinds": kinds, "idle": idle, "child": status, "counts": counts}))


if __name__ == "__main__":
    main()
