"""A shadow: a second handler or reviewer, such as a new rule, whose answer is recorded and never counts.

It is asked about what the real one was asked, after that has answered, in few threads or tasks of its own, so that it
can neither delay nor fail the answer. What it has no room for is dropped, and counted.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Generic, TypeVar, final

from ..deadline import Deadline
from ..drivers import contained, not_awaitable
from ..errors import ConfigurationError
from ..flows.decision_log import DecisionLog
from ..flows.effects import Late
from ..fork import detect_fork, reset_after_fork
from ..observers import SafeLogger, notify
from ..validation import check_callable, integer, is_async, seconds
from ..worker_pool import DaemonThreadPool, Submit, aresult_by, native_lock
from .asked import Asked, ShadowAnswer

F = TypeVar("F", bound=Callable[..., Any], covariant=True)

_LOGGER: Final = SafeLogger("shadow")

_POLL_SECONDS: Final = 0.01


@final
class Shadow(Generic[F]):
    """A shadow with settings; pass it as `shadow=` to a receiver or a review. Thread-safe.

    The decision log of the receiver or review gets a record of kind `shadow` for each notification, and for each
    customer of a review about whom the two differ. What the shadow raises, and how late it is, is recorded too.

    A plain function that hangs keeps its thread; a coroutine is cancelled when it is late. A coroutine runs in the
    event loop of the receiver, so it must not block: nothing but another process protects an event loop from that.
    """

    def __init__(
        self,
        function: F,
        *,
        max_concurrency: int = 4,
        timeout: float | None = None,
        on_answer: Callable[[ShadowAnswer], None] | None = None,
    ) -> None:
        """Make a shadow of a handler, or of a reviewer.

        Args:
            function: The handler or the reviewer.
            max_concurrency: How many of its calls run at the same time, late ones included. Further ones are dropped.
            timeout: Seconds for a call. None: as many as the handler had; for a batch of a review 60.
            on_answer: Called with each answer, in the thread or the event loop of the shadow, such as
                `telemetry.Telemetry.on_shadow`.

        Raises:
            ConfigurationError: A setting is invalid.
        """
        from ..flows import reviewer_answer  # noqa: F401 - loaded now, and not by the first answer, in an event loop

        if not callable(function):
            raise ConfigurationError("shadow must be a handler or a reviewer.")
        if on_answer is not None and (is_async(on_answer) or not callable(on_answer)):
            raise ConfigurationError("on_answer must be a plain function of a ShadowAnswer.")
        self._function = function
        self._most = integer("max_concurrency", max_concurrency)
        self._timeout = None if timeout is None else seconds("timeout", timeout, above_zero=True)
        self._on_answer = on_answer
        self._pool = DaemonThreadPool(max_concurrency, on_full="queue", name="optimove-shadow")
        self._counts: Counter[tuple[str, str]] = Counter()
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Drop the parent's calls, which a child does not have."""
        self._lock = native_lock()
        self._busy = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def function(self) -> F:
        """The handler or the reviewer."""
        return self._function

    @property
    def counts(self) -> dict[tuple[str, str], int]:
        """Customers so far, by `ShadowAnswer.decided` and `ShadowAnswer.observed`."""
        with self._lock:
            return dict(self._counts)

    @property
    def dropped(self) -> int:
        """Customers so far about whom it was not asked."""
        return sum(count for (_, observed), count in self.counts.items() if observed == "dropped")

    def wait(self, *, within: float = 10.0) -> bool:
        """Wait until everything is answered and recorded; return whether it is. Not for an event loop: it blocks.

        Args:
            within: Seconds at most.

        Raises:
            ConfigurationError: `within` is not a number of seconds, 0 or more.
        """
        deadline = Deadline.after(seconds("within", within))
        while self._busy and not deadline.expired:
            time.sleep(min(_POLL_SECONDS, deadline.remaining()))
        return not self._busy

    def start(
        self,
        function: Callable[..., Any],
        asked: Asked,
        log: DecisionLog | None,
        through: Callable[[DaemonThreadPool], Any] = lambda pool: pool,
    ) -> None:
        """Ask, and return at once; whatever goes wrong is no error of the caller's.

        Args:
            function: The shadow as the receiver calls it.
            asked: What it is asked.
            log: The decision log; None without one.
            through: Returns what runs a plain function, in place of the shadow's pool.
        """
        detect_fork()
        submit: Submit = through(self._pool).submit
        with self._lock:
            is_full = self._busy >= self._most
            self._busy += not is_full
        if is_full:
            self._tell([asked.dropped()])
            return
        try:
            if is_async(function):
                task = asyncio.get_running_loop().create_task(self._await(function, asked, log, submit))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                submit(self._call, (function, asked, log))
        except Exception:  # noqa: BLE001 - no thread can be started, say
            self._leave()
            self._tell([asked.dropped()])

    def _call(self, function: Callable[..., Any], asked: Asked, log: DecisionLog | None) -> None:
        """Ask a plain function, in a thread."""
        try:
            deadline = self._deadline(asked)
            answer, error = None, None
            try:
                answer = not_awaitable(function(asked.about, deadline))
            except BaseException as raised:  # noqa: BLE001 - whatever it raises
                error = raised
            self._note(asked, log, answer, Late() if deadline.expired else error)
        finally:
            self._leave()

    async def _await(self, function: Callable[..., Any], asked: Asked, log: DecisionLog | None, submit: Submit) -> None:
        """Ask a coroutine function, in the event loop."""
        running: asyncio.Future[Any] | None = None
        try:
            deadline = self._deadline(asked)
            answer: Any = None
            error: BaseException | None = None
            try:
                running = asyncio.ensure_future(_contained(function(asked.about, deadline)))
                answer = await aresult_by(running, deadline)
                error = Late() if deadline.expired else None
            except asyncio.CancelledError:
                raise
            except BaseException as raised:  # noqa: BLE001 - whatever it raises
                error = raised
            if log is None:
                self._note(asked, log, answer, error)
            else:  # which may block on a disk
                await asyncio.wrap_future(submit(self._note, (asked, log, answer, error)))
        finally:
            if running is None or running.done():
                self._leave()
            else:  # it ignores its cancellation
                running.add_done_callback(lambda _: self._leave())

    def _deadline(self, asked: Asked) -> Deadline:
        return Deadline.after(asked.seconds if self._timeout is None else self._timeout)

    def _note(self, asked: Asked, log: DecisionLog | None, answer: object, error: BaseException | None) -> None:
        try:
            answers, records = asked.compare(answer, error)
            self._tell(answers)
            if log is not None and records:
                log.append(records)
        except Exception as raised:  # noqa: BLE001 - a log may raise anything
            _LOGGER.error("a shadow's answer could not be recorded: %s", type(raised).__name__)

    def _tell(self, answers: Sequence[ShadowAnswer]) -> None:
        with self._lock:
            for each in answers:
                self._counts[each.decided, each.observed] += each.customers
        if self._on_answer is not None:
            for each in answers:
                notify("on_answer", self._on_answer, each, _LOGGER)

    def _leave(self) -> None:
        with self._lock:
            self._busy -= 1


def as_shadow(given: F | Shadow[F], *parameters: str, owner: str, in_loop: bool) -> Shadow[F]:
    """Return the shadow of a receiver or a review, which may be given as a function.

    Args:
        given: As the integrator gave it.
        parameters: What it is called with.
        owner: The name of the class that calls plain functions alone.
        in_loop: Whether this is the other class, which takes coroutine functions too.

    Raises:
        ConfigurationError: It cannot be called so; or it is a coroutine function, and must not be one.
    """
    shadow: Shadow[F] = given if isinstance(given, Shadow) else Shadow(given)
    check_callable("shadow", shadow.function, *parameters)
    if is_async(shadow.function) and not in_loop:
        raise ConfigurationError(f"An async shadow needs Async{owner}; {owner} calls a function.")
    return shadow


async def _contained(coroutine: Coroutine[Any, Any, Any]) -> Any:
    with contained():
        return await coroutine
