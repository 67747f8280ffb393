"""Receivers for listener events, sync and async: the wiring of `flows.listener`.

A file of its own, since the flow does no IO, and a receiver starts threads and tasks.
"""

from __future__ import annotations

import abc
import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, Final, Literal

from pydantic import SecretStr

from ..deadline import Deadline
from ..drivers import arun, contained, run
from ..errors import ConfigurationError
from ..flows.effects import exception_name
from ..flows.listener import (
    Answer,
    EventDeduplicator,
    EventFunction,
    EventOutcome,
    Handover,
    ListenerContext,
    answer_event,
    event_too_large,
)
from ..fork import detect_fork, reset_after_fork
from ..listener_token import ListenerToken
from ..messages import Request, Response, plain
from ..models.events import CampaignReadyEvent, ListenerEvent
from ..observers import SafeLogger, notify
from ..signature import Unsigned
from ..tracebacks import sensitive_variables
from ..transport.connection_pool import running_loop
from ..validation import check_callable, integer, is_async, seconds, warn_of_copies
from ..worker_pool import DaemonThreadPool
from .base import (
    DRAIN_SECONDS,
    Around,
    BackgroundTasks,
    BaseReceiver,
    check_arguments,
    refuse_running_loop,
    with_context,
)

MAX_BODY: Final = 65_536
"""Maximum size of an event in bytes; Optimove's sample has 156."""

ANSWER_WITHIN: Final = 0.5
LONGEST_WAIT: Final = 3_600.0
PLACES: Final = 16
"""Events whose functions run concurrently; further ones get a 503."""

_LOGGER: Final = SafeLogger("listener")
_LARGEST_ID: Final = 2**63
_EXPECTED: Final = frozenset({"taken", "running", "duplicate", "ignored"})


class _Listener(BaseReceiver):
    """Base class of both listener receivers."""

    @sensitive_variables
    def __init__(
        self,
        on_ready: Callable[[CampaignReadyEvent], object],
        *,
        token: str | SecretStr | Literal[Unsigned.UNSIGNED],
        on_event: Callable[[ListenerEvent], object] | None = None,
        answer_within: float = ANSWER_WITHIN,
        max_body: int = MAX_BODY,
        around: Around | None = None,
        token_header: str | None = None,
        on_outcome: Callable[[EventOutcome], None] | None = None,
    ) -> None:
        """Set up a receiver for a function.

        Args:
            on_ready: Called with each campaign that waits for its clearance; `CampaignReview.submit` is made for it.
                What it returns does not matter. When it returns, the event must be stored where it outlives the
                process, since it is acknowledged with 200. When it raises, the response is 503. A plain function runs
                in a daemon thread; `AsyncListenerReceiver` takes coroutine functions too, which run in the event loop.
            token: The secret text in the URL that you registered: its parameter `token`, or its last path segment;
                here without percent-encoding. Letters, digits, `-` and `_` stay what they are in any URL. `UNSIGNED`
                when the URL holds none: then anybody who knows it can start a review. Text, or pydantic's `SecretStr`.
            on_event: Called with the events of every other type in the same way; without it they are answered 200.
            answer_within: Seconds, an hour at most. A function that takes longer goes on in the background, and the
                answer is 200.
            max_body: Bytes of an event at most.
            around: Makes a context manager that is entered around each call of your functions, in the thread that runs
                them; an asynchronous one is taken for coroutine functions. What it raises counts as raised by the
                function; what it suppresses does too.
            token_header: The name of a header, in letters, digits and dashes. Then the token is looked for in this
                header and not in the URL: for a proxy that takes it out of the URL and sets it as a header, so that it
                is in no access log behind it.
            on_outcome: Called with the outcome of every POST, in the thread or event loop that answers it; in an event
                loop it must not block.

        Raises:
            ConfigurationError: A setting is invalid.
        """
        self._check_function("on_ready", on_ready)
        if on_event is not None:
            self._check_function("on_event", on_event)
        if on_outcome is not None and (is_async(on_outcome) or not callable(on_outcome)):
            raise ConfigurationError("on_outcome must be a function of an EventOutcome, not a coroutine function.")
        self._on_outcome = on_outcome
        within = min(seconds("answer_within", answer_within), LONGEST_WAIT)
        self._max_body = integer("max_body", max_body)
        secret = ListenerToken(token, header=token_header)
        if secret.expected is not None:
            warn_of_copies(_LOGGER, "the listener's token", [secret.expected])
        # pydantic builds models at first use, and the first event must not wait for that.
        for model in (ListenerEvent, CampaignReadyEvent):
            model.model_rebuild()
        self._pool = DaemonThreadPool(PLACES, on_full="refuse", name="optimove-listener")
        self._context = ListenerContext(
            token=secret,
            on_ready=with_context(on_ready, around),
            on_event=None if on_event is None else with_context(on_event, around),
            start=self._start,
            wait=self._wait,
            answer_within=within,
            max_body=max_body,
            deduplicator=EventDeduplicator(),
            log=self._record,
        )
        reset_after_fork(self._context.deduplicator)
        self._set_up()

    def _check_function(self, name: str, function: object) -> None:
        check_callable(name, function, "event")

    def _set_up(self) -> None:
        """Create the resources of the subclass."""

    @abc.abstractmethod
    def _start(self, function: EventFunction, event: ListenerEvent, handover: Handover, /) -> None:
        """Start a function, and end the handover when it is done."""

    @abc.abstractmethod
    def _wait(self, taken: Future[bool], within: float, /) -> Awaitable[None] | None:
        """Wait for a handover, at most `within` seconds."""

    def too_large(self) -> Response:
        """Return the response to a request whose body an adapter has not read completely, and log it."""
        return self._finish(event_too_large(self._max_body))

    def _finish(self, answer: Answer) -> Response:
        response, outcome = answer
        if outcome is not None:
            self._record(outcome)
        return response

    def _record(self, outcome: EventOutcome) -> None:
        _log(outcome)
        if self._on_outcome is not None:
            notify("on_outcome", self._on_outcome, outcome, _LOGGER)

    def _crashed(self, error: Exception) -> Response:
        # No known request reaches this. It fails closed, and logs no traceback, which could quote data.
        what = f"The delivery failed inside the SDK: {exception_name(error)}"
        return self._finish((plain(503, "Not available."), EventOutcome("failed", 503, error=what)))

    def _ended(self, event: ListenerEvent, handover: Handover, error: BaseException | None) -> None:
        try:
            if error is not None:
                name = "on_ready" if isinstance(event, CampaignReadyEvent) else "on_event"
                _LOGGER.error("%s %s; a repeat of the event is handed over again%s", name, _how(error), _of(event))
        finally:
            self._context.deduplicator.end(handover, taken=error is None)


class ListenerReceiver(_Listener):
    """Receives the events of scheduled campaigns in threads, and hands each one over once.

    Mount it with `adapters.wsgi.WSGIApp`, `adapters.aws_lambda.lambda_handler`, or by calling `handle` in a view of
    your framework; register its URL with `OptimoveClient.ensure_event_listener`.

    The same event again is answered 200 and not handed over again; the last 10,000 are remembered, in this process. An
    event whose function raised is forgotten, so a repeat is handed over again, also when that was in the background.

    In AWS Lambda the process is frozen once it has answered, so nothing goes on in the background: `on_ready` must have
    stored the event when it returns, as `CampaignReview.submit` does, and `answer_within` must be longer than it takes.
    """

    def _check_function(self, name: str, function: object) -> None:
        if is_async(function):
            raise ConfigurationError(f"An async {name} needs AsyncListenerReceiver; ListenerReceiver calls a function.")
        super()._check_function(name, function)

    def _start(self, function: EventFunction, event: ListenerEvent, handover: Handover, /) -> None:
        started = self._pool.submit(_called, (function, event))
        # The response waits for the handover, which ends when the worker is free again.
        started.add_done_callback(lambda done: self._ended(event, handover, done.exception()))

    def _wait(self, taken: Future[bool], within: float, /) -> None:
        concurrent.futures.wait([taken], timeout=within)

    def handle(self, request: Request, *, deadline: Deadline | None = None) -> Response:
        """Answer a request; blocks for `answer_within` at most.

        Args:
            request: As your framework received it, with path, query and the raw body.
            deadline: When this must return, on a host with a time limit of its own, such as AWS Lambda. An event whose
                function has not returned by then is answered 503, since nothing goes on in the background.

        Returns:
            The response for your framework to send. No request, whatever it holds, makes it raise.

        Raises:
            ConfigurationError: `request` is your framework's request, not a `Request`; or it was called in an event
                loop, which it would block.
        """
        check_arguments(request, deadline)
        refuse_running_loop("ListenerReceiver")
        detect_fork()
        try:
            answer = run(answer_event(request, self._context, host=deadline))
        except Exception as error:  # noqa: BLE001 - fail closed, whatever it is
            return self._crashed(error)
        return self._finish(answer)


class AsyncListenerReceiver(_Listener):
    """Receives the events of scheduled campaigns in an event loop, and hands each one over once.

    Mount it with `adapters.asgi.ASGIApp`; register its URL with `AsyncOptimoveClient.ensure_event_listener`. What holds
    for `ListenerReceiver` holds here too. A request that is cancelled does not cancel the function; an event loop that
    ends does, and the event counts as not taken.
    """

    def _set_up(self) -> None:
        # A task occupies a worker until it ends; a thread that outlives its event loop keeps its own.
        self._places = DaemonThreadPool(PLACES, on_full="refuse", name="optimove-listener-task")
        self._tasks = BackgroundTasks()

    def _start(self, function: EventFunction, event: ListenerEvent, handover: Handover, /) -> None:
        self._places.acquire()
        thread: Future[Any] | None = None
        try:
            thread = None if is_async(function) else self._pool.submit(function, (event,))
            task = self._tasks.start(_awaited(function, event, thread))
        except BaseException:
            self._places.release()
            if thread is not None:
                thread.cancel()
            raise
        task.add_done_callback(functools.partial(self._task_ended, event, handover))

    def _task_ended(self, event: ListenerEvent, handover: Handover, task: asyncio.Task[None]) -> None:
        self._places.release()
        self._ended(event, handover, asyncio.CancelledError() if task.cancelled() else task.exception())

    async def _wait(self, taken: Future[bool], within: float, /) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()

        def wake(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # this loop has been closed
                loop.call_soon_threadsafe(ended.set)

        taken.add_done_callback(wake)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await ended.wait()

    async def handle(self, request: Request, *, deadline: Deadline | None = None) -> Response:
        """Answer a request; returns within `answer_within`.

        Args:
            request: As your framework received it, with path, query and the raw body.
            deadline: When this must return, on a host with a time limit of its own, such as AWS Lambda. An event whose
                function has not returned by then is answered 503, since nothing goes on in the background.

        Returns:
            The response for your framework to send. No request, whatever it holds, makes it raise.

        Raises:
            ConfigurationError: `request` is your framework's request, not a `Request`; or no event loop of asyncio is
                running.
        """
        check_arguments(request, deadline)
        running_loop("AsyncListenerReceiver")
        detect_fork()
        try:
            answer = await arun(answer_event(request, self._context, host=deadline))
        except Exception as error:  # noqa: BLE001 - fail closed, whatever it is
            return self._crashed(error)
        return self._finish(answer)

    async def drain(self, *, within: float = DRAIN_SECONDS) -> bool:
        """Wait for the functions that still run in the background of this event loop.

        Call it at shutdown; `ASGIApp` does, where the server sends lifespan events.

        Args:
            within: Seconds at most.

        Returns:
            Whether all are done. A function that is cancelled by the end of the event loop counts as failed.

        Raises:
            ConfigurationError: `within` is not a number of 0 or more.
        """
        return await self._tasks.drain(within)


class _UnawaitedError(Exception):
    """A plain function returned a coroutine, which a sync receiver cannot await."""


def _called(function: EventFunction, event: ListenerEvent) -> None:
    answer = function(event)
    if inspect.iscoroutine(answer):
        answer.close()  # or Python would warn that it was never awaited
        raise _UnawaitedError


async def _awaited(function: EventFunction, event: ListenerEvent, thread: Future[Any] | None) -> None:
    with contained():
        answer = function(event) if thread is None else await asyncio.wrap_future(thread)
        if inspect.isawaitable(answer):  # from a coroutine function, or from a lambda around one
            await answer


def _how(error: BaseException) -> str:
    if isinstance(error, _UnawaitedError):
        return "returned a coroutine, which only AsyncListenerReceiver awaits"
    return f"raised {exception_name(error)}"  # its message may quote personal data


def _log(outcome: EventOutcome) -> None:
    expected = outcome.kind in _EXPECTED and outcome.status == 200
    event = outcome.event
    _LOGGER.log(
        logging.INFO if expected else logging.WARNING,
        "%s status=%d%s%s",
        outcome.kind,
        outcome.status,
        "" if event is None else _of(event),
        "" if outcome.error is None else f" ({outcome.error})",
        extra={
            "optimove_kind": outcome.kind,
            "optimove_status": outcome.status,
            "optimove_event_type_id": None if event is None else _id(event.event_type_id),
            "optimove_campaign_id": None if event is None else _id(event.campaign_id),
        },
    )


def _of(event: ListenerEvent) -> str:
    kind, campaign = _id(event.event_type_id), _id(event.campaign_id)
    stamp = None if event.timestamp is None else event.timestamp.isoformat()
    return f" EventTypeID={kind} CampaignID={campaign} TimeStamp={stamp}"


def _id(value: object) -> int | None:
    # In undocumented events the value can be of any type.
    return value if isinstance(value, int) and abs(value) <= _LARGEST_ID else None
