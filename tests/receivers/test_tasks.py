"""Where a coroutine handler runs: a task of its own, which is run at once until it waits for something."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import sys
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import sniffio

from optimove_conditional_execution import AsyncListenerReceiver, AsyncWebhookReceiver, Deadline, Outcome
from optimove_conditional_execution.receivers import listener
from optimove_conditional_execution.testing import (
    FakeOptimove,
    listener_request,
    notification,
    signed_request,
)

RUNS_AT_ONCE = sys.version_info >= (3, 12, 5)
LANGUAGE = contextvars.ContextVar("LANGUAGE", default="none")


class Instant:
    """A client whose answers need no waiting."""

    async def send(self, operation: Any, *, deadline: Deadline | None = None) -> None:
        return None


def own_factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    return asyncio.Task(coroutine, loop=loop, **options)


async def in_timeouts(checkpoint: Callable[[], Any]) -> bool:
    try:
        async with asyncio.timeout(0.01):
            await checkpoint()
            await asyncio.Event().wait()
    except TimeoutError:
        return True
    return False


async def in_anyio(checkpoint: Callable[[], Any]) -> bool:
    done: list[str] = []

    async def one() -> None:
        await checkpoint()
        done.append(sniffio.current_async_library())
        scope.deadline = anyio.current_time() + 0.01  # now, and not before a busy machine has come so far

    with anyio.move_on_after(30) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(one)
            group.start_soon(anyio.sleep_forever)
    return scope.cancelled_caught and done == ["asyncio"] and sniffio.current_async_library() == "asyncio"


async def in_task_groups(checkpoint: Callable[[], Any]) -> bool:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(asyncio.sleep(0, result=number)) for number in range(3)]
        await checkpoint()
    return [task.result() for task in tasks] == [0, 1, 2]


async def in_context_variables(checkpoint: Callable[[], Any]) -> bool:
    inherited = LANGUAGE.get()
    token = LANGUAGE.set("handler")
    await checkpoint()
    kept = LANGUAGE.get()
    LANGUAGE.reset(token)  # fails in another context
    return (inherited, kept, LANGUAGE.get()) == ("request", "handler", "request")


async def in_the_current_task(checkpoint: Callable[[], Any]) -> bool:
    mine = asyncio.current_task()
    await checkpoint()
    return mine is not None and mine is asyncio.current_task() and mine.get_loop() is asyncio.get_running_loop()


async def in_cancellation(checkpoint: Callable[[], Any]) -> bool:
    mine = asyncio.current_task()
    assert mine is not None
    asyncio.get_running_loop().call_soon(mine.cancel)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        await checkpoint()
        return mine.cancelling() == 1 and mine.uncancel() == 0
    return False


INSIDE = (
    in_timeouts,
    in_anyio,
    in_task_groups,
    in_context_variables,
    in_the_current_task,
    in_cancellation,
)


@pytest.mark.parametrize("factory", [None, own_factory])
@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("inside", INSIDE)
def test_what_asyncio_offers_works_in_a_handler(inside: Any, waits: bool, factory: Any) -> None:
    answers: list[bool] = []
    callers: list[object] = []

    async def checkpoint() -> None:
        if waits:
            await asyncio.sleep(0)

    async def handler(notification: Any, deadline: Any) -> bool:
        answers.append(await inside(checkpoint))
        callers.append(asyncio.current_task())
        return True

    async def main() -> tuple[int, object, str]:
        asyncio.get_running_loop().set_task_factory(factory)
        LANGUAGE.set("request")
        client: Any = Instant()
        receiver = AsyncWebhookReceiver(handler, client=client, secrets="s")
        response = await receiver.handle(signed_request(notification(), secret="s"))
        return response.status, asyncio.current_task(), LANGUAGE.get()

    status, request_task, language = asyncio.run(main())
    assert (status, answers, language) == (200, [True], "request")
    assert callers != [request_task]


@pytest.mark.parametrize(("factory", "turns"), [(None, not RUNS_AT_ONCE), (own_factory, True)])
def test_what_waits_for_nothing_needs_no_turn_of_the_event_loop(factory: Any, turns: bool) -> None:
    async def handler(notification: Any, deadline: Any) -> bool:
        return True

    async def main() -> bool:
        turned = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        client: Any = Instant()
        receiver = AsyncWebhookReceiver(handler, client=client, secrets="s")
        loop.call_soon(turned.set)
        assert (await receiver.handle(signed_request(notification(), secret="s"))).status == 200
        return turned.is_set()

    assert asyncio.run(main()) is turns


def test_a_handler_that_has_begun_to_wait_is_cancelled_at_its_deadline() -> None:
    optimove = FakeOptimove()
    ended: list[str] = []
    outcomes: list[Outcome] = []

    async def handler(notification: Any, deadline: Any) -> bool:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return True

    async def main() -> None:
        receiver = AsyncWebhookReceiver(
            handler, client=optimove.async_client(), secrets=optimove.secrets, on_outcome=outcomes.append
        )
        payload = notification(timeout_ms=1_000)
        optimove.expect(payload)
        assert (await receiver.handle(signed_request(payload, secret=optimove.secret))).status == 200
        await asyncio.sleep(0)
        assert ended == ["cancelled"]

    asyncio.run(main())
    assert [outcome.kind for outcome in outcomes] == ["late"]


async def delivered(handler: Any, *, times: int = 1, **options: Any) -> tuple[list[int], list[Outcome]]:
    """Deliver notifications one after the other to a receiver for one handler at a time."""
    outcomes: list[Outcome] = []
    client: Any = Instant()
    receiver = AsyncWebhookReceiver(
        handler, client=client, secrets="s", max_concurrency=1, on_outcome=outcomes.append, **options
    )
    responses = [await receiver.handle(signed_request(notification(), secret="s")) for _ in range(times)]
    return [response.status for response in responses], outcomes


@pytest.mark.parametrize("waits", [False, True])
def test_a_handler_sees_no_exception_of_its_caller(waits: bool) -> None:
    seen: list[BaseException | None] = []

    async def handler(notification: Any, deadline: Any) -> bool:
        seen.append(sys.exception())
        if waits:
            await asyncio.sleep(0)
        raise ValueError("the handler's")

    async def main() -> list[Outcome]:
        try:
            raise KeyError("what the request's own code handles")
        except KeyError:
            return (await delivered(handler))[1]

    (outcome,) = asyncio.run(main())
    assert seen == [None]
    assert isinstance(outcome.exception, ValueError)
    assert outcome.exception.__context__ is None


def test_a_task_that_a_handler_has_kept_can_be_looked_at_when_it_is_done() -> None:
    kept: list[asyncio.Task[Any]] = []

    async def handler(notification: Any, deadline: Any) -> bool:
        task = asyncio.current_task()
        assert task is not None
        kept.append(task)
        return True

    assert asyncio.run(delivered(handler))[0] == [200]
    (task,) = kept
    task.get_coro()  # it may be None; early versions of Python 3.12 crashed here
    assert (task.done(), task.cancel(), task.result(), task.get_stack()) == (True, False, True, [])
    assert "finished" in repr(task)


if sys.version_info >= (3, 12):  # which can mark other functions as coroutine functions

    def test_a_marked_function_that_returns_a_future_or_another_awaitable() -> None:
        reports: list[dict[str, Any]] = []

        class Later:
            def __await__(self) -> Any:
                yield from asyncio.sleep(0).__await__()
                return True

        async def main(function: Any, times: int) -> list[str]:
            asyncio.get_running_loop().set_exception_handler(lambda loop, report: reports.append(report))
            return [
                outcome.kind for outcome in (await delivered(inspect.markcoroutinefunction(function), times=times))[1]
            ]

        def future(notification: Any, deadline: Any) -> Any:
            return asyncio.ensure_future(asyncio.sleep(0, result=True))

        def exits(notification: Any, deadline: Any) -> Any:
            raise SystemExit

        assert asyncio.run(main(future, 2)) == ["approved"] * 2
        assert asyncio.run(main(lambda notification, deadline: Later(), 2)) == ["approved"] * 2
        assert asyncio.run(main(exits, 2)) == ["failed"] * 2
        assert reports == []

    def test_a_marked_function_is_not_called_while_all_handlers_are_busy() -> None:
        calls: list[object] = []

        def handler(notification: Any, deadline: Any) -> Any:
            calls.append(notification)
            return asyncio.ensure_future(asyncio.sleep(0.05, result=True))

        async def main() -> list[int]:
            client: Any = Instant()
            receiver = AsyncWebhookReceiver(
                inspect.markcoroutinefunction(handler), client=client, secrets="s", max_concurrency=1
            )
            requests = [signed_request(notification(), secret="s") for _ in range(2)]
            return [response.status for response in await asyncio.gather(*map(receiver.handle, requests))]

        assert asyncio.run(main()) == [200, 503]
        assert len(calls) == 1


def test_a_task_factory_that_fails_takes_no_place_of_a_handler() -> None:
    async def handler(notification: Any, deadline: Any) -> bool:
        return True

    async def main() -> list[Outcome]:
        loop = asyncio.get_running_loop()

        def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            if coroutine.__name__ == "arun":  # the delivery
                return own_factory(loop, coroutine, **options)
            raise MemoryError

        loop.set_task_factory(factory)
        outcomes = (await delivered(handler, times=3))[1]
        loop.set_task_factory(None)
        return outcomes

    outcomes = asyncio.run(main())
    gc.collect()  # which would warn of a coroutine that was never awaited
    assert [type(outcome.exception) for outcome in outcomes] == [MemoryError] * 3


@pytest.mark.parametrize("is_plain", [False, True])
def test_a_task_factory_that_fails_takes_no_place_of_a_listener(
    is_plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "PLACES", 1)
    called: list[int] = []

    async def coroutine(event: Any) -> None:
        called.append(1)

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()

        def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            raise MemoryError

        campaigns = [FakeOptimove().add_campaign(1, campaign_id=number + 1) for number in range(4)]
        function: Any = called.append if is_plain else coroutine
        receiver = AsyncListenerReceiver(function, token="a-token")
        requests = [listener_request(each.payload, token="a-token") for each in campaigns]
        loop.set_task_factory(factory)
        statuses: list[int] = []
        for request in requests:
            if request is requests[-1]:
                loop.set_task_factory(None)
            while receiver._pool._busy:  # with the function that was called for the event before
                await asyncio.sleep(0.01)
            statuses.append((await receiver.handle(request)).status)
        return statuses

    assert asyncio.run(main()) == [503, 503, 503, 200]
    gc.collect()  # which would warn of a coroutine that was never awaited
    assert called
