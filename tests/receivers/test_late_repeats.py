"""A notification that comes again, early or late, at replicas whose clocks and estimates differ: one answer leaves."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from optimove_conditional_execution.deadline import Clock as ClockFunction
from optimove_conditional_execution.deadline import TransitEstimate
from optimove_conditional_execution.flows.budget import KEPT_AFTER, BudgetEstimator, Reserve
from optimove_conditional_execution.flows.effects import Call
from optimove_conditional_execution.stores import MemoryClaims, SqliteClaims
from optimove_conditional_execution.testing import notification
from tests.receivers.test_leases import Clock, Replica, the_send

TIMEOUT = 5.0


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        if request.param == "memory":
            yield MemoryClaims(clock=clock)
        else:
            yield stack.enter_context(SqliteClaims(tmp_path / "claims.db", wall_clock=clock, monotonic=clock))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@dataclass(frozen=True)
class Sent:
    """An answer.

    Attributes:
        at: Seconds since Optimove sent the notification.
        approved: What it says.
    """

    at: float
    approved: bool


class Gate(Replica):
    """A replica with a transit estimate of its own, and a wall clock that may be wrong."""

    def __init__(self, store: Any, clock: Clock, *, wall_clock: ClockFunction | None = None) -> None:
        super().__init__(store, clock, None)
        self.transit = TransitEstimate()
        estimator = BudgetEstimator(
            transit=self.transit, reserve=Reserve(0.5, clock=clock), clock=clock, wall_clock=wall_clock or clock
        )
        self._context = replace(self._context, estimator=estimator)

    def deliver(self, payload: dict[str, Any], answer: bool, *, frozen: Callable[[], object] | None = None) -> str:
        """Receive a notification; return the kind of the outcome.

        Args:
            payload: The notification.
            answer: The handler's.
            frozen: What happens while this replica is frozen, before it sends its answer.
        """
        self._answer = answer
        try:
            self.receive(payload)
            if frozen is not None:
                self.freeze_before(the_send)
        except StopIteration:  # nothing is to be sent
            return self._outcome.kind
        if frozen is not None:
            frozen()
        return self.finish()[1].kind

    def _perform(self) -> None:
        effect = self._effect
        if isinstance(effect, Call) and effect.deadline is not None and effect.deadline.expired:
            self._effect = self._flow.throw(TimeoutError())  # as the client does
        else:
            super()._perform()


def payload_at(clock: Clock, uid: str = "r-1", *, sender: float = 0.0, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Return a notification that is sent now, by a sender whose clock may be wrong."""
    return notification(
        request_uid=uid, timestamp_ms=round((clock.now + sender) * 1000), timeout_ms=round(timeout * 1000)
    )


def test_a_replica_that_was_just_started_knows_no_transit_times(store: Any, clock: Clock) -> None:
    payload, began = payload_at(clock), clock.now
    assert Gate(store, clock).deliver(payload, True) == "approved"
    for late in (TIMEOUT, TIMEOUT + 5.0, TIMEOUT + KEPT_AFTER - 0.1):
        clock.now = began + late
        restarted = Gate(store, clock)
        assert (restarted.deliver(payload, False), restarted.asked) == ("duplicate", 0)


def test_one_that_was_taken_for_late_is_in_time_for_another_replica(store: Any, clock: Clock) -> None:
    first, second = Gate(store, clock), Gate(store, clock)
    first.transit.observe(received=clock.now, sent=clock.now + 3_600)  # stamped in the future
    payload = payload_at(clock)
    assert first.deliver(payload, True) == "approved"
    assert first._outcome.budget is not None
    assert first._outcome.budget.seconds == TIMEOUT / 2
    clock.now += TIMEOUT / 2 + 0.5  # Optimove still takes answers
    assert second.deliver(payload, False) == "duplicate"


def test_three_repeats_that_are_equally_late_look_like_a_clock_that_was_set(store: Any, clock: Clock) -> None:
    gate = Gate(store, clock)
    payloads = [payload_at(clock, f"r-{number}") for number in range(6)]
    assert [gate.deliver(payload, True) for payload in payloads] == ["approved"] * 6
    clock.now += TIMEOUT + 5.0
    assert [gate.deliver(payload, False) for payload in payloads] == ["expired"] * 2 + ["duplicate"] * 4
    assert gate.asked == 6


def test_whenever_it_comes_again_no_two_answers_leave(store: Any, clock: Clock) -> None:
    for seed in range(70):
        sent = delivered_at_random(random.Random(seed), clock, store, uid=f"r-{seed}")
        assert len({each.approved for each in sent}) <= 1, (seed, sent)


def delivered_at_random(rng: random.Random, clock: Clock, store: Any, *, uid: str) -> list[Sent]:
    """Deliver a notification some times; return the answers that have left while claims on it are kept."""
    began, timeout = clock.now, rng.choice([1.0, TIMEOUT, 60.0])
    sender = rng.choice([0.0, rng.uniform(-5, 5), rng.uniform(-3_600, 3_600)])
    payload = payload_at(clock, uid, sender=sender, timeout=timeout)
    gates = [made_at_random(rng, clock, store, sender) for _ in range(rng.randint(1, 4))]
    clock.now += rng.uniform(0, 0.9 * timeout)
    kept = clock.now + timeout + KEPT_AFTER
    sent: list[Sent] = []

    def deliver(gate: Gate, frozen: Callable[[], object] | None = None) -> None:
        if clock.now < kept:
            count = len(gate.sent)
            gate.deliver(payload, rng.random() < 0.5, frozen=frozen)
            sent.extend(Sent(clock.now - began, each["approved"]) for each in gate.sent[count:])

    def again(gates: list[Gate]) -> None:
        for _ in range(rng.randint(1, 4)):
            clock.now += rng.choice([0.0, TIMEOUT, rng.uniform(0, timeout), rng.uniform(0, 2 * timeout + KEPT_AFTER)])
            deliver(rng.choice(gates))

    deliver(gates[0], (lambda: again(gates[1:])) if len(gates) > 2 else None)
    again(gates)
    return sent


def made_at_random(rng: random.Random, clock: Clock, store: Any, sender: float) -> Gate:
    """Return a replica that has had other notifications, some stamped wrong; its wall clock may be wrong, too."""
    wrong = rng.choice([0.0, rng.uniform(-5, 5), rng.uniform(-3_600, 3_600)])
    gate = Gate(store, clock, wall_clock=lambda: clock.now + wrong)
    for received in sorted(clock.now - rng.uniform(0, 300) for _ in range(rng.choice([0, 0, 1, 4, 20]))):
        stamped_wrong = rng.choice([0.0, 0.0, 0.0, 2.0, TIMEOUT, 3_600.0])
        gate.transit.observe(received=received, sent=received - rng.uniform(0, 0.3) + sender + stamped_wrong)
    return gate
