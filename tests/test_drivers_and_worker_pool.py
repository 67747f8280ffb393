"""The drivers perform what flows want, in both colours alike; pools are bounded and never in the way."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest

from optimove_conditional_execution import Deadline, Endpoint, Operation
from optimove_conditional_execution.drivers import Pools, arun, run
from optimove_conditional_execution.flows.effects import Ask, Call, Late, Overloaded
from optimove_conditional_execution.validation import is_async
from optimove_conditional_execution.worker_pool import DaemonThreadPool
from tests.conftest import child_status, forked, forked_untold

AnyFlow = Generator[Any, Any, Any]


def drive_sync(flow: AnyFlow, **options: Any) -> Any:
    return run(flow, pools=Pools.of(2), **options)


def drive_async(flow: AnyFlow, **options: Any) -> Any:
    call = options.pop("call", None)

    async def acall(operation: Operation[Any]) -> Any:
        return call(operation)

    return asyncio.run(arun(flow, pools=Pools.of(2), call=acall if call else None, **options))


@pytest.fixture(params=[drive_sync, drive_async], ids=["sync", "async"])
def drive(request: pytest.FixtureRequest) -> Callable[..., Any]:
    driver: Callable[..., Any] = request.param
    return driver


def test_answers_and_errors_are_sent_back(drive: Callable[..., Any]) -> None:
    def flow() -> AnyFlow:
        seen = [(yield Ask(max, (1, 2)))]
        try:
            yield Ask(int, ("x",))
        except ValueError:
            seen.append("raised")
        seen.append((yield Ask(max, (3, 4), Deadline.after(10))))
        try:
            yield Ask(int, ("y",), Deadline.after(10))
        except ValueError:
            seen.append("raised in a pool")
        return seen

    assert drive(flow()) == [2, "raised", 4, "raised in a pool"]


def test_calls_go_to_the_client(drive: Callable[..., Any]) -> None:
    operation = Operation("x", Endpoint("GET", "/"), lambda response: None)

    def flow() -> AnyFlow:
        return (yield Call(operation))

    assert drive(flow(), call=lambda sent: sent) is operation


def test_stop_iteration_of_the_users_code_does_not_end_the_flow(drive: Callable[..., Any]) -> None:
    def flow() -> AnyFlow:
        try:
            yield Ask(next, (iter(()),), Deadline.after(10))
        except RuntimeError as error:
            return str(error)

    assert drive(flow()) == "StopIteration"


def test_late_and_overloaded(drive: Callable[..., Any]) -> None:
    go_on = threading.Event()
    kinds: list[type] = []

    def flow() -> AnyFlow:
        for _ in range(3):
            try:
                # Long enough for a thread of a busy machine to begin: a call that has not by then never does.
                yield Ask(go_on.wait, (60,), Deadline.after(0.6))
            except (Late, Overloaded) as error:
                kinds.append(type(error))

    drive(flow())
    go_on.set()
    assert kinds == [Late, Late, Overloaded]


@pytest.mark.parametrize("kind", ["function", "coroutine"])
def test_a_flow_that_runs_while_a_call_goes_on(drive: Callable[..., Any], kind: str) -> None:
    enough = threading.Event()
    ran: list[float] = []

    def function() -> str:
        return "done" if enough.wait(30) else "never"

    async def coroutine() -> str:
        return await asyncio.to_thread(function)

    def meanwhile() -> AnyFlow:
        ran.append((yield Ask(time.monotonic, (), Deadline.after(10), "store")))
        if len(ran) == 3:
            enough.set()

    def flow() -> AnyFlow:
        called = coroutine if kind == "coroutine" and drive is drive_async else function
        return (yield Ask(called, (), Deadline.after(60), meanwhile=meanwhile, every=0.05))

    assert drive(flow()) == "done"
    assert len(ran) >= 3
    assert ran[1] - ran[0] >= 0.045


def test_it_does_not_run_when_the_call_is_quick_or_no_time_is_left(drive: Callable[..., Any]) -> None:
    ran: list[str] = []

    def meanwhile() -> AnyFlow:
        ran.append((yield Ask(str, ("ran",))))

    def flow() -> AnyFlow:
        yield Ask(time.sleep, (0.05,), Deadline.after(60), meanwhile=meanwhile, every=30.0)
        try:
            yield Ask(time.sleep, (1.0,), Deadline.after(0.2), meanwhile=meanwhile, every=0.15)
        except Late:
            return "late"

    assert drive(flow()) == "late"
    assert ran == []


def test_a_request_that_is_cancelled_while_it_runs_abandons_the_call() -> None:
    cancelled = threading.Event()

    async def main() -> None:
        running = asyncio.Event()

        async def handler() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        async def hang() -> None:
            running.set()
            await asyncio.sleep(60)

        def meanwhile() -> AnyFlow:
            yield Ask(hang)

        def flow() -> AnyFlow:
            yield Ask(handler, (), Deadline.after(60), meanwhile=meanwhile, every=0.01)

        task = asyncio.ensure_future(arun(flow(), pools=Pools.of(2)))
        await running.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)

    asyncio.run(main())
    assert cancelled.is_set()


def test_a_flow_is_closed_when_it_raises(drive: Callable[..., Any]) -> None:
    closed: list[bool] = []

    def flow() -> AnyFlow:
        try:
            yield Ask(int, ("x",))
        finally:
            closed.append(True)

    with pytest.raises(ValueError, match="invalid literal"):
        drive(flow())
    assert closed == [True]


def test_coroutines_are_awaited_in_place() -> None:
    async def answer() -> int:
        return 5

    def flow() -> AnyFlow:
        return ((yield Ask(answer)), (yield Ask(answer, within=Deadline.after(10))))

    assert drive_async(flow()) == (5, 5)


def test_a_coroutine_that_ignores_its_cancellation_is_left_behind() -> None:
    over, ended = threading.Event(), threading.Event()

    async def stubborn() -> None:
        for _ in range(1_200):
            if over.is_set():
                break
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue
        ended.set()

    def flow() -> AnyFlow:
        try:
            yield Ask(stubborn, within=Deadline.after(0.05))
        except Late:
            return "late"

    async def main() -> None:
        assert await arun(flow(), pools=Pools.of(1)) == "late"
        assert not ended.is_set()
        over.set()

    asyncio.run(main())


def test_cancelling_the_request_cancels_the_handler_and_reaches_the_flow() -> None:
    seen: list[str] = []

    async def handler() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("handler")
            raise

    def flow() -> AnyFlow:
        try:
            yield Ask(handler, within=Deadline.after(60))
        except BaseException:
            seen.append((yield Ask(lambda: "flow cleaned up")))
            raise

    async def main() -> None:
        task = asyncio.ensure_future(arun(flow(), pools=Pools.of(1)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert sorted(seen) == ["flow cleaned up", "handler"]


def test_a_handler_that_cancels_itself_fails() -> None:
    async def handler() -> None:
        raise asyncio.CancelledError

    def flow() -> AnyFlow:
        try:
            yield Ask(handler, within=Deadline.after(10))
        except RuntimeError as error:
            return str(error)

    assert drive_async(flow()) == "CancelledError"


def test_a_handler_that_raises_generator_exit_fails() -> None:
    async def handler() -> None:
        raise GeneratorExit

    def flow() -> AnyFlow:
        try:
            yield Ask(handler, within=Deadline.after(10))
        except RuntimeError as error:
            return str(error)

    assert drive_async(flow()) == "GeneratorExit"


@pytest.mark.parametrize("waits", [False, True])
def test_where_tasks_begin_in_the_next_turn_only_a_handler_that_waits_has_a_timer(
    monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    timers: list[Any] = []

    async def handler() -> str:
        if waits:
            await asyncio.to_thread(int)
        return "answered"

    def flow() -> AnyFlow:
        return (yield Ask(handler, within=Deadline.after(60)))

    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coroutine, **options: asyncio.Task(coroutine, loop=loop, **options))
        call_at = loop.call_at

        def counted(*arguments: Any, **options: Any) -> asyncio.TimerHandle:
            timers.append(arguments)
            return call_at(*arguments, **options)

        monkeypatch.setattr(loop, "call_at", counted)
        answer: str = await arun(flow(), pools=Pools.of(1))
        return answer

    assert asyncio.run(main()) == "answered"
    assert bool(timers) is waits


def test_a_request_that_is_cancelled_in_the_turn_in_which_its_handler_begins() -> None:
    seen: list[str] = []

    async def handler() -> None:
        seen.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            seen.append("ended")

    def flow() -> AnyFlow:
        yield Ask(handler, within=Deadline.after(60))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(lambda loop, coroutine, **options: asyncio.Task(coroutine, loop=loop, **options))
        pools = Pools.of(1)
        task = asyncio.ensure_future(arun(flow(), pools=pools))
        loop.call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        for _ in range(5):  # turns of the event loop, in which the handler is cancelled and its place given back
            await asyncio.sleep(0)
        pools.handler.acquire()

    asyncio.run(main())
    assert seen == ["begun", "ended"]


def test_what_is_async() -> None:
    async def function() -> None: ...

    class Object:
        async def __call__(self) -> None: ...

    import functools
    from unittest.mock import AsyncMock, MagicMock

    assert all(map(is_async, (function, Object(), functools.partial(function), AsyncMock())))
    assert not any(map(is_async, (print, MagicMock(), functools.partial(print), Object)))


# ---- pools


def test_a_pool_never_has_more_threads_than_workers() -> None:
    pool = DaemonThreadPool(3, on_full="queue", name="test-queue")
    at_once: list[int] = []
    running = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal running
        with lock:
            running += 1
            at_once.append(running)
        time.sleep(0.005)
        with lock:
            running -= 1

    futures = [pool.submit(work, ()) for _ in range(60)]
    for future in futures:
        future.result(10)
    assert max(at_once) <= 3
    assert sum(thread.name == "test-queue" for thread in threading.enumerate()) <= 3


def test_a_pool_refuses_when_it_is_full() -> None:
    pool = DaemonThreadPool(2, on_full="refuse", name="test-refuse")
    go_on = threading.Event()
    futures = [pool.submit(go_on.wait, (10,)) for _ in range(2)]
    with pytest.raises(Overloaded):
        pool.submit(print, ())
    with pytest.raises(Overloaded):
        pool.acquire()
    go_on.set()
    assert all(future.result(10) for future in futures)
    assert pool.submit(max, (1, 2)).result(10) == 2


@pytest.mark.parametrize("on_full", ["refuse", "queue"])
def test_a_shortage_of_threads_passes(monkeypatch: pytest.MonkeyPatch, on_full: Any) -> None:
    pool = DaemonThreadPool(3, on_full=on_full, name="test-shortage")

    def no_more(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more)
        for _ in range(10):
            with pytest.raises(Overloaded):
                pool.submit(max, (1, 2))
    assert [pool.submit(max, (turn, 0)).result(10) for turn in range(10)] == list(range(10))


def test_a_place_is_free_when_the_caller_learns_the_result() -> None:
    pool = DaemonThreadPool(1, on_full="refuse", name="test-handover")
    for turn in range(300):
        assert pool.submit(max, (turn, 0)).result(10) == turn


def test_context_variables_travel_into_the_thread() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    variable.set("trace-7")
    assert DaemonThreadPool(1, on_full="refuse", name="test-context").submit(variable.get, ()).result(10) == "trace-7"


@pytest.mark.parametrize("fork", [forked, forked_untold], ids=["told", "untold"])
def test_a_pool_starts_afresh_after_a_fork(fork: Callable[[], int]) -> None:
    pool = DaemonThreadPool(1, on_full="refuse", name="test-fork")
    pool.submit(max, (1, 2)).result(10)
    pool.acquire()  # taken in the parent, and not in the child
    assert child_status(lambda: pool.submit(max, (1, 2)).result(10) == 2, fork) == 0
    with pytest.raises(Overloaded):
        pool.acquire()


def test_a_hanging_handler_does_not_keep_the_process_alive() -> None:
    code = """
import time
from optimove_conditional_execution import WebhookReceiver
from optimove_conditional_execution.testing import FakeOptimove
fake = FakeOptimove(timeout_ms=100)
receiver = WebhookReceiver(lambda n, d: time.sleep(600), client=fake.client(), secrets=fake.secrets)
assert fake.notify(receiver).responses[0].status == 200
print("ended")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout == "ended\n"
