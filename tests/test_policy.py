"""Rules from parts: all must say yes, and whatever goes wrong is not a yes."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from optimove_conditional_execution import (
    AsyncWebhookReceiver,
    CampaignCustomer,
    ConfigurationError,
    Deadline,
    Decision,
    Outcome,
    WebhookNotification,
    WebhookReceiver,
    policy,
)
from optimove_conditional_execution.policy import Answer, Policy
from optimove_conditional_execution.testing import FakeOptimove, notification

Check = Callable[..., Any]


def asked(user_id: str = "C1") -> WebhookNotification:
    return WebhookNotification.from_json(json.dumps(notification(user_id=user_id)).encode())


def customers(count: int) -> list[CampaignCustomer]:
    return [CampaignCustomer(customer_id=f"C{number}") for number in range(count)]


def awaited(function: Check) -> Check:
    """Return the same check as a coroutine function."""

    async def check(asked: Any, deadline: Deadline) -> Any:
        return function(asked, deadline)

    return check


def yes(asked: Any, deadline: Deadline) -> bool:
    return True


def no(asked: Any, deadline: Deadline) -> bool:
    return False


def broken(asked: Any, deadline: Deadline) -> bool:
    raise ConnectionError("C1 cannot be looked up")


async def hangs_awaited(asked: Any, deadline: Deadline) -> bool:
    await asyncio.sleep(60)
    return True


@pytest.fixture
def hangs() -> Iterator[Check]:
    """A check that waits for the end of the test."""
    over = threading.Event()

    def check(asked: Any, deadline: Deadline) -> bool:
        over.wait(60)
        return True

    yield check
    over.set()


def decide(rules: Policy, *, within: float = 30.0, user_id: str = "C1") -> Decision:
    """Decide in both colours, if possible, and compare."""
    decided = asyncio.run(rules.async_handler(asked(user_id), Deadline.after(within)))
    assert isinstance(decided, Decision)
    try:
        plain = rules.handler(asked(user_id), Deadline.after(within))
    except ConfigurationError:
        return decided
    assert (plain.verdict, plain.reason) == (decided.verdict, decided.reason)
    return plain


def told(decision: Decision) -> dict[str, str]:
    return {name: each["answer"] for name, each in decision.evidence["checks"].items()}


@pytest.mark.parametrize("colour", [lambda check: check, awaited])
def test_all_must_say_yes(colour: Callable[[Check], Check]) -> None:
    rules = policy.all_of(consent=colour(yes), limits=colour(yes))
    decision = decide(rules)
    assert (decision.verdict, decision.reason) == ("approve", None)
    assert told(decision) == {"consent": "yes", "limits": "yes"}
    assert decision.additional_data == {}
    decision = decide(policy.all_of(consent=colour(yes), self_exclusion=colour(no)))
    assert (decision.verdict, decision.reason) == ("deny", "self_exclusion")
    assert told(decision)["self_exclusion"] == "no"


@pytest.mark.parametrize("colour", [lambda check: check, awaited])
def test_a_check_that_fails_is_a_no(colour: Callable[[Check], Check]) -> None:
    decision = decide(policy.all_of(consent=colour(yes), register=colour(broken)))
    assert (decision.verdict, decision.reason) == ("deny", "register: failed")
    assert decision.evidence["checks"]["register"]["reason"] == "ConnectionError"
    assert "C1" not in str(decision.evidence)
    decision = decide(policy.all_of(consent=colour(yes), register=policy.check(colour(broken), on_failure="abstain")))
    assert (decision.verdict, decision.reason) == ("abstain", "register: failed")


@pytest.mark.parametrize("is_plain", [True, False])
def test_a_check_that_is_late_is_a_no(hangs: Check, is_plain: bool) -> None:
    check = hangs if is_plain else hangs_awaited
    started = time.monotonic()
    decision = decide(policy.all_of(consent=yes, register=check), within=0.6)
    assert time.monotonic() - started < 30
    assert (decision.verdict, decision.reason) == ("deny", "register: late")
    assert told(decision) == {"consent": "yes", "register": "late"}
    decision = decide(policy.all_of(consent=yes, register=policy.check(check, on_failure="abstain")), within=0.6)
    assert (decision.verdict, decision.reason) == ("abstain", "register: late")


def test_the_first_no_wins_and_the_others_are_not_awaited() -> None:
    ended = threading.Event()

    def slow(asked: Any, deadline: Deadline) -> bool:
        ended.wait(20)
        return True

    rules = policy.all_of(slow=slow, excluded=no)
    decision = rules.handler(asked(), Deadline.after(20))
    assert (decision.verdict, decision.reason) == ("deny", "excluded")
    assert told(decision) == {"slow": "not awaited", "excluded": "no"}
    decision = asyncio.run(rules.async_handler(asked(), Deadline.after(20)))
    assert told(decision) == {"slow": "not awaited", "excluded": "no"}
    ended.set()


def test_the_checks_run_at_the_same_time() -> None:
    met = threading.Barrier(3, timeout=20)

    def meets(asked: Any, deadline: Deadline) -> bool:
        met.wait()
        return True

    rules = policy.all_of(one=meets, two=meets, three=meets)
    assert rules.handler(asked(), Deadline.after(20)).verdict == "approve"
    assert asyncio.run(rules.async_handler(asked(), Deadline.after(20))).verdict == "approve"


def test_a_no_outweighs_an_abstention() -> None:
    def abstains(asked: Any, deadline: Deadline) -> Decision:
        return Decision.abstain("not ours")

    decision = decide(policy.all_of(ours=abstains, consent=yes))
    assert (decision.verdict, decision.reason) == ("abstain", "ours")
    assert decision.evidence["checks"]["ours"]["reason"] == "not ours"
    assert decide(policy.all_of(ours=abstains, consent=no)).verdict == "deny"


@pytest.mark.parametrize("answer", [None, 1, "yes", [], {"C1": True}, ["C1"]])
def test_only_true_is_a_yes(answer: object) -> None:
    decision = decide(policy.all_of(consent=lambda asked, deadline: answer))
    assert (decision.verdict, decision.reason) == ("deny", "consent: failed")
    assert decision.evidence["checks"]["consent"]["reason"] == f"returned a {type(answer).__name__}"


def test_a_missing_await_is_not_a_yes() -> None:
    async def consent(asked: Any, deadline: Deadline) -> bool:
        return True

    decision = decide(policy.all_of(consent=lambda asked, deadline: consent(asked, deadline)))
    assert decision.reason == "consent: failed"


def test_an_answer_has_no_truth_value() -> None:
    with pytest.raises(TypeError, match="no truth value"):
        bool(Answer(False))
    with pytest.raises(ConfigurationError, match="must be True or False, not a str"):
        Answer("yes")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="must have a zone"):
        Answer(True, as_of=datetime(2026, 3, 3))


HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("age", "state"),
    [(timedelta(), "yes"), (23 * HOUR, "yes"), (25 * HOUR, "stale"), (-HOUR, "stale"), (None, "stale")],
)
def test_knowledge_from_a_cache_may_be_so_old(age: timedelta | None, state: str) -> None:
    as_of = None if age is None else datetime.now(UTC) - age

    def rofus(asked: Any, deadline: Deadline) -> Answer:
        return Answer(True, as_of=as_of, version="r7", reference="R/1")

    for max_age in (24 * HOUR, 24 * 3600.0):
        decision = decide(policy.all_of(rofus=policy.check(rofus, max_age=max_age)))
        assert told(decision) == {"rofus": state}
        assert decision.verdict == ("approve" if state == "yes" else "deny")
        seen = decision.evidence["checks"]["rofus"]
        assert (seen["version"], seen["reference"]) == ("r7", "R/1")
        assert seen.get("as_of") == (None if as_of is None else as_of.isoformat())


def test_an_old_no_is_a_no() -> None:
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    rules = policy.all_of(
        rofus=policy.check(lambda asked, deadline: Answer(False, as_of=long_ago), max_age=1, on_failure="abstain")
    )
    assert (decide(rules).verdict, decide(rules).reason) == ("deny", "rofus")


def test_the_evidence_holds_times_and_versions() -> None:
    rules = policy.all_of(consent=policy.check(yes, version="4"), limits=yes)
    seen = decide(rules).evidence["checks"]
    assert seen["consent"]["version"] == "4"
    assert "version" not in seen["limits"]
    assert all(0 <= each["seconds"] < 5 for each in seen.values())


# ---- registers that take many ids a call


def register(calls: list[tuple[str, ...]], known: dict[str, object]) -> policy.Check:
    @policy.chunked(3)
    def excluded(ids: Sequence[str], deadline: Deadline) -> dict[str, object]:
        calls.append(tuple(ids))
        return known

    return excluded


def test_a_register_takes_so_many_ids_a_call() -> None:
    calls: list[tuple[str, ...]] = []
    rules = policy.all_of(register=register(calls, {"C0": True, "C1": False, "C7": True, "C9": True}))
    for review in (
        rules.reviewer,
        lambda batch, deadline: asyncio.run(rules.async_reviewer(batch, deadline)),
    ):
        decided = review(customers(8), Deadline.after(20))
        assert sorted(calls) == [("C0", "C1", "C2"), ("C3", "C4", "C5"), ("C6", "C7")]
        calls.clear()
        assert list(decided) == [f"C{number}" for number in range(8)]
        assert [one for one, each in decided.items() if each.verdict == "approve"] == ["C0", "C7"]
        assert decided["C1"].reason == "register"
        # One that the register does not know is not a yes.
        assert (decided["C2"].verdict, decided["C2"].reason) == ("deny", "register: unknown")
    assert decide(rules, user_id="C7").verdict == "approve"
    assert decide(rules, user_id="C8").reason == "register: unknown"
    assert calls == [("C7",), ("C7",), ("C8",), ("C8",)]


def test_a_register_may_return_those_who_may() -> None:
    @policy.chunked(100)
    def active(ids: Sequence[str], deadline: Deadline) -> set[str]:
        return {"C1", "C2", "C77"}

    decided = policy.all_of(active=active).reviewer(customers(4), Deadline.after(20))
    assert {one: each.verdict for one, each in decided.items()} == {
        "C0": "deny", "C1": "approve", "C2": "approve", "C3": "deny",
    }  # fmt: skip


@pytest.mark.parametrize("answer", [None, "C1", b"C1", True, 7])
def test_a_register_that_returns_something_else_has_failed(answer: object) -> None:
    rules = policy.all_of(register=policy.chunked(10)(lambda ids, deadline: answer))
    decided = rules.reviewer(customers(2), Deadline.after(20))
    assert {each.reason for each in decided.values()} == {"register: failed"}


def test_a_call_that_fails_fails_its_chunk_alone() -> None:
    @policy.chunked(2)
    async def flaky(ids: Sequence[str], deadline: Deadline) -> dict[str, bool]:
        if "C2" in ids:
            raise TimeoutError
        return dict.fromkeys(ids, True)

    rules = policy.all_of(flaky=policy.check(flaky, on_failure="abstain", version="2"), ours=yes)
    decided = asyncio.run(rules.async_reviewer(customers(5), Deadline.after(20)))
    assert [each.verdict for each in decided.values()] == ["approve", "approve", "abstain", "abstain", "approve"]
    assert decided["C2"].evidence["checks"]["flaky"]["version"] == "2"


class Breaks(dict[str, bool]):
    def get(self, *_: object) -> bool:
        raise KeyError("C0")


@pytest.mark.parametrize("colour", [lambda check: check, awaited])
@pytest.mark.parametrize("odd", [[["C0"]], Breaks()])
def test_an_answer_that_cannot_be_read_fails_its_chunk_alone(colour: Callable[[Check], Check], odd: object) -> None:
    def register(ids: Sequence[str], deadline: Deadline) -> object:
        return odd if "C0" in ids else set(ids)

    rules = policy.all_of(register=policy.check(policy.chunked(1)(colour(register)), concurrency=1))
    decided = asyncio.run(rules.async_reviewer(customers(3), Deadline.after(20)))
    assert [each.verdict for each in decided.values()] == ["deny", "approve", "approve"]
    assert decided["C0"].reason == "register: failed"


@pytest.mark.parametrize("colour", [lambda check: check, awaited])
def test_a_check_of_one_is_asked_about_each_customer_of_a_batch(colour: Callable[[Check], Check]) -> None:
    def odd(customer: CampaignCustomer, deadline: Deadline) -> bool:
        return int(customer.customer_id[1:]) % 2 == 1

    rules = policy.all_of(odd=colour(odd), consent=yes)
    decided = asyncio.run(rules.async_reviewer(customers(100), Deadline.after(20)))
    assert [one for one, each in decided.items() if each.verdict == "approve"] == [f"C{n}" for n in range(1, 100, 2)]


def test_what_is_not_reached_in_a_batch_is_late() -> None:
    def slow(customer: CampaignCustomer, deadline: Deadline) -> bool:
        time.sleep(0.1)
        return True

    rules = policy.all_of(slow=policy.check(slow, concurrency=1))
    decided = rules.reviewer(customers(50), Deadline.after(0.5))
    states = [each.evidence["checks"]["slow"]["answer"] for each in decided.values()]
    assert states[-1] == "late"
    assert {each.verdict for each in decided.values() if each.reason == "slow: late"} == {"deny"}
    assert states.count("yes") < 10


def test_at_most_so_many_calls_at_once() -> None:
    lock, busy, most = threading.Lock(), 0, 0

    def counted(customer: CampaignCustomer, deadline: Deadline) -> bool:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.001)
        with lock:
            busy -= 1
        return True

    policy.all_of(counted=policy.check(counted, concurrency=3)).reviewer(customers(60), Deadline.after(20))
    assert most <= 3


def test_a_register_that_hangs_keeps_only_its_own_threads() -> None:
    ended = threading.Event()

    def waits(asked: Any, deadline: Deadline) -> bool:
        ended.wait(60)
        return True

    rules = policy.all_of(waits=policy.check(waits, on_failure="abstain"), excluded=no)
    try:
        decisions = [rules.handler(asked(), Deadline.after(20)) for _ in range(105)]
    finally:
        ended.set()
    assert {each.reason for each in decisions} == {"excluded"}


# ---- mounted


def test_in_receivers() -> None:
    optimove = FakeOptimove()
    outcomes: list[Outcome] = []
    rules = policy.all_of(register=register([], {"C1": True, "C2": False}), consent=yes)
    receiver = WebhookReceiver(
        rules.handler, client=optimove.client(), secrets="fake-secret", on_outcome=outcomes.append
    )
    for user in ("C1", "C2", "C3"):
        optimove.notify(receiver, user_id=user)
    assert [outcome.kind for outcome in outcomes] == ["approved", "denied", "denied"]
    assert [outcome.decision.reason for outcome in outcomes if outcome.decision is not None] == [
        None, "register", "register: unknown",
    ]  # fmt: skip


def test_colours() -> None:
    rules = policy.all_of(consent=awaited(yes))
    for name in ("handler", "reviewer"):
        with pytest.raises(ConfigurationError, match=f"The check consent is a coroutine function: use async_{name}"):
            getattr(rules, name)
    assert inspect.iscoroutinefunction(rules.async_handler)
    assert inspect.iscoroutinefunction(rules.async_reviewer)
    AsyncWebhookReceiver(rules.async_handler, client=FakeOptimove().async_client(), secrets="fake-secret")


def test_settings_that_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="at least one check"):
        policy.all_of()
    with pytest.raises(ConfigurationError, match="consent must take two arguments, the notification or customer and"):
        policy.all_of(consent=lambda customer: True)  # type: ignore[arg-type, misc]
    with pytest.raises(ConfigurationError, match="register must take two arguments, the sequence of ids and"):
        policy.all_of(register=policy.chunked(5)(lambda: True))  # type: ignore[arg-type, misc]
    with pytest.raises(ConfigurationError, match="consent must be a function"):
        policy.all_of(consent=True)  # type: ignore[arg-type]
    for size in (0, True, 1.5):
        with pytest.raises(ConfigurationError, match="size must be"):
            policy.chunked(size)  # type: ignore[arg-type]
    for settings in ({"max_age": 0}, {"max_age": "1 h"}, {"on_failure": "approve"}, {"concurrency": 0}):
        with pytest.raises(ConfigurationError, match=next(iter(settings))):
            policy.check(yes, **settings)
