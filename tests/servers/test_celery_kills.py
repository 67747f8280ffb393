"""Workers that are killed during a review: nothing is lost, and little is decided again."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from optimove_conditional_execution import CampaignReview
from optimove_conditional_execution.integrations.celery import CeleryReviewer
from optimove_conditional_execution.testing import FakeOptimove
from tests.servers import celery_tasks as tasks
from tests.servers.redis_server import running_redis

KILLS = 3
BATCHES = 60
BATCH = 100
WORKERS = 2


def test_a_review_is_complete_although_workers_are_killed(tmp_path: Path, fake_optimove: FakeOptimove) -> None:
    over = threading.Event()
    killed = 0

    def kill() -> None:
        """Kill a random worker at a random time, and start another, until there are enough or the review is over."""
        nonlocal killed
        while killed < KILLS and not over.wait(random.uniform(0.1, 0.8)):
            number = random.randrange(WORKERS)
            running[number].kill()
            killed += 1
            running[number] = tasks.Worker(server.url, f"again{killed}", tmp_path / f"again{killed}", concurrency=1)
            running[number].wait()

    with running_redis() as server, tasks.workers(server.url, WORKERS, tmp_path) as running:
        tasks.app.conf.update(broker_url=server.url, result_backend=server.url)
        campaign = fake_optimove.add_campaign(BATCHES * BATCH)
        killing = threading.Thread(target=kill)
        killing.start()
        with fake_optimove.client() as client:
            reviewer = CeleryReviewer(tasks.count)
            report = CampaignReview(reviewer, client=client, batch_size=BATCH, concurrency=6).run(campaign.event())
        over.set()
        killing.join()
        with server.connect() as connection:
            decided = [int(times) for times in connection.hvals("decided")]
    assert (report.complete, report.failed, report.approved) == (True, 0, BATCHES * BATCH), report
    assert killed
    assert len(campaign.recipients()) == BATCHES * BATCH
    assert not campaign.contradictions
    assert len(decided) == BATCHES
    assert sum(decided) - BATCHES <= killed, "decided again"
