"""Reviews under gevent's monkey patch, in a process of its own, against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution.testing import FaultServer
from optimove_conditional_execution.testing.campaigns import Campaign


def under_gevent(kind: str, tmp_path: Path, campaigns: int = 3) -> tuple[dict[str, Any], list[Campaign]]:
    """Run a kind of `gevent_program.py` about campaigns of 100 customers."""
    with FaultServer() as server:
        made = [server.optimove.add_campaign(100, lead_seconds=120) for _ in range(campaigns)]
        payloads = [json.dumps(campaign.payload) for campaign in made]
        arguments = [kind, server.url, server.optimove.api_key, str(tmp_path / "reviews.db"), *payloads]
        command = [sys.executable, "-m", "tests.review.gevent_program", *arguments]
        ended = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr, ended.stderr
    return json.loads(ended.stdout), made


@pytest.mark.parametrize("kind", ["submit", "run", "resume"])
def test_reviews_run_at_the_same_time(kind: str, tmp_path: Path) -> None:
    told, campaigns = under_gevent(kind, tmp_path)
    assert told["result"] == [True, True, True]
    assert [len(campaign.recipients()) for campaign in campaigns] == [100, 100, 100]
    assert told["most_at_once"] >= 2, "one after the other"
    assert told["beats"] > 10, "other greenlets were held up"


@pytest.mark.parametrize("kind", ["submit", "run", "one_by_one"])
def test_a_reviewer_runs_where_its_connections_are_and_sees_no_event_loop(kind: str, tmp_path: Path) -> None:
    told, _ = under_gevent(kind, tmp_path)
    assert told["result"] == [True, True, True]
    assert (told["threads"], told["loops"]) == (0, 0)


def test_what_a_reviewer_raises_fails_its_batch(tmp_path: Path) -> None:
    told, _ = under_gevent("raising", tmp_path, campaigns=1)
    assert told["result"] == ["1 batches failed: The reviewer raised SystemExit."]


def test_a_review_whose_greenlet_is_interrupted_stops(tmp_path: Path) -> None:
    told, (campaign,) = under_gevent("killed", tmp_path, campaigns=1)
    assert told["result"] == [0, False, True]
    assert len(campaign.recipients()) == 100
