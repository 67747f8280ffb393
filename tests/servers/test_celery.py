"""Reviews by Celery workers, with a real Redis and real workers."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from optimove_conditional_execution import AsyncCampaignReview, CampaignReview, ConfigurationError, Deadline
from optimove_conditional_execution.integrations.celery import (
    AsyncCeleryReviewer,
    BrokerError,
    CeleryReviewer,
    ResultBackendError,
    TaskFailedError,
)
from optimove_conditional_execution.testing import FakeOptimove
from tests.servers import celery_tasks as tasks
from tests.servers.redis import Redis, running_redis

KILLS = 3
BATCHES = 60
BATCH = 100
WORKERS = 2

IDS = [f"C{number}" for number in range(10)]


@pytest.fixture(scope="module")
def redis_server() -> Iterator[Redis]:
    with running_redis(durable=False) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def connected(redis_server: Redis) -> None:
    tasks.app.conf.update(broker_url=redis_server.url, result_backend=redis_server.url)


@pytest.fixture(scope="module")
def worker(redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with tasks.workers(redis_server.url, 1, tmp_path_factory.mktemp("worker"), concurrency=2):
        yield


def batch(count: int = 10) -> Any:
    fake = FakeOptimove()
    with fake.client() as client:
        return list(client.get_processed_campaign_customers(fake.add_campaign(count).campaign_id))


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("send", ["ids", "rows", "function", "mapping"])
def test_a_review_by_workers(send: str, redis_server: Redis, fake_optimove: FakeOptimove) -> None:
    settings: dict[str, Any] = {
        "ids": {},
        "rows": {"send": "rows"},
        "function": {"send": lambda customers: [customer.customer_id for customer in customers]},
        "mapping": {},
    }
    task = {"rows": tasks.approve_channel, "mapping": tasks.mapping}.get(send, tasks.approve_even)
    campaign = fake_optimove.add_campaign(2_500)
    with fake_optimove.client() as client:
        report = CampaignReview(CeleryReviewer(task, **settings[send]), client=client).run(campaign.event())
    assert (report.complete, report.approved, report.failed) == (True, 2_500 if send == "rows" else 1_250, 0), report
    assert len(campaign.recipients()) == report.approved
    with redis_server.connect() as client:
        assert not list(client.scan_iter("celery-task-meta-*")), "the ids of customers stay in the backend"
        assert client.pubsub_channels("celery-task-meta-*") == [], "what nobody reads piles up there"


@pytest.mark.usefixtures("worker")
def test_an_async_review_by_workers(fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(2_500)

    async def review() -> int:
        async with fake_optimove.async_client() as client:
            reviewer = AsyncCeleryReviewer(tasks.approve_even)
            report = await AsyncCampaignReview(reviewer, client=client, concurrency=16).run(campaign.event())
        assert (report.complete, report.failed) == (True, 0), report
        return report.approved

    assert asyncio.run(review()) == 1_250


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("task", "error", "words"),
    [
        (tasks.fail, TaskFailedError, "FAILURE: ValueError"),
        (tasks.kill_worker, TaskFailedError, "FAILURE: WorkerLostError"),
    ],
)
def test_a_task_that_fails(task: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        CeleryReviewer(task)(batch(), Deadline.after(30))
    assert "C0000001" not in str(caught.value)


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("task", "words"),
    [
        (tasks.pairs, "list"),
        (tasks.nothing, "NoneType"),
        (tasks.odd_mapping, "str"),
        (tasks.fail, "TaskFailedError"),
    ],
)
def test_the_report_says_how_many_failed(task: Any, words: str, fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(30)
    with fake_optimove.client() as client:
        report = CampaignReview(CeleryReviewer(task), client=client, batch_size=10, batch_attempts=1).run(
            campaign.event()
        )
    assert (report.complete, report.approved, report.failed) == (False, 0, 30)
    assert not campaign.recipients()
    assert words in " ".join(report.warnings)


def test_a_task_that_is_late_is_revoked(redis_server: Redis, tmp_path: Path) -> None:
    """The second waits behind the first, which hangs: it is never begun."""
    with tasks.workers(redis_server.url, 1, tmp_path):
        reviewer = CeleryReviewer(tasks.hang)
        late: list[BaseException] = []

        def ask() -> None:
            with pytest.raises(TimeoutError) as caught:
                reviewer(batch(), Deadline.after(1.5))
            late.append(caught.value)

        asked = [threading.Thread(target=ask) for _ in range(2)]
        begun = time.monotonic()
        for thread in asked:
            thread.start()
        for thread in asked:
            thread.join(30)
        assert len(late) == 2
        assert 1.4 < time.monotonic() - begun < 30
        end = time.monotonic() + 30
        while len(revoked()) < 2:
            assert time.monotonic() < end
            time.sleep(0.1)


def is_running(name: str) -> bool:
    active = tasks.app.control.inspect(timeout=1.0).active() or {}
    return any(task["name"] == name for running in active.values() for task in running)


def revoked() -> list[str]:
    answers = tasks.app.control.inspect(timeout=1.0).revoked() or {}
    return [task_id for ids in answers.values() for task_id in ids]


@pytest.mark.usefixtures("worker")
def test_an_async_batch_that_is_cancelled_is_revoked() -> None:
    async def ask() -> None:
        asked = asyncio.create_task(AsyncCeleryReviewer(tasks.hang)(batch(), Deadline.after(600)))
        while not await asyncio.to_thread(is_running, tasks.hang.name):
            assert not asked.done()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    before = len(revoked())
    asyncio.run(ask())
    end = time.monotonic() + 30
    while len(revoked()) == before:
        assert time.monotonic() < end
        time.sleep(0.1)


# ---- broker and backend


def test_a_broker_that_is_down(fake_optimove: FakeOptimove) -> None:
    app = Celery("down", broker="redis://:hidden@127.0.0.1:1/0", backend="redis://:hidden@127.0.0.1:1/0")
    reviewer = CeleryReviewer(app.task(tasks.even))
    with pytest.raises(BrokerError) as caught:
        reviewer(batch(), Deadline.after(60))
    assert "hidden" not in str(caught.value)
    campaign = fake_optimove.add_campaign(30)
    with fake_optimove.client() as client:
        report = CampaignReview(reviewer, client=client, batch_size=10, batch_attempts=1).run(campaign.event())
    assert (report.complete, report.approved, report.failed) == (False, 0, 30)
    assert "BrokerError" in " ".join(report.warnings)


def test_a_broker_that_goes_away(fake_optimove: FakeOptimove) -> None:
    """And one that returns in time costs nothing, apart from what it has lost itself."""
    with running_redis(durable=False) as redis_server:
        app = Celery("away", broker=redis_server.url, backend=redis_server.url)
        reviewer = CeleryReviewer(app.task(tasks.even))
        stopped = threading.Timer(1.0, redis_server.stop)
        stopped.start()
        with pytest.raises(ResultBackendError):
            reviewer(batch(), Deadline.after(60))
        stopped.join()


def test_a_backend_without_results() -> None:
    app = Celery("none", broker="memory://")
    with pytest.raises(ConfigurationError, match="result backend"):
        CeleryReviewer(app.task(tasks.even))
    app = Celery("ignored", broker="memory://", backend="cache+memory://")
    with pytest.raises(ConfigurationError, match="ignore_result"):
        CeleryReviewer(app.task(ignore_result=True)(tasks.even))
    app = Celery("unknown", broker="memory://", backend="nothing://x")
    with pytest.raises(ConfigurationError, match=r"ImproperlyConfigured|ImportError|ModuleNotFoundError"):
        CeleryReviewer(app.task(tasks.even))


def test_what_is_no_task() -> None:
    with pytest.raises(ConfigurationError, match=r"@app\.task"):
        CeleryReviewer(tasks.even)

    @tasks.app.task
    def of_two(ids: list[str], more: int) -> list[str]:
        return ids

    with pytest.raises(ConfigurationError, match="one argument"):
        CeleryReviewer(of_two)
    wrong: Any = "customers"
    with pytest.raises(ConfigurationError, match="send"):
        CeleryReviewer(tasks.sleep, send=wrong)


def test_a_task_that_is_called_in_place(fake_optimove: FakeOptimove) -> None:
    """As in a project's own tests, without a broker."""
    app = Celery("eager", task_always_eager=True)
    campaign = fake_optimove.add_campaign(30)
    with fake_optimove.client() as client:
        reviewer = CeleryReviewer(app.task(tasks.approve_even.run))
        report = CampaignReview(reviewer, client=client).run(campaign.event())
        assert (report.complete, report.approved) == (True, 15)
        campaign = fake_optimove.add_campaign(30)
        report = CampaignReview(CeleryReviewer(app.task(tasks.fail.run)), client=client, batch_attempts=1).run(
            campaign.event()
        )
        assert (report.complete, report.failed) == (False, 30)


# ---- workers that are killed: nothing is lost, and little is decided again


def test_a_review_is_complete_although_workers_are_killed(
    tmp_path: Path, redis_server: Redis, fake_optimove: FakeOptimove
) -> None:
    over = threading.Event()
    killed = 0

    def kill() -> None:
        """Kill a random worker at a random time, and start another, until there are enough or the review is over."""
        nonlocal killed
        while killed < KILLS and not over.wait(random.uniform(0.1, 0.8)):
            number = random.randrange(WORKERS)
            running[number].kill()
            killed += 1
            running[number] = tasks.Worker(
                redis_server.url, f"again{killed}", tmp_path / f"again{killed}", concurrency=1
            )
            running[number].wait()

    with tasks.workers(redis_server.url, WORKERS, tmp_path) as running:
        campaign = fake_optimove.add_campaign(BATCHES * BATCH)
        killing = threading.Thread(target=kill)
        killing.start()
        with fake_optimove.client() as client:
            reviewer = CeleryReviewer(tasks.count)
            # Redis has lost a task whose worker is killed between receiving it and writing down that it has it.
            review = CampaignReview(reviewer, client=client, batch_size=BATCH, concurrency=6, batch_timeout=12.0)
            report = review.run(campaign.event())
        over.set()
        killing.join()
        with redis_server.connect() as connection:
            decided = [int(times) for times in connection.hvals("decided")]
    assert (report.complete, report.failed, report.approved) == (True, 0, BATCHES * BATCH), report
    assert killed
    assert len(campaign.recipients()) == BATCHES * BATCH
    assert not campaign.contradictions
    assert len(decided) == BATCHES
    assert sum(decided) - BATCHES <= killed, "decided again"
