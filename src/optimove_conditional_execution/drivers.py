"""Drivers: perform the effects of a flow, with threads or with asyncio. A driver makes no decisions."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from types import CoroutineType, GeneratorType
from typing import Any, Final, TypeVar, final

from .deadline import Deadline
from .flows.effects import Ask, Call, Flow, Late, as_exception
from .validation import is_async
from .worker_pool import DaemonThreadPool, aresult_by, result_by, result_of

R = TypeVar("R")

_LAST_WORDS: Final = 2.0
"""Seconds that a pending call to a store may still take after the request is cancelled."""

_STANDSTILL: Final = 0.25
"""A timer that fires later than this many seconds means that a coroutine blocks its event loop."""

_STORE_PLACES: Final = 8
"""Threads that call a claim store; more would only queue inside it."""


@final
@dataclass(eq=False, frozen=True, slots=True)
class Pools:
    """Thread pools for effects with a deadline."""

    handler: DaemonThreadPool
    store: DaemonThreadPool
    log: DaemonThreadPool

    @classmethod
    def of(cls, max_concurrency: int) -> Pools:
        """Return the pools of one receiver."""
        return cls(
            DaemonThreadPool(max_concurrency, on_full="refuse", name="optimove-handler"),
            DaemonThreadPool(_STORE_PLACES, on_full="queue", name="optimove-store"),
            # Of its own: a log that hangs must not keep the claim store waiting.
            DaemonThreadPool(_STORE_PLACES, on_full="queue", name="optimove-log"),
        )


def run(flow: Flow[R], *, call: Callable[..., Any] | None = None, pools: Pools | None = None) -> R:
    """Run a flow to its end in this thread.

    Args:
        flow: The flow.
        call: Sends an operation, for flows that ask Optimove; takes `deadline=` if one of them sets it.
        pools: Thread pools for effects with a deadline, for flows that have some.

    Returns:
        The flow's result.
    """
    interruption = _DeferredCancellation()
    try:
        effect = next(flow)
        while True:
            try:
                interruption.raise_if_set()
                answer = _perform(effect, call, pools, interruption)
            except BaseException as error:  # noqa: BLE001 - the flow decides what it means
                effect = flow.throw(_throwable(error))
            else:
                effect = flow.send(answer)
    except StopIteration as end:
        interruption.raise_if_set()
        result: R = end.value
        return result
    finally:
        flow.close()


def _options(effect: Call, run: Callable[[Flow[None]], object]) -> dict[str, Any]:
    options: dict[str, Any] = {} if effect.deadline is None else {"deadline": effect.deadline}
    if (flow := effect.before_send) is not None:
        options["before_send"] = lambda: run(flow())
    return options


def _throwable(error: BaseException) -> BaseException:
    # A generator ends with a StopIteration that passes through it, or turns it into a RuntimeError.
    return as_exception(error) if isinstance(error, StopIteration) else error


def _perform(
    effect: Call | Ask,
    call: Callable[..., Any] | None,
    pools: Pools | None,
    interruption: _DeferredCancellation,
) -> object:
    if isinstance(effect, Call):
        assert call is not None  # noqa: S101 - the flow's driver was set up without a client
        return call(effect.operation, **_options(effect, run))
    if effect.within is None:
        return effect.function(*effect.arguments)
    assert pools is not None  # noqa: S101 - the flow's driver was set up without pools
    if effect.whose == "future":
        future = effect.function(*effect.arguments)
    else:
        future = getattr(pools, effect.whose).submit(effect.function, effect.arguments)
    defer = None if effect.whose == "handler" else functools.partial(interruption.defer, effect.within)
    flow = effect.meanwhile
    meanwhile = None if flow is None else lambda: run(flow(), pools=pools)
    return not_awaitable(result_by(future, effect.within, defer=defer, meanwhile=meanwhile, every=effect.every))


async def arun(flow: Flow[R], *, call: Callable[..., Awaitable[Any]] | None = None, pools: Pools | None = None) -> R:
    """Run a flow to its end in this task; see `run`."""
    interruption = _DeferredCancellation()
    try:
        effect = next(flow)
        while True:
            try:
                if interruption.error is not None:
                    interruption.raise_if_set()
                if isinstance(effect, Call):
                    assert call is not None  # noqa: S101 - the flow's driver was set up without a client
                    answer = await call(effect.operation, **_options(effect, arun))
                elif effect.within is None:
                    answer = effect.function(*effect.arguments)
                    if _may_be_awaitable(answer) and inspect.isawaitable(answer):
                        answer = await answer
                else:
                    answer = await _ask_in_time(effect, effect.within, pools, interruption)
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: BLE001 - the flow decides what it means
                effect = flow.throw(_throwable(error))
            else:
                effect = flow.send(answer)
    except StopIteration as end:
        interruption.raise_if_set()
        result: R = end.value
        return result
    finally:
        flow.close()


@final
class _DeferredCancellation:
    """A cancellation, or another interruption of the caller, deferred while a call to a store is pending.

    A claim that is made in a thread is made whether a caller waits for it or not. The flow must learn of it to release
    it; otherwise that notification could not be answered any more.
    """

    __slots__ = ("_until", "error")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._until: Deadline | None = None

    def defer(self, deadline: Deadline, error: BaseException) -> Deadline:
        """Keep the first interruption, and return the deadline for the store's result."""
        if self.error is None or self._until is None:
            self.error = error
            self._until = Deadline.after(min(deadline.remaining(), _LAST_WORDS))
        return self._until

    def raise_if_set(self) -> None:
        """Raise the deferred interruption, if there is one."""
        error, self.error = self.error, None
        if error is not None:
            raise error


def _may_be_awaitable(answer: object) -> bool:
    # Quicker than `inspect.isawaitable`, and never False where that is True: what is awaited has the method, or is a
    # generator that `types.coroutine` has marked.
    return hasattr(type(answer), "__await__") or isinstance(answer, GeneratorType)


async def _ask_in_time(
    effect: Ask, within: Deadline, pools: Pools | None, interruption: _DeferredCancellation
) -> object:
    assert pools is not None  # noqa: S101 - the flow's driver was set up without pools
    if effect.whose == "future":
        return await _wait(asyncio.wrap_future(effect.function(*effect.arguments)), effect, within, pools, interruption)
    pool: DaemonThreadPool = getattr(pools, effect.whose)
    if effect.whose != "log" and is_async(effect.function):  # `check_log` has refused such a log
        answer = await _in_time(effect.function, effect.arguments, effect, within, pools, interruption)
    else:
        future = asyncio.wrap_future(pool.submit(effect.function, effect.arguments))
        answer = await _wait(future, effect, within, pools, interruption)
        if isinstance(coroutine := answer, CoroutineType):  # a lambda around a coroutine function, say
            try:
                answer = await _in_time(lambda: coroutine, (), effect, within, pools, interruption)
            finally:
                if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                    coroutine.close()  # or Python would warn that it was never awaited
    return not_awaitable(answer)


async def _in_time(
    function: Callable[..., Awaitable[Any]],
    arguments: tuple[Any, ...],
    effect: Ask,
    within: Deadline,
    pools: Pools,
    interruption: _DeferredCancellation,
) -> object:
    """Call a coroutine function in a task of its own, so that one which ignores its cancellation is abandoned."""
    pool: DaemonThreadPool = getattr(pools, effect.whose)
    pool.acquire()
    coroutine = _contained(function, arguments)
    try:
        task = start_task(coroutine)
    except BaseException:  # of the application's task factory
        pool.release()
        raise
    if task.done():  # it did not wait for anything
        pool.release()
        answer = result_of(task)
    else:
        task.add_done_callback(pool.release)
        try:
            starting = inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
            answer = await _wait(task, effect, within, pools, interruption, starting=starting)
        except Late:
            overdue = within.overdue
            raise Late(blocked=overdue if overdue > _STANDSTILL else 0.0) from None
    if effect.whose == "handler" and (overdue := within.overdue) > _STANDSTILL:
        raise Late(blocked=overdue)
    return answer


_MAY_BE_DONE_AT_ONCE: Final = sys.version_info >= (3, 12, 5)
"""In Python 3.12.0 to 3.12.4, `Task.get_coro` of a task that was done at once crashes the interpreter.

Source: github.com/python/cpython/issues/122332.
"""


def start_task(coroutine: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
    """Start a task, and run it at once until it waits for something; what never waits is done when this returns.

    So it costs no turn of the event loop. It is a task like any other: in it `asyncio.current_task`, `asyncio.timeout`,
    context variables and cancellation work as ever. It starts in the next turn where Python cannot do that, in an event
    loop whose task factory the application has set, which makes its tasks itself, and while the caller handles an
    exception, which the coroutine would see in `sys.exception()`, and its exceptions in their `__context__`.
    """
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12) and _MAY_BE_DONE_AT_ONCE and sys.exception() is None:
        if loop.get_task_factory() is None:
            return asyncio.Task(coroutine, loop=loop, eager_start=True)
    try:
        return loop.create_task(coroutine)
    except BaseException:
        coroutine.close()  # or Python would warn that it was never awaited
        raise


def _wait(
    future: asyncio.Future[Any],
    effect: Ask,
    within: Deadline,
    pools: Pools,
    interruption: _DeferredCancellation,
    *,
    starting: bool = False,
) -> Awaitable[object]:
    """Return what waits for a future, as the effect wants it."""
    defer = None if effect.whose == "handler" else functools.partial(interruption.defer, within)
    flow = effect.meanwhile
    meanwhile = None if flow is None else lambda: arun(flow(), pools=pools)
    return aresult_by(future, within, defer=defer, meanwhile=meanwhile, every=effect.every, starting=starting)


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Keep what a user's coroutine raises inside its task, as a thread does: entered in the task, around the `await`.

    asyncio lets SystemExit and KeyboardInterrupt out of a task and through the event loop, which ends the server. A
    coroutine that raises CancelledError of itself has failed; only when its task is cancelled has it not.
    """
    try:
        yield
    except BaseException as error:
        carrier = _carrier(error)
        if carrier is None:
            raise
        raise carrier  # noqa: B904 - its cause is what was raised


async def _contained(function: Callable[..., Awaitable[R]], arguments: tuple[Any, ...]) -> R:
    try:  # not `contained()`: a generator costs more than all the rest here
        return await function(*arguments)
    except BaseException as error:
        carrier = _carrier(error)
        if carrier is None:
            raise
        raise carrier  # noqa: B904 - its cause is what was raised


def _carrier(error: BaseException) -> Exception | None:
    """Return what carries an exception out of a coroutine's task; None for one that may leave as it is."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return None if task is not None and task.cancelling() else as_exception(error)
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return as_exception(error)
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration | StopAsyncIteration):
        return as_exception(error.__cause__)  # what Python makes of one in a coroutine
    return None


def not_awaitable(answer: object) -> object:
    """Return the value; a coroutine that will not be awaited is an invalid return value, and the flow says so."""
    if isinstance(answer, CoroutineType):
        answer.close()  # or Python would warn that it was never awaited
    return answer
