"""The examples of scheduled campaigns, run as a user would run them, with Optimove's stand-in over HTTP."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from optimove_conditional_execution.stores import SqliteDecisionLog, SqliteJournal
from optimove_conditional_execution.testing import Campaign, FakeOptimove
from tests.adapters.servers import PATIENCE, gunicorn_command, running, uvicorn_command
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


def waited(condition: Callable[[], bool], what: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.02)


ACTIVATION = gunicorn_command("promo_activation:create_app()")


class TestPromotions:
    def activated(self, settings: dict[str, str]) -> list[tuple[int, str, str]]:
        """Return each row that was ever inserted, as a trigger has noted it."""
        with closing(sqlite3.connect(settings["PROMOTIONS_DB"])) as promotions:
            return promotions.execute("SELECT campaign, customer, code FROM noted").fetchall()

    @pytest.fixture
    def database(self, settings: dict[str, str]) -> None:
        columns = "campaign INTEGER NOT NULL, customer TEXT NOT NULL, code TEXT NOT NULL"
        with closing(sqlite3.connect(settings["PROMOTIONS_DB"])) as promotions:
            promotions.executescript(
                f"CREATE TABLE bonuses ({columns}, PRIMARY KEY (campaign, customer, code));"
                f"CREATE TABLE noted ({columns});"
                "CREATE TRIGGER note AFTER INSERT ON bonuses BEGIN"
                " INSERT INTO noted VALUES (new.campaign, new.customer, new.code); END;"
            )

    @pytest.mark.usefixtures("database")
    def test_once_for_each_campaign_and_customer(
        self, folder: Path, tmp_path: Path, settings: dict[str, str], fake_optimove: FakeOptimove
    ) -> None:
        rows = [
            {"CustomerID": f"C{number}", "PromoCode": "WB23, NV10" if number % 2 else "", "ActionID": 19}
            for number in range(3_000)
        ]
        control = [{"CustomerID": "control", "PromoCode": "WB23", "ActionID": 1}]
        first = fake_optimove.add_campaign([*rows, *control], channels=2)
        second = fake_optimove.add_campaign(rows[:100])
        with running(ACTIVATION, log=tmp_path / "log", environment=settings, directory=folder) as server:
            with httpx.Client(timeout=PATIENCE, trust_env=False) as http:
                for campaign in (first, first, second):
                    body = json.dumps(campaign.payload)
                    url = f"{server.url}/listener?token=a-long-random-token"
                    assert http.post(url, content=body).status_code == 200
            waited(lambda: len(first.recipients()) + len(second.recipients()) == 1_550, server.printed)
            assert "Traceback" not in server.printed()
        assert set(first.recipients()) == {f"C{number}" for number in range(1, 3_000, 2)}
        assert set(second.recipients()) == {f"C{number}" for number in range(1, 100, 2)}
        assert not first.twice
        noted = self.activated(settings)
        assert len(noted) == len(set(noted)) == 2 * 1_550

    @pytest.mark.usefixtures("database")
    def test_a_crash_between_activation_and_report(
        self, folder: Path, tmp_path: Path, settings: dict[str, str], fake_optimove: FakeOptimove
    ) -> None:
        campaign = fake_optimove.add_campaign(2_500)
        SqliteJournal(folder / "reviews.db").add(campaign.event())
        program = (
            "import os, signal, time, promo_activation\n"
            "activate = promo_activation.activate\n"
            "def crash(*arguments):\n"
            "    activate(*arguments)\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
            "promo_activation.activate = crash\n"
            "promo_activation.create_app()\n"
            "time.sleep(60)\n"
        )
        crashed = subprocess.run(
            [sys.executable, "-c", program], cwd=folder, env={**os.environ, **settings}, timeout=PATIENCE
        )
        assert crashed.returncode == -signal.SIGKILL
        assert len(self.activated(settings)) == 1_000
        assert not campaign.statuses
        with running(ACTIVATION, log=tmp_path / "log", environment=settings, directory=folder) as server:
            waited(lambda: len(campaign.recipients()) == 2_500, server.printed)
        noted = self.activated(settings)
        assert len(noted) == len(set(noted)) == 2_500
        assert not campaign.twice

    @pytest.mark.usefixtures("database")
    def test_what_is_not_committed_is_not_approved(
        self, folder: Path, tmp_path: Path, settings: dict[str, str], fake_optimove: FakeOptimove
    ) -> None:
        campaign = fake_optimove.add_campaign(2_500)
        with closing(sqlite3.connect(settings["PROMOTIONS_DB"])) as promotions:
            # The database refuses one customer, and with it the batch of a thousand that holds them.
            promotions.executescript(
                "CREATE TRIGGER refuse BEFORE INSERT ON bonuses WHEN new.customer = 'C0001500'"
                " BEGIN SELECT RAISE(ABORT, 'no bonus'); END;"
            )
        SqliteJournal(folder / "reviews.db").add(campaign.event())
        with running(ACTIVATION, log=tmp_path / "log", environment=settings, directory=folder) as server:
            waited(lambda: len(campaign.statuses) == 1_500, server.printed)
        with closing(sqlite3.connect(settings["PROMOTIONS_DB"])) as promotions:
            has = {customer for (customer,) in promotions.execute("SELECT customer FROM bonuses")}
        assert set(campaign.recipients()) == has
        assert has == {f"C{number:07d}" for number in (*range(1, 1_001), *range(2_001, 2_501))}


def test_only_compliant_players_are_approved(
    folder: Path, settings: dict[str, str], fake_optimove: FakeOptimove
) -> None:
    players = {
        "good": ["25.5", "GB"],
        "poor": ["5", "GB"],
        "excluded": ["25", "GB"],
        "abroad": ["25", "US"],
        "unreadable": ["much", "GB"],
        "unknown": [],
    }
    rows = [{"CustomerID": name, "CustomerAttributes": values} for name, values in players.items()]
    campaign = fake_optimove.add_campaign(rows)
    event = event_file(folder, campaign)
    status, printed = ran(folder, settings, "compliance_review.py", event)
    assert (status, printed.splitlines()[0]) == (0, "approved 1, denied 5, failed 0")
    assert printed.splitlines()[1:] == ["deposits: 1", "deposits: failed: 2", "licence: 1", "self_exclusion: 1"]
    assert campaign.recipients() == ["good"]
    (call, *_) = fake_optimove.calls_of("get_processed_campaign_customers")
    assert "CustomerAttributes=TotalDeposits%3BCountry" in call.request.query
    with SqliteDecisionLog(folder / f"{Path(event).stem}.decisions.db") as log:
        (excluded,) = (logged.record for logged in log.decisions(customer_id="excluded"))
        assert (excluded.verdict, excluded.evidence["checks"]["self_exclusion"]["reference"]) == ("deny", "R-excluded")
        assert log.verify() is None


def test_a_listener_reviews_in_the_background(
    folder: Path, tmp_path: Path, settings: dict[str, str], fake_optimove: FakeOptimove
) -> None:
    left, fresh = fake_optimove.add_campaign(100), fake_optimove.add_campaign(2_500)
    SqliteJournal(folder / "reviews.db").add(left.event())
    command = uvicorn_command("fastapi_listener:create_app")
    with running(command, log=tmp_path / "log", environment=settings, directory=folder) as server:
        url = f"{server.url}/listener"
        body = json.dumps(fresh.payload)
        with httpx.Client(timeout=PATIENCE, trust_env=False) as http:
            assert http.post(url, params={"token": "another"}, content=body).status_code == 401
            for _ in range(2):
                assert http.post(url, params={"token": "a-long-random-token"}, content=body).status_code == 200
        end = time.monotonic() + PATIENCE
        while len(fresh.recipients()) < 2_499 or len(left.recipients()) < 99:
            assert time.monotonic() < end, server.printed()
            time.sleep(0.02)
        assert "Traceback" not in server.printed()
    assert "C0000002" not in {*fresh.recipients(), *left.recipients()}
    assert not fresh.twice


def test_what_is_left_is_resumed(folder: Path, settings: dict[str, str], fake_optimove: FakeOptimove) -> None:
    campaign = fake_optimove.add_campaign(1_000)
    SqliteJournal(folder / "left.db").add(campaign.event())
    expected = f"campaign {campaign.campaign_id}: approved 999, complete"
    assert ran(folder, settings, "resume_reviews.py", "left.db") == (0, expected)
    assert len(campaign.recipients()) == 999
    assert ran(folder, settings, "resume_reviews.py", "left.db") == (0, "")
