"""A review by one Celery worker and by four, over a Redis of its own: 60 batches that take 0.2 s each.

Not run unless it is named, since it needs Redis: `python -m benchmarks celery_workers`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.servers import celery_tasks
from tests.servers.redis import running_redis

from benchmarks.result import Result
from optimove_conditional_execution import CampaignReview
from optimove_conditional_execution.integrations.celery import CeleryReviewer
from optimove_conditional_execution.testing import FakeOptimove

BATCHES = 60
BATCH = 100


def seconds(url: str, workers: int) -> float:
    """Return how long a review by so many workers of one process takes."""
    fake = FakeOptimove()
    with tempfile.TemporaryDirectory() as folder, celery_tasks.workers(url, workers, Path(folder)):
        with fake.client() as client:
            for count in (workers, BATCHES):  # the first lets each worker connect
                campaign = fake.add_campaign(count * BATCH)
                review = CampaignReview(
                    CeleryReviewer(celery_tasks.sleep), client=client, batch_size=BATCH, concurrency=8
                )
                began = time.perf_counter()
                if not review.run(campaign.event()).complete:
                    raise RuntimeError("the review is incomplete")
        return time.perf_counter() - began


def measure() -> Iterator[Result]:
    """Yield the line of the table."""
    with running_redis(durable=False) as server:
        celery_tasks.app.conf.update(broker_url=server.url, result_backend=server.url)
        four, one = (BATCHES / seconds(server.url, workers) for workers in (4, 1))
    yield Result("a review by 4 Celery workers / by 1", "/s", four, one, 3.2, more_is_better=True)
