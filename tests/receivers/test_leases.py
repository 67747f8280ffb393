"""Claims are leases: takeover, the fence, renewal, and outages of the store.

Most tests drive the flow of a notification by hand, on a clock of their own: a replica freezes between any two effects.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution import (
    UNSIGNED,
    Approval,
    AsyncWebhookReceiver,
    Deadline,
    Decision,
    Outcome,
    Response,
    WebhookNotification,
    WebhookReceiver,
)
from optimove_conditional_execution.deadline import TransitEstimate
from optimove_conditional_execution.drivers import Pools, run
from optimove_conditional_execution.flows.budget import KEPT_AFTER, BudgetEstimator, Reserve
from optimove_conditional_execution.flows.claims import question_of
from optimove_conditional_execution.flows.effects import Ask, Call, Flow, Overloaded
from optimove_conditional_execution.flows.outcome import OutcomeBuilder
from optimove_conditional_execution.flows.webhook import WebhookContext, answer_notification
from optimove_conditional_execution.stores import Claim, ClaimState, MemoryClaims, SqliteClaims
from optimove_conditional_execution.testing import FakeOptimove, notification, signed_request
from tests.receivers.conftest import MakeRig

LEASE = 5.0 / 6
"""Of a notification with a deadline of 5 s."""


class Clock:
    """A clock for replicas and their store; sleeping moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


class Store:
    """A claim store that is not reached for a while, and that can forget."""

    instant = False

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.inner = MemoryClaims(clock=clock)
        self.down_until = 0.0
        self.steps: list[str] = []
        self.asked: list[tuple[Any, ...]] = []

    def forget(self) -> None:
        self.inner = MemoryClaims(clock=self.clock)

    def _step(self, name: str, *arguments: Any) -> Any:
        self.steps.append(name)
        self.asked.append(arguments)
        if self.clock() < self.down_until:
            raise ConnectionError("no route to the store")
        return getattr(self.inner, name)(*arguments)

    def acquire(self, *arguments: Any) -> Any:
        return self._step("acquire", *arguments)

    def renew(self, *arguments: Any) -> Any:
        return self._step("renew", *arguments)

    def update(self, *arguments: Any) -> Any:
        return self._step("update", *arguments)

    def release(self, *arguments: Any) -> Any:
        return self._step("release", *arguments)


class Replica:
    """The flow of one delivery, whose effects are performed on demand."""

    def __init__(self, store: Any, clock: Clock, answer: Any, *, handler_takes: float = 0.0, **options: Any) -> None:
        self.asked = 0
        self.busy = 0
        self.sent: list[dict[str, Any]] = []
        self._clock = clock
        self._answer = answer
        self._takes = handler_takes
        self.while_asking: Callable[[], object] = int
        self._context = WebhookContext(
            handler=self._handle,
            pause=clock.sleep,
            claims=store,
            keys=UNSIGNED,
            on_failure="abstain",
            max_body=100_000,
            estimator=BudgetEstimator(
                transit=TransitEstimate(), reserve=Reserve(0.5, clock=clock), clock=clock, wall_clock=clock
            ),
            clock=clock,
            **options,
        )

    def _handle(self, notification: WebhookNotification, deadline: Deadline) -> Any:
        if self.busy:
            self.busy -= 1
            raise Overloaded  # as the pool of the handlers does
        self.asked += 1
        return self._answer

    def receive(self, payload: dict[str, Any], *, host: Deadline | None = None) -> Replica:
        request = signed_request(payload, secret=None)
        self._outcome = OutcomeBuilder(self._clock)
        self._flow: Flow[Response] = answer_notification(request, self._context, self._outcome, host=host)
        self._effect = next(self._flow)
        return self

    def freeze_before(self, is_it: Callable[[Any], bool]) -> None:
        """Go on until an effect that is not performed yet."""
        while not is_it(self._effect):
            self._perform()

    def finish(self) -> tuple[Response, Outcome]:
        """Go on to the end."""
        try:
            while True:
                self._perform()
        except StopIteration as end:
            assert self._outcome.status is not None
            return end.value, self._outcome.build()

    def _perform(self) -> None:
        effect = self._effect
        try:
            if isinstance(effect, Call):
                self.sent.append(json.loads(effect.operation.body or b""))
                result = None
            else:
                result = effect.function(*effect.arguments)
                if effect.meanwhile is not None:
                    self._pass(effect)
        except Exception as error:  # noqa: BLE001 - as a driver does
            self._effect = self._flow.throw(error)
        else:
            self._effect = self._flow.send(result)

    def _pass(self, effect: Ask) -> None:
        """Let the time pass that the handler takes, as a driver does."""
        assert effect.meanwhile is not None
        end = self._clock.now + self._takes
        while self._clock.now + effect.every < end:
            self._clock.now += effect.every
            run(effect.meanwhile(), pools=Pools.of(1))
            self.while_asking()
        self._clock.now = end


def the_handler(effect: Any) -> bool:
    return isinstance(effect, Ask) and effect.within is not None and effect.whose == "handler"


def the_send(effect: Any) -> bool:
    return isinstance(effect, Call)


def the_fence(effect: Any) -> bool:
    return isinstance(effect, Ask) and getattr(effect.function, "__name__", "") == "update"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Any]:
    if request.param == "memory":
        yield Store(clock)
        return
    with SqliteClaims(tmp_path / "claims.db", wall_clock=clock, monotonic=clock) as claims:
        yield claims


@pytest.fixture
def payload(clock: Clock) -> dict[str, Any]:
    return notification(request_uid="r-1", timestamp_ms=round(clock.now * 1000), timeout_ms=5_000)


# ---- a replica freezes


@pytest.mark.parametrize("answer", [True, False])
def test_a_freeze_between_fence_and_send(store: Any, clock: Clock, payload: dict[str, Any], answer: bool) -> None:
    first, second = Replica(store, clock, answer), Replica(store, clock, not answer)
    first.receive(payload).freeze_before(the_send)
    clock.now += LEASE + 0.01
    response, outcome = second.receive(payload).finish()
    assert (response.status, outcome.kind) == (200, "approved" if answer else "denied")
    assert second.asked == 0
    response, outcome = first.finish()  # it wakes, and sends what it has decided
    assert (response.status, outcome.kind) == (200, "approved" if answer else "denied")
    assert [sent["approved"] for sent in first.sent + second.sent] == [answer, answer]
    assert first.sent == second.sent


@pytest.mark.parametrize("answer", [True, Decision.abstain(), ValueError])
def test_a_freeze_before_the_fence(store: Any, clock: Clock, payload: dict[str, Any], answer: Any) -> None:
    first, second = Replica(store, clock, answer), Replica(store, clock, False)
    first.receive(payload).freeze_before(the_fence)
    clock.now += LEASE + 0.01
    response, outcome = second.receive(payload).finish()
    assert (response.status, outcome.kind, second.asked) == (200, "denied", 1)
    response, outcome = first.finish()
    assert (response.status, outcome.kind) == (200, "superseded")
    assert outcome.error == "Its lease ran out, and another delivery of this notification took over."
    assert first.sent == []
    assert [sent["approved"] for sent in second.sent] == [False]


def test_a_freeze_before_the_fence_while_the_rival_decides(store: Any, clock: Clock, payload: dict[str, Any]) -> None:
    first, second = Replica(store, clock, True), Replica(store, clock, False)
    first.receive(payload).freeze_before(the_fence)
    clock.now += LEASE + 0.01
    second.receive(payload).freeze_before(the_fence)
    assert first.finish()[1].kind == "superseded"
    assert second.finish()[1].kind == "denied"
    assert first.sent == []


def test_a_lease_that_has_run_out_without_a_rival_loses_nothing(
    store: Any, clock: Clock, payload: dict[str, Any]
) -> None:
    replica = Replica(store, clock, True)
    replica.receive(payload).freeze_before(the_fence)
    clock.now += 3.0
    assert replica.finish()[1].kind == "approved"
    assert len(replica.sent) == 1


def test_a_claim_that_the_store_has_forgotten_is_not_superseded(clock: Clock, payload: dict[str, Any]) -> None:
    store = Store(clock)
    replica, late = Replica(store, clock, True), Replica(store, clock, False)
    replica.receive(payload).freeze_before(the_fence)
    store.forget()
    replica.freeze_before(the_send)
    clock.now += LEASE + 0.01
    assert late.receive(payload).finish()[1].kind == "approved"  # it has been written anew
    assert replica.finish()[1].kind == "approved"


def test_a_replica_that_dies_is_taken_over_within_its_lease(store: Any, clock: Clock, payload: dict[str, Any]) -> None:
    dead, living = Replica(store, clock, True), Replica(store, clock, True)
    dead.receive(payload).freeze_before(the_fence)
    before = clock.now
    response, outcome = living.receive(payload).finish()
    assert (response.status, outcome.kind, living.asked) == (200, "approved", 1)
    assert LEASE <= clock.now - before <= LEASE + 0.01
    assert clock.pauses[0] <= 0.02
    assert max(clock.pauses) <= 0.25
    assert max(clock.pauses) > 0.05, "the pauses grow"
    assert outcome.claim_seconds == pytest.approx(LEASE, abs=0.01)


def test_a_living_replica_is_not_taken_over_however_long_its_handler_takes(
    store: Any, clock: Clock, payload: dict[str, Any]
) -> None:
    replica = Replica(store, clock, True, handler_takes=4.0)
    question = question_of(WebhookNotification.model_validate(payload))
    rivals: list[Claim] = []
    replica.while_asking = lambda: rivals.append(store.acquire(question, "a rival", 1.0, 5.0))
    assert replica.receive(payload).finish()[1].kind == "approved"
    assert len(rivals) == 14  # every third of a lease
    assert not any(rival.mine for rival in rivals)
    assert [rival.lease for rival in rivals] == [pytest.approx(LEASE)] * 14


def test_a_claim_that_is_lost_while_the_handler_runs_does_not_stop_it(clock: Clock, payload: dict[str, Any]) -> None:
    store = Store(clock)
    replica = Replica(store, clock, True, handler_takes=2.0)
    question = question_of(WebhookNotification.model_validate(payload))

    def steal() -> None:
        store.forget()
        assert store.inner.acquire(question, "a rival", 9.0, 9.0).mine

    replica.while_asking = steal
    assert replica.receive(payload).finish()[1].kind == "superseded"
    assert (replica.asked, replica.sent) == (1, [])


def test_one_that_dies_after_the_fence_is_taken_over_too(store: Any, clock: Clock, payload: dict[str, Any]) -> None:
    dead, living = Replica(store, clock, Decision.approve({"bonus": 7})), Replica(store, clock, False)
    dead.receive(payload).freeze_before(the_send)
    outcome = living.receive(payload).finish()[1]
    assert (outcome.kind, living.asked) == ("approved", 0)
    assert [(sent["approved"], sent["additional_data"]) for sent in living.sent] == [(True, {"bonus": 7})]


# ---- how long a lease is


@pytest.mark.parametrize(
    ("timeout_ms", "options", "lease"),
    [(5_000, {}, 5 / 6), (2_000, {}, 0.5), (60_000, {}, 10.0), (5_000, {"lease": 2.0}, 2.0), (5_000, {"lease": 9}, 5)],
)
def test_how_long_a_lease_is(clock: Clock, timeout_ms: int, options: dict[str, Any], lease: float) -> None:
    store = Store(clock)
    replica = Replica(store, clock, True, **options)
    payload = notification(timestamp_ms=round(clock.now * 1000), timeout_ms=timeout_ms)
    replica.receive(payload).finish()
    assert store.steps == ["acquire", "update", "update"]
    (_, owner, first, _), (_, recorder, _, second, _), (_, settler, _, third, _) = store.asked
    assert (first, second, third) == (pytest.approx(lease), pytest.approx(lease), 0.0)
    assert owner == recorder == settler
    assert len(owner) == 32
    replica.receive(payload).finish()
    assert store.asked[-1][1] != owner, "each delivery is an owner"


def test_what_is_in_memory_needs_no_lease(clock: Clock, payload: dict[str, Any]) -> None:
    """Its owner cannot die alone: a handler is not asked twice, however long its process was stopped."""
    store = MemoryClaims(clock=clock)
    replica = Replica(store, clock, True)
    replica.receive(payload).freeze_before(the_handler)
    clock.now += 3.0
    question = question_of(WebhookNotification.model_validate(payload))
    rival = store.acquire(question, "another delivery", 1.0, 2.0)
    assert not rival.mine
    assert rival.lease == pytest.approx(2.0)
    assert replica.finish()[1].kind == "approved"


def test_a_claim_is_kept_until_optimoves_deadline_whatever_the_hosts_is(clock: Clock, payload: dict[str, Any]) -> None:
    store = Store(clock)
    Replica(store, clock, True).receive(payload, host=Deadline.after(2.0, clock=clock)).finish()
    assert [arguments[-1] for arguments in store.asked] == [pytest.approx(5.0 + KEPT_AFTER)] * 3


# ---- the store cannot be reached


def test_an_outage_of_a_second_loses_nothing(clock: Clock, payload: dict[str, Any]) -> None:
    for down_for in (0.5, 1.0, 4.8):
        store = Store(clock)
        store.down_until = clock.now + down_for
        replica = Replica(store, clock, True)
        payload = notification(timestamp_ms=round(clock.now * 1000), timeout_ms=5_000)
        assert replica.receive(payload).finish()[1].kind == ("approved" if down_for < 4 else "late")


@pytest.mark.parametrize("answer", [True, False])
def test_an_outage_while_the_handler_is_asked_loses_nothing(
    clock: Clock, payload: dict[str, Any], answer: bool
) -> None:
    store = Store(clock)
    replica = Replica(store, clock, answer)
    replica.receive(payload).freeze_before(the_fence)
    store.down_until = clock.now + 1.0
    assert replica.finish()[1].kind == ("approved" if answer else "denied")
    assert len(replica.sent) == 1


@pytest.mark.parametrize("down_from", ["the start", "the fence"])
def test_a_store_that_stays_away_is_tried_until_shortly_before_the_deadline(
    clock: Clock, payload: dict[str, Any], down_from: str
) -> None:
    store = Store(clock)
    replica = Replica(store, clock, True)
    replica.receive(payload)
    if down_from == "the fence":
        replica.freeze_before(the_fence)
    store.down_until = clock.now + 60.0
    before = clock.now
    response, outcome = replica.finish()
    assert (response.status, outcome.kind, replica.sent) == (503, "failed", [])
    assert outcome.error is not None
    assert outcome.error.startswith("The claim store is unreachable: ConnectionError")
    assert clock.now - before == pytest.approx(4.9, abs=0.01)
    assert 20 < len(store.steps) < 80


def test_a_step_is_bounded_by_a_second_and_the_deadline(clock: Clock, payload: dict[str, Any]) -> None:
    bounds: list[float] = []
    replica = Replica(Store(clock), clock, True, handler_takes=4.2)
    replica.receive(payload)

    def note(effect: Any) -> bool:
        if isinstance(effect, Ask) and effect.whose == "store":
            assert effect.within is not None
            bounds.append(effect.within.remaining())
        return False

    with pytest.raises(StopIteration):
        replica.freeze_before(note)
    assert bounds == [pytest.approx(1.0), pytest.approx(0.8), pytest.approx(1.0)]  # to settle has time after it


def test_those_who_would_rather_decide_twice_than_not_at_all(clock: Clock, payload: dict[str, Any]) -> None:
    store = Store(clock)
    store.down_until = clock.now + 60.0
    replica = Replica(store, clock, True, on_store_failure="decide", handler_takes=2.0)
    before = clock.now
    response, outcome = replica.receive(payload).finish()
    assert (response.status, outcome.kind) == (200, "approved")
    assert clock.now - before < LEASE + 2.0 + 0.3
    assert [sent["approved"] for sent in replica.sent] == [True]
    assert "claim store" in (outcome.error or "")


def test_who_decides_without_a_claim_still_minds_the_answer_of_another(clock: Clock, payload: dict[str, Any]) -> None:
    store = Store(clock)
    alone = Replica(store, clock, True, on_store_failure="decide")
    store.down_until = clock.now + LEASE + 0.1
    alone.receive(payload).freeze_before(the_fence)
    store.down_until = 0.0
    other = Replica(store, clock, False)
    assert other.receive(payload).finish()[1].kind == "denied"
    assert alone.finish()[1].kind == "superseded"
    assert alone.sent == []


def test_a_store_that_answers_nonsense_approves_nothing(clock: Clock, payload: dict[str, Any]) -> None:
    for step in ("acquire", "update"):
        store = Store(clock)
        setattr(store, step, lambda *_: None)
        replica = Replica(store, clock, True)
        payload = notification(timestamp_ms=round(clock.now * 1000), timeout_ms=5_000)
        response, outcome = replica.receive(payload).finish()
        assert (response.status, outcome.kind, replica.sent) == (503, "failed", [])
        assert f"Store.{step} must return a " in (outcome.error or "")


NO_ANSWER: Any = None
ELSEWHERE = Approval(timestamp=5, request_uid="another", approved=True)
OURS = Approval(timestamp=5, request_uid="r-1", approved=True)


@pytest.mark.parametrize(
    "claim",
    [
        Claim(ClaimState.UNDELIVERED, ELSEWHERE, mine=True),
        Claim(ClaimState.UNDELIVERED, NO_ANSWER, mine=True),
        Claim(ClaimState.UNDELIVERED, {"approved": True}, mine=True),  # type: ignore[arg-type]
        Claim(ClaimState.OPEN, OURS, mine=True),
        Claim("settled", mine=True),  # type: ignore[arg-type]
        Claim(ClaimState.OPEN, mine="no"),  # type: ignore[arg-type]
        Claim(ClaimState.OPEN, lease=None),  # type: ignore[arg-type]
    ],
)
def test_a_claim_that_makes_no_sense_approves_nothing(clock: Clock, payload: dict[str, Any], claim: Claim) -> None:
    store = Store(clock)
    store.acquire = lambda *_: claim  # type: ignore[method-assign]
    replica = Replica(store, clock, True)
    before = clock.now
    response, outcome = replica.receive(payload).finish()
    assert (response.status, outcome.kind, replica.sent, replica.asked) == (503, "failed", [], 0)
    assert (outcome.error or "").startswith("The claim store is unreachable: ConfigurationError: ")
    assert clock.now == before, "another try would change nothing"


@pytest.mark.parametrize("lease", [-5.0, float("nan"), float("inf"), 0])
def test_a_rivals_lease_that_makes_no_sense_is_polled_with_pauses(
    clock: Clock, payload: dict[str, Any], lease: float
) -> None:
    store = Store(clock)
    store.acquire = lambda *_: Claim(ClaimState.OPEN, lease=lease)  # type: ignore[method-assign]
    response, outcome = Replica(store, clock, True).receive(payload).finish()
    assert (response.status, outcome.kind) == (503, "duplicate")
    assert 20 < len(clock.pauses) < 80


@pytest.mark.parametrize("on_store_failure", ["refuse", "decide"])
def test_a_store_that_never_lets_an_answer_be_recorded_sends_none(
    clock: Clock, payload: dict[str, Any], on_store_failure: Any
) -> None:
    store = Store(clock)
    store.update = lambda *_: False  # type: ignore[method-assign]
    replica = Replica(store, clock, True, on_store_failure=on_store_failure)
    response, outcome = replica.receive(payload).finish()
    assert (response.status, outcome.kind, replica.sent) == (200, "superseded", [])


# ---- busy handlers


def test_after_an_outage_deliveries_wait_for_a_free_handler(clock: Clock, payload: dict[str, Any]) -> None:
    store = Store(clock)
    store.down_until = clock.now + 1.0
    replica = Replica(store, clock, True)
    replica.busy = 10
    outcome = replica.receive(payload).finish()[1]
    assert (outcome.kind, replica.asked) == ("approved", 1)
    assert "renew" in store.steps, "its lease is renewed while it waits"
    # One that has come after it waits too: those who waited for the store have all come at once.
    replica.busy = 10
    payload = notification(timestamp_ms=round(clock.now * 1000), timeout_ms=5_000)
    assert replica.receive(payload).finish()[1].kind == "approved"


def test_without_an_outage_busy_handlers_are_a_503_at_once(clock: Clock, payload: dict[str, Any]) -> None:
    store = Store(clock)
    replica = Replica(store, clock, True)
    replica.busy = 1
    before = clock.now
    response, outcome = replica.receive(payload).finish()
    assert (response.status, outcome.kind, clock.now) == (503, "overloaded", before)
    assert replica.receive(payload).finish()[1].kind == "approved"  # the claim was released


def test_handlers_that_stay_busy_after_an_outage_are_a_503_in_the_end(clock: Clock, payload: dict[str, Any]) -> None:
    store = Store(clock)
    store.down_until = clock.now + 1.0
    replica = Replica(store, clock, True)
    replica.busy = 10_000
    before = clock.now
    response, outcome = replica.receive(payload).finish()
    assert (response.status, outcome.kind) == (503, "overloaded")
    assert clock.now - before <= 4.6


# ---- renewal, in both receivers


class Counted:
    """A store in SQLite whose steps are counted."""

    instant = False

    def __init__(self, path: Path) -> None:
        self._claims = SqliteClaims(path)
        self.steps: list[str] = []
        self.fails_to_renew = False

    def acquire(self, *arguments: Any) -> Claim:
        self.steps.append("acquire")
        return self._claims.acquire(*arguments)

    def renew(self, *arguments: Any) -> bool:
        self.steps.append("renew")
        if self.fails_to_renew:
            raise ConnectionError
        return self._claims.renew(*arguments)

    def update(self, *arguments: Any) -> bool:
        self.steps.append("update")
        return self._claims.update(*arguments)

    def release(self, *arguments: Any) -> None:
        self.steps.append("release")
        self._claims.release(*arguments)


def test_a_quick_handler_pays_for_no_renewal(rig: MakeRig, tmp_path: Path) -> None:
    store = Counted(tmp_path / "claims.db")
    made = rig(lambda notification, deadline: True, claims=store)
    assert made.notify(timeout_ms=60_000).approved
    assert store.steps == ["acquire", "update", "update"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_lease_is_renewed_while_the_handler_runs(rig: MakeRig, kind: str, tmp_path: Path, fails: bool) -> None:
    store = Counted(tmp_path / "claims.db")
    store.fails_to_renew = fails

    def is_over(started: float) -> bool:
        return store.steps.count("renew") >= 3 or time.monotonic() - started > 30

    def function(notification: WebhookNotification, deadline: Deadline) -> bool:
        started = time.monotonic()
        while not is_over(started):
            time.sleep(0.005)
        return True

    async def coroutine(notification: WebhookNotification, deadline: Deadline) -> bool:
        started = time.monotonic()
        while not is_over(started):
            await asyncio.sleep(0.005)
        return True

    made = rig(coroutine if kind == "async with a coroutine" else function, claims=store, lease=0.3)
    assert made.notify(timeout_ms=60_000).approved
    assert made.outcome.kind == "approved"
    assert store.steps.count("renew") >= 3


# ---- an outage with many deliveries at once, in both receivers


class Away:
    """A store that is not reached by its first steps: counted, since a busy machine takes its time between them."""

    instant = False

    def __init__(self) -> None:
        self._claims = MemoryClaims()
        self._unreached = 100

    def __getattr__(self, name: str) -> Any:
        if name == "asynchronous":
            raise AttributeError(name)
        self._unreached -= 1
        if self._unreached >= 0:
            raise ConnectionError("no route to the store")
        return getattr(self._claims, name)


def test_many_deliveries_wait_for_the_store_and_then_for_a_handler() -> None:
    optimove = FakeOptimove(timeout_ms=60_000)
    outcomes: list[Outcome] = []

    def function(notification: WebhookNotification, deadline: Deadline) -> bool:
        time.sleep(0.01)
        return True

    async def coroutine(notification: WebhookNotification, deadline: Deadline) -> bool:
        await asyncio.sleep(0.01)
        return True

    options: dict[str, Any] = {"secrets": optimove.secrets, "max_concurrency": 2, "on_outcome": outcomes.append}
    receiver = WebhookReceiver(function, client=optimove.client(), claims=Away(), **options)
    threads = [threading.Thread(target=optimove.notify, args=(receiver,)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [outcome.kind for outcome in outcomes] == ["approved"] * 20

    async def main() -> None:
        areceiver = AsyncWebhookReceiver(coroutine, client=optimove.async_client(), claims=Away(), **options)
        await asyncio.gather(*(optimove.anotify(areceiver) for _ in range(40)))

    asyncio.run(main())
    assert [outcome.kind for outcome in outcomes] == ["approved"] * 60
