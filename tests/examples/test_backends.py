"""Gates whose decision comes from elsewhere: an HTTP service, a register that cannot keep up, and evidence of both."""

from __future__ import annotations

import asyncio
import importlib
import json
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from optimove_conditional_execution import AsyncWebhookReceiver, Outcome, Request, Response, sign
from optimove_conditional_execution.testing import FakeOptimove, FaultServer, SentNotification, faults
from tests.adapters.servers import PATIENCE, gunicorn_command, running, uvicorn_command
from tests.examples.test_examples import SECRET, asked, environment, folder

__all__ = ["environment", "folder"]


def saying(body: object, status: int = 200) -> faults.Fault:
    text = json.dumps(body).encode()
    return faults.answer("says", Response(status, {"content-type": "application/json"}, text))


PLAYERS: dict[str, tuple[faults.Fault, str]] = {
    "active": (saying({"status": "active"}), "approved"),
    "excluded": (saying({"status": "self-excluded"}), "denied"),
    "of an odd status": (saying({"status": "vip"}), "nothing"),
    "with a list": (saying({"status": ["active"]}), "nothing"),
    "with true": (saying({"status": True}), "nothing"),
    "in an array": (saying([{"status": "active"}]), "nothing"),
    "as a string": (saying("active"), "nothing"),
    "without status": (saying({"active": True}), "nothing"),
    "unknown": (saying({"status": "active"}, 404), "nothing"),
    "redirected": (faults.redirect("/players/active"), "nothing"),
    "down": (faults.unavailable(500), "nothing"),
    "in HTML": (faults.HTML_502, "nothing"),
    "cut": (faults.TRUNCATED_BODY, "nothing"),
    "reset": (faults.RESET_AFTER_UPLOADING, "nothing"),
    "hanging": (faults.HANG, "nothing"),
    "dripping": (faults.drip_body(0.1), "nothing"),
    "dripping/../active?#%41": (faults.drip_headers(0.1), "nothing"),
}
"""What the player service does when it is asked about somebody, and what Optimove must hear."""


def by_player(request: Request) -> faults.Fault | None:
    return PLAYERS[request.path.removeprefix("/players/")][0]


def heard(question: SentNotification) -> str:
    if question.answer is None:
        return "nothing"
    return "approved" if question.answer.approved else "denied"


def test_only_a_sure_answer_of_the_player_service_counts(
    folder: Path, tmp_path: Path, fake_optimove: FakeOptimove, environment: dict[str, str]
) -> None:
    questions = {player: asked(fake_optimove, player) for player in PLAYERS}

    async def post_all(url: str) -> set[int]:
        async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as http:
            answers = [
                http.post(url, content=body, headers={"optimove-signature-content": sign(body, secret=SECRET)})
                for _, body in questions.values()
            ]
            return {answer.status_code for answer in await asyncio.gather(*answers)}

    with FaultServer(by_player) as players:
        settings = {**environment, "PLAYER_SERVICE_URL": players.url}
        command = uvicorn_command("http_backend_gate:create_app")
        with running(command, log=tmp_path / "log", environment=settings, directory=folder) as server:
            # All are answered though Optimove would wait for 30 s: those that hang or drip have a bound of their own.
            assert asyncio.run(post_all(server.url)) == {200}
            printed = server.printed()
    assert {player: heard(question) for player, (question, _) in questions.items()} == {
        player: expected for player, (_, expected) in PLAYERS.items()
    }
    assert "Traceback" not in printed
    assert "/players/" not in printed


@pytest.fixture
def gate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The module of the gate that sheds load, fresh."""
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("load_shedding_gate")
    del sys.modules["load_shedding_gate"]


class Register:
    """A register that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.healthy = True
        self.answers = asyncio.Event()

    async def is_active(self, user_id: str) -> bool:
        self.asked += 1
        await self.answers.wait()
        if not self.healthy:
            raise ConnectionError
        return True


class Shed:
    """A receiver with the gate of the example, and its outcomes."""

    def __init__(self, gate: Any, optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch) -> None:
        self.register = Register()
        self.outcomes: list[Outcome] = []
        self.optimove = optimove
        monkeypatch.setattr(gate, "is_active", self.register.is_active)
        self.receiver = AsyncWebhookReceiver(
            gate.may_receive,
            client=optimove.async_client(),
            secrets="fake-secret",
            max_concurrency=100,
            on_outcome=self.outcomes.append,
        )

    def burst(self, size: int) -> list[asyncio.Task[SentNotification]]:
        ask = self.optimove.anotify
        return [asyncio.ensure_future(ask(self.receiver, f"C{n}", timeout_ms=60_000)) for n in range(size)]

    async def until_answered(self, count: int) -> Counter[str]:
        async with asyncio.timeout(PATIENCE):
            while len(self.outcomes) < count:
                await asyncio.sleep(0.005)
        return Counter(outcome.kind for outcome in self.outcomes)


def test_a_full_register_is_not_queued_for_and_a_failing_one_is_left_alone(
    gate: Any, fake_optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        shed = Shed(gate, fake_optimove, monkeypatch)
        register = shed.register
        first = shed.burst(60)
        assert await shed.until_answered(40) == {"abstained": 40}
        assert register.asked == 20
        assert not any(question.approved for question in fake_optimove.notifications.values())
        # The twenty fail: from now on nobody is asked, until the pause is over.
        register.healthy = False
        register.answers.set()
        await asyncio.gather(*first)
        assert await shed.until_answered(60) == {"abstained": 40, "failed": 20}
        gate.guard.closed_until += 3_600
        await asyncio.gather(*shed.burst(5))
        assert register.asked == 20
        # After the pause one is asked; it fails, and the next pause begins.
        gate.guard.closed_until = 0.0
        await asyncio.gather(*shed.burst(1), return_exceptions=True)
        assert register.asked == 21
        assert gate.guard.refuses()
        # It is well again.
        gate.guard.closed_until = 0.0
        register.healthy = True
        (question,) = await asyncio.gather(*shed.burst(1))
        assert question.approved
        assert gate.guard.failed == gate.guard.busy == 0

    asyncio.run(play())


def test_a_call_that_is_too_slow_counts_as_a_failure(
    gate: Any, fake_optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        shed = Shed(gate, fake_optimove, monkeypatch)
        late = [fake_optimove.anotify(shed.receiver, f"C{n}", timeout_ms=1_000) for n in range(gate.guard.failures)]
        await asyncio.gather(*late)
        assert {outcome.kind for outcome in shed.outcomes} == {"late"}
        assert gate.guard.refuses()

    asyncio.run(play())


def test_without_a_guard_the_receiver_refuses_at_once_what_it_has_no_handler_for(
    gate: Any, fake_optimove: FakeOptimove, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        monkeypatch.setattr(gate.guard, "places", 1_000)
        shed = Shed(gate, fake_optimove, monkeypatch)
        asked = shed.burst(105)
        assert await shed.until_answered(5) == {"overloaded": 5}
        assert {outcome.status for outcome in shed.outcomes} == {503}
        shed.register.answers.set()
        await asyncio.gather(*asked)
        assert Counter(outcome.kind for outcome in shed.outcomes) == {"overloaded": 5, "approved": 100}

    asyncio.run(play())


def test_evidence_is_sent_along_and_written_down_without_personal_data(
    folder: Path, tmp_path: Path, fake_optimove: FakeOptimove, environment: dict[str, str]
) -> None:
    players = {"C234638": "approved", "C100001": "denied", "C999999": "denied"}
    questions = {player: asked(fake_optimove, player) for player in players}
    visitor, visitor_body = asked(fake_optimove, "C234638", is_visitor=True)
    command = gunicorn_command("evidence_gate:create_app()")
    settings = {**environment, "EVIDENCE_DB": str(tmp_path / "evidence.db")}
    with (
        running(command, log=tmp_path / "log", environment=settings, directory=folder) as server,
        httpx.Client(timeout=PATIENCE, trust_env=False) as http,
    ):
        for body in [*(body for _, body in questions.values()), visitor_body]:
            headers = {"optimove-signature-content": sign(body, secret=SECRET)}
            assert http.post(server.url, content=body, headers=headers).status_code == 200
        assert http.post(server.url, content=b"{}", headers={"optimove-signature-content": "00"}).status_code == 401
    with closing(sqlite3.connect(tmp_path / "evidence.db")) as book:
        book.row_factory = sqlite3.Row
        rows = {row["request_uid"]: dict(row) for row in book.execute("SELECT * FROM evidence")}
    assert len(rows) == 5
    for player, (question, _) in questions.items():
        assert question.answer is not None
        sent = question.answer.additional_data
        row = rows[question.request_uid]
        assert row["outcome"] == players[player] == heard(question)
        assert set(sent) == {"decision_id", "rule", "rule_version", "register_version"}
        assert all(sent.values())
        assert {name: row[name] for name in sent} == sent
    assert len({row["decision_id"] for row in rows.values() if row["decision_id"]}) == 3
    assert (rows[visitor.request_uid]["outcome"], rows[visitor.request_uid]["decision_id"]) == ("abstained", None)
    assert rows[None]["outcome"] == "forged"
    written = (tmp_path / "evidence.db").read_bytes()
    for word in (*players, "self-excluded", "unknown player", "Dana"):
        assert word.encode() not in written
        assert all(word not in json.dumps(question.answer.additional_data) for question, _ in questions.values())  # type: ignore[union-attr]
