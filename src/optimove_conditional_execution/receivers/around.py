"""A context manager of the integrator's around each call of their function, in the thread or task that runs it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, final

from optimove_conditional_execution.drivers import is_async
from optimove_conditional_execution.errors import ConfigurationError

Around = Callable[[], AbstractContextManager[Any] | AbstractAsyncContextManager[Any]]


def surrounded(function: Callable[..., Any], around: Around | None) -> Callable[..., Any]:
    """Return a function that enters a context manager, calls the given one, and leaves.

    What is raised on the way in or out is raised, so an answer counts only if leaving succeeded. What the function
    raised is raised too, even if the context manager suppresses it: else a failure could become an answer.

    Args:
        function: The integrator's function, plain or a coroutine function.
        around: Makes the context manager; with None the function is returned as it is.
    """
    if around is None:
        return function
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
        given: Any = around()
        async with given if hasattr(type(given), "__aenter__") else _Awaited(given):
            try:
                return await function(*arguments)
            except BaseException as error:
                raised = error
                raise
        raise raised  # the context manager has suppressed it

    return call


@final
class _Awaited(AbstractAsyncContextManager[Any]):
    """A plain context manager for `async with`."""

    def __init__(self, manager: AbstractContextManager[Any]) -> None:
        self._manager = manager

    async def __aenter__(self) -> Any:
        return self._manager.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._manager.__exit__(kind, error, traceback)
