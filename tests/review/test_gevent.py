"""Reviews under gevent's monkey patch, in a process of its own, against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from optimove_conditional_execution.testing import FaultServer
from optimove_conditional_execution.testing.campaigns import Campaign

CAMPAIGNS = {"submit": 3, "run": 3, "resume": 3, "one_by_one": 3, "raising": 1, "killed": 1}

Told = dict[str, tuple[dict[str, Any], list[Campaign]]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Run every kind of `gevent_program.py`, in one process, about campaigns of 100 customers."""
    with FaultServer() as server:
        made = {
            kind: [server.optimove.add_campaign(100, lead_seconds=120) for _ in range(count)]
            for kind, count in CAMPAIGNS.items()
        }
        plan = {kind: [json.dumps(campaign.payload) for campaign in campaigns] for kind, campaigns in made.items()}
        folder = str(tmp_path_factory.mktemp("gevent"))
        arguments = [server.url, server.optimove.api_key, folder, json.dumps(plan)]
        ended = subprocess.run(
            [sys.executable, "-m", "tests.review.gevent_program", *arguments],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    results = json.loads(ended.stdout)
    return {kind: (results[kind], campaigns) for kind, campaigns in made.items()}


@pytest.mark.parametrize("kind", ["submit", "run", "resume"])
def test_reviews_run_at_the_same_time(kind: str, told: Told) -> None:
    seen, campaigns = told[kind]
    assert seen["result"] == [True, True, True]
    assert [len(campaign.recipients()) for campaign in campaigns] == [100, 100, 100]
    assert seen["most_at_once"] >= 2, "one after the other"
    assert seen["beats"] > 10, "other greenlets were held up"


@pytest.mark.parametrize("kind", ["submit", "run", "one_by_one"])
def test_a_reviewer_runs_where_its_connections_are_and_sees_no_event_loop(kind: str, told: Told) -> None:
    seen, _ = told[kind]
    assert seen["result"] == [True, True, True]
    assert (seen["threads"], seen["loops"]) == (0, 0)


def test_what_a_reviewer_raises_fails_its_batch(told: Told) -> None:
    assert told["raising"][0]["result"] == ["1 batches failed: The reviewer raised SystemExit."]


def test_a_review_whose_greenlet_is_interrupted_stops(told: Told) -> None:
    seen, (campaign,) = told["killed"]
    assert seen["result"] == [0, False, True]
    assert len(campaign.recipients()) == 100


ALONE = """
from gevent import monkey
monkey.patch_all()
from optimove_conditional_execution import CampaignReview
from optimove_conditional_execution.testing import FakeOptimove

fake = FakeOptimove()
campaign = fake.add_campaign(4)
with fake.client() as client:
    report = CampaignReview(lambda customers, deadline: [each.customer_id for each in customers], client=client).run(
        campaign.event()
    )
print(report.complete, len(campaign.statuses))
"""


def test_a_review_in_a_process_without_any_other_greenlet() -> None:
    ended = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "True 4\n"), ended.stderr
