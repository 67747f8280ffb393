"""Keep secrets out of the local variables that error trackers record with a traceback."""

from __future__ import annotations

import functools
import inspect
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

_PACKAGE: Final = __name__.partition(".")[0]


def clear_locals(error: BaseException, *, handled: BaseException | None = None) -> None:
    """Clear the local variables of all frames that an error has left, and those of its causes; lines and names stay.

    Many frames of an HTTP library hold the unmasked request in local variables, and trackers record their `repr`.

    Args:
        error: What was raised, before it is raised again.
        handled: The exception that was being handled when the failed work began. It is the caller's, and left as it is.
    """
    pending: list[BaseException | None] = [error]
    seen = {id(None), id(handled)}
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        traceback.clear_frames(each.__traceback__)
        pending += (each.__cause__, each.__context__)
        if isinstance(each, BaseExceptionGroup):
            pending += each.exceptions


def clear_own_locals(error: BaseException) -> None:
    """Clear the local variables of the SDK's frames alone: those of servers and middlewares are not ours to touch.

    Args:
        error: What was raised, before it is raised again.
    """
    walk = error.__traceback__
    while walk is not None:
        if str(walk.tb_frame.f_globals.get("__name__", "")).partition(".")[0] == _PACKAGE:
            with suppress(RuntimeError):  # it still runs
                walk.tb_frame.clear()
        walk = walk.tb_next


def sensitive_variables(function: F) -> F:
    """Decorate a function that is given secrets, so that no frame of an error which it raises shows them.

    Django has a decorator of this name for its own error reports; this one works for every tracker.
    """
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def acall(*args: Any, **kwargs: Any) -> Any:
            handled = sys.exception()
            try:
                return await function(*args, **kwargs)
            except BaseException as error:
                del args, kwargs
                clear_locals(error, handled=handled)
                raise

        return cast("F", acall)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        handled = sys.exception()
        try:
            return function(*args, **kwargs)
        except BaseException as error:
            del args, kwargs
            clear_locals(error, handled=handled)
            raise

    return cast("F", call)
