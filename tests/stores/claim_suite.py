"""What every claim store does, sync or async: a class of tests to derive from, with a fixture `steps` of one's own."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from optimove_conditional_execution import Approval
from optimove_conditional_execution.stores import Claim, ClaimState, ClaimStore

APPROVAL = Approval(timestamp=5, request_uid="r-1", approved=True, additional_data={"bonus": [7, None, "ü"]})
OTHER_APPROVAL = Approval(timestamp=6, request_uid="r-1", approved=False)

OPEN = Claim(ClaimState.OPEN)
DECIDED = Claim(ClaimState.UNDELIVERED, APPROVAL)
SETTLED = Claim(ClaimState.SETTLED)


class Steps:
    """The steps of a store, called from a test; times are in minutes, which no busy machine takes between two steps.

    `runner` runs what an async store returns. `elapse` lets a number of seconds pass for the store, without a wait.
    """

    def __init__(
        self,
        store: Any,
        *,
        runner: asyncio.Runner | None = None,
        elapse: Callable[[float], None] | None = None,
    ) -> None:
        self.store = store
        self._runner = runner
        self._elapse = elapse

    def elapse(self, minutes: float) -> None:
        assert self._elapse is not None
        self._elapse(minutes * 60)

    def _done(self, result: Any) -> Any:
        if inspect.isawaitable(result):
            assert self._runner is not None
            return self._runner.run(awaited(result))
        return result

    def acquire(self, owner: str = "a", question: str = "q", *, lease: float = 1.0, ttl: float = 20.0) -> Claim:
        claim: Claim = self._done(self.store.acquire(question, owner, lease * 60, ttl * 60))
        return replace(claim, lease=claim.lease / 60)

    def renew(self, owner: str = "a", question: str = "q", *, lease: float = 1.0, ttl: float = 20.0) -> bool:
        renewed: bool = self._done(self.store.renew(question, owner, lease * 60, ttl * 60))
        return renewed

    def update(
        self, claim: Claim, owner: str = "a", question: str = "q", *, lease: float = 1.0, ttl: float = 20.0
    ) -> bool:
        updated: bool = self._done(self.store.update(question, owner, claim, lease * 60, ttl * 60))
        return updated

    def release(self, owner: str = "a", question: str = "q") -> None:
        assert self._done(self.store.release(question, owner)) is None

    def acquire_together(self, owners: list[str], question: str = "q") -> list[Claim]:
        """Acquire one question for all owners at the same time, with a lease that does not run out."""
        claims: list[Claim] = []
        if self._runner is not None:

            async def together() -> None:
                claims.extend(
                    await asyncio.gather(*(self.store.acquire(question, owner, 60.0, 60.0) for owner in owners))
                )

            self._runner.run(together())
            return claims
        barrier = threading.Barrier(len(owners))

        def acquire(owner: str) -> None:
            barrier.wait(30)
            claims.append(self.store.acquire(question, owner, 60.0, 60.0))

        threads = [threading.Thread(target=acquire, args=(owner,)) for owner in owners]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return claims


async def awaited(result: Any) -> Any:
    return await result


def mine(claim: Claim) -> Claim:
    """Return the state and answer of a claim that the caller owns now, whose lease has just begun."""
    assert claim.mine
    assert 0.5 < claim.lease <= 1.01
    return replace(claim, mine=False, lease=0.0)


def held(claim: Claim) -> ClaimState:
    """Return the state of another owner's claim, whose lease still runs and whose answer is not shown."""
    assert not claim.mine
    assert 0 < claim.lease <= 1.01
    assert claim.approval is None
    return claim.state


class ClaimStoreSuite:
    """Derive from it, and override the fixture `steps`."""

    @pytest.fixture
    def steps(self) -> Steps:
        raise NotImplementedError

    def test_the_protocol(self, steps: Steps) -> None:
        assert isinstance(steps.store, ClaimStore)

    # ---- acquire

    def test_the_first_owner_has_it(self, steps: Steps) -> None:
        assert mine(steps.acquire("a")) == OPEN
        assert held(steps.acquire("b")) is ClaimState.OPEN
        assert mine(steps.acquire("b", "another question")) == OPEN

    def test_one_owner_among_forty(self, steps: Steps) -> None:
        for turn in range(3):
            owners = [f"owner-{number}" for number in range(40)]
            claims = steps.acquire_together(owners, f"q-{turn}")
            assert len(claims) == 40
            assert [claim.state for claim in claims] == [ClaimState.OPEN] * 40
            assert sum(claim.mine for claim in claims) == 1

    def test_its_owner_may_acquire_it_again(self, steps: Steps) -> None:
        steps.acquire("a")
        steps.elapse(0.6)
        assert mine(steps.acquire("a")) == OPEN  # the reply to the first may have been lost
        steps.elapse(0.6)
        assert held(steps.acquire("b")) is ClaimState.OPEN  # its lease began anew
        steps.update(DECIDED, "a")
        assert mine(steps.acquire("a")) == DECIDED

    def test_an_open_claim_is_taken_over_when_its_lease_has_run_out(self, steps: Steps) -> None:
        steps.acquire("a")
        steps.elapse(1.1)
        assert mine(steps.acquire("b")) == OPEN
        assert held(steps.acquire("a")) is ClaimState.OPEN
        assert held(steps.acquire("c")) is ClaimState.OPEN

    def test_an_answer_is_taken_over_to_be_delivered(self, steps: Steps) -> None:
        steps.acquire("a")
        assert steps.update(DECIDED, "a") is True
        assert held(steps.acquire("b")) is ClaimState.UNDELIVERED
        steps.elapse(1.1)
        assert mine(steps.acquire("b")) == DECIDED
        assert held(steps.acquire("c")) is ClaimState.UNDELIVERED
        steps.elapse(1.1)
        assert steps.acquire("c").approval == APPROVAL

    def test_an_answer_without_a_lease_is_taken_over_at_once(self, steps: Steps) -> None:
        steps.acquire("a")
        assert steps.update(DECIDED, "a", lease=0.0) is True
        assert mine(steps.acquire("b")) == DECIDED

    def test_what_is_settled_is_nobodys(self, steps: Steps) -> None:
        steps.acquire("a")
        steps.update(DECIDED, "a")
        assert steps.update(SETTLED, "a", lease=0.0) is True
        assert steps.acquire("b") == SETTLED
        steps.elapse(1.1)
        assert steps.acquire("b") == SETTLED

    def test_claims_expire(self, steps: Steps) -> None:
        steps.acquire("a", lease=30.0, ttl=2.0)
        steps.acquire("a", "settled", ttl=2.0)
        steps.update(SETTLED, "a", "settled", lease=0.0, ttl=1.0)  # the later expiry counts
        steps.elapse(1.4)
        assert not steps.acquire("b", ttl=2.0).mine
        assert steps.acquire("b", "settled") == SETTLED
        steps.elapse(1.0)
        assert mine(steps.acquire("b")) == OPEN
        assert mine(steps.acquire("b", "settled")) == OPEN

    def test_each_step_keeps_the_record_longer(self, steps: Steps) -> None:
        for question in ("acquire", "renew", "update"):
            steps.acquire("a", question, lease=30.0, ttl=1.0)
        steps.acquire("a", "acquire", lease=30.0, ttl=3.0)
        steps.renew("a", "renew", lease=30.0, ttl=3.0)
        steps.update(DECIDED, "a", "update", lease=30.0, ttl=3.0)
        steps.elapse(1.5)
        assert not any(steps.acquire("b", question).mine for question in ("acquire", "renew", "update"))

    # ---- renew

    def test_a_renewed_lease_runs_on(self, steps: Steps) -> None:
        steps.acquire("a")
        for _ in range(3):
            steps.elapse(0.6)
            assert steps.renew("a") is True
        assert held(steps.acquire("b")) is ClaimState.OPEN
        steps.update(DECIDED, "a")
        assert steps.renew("a") is True
        steps.elapse(1.1)
        assert steps.acquire("b").approval == APPROVAL  # renewing has not changed it

    def test_a_lease_that_has_run_out_is_renewed_if_nobody_has_taken_over(self, steps: Steps) -> None:
        steps.acquire("a")
        steps.elapse(1.5)
        assert steps.renew("a") is True
        assert held(steps.acquire("b")) is ClaimState.OPEN

    def test_a_claim_that_was_taken_over_or_settled_is_not_renewed(self, steps: Steps) -> None:
        steps.acquire("a")
        steps.elapse(1.1)
        steps.acquire("b")
        assert steps.renew("a") is False
        steps.update(SETTLED, "b", lease=0.0)
        assert steps.renew("a") is False
        assert steps.renew("b") is False
        assert steps.acquire("c") == SETTLED

    def test_a_forgotten_claim_is_renewed_anew(self, steps: Steps) -> None:
        assert steps.renew("a") is True
        assert held(steps.acquire("b")) is ClaimState.OPEN

    # ---- update

    def test_a_lease_that_has_run_out_loses_nothing_without_a_rival(self, steps: Steps) -> None:
        steps.acquire("a")
        steps.elapse(1.5)
        assert steps.update(DECIDED, "a") is True
        assert held(steps.acquire("b")) is ClaimState.UNDELIVERED

    def test_who_has_lost_the_claim_writes_nothing(self, steps: Steps) -> None:
        steps.acquire("a")
        steps.elapse(1.1)
        steps.acquire("b")
        assert steps.update(Claim(ClaimState.UNDELIVERED, OTHER_APPROVAL), "a") is False
        assert steps.update(DECIDED, "b") is True
        assert steps.update(Claim(ClaimState.UNDELIVERED, OTHER_APPROVAL), "a") is False
        assert steps.update(SETTLED, "a", lease=0.0) is False
        steps.elapse(1.1)
        assert steps.acquire("c").approval == APPROVAL
        assert steps.update(SETTLED, "c", lease=0.0) is True
        for owner in ("a", "b", "c"):  # also a step of the owner that comes late
            assert steps.update(DECIDED, owner) is False
        assert steps.acquire("d") == SETTLED

    def test_an_update_may_be_repeated(self, steps: Steps) -> None:
        steps.acquire("a")
        for claim in (DECIDED, SETTLED):
            assert steps.update(claim, "a") is True
            assert steps.update(claim, "a") is True

    def test_an_expired_claim_of_another_owner_is_renewed_and_updated_anew(self, steps: Steps) -> None:
        for question in ("renew", "update"):
            steps.acquire("a", question, ttl=1.0)
            steps.update(SETTLED, "a", question, lease=0.0, ttl=1.0)
        steps.elapse(1.1)
        assert steps.renew("b", "renew") is True
        assert steps.update(DECIDED, "b", "update") is True
        assert held(steps.acquire("c", "renew")) is ClaimState.OPEN
        assert held(steps.acquire("c", "update")) is ClaimState.UNDELIVERED

    def test_a_forgotten_claim_is_updated_anew(self, steps: Steps) -> None:
        assert steps.update(DECIDED, "a") is True
        assert held(steps.acquire("b")) is ClaimState.UNDELIVERED
        assert steps.update(SETTLED, "a", "another", lease=0.0) is True
        assert steps.acquire("b", "another") == SETTLED

    # ---- release

    def test_what_is_released_is_free_again(self, steps: Steps) -> None:
        steps.acquire("a")
        steps.release("a")
        assert mine(steps.acquire("b")) == OPEN
        steps.release("a", "never seen")

    def test_only_its_owner_releases_a_claim_and_only_an_open_one(self, steps: Steps) -> None:
        steps.acquire("a")
        steps.release("b")
        assert held(steps.acquire("b")) is ClaimState.OPEN
        steps.update(DECIDED, "a")
        steps.release("a")
        assert held(steps.acquire("b")) is ClaimState.UNDELIVERED

    # ---- names

    def test_any_question_in_ascii(self, steps: Steps) -> None:
        for question in ("", "'; DROP TABLE claims; --", "\\u2028 \\u0000", "x" * 6_300, "{a}:b*?[c]"):
            assert steps.acquire("a", question).mine
            assert not steps.acquire("b", question).mine
