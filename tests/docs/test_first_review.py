"""The tutorial's review, as its reader runs it: under uvicorn, killed in the middle, and started again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx

from optimove_conditional_execution.stores import SqliteJournal
from optimove_conditional_execution.testing import FakeOptimove
from tests.adapters.servers import PATIENCE, Running, running, uvicorn_command
from tests.docs.pages import DOCS, blocks

PAGE = DOCS / "tutorial" / "first-review.md"
CUSTOMERS = 16_000
ACTIVE = CUSTOMERS - CUSTOMERS // 10


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def test_a_review_that_is_killed_goes_on(fake_optimove: FakeOptimove, optimove_url: str, tmp_path: Path) -> None:
    (listener,) = [block for block in blocks(PAGE) if block.title == "listener.py"]
    (tmp_path / "listener.py").write_text(listener.code)
    environment = {
        "OPTIMOVE_API_KEY": fake_optimove.api_key,
        "OPTIMOVE_BASE_URL": optimove_url,
        "OPTIMOVE_TIMEZONE": "UTC",
        "OPTIMOVE_LISTENER_TOKEN": "a-long-random-token",
    }
    campaign = fake_optimove.add_campaign(CUSTOMERS, lead_seconds=300)

    def service(log: str) -> AbstractContextManager[Running]:
        command = uvicorn_command("listener:create_app")
        return running(command, log=tmp_path / log, environment=environment, directory=tmp_path)

    with service("first") as killed:
        with httpx.Client(timeout=PATIENCE, trust_env=False) as http:
            url, body = f"{killed.url}/listener", json.dumps(campaign.payload)
            assert http.post(url, params={"token": "another"}, content=body).status_code == 401
            assert http.post(url, params={"token": "a-long-random-token"}, content=body).status_code == 200
        with SqliteJournal(tmp_path / "reviews.db") as journal:
            until(lambda: journal.reviews()[0].decided > 0, killed.printed())
        os.kill(killed.pid, signal.SIGKILL)
    with SqliteJournal(tmp_path / "reviews.db") as journal:
        assert 0 < journal.reviews()[0].decided < CUSTOMERS, "it was killed in the middle"
    with service("second") as again:
        until(lambda: ": complete, " in again.printed(), again.printed())
        assert f"campaign {campaign.campaign_id}: complete, approved={ACTIVE} denied={CUSTOMERS - ACTIVE} " in (
            again.printed()
        )
    recipients = campaign.recipients()
    assert len(recipients) == ACTIVE
    assert not [customer_id for customer_id in recipients if customer_id.endswith("7")]
    assert not campaign.contradictions
    assert not campaign.late
