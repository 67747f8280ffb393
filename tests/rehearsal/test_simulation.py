"""The endless simulation."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from optimove_conditional_execution.rehearsal import Observation, triggered
from optimove_conditional_execution.rehearsal.triggered import Simulation


def test_it_forgets_what_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggered, "_KEPT", 5)
    monkeypatch.setattr(triggered, "_GRACE_SECONDS", 0.0)
    results: list[Observation] = []

    endless = Simulation(
        rate=1_000, count=20, timeout_ms=1, webhooks=["http://127.0.0.1:9/x"], on_result=results.append
    )
    asyncio.run(endless.run())
    assert endless.as_json()["unanswered"] == 20
    assert len(results) == 20
    assert len({result.planned.user_id for result in results}) == 20
    assert len(endless._fake.notifications) == 5


def test_what_was_missed_is_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(round(seconds, 3))
        now[0] += seconds

    async def run() -> None:
        monkeypatch.setattr("time.monotonic", lambda: now[0])
        monkeypatch.setattr("asyncio.sleep", sleep)
        async with contextlib.aclosing(triggered._paced(10)) as pace:
            for _ in range(3):
                await anext(pace)
            now[0] += 3_600  # the machine slept
            for _ in range(13):
                await anext(pace)
        monkeypatch.undo()

    asyncio.run(run())
    assert waited[:3] == [0.0, 0.1, 0.1]
    assert waited[3:].count(0.0) <= 12, "a second of them at most, of an hour"
    assert waited[-1] == 0.1
