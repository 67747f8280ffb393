"""The kill switch of receivers: looked at for each decision, once a second at most; without it nobody is approved."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import (
    ConfigurationError,
    Deadline,
    Decision,
    Response,
    WebhookNotification,
    WebhookReceiver,
)
from optimove_conditional_execution.drivers import arun, run
from optimove_conditional_execution.flows import switch as flow
from optimove_conditional_execution.flows.controls import Controls
from optimove_conditional_execution.flows.effects import Late
from optimove_conditional_execution.stores import MemoryClaims, SqliteDecisionLog
from optimove_conditional_execution.switch import SwitchState, change_switch, read_switch
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request
from tests.receivers.conftest import MakeRig, Rig
from tests.receivers.test_leases import Clock, Replica, Store, the_send

pytestmark = pytest.mark.usefixtures("patient_switch")

SERIES = str(notification()["occurrence"]["series_id"])
TAG = notification()["occurrence"]["tags"][0]


class Gate:
    """A handler that approves, and counts how often it is asked."""

    def __init__(self, answer: Any = True) -> None:
        self.asked = 0
        self.answer = answer
        self.then: Callable[[], object] = lambda: None

    def __call__(self, notification: WebhookNotification, deadline: Deadline) -> Any:
        self.asked += 1
        self.then()
        return self.answer


@pytest.fixture(autouse=True)
def looked_at_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LOOK_SECONDS", 0.0)


def thrown(rig: MakeRig, says: object, **options: Any) -> tuple[Rig, Gate]:
    def switch() -> object:
        if isinstance(says, BaseException):
            raise says
        return says

    gate = Gate(options.pop("answer", True))
    return rig(gate, switch=switch, **options), gate


# ---- what it says


@pytest.mark.parametrize(
    ("says", "kind"),
    [
        ("ask", "approved"),
        ("deny", "denied"),
        ("abstain", "abstained"),
        (SwitchState(everything="deny"), "denied"),
        (f"deny campaign {SERIES}", "denied"),
        ("deny campaign 1", "approved"),
        (f"abstain tag {TAG.upper()}", "abstained"),
        ("deny tag Another", "approved"),
        (f"ask\nabstain tag {TAG}\ndeny campaign {SERIES}", "denied"),
        ("abstain\nask campaign " + SERIES, "abstained"),
        ("# who, and why\n\n  DENY All \n", "denied"),
    ],
)
def test_what_it_says_is_done(rig: MakeRig, says: object, kind: str) -> None:
    made, gate = thrown(rig, says)
    question = made.notify()
    assert (made.outcome.kind, question.responses[0].status) == (kind, 200)
    assert gate.asked == (1 if kind == "approved" else 0)
    sent = {"approved": [True], "denied": [False], "abstained": []}[kind]
    assert [each["approved"] for each in made.approvals()] == sent
    if kind != "approved":
        assert made.outcome.switch == {"denied": "deny", "abstained": "abstain"}[kind]
        assert made.outcome.decision is not None
        assert str(made.outcome.decision.reason).startswith("The switch says: ")
    else:
        assert made.outcome.switch is None


def test_a_campaign_that_is_not_known_counts_as_stopped(rig: MakeRig) -> None:
    made, gate = thrown(rig, "deny campaign 1\nabstain tag Another")
    payload = notification()
    payload["occurrence"] = None
    made.optimove.expect(payload)
    made.send(payload)
    assert (made.outcome.kind, gate.asked) == ("denied", 0)
    assert made.outcome.decision is not None
    assert made.outcome.decision.reason == "The switch says: deny campaign 1, and this is not known here."


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ([{"name": "Summer bonus"}], "denied"),
        (["another", ["Summer bonus"]], "denied"),
        (["another", None], "denied"),
        ([1.5], "denied"),
        ("Summer bonus", "denied"),
        (..., "denied"),
        ([], "approved"),
        (None, "approved"),
        (["another", 7], "approved"),
    ],
)
def test_tags_that_cannot_be_read_count_as_stopped(rig: MakeRig, tags: object, kind: str) -> None:
    made, _ = thrown(rig, "deny tag Summer bonus")
    payload = notification()
    payload["occurrence"]["tags"] = tags
    if tags is ...:
        del payload["occurrence"]["tags"]
    made.optimove.expect(payload)
    made.send(payload)
    assert made.outcome.kind == kind


# ---- it fails closed


def changed_to(mode: Any) -> SwitchState:
    """Return a state whose mapping was changed after it had been checked."""
    modes: dict[str, Any] = {}
    state = SwitchState(campaigns=modes)
    modes["29"] = mode
    return state


@pytest.mark.parametrize(
    "says",
    [
        RuntimeError("personal data"), SystemExit(3), None, True, "", "approve", "ask\nreally?", "deny campaign",
        "deny all 29", b"ask", {"everything": "ask"}, changed_to("stop"), changed_to(None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("on_failure", ["abstain", "deny"])
def test_one_that_fails_approves_nobody(rig: MakeRig, says: object, on_failure: str) -> None:
    made, gate = thrown(rig, says, on_failure=on_failure)
    question = made.notify()
    assert (made.outcome.kind, made.outcome.switch, question.responses[0].status) == ("failed", "failed", 200)
    assert gate.asked == 0
    assert [each["approved"] for each in made.approvals()] == ([] if on_failure == "abstain" else [False])
    assert str(made.outcome.error).startswith("The switch failed: ")
    assert "personal" not in str(made.outcome.error)


def test_a_missing_file_approves_nobody_and_one_that_comes_back_is_read(rig: MakeRig, tmp_path: Path) -> None:
    path = tmp_path / "switch"
    made = rig(Gate(), switch=path)
    made.notify("C1")
    path.write_text("ask\n")
    made.notify("C2")
    path.write_text("\n")  # as an editor leaves it for a moment
    made.notify("C3")
    assert [each.kind for each in made.outcomes] == ["failed", "approved", "failed"]
    assert str(made.outcomes[0].error).startswith("The switch failed: FileNotFoundError")
    assert "says nothing" in str(made.outcomes[2].error)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"ask\n" * 20_000])
def test_a_file_of_another_kind_approves_nobody(rig: MakeRig, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "switch"
    path.write_bytes(content)
    made = rig(Gate(), switch=str(path))
    made.notify()
    assert made.outcome.kind == "failed"


def test_one_that_hangs_is_bounded_and_occupies_one_thread(
    rig: MakeRig, monkeypatch: pytest.MonkeyPatch, patient_switch: float
) -> None:
    monkeypatch.setattr(flow, "_ANSWER_SECONDS", patient_switch)
    over = threading.Event()
    calls: list[int] = []

    def switch() -> str:
        calls.append(1)
        over.wait(60)
        return "ask"

    made = rig(Gate(), switch=switch)
    took: list[float] = []
    for customer in ("C1", "C2"):
        began = time.monotonic()
        made.notify(customer, timeout_ms=60_000)
        took.append(time.monotonic() - began)
    assert max(took) < 15
    assert min(took) < 5, "half a second, and what a busy machine takes"
    assert [each.kind for each in made.outcomes] == ["failed", "failed"]
    assert made.outcomes[0].error == "The switch did not answer in time"
    assert len(calls) == 1
    over.set()
    left = Deadline.after(60)
    while made.outcomes[-1].kind != "approved" and not left.expired:  # its thread is free again soon
        made.notify(f"C{len(made.outcomes)}")
    assert made.outcomes[-1].kind == "approved"


# ---- when it is thrown late


def test_one_that_is_thrown_while_the_handler_runs_stops_its_approval(rig: MakeRig, tmp_path: Path) -> None:
    path = tmp_path / "switch"
    change_switch(path, "ask")
    gate = Gate()
    gate.then = lambda: change_switch(path, "deny")
    made = rig(gate, switch=path)
    made.notify()
    assert (made.outcome.kind, gate.asked) == ("denied", 1)
    assert [each["approved"] for each in made.approvals()] == [False]


def test_a_denial_of_the_handler_stands(rig: MakeRig, tmp_path: Path) -> None:
    path = tmp_path / "switch"
    change_switch(path, "ask")
    gate = Gate(Decision.deny("excluded"))
    gate.then = lambda: change_switch(path, "abstain")
    made = rig(gate, switch=path)
    made.notify()
    assert made.outcome.decision == Decision.deny("excluded")
    assert made.outcome.switch is None


def test_an_approval_of_an_earlier_delivery_is_held_back_and_goes_out_when_it_says_ask_again(
    rig: MakeRig, tmp_path: Path
) -> None:
    path = tmp_path / "switch"
    change_switch(path, "ask")
    gate, claims = Gate(), MemoryClaims()
    made = rig(gate, switch=path, claims=claims)
    payload = notification()
    made.optimove.answer_next(Response(400, {}, b"{}"))
    made.optimove.expect(payload)
    assert made.send(payload).status == 503
    sent = len(made.approvals())
    change_switch(path, "deny")
    assert made.send(payload).status == 503
    assert (made.outcomes[-1].kind, made.outcomes[-1].switch) == ("undelivered", "deny")
    assert made.outcomes[-1].error == "Held back: The switch says: deny."
    assert len(made.approvals()) == sent
    change_switch(path, "ask")
    assert made.send(payload).status == 200
    assert made.outcomes[-1].kind == "approved"
    # Optimove has never been told two things.
    assert {each["approved"] for each in made.approvals()} == {True}
    assert gate.asked == 1


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (Response(503), "deny"),
        (Response(503), "abstain"),
        (Response(503), RuntimeError("personal data")),
        (Response(429), "deny"),
    ],
)
def test_an_approval_that_is_retried_is_held_back_before_the_next_request(
    rig: MakeRig, tmp_path: Path, first: Response, says: object
) -> None:
    said: list[object] = ["ask"]

    def switch() -> object:
        if made.approvals() and isinstance(said[-1], BaseException):
            raise said[-1]
        return said[-1] if made.approvals() else "ask"

    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        made = rig(Gate(), switch=switch, claims=MemoryClaims(), decision_log=log)
        said.append(says)
        payload = notification(timeout_ms=60_000)
        made.optimove.expect(payload)
        made.optimove.answer_next(*[first] * 5)
        assert made.send(payload).status == 503
        assert [each["approved"] for each in made.approvals()] == [True]
        assert made.outcome.kind == "undelivered"
        assert made.outcome.switch == (says if isinstance(says, str) else "failed")
        error = str(made.outcome.error)
        assert error.startswith(f"Held back: The switch says: {says}." if isinstance(says, str) else "Held back: The ")
        # A 429 was refused, so it is certain that nothing was taken; of a 503 it is not.
        assert ("An earlier request may have reached Optimove: unknown." in error) == (first.status == 503)
        (logged,) = log.decisions()
        assert logged.completion is not None
        assert (logged.completion.kind, logged.completion.error) == ("undelivered", error)
        assert (logged.completion.told, logged.completion.taken) == (
            ("approved", None) if first.status == 503 else ("nothing", None)
        )
        said.append("ask")
        made.optimove._planned.clear()
        assert made.send(payload).status == 200
    assert made.outcomes[-1].kind == "approved"
    assert [each["approved"] for each in made.approvals()] == [True, True]


def test_a_denial_is_retried_whatever_it_says(rig: MakeRig) -> None:
    def switch() -> str:
        return "abstain" if made.approvals() else "ask"

    made = rig(Gate(False), switch=switch)
    payload = notification(timeout_ms=60_000)
    made.optimove.expect(payload)
    made.optimove.answer_next(Response(503))
    assert made.send(payload).status == 200
    assert [each["approved"] for each in made.approvals()] == [False, False]


# ---- recorded, and said


def test_in_the_log_of_decisions(rig: MakeRig, tmp_path: Path) -> None:
    with SqliteDecisionLog(tmp_path / "decisions.db") as log:
        made, _ = thrown(rig, "deny", decision_log=log)
        made.notify("C1")
        (logged,) = log.decisions(customer_id="C1")
    assert (logged.record.kind, logged.record.verdict) == ("denied", "deny")
    assert logged.record.reason == "The switch says: deny."


def test_a_warning_when_it_changes(rig: MakeRig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "switch"
    made = rig(Gate(), switch=path)
    caplog.set_level(logging.INFO, "optimove_conditional_execution.switch")
    for number, text in enumerate(["ask", "ask", "deny", "deny", "abstain campaign 29", "no", "ask"]):
        path.write_text(text)
        made.notify(f"C{number}")
    told = [record for record in caplog.records if record.name.endswith(".switch")]
    assert {record.levelno for record in told} == {logging.WARNING}
    assert [record.getMessage() for record in told] == [
        "the switch says deny",
        "the switch says ask; abstain campaign 29",
        "the switch says nothing, so nobody is approved: The switch failed: ConfigurationError: Line 1 of the switch "
        "is invalid: it must be MODE, MODE campaign ID or MODE tag TAG, with ask, deny or abstain as MODE.",
        "the switch says ask",
    ]


def test_it_is_looked_at_once_a_second_at_most(rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LOOK_SECONDS", 0.3)
    looks: list[int] = []

    def switch() -> str:
        looks.append(1)
        return "ask"

    made = rig(Gate(), switch=switch)
    began = time.monotonic()
    while len(looks) < 2:
        made.notify(f"C{len(made.outcomes)}")
        time.sleep(0.02)
    assert time.monotonic() - began >= 0.3
    for number in range(3):
        made.notify(f"D{number}")
    assert len(looks) <= 1 + (time.monotonic() - began) / 0.3


# ---- how it is set up


def test_a_coroutine_function(rig: MakeRig, kind: str) -> None:
    said = "deny"

    async def switch() -> str:
        return said

    if kind == "sync":
        with pytest.raises(ConfigurationError, match="switch must be a plain function here"):
            rig(Gate(), switch=switch)
        # Behind a lambda it cannot be told: nobody is approved.
        made = rig(Gate(), switch=lambda: switch())
        made.notify()
        assert made.outcome.kind == "failed"
        return
    made = rig(Gate(), switch=switch)
    made.notify("C1")
    said = "ask"
    made.notify("C2")
    assert [each.kind for each in made.outcomes] == ["denied", "approved"]
    made = rig(Gate(), switch=lambda: switch())
    made.notify()
    assert made.outcome.kind == "approved"


@pytest.mark.parametrize("switch", [3, lambda campaign: "ask"])
def test_what_is_no_switch_is_refused(rig: MakeRig, switch: Any) -> None:
    with pytest.raises(ConfigurationError, match="switch must"):
        rig(Gate(), switch=switch)


# ---- the file


@pytest.mark.parametrize("takes", [True, False])
def test_a_client_of_ones_own_must_take_what_stops_retries(takes: bool) -> None:
    optimove = FakeOptimove()
    inner = optimove.client()

    class Mine:
        def send(self, operation: Any, *, deadline: Any = None, counter: Any = None) -> Any:
            return inner.send(operation, deadline=deadline, counter=counter)

    class Knowing(Mine):
        def send(self, operation: Any, **options: Any) -> Any:
            return inner.send(operation, **options)

    client: Any = Knowing() if takes else Mine()
    assert optimove.notify(WebhookReceiver(lambda n, d: True, client=client, secrets=optimove.secrets)).approved
    if takes:
        receiver = WebhookReceiver(lambda n, d: True, client=client, secrets=optimove.secrets, switch=lambda: "ask")
        assert optimove.notify(receiver).approved
    else:
        with pytest.raises(ConfigurationError, match=r"client\.send must take before_send=, which switch= needs"):
            WebhookReceiver(lambda n, d: True, client=client, secrets=optimove.secrets, switch=lambda: "ask")


def test_it_is_changed_in_one_step_and_keeps_the_rest(tmp_path: Path) -> None:
    path, link = tmp_path / "switch", tmp_path / "link"
    assert change_switch(path, "deny", campaigns=("29",), tags=("Summer bonus",)).everything == "ask"
    link.symlink_to(path)
    path.chmod(0o640)
    change_switch(link, "abstain")
    assert path.read_text() == "abstain\ndeny campaign 29\ndeny tag Summer bonus\n"
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    change_switch(path, "ask", campaigns=("29",))
    change_switch(path, "ask")
    assert read_switch(path) == SwitchState(tags={"Summer bonus": "deny"})
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "switch"]


def test_stopping_everything_works_whatever_the_file_held(tmp_path: Path) -> None:
    path = tmp_path / "switch"
    path.write_text("stop it")
    with pytest.raises(ConfigurationError, match="Line 1 of the switch"):
        change_switch(path, "ask")
    with pytest.raises(ConfigurationError, match="Line 1 of the switch"):
        change_switch(path, "deny", campaigns=("29",))
    change_switch(path, "deny")
    assert path.read_text() == "deny\n"


@pytest.mark.parametrize("name", ["", " ", "29\nask"])
def test_a_name_cannot_say_something_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="must not be empty"):
        change_switch(tmp_path / "switch", "deny", campaigns=(name,))


@pytest.mark.parametrize(
    ("text", "line"), [("ask\n\nsecret-value", 3), ("ask 29", 1), ("# why\nask tag", 2), ("ask everything", 1)]
)
def test_an_error_names_the_line_and_quotes_nothing(text: str, line: int) -> None:
    with pytest.raises(ConfigurationError, match=f"^Line {line} of the switch is invalid") as caught:
        SwitchState.parse(text)
    assert "secret-value" not in str(caught.value)


def test_many_at_the_same_time_look_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LOOK_SECONDS", 60.0)
    looks: list[int] = []

    def switch() -> str:
        looks.append(1)
        time.sleep(0.1)
        return "deny"

    fake = FakeOptimove()
    with fake.client() as client:
        gate = Gate()
        receiver = WebhookReceiver(gate, client=client, secrets=fake.secrets, switch=switch)
        requests = [
            signed_request(notification(f"C{number}", timeout_ms=30_000), secret=fake.secret) for number in range(8)
        ]
        threads = [threading.Thread(target=receiver.handle, args=(request,)) for request in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (len(looks), gate.asked) == (1, 0)


# ---- near misses must not approve


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("Summer bonus", " Summer  bonus "),
        ("Summer bonus", "Summer\u00a0Bonus"),
        ("caf\u00e9", "cafe\u0301"),  # one letter, or a letter and an accent
        ("cafe\u0301", "CAF\u00c9"),
    ],
)
def test_a_tag_that_looks_the_same_is_the_same(typed: str, sent: str) -> None:
    state = SwitchState.parse(f"deny tag {typed}")
    assert state.applying("29", [sent])[0] == "deny"
    assert state.applying("29", ["another"])[0] == "ask"


def test_the_id_of_a_campaign_is_the_same_whatever_its_case_and_blanks() -> None:
    state = SwitchState(campaigns={" s-29 ": "deny"})
    assert [state.applying(campaign, ())[0] for campaign in ("S-29", "s-29 ", "s-2")] == ["deny", "deny", "ask"]


def test_ask_lifts_what_is_stopped_for_a_tag_whatever_its_case(tmp_path: Path) -> None:
    path = tmp_path / "switch"
    change_switch(path, "deny", tags=("Summer Bonus",))
    assert change_switch(path, "ask", tags=("summer bonus",)) == SwitchState()


def test_a_campaign_given_as_a_number_is_refused_and_not_ignored(rig: MakeRig) -> None:
    campaigns: Any = {int(SERIES): "deny"}
    with pytest.raises(ConfigurationError, match="as text"):
        SwitchState(campaigns=campaigns)
    made = rig(Gate(), switch=lambda: SwitchState(campaigns=campaigns))
    made.notify()
    assert (made.outcome.kind, made.outcome.switch) == ("failed", "failed")


def test_a_fifo_that_is_replaced_by_a_file(rig: MakeRig, tmp_path: Path) -> None:
    path = tmp_path / "switch"
    os.mkfifo(path)
    made = rig(Gate(), switch=path)
    made.notify("C1", timeout_ms=60_000)
    assert "The switch must be a regular file." in str(made.outcome.error)
    path.unlink()
    path.write_text("ask")
    made.notify("C2", timeout_ms=60_000)
    assert made.outcomes[-1].kind == "approved"


def test_a_delivery_without_time_for_it_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "LOOK_SECONDS", 60.0)

    def read(seconds: float) -> str:
        if seconds < 0.1:
            raise Late
        return "ask"

    switch = flow.Switch(read=read, pause=time.sleep, clock=time.monotonic, on_change=lambda told: None)

    def looked(seconds: float) -> flow.Stopped | None:
        return run(switch.look(campaign="29", tags=(), within=Deadline.after(seconds)))

    short = looked(0.05)
    assert short is not None
    assert short.mode == "failed"
    assert looked(10) is None


def test_a_delivery_that_is_cancelled_while_it_looks_delays_no_other() -> None:
    async def read(seconds: float) -> str:
        calls.append(seconds)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return "deny"

    calls: list[float] = []
    switch = flow.Switch(read=read, pause=asyncio.sleep, clock=lambda: 0.0, on_change=lambda told: None)

    async def both() -> flow.Stopped | None:
        def looking() -> asyncio.Task[flow.Stopped | None]:
            return asyncio.create_task(arun(switch.look(campaign="29", tags=(), within=Deadline.after(10))))

        first = looking()
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.wait([first])
        # This clock stands still, so whoever waits for the first one to be given up waits for ever.
        return await asyncio.wait_for(looking(), 10)

    second = asyncio.run(both())
    assert second is not None
    assert (second.mode, len(calls)) == ("deny", 2)


# ---- several who change the file


def test_none_undoes_what_another_stops_at_the_same_time(tmp_path: Path) -> None:
    path, together = tmp_path / "switch", threading.Barrier(12)

    def stop(campaign: int) -> None:
        together.wait()
        change_switch(path, "deny", campaigns=(str(campaign),))

    # The lock belongs to an open folder, so threads exclude each other as processes do.
    stopping = [threading.Thread(target=stop, args=(campaign,)) for campaign in range(12)]
    for one in stopping:
        one.start()
    for one in stopping:
        one.join()
    assert sorted(read_switch(path).campaigns, key=int) == [str(campaign) for campaign in range(12)]
    assert [each.name for each in tmp_path.iterdir()] == ["switch"]


def test_what_a_crash_left_behind_does_not_stand_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "switch"
    (tmp_path / f".switch.{os.getpid()}.new").write_text("half a fi")
    change_switch(path, "deny")
    assert path.read_text() == "deny\n"


# ---- its time


def test_what_it_takes_is_no_stages_time() -> None:
    clock = Clock()

    def read(seconds: float) -> str:
        clock.now += 0.125  # a look takes as long before the handler is asked, after it, and before a repeat
        return "ask"

    def make() -> flow.Switch:
        return flow.Switch(read=read, pause=clock.sleep, clock=clock, on_change=print)

    class Slow(Replica):
        def _handle(self, notification: WebhookNotification, deadline: Deadline) -> Any:
            clock.now += 1.5
            return super()._handle(notification, deadline)

    store = Store(clock)
    payload = notification(request_uid="r-1", timestamp_ms=round(clock.now * 1000), timeout_ms=5_000)
    first, second = (Slow(store, clock, True, controls=Controls(switch=make())) for _ in range(2))
    first.receive(payload).freeze_before(the_send)
    clock.now += 1.0
    outcome = second.receive(payload).finish()[1]
    assert outcome.kind == "approved"
    assert (outcome.claim_seconds, outcome.decide_seconds, outcome.deliver_seconds) == (0.0, 0.0, 0.0)
    assert outcome.total_seconds == 0.125
    outcome = first.finish()[1]
    assert outcome.kind == "approved"
    assert (outcome.claim_seconds, outcome.decide_seconds) == (0.0, 1.5)
    assert outcome.total_seconds == pytest.approx(1.5 + 2 * 0.125 + 1.0 + 0.125)
