"""The examples of scheduled campaigns, run as a user would run them, with Optimove's stand-in over HTTP."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from optimove_conditional_execution.stores import SqliteJournal
from optimove_conditional_execution.testing import Campaign, FakeOptimove
from tests.adapters.servers import PATIENCE, running, uvicorn_command
from tests.examples.test_examples import environment, folder

__all__ = ["environment", "folder"]


@pytest.fixture
def settings(environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The variables that a review reads."""
    mine = {
        "OPTIMOVE_TIMEZONE": "UTC",
        "OPTIMOVE_LISTENER_TOKEN": "a-long-random-token",
        "PROMOTIONS_DB": str(tmp_path / "promotions.db"),
    }
    return {**environment, **mine}


def ran(folder: Path, settings: dict[str, str], *command: str) -> tuple[int, str]:
    """Run a script in the copied folder; return its exit status and what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=folder,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    return done.returncode, done.stdout.strip()


def event_file(folder: Path, campaign: Campaign) -> str:
    (folder / "event.json").write_text(json.dumps(campaign.payload))
    return "event.json"


def test_promotions_are_activated_once(folder: Path, settings: dict[str, str], fake_optimove: FakeOptimove) -> None:
    rows = [{"CustomerID": f"C{number}", "PromoCode": "WB23, NV10" if number % 2 else ""} for number in range(3_000)]
    campaign = fake_optimove.add_campaign(rows, channels=2)
    status, printed = ran(folder, settings, "promo_activation.py", event_file(folder, campaign))
    assert status == 0, printed
    assert printed.startswith("approved 1500 of 3000, ")
    assert set(campaign.recipients()) == {f"C{number}" for number in range(1, 3_000, 2)}
    assert not campaign.twice
    with closing(sqlite3.connect(settings["PROMOTIONS_DB"])) as promotions:
        assert promotions.execute("SELECT count(*), count(DISTINCT customer) FROM bonuses").fetchone() == (3_000, 1_500)


def test_only_compliant_players_are_approved(
    folder: Path, settings: dict[str, str], fake_optimove: FakeOptimove
) -> None:
    players = {
        "good": ["25.5", "active", "GB"],
        "poor": ["5", "active", "GB"],
        "excluded": ["25", "self-excluded", "GB"],
        "abroad": ["25", "active", "US"],
        "unreadable": ["much", "active", "GB"],
        "unknown": [],
    }
    rows = [{"CustomerID": name, "CustomerAttributes": values} for name, values in players.items()]
    campaign = fake_optimove.add_campaign(rows)
    status, printed = ran(folder, settings, "compliance_review.py", event_file(folder, campaign))
    assert (status, printed) == (1, "approved 1, denied 3, failed 2")
    assert campaign.recipients() == ["good"]
    (call, *_) = fake_optimove.calls_of("get_processed_campaign_customers")
    assert "CustomerAttributes=TotalDeposits%3BAccountStatus%3BCountry" in call.request.query


def test_a_listener_reviews_in_the_background(
    folder: Path, tmp_path: Path, settings: dict[str, str], fake_optimove: FakeOptimove
) -> None:
    left, fresh = fake_optimove.add_campaign(100), fake_optimove.add_campaign(25_000)
    SqliteJournal(folder / "reviews.db").keep(left.event())
    command = uvicorn_command("fastapi_listener:create_app")
    with running(command, log=tmp_path / "log", environment=settings, directory=folder) as server:
        url = f"{server.url}/listener"
        body = json.dumps(fresh.payload)
        with httpx.Client(timeout=PATIENCE, trust_env=False) as http:
            assert http.post(url, params={"token": "another"}, content=body).status_code == 401
            for _ in range(2):
                assert http.post(url, params={"token": "a-long-random-token"}, content=body).status_code == 200
        end = time.monotonic() + PATIENCE
        while len(fresh.recipients()) < 24_999 or len(left.recipients()) < 99:
            assert time.monotonic() < end, server.printed()
            time.sleep(0.02)
        assert "Traceback" not in server.printed()
    assert "C0000002" not in {*fresh.recipients(), *left.recipients()}
    assert not fresh.twice


def test_what_is_left_is_resumed(folder: Path, settings: dict[str, str], fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(1_000)
    SqliteJournal(folder / "left.db").keep(campaign.event())
    expected = f"campaign {campaign.campaign_id}: approved 999, complete"
    assert ran(folder, settings, "resume_reviews.py", "left.db") == (0, expected)
    assert len(campaign.recipients()) == 999
    assert ran(folder, settings, "resume_reviews.py", "left.db") == (0, "")
