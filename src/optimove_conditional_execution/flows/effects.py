"""What a flow can want from the world. Two kinds are enough."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from ..deadline import Deadline
from ..operations import Operation

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Call:
    """Ask Optimove: send an operation and answer with its result, or throw its error.

    Attributes:
        operation: The call.
        deadline: When it must be done; None leaves that to whoever runs the flow.
    """

    operation: Operation[Any]
    deadline: Deadline | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask somebody else: the user's code, a store, the client.

    Attributes:
        function: What to call; in async drivers it may be, or return, a coroutine.
        arguments: Its positional arguments.
        within: When given, the call runs in a pool and is given up at this deadline, and `Late` is thrown. When None,
            it is called in place; the function itself must be quick or bounded.
        whose: The pool. A handler's is small and full at some point: then `Overloaded` is thrown at once. A store's
            makes callers wait for their turn, until their deadline.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    within: Deadline | None = None
    whose: Literal["handler", "store"] = "handler"


Effect = Call | Ask
Flow = Generator[Effect, Any, R]


class Late(Exception):  # noqa: N818 - a signal between driver and flow, never raised to users
    """What was asked did not answer within its deadline.

    Attributes:
        blocked: Seconds for which a coroutine held its event loop past the deadline; 0 when it did not.
    """

    def __init__(self, *, blocked: float = 0.0) -> None:
        super().__init__()
        self.blocked = blocked


class Overloaded(Exception):  # noqa: N818 - as above
    """Every place of the handlers' pool is taken."""


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
