"""Effects that a flow yields to its driver: `Call` and `Ask`."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..deadline import Deadline
from ..operations import Operation

R = TypeVar("R")


@dataclass(slots=True)  # not frozen: that makes it four times as expensive, and a notification has several
class Call:
    """Send an operation to Optimove; the driver sends its result back, or throws its error.

    Attributes:
        operation: The operation.
        deadline: Its deadline; None leaves that to the driver.
        before_send: Makes a flow that the driver runs before each request; it raises `HeldBackError` to end the call.
    """

    operation: Operation[Any]
    deadline: Deadline | None = None
    before_send: Callable[[], Flow[None]] | None = None


@dataclass(slots=True)
class Ask:
    """Call a function: the user's code, a store, the client.

    Attributes:
        function: What to call; in async drivers it may be, or return, a coroutine.
        arguments: Its positional arguments.
        within: With a deadline, the call runs in a pool and is abandoned at the deadline, and `Late` is thrown. With
            None, it is called in place; the function itself must be quick or bounded.
        whose: The pool. The handlers' pool is bounded, and when it is full, `Overloaded` is thrown at once. The stores'
            pool, and that of the decision log, queue callers until their deadline. `"future"` needs none: the function
            does not block, and returns a future.
        meanwhile: Makes a flow that the driver runs each time the call, which has a deadline, has gone on for another
            `every` seconds, unless fewer are left.
        every: Seconds; also how long that flow may take.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    within: Deadline | None = None
    whose: Literal["handler", "store", "log", "future"] = "handler"
    meanwhile: Callable[[], Flow[None]] | None = None
    every: float = math.inf


Effect = Call | Ask
Flow = Generator[Effect, Any, R]


class Late(Exception):  # noqa: N818 - a signal between driver and flow, never raised to users
    """An `Ask` did not return by its deadline.

    Attributes:
        blocked: Seconds for which a coroutine blocked its event loop past the deadline; 0 when it did not.
    """

    def __init__(self, *, blocked: float = 0.0) -> None:
        super().__init__()
        self.blocked = blocked


class Overloaded(Exception):  # noqa: N818 - as above
    """All workers of the handlers' pool are busy."""


def as_exception(error: BaseException) -> Exception:
    """Return an exception that a future and a generator can carry: neither StopIteration nor SystemExit is one."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    carrier = WrappedBaseException(type(error).__name__)
    carrier.__cause__ = error
    return carrier


class WrappedBaseException(RuntimeError):  # noqa: N818 - never raised for what it is
    """Stands in for an exception that a future or a generator cannot carry; its text is the other's name."""


def original(error: BaseException) -> BaseException:
    """Return what was raised, also when it came in a `WrappedBaseException`."""
    return error.__cause__ or error if isinstance(error, WrappedBaseException) else error


def exception_name(error: BaseException) -> str:
    """Return the name of the class of what was raised, also when it came in a `WrappedBaseException`."""
    return type(original(error)).__name__
