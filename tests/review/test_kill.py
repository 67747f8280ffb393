"""kill -9 at any moment, and a restart: nothing is lost, and nobody is reported with two answers."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

from optimove_conditional_execution.adapters.asgi import ASGIApp
from optimove_conditional_execution.flows.journal import ReviewState
from optimove_conditional_execution.review.runtime import UPDATES_AT_ONCE
from optimove_conditional_execution.stores import SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove
from tests.conftest import OverHTTP, served

KILLS = 5
CUSTOMERS = 12_000
CHANNELS = 2
"""Rows of each customer: the reviewer says yes to both of every fourth customer."""

CHUNK = 2_000
FIRST_MOMENT, LAST_MOMENT = 0.0, 0.6
"""Seconds after the process has begun; a review that nobody kills takes a bit longer. Every second kill waits for the
process's first decision before, however slow the machine is."""

PATIENCE = 60


def test_killed_at_random_moments(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**6)
    chance = random.Random(seed)
    fake = FakeOptimove()
    starts = kills = decided_at_a_kill = unsent_at_a_kill = 0
    with served(ASGIApp(OverHTTP(fake))) as url:
        while kills < KILLS:
            campaign = fake.add_campaign(CUSTOMERS, channels=CHANNELS, lead_seconds=600)
            path = tmp_path / f"journal-{campaign.campaign_id}.db"
            command = [sys.executable, "-m", "tests.review.kill_worker", url, fake.api_key, str(path)]
            killed_here = 0
            while True:
                worker = subprocess.Popen([*command, json.dumps(campaign.payload)], stdout=subprocess.PIPE, text=True)
                assert worker.stdout is not None
                with worker:
                    assert worker.stdout.readline() == "begun\n", seed
                    # A campaign that has been killed often enough is left to end, so that there are several.
                    patience = chance.uniform(FIRST_MOMENT, LAST_MOMENT) if killed_here < 5 else PATIENCE
                    starts += 1
                    if starts % 2 and killed_here < 5:
                        wait_for_a_decision(path, worker)
                        patience /= 3
                    try:
                        worker.wait(patience)
                    except subprocess.TimeoutExpired:
                        worker.kill()
                        kills += 1
                        killed_here += 1
                        kept = state(path)
                        decided_at_a_kill += kept is not None and kept.decided > 0
                        unsent_at_a_kill += kept is not None and kept.decided > kept.acknowledged
                        continue
                    report = json.loads(worker.stdout.read())
                assert worker.returncode == 0, seed
                break
            assert report["complete"], (seed, report)
            batches = list(SqliteJournal(path).batches(campaign.event().key))
            ever = [name for batch in batches for name in batch.approved]
            assert sorted(ever) == sorted(set(ever)), seed
            approved = set(ever).difference(*(batch.revoked for batch in batches))
            assert 0.2 * CUSTOMERS < len(approved) < 0.3 * CUSTOMERS, seed
            assert set(campaign.recipients()) == approved, seed
            assert not campaign.contradictions, seed
            assert report["approved"] == report["acknowledged"] == len(approved), seed
            assert report["denied"] == CUSTOMERS - len(approved), seed
            # What was on its way at a kill is sent again: at most one chunk for each update in flight.
            assert sum(campaign.calls) - len(approved) <= killed_here * UPDATES_AT_ONCE * CHUNK, seed
    assert kills >= KILLS
    assert decided_at_a_kill, f"no kill came while it was deciding; seed {seed}"
    assert unsent_at_a_kill, f"no kill left a decision that was not sent; seed {seed}"


def state(path: Path) -> ReviewState | None:
    if not path.exists():
        return None
    kept = SqliteJournal(path).reviews()
    return kept[0] if kept else None


def wait_for_a_decision(path: Path, worker: subprocess.Popen[str]) -> None:
    before = decided(path)
    end = time.monotonic() + PATIENCE
    while worker.poll() is None and decided(path) == before and time.monotonic() < end:
        time.sleep(0.01)


def decided(path: Path) -> int:
    kept = state(path)
    return 0 if kept is None else kept.decided
