"""Time, as receivers spend it: senders whose clocks are wrong, deliveries that are slow, hosts that end us."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from optimove_conditional_execution import (
    AsyncOptimoveClient,
    ConfigurationError,
    Deadline,
    OptimoveClient,
    Response,
    WebhookNotification,
)
from optimove_conditional_execution.testing import notification, signed_request
from tests.conftest import Looking
from tests.receivers.conftest import MakeRig, Rig


def yes(notification: WebhookNotification, deadline: Deadline) -> bool:
    return True


class TestTheSendersClock:
    @staticmethod
    def kinds(made: Rig, aheads: list[float]) -> list[str]:
        for ahead in aheads:
            made.notify(timestamp_ms=round((time.time() + ahead) * 1000), timeout_ms=30_000)
        return [outcome.kind for outcome in made.outcomes]

    def test_set_right_after_it_was_ahead(self, rig: MakeRig) -> None:
        assert set(self.kinds(rig(yes), [60.0] * 20 + [0.0] * 10)) == {"approved"}

    def test_of_two_servers_one_is_ahead(self, rig: MakeRig) -> None:
        assert set(self.kinds(rig(yes), [60.0, 0.0] * 10)) == {"approved"}

    def test_set_behind_by_more_than_the_budget(self, rig: MakeRig) -> None:
        behind = rig(yes, wall_clock=lambda: time.time() - 60.0)  # by which the stand-in tells what comes too late
        kinds = self.kinds(behind, [0.0] * 10 + [-60.0] * 10)
        assert kinds == ["approved"] * 10 + ["expired"] * 2 + ["approved"] * 8


@pytest.mark.parametrize("kind", ["sync", "async with a coroutine"])
def test_one_slow_delivery_takes_no_thinking_time_from_the_next(rig: MakeRig, kind: str) -> None:
    slow = [1.0]  # seconds of each delivery to come; then they are quick

    def answer(request: httpx.Request) -> httpx.Response:
        if slow:
            time.sleep(slow.pop())
        return httpx.Response(200)

    transport = httpx.MockTransport(answer)
    client: Any
    if kind == "sync":
        client = OptimoveClient(
            "k", base_url="https://api5.optimove.net", http_client=httpx.Client(transport=transport)
        )
    else:
        http_client = httpx.AsyncClient(transport=transport)
        client = AsyncOptimoveClient("k", base_url="https://api5.optimove.net", http_client=http_client)
    reserves: list[float] = []

    def look(notification: WebhookNotification, deadline: Deadline) -> bool:
        left = notification.conditional_execution_approval_deadline / 1_000 - time.time()
        reserves.append(left - deadline.remaining())
        return True

    made = rig(look, client=client)
    for _ in range(9):
        made.send(notification(timeout_ms=5_000))
    assert [outcome.kind for outcome in made.outcomes] == ["approved"] * 9
    assert made.outcomes[0].deliver_seconds >= 1.0
    assert max(reserves) < 1.0, "the slow one counted"


class TestAHostThatEndsUs:
    """What AWS Lambda does; `handle(request, deadline=...)`."""

    @staticmethod
    def ask(made: Rig, seconds: float, **options: Any) -> Response:
        payload = notification(timeout_ms=30_000, **options)
        if not any(question.request_uid == payload["request_uid"] for question in made.optimove.notifications.values()):
            made.optimove.expect(payload)
        request = signed_request(payload, secret=made.optimove.secret)
        return made.handle(request, deadline=Deadline.after(seconds))

    def test_its_deadline_less_the_reserve_is_the_handlers(self, rig: MakeRig) -> None:
        looking = Looking()
        made = rig(looking)
        assert self.ask(made, 12.0).status == 200
        assert 0 < looking.left[0] <= 11.5
        assert made.outcome.kind == "approved"
        assert made.outcome.budget_seconds == pytest.approx(30.0, abs=1.0)  # that is Optimove's

    def test_a_later_one_changes_nothing(self, rig: MakeRig) -> None:
        looking = Looking()
        made = rig(looking)
        assert self.ask(made, 900.0).status == 200
        assert 12.0 < looking.left[0] <= 29.5

    def test_a_late_handler_is_left_before_it(self, rig: MakeRig) -> None:
        def slow(notification: WebhookNotification, deadline: Deadline) -> bool:
            time.sleep(deadline.remaining() + 0.05)
            return True

        made = rig(slow, on_failure="deny", reserve=1.0)  # half of the time, for a busy machine
        before = time.monotonic()
        assert self.ask(made, 1.5).status == 200
        assert time.monotonic() - before < 15.0
        assert (made.outcome.kind, [approval["approved"] for approval in made.approvals()]) == ("late", [False])

    def test_an_answer_that_is_not_taken_is_given_up_at_it(self, rig: MakeRig) -> None:
        made = rig(yes)
        made.optimove.answer_next(*[Response(503)] * 100_000)
        before = time.monotonic()
        assert self.ask(made, 1.5).status == 503
        assert time.monotonic() - before < 15.0
        assert made.outcome.kind == "undelivered"

    def test_when_it_leaves_no_time_a_repeat_may_be_asked_about(self, rig: MakeRig) -> None:
        looking = Looking()
        made = rig(looking)
        assert self.ask(made, 0.0, request_uid="r-1").status == 503
        assert (made.outcome.kind, looking.left) == ("failed", [])
        assert made.outcome.error is not None
        assert "deadline" in made.outcome.error
        assert self.ask(made, 20.0, request_uid="r-1").status == 200
        assert made.outcomes[1].kind == "approved"

    def test_one_that_had_expired_anyway_is_expired(self, rig: MakeRig) -> None:
        made = rig(yes)
        request = signed_request(notification(timeout_ms=0), secret=made.optimove.secret)
        assert made.handle(request, deadline=Deadline.after(0.0)).status == 200
        assert made.outcome.kind == "expired"

    def test_a_number_is_no_deadline(self, rig: MakeRig) -> None:
        made = rig(yes)
        with pytest.raises(ConfigurationError, match="deadline"):
            made.handle(signed_request(notification(), secret=made.optimove.secret), deadline=1.5)
