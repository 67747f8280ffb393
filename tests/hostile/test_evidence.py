"""What the decision log says of an answer, beside what Optimove has, whatever happens to the calls."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import (
    AsyncCampaignReview,
    AsyncWebhookReceiver,
    CampaignCustomer,
    Deadline,
    Request,
    Response,
    RetryPolicy,
    WebhookNotification,
)
from optimove_conditional_execution.stores import Completion, MemoryJournal, SqliteDecisionLog
from optimove_conditional_execution.testing import Fault, FaultServer, faults

REFUSALS: list[Fault | None] = [
    faults.rate_limited(0),
    faults.answer("refused", Response(400)),
    faults.answer("missing", Response(404, {"content-type": "application/json"}, b"{}")),
]
AMBIGUOUS: list[Fault | None] = [
    faults.LOST_ANSWER,
    faults.RESET_AFTER_UPLOADING,
    faults.RESET_WHILE_UPLOADING,
    faults.CLOSE_WITHOUT_ANSWER,
    faults.HTML_502,
    faults.GARBAGE,
    replace(faults.answer("taken, then 500", Response(500)), handled=True),
    replace(faults.answer("taken, then 503", Response(503)), handled=True),
]


class Log:
    """A decision log in memory."""

    instant = True

    def __init__(self) -> None:
        self.completions: list[Completion] = []

    def append(self, entries: Sequence[Any], /) -> None:
        self.completions += [each for each in entries if isinstance(each, Completion)]


async def approve(notification: WebhookNotification, deadline: Deadline) -> bool:
    return True


@pytest.mark.parametrize("engine", ["httpx", "httpx2", "aiohttp"])
@pytest.mark.parametrize("seed", range(3))
def test_taken_is_what_optimove_has_or_unknown(engine: Any, seed: int) -> None:
    chosen = random.Random(f"{engine} {seed}")
    to_come: deque[Fault | None] = deque()
    met: list[Fault | None] = []
    log = Log()

    def meets(request: object) -> Fault | None:
        met.append(to_come.popleft() if to_come else None)
        return met[-1]

    async def go(server: FaultServer) -> None:
        retry = RetryPolicy(first_pause=0.01, longest_pause=0.05)
        async with server.async_client(engine=engine, retry=retry) as client:
            receiver = AsyncWebhookReceiver(approve, client=client, secrets=server.optimove.secrets, decision_log=log)
            for _ in range(8):
                met.clear()
                to_come.clear()
                to_come.extend(chosen.choices([None, *REFUSALS, *AMBIGUOUS], k=chosen.randint(1, 4)))
                sent = await server.optimove.anotify(receiver, timeout_ms=4_000)
                has = server.optimove.result(sent.request_uid) == "approved"
                done = log.completions[-1]
                assert done.told == "approved"
                if done.taken is None:
                    assert any(each in AMBIGUOUS for each in met), (met, done)
                else:
                    assert done.taken is has, (met, done)

    with FaultServer(meets) as server:
        asyncio.run(go(server))
    assert len(log.completions) == 8


async def every_second(customers: Sequence[CampaignCustomer], deadline: Deadline) -> list[str]:
    return [each.customer_id for each in customers if int(each.customer_id[1:]) % 2]


@pytest.mark.parametrize("engine", ["httpx", "httpx2", "aiohttp"])
@pytest.mark.parametrize("seed", range(3))
def test_taken_is_what_optimove_has_or_unknown_of_a_review_that_goes_on(engine: Any, seed: int, tmp_path: Path) -> None:
    chosen = random.Random(f"{engine} {seed}")
    met: list[Fault | None] = []
    left = 0

    def meets(request: Request) -> Fault | None:
        nonlocal left
        if request.method == "GET" or not left:
            return None
        left -= 1
        met.append(chosen.choice([None, *REFUSALS, *AMBIGUOUS]))
        return met[-1]

    async def go(server: FaultServer, log: SqliteDecisionLog) -> None:
        nonlocal left
        campaign = server.optimove.add_campaign(20, lead_seconds=60)
        journal = MemoryJournal()
        retry = RetryPolicy(attempts=2, first_pause=0.01, longest_pause=0.05)
        async with server.async_client(engine=engine, retry=retry, rate_limit=None) as client:
            review = AsyncCampaignReview(
                every_second,
                client=client,
                journal=journal,
                decision_log=log,
                chunk_size=3,
                report_denied=True,
                safety_margin=1,
            )
            for troubled in (8, 8, 0):
                left = troubled
                report = await review.run(campaign.event())
                for logged in log.decisions():
                    done = logged.completion
                    assert done is not None
                    has = campaign.statuses.get(str(logged.record.subject.customer_id))
                    if done.taken is None:
                        assert any(each in AMBIGUOUS for each in met), (met, done)
                        assert not report.complete
                    else:
                        told = logged.record.verdict == "approve" if done.taken else None
                        assert has is told, (met, logged.record.verdict, done)
        assert report.complete
        assert log.verify() is None

    with FaultServer(meets) as server, SqliteDecisionLog(tmp_path / "decisions.db") as log:
        asyncio.run(go(server, log))
