"""A context manager around each call of an integrator's function."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from optimove_conditional_execution import (
    AsyncListenerReceiver,
    AsyncWebhookReceiver,
    ConfigurationError,
    ListenerReceiver,
    Outcome,
    WebhookReceiver,
)
from optimove_conditional_execution.testing import FakeOptimove
from tests.receivers.conftest import MakeRig
from tests.receivers.test_listener import TOKEN, post, ready


class Recorder:
    """Notes in which order things happen, and in which threads."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.threads: set[int] = set()

    def note(self, step: str) -> None:
        self.steps.append(step)
        self.threads.add(threading.get_ident())

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        self.note("enter")
        try:
            yield
        finally:
            self.note("exit")

    @contextlib.asynccontextmanager
    async def aaround(self) -> AsyncIterator[None]:
        self.note("enter")
        try:
            yield
        finally:
            await asyncio.sleep(0)
            self.note("exit")

    def handler(self, notification: Any, deadline: Any) -> bool:
        self.note("handler")
        return True


def test_it_is_entered_and_left_around_each_call_in_the_thread_that_runs_it(rig: MakeRig) -> None:
    recorder = Recorder()
    made = rig(recorder.handler, around=recorder.around)
    assert made.notify().approved
    assert made.notify().approved
    assert recorder.steps == ["enter", "handler", "exit"] * 2
    assert len(recorder.threads) == 1


def test_a_handler_that_raises_leaves_it(rig: MakeRig) -> None:
    recorder = Recorder()

    def handler(notification: Any, deadline: Any) -> bool:
        raise ConnectionError

    made = rig(handler, around=recorder.around)
    assert not made.notify().approved
    assert made.outcome.kind == "failed"
    assert (made.outcome.error or "").startswith("The handler raised: ConnectionError at test_around.py")
    assert recorder.steps == ["enter", "exit"]


@pytest.mark.parametrize("on_failure", ["abstain", "deny"])
def test_what_it_raises_on_its_way_in_or_out_fails_the_call(rig: MakeRig, on_failure: str) -> None:
    recorder = Recorder()

    class Entering:
        def __enter__(self) -> None:
            raise ConnectionError

        def __exit__(self, *error: object) -> None: ...

    @contextlib.contextmanager
    def leaving() -> Iterator[None]:
        yield
        raise ConnectionError

    def making() -> Any:
        raise ConnectionError

    for around, asked in ((Entering, 0), (leaving, 1), (making, 0)):
        recorder.steps.clear()
        made = rig(recorder.handler, around=around, on_failure=on_failure)
        question = made.notify()
        assert not question.approved
        assert made.outcome.kind == "failed"
        assert "ConnectionError" in (made.outcome.error or "")
        assert [approval["approved"] for approval in made.approvals()] == ([False] if on_failure == "deny" else [])
        assert len(recorder.steps) == asked


@pytest.mark.parametrize("error", [ConnectionError(), SystemExit(0), asyncio.CancelledError()])
def test_a_failure_that_it_suppresses_is_one_all_the_same(rig: MakeRig, error: BaseException) -> None:
    def handler(notification: Any, deadline: Any) -> bool:
        raise error

    made = rig(handler, around=lambda: contextlib.suppress(BaseException))
    assert not made.notify().approved
    assert made.outcome.kind == "failed"
    assert type(error).__name__ in (made.outcome.error or "")


def test_its_time_is_the_handlers(rig: MakeRig) -> None:
    @contextlib.contextmanager
    def slow() -> Iterator[None]:
        time.sleep(0.4)
        yield

    made = rig(Recorder().handler, around=slow, reserve=0.05)
    assert not made.notify(timeout_ms=300).approved
    assert made.outcome.kind in {"late", "expired"}


def test_a_coroutine_function_takes_an_asynchronous_one() -> None:
    recorder = Recorder()

    async def handler(notification: Any, deadline: Any) -> bool:
        await asyncio.sleep(0)
        return recorder.handler(notification, deadline)

    async def late(notification: Any, deadline: Any) -> bool:
        await asyncio.sleep(30)
        return True

    async def main() -> None:
        optimove = FakeOptimove()
        outcomes: list[Outcome] = []
        for function, timeout_ms in ((handler, 20_000), (late, 1_000)):
            receiver = AsyncWebhookReceiver(
                function,
                client=optimove.async_client(),
                secrets=optimove.secrets,
                around=recorder.aaround,
                on_outcome=outcomes.append,
            )
            await optimove.anotify(receiver, timeout_ms=timeout_ms)
        await asyncio.sleep(0.05)
        assert [outcome.kind for outcome in outcomes] == ["approved", "late"]

    asyncio.run(main())
    assert recorder.steps == ["enter", "handler", "exit", "enter", "exit"]


@pytest.mark.parametrize("kind", ["sync", "async with a function"])
def test_what_would_run_outside_of_it_is_refused(rig: MakeRig) -> None:
    async def hidden() -> bool:
        return True

    recorder = Recorder()
    made = rig(lambda notification, deadline: hidden(), around=recorder.around)
    assert not made.notify().approved
    assert "must itself be a coroutine function" in (made.outcome.error or "")
    made = rig(recorder.handler, around=recorder.aaround)
    assert not made.notify().approved
    assert "around= must return a context manager for a plain function" in (made.outcome.error or "")


def test_what_makes_no_context_manager_is_refused_at_once() -> None:
    optimove = FakeOptimove()

    async def coroutine() -> Any: ...

    wrong: Any
    for wrong in ("x", 5, contextlib.nullcontext(), lambda one: one, coroutine):
        with pytest.raises(ConfigurationError, match="around must"):
            WebhookReceiver(lambda n, d: True, client=optimove.client(), secrets="s", around=wrong)
        with pytest.raises(ConfigurationError, match="around must"):
            ListenerReceiver(lambda event: None, token=TOKEN, around=wrong)


@pytest.mark.parametrize("kind", ["sync", "async", "async with a coroutine"])
def test_listeners_have_it_too(kind: str) -> None:
    recorder = Recorder()

    async def coroutine(event: Any) -> None:
        recorder.note("taken")

    def function(event: Any) -> None:
        recorder.note("taken")

    options: dict[str, Callable[..., Any]] = {"around": recorder.around}
    if kind == "sync":
        status = ListenerReceiver(function, token=TOKEN, answer_within=30, **options).handle(post(ready())).status  # type: ignore[arg-type]
    else:
        handed: Any = coroutine if kind == "async with a coroutine" else function
        receiver: Any = AsyncListenerReceiver(handed, token=TOKEN, answer_within=30, **options)  # type: ignore[arg-type]
        status = asyncio.run(receiver.handle(post(ready()))).status
    assert status == 200
    assert recorder.steps == ["enter", "taken", "exit"]
    assert len(recorder.threads) == 1
