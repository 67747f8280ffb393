"""Shared by all receivers: the base class, `around=`, and background tasks that outlive a cancelled request."""

from __future__ import annotations

import abc
import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack
from typing import Any, Final, NoReturn, Protocol, TypeVar

from .. import validation
from ..deadline import Deadline
from ..errors import ConfigurationError
from ..flows.claims import ClaimStore
from ..messages import Request, Response
from ..validation import is_async

R = TypeVar("R")
Answer = TypeVar("Answer", covariant=True)

DRAIN_SECONDS: Final = 10.0
"""Seconds that `drain` waits: more than most tenants' timeout, less than most supervisors give a process to stop."""


class Receiver(Protocol[Answer]):
    """The interface that adapters call: a receiver, or any other object that answers requests."""

    @property
    def max_body(self) -> int:
        """Maximum size of a request body in bytes."""
        ...

    def too_large(self) -> Response:
        """Return the response to a request with a larger body."""
        ...

    def handle(self, request: Request) -> Answer:
        """Answer a request with a `Response`, or an awaitable of one."""
        ...


def check_store(claims: object) -> None:
    """Reject what is no claim store.

    Raises:
        ConfigurationError: It lacks an attribute of `ClaimStore`, or is the class itself.
    """
    # A stand-in that passes everything on shows what it has only when it is called.
    if isinstance(claims, type) or not (hasattr(type(claims), "__getattr__") or isinstance(claims, ClaimStore)):
        raise ConfigurationError(
            "claims must be a ClaimStore, such as stores.MemoryClaims(): an object with the attribute instant and the "
            "methods acquire, renew, update and release."
        )


def flavour_for_loop(claims: ClaimStore) -> ClaimStore:
    """Return a store as an event loop calls it: its `asynchronous`, if it has one."""
    asynchronous = getattr(claims, "asynchronous", None)
    return asynchronous if isinstance(asynchronous, ClaimStore) else claims


class BaseReceiver(abc.ABC):
    """Base class of every receiver: sync or async, for notifications or for events."""

    _max_body: int

    @property
    def max_body(self) -> int:
        """Maximum size of a request body in bytes; adapters stop reading there."""
        return self._max_body

    @abc.abstractmethod
    def too_large(self) -> Response:
        """Return the response to a request whose body an adapter has not read completely, and record it."""

    def __reduce__(self) -> NoReturn:
        """Reject pickling and copying.

        Raises:
            TypeError: Always, as for everything that cannot be pickled.
        """
        raise TypeError(
            f"A {type(self).__name__} cannot be pickled or copied: it holds threads, connections and claims of this "
            "process. Make one in each process, as in a function that your server calls at its start."
        )


def check_arguments(request: object, deadline: object) -> None:
    """Reject arguments of `handle` such as a framework's own request.

    Raises:
        ConfigurationError: There is no `Request`, or the deadline is neither a `Deadline` nor None.
    """
    if not isinstance(request, Request):
        raise ConfigurationError(
            f"handle needs a Request(method, path, query, headers, body), not a {type(request).__name__}: "
            "build it from your framework's request, with the raw body."
        )
    if deadline is not None and not isinstance(deadline, Deadline):
        raise ConfigurationError("handle's deadline must be a Deadline, such as Deadline.after(seconds), or None.")


def refuse_running_loop(receiver: str) -> None:
    """Reject a call that would block a running event loop.

    Raises:
        ConfigurationError: An event loop is running in this thread.
    """
    try:
        # Not `get_running_loop`: under gevent a thread's greenlets all see the loop that one of them runs.
        task = asyncio.current_task()
    except RuntimeError:
        return
    if task is not None:
        raise ConfigurationError(
            f"{receiver}.handle blocks, so it must not be called in an event loop, as in an async view: use "
            f"Async{receiver}, or call it in a thread, as with await asyncio.to_thread(receiver.handle, request)."
        )


Around = Callable[[], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]]


def with_context(function: Callable[..., Any], around: Around | None) -> Callable[..., Any]:
    """Return a function that calls the given one inside a context manager.

    What `__enter__` or `__exit__` raises propagates, so a result counts only if `__exit__` succeeded. What the function
    raised propagates even if the context manager suppresses it: otherwise a failure could become a result.

    Args:
        function: The integrator's function, plain or a coroutine function.
        around: Makes the context manager; with None the function is returned as it is.

    Raises:
        ConfigurationError: `around` is not a function without arguments, or is a coroutine function.
    """
    if around is None:
        return function
    validation.check_callable("around", around)
    if is_async(around):
        raise ConfigurationError(
            "around must be a function that returns a context manager; decorate an async generator function with "
            "contextlib.asynccontextmanager."
        )
    return _around_coroutine(function, around) if is_async(function) else _around_call(function, around)


def _around_call(function: Callable[..., Any], around: Around) -> Callable[..., Any]:
    @functools.wraps(function, updated=())
    def call(*arguments: Any) -> Any:
        manager: Any = around()
        if not hasattr(type(manager), "__enter__"):
            raise ConfigurationError(
                f"around= must return a context manager for a plain function, not {type(manager).__name__}; an "
                "asynchronous one is for a coroutine function."
            )
        with manager:
            try:
                answer = function(*arguments)
                if inspect.iscoroutine(answer):
                    answer.close()
                    raise ConfigurationError(
                        "With around= a function that returns a coroutine must itself be a coroutine function, or what "
                        "it awaits would run outside of the context manager."
                    )
            except BaseException as error:
                raised = error
                raise
            return answer
        raise raised  # the context manager has suppressed it

    return call


def _around_coroutine(function: Callable[..., Any], around: Around) -> Callable[..., Any]:
    @functools.wraps(function, updated=())
    async def call(*arguments: Any) -> Any:
        manager: Any = around()
        async with AsyncExitStack() as stack:
            if hasattr(type(manager), "__aenter__"):
                await stack.enter_async_context(manager)
            else:
                stack.enter_context(manager)
            try:
                return await function(*arguments)
            except BaseException as error:
                raised = error
                raise
        raise raised  # the context manager has suppressed it

    return call


class BackgroundTasks:
    """Strong references to running tasks: asyncio itself holds only weak ones."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """Create a task for a coroutine, with the caller's context variables."""
        try:
            task = asyncio.create_task(coroutine)
        except BaseException:  # of the application's task factory
            coroutine.close()  # or Python would warn that it was never awaited
            raise
        self.keep(task)
        return task

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Keep a task that is running."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self, within: float) -> bool:
        """Wait until the tasks of this event loop are done, including those started in the meantime.

        Args:
            within: Seconds at most.

        Returns:
            Whether they are done.

        Raises:
            ConfigurationError: `within` is not a number of 0 or more.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + validation.seconds("within", within)
        while tasks := [task for task in list(self._tasks) if task.get_loop() is loop]:
            left = end - loop.time()
            if left <= 0:
                return False
            await asyncio.wait(tasks, timeout=None if left == float("inf") else left)
            await asyncio.sleep(0)  # so that done callbacks remove them from the set
        return True
